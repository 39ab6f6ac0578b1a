/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dump - sameblk dump super|journal|map|refs STORE
 *
 * For people who debug. super and journal print what lies on the store; map and refs print the
 * state that recovery would make of it, with the parts of check. Numbers are blocks.
 *
 * Exit status: 0; 1: damage was met (told on stderr); 2 could not be read or is in use.
 */
#include "cli/check/dump.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/base/say.h"
#include "cli/check/check_file.h"
#include "cli/check/check_state.h"
#include "server/base/uuid.h"

static void usage(FILE *out)
{
	fputs("usage: sameblk dump super|journal|map|refs STORE\n"
	      "Prints the metadata of a store that no server has open. All numbers are blocks.\n",
	      out);
}

/* A visitor's answer: the walk ends when nobody reads what it prints; say_finish() tells of it. */
static int printed(void)
{
	return ferror(stdout) ? -EPIPE : 0;
}

/* --- super --- */

static void print_uuid(const uint8_t *uuid)
{
	char text[UUID_TEXT_BYTES];

	uuid_print(uuid, text);
	fputs(text, stdout);
}

static void print_geometry(const struct geometry *g)
{
	printf("logical_blocks  %" PRIu64 "\n", g->logical_blocks);
	printf("store_blocks    %" PRIu64 "\n", g->store_blocks);
	printf("regions         %" PRIu32 " in %" PRIu32 " root pages\n", g->regions,
	       g->root_pages);
	printf("slabs           %" PRIu32 " in %" PRIu32 " summary pages\n", g->slabs,
	       g->summary_pages);
	printf("super           0 and %" PRIu64 ", %" PRIu32 " blocks each\n", g->super_b_start,
	       g->super_blocks);
	printf("ring            %" PRIu64 ", %" PRIu32 " blocks\n", g->ring_start, g->ring_blocks);
	printf("tops            %" PRIu64 "\n", g->tops_start);
	if (g->tracking_start != 0)
		printf("tracking        %" PRIu64 ", %" PRIu32 " areas\n", g->tracking_start,
		       geometry_areas(g));
	printf("data            %" PRIu64 "\n", g->data_start);
}

static int dump_super(struct check *check)
{
	const struct super *super = &check->super;

	printf("uuid            ");
	print_uuid(super->uuid);
	printf("\nversion         %u\n", FORMAT_VERSION);
	printf("features        incompat %" PRIx64 ", ro_compat %" PRIx64 ", compat %" PRIx64 "\n",
	       super->features_incompat, super->features_ro_compat, super->features_compat);
	print_geometry(&super->geometry);
	printf("checkpoint      %" PRIu64 " (copy %c)\n", super->checkpoint,
	       super->checkpoint & 1 ? 'B' : 'A');
	if (!check->other_valid)
		printf("other copy      bad: expected %s, found %s\n", check->other_why.expected,
		       check->other_why.found);
	printf("clean           %s\n", super->clean ? "yes" : "no");
	printf("epoch           %" PRIu64 "\n", super->epoch);
	printf("tail            sequence %" PRIu64 ", lsn %" PRIu64 ", group %" PRIu64
	       ", prev %016" PRIx64 "\n",
	       super->tail_sequence, super->tail_lsn, super->tail_group, super->tail_prev);
	printf("log reaches     lsn %" PRIu64 "\n", super->log_reaches_lsn);
	printf("mapped          %" PRIu64 "\n", super->mapped_blocks);
	printf("places          %" PRIu64 "\n", super->places);
	if (super->geometry.tracking_start != 0)
		printf("changes         are stamped %" PRIu32 "\n", super->tracking_generation);
	for (uint32_t i = 0; i < geometry_tops(&super->geometry); i++) {
		bool root = i < super->geometry.root_pages;

		if (check->generations[i] != 0)
			printf("%s %" PRIu32 " generation %" PRIu32 " in block %" PRIu64 "\n",
			       root ? "root page" : "summary page",
			       root ? i : i - super->geometry.root_pages, check->generations[i],
			       geometry_top_block(&super->geometry, i, check->generations[i]));
	}
	return 0;
}

