/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_server - see the header */
#include "server/ublk/ublk_server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/ublk/driver/ublk_record.h"
#include "server/ublk/ublk_process.h"

#define PAUSE_MS 10u
/* udev holds a node it has just made, or makes it a little later. */
#define NODE_MS 10000u
/* The last I/O of a killed server has to end before its device can be had. */
#define TAKE_OVER_MS 60000u
#define DRAIN_MS     20000u
/* What a server that was killed may take until it looks dead. */
#define ALIVE_MS 3000u

static void pause_ms(unsigned ms)
{
	const struct timespec pause = {.tv_nsec = ms * 1000000L};

	nanosleep(&pause, NULL);
}

static int fail(struct ublk_server *server, int r, const char *what)
{
	snprintf(server->why, sizeof(server->why), "%s: %s", what, strerror(-r));
	return r;
}

static int fail_command(struct ublk_server *server, int r)
{
	snprintf(server->why, sizeof(server->why), "%s", ublk_control_why(server->control));
	return r;
}

static int fail_agent(struct ublk_server *server, int r)
{
	snprintf(server->why, sizeof(server->why), "%s", ublk_agent_why(&server->agent));
	return r;
}

int ublk_server_open(struct ublk_server *server, const struct ublk_server_options *options)
{
	int r;

	assert(server->state == UBLK_SERVER_CLOSED);
	server->options = *options;
	server->shared.fd = -1;
	r = ublk_agent_start(&server->agent);
	if (r < 0)
		return fail_agent(server, r);
	r = ublk_control_open(&server->control, server->why);
	if (r < 0)
		ublk_agent_end(&server->agent);
	else
		server->state = UBLK_SERVER_OPEN;
	return r;
}

/* --- the device --- */

static bool can_zero_copy(const struct ublk_server *server)
{
	const struct ublk_server_options *options = &server->options;
	uint64_t features = ublk_control_features(server->control);

	return options->zero_copy && (features & UBLK_ZERO_COPY_NEEDS) == UBLK_ZERO_COPY_NEEDS &&
	       volume_reaches_foreign(server->shared.volume) &&
	       ublk_payload_fits(options->queues, options->loops, options->depth);
}

static int add_with(struct ublk_server *server, struct ublk_info info, uint64_t flags)
{
	info.flags |= flags;
	server->info = info;
	return ublk_control_add(server->control, &server->info);
}

static int add(struct ublk_server *server, uint64_t mark)
{
	const struct ublk_server_options *options = &server->options;
	struct ublk_shape *shape = &server->shared.shape;
	struct ublk_info info = {
		.id = options->id,
		.queues = (uint16_t)options->queues,
		.depth = (uint16_t)options->depth,
		.io_bytes_max = shape->io_bytes_max,
		.flags = UBLK_F_RECOVERY | UBLK_F_RECOVERY_REISSUE | UBLK_F_IOCTL_ENCODE,
		.server_flags = mark,
	};
	int r;

	r = add_with(server, info, can_zero_copy(server) ? UBLK_ZERO_COPY : 0);
	if (r == -EINVAL && can_zero_copy(server)) {
		r = add_with(server, info, 0);
		if (r == 0)
			log_info("ublk: this kernel does not combine what zero copy needs: payload "
				 "is copied");
	}
	if (r == -EPERM && (ublk_control_features(server->control) & UBLK_F_UNPRIVILEGED) != 0) {
		server->info = info;
		server->info.flags = UBLK_F_UNPRIVILEGED | UBLK_F_IOCTL_ENCODE;
		r = ublk_control_add(server->control, &server->info);
		if (r == 0)
			log_warn("ublk: without privileges a device does not outlive its server");
	}
	if (r < 0)
		return fail_command(server, r);
	ublk_control_set_unprivileged(server->control,
				      (server->info.flags & UBLK_F_UNPRIVILEGED) != 0);
	if (server->info.queues != options->queues)
		log_info("ublk: %u queues, as many as there are processors", server->info.queues);
	return 0;
}

static int set_params(struct ublk_server *server)
{
	struct ublk_params params;
	int r;

	ublk_shape_params(&server->shared.shape, &params);
	r = ublk_control_set_params(server->control, server->info.id, &params);
	return r < 0 ? fail_command(server, r) : 0;
}

