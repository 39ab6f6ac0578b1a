/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fake_engine - stands in for core/ below the control socket: a volume without a store
 *
 * It implements the functions of core/volume/volume.h, core/request/same_job.h and
 * core/request/request.h that the control side calls, for a volume whose block L at first holds the
 * content L % FAKE_PERIOD (0 stands for zeros) and whose mapping is an array. Jobs can be held
 * back, so that tests decide when and in which order they end.
 *
 * Threads   the fake has one worker with a thread of its own; the functions below are for the
 *           test's.
 */
#ifndef TESTS_SERVER_CONTROL_FAKE_ENGINE_H
#define TESTS_SERVER_CONTROL_FAKE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/worker.h"
#include "core/volume/volume.h"

#define FAKE_PERIOD 512u
#define FAKE_BYTES  (512ull << 20)

struct volume *fake_new(void);
/* Ends the worker's thread. No job may be under way. */
void fake_free(struct volume *volume);
struct worker *fake_worker(struct volume *volume);

/* While held, jobs end only when they are cancelled. Released, they end in the order they came,
 * or the last one first. */
void fake_hold(struct volume *volume, bool hold, bool last_first);
/* A reference beyond this many fails with EMLINK. */
void fake_set_references_max(struct volume *volume, uint32_t references);
void fake_set_state(struct volume *volume, enum volume_state state);
void fake_set_failed(struct volume *volume, uint64_t bytes);
void fake_write(struct volume *volume, uint64_t off_bytes, uint32_t content);

/* Jobs that run now, most that ran at a time, and those that ended because they were cancelled. */
unsigned fake_running(struct volume *volume);
unsigned fake_running_most(struct volume *volume);
unsigned fake_cancelled(struct volume *volume);

#endif
