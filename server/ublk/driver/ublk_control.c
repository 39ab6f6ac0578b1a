/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_control - see the header */
#include "server/ublk/driver/ublk_control.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/base/clock.h"

#define ENTRIES	      4u
#define PAYLOAD_BYTES 4096u
#define PATH_BYTES    32u
#define SLICE_MS      50u
#define LIMIT_MS      10000u
/* These wait for I/O: a scan for partitions, or what was in flight. */
#define LONG_LIMIT_MS 60000u
#define CANCEL_MS     2000u
#define HOLD_MS	      5000u
#define COMMAND_TAG   1u
#define CANCEL_TAG    2u

struct ublk_control {
	struct io_uring ring;
	int fd;
	uint8_t *payload; /* a page: a path if the device has no privileges, then the rest */
	uint64_t features;
	bool unprivileged;
	bool lost; /* the kernel still has a command */
	char why[UBLK_WHY_BYTES];
};

struct call {
	uint32_t op;
	uint32_t id;
	uint64_t data;
	void *bytes; /* both ways; may be NULL */
	uint16_t len_bytes;
	unsigned limit_ms;
	const _Atomic bool *give_up; /* may be NULL */
};

/* Commands go one by one, so there always is one. It has twice the size of its struct. */
static struct io_uring_sqe *next_entry(struct ublk_control *control)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&control->ring);

	assert(sqe != NULL);
	memset(sqe, 0, 2 * sizeof(*sqe));
	return sqe;
}

static void prepare(struct ublk_control *control, const struct call *call)
{
	struct io_uring_sqe *sqe = next_entry(control);
	bool has_path = control->unprivileged && call->op != UBLK_CTL_ADD &&
			call->op != UBLK_CTL_GET_FEATURES;
	uint8_t *bytes = control->payload + (has_path ? PATH_BYTES : 0);
	struct ublk_ctl_cmd cmd = {
		.id = call->id,
		.queue = UINT16_MAX,
		.data = call->data,
	};

	memset(control->payload, 0, PAYLOAD_BYTES);
	if (call->bytes != NULL)
		memcpy(bytes, call->bytes, call->len_bytes);
	if (has_path) {
		snprintf((char *)control->payload, PATH_BYTES, "/dev/ublkc%u", call->id);
		cmd.path_bytes = PATH_BYTES;
	}
	cmd.len_bytes = (uint16_t)(call->len_bytes + cmd.path_bytes);
	if (cmd.len_bytes > 0)
		cmd.addr = (uintptr_t)control->payload;
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = control->fd;
	sqe->cmd_op = call->op;
	sqe->user_data = COMMAND_TAG;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
}

/* True: a completion of the command; others are passed over. */
static bool take(struct ublk_control *control, unsigned limit_ms, int *ret_res)
{
	struct __kernel_timespec slice = {.tv_sec = limit_ms / 1000,
					  .tv_nsec = limit_ms % 1000 * 1000000L};
	struct io_uring_cqe *cqe;
	bool ours;

	if (io_uring_wait_cqe_timeout(&control->ring, &cqe, &slice) < 0)
		return false;
	ours = cqe->user_data == COMMAND_TAG;
	*ret_res = cqe->res;
	io_uring_cqe_seen(&control->ring, cqe);
	return ours;
}

static bool wait_until(struct ublk_control *control, uint64_t end_ms, const _Atomic bool *give_up,
		       int *ret_res)
{
	while (clock_ms() < end_ms) {
		if (take(control, SLICE_MS, ret_res))
			return true;
		if (give_up != NULL && atomic_load(give_up))
			return false;
	}
	return false;
}

/* 0: it is back, whatever came of it. */
static int call_back(struct ublk_control *control)
{
	struct io_uring_sqe *sqe = next_entry(control);
	int res;

	sqe->opcode = IORING_OP_ASYNC_CANCEL;
	sqe->fd = -1;
	sqe->addr = COMMAND_TAG;
	sqe->user_data = CANCEL_TAG;
	if (io_uring_submit(&control->ring) < 0)
		return -ETIMEDOUT;
	return wait_until(control, clock_ms() + CANCEL_MS, NULL, &res) ? 0 : -ETIMEDOUT;
}