/* Opens a node that may only just be coming. */
static int open_node(const char *path, int flags, int *ret_fd)
{
	int r = 0;

	for (unsigned ms = 0; ms < NODE_MS; ms += PAUSE_MS) {
		*ret_fd = open(path, flags | O_CLOEXEC);
		if (*ret_fd >= 0)
			return 0;
		r = -errno;
		if (r != -ENOENT && r != -EBUSY && r != -EACCES && r != -EPERM && r != -ENXIO)
			break;
		pause_ms(PAUSE_MS);
	}
	return r;
}

static int open_char(struct ublk_server *server)
{
	char path[UBLK_PATH_BYTES];
	int r;

	ublk_char_path(server->info.id, path);
	r = open_node(path, O_RDWR, &server->shared.fd);
	return r < 0 ? fail(server, r, path) : 0;
}

/* Without privileges the driver lets only those command a device who may open its node, which udev
 * hands out a little later. */
static int wait_for_node(const struct ublk_server *server)
{
	char path[UBLK_PATH_BYTES];
	int fd, r;

	ublk_char_path(server->info.id, path);
	r = open_node(path, O_RDWR, &fd);
	if (r == 0)
		close(fd);
	return r;
}

static int make_queues(struct ublk_server *server, struct loop **loops, unsigned loop_count)
{
	unsigned count = server->info.queues;
	bool straight;

	server->shared.outlives = (server->info.flags & UBLK_F_RECOVERY) != 0;
	server->shared.zero_copy = (server->info.flags & UBLK_F_AUTO_BUF_REG) != 0;
	straight = server->shared.zero_copy && server->options.zero_copy &&
		   volume_reaches_foreign(server->shared.volume) &&
		   ublk_payload_fits(count, loop_count, server->info.depth);
	server->shared.straight = !straight		   ? ublk_straight_never
				  : server->options.direct ? ublk_straight_direct
							   : ublk_straight_cached;
	server->queues = calloc(count, sizeof(*server->queues));
	if (server->queues == NULL)
		return fail(server, -ENOMEM, "queues");
	for (unsigned i = 0; i < count; i++) {
		int r = ublk_queue_init(&server->queues[i], &server->shared, loops[i % loop_count],
					(uint16_t)i, server->info.depth);

		if (r < 0)
			return fail(server, r, "cannot map a queue");
		server->queue_count++;
		if (straight) {
			struct ublk_table table =
				ublk_payload_table(i, count, loop_count, server->info.depth);

			ublk_queue_set_buffers(&server->queues[i], &table);
		}
	}
	return 0;
}

static int go_live(struct ublk_server *server)
{
	uint32_t op = server->taken_over ? UBLK_CTL_END_RECOVERY : UBLK_CTL_START;
	int r;

	for (unsigned i = 0; i < server->queue_count; i++)
		ublk_queue_start(&server->queues[i]);
	server->agent.unprivileged = (server->info.flags & UBLK_F_UNPRIVILEGED) != 0;
	r = ublk_agent_go_live(&server->agent, op, server->info.id, &server->shared.refused);
	if (r < 0)
		return fail_agent(server, r);
	atomic_store(&server->shared.live, true);
	/* In between, too. */
	if (atomic_load(&server->shared.refused) && !atomic_exchange(&server->shared.lost, true))
		server->shared.wake(NULL);
	return 0;
}

static int look_at_block(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0 || access(path, R_OK) < 0)
		return -errno;
	return S_ISBLK(st.st_mode) ? 0 : -ENOTBLK;
}

/* Whoever reads the ready line wants to open it. We do not: to open it may mean to read it. */
static int see_block(struct ublk_server *server)
{
	int r = look_at_block(server->path);

	for (unsigned ms = 0; r < 0 && ms < NODE_MS; ms += PAUSE_MS) {
		pause_ms(PAUSE_MS);
		r = look_at_block(server->path);
	}
	return r < 0 ? fail(server, r, server->path) : 0;
}

/* --- taking a device over --- */

static int check_record(struct ublk_server *server, const struct ublk_record *record)
{
	const char *store = server->options.store;
	uint32_t id = server->info.id;
	int r = ublk_record_is_of_another(record, store);

	if (r == -ETIMEDOUT) {
		snprintf(server->why, sizeof(server->why),
			 "/dev/ublkb%u is the device of %s, which does not answer, so that nobody "
			 "can tell whether %s is a copy of it",
			 id, record->store, store);
	} else if (r < 0) {
		snprintf(server->why, sizeof(server->why),
			 "/dev/ublkb%u is the device of %s, which cannot be looked at (%s), so "
			 "that nobody can tell whether %s is a copy of it",
			 id, record->store, strerror(-r), store);
	} else if (r > 0) {
		snprintf(server->why, sizeof(server->why),
			 "/dev/ublkb%u is the device of %s, and %s is a copy of that: detach it "
			 "first",
			 id, record->store, store);
		r = -EEXIST;
	}
	return r;
}

