# SPDX-License-Identifier: GPL-2.0-or-later
"""rig - what the rigs share: a real server in a temporary folder, its CLI, and results a line each

A rig is a program with functions test_...(rig). Each prints `ok RIG.test`, `not ok RIG.test` with
the reason above it as `# ...`, or `skip RIG.test why`; tools/test sums them up.

    tests/rigs/NAME.py [--long] [TEST...]

SAMEBLK_BIN names the build folder that holds server/sameblkd and cli/sameblk; sanitizer reports and
failed assertions of a server fail the test that ran it. Only processes that a rig started are
killed; a rig that is told to end (SIGTERM, SIGINT) cleans up first.

Time limits are for a quiet machine. Each is multiplied by how many processes want a processor for
each that there is, and in a guest by what its boot took (SAMEBLK_SLOWNESS, see tests/vm/init).
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("SAMEBLK_BIN") or os.path.join(TOP, "build", "gcc")
SAMEBLK = os.path.join(BIN, "cli", "sameblk")
SAMEBLKD = os.path.join(BIN, "server", "sameblkd")
BLOCK = 4096
REGION = 2 << 20
MIB = 1 << 20
GIB = 1 << 30
# A server under a sanitizer on a loaded machine of two cores is slow, never hung.
READY_SECONDS = 60
STOP_SECONDS = 120
LOG_LINES = 40

os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
os.environ.setdefault("ASAN_OPTIONS", "abort_on_error=0:exitcode=66:detect_leaks=1")
os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
os.environ.setdefault("TSAN_OPTIONS", "exitcode=66:second_deadlock_stack=1")
BAD_IN_LOG = re.compile(r"Sanitizer|runtime error:|Assertion .* failed|BUG:")


def slowness():
    """How many times longer than on a quiet machine things may take just now."""
    return max(1.0, float(os.environ.get("SAMEBLK_SLOWNESS") or 1),
               os.getloadavg()[0] / (os.cpu_count() or 1))


class Skip(Exception):
    """The machine lacks what the test needs; the reason is its text."""


class Failure(Exception):
    """What was promised did not hold."""


def expect(condition, what):
    if not condition:
        raise Failure(what)


def expect_equal(found, expected, what):
    if found != expected:
        raise Failure(f"{what}: expected {expected!r}, found {found!r}")


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"no {program}")


def run(*args, ok=(0,), seconds=300, **options):
    """Runs a program to its end; Failure if its status is not among ok."""
    args = [str(a) for a in args]
    options.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=seconds * slowness(), **options)
    if ok is not None and done.returncode not in ok:
        raise Failure(f"`{' '.join(args)}` ended with {done.returncode}: "
                      f"{(done.stderr or done.stdout).strip()[-600:]}")
    return done


def wait_until(condition, what, seconds=30, pause=0.05):
    began = time.monotonic()
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > began + seconds * slowness():
            raise Failure(f"not within {seconds} s: {what}")
        time.sleep(pause)


def sameblk(*args, ok=(0,), **options):
    return run(SAMEBLK, *args, ok=ok, **options)


def offline_check(store, ok=(0,)):
    """`sameblk check`: also of a crashed store, which is clean if recovery would be."""
    done = sameblk("check", store, ok=None, seconds=600)
    expect(done.returncode in ok, f"check ended with {done.returncode}: "
           f"{(done.stdout + done.stderr)[:2000]}")
    return done


class Server:
    """One sameblkd on one store, with an NBD and a control socket that outlive its restarts."""

    def __init__(self, rig, store, *options, name="server"):
        self.rig = rig
        self.store = store
        self.options = [str(o) for o in options]
        self.nbd = os.path.join(rig.folder, name + ".nbd")
        self.control = os.path.join(rig.folder, name + ".ctl")
        self.log_name = os.path.join(rig.folder, name + ".log")
        self.uri = "nbd+unix:///?socket=" + self.nbd
        self.process = None
        self.ready = []

    def start(self, *options, seconds=READY_SECONDS):
        args = [SAMEBLKD, "-U", self.nbd, "-c", self.control, *self.options,
                *[str(o) for o in options], self.store]
        with open(self.log_name, "ab") as log:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=log)
        self.rig.started.append(self.process)
        line = self._ready_line(seconds)
        expect(line.startswith("ready "), f"no ready line but {line!r}: {self.log()[-500:]}")
        self.ready = line.split()[1:]
        return self

    def _ready_line(self, seconds):
        out, end = b"", time.monotonic() + seconds * slowness()
        while not out.endswith(b"\n") and time.monotonic() < end:
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                piece = os.read(self.process.stdout.fileno(), 4096)
                if not piece:
                    break
                out += piece
        return out.decode("utf-8", "replace")

    def log(self):
        with open(self.log_name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def expect_sane(self):
        bad = BAD_IN_LOG.search(self.log())
        if bad:
            raise Failure("the server says: " + self.log()[max(0, bad.start() - 200):][:3000])

    def stop(self, ok=(0,)):
        self.process.send_signal(signal.SIGTERM)
        status = self._wait()
        self.expect_sane()
        if ok is not None:
            expect(status in ok, f"the server ended with {status}: {self.log()[-500:]}")
        return status

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self._wait()
        self.expect_sane()

    def _wait(self):
        try:
            status = self.process.wait(STOP_SECONDS * slowness())
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure(f"the server did not end within {STOP_SECONDS} s") from None
        self.process.stdout.close()
        return status

    def cli(self, command, *args, **options):
        return sameblk(command, *args, "-c", self.control, **options)

    def json(self, command, *args, **options):
        return json.loads(self.cli(command, *args, "--json", **options).stdout)

    def stats(self):
        return self.json("stats")

    def same(self, src, length, *dsts, **options):
        """The results of one same-range request, a dict a destination."""
        options.setdefault("ok", (0, 1, 2))
        return self.json("same", src, length, *dsts, **options)["results"]

    def connect(self):
        return Disk(self.uri)

    def rpc(self, method, seconds=300, **params):
        """One call over the control socket, as docs/control-protocol.md has it: (result, error)."""
        answer = json.loads(self.control_line(json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}), seconds))
        return answer.get("result"), answer.get("error")

    def control_line(self, line, seconds=300):
        """Sends one line to the control socket as it is; the line that comes back."""
        with self.control_connect(seconds) as connection:
            connection.sendall(line.encode() + b"\n")
            with connection.makefile("rb") as answers:
                return answers.readline().decode()

    def control_connect(self, seconds=30):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(seconds)
        connection.connect(self.control)
        return connection

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) * 1024


class Disk:
    """An NBD connection that reads and writes like a file."""

    def __init__(self, uri):
        try:
            import nbd
        except ImportError:
            raise Skip("no python3-libnbd") from None
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.size = self.handle.get_size()

    def read(self, off, length):
        return bytes(self.handle.pread(length, off))

    def write(self, off, data, fua=False):
        import nbd
        self.handle.pwrite(data, off, nbd.CMD_FLAG_FUA if fua else 0)

    def discard(self, off, length):
        self.handle.trim(length, off)

    def zero(self, off, length, no_hole=False):
        import nbd
        self.handle.zero(length, off, nbd.CMD_FLAG_NO_HOLE if no_hole else 0)

    def flush(self):
        self.handle.flush()

    def close(self):
        with contextlib.suppress(Exception):
            self.handle.shutdown()


def blocks(seed, count=1):
    """So many blocks of content that no other seed gives."""
    import random
    return random.Random(f"sameblk {seed}").randbytes(count * BLOCK)


class Rig:
    """One test's folder and processes."""

    def __init__(self, name, long):
        self.name = name
        self.long = long
        self.started = []
        self.undo = []
        self.folder = tempfile.mkdtemp(prefix="sameblk-rig.")

    def path(self, name):
        return os.path.join(self.folder, name)

    def note(self, text):
        print(f"# {self.name}: {text}", flush=True)

    def create(self, *options, name="store"):
        store = self.path(name)
        sameblk("create", *options, store)
        return store

    def server(self, store, *options, name="server"):
        return Server(self, store, *options, name=name).start()

    def spawn(self, *args, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen([str(a) for a in args], **options)
        self.started.append(process)
        return process

    def later(self, *args):
        """A command that undoes something, run when the test is over, last one first."""
        self.undo.append([str(a) for a in args])

    def clean_up(self):
        for args in reversed(self.undo):
            subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def print_logs(rig):
    """What the servers said last, for whoever looks into a failure."""
    for name in sorted(os.listdir(rig.folder)):
        if name.endswith(".log"):
            with open(rig.path(name), encoding="utf-8", errors="replace") as f:
                for line in f.read().splitlines()[-LOG_LINES:]:
                    print(f"# {name}: {line}")


def run_test(name, function, long):
    rig = Rig(name, long)
    try:
        function(rig)
        print(f"ok {name}", flush=True)
        return True
    except Skip as why:
        print(f"skip {name} {why}", flush=True)
        return True
    except Failure as why:
        print("# " + str(why).replace("\n", "\n# "))
        print_logs(rig)
    except Exception:  # a bug of the rig is a failure too, and says where
        print("# " + traceback.format_exc().replace("\n", "\n# "))
        print_logs(rig)
    finally:
        rig.clean_up()
    print(f"not ok {name}", flush=True)
    return False


def end_cleanly(signum, frame):
    """Ends the test under way by an exception, which cleans up on its way."""
    signal.signal(signum, signal.SIG_IGN)
    sys.exit(128 + signum)


def main(tests):
    """tests: the rig's globals(); runs its test_... functions in the order they stand in."""
    signal.signal(signal.SIGTERM, end_cleanly)
    signal.signal(signal.SIGINT, end_cleanly)
    long = "--long" in sys.argv
    wanted = [a for a in sys.argv[1:] if not a.startswith("--")]
    rig_name = os.path.basename(sys.argv[0]).removesuffix(".py")
    good = True
    found = {n[len("test_"):]: f for n, f in tests.items() if n.startswith("test_") and callable(f)}
    for name in wanted or found:
        if name not in found:
            sys.exit(f"{rig_name}: no test named {name}")
        if not os.access(SAMEBLKD, os.X_OK):
            sys.exit(f"{rig_name}: no {SAMEBLKD}: build (tools/build gcc), or set SAMEBLK_BIN")
        good = run_test(f"{rig_name}.{name}", found[name], long) and good
    sys.exit(0 if good else 1)