static int run(struct ublk_control *control, const struct call *call)
{
	int r, res = 0;

	if (control->lost)
		return -ETIMEDOUT;
	prepare(control, call);
	r = io_uring_submit(&control->ring);
	if (r < 0) {
		control->lost = true; /* it may be taken later */
		return r;
	}
	if (!wait_until(control, clock_ms() + call->limit_ms, call->give_up, &res)) {
		control->lost = call_back(control) < 0;
		return call->give_up != NULL && atomic_load(call->give_up) ? -ECANCELED
									   : -ETIMEDOUT;
	}
	if (res < 0)
		return res;
	if (call->bytes != NULL) {
		bool has_path = control->unprivileged && call->op != UBLK_CTL_ADD &&
				call->op != UBLK_CTL_GET_FEATURES;

		memcpy(call->bytes, control->payload + (has_path ? PATH_BYTES : 0),
		       call->len_bytes);
	}
	return 0;
}

static int run_or_say(struct ublk_control *control, const struct call *call)
{
	int r = run(control, call);

	if (r < 0)
		ublk_why_command(call->op, call->id, r, control->why);
	return r;
}

/* --- up and down --- */

static bool has_driver(void)
{
	struct stat st;

	return stat("/sys/class/misc/ublk-control", &st) == 0;
}

static int make_ring(struct ublk_control *control)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SQE128};

	return io_uring_queue_init_params(ENTRIES, &control->ring, &params);
}

static int ask_features(struct ublk_control *control)
{
	const struct call call = {
		.op = UBLK_CTL_GET_FEATURES,
		.id = UINT32_MAX,
		.bytes = &control->features,
		.len_bytes = sizeof(control->features),
		.limit_ms = LIMIT_MS,
	};

	return run(control, &call);
}

