/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main - the program `sameblk`: finds the command and runs it
 */
#include <stdio.h>
#include <string.h>

#include "cli/base/commands.h"
#include "cli/base/say.h"
#include "cli/check/check_main.h"
#include "cli/check/dump.h"
#include "server/base/process.h"

struct entry {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
};

static const struct entry entries[] = {
	{"create", create_main, "make an empty volume in a file or block device"},
	{"same", same_main, "merge ranges that hold the same bytes"},
	{"clone", clone_main, "make a range read as another does"},
	{"discard", discard_main, "make a range read zeros, and free what only it used"},
	{"dedupe", dedupe_main, "find equal runs of blocks, and merge them"},
	{"map", map_main, "print runs of the remap table"},
	{"status", status_main, "print which server this is and how it is"},
	{"stats", stats_main, "print the server's counters"},
	{"trim", trim_main, "give all free space back to the file or device"},
	{"stop", stop_main, "stop the server"},
	{"attach", attach_main, "make a store's volume a block device"},
	{"detach", detach_main, "remove a block device"},
	{"list", list_main, "list block devices and servers"},
	{"recover", recover_main, "start the servers of block devices that wait for one"},
	{"cleanup", cleanup_main, "remove block devices that no server needs"},
	{"check", check_main, "verify a store that no server has open"},
	{"dump", dump_main, "print a store's metadata"},
};

#define ENTRY_COUNT (sizeof(entries) / sizeof(entries[0]))

static void print_help(FILE *to)
{
	fputs("Usage: sameblk COMMAND [OPTIONS] [OPERANDS]\n\nCommands:\n", to);
	for (size_t i = 0; i < ENTRY_COUNT; i++)
		fprintf(to, "  %-8s %s\n", entries[i].name, entries[i].help);
	fputs("\n`sameblk COMMAND --help` says more, and sameblk(1). "
	      "The server is sameblkd(8).\n",
	      to);
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;

	/* Nothing has been opened yet, and nobody can be told. A reader that went away is an error
	 * of writing, not a death in the midst of something: exit status 2. */
	if (process_begin() < 0)
		return EXIT_FAILED;
	if (word == NULL) {
		print_help(stderr);
		return EXIT_FAILED;
	}
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
		print_help(stdout);
		return say_finish(EXIT_GOOD);
	}
	if (strcmp(word, "--version") == 0) {
		printf("sameblk %s\n", SAMEBLK_VERSION);
		return say_finish(EXIT_GOOD);
	}
	for (size_t i = 0; i < ENTRY_COUNT; i++)
		if (strcmp(entries[i].name, word) == 0) {
			say_command(entries[i].name);
			return entries[i].run(argc - 1, argv + 1);
		}
	say_error("cannot run", word, "there is no such command (sameblk --help)");
	return EXIT_FAILED;
}