/* Served from a copy, it would change its content below whoever has it open. */
static int check_store(struct ublk_server *server, uint64_t mark)
{
	const struct ublk_record *record;
	struct ublk_records records;
	int r = ublk_records_load(&records);

	record = ublk_records_find(&records, mark);
	if (record != NULL)
		r = check_record(server, record);
	else if (r < 0)
		(void)fail(server, r, "the records of devices cannot be read");
	ublk_records_done(&records);
	return r;
}

static bool is_taken(const struct ublk_server *server)
{
	int fd, r = ublk_hold(server->info.id, &fd);

	if (r == 0)
		close(fd);
	return r == -EBUSY;
}

static int fail_served(struct ublk_server *server)
{
	snprintf(server->why, sizeof(server->why),
		 "/dev/ublkb%u is this volume's and process %d serves it", server->info.id,
		 server->info.pid);
	return -EBUSY;
}

/* The store is locked by us, so its server is dying or dead; unless both only read. */
static int wait_for_death(struct ublk_server *server)
{
	struct ublk_info *info = &server->info;
	int r;

	for (unsigned ms = 0; info->state == UBLK_STATE_LIVE && ms < TAKE_OVER_MS; ms += PAUSE_MS) {
		if (server->options.read_only && ms >= ALIVE_MS && ublk_process_lives(info->pid))
			break;
		pause_ms(PAUSE_MS);
		r = ublk_control_info(server->control, info->id, info);
		if (r == -ENODEV)
			return -ENOENT;
		if (r < 0)
			return fail_command(server, r);
	}
	return info->state == UBLK_STATE_LIVE ? fail_served(server) : 0;
}

/* Not served by another, nor another store's: a store that cannot be looked at, or a server that is
 * long in dying, need not be so the next time. */
static bool may_change(const struct ublk_server *server, int r)
{
	const struct ublk_info *info = &server->info;
	bool served = r == -EBUSY && server->options.read_only;

	return r < 0 && r != -ENOENT && r != -EEXIST && !served && info->state != UBLK_STATE_DEAD &&
	       (info->flags & UBLK_F_RECOVERY) != 0;
}

/* ENOENT: no device of this volume waits for a server. EAGAIN: one that nobody needs was removed,
 * and there may be more. */
static int find_one_left(struct ublk_server *server, uint64_t mark)
{
	struct ublk_info *info = &server->info;
	int r = ublk_find_mark(server->control, mark, info);

	if (r < 0)
		return r == -ENOENT ? r : fail(server, r, "cannot look for the volume's device");
	ublk_control_set_unprivileged(server->control, (info->flags & UBLK_F_UNPRIVILEGED) != 0);
	r = check_store(server, mark);
	if (r == 0)
		r = wait_for_death(server);
	server->again = may_change(server, r);
	if (r < 0 || info->state != UBLK_STATE_DEAD)
		return r;
	/* Another that only reads is just getting it up. */
	if (server->options.read_only && is_taken(server))
		return fail_served(server);
	/* Never started, or stopped and not deleted. */
	log_info("ublk: an unfinished device %u of this volume is removed", info->id);
	r = ublk_control_delete(server->control, info->id, false);
	return r < 0 ? fail_command(server, r) : -EAGAIN;
}

static int find_left(struct ublk_server *server, uint64_t mark)
{
	int r;

	do
		r = find_one_left(server, mark);
	while (r == -EAGAIN);
	return r;
}

static int adopt(struct ublk_server *server)
{
	const struct ublk_server_options *options = &server->options;
	struct ublk_shape *shape = &server->shared.shape;
	const struct ublk_info *info = &server->info;
	struct ublk_params params;
	uint64_t payload_bytes;
	int r;

	if (options->id != UINT32_MAX && options->id != info->id) {
		snprintf(server->why, sizeof(server->why),
			 "the volume still has /dev/ublkb%u: say --ublk=%u, or sameblk detach",
			 info->id, info->id);
		return -EEXIST;
	}
	r = ublk_control_get_params(server->control, info->id, &params);
	if (r < 0)
		return fail_command(server, r);
	r = ublk_shape_adopt(shape, &params);
	if (r < 0) {
		snprintf(
			server->why, sizeof(server->why),
			"/dev/ublkb%u was made with another size, or is %s: sameblk detach --force",
			info->id, options->read_only ? "writable" : "read-only");
		return r;
	}
	payload_bytes = (uint64_t)info->queues * info->depth * shape->io_bytes_max;
	if (payload_bytes > options->memory_bytes)
		log_warn("ublk: /dev/ublkb%u was made for %llu bytes of payload; half of "
			 "--buffer-memory is %llu",
			 info->id, (unsigned long long)payload_bytes,
			 (unsigned long long)options->memory_bytes);
	if (info->queues != options->queues || info->depth != options->depth ||
	    shape->sector_bytes != options->sector_bytes)
		log_info("ublk: /dev/ublkb%u goes on as it was made: %u queues, depth %u, sectors "
			 "of %u",
			 info->id, info->queues, info->depth, shape->sector_bytes);
	return 0;
}

