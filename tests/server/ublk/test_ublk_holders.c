/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_holders - what in the kernel has a disk open, and which processes, read from a made-up
 * /proc and /sys; and whether somebody has it whom they do not show
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "server/ublk/driver/ublk_holders.h"
#include "server/ublk/driver/ublk_openers.h"

#define INITIAL "pid:[4026531836]"

static char folder[64], proc[96], sys[96];
static char who[256];

/* In the tree a descriptor is a link such as b259:0, and what stands behind a blank tells open
 * files apart. */
static int look(int dir_fd, const char *name, mode_t *ret_mode, dev_t *ret_number)
{
	unsigned number_major, number_minor;
	char text[128] = "", type;

	if (readlinkat(dir_fd, name, text, sizeof(text) - 1) < 0)
		return -errno;
	if (sscanf(text, "%c%u:%u", &type, &number_major, &number_minor) != 3)
		return -EINVAL;
	*ret_mode = type == 'b' ? S_IFBLK : S_IFCHR;
	*ret_number = makedev(number_major, number_minor);
	return 0;
}

static void read_link(const struct ublk_view_file *file, char text[128])
{
	char path[256];
	ssize_t len;

	snprintf(path, sizeof(path), "%s/%d/task/%d/fd/%d", proc, file->pid, file->tid, file->fd);
	len = readlink(path, text, 127);
	text[len > 0 ? len : 0] = '\0';
}

static int same_file(const struct ublk_view_file *a, const struct ublk_view_file *b)
{
	char text_a[128], text_b[128];

	read_link(a, text_a);
	read_link(b, text_b);
	return strcmp(text_a, text_b) == 0;
}

static int same_table(pid_t a, pid_t b)
{
	return a / 10 == b / 10 && b % 10 != 9;
}

static int cannot_tell(const struct ublk_view_file *a, const struct ublk_view_file *b)
{
	(void)a;
	(void)b;
	return -ENOSYS;
}

static struct ublk_view view = {
	.proc = proc,
	.sys = sys,
	.look = look,
	.same_file = same_file,
	.same_table = same_table,
};

static void __attribute__((format(printf, 1, 2))) shell(const char *format, ...)
{
	char command[1024] = "cd ", *at;
	va_list args;

	at = stpcpy(stpcpy(command + 3, folder), " && ");
	va_start(args, format);
	vsnprintf(at, sizeof(command) - (size_t)(at - command), format, args);
	va_end(args);
	cr_assert_eq(system(command), 0, "%s", command);
}

static void make_disk(const char *name, const char *number)
{
	shell("mkdir -p sys/class/block/%s/holders sys/dev/block && echo %s > "
	      "sys/class/block/%s/dev && ln -s ../../class/block/%s sys/dev/block/%s",
	      name, number, name, name, number);
}

static void set_count(unsigned count)
{
	shell("echo %u > sys/module/ublk_drv/refcnt", count);
}

static void open_file(int pid, int tid, int fd, const char *what)
{
	shell("mkdir -p proc/%d/task/%d/fd proc/%d/ns && echo tool > proc/%d/comm && "
	      "touch proc/%d/ns/mnt && ln -s '%s' proc/%d/task/%d/fd/%d",
	      pid, tid, pid, pid, pid, what, pid, tid, fd);
}

