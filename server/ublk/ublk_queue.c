/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ublk_queue - see the header */
#include "server/ublk/ublk_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/ublk/ublk_io.h"

static uint8_t *buffer_of(const struct ublk_tag *tag)
{
	const struct ublk_queue *queue = tag->queue;

	return queue->buffers + (size_t)tag->number * queue->shared->shape.io_bytes_max;
}

static uint8_t *scratch_of(const struct ublk_tag *tag)
{
	const struct ublk_queue *queue = tag->queue;

	return queue->buffers + (size_t)queue->depth * queue->shared->shape.io_bytes_max +
	       (size_t)tag->number * SCRATCH_BYTES;
}

/* --- the time, asked once for all that a turn brings --- */

static void forget_time(struct loop_soon *soon)
{
	container_of(soon, struct ublk_queue, soon)->now_ns = 0;
}

static uint64_t now_ns(struct ublk_queue *queue)
{
	if (queue->now_ns == 0) {
		queue->now_ns = clock_ns();
		loop_run_soon(queue->loop, &queue->soon);
	}
	return queue->now_ns;
}

/* --- commands --- */

static void end_if_done(struct ublk_queue *queue)
{
	if (!queue->started || queue->ended || queue->in_engine > 0 ||
	    (queue->fetching > 0 && !queue->leaving))
		return;
	queue->ended = true;
	queue->loop->busy--;
	atomic_fetch_sub(&queue->shared->running, 1);
}

static void command(struct ublk_tag *tag, uint32_t op, int32_t result)
{
	struct ublk_queue *queue = tag->queue;
	struct ring *ring = queue->loop->ring;
	struct io_uring_sqe *sqe = ring_sqe(ring);
	bool zero_copy = queue->shared->zero_copy;
	const struct ublk_io_cmd cmd = {
		.queue = queue->number,
		.tag = tag->number,
		.result = result,
		.addr = zero_copy ? 0 : (uintptr_t)buffer_of(tag),
	};

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, queue->shared->fd, NULL, 0, 0);
	sqe->cmd_op = op;
	if (zero_copy)
		sqe->addr = ublk_payload_register(&tag->payload);
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	ring_tag(ring, sqe, &tag->op);
	ring->parked++;
	queue->fetching++;
}

static void engine_done(struct request *request, int res)
{
	struct ublk_tag *tag = request->context;
	struct ublk_queue *queue = tag->queue;

	assert(queue->in_engine > 0);
	queue->in_engine--;
	res = ublk_payload_end(&tag->payload, request, res);
	if (res >= 0) {
		latency_note(&queue->latency, tag->latency_op, clock_ns() - tag->started_ns);
		res = (int)tag->answer_bytes;
	}
	command(tag, UBLK_IO_COMMIT_AND_FETCH, res);
	end_if_done(queue);
}

static int bring(struct request *request)
{
	const struct ublk_tag *tag = request->context;

	return ublk_payload_bring(&tag->payload, request);
}

static void start_request(struct ublk_tag *tag)
{
	struct ublk_queue *queue = tag->queue;
	const volatile struct ublk_io_desc *mapped = &queue->descs[tag->number];
	const struct ublk_io_desc desc = {
		.op_flags = mapped->op_flags,
		.sectors = mapped->sectors,
		.start_sector = mapped->start_sector,
	};
	struct request *request = &tag->request;
	struct ublk_io io;
	int r = ublk_io_decode(&desc, &queue->shared->shape, &io);

	if (r < 0) {
		command(tag, UBLK_IO_COMMIT_AND_FETCH, r);
		return;
	}
	tag->started_ns = now_ns(queue);
	tag->latency_op = (uint8_t)io.latency_op;
	tag->answer_bytes = io.answer_bytes;
	request->op = io.op;
	request->fua = io.fua;
	request->lasting = queue->shared->outlives && io.op != REQUEST_FLUSH;
	request->no_hole = io.no_hole;
	/* A filesystem whose discard fails goes on with none of the others. */
	request->hint = io.op == REQUEST_DISCARD;
	request->off_bytes = io.off_bytes;
	request->len_bytes = io.len_bytes;
	r = ublk_payload_begin(&tag->payload, request, desc.op_flags, &queue->shared->straight);
	if (r < 0) {
		command(tag, UBLK_IO_COMMIT_AND_FETCH, r);
		return;
	}
	queue->in_engine++;
	request_submit(request);
}

/* The first one of those that end says it for all. */
static void lose(struct ublk_queues *shared)
{
	if (!atomic_exchange(&shared->lost, true))
		shared->wake(NULL);
}

/* No request, and none will come. A command that was refused also leaves the request unanswered
 * that it was to answer: only the next server can do that. */
static void note_end(const struct ublk_tag *tag, int res)
{
	struct ublk_queue *queue = tag->queue;
	struct ublk_queues *shared = queue->shared;
	bool live = atomic_load(&shared->live);

	if (queue->ended)
		return;
	if (res != UBLK_RES_GONE && !atomic_exchange(&shared->refused, true))
		log_error("ublk: queue %u, tag %u: the kernel refused a command: %s", queue->number,
			  tag->number, strerror(-res));
	/* Whoever waits for it to come up would wait for ever. */
	if (!live)
		atomic_store(&shared->refused, true);
	else if (!queue->leaving && (res != UBLK_RES_GONE || !atomic_load(&shared->stopping)))
		lose(shared);
}