static bool can_go_on(const struct ublk_server *server)
{
	return (server->info.flags & UBLK_F_RECOVERY) != 0 &&
	       server->info.state == UBLK_STATE_QUIESCED;
}

static int take_over(struct ublk_server *server)
{
	int r = adopt(server);

	if (r < 0)
		return r;
	r = -EBUSY;
	for (unsigned ms = 0; r == -EBUSY && ms < TAKE_OVER_MS; ms += PAUSE_MS) {
		r = ublk_control_plain(server->control, UBLK_CTL_START_RECOVERY, server->info.id);
		if (r == -EBUSY)
			pause_ms(PAUSE_MS);
	}
	/* Linux 6.12 refuses it when a server died after it had begun to take the device over and
	 * before its queues were ready: then that still is begun. */
	if (r == -EINVAL && can_go_on(server)) {
		log_info("ublk: /dev/ublkb%u was just being taken over before: that goes on",
			 server->info.id);
		r = 0;
	}
	if (r < 0) {
		server->again = true;
		return fail_command(server, r);
	}
	server->taken_over = true;
	return 0;
}

static int make_anew(struct ublk_server *server, uint64_t mark)
{
	const struct ublk_server_options *options = &server->options;
	int r = ublk_shape_io_bytes(options->memory_bytes, options->queues, options->depth,
				    &server->shared.shape.io_bytes_max);

	if (r < 0) {
		snprintf(server->why, sizeof(server->why),
			 "%u queues of depth %u need --buffer-memory of at least %llu bytes",
			 options->queues, options->depth,
			 2ull * options->queues * options->depth * UBLK_IO_BYTES_MIN);
		return r;
	}
	/* Somebody who holds it for longer, on purpose, keeps nobody from making devices. */
	(void)ublk_control_hold(server->control, false);
	r = add(server, mark);
	if (r < 0) {
		ublk_control_let_go(server->control);
		return r;
	}
	r = (server->info.flags & UBLK_F_UNPRIVILEGED) != 0 ? wait_for_node(server) : 0;
	if (r < 0)
		(void)fail(server, r, "the node of a device without privileges");
	else
		r = set_params(server);
	if (r < 0) {
		(void)ublk_control_delete(server->control, server->info.id, false);
		ublk_control_let_go(server->control);
	}
	return r;
}

/* --- up --- */

static int bring_up(struct ublk_server *server, struct loop **loops, unsigned loop_count)
{
	int r = open_char(server);

	ublk_control_let_go(server->control);
	if (r == 0)
		r = make_queues(server, loops, loop_count);
	if (r == 0)
		r = go_live(server);
	ublk_block_path(server->info.id, server->path);
	if (r == 0)
		r = see_block(server);
	return r;
}

static bool all_ended(const struct ublk_server *server)
{
	for (unsigned ms = 0; ms < DRAIN_MS; ms += PAUSE_MS) {
		if (atomic_load(&server->shared.running) == 0)
			return true;
		pause_ms(PAUSE_MS);
	}
	return false;
}

static void close_char(struct ublk_server *server)
{
	for (unsigned i = 0; i < server->queue_count; i++)
		ublk_queue_done(&server->queues[i]);
	if (server->shared.fd >= 0)
		close(server->shared.fd);
	server->shared.fd = -1;
}

/* Stopped, so every fetch comes back; only then can it be closed, and only then deleted. */
static int take_away(struct ublk_server *server, bool used)
{
	int r;

	if (!all_ended(server)) {
		snprintf(server->why, sizeof(server->why), "%s: requests are stuck", server->path);
		return -ETIMEDOUT;
	}
	close_char(server);
	r = ublk_control_delete(server->control, server->info.id, used);
	if (r < 0 && r != -ENODEV && r != -ETIMEDOUT)
		return fail_command(server, r);
	if (r == -ETIMEDOUT) /* it is marked as deleted */
		log_warn("%s: goes when nobody has it open any more", server->path);
	server->state = UBLK_SERVER_REMOVED;
	return 0;
}

