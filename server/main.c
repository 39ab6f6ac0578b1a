/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main - sameblkd: opens a store, serves it, stops cleanly
 *
 * The main thread opens and closes; in between it only waits to be told to stop. Workers (loop.h)
 * serve NBD and ublk and do the engine's work, the control thread (ctl_server.h) answers `sameblk`.
 *
 * Up:    keys for TLS, the ublk driver probed, store (locked), sockets bound, loops, volume
 *        recovered, NBD accepts, the ublk device live, control, `ready`
 * Down:  the ublk device is removed, or left if somebody has it open; NBD accepts no more and
 *        answers what it has, control likewise, loops end, volume checkpointed and marked clean,
 *        store closed. Each step that may take long has a limit; what is not done by then is left
 *        to recovery.
 *
 * Exit status: 0 stopped cleanly; 2 could not start, or could not stop cleanly, or a second signal,
 * or its block device was taken away; 3 the same, but a block device of the volume waits for a
 * server that may be luckier.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/volume/volume.h"
#include "server/base/full_path.h"
#include "server/base/log.h"
#include "server/base/process.h"
#include "server/control/ctl_server.h"
#include "server/farewell.h"
#include "server/loop/loop.h"
#include "server/nbd/nbd_conn.h"
#include "server/nbd/nbd_listen.h"
#include "server/nbd/nbd_server.h"
#include "server/nbd/nbd_tls_keys.h"
#include "server/nbd/nbd_uri.h"
#include "server/options.h"
#include "server/store/store_open.h"
#include "server/store/store_watch.h"
#include "server/systemd.h"
#include "server/ublk_front.h"

#define EXIT_FAILED    2
#define EXIT_AGAIN     3
#define DRAIN_MS       10000u
#define CUT_MS	       20000u
#define STOP_PAUSE_MS  5u
#define CONTROL_MS     1000u
#define SPACE_MS       5000u
#define SPACE_PAUSE_MS 100u
#define LOOK_MS	       1000
#define URIS_MAX       (3 + SYSTEMD_NBD_MAX)

static_assert(1 + NBD_LISTEN_TCP_MAX + SYSTEMD_NBD_MAX <= NBD_LISTENERS_MAX,
	      "every socket is listened on");

struct daemon {
	struct options options;
	struct systemd_sockets sockets;
	struct store *store;
	struct store_watch *watch;
	struct loop *loops;
	struct loop *loop_pointers[VOLUME_WORKERS_MAX];
	struct worker *workers[VOLUME_WORKERS_MAX];
	unsigned loops_made;
	unsigned loops_started;
	struct volume *volume;
	struct loop_tick volume_tick;
	struct task tick_task;
	struct store_map map;
	struct nbd_server nbd;
	bool has_nbd;
	struct nbd_listen listen_socket;
	bool has_socket;
	struct nbd_listen_tcp tcp;
	struct nbd_tls_keys *tls_keys;
	struct ublk_front ublk;
	unsigned lacking_ms; /* that opening or closing has waited for space below the store */
	int single_fd;
	struct ctl_server *control;
	struct farewell farewell;
	struct ctl_server_options control_options;
	char uri_text[URIS_MAX][NBD_URI_BYTES];
	const char *uris[URIS_MAX + 1];
	unsigned uri_count;
};

/* --- being told to stop --- */

static int stop_fd = -1;
static volatile sig_atomic_t signals_seen;
static _Atomic bool stop_asked;

/* From anywhere: a signal, the control thread, a loop. */
static void wake_main(void *context)
{
	uint64_t one = 1;
	int saved = errno;
	ssize_t written = write(stop_fd, &one, sizeof(one));

	/* It fails only when the counter is full, and then the event is up. */
	(void)written;
	(void)context;
	errno = saved;
}

static void stop_soon(void *context)
{
	atomic_store(&stop_asked, true);
	wake_main(context);
}

/* The limit of processor time tells once a second. */
static void on_signal(int number)
{
	if (number != SIGXCPU && signals_seen++ > 0)
		_exit(EXIT_FAILED);
	stop_soon(NULL);
}

static int catch_signals(void)
{
	stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (stop_fd < 0)
		return -errno;
	process_serve(on_signal);
	return 0;
}

