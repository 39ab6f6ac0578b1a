/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_main - sameblk check [--json] [--repair | --salvage OUT [--force]] STORE
 *
 * Exit status: 0 clean, or everything mended or salvaged; 1 damage; 2 the store could not be read
 * or is in use.
 */
#include "cli/check/check_main.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/base/say.h"
#include "cli/check/check.h"
#include "cli/check/check_file.h"
#include "cli/check/salvage_main.h"
#include "core/base/units.h"
#include "server/control/protocol/ctl_rpc.h"

enum {
	EXIT_CLEAN = EXIT_GOOD,
	EXIT_DAMAGE = EXIT_SEE,
};

struct check_options {
	bool json;
	bool repair;
	bool force;
	const char *salvage; /* the file to write to, or NULL */
	const char *store;
};

static void usage(FILE *out)
{
	fputs("usage: sameblk check [--json] [--repair | --salvage OUT [--force]] STORE\n"
	      "Verifies a store that no server has open. Nothing is written without --repair.\n"
	      "  --json     one JSON document on standard output\n"
	      "  --repair   mend counts, leaks, a bad slot of a refs or summary page, a bad "
	      "superblock copy\n"
	      "  --salvage  write what can be read to the new file OUT, a raw image, and list what "
	      "is lost\n"
	      "  --force    OUT may be there and is overwritten\n"
	      "Exit status: 0 clean or mended, 1 damage, 2 could not be read or is in use.\n",
	      out);
}

/* -1: go on. Otherwise an exit status. */
static int options_parse(int argc, char **argv, struct check_options *options)
{
	static const struct option known[] = {
		{"json", no_argument, NULL, 'j'},
		{"repair", no_argument, NULL, 'r'},
		{"salvage", required_argument, NULL, 's'},
		{"force", no_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int option;

	optind = 0;
	while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
		switch (option) {
		case 'j':
			options->json = true;
			break;
		case 'r':
			options->repair = true;
			break;
		case 'f':
			options->force = true;
			break;
		case 's':
			options->salvage = optarg;
			break;
		case 'h':
			usage(stdout);
			return EXIT_CLEAN;
		case 'V':
			puts("sameblk " SAMEBLK_VERSION);
			return EXIT_CLEAN;
		default:
			usage(stderr);
			return EXIT_FAILED;
		}
	}
	if (optind != argc - 1 || (options->repair && options->salvage) ||
	    (options->force && !options->salvage)) {
		usage(stderr);
		return EXIT_FAILED;
	}
	options->store = argv[optind];
	return -1;
}

static json_t *finding_json(const struct check_finding *finding)
{
	return json_pack("{s:s, s:s, s:s, s:b}", "where", finding->where, "expected",
			 finding->expected, "found", finding->found, "repaired", finding->repaired);
}

static bool report_is_good(const struct check_report *report)
{
	return report->findings_total == report->repaired_total;
}

static int print_json(const char *store, const struct check_report *report)
{
	json_t *findings = json_array();
	json_t *document;

	for (uint32_t i = 0; i < report->finding_count; i++)
		json_array_append_new(findings, finding_json(&report->findings[i]));
	document = json_pack("{s:o, s:b, s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "store",
			     ctl_rpc_text(store), "clean", report->findings_total == 0,
			     "clean_shutdown", report->clean_shutdown, "findings", findings,
			     "findings_total", (json_int_t)report->findings_total, "repaired_total",
			     (json_int_t)report->repaired_total, "mapped_bytes",
			     (json_int_t)blocks_to_bytes(report->mapped_blocks), "used_bytes",
			     (json_int_t)blocks_to_bytes(report->used_blocks), "shared_bytes",
			     (json_int_t)blocks_to_bytes(report->shared_blocks), "free_bytes",
			     (json_int_t)blocks_to_bytes(report->free_blocks), "replayed_records",
			     (json_int_t)report->replayed_records);
	if (document && report->copied_in_use)
		json_object_set_new(document, "copied_in_use", json_true());
	if (!document) {
		say_error("cannot print the result", "", "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	json_dumpf(document, stdout, JSON_INDENT(2));
	json_decref(document);
	putchar('\n');
	return 0;
}

static void print_text(const char *store, const struct check_report *report)
{
	for (uint32_t i = 0; i < report->finding_count; i++) {
		const struct check_finding *f = &report->findings[i];

		printf("%s: expected %s, found %s%s\n", f->where, f->expected, f->found,
		       f->repaired ? " (mended)" : "");
	}
	if (report->findings_total > report->finding_count)
		printf("and %" PRIu64 " more\n", report->findings_total - report->finding_count);
	printf("mapped %" PRIu64 " bytes, used %" PRIu64 ", shared %" PRIu64 ", free %" PRIu64 "\n",
	       blocks_to_bytes(report->mapped_blocks), blocks_to_bytes(report->used_blocks),
	       blocks_to_bytes(report->shared_blocks), blocks_to_bytes(report->free_blocks));
	if (!report->clean_shutdown)
		printf("not shut down cleanly: %" PRIu64 " journal records are to be replayed\n"
		       "If this is a copy, it has to be one of a single moment, as a snapshot is: "
		       "of "
		       "a store that\nwas in use, check cannot see everything that a plain copy "
		       "mixed "
		       "up\n",
		       report->replayed_records);
	if (report->findings_total == 0)
		printf("%s: clean\n", store);
	else if (report_is_good(report))
		printf("%s: %" PRIu64 " findings, all mended\n", store, report->findings_total);
	else
		printf("%s: DAMAGED, %" PRIu64 " findings, nothing was changed\n", store,
		       report->findings_total);
}

int check_main(int argc, char **argv)
{
	struct check_options options = {0};
	struct check_report report;
	struct check_file file;
	pid_t pid;
	int r;

	r = options_parse(argc, argv, &options);
	if (r >= 0)
		return say_finish(r);
	if (options.salvage)
		return salvage_main(options.salvage, options.force, options.store, options.json);
	r = check_file_open(options.store, options.repair, &file, &pid);
	if (r == 0) {
		r = check_store(&file.source, options.repair, &report);
		check_file_close(&file);
	}
	if (r < 0) {
		check_file_say(options.store, r, pid);
		return EXIT_FAILED;
	}
	if (options.json)
		r = print_json(options.store, &report);
	else
		print_text(options.store, &report);
	if (r == 0)
		r = report_is_good(&report) ? EXIT_CLEAN : EXIT_DAMAGE;
	else
		r = EXIT_FAILED;
	check_report_done(&report);
	return say_finish(r);
}