/* A device that did not come up goes away again, unless it was there before. */
static void give_up(struct ublk_server *server)
{
	char why[UBLK_WHY_BYTES];

	strcpy(why, server->why);
	server->again = server->taken_over;
	if (server->taken_over) {
		ublk_server_leave(server);
	} else {
		(void)ublk_agent_stop(&server->agent, server->info.id);
		(void)take_away(server, false);
	}
	strcpy(server->why, why);
}

int ublk_server_start(struct ublk_server *server, struct loop **loops, unsigned loop_count,
		      struct volume *volume)
{
	const struct ublk_server_options *options = &server->options;
	uint64_t mark = ublk_mark(volume_uuid(volume));
	struct ublk_shape *shape = &server->shared.shape;
	int r;

	assert(server->state == UBLK_SERVER_OPEN);
	*shape = (struct ublk_shape){
		.size_bytes = volume_size_bytes(volume),
		.sector_bytes = options->sector_bytes,
		.read_only = options->read_only,
	};
	server->shared.volume = volume;
	r = find_left(server, mark);
	if (r == 0)
		r = take_over(server);
	else if (r == -ENOENT)
		r = make_anew(server, mark);
	if (r < 0)
		return r;
	server->state = UBLK_SERVER_LIVE;
	r = bring_up(server, loops, loop_count);
	if (r < 0) {
		give_up(server);
		return r;
	}
	if (server->taken_over) {
		ublk_agent_forget_mounts(&server->agent, server->info.id, true);
		log_info("ublk: %s is served again", server->path);
	}
	return 0;
}

/* --- down --- */

int ublk_server_remove(struct ublk_server *server, bool force)
{
	uint32_t id = server->info.id;
	bool used;
	int r;

	assert(server->state == UBLK_SERVER_LIVE);
	atomic_store(&server->shared.stopping, true);
	r = ublk_agent_stop_unused(&server->agent, id);
	used = r < 0;
	if (used && force)
		r = ublk_agent_stop_used(&server->agent, id);
	if (r == 0)
		return take_away(server, used);
	atomic_store(&server->shared.stopping, false);
	/* Somebody else may have stopped it just then. */
	if (atomic_load(&server->shared.running) < server->queue_count)
		atomic_store(&server->shared.lost, true);
	return fail_agent(server, r);
}

bool ublk_server_is_lost(const struct ublk_server *server)
{
	return server->state == UBLK_SERVER_LIVE && atomic_load(&server->shared.lost);
}

int ublk_server_end_lost(struct ublk_server *server)
{
	struct ublk_info *info = &server->info;
	int r = ublk_control_info(server->control, info->id, info);
	bool refused = atomic_load(&server->shared.refused);

	assert(ublk_server_is_lost(server));
	if (r == -ENODEV || (r == 0 && info->state == UBLK_STATE_DEAD)) {
		snprintf(server->why, sizeof(server->why),
			 "%s was stopped or deleted by somebody else", server->path);
		atomic_store(&server->shared.stopping, true);
		(void)take_away(server, true);
		return 0;
	}
	snprintf(server->why, sizeof(server->why), "%s %s", server->path,
		 refused ? "takes no answers of this server any more"
			 : "was taken from this server by somebody else");
	ublk_server_leave(server);
	return -EAGAIN;
}

void ublk_server_leave(struct ublk_server *server)
{
	assert(server->state == UBLK_SERVER_LIVE);
	for (unsigned i = 0; i < server->queue_count; i++)
		ublk_queue_leave(&server->queues[i]);
	(void)all_ended(server);
	ublk_agent_forget_mounts(&server->agent, server->info.id, false);
	server->state = UBLK_SERVER_LEFT;
}

void ublk_server_done(struct ublk_server *server)
{
	if (server->state == UBLK_SERVER_CLOSED)
		return;
	close_char(server);
	free(server->queues);
	ublk_control_close(server->control);
	ublk_agent_end(&server->agent);
	server->queues = NULL;
	server->control = NULL;
	server->state = UBLK_SERVER_CLOSED;
}

void ublk_server_latency(const struct ublk_server *server, struct latency_sums *sums)
{
	for (unsigned i = 0; i < server->queue_count; i++)
		latency_add(&server->queues[i].latency, sums);
}
