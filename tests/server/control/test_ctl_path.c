/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ctl_path - where sockets are made and found, and that no other's file is harmed
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/control/ctl_listen.h"
#include "server/control/protocol/ctl_path.h"

#define NO_GROUP ((gid_t)-1)

static char folder[64];

static void setup(void)
{
	strcpy(folder, "/tmp/sameblk-test.XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	unsetenv("SAMEBLK_CONTROL_DIR");
	setenv("XDG_RUNTIME_DIR", folder, 1);
}

static void teardown(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(ctl_path, .init = setup, .fini = teardown);

static const char *in_folder(const char *name)
{
	static char paths[4][200];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	cr_assert_eq(stat(path, &st), 0, "%s", path);
	return st.st_mode & 07777;
}

Test(ctl_path, a_store_has_a_name)
{
	static const char *const cases[][2] = {
		{"/var/lib/vm.img", "vm"},
		{"vm", "vm"},
		{"/dev/sdb", "sdb"},
		{"a.b.c", "a.b"},
		{"x y/ä z.img", "___z"},
		{".hidden", "_hidden"},
		{"/", "store"},
		{"", "store"},
		{"dir/", "dir"},
		{"..", "_"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char name[CTL_PATH_NAME_MAX + 1];

		ctl_path_name(cases[i][0], name);
		cr_assert_str_eq(name, cases[i][1], "%s gave %s", cases[i][0], name);
	}
}

Test(ctl_path, a_long_name_is_cut)
{
	char store[500], name[CTL_PATH_NAME_MAX + 1];

	memset(store, 'n', sizeof(store) - 1);
	store[sizeof(store) - 1] = '\0';
	ctl_path_name(store, name);
	cr_assert_eq(strlen(name), CTL_PATH_NAME_MAX);
}

Test(ctl_path, the_environment_chooses_the_directory)
{
	char path[CTL_PATH_BYTES];

	cr_assert_eq(ctl_path_default("/x/vm.img", NULL, path), 0);
	cr_assert_str_eq(path, in_folder("sameblk/vm.ctl"));
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	cr_assert_eq(ctl_path_default("/x/vm.img", NULL, path), 0);
	cr_assert_str_eq(path, "/run/sameblk/vm.ctl");
	unsetenv("XDG_RUNTIME_DIR");
	cr_assert_eq(ctl_path_default("/x/vm.img", NULL, path), 0);
	cr_assert_str_eq(path, "/run/sameblk/vm.ctl");
	setenv("SAMEBLK_CONTROL_DIR", "/other", 1);
	cr_assert_eq(ctl_path_default("/x/vm.img", NULL, path), 0);
	cr_assert_str_eq(path, "/other/vm.ctl");
}

Test(ctl_path, a_part_of_the_uuid_tells_stores_of_one_name_apart)
{
	static const uint8_t uuid[16] = {0x01, 0xab, 0x20, 0xff, 0x77};
	char path[CTL_PATH_BYTES];

	cr_assert_eq(ctl_path_default("/x/vm.img", uuid, path), 0);
	cr_assert_str_eq(path, in_folder("sameblk/vm-01ab20ff.ctl"));
}

Test(ctl_path, the_directory_is_private)
{
	const char *dir = in_folder("d");

	cr_assert_eq(ctl_path_dir_make(dir, NO_GROUP), 0);
	cr_assert_eq(mode_of(dir), 0700);
	cr_assert_eq(ctl_path_dir_make(in_folder("g"), getegid()), 0);
	cr_assert_eq(mode_of(in_folder("g")), 0710);
	cr_assert_eq(ctl_path_dir_make(in_folder("no/parent"), NO_GROUP), -ENOENT);
}

Test(ctl_path, a_directory_that_is_there_is_used_as_it_is_or_refused)
{
	static const struct {
		mode_t mode;
		int alone, group;
	} cases[] = {
		{0700, 0, -EACCES}, {0710, 0, 0},	    {0755, 0, 0},
		{01777, 0, 0},	    {0777, -EPERM, -EPERM}, {0770, -EPERM, -EPERM},
	};
	const char *dir = in_folder("d");

	cr_assert_eq(mkdir(dir, 0700), 0);
	cr_assert_eq(symlink("d", in_folder("link")), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(chmod(dir, cases[i].mode), 0);
		cr_expect_eq(ctl_path_dir_make(dir, NO_GROUP), cases[i].alone, "%o", cases[i].mode);
		cr_expect_eq(ctl_path_dir_make(in_folder("link"), getegid()), cases[i].group, "%o",
			     cases[i].mode);
		cr_expect_eq(mode_of(dir), cases[i].mode, "it is changed");
	}
	cr_assert_eq(chmod(dir, 0700), 0);
}

Test(ctl_path, the_socket_is_private_and_goes_away)
{
	const char *path = in_folder("s");
	struct ctl_listen listener;
	mode_t before = umask(0);

	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &listener), 0);
	cr_assert_eq(umask(before), 0, "the umask is as it was");
	cr_assert_eq(mode_of(path), 0600);
	cr_assert_eq(ctl_path_probe(path), 0);
	ctl_listen_close(&listener, path);
	cr_assert_eq(access(path, F_OK), -1);
}

Test(ctl_path, a_group_may_connect_when_asked_for)
{
	const char *path = in_folder("s");
	struct ctl_listen listener;

	cr_assert_eq(ctl_listen_open(path, getegid(), &listener), 0);
	cr_assert_eq(mode_of(path), 0660);
	ctl_listen_close(&listener, path);
}

/* Its owner may take the socket's name away and give it to something else at any moment; here it
 * has a name more, or is another's. */
Test(ctl_path, the_group_is_given_to_what_was_bound_and_to_nothing_else)
{
	const char *path = in_folder("s");
	struct ctl_listen listener;
	struct stat st;
	gid_t group = 12345;

	if (geteuid() != 0)
		cr_skip_test("only root has any group");
	cr_assert_eq(ctl_listen_open(path, group, &listener), 0);
	cr_assert_eq(lstat(path, &st), 0);
	cr_assert_eq(st.st_gid, group);
	cr_assert_eq(mode_of(path), 0660);
	ctl_listen_close(&listener, path);
	/* A directory that hands its group down. */
	cr_assert_eq(mkdir(in_folder("d"), 0700), 0);
	cr_assert_eq(chown(in_folder("d"), (uid_t)-1, 54321), 0);
	cr_assert_eq(chmod(in_folder("d"), 02700), 0);
	cr_assert_eq(ctl_listen_open(in_folder("d/s"), group, &listener), 0);
	cr_assert_eq(lstat(in_folder("d/s"), &st), 0);
	cr_assert_eq(st.st_gid, group);
	cr_assert_eq(mode_of(in_folder("d/s")), 0660);
	ctl_listen_close(&listener, in_folder("d/s"));
}

/* Swaps the name between the socket that appears there and a link, for as long as it is told. */
static pid_t start_swapper(const char *path, const char *target)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	for (;;) {
		struct stat st;

		if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
			unlink(path);
			if (symlink(target, path) < 0)
				_exit(1);
		}
	}
}

