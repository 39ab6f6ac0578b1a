/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/check/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/check/check_state.h"

#define FINDINGS_FIRST 16u

static struct check_finding *finding_add(struct check *check)
{
	struct check_report *report = check->report;
	struct check_finding *findings;
	uint32_t count = report->finding_count;

	report->findings_total++;
	if (count >= CHECK_FINDINGS_MAX)
		return &check->scratch;
	/* Room is doubled at each power of two from FINDINGS_FIRST on. */
	if (count == 0 || (count >= FINDINGS_FIRST && (count & (count - 1)) == 0)) {
		findings = realloc(report->findings,
				   sizeof(*findings) * (count == 0 ? FINDINGS_FIRST : 2 * count));
		if (!findings)
			return &check->scratch;
		report->findings = findings;
	}
	report->finding_count++;
	return &report->findings[count];
}

static struct check_finding *find(struct check *check, enum check_damage damage, const char *format,
				  va_list args)
{
	struct check_finding *finding;

	if (check->quiet)
		return &check->scratch;
	finding = finding_add(check);
	memset(finding, 0, sizeof(*finding));
	vsnprintf(finding->where, sizeof(finding->where), format, args);
	if (damage == DAMAGE_FATAL)
		check->fatal_total++;
	return finding;
}

struct check_finding *check_find(struct check *check, enum check_damage damage,
				 const char *where_format, ...)
{
	struct check_finding *finding;
	va_list args;

	va_start(args, where_format);
	finding = find(check, damage, where_format, args);
	va_end(args);
	return finding;
}

void check_find_why(struct check *check, enum check_damage damage, const struct why *why,
		    const char *where_format, ...)
{
	struct check_finding *finding;
	va_list args;

	va_start(args, where_format);
	finding = find(check, damage, where_format, args);
	va_end(args);
	memcpy(finding->expected, why->expected, sizeof(finding->expected));
	memcpy(finding->found, why->found, sizeof(finding->found));
}

int check_read(struct check *check, uint64_t block, uint32_t blocks, void *buf)
{
	int r = -EIO;

	if (block < check->size_blocks && blocks <= check->size_blocks - block)
		r = check->source->read(check->source->context, blocks_to_bytes(block), buf,
					(size_t)blocks_to_bytes(blocks));
	if (r == 0 || !check->salvage)
		return r;
	memset(buf, 0, (size_t)blocks_to_bytes(blocks));
	for (uint32_t i = 0; blocks > 1 && i < blocks; i++)
		check_read(check, block + i, 1, (uint8_t *)buf + (size_t)i * BLOCK_BYTES);
	return 0;
}

struct check *check_new(const struct check_source *source, struct check_report *report)
{
	struct check *check = calloc(1, sizeof(*check));

	if (!check)
		return NULL;
	check->source = source;
	check->report = report;
	check->size_blocks = source->size_bytes / BLOCK_BYTES;
	return check;
}

void check_free(struct check *check)
{
	if (check->slabs) {
		for (uint32_t i = 0; i < check->super.geometry.slabs; i++)
			free(check->slabs[i]);
	}
	free(check->slabs);
	free(check->mend_slabs);
	free(check->generations);
	free(check->log.records);
	free(check->log.touches);
	free(check);
}

int check_run(struct check *check)
{
	int r;

	r = check_super_load(check);
	if (r < 0 || !check->generations)
		return r;
	check->report->clean_shutdown = check->super.clean;
	r = check_log_load(check);
	if (r < 0)
		return r;
	check->report->replayed_records = check->log.record_count;
	check->look_at_spares = !check->super.clean && !check->incomplete;
	r = check_super_other(check);
	if (r == 0)
		r = check_count(check);
	return r < 0 ? r : check_tracking(check);
}

int check_store(const struct check_source *source, bool repair, struct check_report *ret_report)
{
	struct check *check;
	int r;

	memset(ret_report, 0, sizeof(*ret_report));
	check = check_new(source, ret_report);
	if (!check)
		return -ENOMEM;
	r = check_run(check);
	if (r == 0 && repair && check->generations)
		r = check_mend(check);
	check_free(check);
	if (r < 0)
		check_report_done(ret_report);
	return r;
}

void check_report_done(struct check_report *report)
{
	free(report->findings);
	report->findings = NULL;
	report->finding_count = 0;
}
