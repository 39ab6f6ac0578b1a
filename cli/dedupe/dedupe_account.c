/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dedupe_account - see the header */
#include "cli/dedupe/dedupe_account.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/dedupe/dedupe_rate.h"
#include "server/base/clock.h"

#define BAR_NS	      200000000ull
#define JSON_NS	      1000000000ull
#define LINES_NS      10000000000ull
#define SECOND_NS     1000000000ull
#define BAR_WIDTH     20
#define COLUMNS	      80 /* where the terminal does not tell */
#define TEXT_BYTES    256
#define RATE_LEAST_NS 50000000ull /* a rate over less time says nothing */

void dedupe_progress_start(struct dedupe_progress *progress)
{
	progress->started_ns = clock_ns();
	progress->shown_ns = progress->started_ns;
	progress->phase = "";
}

void dedupe_progress_phase(struct dedupe_progress *progress, const char *phase,
			   uint64_t total_bytes)
{
	progress->phase = phase;
	progress->total_bytes = total_bytes;
	progress->done_bytes = 0;
	progress->phase_ns = clock_ns();
}

/* --- numbers --- */

/* "1.5 GiB" */
static const char *human(uint64_t bytes, char text[16])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double number = (double)bytes;
	unsigned unit = 0;

	while (number >= 1024 && unit < 5) {
		number /= 1024;
		unit++;
	}
	snprintf(text, 16, unit == 0 ? "%.0f %s" : "%.1f %s", number, units[unit]);
	return text;
}

static uint64_t rate_of(const struct dedupe_progress *progress, uint64_t now_ns)
{
	uint64_t ns = now_ns - progress->phase_ns;

	return ns < RATE_LEAST_NS ? 0 : (uint64_t)((double)progress->done_bytes * 1e9 / (double)ns);
}

/* UINT64_MAX: nobody knows. */
static uint64_t eta_of(const struct dedupe_progress *progress, uint64_t rate)
{
	if (rate == 0 || progress->done_bytes > progress->total_bytes)
		return UINT64_MAX;
	return (progress->total_bytes - progress->done_bytes) / rate;
}

/* --- showing --- */

/* What fits in the window as it is now: a line that goes over its edge could not be drawn over. The
 * last column stays free, since some terminals go on to the next line there. */
static void draw(struct dedupe_progress *progress, const char *text)
{
	struct winsize window;
	int columns = COLUMNS;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0)
		columns = window.ws_col;
	fprintf(stderr, "\r%.*s\033[K", columns - 1, text);
	fflush(stderr);
	progress->drawn = true;
}

static void show_bar(struct dedupe_progress *progress, uint64_t rate, uint64_t eta)
{
	const struct dedupe_account *account = &progress->account;
	char bar[BAR_WIDTH + 1], done[16], total[16], speed[16], found[16], freed[16],
		left[24] = "", text[TEXT_BYTES];
	unsigned full = progress->total_bytes == 0
				? 0
				: (unsigned)((double)progress->done_bytes * BAR_WIDTH /
					     (double)progress->total_bytes);

	for (unsigned i = 0; i < BAR_WIDTH; i++)
		bar[i] = i < full ? '#' : '.';
	bar[BAR_WIDTH] = '\0';
	if (eta != UINT64_MAX)
		snprintf(left, sizeof(left), " %" PRIu64 ":%02" PRIu64, eta / 60, eta % 60);
	snprintf(text, sizeof(text), "%-5s [%s] %s/%s %s/s%s  found %s freed %s", progress->phase,
		 bar, human(progress->done_bytes, done), human(progress->total_bytes, total),
		 human(rate, speed), left, human(account->duplicate_bytes, found),
		 human(account->freed_bytes, freed));
	draw(progress, text);
}

static void show_line(const struct dedupe_progress *progress, uint64_t rate, uint64_t eta)
{
	fprintf(stderr, "progress: %s done %" PRIu64 " of %" PRIu64 " rate %" PRIu64,
		progress->phase, progress->done_bytes, progress->total_bytes, rate);
	if (eta != UINT64_MAX)
		fprintf(stderr, " eta %" PRIu64, eta);
	fprintf(stderr, " found %" PRIu64 " freed %" PRIu64 "\n", progress->account.duplicate_bytes,
		progress->account.freed_bytes);
}