Test(ctl_path, a_link_in_the_sockets_place_is_not_followed, .timeout = 60)
{
	const char *path = in_folder("s"), *target = in_folder("target");
	struct ctl_listen listener;
	struct stat st;
	pid_t pid;

	if (geteuid() != 0)
		cr_skip_test("only root has any group");
	close(open(target, O_CREAT | O_WRONLY, 0600));
	pid = start_swapper(path, target);
	for (unsigned i = 0; i < 1000; i++) {
		unlink(path);
		if (ctl_listen_open(path, 12345, &listener) == 0)
			close(listener.fd);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	cr_assert_eq(stat(target, &st), 0);
	cr_assert_eq(st.st_gid, getegid(), "the link's target has another group");
	cr_assert_eq(mode_of(target), 0600);
}

Test(ctl_path, who_holds_a_lock_on_the_directory_is_not_waited_for, .timeout = 10)
{
	struct ctl_listen listener;
	int fd = open(folder, O_RDONLY | O_DIRECTORY);

	cr_assert_eq(flock(fd, LOCK_EX), 0);
	cr_assert_eq(ctl_listen_open(in_folder("s"), NO_GROUP, &listener), 0);
	ctl_listen_close(&listener, in_folder("s"));
	cr_assert_neq(access(in_folder("s.lock"), F_OK), 0, "nothing is left behind");
	close(fd);
}

Test(ctl_path, a_lock_file_that_is_held_or_not_ours_ends_the_wait, .timeout = 20)
{
	struct ctl_listen listener;
	int fd = open(in_folder("s.lock"), O_CREAT | O_RDWR, 0600);

	cr_assert_eq(flock(fd, LOCK_EX), 0);
	cr_assert_eq(ctl_listen_open(in_folder("s"), NO_GROUP, &listener), -EBUSY);
	close(fd);
	cr_assert_eq(unlink(in_folder("s.lock")), 0);
	cr_assert_eq(symlink("elsewhere", in_folder("s.lock")), 0);
	cr_assert_eq(ctl_listen_open(in_folder("s"), NO_GROUP, &listener), -ELOOP);
	cr_assert_neq(access(in_folder("elsewhere"), F_OK), 0);
}

Test(ctl_path, a_live_socket_is_refused_and_a_stale_one_replaced)
{
	const char *path = in_folder("s");
	struct ctl_listen first, second;

	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &first), 0);
	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &second), -EADDRINUSE);
	cr_assert_eq(ctl_path_probe(path), 0, "the live one is unharmed");
	close(first.fd); /* as a killed server leaves it */
	cr_assert_eq(ctl_path_probe(path), -ECONNREFUSED);
	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &second), 0);
	cr_assert_eq(ctl_path_probe(path), 0);
	ctl_listen_close(&second, path);
}

