/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_reader - reads and hashes regions over several NBD connections at a time
 *
 *   free ----> waiting ----> under way ----> finished ----> free
 *
 *   free -> waiting          dedupe_reader_put: its pieces say what to read
 *   waiting -> under way     a thread has asked for the pieces, with nbd_aio_pread
 *   under way -> finished    all have come and are hashed, or one could not be read
 *   finished -> free         dedupe_reader_take, then dedupe_reader_release
 *
 * Each thread has a connection of its own, handed out by the server, and up to
 * DEDUPE_READER_DEPTH jobs under way, so that data comes while it hashes.
 *
 * Errors    of a job in job->error: EIO is that of a block and the others go on, EPIPE means that
 *           a connection is lost, and the jobs that come to it end so. start complains on stderr.
 * Memory    the jobs, as many as start was given memory for, but one a thread at least.
 * Threads   all functions on one thread, which is not one of the reader's.
 * Blocking  dedupe_reader_take() until a job has finished.
 */
#ifndef CLI_DEDUPE_DEDUPE_READER_H
#define CLI_DEDUPE_DEDUPE_READER_H

#include <libnbd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/dedupe/dedupe_region.h"

#define DEDUPE_READER_DEPTH	  4u
#define DEDUPE_READER_THREADS_MAX 4u
#define DEDUPE_READER_JOBS_MAX	  (DEDUPE_READER_DEPTH * DEDUPE_READER_THREADS_MAX)
#define DEDUPE_READER_PIECES_MAX  (DEDUPE_REGION_BLOCKS / 2)

struct dedupe_piece {
	uint16_t index; /* in the region */
	uint16_t blocks;
};

struct dedupe_reader_thread;

struct dedupe_job {
	struct dedupe_job *next;
	struct dedupe_reader_thread *thread;
	uint64_t number; /* the region's */
	uint32_t piece_count;
	uint32_t pieces_left;
	int error; /* 0 or a positive errno */
	struct dedupe_piece pieces[DEDUPE_READER_PIECES_MAX];
	uint8_t *data; /* REGION_BYTES */
	struct dedupe_hash hashes[DEDUPE_REGION_BLOCKS]; /* of the pieces, when finished */
	uint64_t places[DEDUPE_REGION_BLOCKS]; /* the owner's */
	uint16_t copy_of[DEDUPE_REGION_BLOCKS]; /* the owner's */
};

struct dedupe_jobs {
	struct dedupe_job *first;
	struct dedupe_job *last;
};

struct dedupe_reader_thread {
	struct dedupe_reader *reader;
	struct nbd_handle *nbd;
	pthread_t thread;
	struct dedupe_job *under_way[DEDUPE_READER_DEPTH];
};

struct dedupe_reader {
	pthread_mutex_t lock; /* of the lists, and of stopping */
	pthread_cond_t work; /* for threads: something waits */
	pthread_cond_t done; /* for the owner: something has finished */
	struct dedupe_jobs waiting;
	struct dedupe_jobs finished;
	bool stopping;
	/* The owner's. */
	struct dedupe_job *free;
	unsigned out; /* jobs that are neither free nor in the owner's hands */
	unsigned thread_count;
	unsigned job_count;
	struct dedupe_reader_thread threads[DEDUPE_READER_THREADS_MAX];
	struct dedupe_job jobs[DEDUPE_READER_JOBS_MAX];
	uint8_t *memory;
};

/* control_path: of the server's control socket. */
int dedupe_reader_start(struct dedupe_reader *reader, const char *control_path,
			uint64_t memory_bytes);
void dedupe_reader_stop(struct dedupe_reader *reader);

/* A job to be filled in; NULL: take a finished one first. */
struct dedupe_job *dedupe_reader_job(struct dedupe_reader *reader);
void dedupe_reader_put(struct dedupe_reader *reader, struct dedupe_job *job);
/* A finished job, waited for. NULL: none is out. */
struct dedupe_job *dedupe_reader_take(struct dedupe_reader *reader);
void dedupe_reader_release(struct dedupe_reader *reader, struct dedupe_job *job);

#endif