static void show_json(const struct dedupe_progress *progress, uint64_t now_ns, uint64_t rate,
		      uint64_t eta)
{
	const struct dedupe_account *account = &progress->account;

	printf("{\"progress\":{\"phase\":\"%s\",\"done\":%" PRIu64 ",\"total\":%" PRIu64
	       ",\"rate\":%" PRIu64,
	       progress->phase, progress->done_bytes, progress->total_bytes, rate);
	if (eta != UINT64_MAX)
		printf(",\"eta_seconds\":%" PRIu64, eta);
	printf(",\"scanned\":%" PRIu64 ",\"duplicate\":%" PRIu64 ",\"freed\":%" PRIu64
	       ",\"rejected\":%" PRIu64 ",\"elapsed_ms\":%" PRIu64 "}}\n",
	       account->scanned_bytes, account->duplicate_bytes, account->freed_bytes,
	       account->rejected_bytes, (now_ns - progress->started_ns) / 1000000);
	fflush(stdout);
}

void dedupe_progress_at(struct dedupe_progress *progress, uint64_t done_bytes)
{
	static const uint64_t every_ns[] = {UINT64_MAX, BAR_NS, LINES_NS, JSON_NS};
	uint64_t now_ns, rate, eta;

	progress->done_bytes = done_bytes;
	if (progress->show == DEDUPE_SHOW_NOTHING)
		return;
	now_ns = clock_ns();
	if (now_ns - progress->shown_ns < every_ns[progress->show])
		return;
	progress->shown_ns = now_ns;
	rate = rate_of(progress, now_ns);
	eta = eta_of(progress, rate);
	if (progress->show == DEDUPE_SHOW_BAR)
		show_bar(progress, rate, eta);
	else if (progress->show == DEDUPE_SHOW_LINES)
		show_line(progress, rate, eta);
	else
		show_json(progress, now_ns, rate, eta);
}

void dedupe_progress_clear(struct dedupe_progress *progress)
{
	if (progress->drawn)
		fputs("\r\033[K", stderr);
	progress->drawn = false;
}

/* --- the account --- */

static void print_text(const struct dedupe_account *account)
{
	printf("summary:%s%s scanned %" PRIu64 " read %" PRIu64 " duplicate %" PRIu64
	       " freed %" PRIu64 " rejected %" PRIu64,
	       account->dry_run ? " dry run," : "", account->complete ? "" : " not complete,",
	       account->scanned_bytes, account->read_bytes, account->duplicate_bytes,
	       account->freed_bytes, account->rejected_bytes);
	if (account->kept_bytes > 0)
		printf(" kept %" PRIu64, account->kept_bytes);
	if (account->unreadable_bytes > 0)
		printf(" unreadable %" PRIu64, account->unreadable_bytes);
	if (account->errors > 0)
		printf(" errors %" PRIu64, account->errors);
	putchar('\n');
}

void dedupe_progress_finish(struct dedupe_progress *progress)
{
	const struct dedupe_account *account = &progress->account;
	uint64_t elapsed_ms = (clock_ns() - progress->started_ns) / 1000000;

	dedupe_progress_clear(progress);
	if (!progress->json) {
		print_text(account);
		return;
	}
	printf("{\"summary\":{\"scanned\":%" PRIu64 ",\"read\":%" PRIu64 ",\"duplicate\":%" PRIu64
	       ",\"merged\":%" PRIu64 ",\"freed\":%" PRIu64 ",\"rejected\":%" PRIu64
	       ",\"kept\":%" PRIu64 ",\"unreadable\":%" PRIu64 ",\"requests\":%" PRIu64
	       ",\"errors\":%" PRIu64 ",\"sample_bits\":%u,\"dry_run\":%s,\"complete\":%s"
	       ",\"elapsed_ms\":%" PRIu64 "}}\n",
	       account->scanned_bytes, account->read_bytes, account->duplicate_bytes,
	       account->merged_bytes, account->freed_bytes, account->rejected_bytes,
	       account->kept_bytes, account->unreadable_bytes, account->requests, account->errors,
	       account->sample_bits, account->dry_run ? "true" : "false",
	       account->complete ? "true" : "false", elapsed_ms);
}