Test(ctl_path, what_is_no_socket_is_left_alone)
{
	const char *path = in_folder("file");
	struct ctl_listen listener;
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, "x", 1), 1);
	close(fd);
	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &listener), -EEXIST);
	cr_assert_eq(access(path, F_OK), 0);
	cr_assert_eq(ctl_listen_open("", NO_GROUP, &listener), -EINVAL);
	cr_assert_eq(ctl_listen_open(in_folder("no/such"), NO_GROUP, &listener), -ENOENT);
}

Test(ctl_path, a_path_too_long_for_a_socket_is_refused)
{
	char path[200];
	struct ctl_listen listener;

	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &listener), -ENAMETOOLONG);
	cr_assert_eq(ctl_path_probe(path), -ENAMETOOLONG);
}

Test(ctl_path, another_servers_socket_is_not_removed)
{
	const char *path = in_folder("s");
	struct ctl_listen old, new;

	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &old), 0);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &new), 0);
	ctl_listen_close(&old, path);
	cr_assert_eq(ctl_path_probe(path), 0);
	ctl_listen_close(&new, path);
}

Test(ctl_path, a_socket_elsewhere_is_found_by_its_record)
{
	const char *path = in_folder("elsewhere");
	char record[CTL_PATH_BYTES];
	struct ctl_path_list list;
	struct ctl_listen listener;

	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &listener), 0);
	cr_assert_eq(ctl_path_record("/x/vm.img", path, record), 0);
	cr_assert_str_eq(record, in_folder("sameblk/vm.ctl"));
	cr_assert_eq(ctl_path_probe(record), 0);
	setenv("SAMEBLK_CONTROL_DIR", in_folder("sameblk"), 1);
	cr_assert_eq(ctl_path_list(&list), 0);
	cr_assert_eq(list.count, 1);
	cr_assert_str_eq(list.paths[0], record);
	ctl_path_list_done(&list);
	ctl_listen_close(&listener, path);
}

Test(ctl_path, a_record_replaces_a_dead_one_and_spares_a_live_one)
{
	struct ctl_listen one, two;
	char first[CTL_PATH_BYTES], second[CTL_PATH_BYTES];

	cr_assert_eq(ctl_listen_open(in_folder("1"), NO_GROUP, &one), 0);
	cr_assert_eq(ctl_listen_open(in_folder("2"), NO_GROUP, &two), 0);
	cr_assert_eq(ctl_path_record("/x/vm.img", in_folder("1"), first), 0);
	cr_assert_eq(ctl_path_record("/y/vm.raw", in_folder("2"), second), 0);
	cr_assert_str_neq(first, second);
	cr_assert_eq(ctl_path_probe(first), 0);
	cr_assert_eq(ctl_path_probe(second), 0);
	ctl_listen_close(&one, in_folder("1"));
	cr_assert_eq(symlink("/nonexistent", in_folder("sameblk/old.77.ctl")), 0);
	cr_assert_eq(ctl_path_record("/y/vm.raw", in_folder("2"), second), 0);
	cr_assert_str_eq(first, second, "the name is free again");
	cr_assert_eq(unlink(in_folder("sameblk/old.77.ctl")), -1, "dead records are taken away");
	ctl_listen_close(&two, in_folder("2"));
}

/* Or it would stay when that one ends well, with the name that a server's own socket would have. */
Test(ctl_path, the_record_of_a_killed_server_is_its_successors)
{
	struct ctl_listen listener;
	char first[CTL_PATH_BYTES], second[CTL_PATH_BYTES];

	cr_assert_eq(ctl_listen_open(in_folder("1"), NO_GROUP, &listener), 0);
	cr_assert_eq(ctl_path_record("/x/vm.img", in_folder("1"), first), 0);
	close(listener.fd); /* as a killed server leaves it */
	cr_assert_eq(ctl_listen_open(in_folder("1"), NO_GROUP, &listener), 0);
	cr_assert_eq(ctl_path_record("/x/vm.img", in_folder("1"), second), 0);
	cr_assert_str_eq(first, second);
	ctl_listen_close(&listener, in_folder("1"));
	ctl_path_drop_dead(in_folder("sameblk"));
	cr_assert_neq(access(first, F_OK), 0);
	cr_assert_eq(unlink(first), -1, "not even a link that leads nowhere");
}

Test(ctl_path, a_socket_in_the_default_directory_needs_no_record)
{
	char path[CTL_PATH_BYTES], record[CTL_PATH_BYTES];
	struct ctl_listen listener;

	cr_assert_eq(ctl_path_default("vm.img", NULL, path), 0);
	cr_assert_eq(ctl_path_dir_make(in_folder("sameblk"), NO_GROUP), 0);
	cr_assert_eq(ctl_listen_open(path, NO_GROUP, &listener), 0);
	cr_assert_eq(ctl_path_record("vm.img", path, record), 0);
	cr_assert_str_eq(record, "");
	ctl_listen_close(&listener, path);
}

Test(ctl_path, root_and_the_servers_user_are_trusted)
{
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert(ctl_listen_peer_trusted(pair[0], NO_GROUP));
	close(pair[0]);
	close(pair[1]);
}
