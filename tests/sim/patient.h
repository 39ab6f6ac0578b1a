/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * patient - a volume on a simulated store that is asked one thing at a time
 *
 * What recovers, reads and closes an image. Its own worker, lane 0.
 *
 * Errors    as the engine answers; a request that can never be answered fails the simulation.
 * Threads   one; patients may be used inside each other, each on a store of its own.
 */
#ifndef TESTS_SIM_PATIENT_H
#define TESTS_SIM_PATIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/request/request.h"
#include "core/volume/volume.h"
#include "tests/lib/store_sim.h"

struct patient {
	struct store_sim *sim;
	struct volume *volume;
	struct worker worker;
	struct worker *workers[1];
	struct request request;
	struct damage damage;
	uint8_t *scratch;
	bool answered;
	int res;
};

void patient_init(struct patient *patient);
void patient_done(struct patient *patient);

/* 0 or what volume_open() said; damage.text says why. */
int patient_open(struct patient *patient, struct store_sim *sim, bool read_only, bool discard);
void patient_abandon(struct patient *patient);
int patient_close(struct patient *patient);

/* The request's op, range and data are set; the answer. */
int patient_ask(struct patient *patient);
int patient_read(struct patient *patient, uint64_t off_bytes, uint64_t len_bytes, void *data);
int patient_write(struct patient *patient, uint64_t off_bytes, uint64_t len_bytes, void *data);
int patient_flush(struct patient *patient);

#endif
