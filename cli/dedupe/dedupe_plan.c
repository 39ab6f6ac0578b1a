/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_plan - see the header */
#include "cli/dedupe/dedupe_plan.h"

#include "cli/base/say.h"
#include "cli/dedupe/dedupe_changes.h"
#include "core/base/units.h"

static int forget_all(struct dedupe_file *file, const char *why)
{
	if (why != NULL)
		say_error("the hashfile", file->sql.name, "begins anew: %s", why);
	return dedupe_file_forget_all(file);
}

/* Rows that writes have made untrue. */
static int forget_changed(struct dedupe_file *file, const struct dedupe_changes *changes)
{
	uint64_t known = file->about[DEDUPE_ABOUT_GENERATION];
	int r = 0;

	if (!changes->tracked) {
		bool resume = known == 0 && file->about[DEDUPE_ABOUT_FINISHED] == 0;

		return resume ? 0 : forget_all(file, NULL);
	}
	if (known == 0)
		return forget_all(file, NULL);
	if (changes->life != file->about[DEDUPE_ABOUT_LIFE] || changes->generation < known)
		return forget_all(file, "the store is another copy than the one it was made of");
	if (!changes->complete)
		return forget_all(file, "the server does not know what was written since");
	for (uint64_t i = 0; r == 0 && i < dedupe_changes_count(changes); i++) {
		uint64_t off, len;

		dedupe_changes_range(changes, i, &off, &len);
		r = dedupe_file_forget(file, off / REGION_BYTES, div_up(off + len, REGION_BYTES));
	}
	return r;
}

static bool is_covered(const struct dedupe_plan *plan, const struct dedupe_file *file)
{
	return file->about[DEDUPE_ABOUT_COVERED_FROM] <= plan->first_region &&
	       file->about[DEDUPE_ABOUT_COVERED_TO] >= plan->end_region;
}

/* More may be found now in what was looked at before. */
static bool finds_more(const struct dedupe_plan *plan, const struct dedupe_file *file)
{
	return plan->min_run_blocks < file->about[DEDUPE_ABOUT_MIN_RUN] ||
	       (file->about[DEDUPE_ABOUT_SAMPLE_BITS] > 0 &&
		plan->memory_bytes > file->about[DEDUPE_ABOUT_MEMORY]);
}

/* Whether the run has anything to do. */
static int look(const struct dedupe_plan *plan, struct dedupe_file *file, bool *ret_anything)
{
	uint64_t pending;
	int r = dedupe_file_count_pending(file, plan->first_region, plan->end_region, &pending);

	if (r == 0)
		*ret_anything = file->about[DEDUPE_ABOUT_FINISHED] == 0 || pending > 0 ||
				!is_covered(plan, file);
	return r;
}

static int decide(const struct dedupe_plan *plan, struct dedupe_file *file, bool *ret_anything)
{
	int r = 0;

	if (file->about[DEDUPE_ABOUT_COVERED_TO] > 0 && finds_more(plan, file))
		r = dedupe_file_set_pending(file, plan->first_region, plan->end_region, true);
	if (r == 0)
		r = look(plan, file, ret_anything);
	if (r < 0)
		return r;
	return *ret_anything ? dedupe_file_set(file, DEDUPE_ABOUT_FINISHED, 0) : 0;
}

/* Nothing was written since the file's generation. It need not become the newer one: what is
 * written from now on is beyond both. */
static bool holds(const struct dedupe_file *file, const struct dedupe_changes *changes)
{
	uint64_t known = file->about[DEDUPE_ABOUT_GENERATION];

	return changes->tracked && changes->complete && known > 0 && changes->generation >= known &&
	       changes->life == file->about[DEDUPE_ABOUT_LIFE] &&
	       dedupe_changes_count(changes) == 0;
}

static int note(const struct dedupe_plan *plan, struct dedupe_file *file,
		const struct dedupe_changes *changes, bool *ret_anything)
{
	int r = dedupe_file_begin(file);

	if (r == 0)
		r = forget_changed(file, changes);
	if (r == 0)
		r = dedupe_file_set(file, DEDUPE_ABOUT_GENERATION, changes->generation);
	if (r == 0)
		r = dedupe_file_set(file, DEDUPE_ABOUT_LIFE, changes->life);
	if (r == 0)
		r = decide(plan, file, ret_anything);
	return r < 0 ? r : dedupe_file_commit(file);
}

int dedupe_plan_begin(const struct dedupe_plan *plan, struct client *client,
		      struct dedupe_file *file, bool *ret_anything)
{
	struct dedupe_changes changes;
	bool anything = true;
	/* One that no server can have given is not asked for: what there is begins anew then. */
	uint64_t known = file->about[DEDUPE_ABOUT_GENERATION];
	int r = dedupe_changes_ask(client, known <= UINT32_MAX ? known : 0,
				   file->about[DEDUPE_ABOUT_SIZE], &changes);

	if (r < 0)
		return r;
	if (holds(file, &changes) && !finds_more(plan, file))
		r = look(plan, file, &anything);
	if (r == 0 && anything)
		r = note(plan, file, &changes, &anything);
	dedupe_changes_done(&changes);
	if (r == 0)
		*ret_anything = anything;
	return r;
}

/* Together with what was covered before, if that is one piece. */
static int cover(const struct dedupe_plan *plan, struct dedupe_file *file)
{
	uint64_t from = file->about[DEDUPE_ABOUT_COVERED_FROM];
	uint64_t to = file->about[DEDUPE_ABOUT_COVERED_TO];
	uint64_t first = plan->whole_first_region, end = plan->whole_end_region;
	uint64_t min_run = plan->min_run_blocks;
	int r;

	if (first >= end)
		return 0;
	if (to > 0 && from <= end && to >= first) {
		/* What only the runs before looked at was looked at with their shortest run. */
		if ((from < first || to > end) && file->about[DEDUPE_ABOUT_MIN_RUN] > min_run)
			min_run = file->about[DEDUPE_ABOUT_MIN_RUN];
		first = min_u64(first, from);
		end = to > end ? to : end;
	}
	r = dedupe_file_set(file, DEDUPE_ABOUT_COVERED_FROM, first);
	if (r == 0)
		r = dedupe_file_set(file, DEDUPE_ABOUT_COVERED_TO, end);
	return r < 0 ? r : dedupe_file_set(file, DEDUPE_ABOUT_MIN_RUN, min_run);
}

int dedupe_plan_end(const struct dedupe_plan *plan, struct dedupe_scratch *scratch,
		    unsigned sample_bits)
{
	struct dedupe_file *file = scratch->file;
	int r = dedupe_file_begin(file);

	if (r == 0)
		r = dedupe_file_set_pending(file, plan->whole_first_region, plan->whole_end_region,
					    false);
	if (r == 0)
		r = dedupe_scratch_keep_pending(scratch);
	if (r == 0)
		r = cover(plan, file);
	if (r == 0)
		r = dedupe_file_set(file, DEDUPE_ABOUT_MEMORY, plan->memory_bytes);
	if (r == 0)
		r = dedupe_file_set(file, DEDUPE_ABOUT_SAMPLE_BITS, sample_bits);
	if (r == 0)
		r = dedupe_file_set(file, DEDUPE_ABOUT_FINISHED, 1);
	return r < 0 ? r : dedupe_file_commit(file);
}
