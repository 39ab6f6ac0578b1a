/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/patient.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/report.h"

#define CACHE_BYTES (96u * 4096u)

void patient_init(struct patient *patient)
{
	memset(patient, 0, sizeof(*patient));
	patient->scratch = aligned_alloc(BLOCK_BYTES, SCRATCH_BYTES);
	assert(patient->scratch != NULL);
}

void patient_done(struct patient *patient)
{
	assert(patient->volume == NULL);
	free(patient->scratch);
}

int patient_open(struct patient *patient, struct store_sim *sim, bool read_only, bool discard)
{
	struct volume_options options = {
		.cache_bytes = CACHE_BYTES,
		.read_only = read_only,
		.discard = discard,
	};

	assert(patient->volume == NULL);
	patient->sim = sim;
	sim->store.read_only = read_only;
	worker_init(&patient->worker, 0);
	patient->workers[0] = &patient->worker;
	patient->damage.text[0] = '\0';
	return volume_open(&sim->store, &options, patient->workers, 1, &patient->volume,
			   &patient->damage);
}

void patient_abandon(struct patient *patient)
{
	if (patient->volume)
		volume_abandon(patient->volume);
	patient->volume = NULL;
}

int patient_close(struct patient *patient)
{
	int r;

	while (worker_run(&patient->worker) || store_sim_deliver(patient->sim, 0))
		;
	r = volume_close(patient->volume);
	patient->volume = NULL;
	return r;
}

static void answer(struct request *request, int res)
{
	struct patient *patient = request->context;

	assert(!patient->answered);
	patient->answered = true;
	patient->res = res;
}

int patient_ask(struct patient *patient)
{
	patient->request.volume = patient->volume;
	patient->request.worker = &patient->worker;
	patient->request.done = answer;
	patient->request.context = patient;
	patient->request.scratch = patient->scratch;
	patient->answered = false;
	request_submit(&patient->request);
	while (!patient->answered)
		if (!worker_run(&patient->worker) && !store_sim_deliver(patient->sim, 0))
			sim_fail("a request (op %d) after recovery is never answered",
				 patient->request.op);
	return patient->res;
}

int patient_read(struct patient *patient, uint64_t off_bytes, uint64_t len_bytes, void *data)
{
	patient->request = (struct request){
		.op = REQUEST_READ,
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
		.data = data,
	};
	return patient_ask(patient);
}

int patient_write(struct patient *patient, uint64_t off_bytes, uint64_t len_bytes, void *data)
{
	patient->request = (struct request){
		.op = REQUEST_WRITE,
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
		.data = data,
	};
	return patient_ask(patient);
}

int patient_flush(struct patient *patient)
{
	patient->request = (struct request){.op = REQUEST_FLUSH};
	return patient_ask(patient);
}