static void fetch_done(struct ring_op *op, int res, uint32_t flags)
{
	struct ublk_tag *tag = container_of(op, struct ublk_tag, op);
	struct ublk_queue *queue = tag->queue;

	(void)flags;
	assert(queue->fetching > 0);
	queue->fetching--;
	queue->loop->ring->parked--;
	if (res == UBLK_RES_REQUEST && !queue->leaving)
		start_request(tag);
	else if (res != UBLK_RES_REQUEST)
		note_end(tag, res);
	end_if_done(queue);
}

/* --- on the loop's thread --- */

static void start_task(struct task *task)
{
	struct ublk_queue *queue = container_of(task, struct ublk_queue, start_task);

	queue->started = true;
	queue->loop->busy++;
	if (queue->table_buffers > 0 && ring_buffers(queue->loop->ring, queue->table_buffers) < 0)
		log_warn("ublk: queue %u: the kernel gives no buffers: payload is copied",
			 queue->number);
	for (unsigned i = 0; i < queue->depth; i++)
		command(&queue->tags[i], UBLK_IO_FETCH, 0);
}

static void leave_task(struct task *task)
{
	struct ublk_queue *queue = container_of(task, struct ublk_queue, leave_task);

	queue->leaving = true;
	end_if_done(queue);
}

/* --- on the main thread --- */

void ublk_queue_set_buffers(struct ublk_queue *queue, const struct ublk_table *table)
{
	assert(table->first + queue->depth <= UBLK_PAYLOAD_TABLE_MAX);
	queue->table_buffers = table->buffers;
	for (unsigned i = 0; i < queue->depth; i++)
		queue->tags[i].payload.number = (uint16_t)(table->first + i);
}

static void init_tag(struct ublk_queue *queue, uint16_t number)
{
	struct ublk_tag *tag = &queue->tags[number];

	tag->queue = queue;
	tag->number = number;
	tag->op.done = fetch_done;
	tag->payload = (struct ublk_payload){
		.fd = queue->shared->zero_copy ? queue->shared->fd : -1,
		.off_bytes = ublk_payload_off_bytes(queue->number, number),
		.buffer = buffer_of(tag),
	};
	tag->request.scratch = scratch_of(tag);
	tag->request.bring_bytes = bring;
	tag->request.volume = queue->shared->volume;
	tag->request.worker = &queue->loop->worker;
	tag->request.done = engine_done;
	tag->request.context = tag;
}

static int map_all(struct ublk_queue *queue)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *descs, *buffers;

	queue->descs_bytes = ublk_descs_bytes(queue->depth, page);
	queue->buffers_bytes =
		(size_t)queue->depth * (queue->shared->shape.io_bytes_max + SCRATCH_BYTES);
	descs = mmap(NULL, queue->descs_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE,
		     queue->shared->fd, (off_t)ublk_descs_offset(queue->number, page));
	if (descs == MAP_FAILED)
		return -errno;
	queue->descs = descs;
	buffers = mmap(NULL, queue->buffers_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffers == MAP_FAILED)
		return -errno;
	queue->buffers = buffers;
	/* There is none to be had when memory is short. MAP_POPULATE does nothing in a process
	 * whose memory is locked as it is touched. */
	memset(buffers, 0, queue->buffers_bytes);
	return 0;
}

int ublk_queue_init(struct ublk_queue *queue, struct ublk_queues *shared, struct loop *loop,
		    uint16_t number, uint16_t depth)
{
	int r;

	*queue = (struct ublk_queue){
		.shared = shared,
		.loop = loop,
		.number = number,
		.depth = depth,
		.soon = {.run = forget_time},
		.start_task = {.worker = &loop->worker, .run = start_task},
		.leave_task = {.worker = &loop->worker, .run = leave_task},
	};
	list_init(&queue->soon.node);
	queue->tags = calloc(depth, sizeof(*queue->tags));
	r = queue->tags != NULL ? map_all(queue) : -ENOMEM;
	if (r < 0) {
		ublk_queue_done(queue);
		return r;
	}
	for (uint16_t i = 0; i < depth; i++)
		init_tag(queue, i);
	return 0;
}

void ublk_queue_done(struct ublk_queue *queue)
{
	if (queue->descs != NULL)
		munmap((void *)(uintptr_t)queue->descs, queue->descs_bytes);
	if (queue->buffers != NULL)
		munmap(queue->buffers, queue->buffers_bytes);
	free(queue->tags);
	queue->descs = NULL;
	queue->buffers = NULL;
	queue->tags = NULL;
}

void ublk_queue_start(struct ublk_queue *queue)
{
	atomic_fetch_add(&queue->shared->running, 1);
	worker_post(&queue->start_task);
}

void ublk_queue_leave(struct ublk_queue *queue)
{
	worker_post(&queue->leave_task);
}
