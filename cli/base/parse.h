/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * parse - the options and operands of a command
 *
 * A command describes itself by a struct parse_command; --help and --version are added to
 * every one and the help text is made from it. Options may stand before or after operands; --
 * ends them; a single - is an operand. Values: --name VALUE, --name=VALUE, -n VALUE, -nVALUE.
 *
 * Errors    parse_command: what the command does next; the complaint is on stderr already.
 * Memory    nothing is allocated: argv is put in a new order, operands to its front.
 */
#ifndef CLI_BASE_PARSE_H
#define CLI_BASE_PARSE_H

#include <stdint.h>

/* size_parse() of an operand or an option; says on stderr which one is no size. 0 or -1. */
int parse_size_or_say(const char *name, const char *text, uint64_t *ret_bytes);

enum parse_kind {
	PARSE_FLAG, /* bool */
	PARSE_TEXT, /* const char * */
	PARSE_SIZE, /* struct parse_size_value */
};

struct parse_size_value {
	uint64_t bytes;
	_Bool given;
};

struct parse_option {
	const char *name; /* without --; NULL ends the table */
	char letter; /* 0: none */
	enum parse_kind kind;
	void *target;
	const char *value; /* its name in the help */
	const char *help;
};

struct parse_command {
	const char *name;
	const char *operands; /* "SRC LEN DST [DST...]" */
	const char *summary; /* a line */
	const struct parse_option *options;
	int operands_min;
	int operands_max;
};

enum parse_next {
	PARSE_GO, /* run the command */
	PARSE_DONE, /* help or version was printed: exit 0 */
	PARSE_BAD, /* exit 2 */
};

/* argv[0] is the command's own word. The operands are argv[1] up to *ret_operands then. */
enum parse_next parse_command(const struct parse_command *command, int argc, char **argv,
			      int *ret_operands);

#define PARSE_JSON(target)                                                                         \
	{                                                                                          \
		"json", 0, PARSE_FLAG, target, NULL, "print one JSON document"                     \
	}

#endif