static void setup(void)
{
	strcpy(folder, "/tmp/sameblk-test.XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	snprintf(proc, sizeof(proc), "%s/proc", folder);
	snprintf(sys, sizeof(sys), "%s/sys", folder);
	view.same_file = same_file;
	who[0] = '\0';
	shell("mkdir -p proc/self/ns sys/module/ublk_drv sys/dev/char");
	shell("ln -s '%s' proc/self/ns/pid", INITIAL);
	shell("ln -s ../../devices/virtual/misc/ublk-control sys/dev/char/10:1");
	shell("ln -s ../../devices/virtual/ublk-char/ublkc0 sys/dev/char/240:0");
	make_disk("ublkb0", "259:0");
	/* Its server. */
	open_file(100, 100, 3, "c10:1 a");
	open_file(100, 100, 4, "c240:0 a");
	open_file(100, 100, 5, "c1:3 a");
	set_count(2);
}

static void teardown(void)
{
	shell("rm -rf %s", folder);
}

TestSuite(ublk_holders, .init = setup, .fini = teardown);
TestSuite(ublk_openers, .init = setup, .fini = teardown);

static unsigned count(void)
{
	return ublk_holders_count(&view, "ublkb0", who, sizeof(who));
}

static void expect_one(const char *words)
{
	cr_assert_eq(count(), 1, "%s", who);
	cr_assert(strstr(who, words) != NULL, "'%s' is in '%s'", words, who);
}

Test(ublk_holders, names_of_other_disks_are_not_taken_for_it)
{
	cr_assert(ublk_view_is_of("/dev/ublkb1", "ublkb1"));
	cr_assert(ublk_view_is_of("/dev/ublkb1p12", "ublkb1"));
	cr_assert(ublk_view_is_of("ublkb1", "ublkb1"));
	cr_assert(ublk_view_is_of("/dev/ublkb1 (deleted)", "ublkb1"));
	cr_assert(ublk_view_is_of("/dev/ublkb1\\040(deleted)", "ublkb1"));
	cr_assert(!ublk_view_is_of("/dev/ublkb10", "ublkb1"));
	cr_assert(!ublk_view_is_of("/dev/ublkb1p", "ublkb1"));
	cr_assert(!ublk_view_is_of("/dev/ublkb1px", "ublkb1"));
	cr_assert(!ublk_view_is_of("/dev/ublkb", "ublkb1"));
	cr_assert(!ublk_view_is_of("/dev/ublkb1/x", "ublkb1"));
	cr_assert(!ublk_view_is_of("", "ublkb1"));
}

Test(ublk_holders, nobody_has_a_disk_that_nobody_has)
{
	cr_assert_eq(count(), 0);
	cr_assert_str_eq(who, "");
}

Test(ublk_holders, a_loop_device_has_it)
{
	shell("mkdir -p sys/class/block/loop0/loop sys/class/block/loop1/loop");
	shell("echo /dev/ublkb01 > sys/class/block/loop0/loop/backing_file");
	cr_assert_eq(count(), 0);
	shell("echo /dev/ublkb0 > sys/class/block/loop1/loop/backing_file");
	expect_one("loop device loop1");
}

Test(ublk_holders, what_is_made_of_it_or_of_a_partition_has_it)
{
	shell("mkdir -p sys/class/block/ublkb0/holders/dm-3 sys/class/block/dm-3/dm");
	shell("echo upon > sys/class/block/dm-3/dm/name");
	expect_one("device-mapper device upon (dm-3)");
	shell("rmdir sys/class/block/ublkb0/holders/dm-3");
	shell("mkdir -p sys/class/block/ublkb0/ublkb0p2/holders/md0");
	shell("echo 259:2 > sys/class/block/ublkb0/ublkb0p2/dev");
	expect_one("md0 is made of it");
}

Test(ublk_holders, swap_has_it)
{
	shell("echo 'Filename\t\t\tType\n/dev/ublkb1 partition\n/dev/ublkb0p1 partition' "
	      "> proc/swaps");
	expect_one("swap space (/dev/ublkb0p1)");
}

Test(ublk_holders, an_nvme_target_has_it_while_it_is_enabled)
{
	const char *place = "sys/kernel/config/nvmet/subsystems/out/namespaces/1";

	shell("mkdir -p %s && echo /dev/ublkb0 > %s/device_path", place, place);
	shell("echo 0 > %s/enable", place);
	cr_assert_eq(count(), 0);
	shell("echo 1 > %s/enable", place);
	expect_one("NVMe target out");
}

Test(ublk_holders, a_filesystem_has_it_once_wherever_it_is_mounted)
{
	shell("printf '30 1 0:5 / /dev rw - devtmpfs dev rw\\n"
	      "31 1 259:1 / /other rw - ext4 /dev/ublkb1 rw\\n' > proc/self/mountinfo");
	shell("cp proc/self/mountinfo proc/100/mountinfo");
	cr_assert_eq(count(), 0);
	open_file(200, 200, 0, "c1:3 b");
	shell("printf '32 1 259:0 / /a\\\\040folder rw shared:1 - ext4 /dev/ublkb0 rw\\n"
	      "33 1 259:0 / /b rw - ext4 /dev/ublkb0 rw\\n' > proc/200/mountinfo");
	expect_one("mounted on /a folder for process 200 (tool)");
	shell("cat proc/200/mountinfo >> proc/self/mountinfo");
	expect_one("it is mounted on /a folder");
}

Test(ublk_holders, a_filesystem_of_several_devices_has_it)
{
	shell("echo '34 1 0:44 /sub /pool rw - btrfs /dev/ublkb0 rw' > proc/self/mountinfo");
	expect_one("mounted on /pool");
	shell("echo '34 1 0:44 /sub /pool rw - overlay ublkb0 rw' > proc/self/mountinfo");
	cr_assert_eq(count(), 0);
}

/* --- openers --- */

static struct ublk_openers find(void)
{
	struct ublk_openers openers;

	cr_assert_eq(ublk_openers_find(&view, "ublkb0", &openers, who, sizeof(who)), 0);
	return openers;
}

Test(ublk_openers, the_server_alone_is_all_that_the_module_counts)
{
	struct ublk_openers openers = find();

	cr_assert(!openers.shown);
	cr_assert(openers.counted);
	cr_assert_eq(openers.unseen, 0);
}

Test(ublk_openers, whoever_has_it_is_shown)
{
	open_file(200, 200, 7, "b259:0 b");
	set_count(3);
	cr_assert(find().shown);
	cr_assert_str_eq(who, "process 200 (tool) has it open");
	cr_assert_eq(find().unseen, 0);
}

Test(ublk_openers, a_thread_with_a_table_of_its_own_is_shown)
{
	open_file(200, 200, 7, "c1:3 b");
	open_file(200, 209, 7, "b259:0 b");
	set_count(3);
	cr_assert(find().shown);
}

Test(ublk_openers, a_process_whose_first_thread_has_ended_is_shown)
{
	shell("mkdir -p proc/200/task/200");
	open_file(200, 209, 7, "b259:0 b");
	set_count(3);
	cr_assert(find().shown);
}

Test(ublk_openers, what_nothing_shows_is_counted)
{
	set_count(3);
	cr_assert(!find().shown);
	cr_assert_eq(find().unseen, 1);
	cr_assert(!ublk_openers_find_unseen(&view, "ublkb0", who, sizeof(who)));
	cr_assert(strstr(who, "whom nothing shows") != NULL, "%s", who);
}

Test(ublk_openers, a_file_that_processes_share_is_one)
{
	open_file(200, 200, 3, "c10:1 a");
	open_file(200, 200, 4, "c10:1 a");
	cr_assert_eq(find().unseen, 0);
	set_count(3);
	cr_assert_eq(find().unseen, 1);
}

Test(ublk_openers, what_the_kernel_has_of_another_device_is_no_secret)
{
	make_disk("ublkb1", "259:1");
	shell("mkdir -p sys/class/block/loop0/loop sys/class/block/ublkb1/holders/dm-0");
	shell("echo /dev/ublkb1 > sys/class/block/loop0/loop/backing_file");
	shell("echo '32 1 259:1 / /b rw - ext4 /dev/ublkb1 rw' > proc/self/mountinfo");
	set_count(5);
	cr_assert_eq(find().unseen, 0);
	set_count(6);
	cr_assert_eq(find().unseen, 1);
}

Test(ublk_openers, in_a_container_beside_other_devices_nothing_is_concluded)
{
	shell("rm proc/self/ns/pid && ln -s 'pid:[4026532000]' proc/self/ns/pid");
	set_count(4);
	cr_assert(find().counted);
	cr_assert_eq(find().unseen, 2);
	make_disk("ublkb1", "259:1");
	cr_assert(!find().counted);
	cr_assert_eq(find().unseen, 0);
}

Test(ublk_openers, where_files_cannot_be_told_apart_nothing_is_concluded)
{
	view.same_file = cannot_tell;
	set_count(4);
	cr_assert(!find().counted);
	cr_assert_eq(find().unseen, 0);
}

Test(ublk_openers, where_the_driver_is_no_module_nothing_is_concluded)
{
	shell("rm sys/module/ublk_drv/refcnt");
	cr_assert(!find().counted);
	cr_assert_eq(find().unseen, 0);
}

Test(ublk_openers, a_mapping_and_a_registered_file_are_found)
{
	open_file(200, 200, 3, "anon_inode:[io_uring]");
	shell("mkdir -p proc/200/fdinfo && ln -s task/200/fd proc/200/fd");
	shell("printf 'SqEntries:\\t1\\n/dev/ublkb0\\nUserFiles:\\t1\\n    0: /dev/ublkb0\\n' "
	      "> proc/200/fdinfo/3");
	cr_assert(ublk_openers_find_unseen(&view, "ublkb0", who, sizeof(who)));
	cr_assert_str_eq(who, "process 200 (tool) has it open in an io_uring");
	cr_assert(!ublk_openers_find_unseen(&view, "ublkb1", who, sizeof(who)));
	shell("printf 'UserFiles:\\t1\\n    0: ublkb2p1\\n' > proc/200/fdinfo/3");
	cr_assert(ublk_openers_find_unseen(&view, "ublkb2", who, sizeof(who)));
	shell("echo '7f00-7f01 r--s 00000000 00:05 9    /dev/ublkb1p1' > proc/200/maps");
	cr_assert(ublk_openers_find_unseen(&view, "ublkb1", who, sizeof(who)));
	cr_assert_str_eq(who, "process 200 (tool) has it mapped");
}