/* --- journal --- */

static const char *record_name(enum record_kind kind)
{
	static const char *const names[] = {
		[RECORD_PLACE] = "place",     [RECORD_UNPLACE] = "unplace",
		[RECORD_EXPLODE] = "explode", [RECORD_MAP] = "map",
		[RECORD_UNMAP] = "unmap",     [RECORD_SHARE] = "share",
	};

	return names[kind];
}

static void print_record(const uint8_t *block, uint32_t i, const struct geometry *geometry,
			 uint64_t lsn)
{
	struct record record;
	struct why why;

	if (!record_get(block, i, geometry, &record, &why)) {
		printf("  %" PRIu64 " bad: %s\n", lsn, why.found);
		return;
	}
	printf("  %" PRIu64 " %s lbn %" PRIu64 " count %" PRIu32 " old %" PRIu64 " new %" PRIu64,
	       lsn, record_name(record.kind), record.lbn.v, record.count, record.old.v,
	       record.new.v);
	if (record.flags & RECORD_SPLIT)
		printf(" second %" PRIu64, record_second(&record).v);
	else if (record.kind == RECORD_SHARE)
		printf(" src %" PRIu64, record.src.v);
	printf("%s%s%s\n", record.flags & RECORD_ON_ROOT ? " on_root" : "",
	       record.flags & RECORD_SRC_ON_ROOT ? " src_on_root" : "",
	       record.flags & RECORD_SHARED ? " shared" : "");
}