static void wait_for_wake(void)
{
	struct pollfd event = {.fd = stop_fd, .events = POLLIN};
	uint64_t count;

	while (poll(&event, 1, LOOK_MS) < 0)
		assert(errno == EINTR);
	if (read(stop_fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN);
}

/* --- up --- */

static int open_store(struct daemon *daemon)
{
	const struct options *options = &daemon->options;
	const struct store_options store_options = {
		.read_only = options->read_only,
		.direct = options->direct,
		.buffered = options->buffered,
		.wait_ms = STORE_WAIT_MS,
		.lanes = options->workers,
	};
	const char *message;
	int r = store_open(options->store, &store_options, &daemon->store, &message);

	if (r < 0)
		log_error("cannot open the store: %s", message);
	else if (daemon->store->direct && !options->direct)
		log_info("%s may run out of space: it is used with O_DIRECT", options->store);
	daemon->options.direct = r == 0 && daemon->store->direct;
	return r;
}

static int load_keys(struct daemon *daemon)
{
	const struct options *options = &daemon->options;
	const struct nbd_tls_sources sources = {
		.certificates = options->tls_certificates,
		.psk = options->tls_psk,
		.verify_peer = options->tls_verify_peer,
	};
	const char *message;
	int r;

	if (!options_tls(options))
		return 0;
	r = nbd_tls_keys_load(&sources, &daemon->tls_keys, &message);
	if (r < 0)
		log_error("--%s: %s", options->tls_psk != NULL ? "tls-psk" : "tls-certificates",
			  message);
	return r;
}

static int open_ublk(struct daemon *daemon)
{
	return ublk_front_open(&daemon->ublk);
}

/* What a new URI begins with. */
static struct nbd_uri_options uri_options(const struct daemon *daemon, int fd)
{
	const struct options *options = &daemon->options;
	bool local = nbd_listen_is_local(fd);

	return (struct nbd_uri_options){
		.export_name = options->export_name,
		.tls = local ? options->tls_required
			     : options_tls(options) && !options->insecure_tcp,
	};
}

static char *new_uri(struct daemon *daemon)
{
	assert(daemon->uri_count < URIS_MAX);
	return daemon->uri_text[daemon->uri_count];
}

static void add_uri(struct daemon *daemon)
{
	daemon->uris[daemon->uri_count] = daemon->uri_text[daemon->uri_count];
	daemon->uri_count++;
}

static void add_uri_of_socket(struct daemon *daemon, int fd, const char *host)
{
	struct nbd_uri_options options = uri_options(daemon, fd);

	options.host = host;
	if (nbd_uri_of_socket(new_uri(daemon), fd, &options))
		add_uri(daemon);
}

static int check_secure(const struct daemon *daemon, int fd)
{
	const struct options *options = &daemon->options;

	if (nbd_listen_is_local(fd) || options_tls(options) || options->insecure_tcp)
		return 0;
	log_error("a socket that was handed over is not a Unix socket and needs TLS: say "
		  "--tls-certificates DIR or --tls-psk FILE; or --insecure-tcp");
	return -EINVAL;
}

/* Standard input is the NBD stream and nothing else must read or write it. */
static int take_single(struct daemon *daemon)
{
	struct stat st;
	int null_fd;

	if (fstat(STDIN_FILENO, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		log_error("--single: standard input is not a socket");
		return -ENOTSOCK;
	}
	if (check_secure(daemon, STDIN_FILENO) < 0)
		return -EINVAL;
	nbd_listen_tune(STDIN_FILENO);
	daemon->single_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (daemon->single_fd < 0 || null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
	    dup2(null_fd, STDOUT_FILENO) < 0) {
		log_error("--single: cannot set standard input aside: %s", strerror(errno));
		return -errno;
	}
	close(null_fd);
	return 0;
}

static int open_unix(struct daemon *daemon)
{
	const char *path = daemon->options.unix_path, *message;
	struct nbd_uri_options options;
	char full[FULL_PATH_BYTES];
	int r;

	if (path == NULL)
		return 0;
	/* The short form may fit in a socket's address where the long one does not. */
	r = nbd_listen_unix(path, &daemon->listen_socket, &message);
	if (r < 0) {
		log_error("cannot serve NBD: %s", message);
		return r;
	}
	daemon->has_socket = true;
	options = uri_options(daemon, daemon->listen_socket.fd);
	full_path(path, full);
	nbd_uri_of_path(new_uri(daemon), full, &options);
	add_uri(daemon);
	return 0;
}

static int open_tcp(struct daemon *daemon)
{
	const struct options *options = &daemon->options;
	const char *message;
	int r;

	if (!options->has_tcp)
		return 0;
	r = nbd_listen_tcp(options->address, options->port, &daemon->tcp, &message);
	if (r < 0) {
		log_error("cannot serve NBD: %s", message);
		return r;
	}
	/* The others are the same host's. */
	add_uri_of_socket(daemon, daemon->tcp.fds[0], options->address);
	return 0;
}

/* From systemd. */
static int take_sockets(struct daemon *daemon)
{
	for (unsigned i = 0; i < daemon->sockets.nbd_count; i++) {
		int r = check_secure(daemon, daemon->sockets.nbd[i]);

		if (r < 0)
			return r;
		nbd_listen_tune(daemon->sockets.nbd[i]);
		add_uri_of_socket(daemon, daemon->sockets.nbd[i], NULL);
	}
	return 0;
}

static int open_sockets(struct daemon *daemon)
{
	const struct options *options = &daemon->options;
	int r = 0;

	if (options->unix_path == NULL && !options->has_tcp && !options->single && !options->ublk &&
	    daemon->sockets.nbd_count == 0) {
		log_error("nothing to serve: say -U PATH for NBD on a Unix socket, -p PORT for NBD "
			  "over TCP (or -s), --ublk for a block device");
		return -EINVAL;
	}
	if (options->single)
		r = take_single(daemon);
	if (r == 0)
		r = open_unix(daemon);
	if (r == 0)
		r = open_tcp(daemon);
	if (r == 0)
		r = take_sockets(daemon);
	return r;
}

/* A ublk device has half of the payload memory. */
static uint64_t nbd_buffer_bytes(const struct options *options)
{
	return options->ublk ? options->buffer_bytes / 2 : options->buffer_bytes;
}

/* Of what NBD has, three quarters are what connections have for themselves. */
static int make_loops(struct daemon *daemon)
{
	unsigned count = daemon->options.workers;
	uint64_t shared_bytes = nbd_buffer_bytes(&daemon->options) / 4 / count;

	daemon->loops = calloc(count, sizeof(*daemon->loops));
	if (daemon->loops == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		int r = loop_init(&daemon->loops[i], daemon->store, i, shared_bytes);

		if (r < 0) {
			log_error("cannot make worker %u: %s", i, strerror(-r));
			return r;
		}
		daemon->loops_made++;
		daemon->loop_pointers[i] = &daemon->loops[i];
		daemon->workers[i] = &daemon->loops[i].worker;
	}
	return 0;
}

static void log_volume(void *context, const char *text)
{
	const struct daemon *daemon = context;

	log_warn("%s: %s", daemon->options.store, text);
}

static bool wait_for_space(void *context)
{
	const struct timespec pause = {.tv_nsec = SPACE_PAUSE_MS * 1000000L};
	struct daemon *daemon = context;

	if (daemon->lacking_ms >= SPACE_MS)
		return false;
	daemon->lacking_ms += SPACE_PAUSE_MS;
	nanosleep(&pause, NULL);
	return true;
}

/* Without space for recovery's metadata there is still what can be read. */
static int open_to_read(struct daemon *daemon, struct volume_options *volume_options,
			struct damage *damage)
{
	log_error("%s: %s; it is served read-only: make space there and start again",
		  daemon->options.store, damage->text);
	daemon->options.read_only = true;
	volume_options->read_only = true;
	return volume_open(daemon->store, volume_options, daemon->workers, daemon->options.workers,
			   &daemon->volume, damage);
}

static int open_volume(struct daemon *daemon)
{
	const struct options *options = &daemon->options;
	struct volume_options volume_options = {
		.cache_bytes = options->cache_bytes,
		.cow_hint_blocks = (uint32_t)(options->cow_hint_bytes / BLOCK_BYTES),
		.read_only = options->read_only,
		.populate = options->ublk,
		.discard = options->discard && daemon->store->can_discard,
		.log = log_volume,
		.lacking = wait_for_space,
		.log_context = daemon,
	};
	struct damage damage = {.text = ""};
	int r = volume_open(daemon->store, &volume_options, daemon->workers, options->workers,
			    &daemon->volume, &damage);

	if (r == -ENOSPC && !options->read_only)
		r = open_to_read(daemon, &volume_options, &damage);
	if (r < 0)
		log_error("cannot open the volume in %s: %s", options->store,
			  damage.text[0] != '\0' ? damage.text : strerror(-r));
	else if (options->discard && !daemon->store->can_discard && !options->read_only)
		log_info("%s takes no discards: freed blocks keep their space there",
			 options->store);
	return r;
}

static int start_loops(struct daemon *daemon)
{
	for (unsigned i = 0; i < daemon->options.workers; i++) {
		int r = loop_start(&daemon->loops[i]);

		if (r < 0) {
			log_error("cannot start worker %u: %s", i, strerror(-r));
			return r;
		}
		daemon->loops_started++;
	}
	return 0;
}

static void tick_volume(struct loop_tick *tick, uint64_t now_ms)
{
	struct daemon *daemon = container_of(tick, struct daemon, volume_tick);

	volume_tick(daemon->volume, &daemon->loops[0].worker);
	store_map_rest(&daemon->map, now_ms);
}

static void start_ticking(struct task *task)
{
	struct daemon *daemon = container_of(task, struct daemon, tick_task);

	loop_add_tick(&daemon->loops[0], &daemon->volume_tick);
}

static void listen_on_all(struct daemon *daemon)
{
	struct nbd_server *nbd = &daemon->nbd;

	if (daemon->has_socket)
		nbd_server_listen(nbd, daemon->listen_socket.fd);
	for (unsigned i = 0; i < daemon->tcp.count; i++)
		nbd_server_listen(nbd, daemon->tcp.fds[i]);
	for (unsigned i = 0; i < daemon->sockets.nbd_count; i++)
		nbd_server_listen(nbd, daemon->sockets.nbd[i]);
}

static int start_watch(struct daemon *daemon)
{
	int r = store_watch_start(daemon->store, &daemon->watch);

	if (r < 0)
		log_error("cannot start the thread that watches the store: %s", strerror(-r));
	return r;
}

static int start_nbd(struct daemon *daemon)
{
	const struct options *options = &daemon->options;
	struct nbd_export export = {
		.name = options->export_name,
		.size_bytes = volume_size_bytes(daemon->volume),
		.read_only = options->read_only,
		.tls_available = options_tls(options),
		.tls_required = options->tls_required,
	};
	uint64_t own = nbd_buffer_bytes(options) / 4 * 3 / NBD_CONN_BYTES;
	int r = nbd_server_init(&daemon->nbd, daemon->loop_pointers, options->workers,
				daemon->volume, &export,
				(unsigned)min_u64(own, options->connections));

	if (r < 0)
		return r;
	daemon->has_nbd = true;
	daemon->nbd.aligns_payloads = options->direct;
	daemon->nbd.lasting = options->lasting;
	if (store_open_map(daemon->store, &daemon->map) == 0)
		daemon->nbd.map = &daemon->map;
	daemon->nbd.tls_keys = daemon->tls_keys;
	daemon->nbd.remote_export.tls_required = options_tls(options) && !options->insecure_tcp;
	listen_on_all(daemon);
	if (options->single)
		daemon->nbd.idle = stop_soon;
	daemon->volume_tick.run = tick_volume;
	daemon->tick_task.worker = &daemon->loops[0].worker;
	daemon->tick_task.run = start_ticking;
	worker_post(&daemon->tick_task);
	nbd_server_start(&daemon->nbd);
	if (options->single)
		nbd_server_adopt(&daemon->nbd, daemon->single_fd);
	return 0;
}

static int start_ublk(struct daemon *daemon)
{
	int r = ublk_front_start(&daemon->ublk, daemon->loop_pointers, daemon->volume);

	if (r < 0 || !daemon->options.ublk)
		return r;
	snprintf(new_uri(daemon), NBD_URI_BYTES, "%s", daemon->ublk.server.path);
	add_uri(daemon);
	return 0;
}

static_assert(CTL_DETACH_TEXT_BYTES >= UBLK_DETACH_TEXT_BYTES, "the answer fits");

static int ask_detach(void *context, bool force, char *ret_text)
{
	struct daemon *daemon = context;

	return ublk_front_detach(&daemon->ublk, force, ret_text);
}

static bool keep_for_farewell(void *context, int fd)
{
	struct daemon *daemon = context;

	return farewell_add(&daemon->farewell, fd);
}

static unsigned count_clients(void *context)
{
	struct daemon *daemon = context;

	return nbd_server_clients(&daemon->nbd);
}

static uint64_t ask_silent(void *context)
{
	struct daemon *daemon = context;

	return store_watch_silent_ms(daemon->watch);
}

static int hand_out(void *context)
{
	struct daemon *daemon = context;

	return nbd_server_hand_out(&daemon->nbd);
}

static void sum_latency(void *context, struct latency_sums *ret_sums)
{
	struct daemon *daemon = context;

	nbd_server_latency(&daemon->nbd, ret_sums);
	ublk_server_latency(&daemon->ublk.server, ret_sums);
}

static int start_control(struct daemon *daemon)
{
	const struct options *options = &daemon->options;
	const struct timespec pause = {.tv_nsec = STOP_PAUSE_MS * 1000000L};
	const char *message = "";
	int r;

	daemon->control_options = (struct ctl_server_options){
		.volume = daemon->volume,
		.workers = daemon->workers,
		.worker_count = options->workers,
		.path = options->control_path,
		.lasting = options->lasting || options->ublk,
		.group = options->group,
		.store_path = options->store,
		.uris = daemon->uris,
		.stop = stop_soon,
		.farewell = keep_for_farewell,
		.clients = count_clients,
		.nbd = hand_out,
		.latency = sum_latency,
		.silent_ms = ask_silent,
		.detach = options->ublk ? ask_detach : NULL,
		.context = daemon,
		.listen_fd = daemon->sockets.control,
	};
	r = ctl_server_start(&daemon->control_options, &daemon->control, &message);
	/* As with the NBD socket: whoever listens there may just be dying. */
	for (unsigned ms = 0; r == -EADDRINUSE && ms < CONTROL_MS; ms += STOP_PAUSE_MS) {
		nanosleep(&pause, NULL);
		r = ctl_server_start(&daemon->control_options, &daemon->control, &message);
	}
	if (r < 0)
		log_error("%s", message);
	return r;
}

static int say_ready(struct daemon *daemon)
{
	systemd_notify("READY=1");
	/* Whoever handed sockets over knows what is served, and may take our output for its own. */
	if (daemon->options.single || daemon->sockets.nbd_count > 0 || daemon->uri_count == 0)
		return 0;
	fputs("ready", stdout);
	for (unsigned i = 0; i < daemon->uri_count; i++)
		printf(" %s", daemon->uris[i]);
	putchar('\n');
	/* Whoever started us may not care to read it. */
	if (fflush(stdout) == EOF)
		log_debug("the ready line could not be printed");
	return 0;
}

static int go_up(struct daemon *daemon)
{
	static int (*const steps[])(struct daemon *) = {
		load_keys,   open_ublk,	  open_store, open_sockets, make_loops,	   open_volume,
		start_watch, start_loops, start_nbd,  start_ublk,   start_control, say_ready,
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(steps) / sizeof(steps[0]); i++)
		r = steps[i](daemon);
	return r;
}

/* --- in between --- */

/* It is the last one, and who reads them waits for the device to be removed. */
static void forget_device(void *context)
{
	struct daemon *daemon = context;

	daemon->uris[--daemon->uri_count] = NULL;
}

/* A device that is detached ends the server unless it serves something else too. */
static int serve(struct daemon *daemon)
{
	const struct options *options = &daemon->options;
	bool has_nbd = options->unix_path != NULL || options->has_tcp || options->single ||
		       daemon->sockets.nbd_count > 0;
	bool lost = false;

	while (!atomic_load(&stop_asked)) {
		wait_for_wake();
		store_watch_tell(daemon->watch, daemon->options.store);
		if (ublk_front_serve(&daemon->ublk, forget_device, daemon) && !has_nbd)
			stop_soon(NULL);
		lost = lost || ublk_front_end_lost(&daemon->ublk);
		if (lost)
			stop_soon(NULL);
	}
	return lost ? -ENODEV : 0;
}

/* --- down --- */

static bool nbd_gone(struct nbd_server *nbd, unsigned limit_ms)
{
	const struct timespec pause = {.tv_nsec = STOP_PAUSE_MS * 1000000L};

	for (unsigned ms = 0; ms < limit_ms; ms += STOP_PAUSE_MS) {
		if (nbd_server_clients(nbd) == 0 && nbd_server_listening(nbd) == 0)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

static void stop_nbd(struct daemon *daemon)
{
	if (!daemon->has_nbd)
		return;
	if (daemon->has_socket)
		nbd_listen_remove(&daemon->listen_socket);
	daemon->has_socket = false;
	nbd_server_stop(&daemon->nbd);
	/* Merges and clones are cancelled and answered: clients may wait for their fences. */
	ctl_server_stop(daemon->control);
	daemon->control = NULL;
	if (nbd_gone(&daemon->nbd, DRAIN_MS))
		return;
	log_warn("%u clients took too long; their connections are cut",
		 nbd_server_clients(&daemon->nbd));
	nbd_server_cut(&daemon->nbd);
	if (nbd_gone(&daemon->nbd, CUT_MS))
		return;
	log_error("requests are stuck; recovery will do the rest");
	_exit(EXIT_FAILED);
}

/* The workers' threads have ended: what they still had for one another runs here. */
static void quiesce(struct daemon *daemon)
{
	bool any = true;

	while (any) {
		any = false;
		for (unsigned i = 0; i < daemon->options.workers; i++) {
			while (worker_run(daemon->workers[i]))
				any = true;
			if (daemon->store->ops->in_flight(daemon->store, i) == 0)
				continue;
			daemon->store->ops->wait(daemon->store, i);
			any = true;
		}
	}
}

static int go_down(struct daemon *daemon)
{
	bool ublk_ended;
	int r = 0;

	systemd_notify("STOPPING=1");
	ublk_ended = ublk_front_stop(&daemon->ublk);
	stop_nbd(daemon);
	if (!ublk_ended) {
		log_error("requests are stuck; recovery will do the rest");
		_exit(EXIT_FAILED);
	}
	for (unsigned i = 0; i < daemon->loops_started; i++)
		loop_stop(&daemon->loops[i]);
	for (unsigned i = 0; i < daemon->loops_started; i++)
		loop_join(&daemon->loops[i]);
	if (daemon->volume != NULL) {
		volume_end_trim(daemon->volume);
		quiesce(daemon);
		daemon->lacking_ms = 0;
		r = volume_close(daemon->volume);
		if (r < 0)
			log_error("%s could not be closed cleanly: %s; recovery will do the rest",
				  daemon->options.store, strerror(-r));
	}
	store_watch_stop(daemon->watch);
	ublk_front_done(&daemon->ublk);
	if (daemon->has_nbd)
		nbd_server_done(&daemon->nbd);
	nbd_tls_keys_free(daemon->tls_keys);
	store_close_map(daemon->store, &daemon->map);
	for (unsigned i = 0; i < daemon->loops_made; i++)
		loop_done(&daemon->loops[i]);
	free(daemon->loops);
	if (daemon->has_socket)
		nbd_listen_remove(&daemon->listen_socket);
	store_close(daemon->store);
	return r;
}

int main(int argc, char **argv)
{
	/* Nothing has been opened yet, and nobody can be told. */
	struct daemon *daemon = process_begin() < 0 ? NULL : calloc(1, sizeof(*daemon));
	int up, down, r;
	bool again;

	if (daemon == NULL)
		return EXIT_FAILED;
	r = options_parse(argc, argv, &daemon->options);
	if (r != 0) {
		free(daemon);
		return r < 0 ? EXIT_FAILED : 0;
	}
	ublk_front_init(&daemon->ublk, &daemon->options, argc, argv, wake_main);
	log_init(daemon->options.verbose);
	r = systemd_sockets(&daemon->sockets);
	if (r < 0)
		log_error("LISTEN_FDS: not all of these are listening stream sockets");
	if (r == 0)
		r = catch_signals();
	if (r < 0)
		return EXIT_FAILED;
	up = go_up(daemon);
	if (up == 0) {
		up = serve(daemon);
		log_debug("stopping");
	}
	down = go_down(daemon);
	farewell_say(&daemon->farewell, up == 0 && down == 0);
	again = daemon->ublk.again;
	free(daemon);
	if (up == 0 && down == 0)
		return 0;
	return again ? EXIT_AGAIN : EXIT_FAILED;
}
