/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_tracking - the pages of change tracking, one for each area
 *
 * A page is written in place, so a crash may leave one that is no page; it counts as open, and so
 * it is damage only on a store that was shut down cleanly. There, too, no stamp may be newer than
 * the generation that the superblock names. What --repair writes is an open page: all of its area
 * counts as changed the next time somebody asks. That is what the volume does with a bad one, too.
 */
#include <inttypes.h>
#include <stdio.h>

#include "cli/check/check_state.h"

/* Reads the page; what is wrong with it goes into why. *ret_good is false if anything is. */
static int page_look(struct check *check, uint32_t area, struct why *why, bool *ret_good)
{
	const struct super *super = &check->super;
	uint64_t block = geometry_tracking_block(&super->geometry, area);
	int r = check_read(check, block, 1, check->page);

	if (r < 0)
		return r;
	*ret_good = tracking_page_decode(check->page, area, super->uuid, &check->tracking, why);
	for (uint32_t i = 0; *ret_good && !check->tracking.open && i < AREA_REGIONS; i++) {
		if (check->tracking.stamps[i] <= super->tracking_generation)
			continue;
		*ret_good = false;
		snprintf(why->expected, sizeof(why->expected), "stamps up to generation %" PRIu32,
			 super->tracking_generation);
		snprintf(why->found, sizeof(why->found), "%" PRIu32 " for region %" PRIu32,
			 check->tracking.stamps[i], area * AREA_REGIONS + i);
	}
	return 0;
}

/* A crash leaves pages half written, and stamps of generations that no superblock names yet. */
static bool is_checked(const struct check *check)
{
	return check->super.geometry.tracking_start != 0 && check->super.clean;
}

int check_tracking(struct check *check)
{
	struct why why;
	bool good;
	int r = 0;

	if (!is_checked(check))
		return 0;
	for (uint32_t area = 0; r == 0 && area < geometry_areas(&check->super.geometry); area++) {
		r = page_look(check, area, &why, &good);
		if (r == 0 && !good)
			check_find_why(check, DAMAGE_MENDS, &why, "tracking page of area %" PRIu32,
				       area);
	}
	return r;
}

int check_tracking_mend(struct check *check)
{
	const struct tracking_page open = {.open = true};
	struct why why;
	bool good;
	int r = 0;

	if (!is_checked(check))
		return 0;
	for (uint32_t area = 0; r == 0 && area < geometry_areas(&check->super.geometry); area++) {
		uint64_t block = geometry_tracking_block(&check->super.geometry, area);

		r = page_look(check, area, &why, &good);
		if (r < 0 || good)
			continue;
		tracking_page_encode(&open, area, check->super.uuid, check->page);
		r = check->source->write(check->source->context, blocks_to_bytes(block),
					 check->page, BLOCK_BYTES);
	}
	return r;
}