static int set_up(struct ublk_control *control, char reterr_why[UBLK_WHY_BYTES])
{
	const char *missing;
	int r;

	control->fd = open(UBLK_CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (control->fd < 0) {
		r = -errno;
		ublk_why_no_control(r, has_driver(), reterr_why);
		return r;
	}
	r = make_ring(control);
	if (r < 0) {
		ublk_why_no_ring(r, reterr_why);
		close(control->fd);
		return r;
	}
	r = ask_features(control);
	if (r < 0) {
		ublk_why_no_features(r, reterr_why);
	} else {
		missing = ublk_why_features(control->features);
		if (missing != NULL) {
			snprintf(reterr_why, UBLK_WHY_BYTES, "%s", missing);
			r = -EOPNOTSUPP;
		}
	}
	if (r < 0) {
		io_uring_queue_exit(&control->ring);
		close(control->fd);
	}
	return r;
}

int ublk_control_open(struct ublk_control **ret_control, char reterr_why[UBLK_WHY_BYTES])
{
	struct ublk_control *control = calloc(1, sizeof(*control));
	int r = -ENOMEM;

	*ret_control = NULL;
	if (control == NULL) {
		snprintf(reterr_why, UBLK_WHY_BYTES, "%s", strerror(ENOMEM));
		return r;
	}
	control->payload = mmap(NULL, PAYLOAD_BYTES, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (control->payload == MAP_FAILED) {
		snprintf(reterr_why, UBLK_WHY_BYTES, "%s", strerror(ENOMEM));
		free(control);
		return r;
	}
	r = set_up(control, reterr_why);
	if (r < 0) {
		if (!control->lost)
			munmap(control->payload, PAYLOAD_BYTES);
		free(control);
		return r;
	}
	*ret_control = control;
	return 0;
}

void ublk_control_close(struct ublk_control *control)
{
	if (control == NULL)
		return;
	io_uring_queue_exit(&control->ring);
	close(control->fd);
	/* A command that never came back may still write there. */
	if (!control->lost)
		munmap(control->payload, PAYLOAD_BYTES);
	free(control);
}

/* --- holding the driver --- */

int ublk_control_hold(struct ublk_control *control, bool alone)
{
	const struct timespec pause = {.tv_nsec = SLICE_MS * 1000000L};
	int how = (alone ? LOCK_EX : LOCK_SH) | LOCK_NB;

	for (unsigned ms = 0; flock(control->fd, how) < 0; ms += SLICE_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (ms >= HOLD_MS)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
	return 0;
}

void ublk_control_let_go(struct ublk_control *control)
{
	(void)flock(control->fd, LOCK_UN);
}

/* --- commands --- */

uint64_t ublk_control_features(const struct ublk_control *control)
{
	return control->features;
}

const char *ublk_control_why(const struct ublk_control *control)
{
	return control->why;
}

void ublk_control_set_unprivileged(struct ublk_control *control, bool unprivileged)
{
	control->unprivileged = unprivileged;
}

int ublk_control_add(struct ublk_control *control, struct ublk_info *info)
{
	const struct call call = {
		.op = UBLK_CTL_ADD,
		.id = info->id,
		.bytes = info,
		.len_bytes = sizeof(*info),
		.limit_ms = LIMIT_MS,
	};

	return run_or_say(control, &call);
}

int ublk_control_info(struct ublk_control *control, uint32_t id, struct ublk_info *ret_info)
{
	bool before = control->unprivileged;
	struct call call = {
		.op = UBLK_CTL_GET_INFO2,
		.id = id,
		.bytes = ret_info,
		.len_bytes = sizeof(*ret_info),
		.limit_ms = LIMIT_MS,
	};
	int r;

	/* With its path, which one without privileges has to have; others may not take it. */
	memset(ret_info, 0, sizeof(*ret_info));
	control->unprivileged = true;
	r = run(control, &call);
	control->unprivileged = before;
	if (r < 0 && r != -ETIMEDOUT && !before) {
		call.op = UBLK_CTL_GET_INFO;
		r = run(control, &call);
	}
	if (r < 0)
		ublk_why_command(call.op, id, r, control->why);
	return r;
}

int ublk_control_set_params(struct ublk_control *control, uint32_t id,
			    const struct ublk_params *params)
{
	struct ublk_params copy = *params;
	const struct call call = {
		.op = UBLK_CTL_SET_PARAMS,
		.id = id,
		.bytes = &copy,
		.len_bytes = sizeof(copy),
		.limit_ms = LIMIT_MS,
	};

	return run_or_say(control, &call);
}

int ublk_control_get_params(struct ublk_control *control, uint32_t id,
			    struct ublk_params *ret_params)
{
	const struct call call = {
		.op = UBLK_CTL_GET_PARAMS,
		.id = id,
		.bytes = ret_params,
		.len_bytes = sizeof(*ret_params),
		.limit_ms = LIMIT_MS,
	};

	*ret_params = (struct ublk_params){.len_bytes = sizeof(*ret_params)};
	return run_or_say(control, &call);
}

int ublk_control_go_live(struct ublk_control *control, uint32_t op, uint32_t id, pid_t server,
			 const _Atomic bool *give_up)
{
	const struct call call = {
		.op = op,
		.id = id,
		.data = (uint64_t)server,
		.limit_ms = LONG_LIMIT_MS,
		.give_up = give_up,
	};

	return run_or_say(control, &call);
}

int ublk_control_plain(struct ublk_control *control, uint32_t op, uint32_t id)
{
	const struct call call = {.op = op, .id = id, .limit_ms = LONG_LIMIT_MS};

	return run_or_say(control, &call);
}

int ublk_control_delete(struct ublk_control *control, uint32_t id, bool used)
{
	int r = used ? ublk_control_plain(control, UBLK_CTL_DEL_ASYNC, id) : -EOPNOTSUPP;

	/* Before Linux 6.9 the driver could only wait. */
	if (ublk_why_lacks(r))
		r = ublk_control_plain(control, UBLK_CTL_DEL, id);
	return r;
}