static int dump_journal(struct check *check)
{
	const struct super *super = &check->super;
	const struct geometry *geometry = &super->geometry;
	struct journal_header header;
	struct why why;
	uint64_t checksum;
	int r;

	r = check_log_load(check);
	if (r < 0)
		return r;
	printf("tail %" PRIu64 ", end %" PRIu64 ", epoch %" PRIu64 ", %" PRIu32
	       " records are replayed\n",
	       super->tail_sequence, check->log.end_sequence, super->epoch,
	       check->log.record_count);
	for (uint32_t at = 0; at < geometry->ring_blocks; at++) {
		r = check_read(check, geometry->ring_start + at, 1, check->page);
		if (r < 0)
			return r;
		if (!journal_verify(check->page, super->uuid, &header, &checksum, &why))
			continue;
		printf("block %" PRIu64 " epoch %" PRIu64 " sequence %" PRIu64 " group %" PRIu64
		       "%s checkpoint %" PRIu64 " prev %016" PRIx64 " checksum %016" PRIx64 "%s\n",
		       geometry->ring_start + at, header.epoch, header.sequence, header.group,
		       header.last ? " last" : "", header.checkpoint, header.prev, checksum,
		       header.epoch == super->epoch && header.sequence >= super->tail_sequence &&
				       header.sequence < check->log.end_sequence
			       ? ""
			       : " (not replayed)");
		for (uint32_t i = 0; i < header.count; i++)
			print_record(check->page, i, geometry, header.first_lsn + i);
		r = printed();
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- map --- */

static int print_place(void *context, uint32_t region, const struct root_entry *entry)
{
	static const char *const kinds[] = {"hole", "linear", "leaf"};

	(void)context;
	printf("region %" PRIu32 " %s%s place %" PRIu64, region, kinds[entry->kind],
	       entry->shared ? " shared" : "", entry->place.v);
	if (root_entry_is_split(entry))
		printf(" and %" PRIu64, entry->second.v);
	if (entry->written)
		printf(" generation %" PRIu32, entry->generation);
	putchar('\n');
	return printed();
}

static int print_run(void *context, lbn_t lbn, pbn_t pbn, uint32_t count, bool flagged)
{
	(void)context;
	printf("  %" PRIu64 " + %" PRIu32 " -> %" PRIu64 "%s\n", lbn.v, count, pbn.v,
	       flagged ? " maybe_shared" : "");
	return printed();
}

static int dump_map(struct check *check)
{
	struct map_visitor visitor = {.place = print_place, .run = print_run};
	int r;

	r = check_log_load(check);
	return r < 0 ? r : check_map_walk(check, &visitor);
}

/* --- refs --- */

static void print_counts(const struct check *check)
{
	const struct check_refs *refs = &check->refs;
	uint32_t blocks = geometry_slab_blocks(&check->super.geometry, refs->slab);
	uint32_t i = 0;

	while (i < blocks) {
		uint32_t start = i;

		while (i < blocks && refs->counts[i] == refs->counts[start])
			i++;
		if (refs->counts[start] > 0)
			printf("  %" PRIu64 " + %" PRIu32 ": %u\n",
			       geometry_slab_pbn(&check->super.geometry, refs->slab, start).v,
			       i - start, refs->counts[start]);
	}
}

static int dump_slab(struct check *check, uint32_t slab, const struct summary_entry *entry)
{
	bool good;
	int r;

	if (entry->generation == 0 && check_log_touches(check, PAGE_REFS, slab).count == 0)
		return 0;
	r = check_replay_refs(check, slab, entry->generation, &check->refs, &good);
	if (r < 0)
		return r;
	printf("slab %" PRIu32 " generation %" PRIu32 " free %" PRIu32 " shared_refs %" PRIu32
	       " lsn %" PRIu64 "%s\n",
	       slab, entry->generation, entry->free_blocks, entry->shared_refs, check->refs.lsn,
	       good ? "" : " BAD");
	if (good)
		print_counts(check);
	return printed();
}

static int dump_refs(struct check *check)
{
	struct summary_entry entries[SUMMARY_ENTRIES];
	uint32_t slabs = check->super.geometry.slabs;
	bool good;
	int r;

	r = check_log_load(check);
	for (uint32_t page = 0; r == 0 && page < check->super.geometry.summary_pages; page++) {
		r = check_summary_load(check, page, entries, &good);
		for (uint32_t i = 0; r == 0 && i < SUMMARY_ENTRIES; i++) {
			uint32_t slab = page * SUMMARY_ENTRIES + i;

			if (slab < slabs)
				r = dump_slab(check, slab, &entries[i]);
		}
	}
	return r;
}

/* --- command --- */

struct dump_kind {
	const char *name;
	int (*dump)(struct check *check);
};

static const struct dump_kind *kind_find(const char *name)
{
	static const struct dump_kind kinds[] = {
		{"super", dump_super},
		{"journal", dump_journal},
		{"map", dump_map},
		{"refs", dump_refs},
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(name, kinds[i].name) == 0)
			return &kinds[i];
	}
	return NULL;
}

static int dump_store(const struct dump_kind *kind, const struct check_source *source)
{
	struct check_report report = {0};
	struct check *check = check_new(source, &report);
	int r;

	if (!check)
		return -ENOMEM;
	r = check_super_load(check);
	if (r == 0 && check->generations)
		r = kind->dump(check);
	for (uint32_t i = 0; i < report.finding_count; i++)
		say_error("damage in", report.findings[i].where, "expected %s, found %s",
			  report.findings[i].expected, report.findings[i].found);
	if (r == 0 && report.findings_total > 0)
		r = 1;
	check_free(check);
	check_report_done(&report);
	return r;
}

/* -1: go on. Otherwise an exit status. */
static int options_parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int option;

	optind = 0;
	while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
		switch (option) {
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			puts("sameblk " SAMEBLK_VERSION);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	return -1;
}

int dump_main(int argc, char **argv)
{
	const struct dump_kind *kind;
	struct check_file file;
	pid_t pid;
	int r;

	r = options_parse(argc, argv);
	if (r >= 0)
		return say_finish(r);
	kind = optind == argc - 2 ? kind_find(argv[optind]) : NULL;
	if (!kind) {
		usage(stderr);
		return 2;
	}
	r = check_file_open(argv[optind + 1], false, &file, &pid);
	if (r == 0) {
		r = dump_store(kind, &file.source);
		check_file_close(&file);
	}
	if (r < 0 && !ferror(stdout))
		check_file_say(argv[optind + 1], r, pid);
	return say_finish(r < 0 ? EXIT_FAILED : r);
}
