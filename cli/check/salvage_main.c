/* SPDX-License-Identifier: GPL-2.0-or-later */
/* salvage_main - see the header */
#include "cli/check/salvage_main.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cli/base/dedupe_signal.h"
#include "cli/base/say.h"
#include "cli/check/check_file.h"
#include "cli/check/salvage.h"
#include "server/control/protocol/ctl_rpc.h"

struct output {
	const char *path;
	int fd;
	int error; /* of writing to it */
	bool json;
	bool made; /* it was not there before */
	bool sized; /* it is being written: what was there before is gone */
	json_t *ranges; /* of the document */
	json_t *records;
	uint64_t size_bytes;
	uint64_t copied_bytes;
	uint64_t lost_bytes;
	uint64_t older_bytes;
};

static const char *verdict_name(enum salvage_verdict verdict)
{
	return salvage_is_lost(verdict) ? "lost" : "older";
}

static const char *verdict_reason(enum salvage_verdict verdict)
{
	static const char *const reasons[SALVAGE_VERDICTS] = {
		[SALVAGE_OLDER_LOG] = "journal records may be missing",
		[SALVAGE_OLDER_PAGE] = "only an older page of the map is left",
		[SALVAGE_LOST_MAP] = "no page of the map says where it is",
		[SALVAGE_LOST_DATA] = "it cannot be read",
	};

	return reasons[verdict];
}

static int json_append(json_t *array, json_t *item)
{
	return json_array_append_new(array, item) < 0 ? -ENOMEM : 0;
}

static int output_size(void *context, uint64_t bytes)
{
	struct output *output = context;

	output->sized = true;
	output->size_bytes = bytes;
	if (ftruncate(output->fd, 0) < 0 || ftruncate(output->fd, (off_t)bytes) < 0)
		output->error = -errno;
	return output->error;
}

static int output_write(void *context, uint64_t off_bytes, const void *buf, size_t len_bytes)
{
	struct output *output = context;
	const uint8_t *at = buf;

	output->copied_bytes += len_bytes;
	if (dedupe_signal_came()) {
		output->error = -EINTR;
		return -EINTR;
	}
	while (len_bytes > 0) {
		ssize_t n = pwrite(output->fd, at, len_bytes, (off_t)off_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			output->error = n < 0 ? -errno : -EIO;
			return output->error;
		}
		at += n;
		off_bytes += (size_t)n;
		len_bytes -= (size_t)n;
	}
	return 0;
}

static int output_range(void *context, enum salvage_verdict verdict, uint64_t off_bytes,
			uint64_t len_bytes)
{
	struct output *output = context;

	*(salvage_is_lost(verdict) ? &output->lost_bytes : &output->older_bytes) += len_bytes;
	if (output->json)
		return json_append(output->ranges,
				   json_pack("[I,I,s,s]", (json_int_t)off_bytes,
					     (json_int_t)len_bytes, verdict_name(verdict),
					     verdict_reason(verdict)));
	printf("%s %" PRIu64 " %" PRIu64 " %s\n", verdict_name(verdict), off_bytes, len_bytes,
	       verdict_reason(verdict));
	return 0;
}

static int output_records(void *context, uint64_t first, uint64_t last)
{
	struct output *output = context;
	bool known = last != UINT64_MAX;

	if (output->json)
		return json_append(output->records,
				   known ? json_pack("[I,I]", (json_int_t)first, (json_int_t)last)
					 : json_pack("[I,n]", (json_int_t)first));
	if (known)
		printf("records %" PRIu64 " %" PRIu64 " could not be replayed\n", first, last);
	else
		printf("records %" PRIu64 " - if there were any, could not be replayed\n", first);
	return 0;
}

static void print_text(const struct output *output, const struct check_report *report)
{
	for (uint32_t i = 0; i < report->finding_count; i++) {
		const struct check_finding *f = &report->findings[i];

		printf("%s: expected %s, found %s\n", f->where, f->expected, f->found);
	}
	if (report->findings_total > report->finding_count)
		printf("and %" PRIu64 " more\n", report->findings_total - report->finding_count);
	if (!output->sized)
		return;
	printf("size %" PRIu64 " bytes, copied %" PRIu64 ", lost %" PRIu64
	       ", perhaps older %" PRIu64 "\n",
	       output->size_bytes, output->copied_bytes, output->lost_bytes, output->older_bytes);
	printf("%s: %s\n", output->path,
	       output->lost_bytes + output->older_bytes == 0
		       ? "all of the volume"
		       : "NOT all of the volume; the ranges above say what is missing");
}

