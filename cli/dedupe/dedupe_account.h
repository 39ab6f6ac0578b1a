/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dedupe_account - what a run has done so far, and how that is told
 *
 * On a terminal a bar that is drawn over itself, cut to the window, else lines (also where TERM is
 * dumb), both on stderr; with --json-lines a
 * document a line on stdout. At the end the account, on stdout.
 */
#ifndef CLI_DEDUPE_DEDUPE_ACCOUNT_H
#define CLI_DEDUPE_DEDUPE_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

struct dedupe_account {
	uint64_t scanned_bytes; /* of blocks whose content is known now and was not before */
	uint64_t read_bytes; /* of them, over NBD */
	uint64_t duplicate_bytes; /* that need not be stored, as far as hashes tell */
	uint64_t merged_bytes; /* found the same by the server */
	uint64_t freed_bytes; /* without --dry-run as the server says, with it an estimate */
	uint64_t rejected_bytes; /* differed after all: changed meanwhile */
	uint64_t kept_bytes; /* stay, because the block to share has all the references it can */
	uint64_t unreadable_bytes;
	uint64_t requests;
	uint64_t errors;
	unsigned sample_bits;
	bool dry_run;
	bool complete;
};

enum dedupe_show {
	DEDUPE_SHOW_NOTHING,
	DEDUPE_SHOW_BAR,
	DEDUPE_SHOW_LINES,
	DEDUPE_SHOW_JSON,
};

struct dedupe_progress {
	enum dedupe_show show;
	bool json; /* the account is JSON, whatever is shown before */
	struct dedupe_account account;
	const char *phase;
	uint64_t done_bytes;
	uint64_t total_bytes;
	uint64_t started_ns;
	uint64_t phase_ns; /* when it began */
	uint64_t shown_ns;
	bool drawn; /* a bar stands on the terminal's line */
};

void dedupe_progress_start(struct dedupe_progress *progress);
void dedupe_progress_phase(struct dedupe_progress *progress, const char *phase,
			   uint64_t total_bytes);
/* Shows it, if it is time again. */
void dedupe_progress_at(struct dedupe_progress *progress, uint64_t done_bytes);
/* Takes the bar away, so that something else may be printed. */
void dedupe_progress_clear(struct dedupe_progress *progress);
void dedupe_progress_finish(struct dedupe_progress *progress);

#endif
