/* SPDX-License-Identifier: GPL-2.0-or-later */
/* parse - see the header */
#include "cli/base/parse.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/base/say.h"
#include "server/base/size.h"

int parse_size_or_say(const char *name, const char *text, uint64_t *ret_bytes)
{
	int r = size_parse(text, ret_bytes);

	if (r == 0)
		return 0;
	say_error(name, text,
		  r == -ERANGE ? "too large" : "no size (bytes, 0x..., or with K, M, G or T)");
	return -1;
}

static void print_option(const struct parse_option *option)
{
	char left[64];

	snprintf(left, sizeof(left), "%c%c%s --%s%s%s", option->letter != 0 ? '-' : ' ',
		 option->letter != 0 ? option->letter : ' ', option->letter != 0 ? "," : " ",
		 option->name, option->value != NULL ? " " : "",
		 option->value != NULL ? option->value : "");
	printf("  %-28s %s\n", left, option->help);
}

static void print_help(const struct parse_command *command)
{
	static const struct parse_option common[] = {
		{"help", 'h', PARSE_FLAG, NULL, NULL, "print this"},
		{"version", 0, PARSE_FLAG, NULL, NULL, "print the version"},
	};

	printf("Usage: sameblk %s [OPTIONS]%s%s\n%s\n\nOptions:\n", command->name,
	       command->operands[0] != '\0' ? " " : "", command->operands, command->summary);
	for (const struct parse_option *option = command->options; option->name != NULL; option++)
		print_option(option);
	print_option(&common[0]);
	print_option(&common[1]);
	printf("\nMore in sameblk-%s(1).\n", command->name);
}

static int bad_usage(const struct parse_command *command, const char *what, const char *why)
{
	say_error(what, "", "%s (sameblk %s --help)", why, command->name);
	return -1;
}

static const struct parse_option *find_option(const struct parse_command *command, const char *name,
					      size_t len, char letter)
{
	for (const struct parse_option *option = command->options; option->name != NULL; option++) {
		if (letter != 0 && option->letter == letter)
			return option;
		if (letter == 0 && strlen(option->name) == len &&
		    strncmp(option->name, name, len) == 0)
			return option;
	}
	return NULL;
}

static int set_option(const struct parse_option *option, const char *value)
{
	struct parse_size_value *size = option->target;
	char name[64];

	switch (option->kind) {
	case PARSE_FLAG:
		*(bool *)option->target = true;
		return 0;
	case PARSE_TEXT:
		*(const char **)option->target = value;
		return 0;
	case PARSE_SIZE:
		snprintf(name, sizeof(name), "--%s", option->name);
		if (parse_size_or_say(name, value, &size->bytes) < 0)
			return -1;
		size->given = true;
		return 0;
	}
	return -1;
}

/* value: what is attached to the option, or NULL. *index moves on when the next word is taken. */
static int take_option(const struct parse_command *command, const struct parse_option *option,
		       const char *word, const char *value, int argc, char **argv, int *index)
{
	if (option == NULL)
		return bad_usage(command, word, "there is no such option");
	if (option->kind == PARSE_FLAG && value != NULL)
		return bad_usage(command, word, "it takes no value");
	if (option->kind != PARSE_FLAG && value == NULL) {
		if (*index + 1 >= argc)
			return bad_usage(command, word, "its value is missing");
		value = argv[++*index];
	}
	return set_option(option, value);
}

static int take_long(const struct parse_command *command, int argc, char **argv, int *index)
{
	const char *word = argv[*index];
	const char *name = word + 2;
	const char *equals = strchr(name, '=');
	size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);

	return take_option(command, find_option(command, name, len, 0), word,
			   equals != NULL ? equals + 1 : NULL, argc, argv, index);
}

/* -abc: flags a and b, and c with or without a value. */
static int take_short(const struct parse_command *command, int argc, char **argv, int *index)
{
	const char *word = argv[*index];

	for (const char *letter = word + 1; *letter != '\0'; letter++) {
		const struct parse_option *option = find_option(command, NULL, 0, *letter);
		bool valued = option != NULL && option->kind != PARSE_FLAG;

		if (take_option(command, option, word,
				valued && letter[1] != '\0' ? letter + 1 : NULL, argc, argv,
				index) < 0)
			return -1;
		if (valued)
			return 0;
	}
	return 0;
}

static bool is_common(const char *word, enum parse_next *ret_next,
		      const struct parse_command *command)
{
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
		print_help(command);
	else if (strcmp(word, "--version") == 0)
		printf("sameblk %s\n", SAMEBLK_VERSION);
	else
		return false;
	*ret_next = PARSE_DONE;
	return true;
}

enum parse_next parse_command(const struct parse_command *command, int argc, char **argv,
			      int *ret_operands)
{
	enum parse_next next;
	bool options_over = false;
	int operands = 0;

	for (int i = 1; i < argc; i++) {
		char *word = argv[i];
		int r = 0;

		if (options_over || word[0] != '-' || word[1] == '\0')
			argv[1 + operands++] = word;
		else if (strcmp(word, "--") == 0)
			options_over = true;
		else if (is_common(word, &next, command))
			return next;
		else if (word[1] == '-')
			r = take_long(command, argc, argv, &i);
		else
			r = take_short(command, argc, argv, &i);
		if (r < 0)
			return PARSE_BAD;
	}
	if (operands < command->operands_min || operands > command->operands_max) {
		bad_usage(command, "cannot run",
			  operands < command->operands_min ? "an operand is missing"
							   : "too many operands");
		return PARSE_BAD;
	}
	*ret_operands = operands;
	return PARSE_GO;
}