static int print_json(const char *store, const struct output *output,
		      const struct check_report *report)
{
	json_t *findings = json_array(), *document;
	int r;

	for (uint32_t i = 0; i < report->finding_count; i++) {
		const struct check_finding *f = &report->findings[i];

		json_array_append_new(findings,
				      json_pack("{s:s, s:s, s:s}", "where", f->where, "expected",
						f->expected, "found", f->found));
	}
	document = json_pack(
		"{s:o, s:o, s:I, s:I, s:I, s:I, s:O, s:O, s:o, s:I}", "store", ctl_rpc_text(store),
		"output", ctl_rpc_text(output->path), "size_bytes", (json_int_t)output->size_bytes,
		"copied_bytes", (json_int_t)output->copied_bytes, "lost_bytes",
		(json_int_t)output->lost_bytes, "older_bytes", (json_int_t)output->older_bytes,
		"ranges", output->ranges, "unreplayed_records", output->records, "findings",
		findings, "findings_total", (json_int_t)report->findings_total);
	if (!document)
		return -ENOMEM;
	r = json_dumpf(document, stdout, JSON_INDENT(2));
	json_decref(document);
	putchar('\n');
	return r < 0 ? -EIO : 0;
}

static int finish(const char *store, struct output *output, const struct check_report *report)
{
	int r = 0;

	if (output->sized && fsync(output->fd) < 0) {
		say_error("cannot write the image", output->path, "%s", strerror(errno));
		return EXIT_FAILED;
	}
	if (output->json)
		r = print_json(store, output, report);
	else
		print_text(output, report);
	if (r < 0) {
		say_error("cannot print the result", store, "%s", strerror(-r));
		return EXIT_FAILED;
	}
	if (!output->sized) {
		say_error("cannot salvage", store,
			  "neither superblock says how large the volume is");
		return EXIT_FAILED;
	}
	return output->lost_bytes + output->older_bytes > 0 ? EXIT_SEE : EXIT_GOOD;
}

/* The store is open already: so it can be told whether the output is the same by another name. */
static int salvage_into(struct output *output, const char *store, const struct check_file *file)
{
	const struct salvage_target target = {output, output_size, output_write, output_range,
					      output_records};
	struct check_report report;
	int status, r = salvage(&file->source, &target, &report);

	if (r < 0) {
		if (output->error < 0)
			say_error("cannot write the image", output->path, "%s", strerror(-r));
		else
			check_file_say(store, r, 0);
		return EXIT_FAILED;
	}
	status = finish(store, output, &report);
	check_report_done(&report);
	return status;
}

/* The file below a loop device; false: it is none, or not to be found. */
static bool loop_backing(const struct stat *device, struct stat *ret_backing)
{
	char name[64], path[PATH_MAX];
	FILE *file;
	bool found;

	if (!S_ISBLK(device->st_mode))
		return false;
	snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/loop/backing_file",
		 major(device->st_rdev), minor(device->st_rdev));
	file = fopen(name, "re");
	if (!file)
		return false;
	found = fgets(path, sizeof(path), file) != NULL;
	fclose(file);
	path[found ? strcspn(path, "\n") : 0] = '\0';
	return found && stat(path, ret_backing) == 0;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* What is wrong with the file that was opened, or NULL; then it is locked, as a store that somebody
 * else serves would be. What is in it stays until there is something to write. */
static const char *output_prepare(const struct output *output, const struct check_file *file)
{
	struct stat store, backing, out;

	if (fstat(output->fd, &out) < 0 || fstat(file->fd, &store) < 0)
		return strerror(errno);
	if (is_same_file(&out, &store) ||
	    (loop_backing(&store, &backing) && is_same_file(&out, &backing)))
		return "it is the store itself";
	if (!S_ISREG(out.st_mode))
		return "it is no regular file";
	/* Where there are no locks nobody can have one. */
	if (flock(output->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return "it is in use by another process";
	return NULL;
}

static int output_open(struct output *output, bool force, const struct check_file *file)
{
	const char *why;

	output->fd = open(output->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	output->made = output->fd >= 0;
	if (output->fd < 0 && errno == EEXIST && force)
		output->fd = open(output->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
	if (output->fd >= 0)
		why = output_prepare(output, file);
	else
		why = errno == EEXIST ? "it exists; --force overwrites it" : strerror(errno);
	if (why)
		say_error("cannot write the image", output->path, "%s", why);
	return why ? -1 : 0;
}

int salvage_main(const char *out, bool force, const char *store, bool json)
{
	struct output output = {
		.path = out,
		.fd = -1,
		.json = json,
		.ranges = json_array(),
		.records = json_array(),
	};
	int status = EXIT_FAILED;
	struct check_file file;
	pid_t pid;
	int r = check_file_open(store, false, &file, &pid);

	if (r < 0) {
		check_file_say(store, r, pid);
	} else if (output_open(&output, force, &file) == 0) {
		dedupe_signal_catch();
		status = say_finish(salvage_into(&output, store, &file));
		/* Half an image is none, also after Ctrl-C. */
		if (status == EXIT_FAILED && (output.made || output.sized))
			unlink(out);
	}
	if (output.fd >= 0)
		close(output.fd);
	if (r == 0)
		check_file_close(&file);
	json_decref(output.ranges);
	json_decref(output.records);
	return status;
}
