# SPDX-License-Identifier: GPL-2.0-or-later
"""life - the programs of a world: a server's one life, the load, a dedupe, what is asked of them

A server is ready when it answers on its sockets: with its descriptors closed it can say nothing
else. Failures name the check that failed, so that they can be told apart.
"""

import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import time

import rig

READY_SECONDS = 60
STOP_SECONDS = 60
LOAD_SECONDS = 150
DEDUPE_SECONDS = 20
BAD_IN_LOG = re.compile(r"Sanitizer|runtime error:|Assertion .* failed|BUG:")


class Failure(Exception):
    def __init__(self, check, what):
        super().__init__(f"{check}: {what}")
        self.check = check


def expect(condition, check, what):
    if not condition:
        raise Failure(check, what)


class Programs:
    def __init__(self, folder, load=None):
        self.sameblk = os.path.join(folder, "cli", "sameblk")
        self.sameblkd = os.path.join(folder, "server", "sameblkd")
        self.load = load or os.path.join(folder, "tests", "swarm", "server", "load")
        self.sanitizer = 6 if re.search(r"asan|tsan", folder) else 1

    @property
    def slow(self):
        """A server on a busy machine, or under a sanitizer, is slow, never hung."""
        return self.sanitizer * rig.slowness()

    def run(self, *args, check, ok=(0,), seconds=120):
        """The CLI, to its end."""
        args = [self.sameblk, *[str(a) for a in args]]
        try:
            done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=seconds * self.slow, check=False)
        except subprocess.TimeoutExpired:
            raise Failure(check, f"`{' '.join(args[1:])}` does not end") from None
        text = (done.stdout + done.stderr).strip()
        bad = BAD_IN_LOG.search(text)
        expect(not bad and done.returncode in ok, check,
               f"`{' '.join(args[1:])}` ended with {done.returncode}: {text[:1500]}")
        return done


def prepare(closed, fsize):
    """What happens in the child before the server is run."""
    def child():
        if fsize:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fsize, fsize))
        for fd in closed:
            with contextlib.suppress(OSError):
                os.close(fd)
    return child


class Server:
    def __init__(self, programs, store, folder):
        self.programs, self.store, self.folder = programs, store, folder
        self.number = 0
        self.log_name = os.path.join(folder, "server.log")
        self.process = None
        self.stopped = False
        self.rename()

    def rename(self):
        self.number += 1
        self.nbd = os.path.join(self.folder, f"{self.number}.nbd")
        self.control = os.path.join(self.folder, f"{self.number}.ctl")

    def remove_sockets(self):
        for path in (self.nbd, self.control):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def spawn(self, options, closed=(), fsize=0):
        args = [self.programs.sameblkd, "-U", self.nbd, "-c", self.control, *options, self.store]
        with open(self.log_name, "ab") as log:
            log.write((" ".join(args[1:]) + f" closed {list(closed)}\n").encode())
            log.flush()
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=log,
                                            preexec_fn=prepare(closed, fsize),
                                            env={**os.environ,
                                                 "SAMEBLK_CONTROL_DIR": self.folder})
        self.stopped = False

    def is_ready(self):
        for path in (self.nbd, self.control):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                try:
                    s.connect(path)
                except OSError:
                    return False
        return True

    def wait_ready(self):
        end = time.monotonic() + READY_SECONDS * self.programs.slow
        while not self.is_ready():
            expect(self.process.poll() is None, "start",
                   f"the server ended with {self.process.poll()}: {self.log()[-700:]}")
            expect(time.monotonic() < end, "start", f"not ready: {self.log()[-700:]}")
            time.sleep(0.005)

    def log(self):
        with open(self.log_name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def expect_sane(self):
        bad = BAD_IN_LOG.search(self.log())
        if bad:
            raise Failure("sanity", self.log()[max(0, bad.start() - 200):][:1500])

    def expect_alive(self, connected=True):
        """connected: whether its connections still are."""
        if not connected:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        status = self.process.poll()
        self.expect_sane()
        expect(status is not None or connected, "died", "the server has closed a connection")
        expect(status is None, "died", f"the server died with {status}: {self.log()[-500:]}")

    def processor_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
            words = f.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self):
        self.stopped = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM: it must end well, and in time."""
        self.stopped = True
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS * self.programs.slow)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure("stop", f"not within {STOP_SECONDS} s") from None
        self.expect_sane()
        expect(status == 0, "stop", f"ended with {status} after "
               f"{time.monotonic() - began:.1f} s: {self.log()[-500:]}")

    def call(self, method, **params):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(60 * self.programs.slow)
            s.connect(self.control)
            s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method,
                                  "params": params}).encode() + b"\n")
            with s.makefile("rb") as answers:
                line = answers.readline().decode()
        answer = json.loads(line) if line else {}
        expect("result" in answer, "control", f"{method} {params}: {line[:500]}")
        return answer["result"]

    def runs(self, size):
        """The whole map."""
        runs, at = [], 0
        while at < size:
            answer = self.call("map", offset=at)
            expect(answer["mapped_to"] > at, "map", f"no progress at {at}")
            runs += answer["runs"]
            at = answer["mapped_to"]
        return runs


class Load:
    """The program that asks, and remembers what it was answered: see main.c."""

    def __init__(self, programs, seed, size, trace, log_name):
        self.programs = programs
        with open(log_name, "ab") as log:
            self.process = subprocess.Popen([programs.load, str(seed), str(size), trace],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=log, text=True)
        self.log_name = log_name
        self.sums, self.bad = {}, False

    def say(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            pass

    def hear(self, check):
        """True if its connections still are."""
        seconds = LOAD_SECONDS * self.programs.slow
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise Failure("stuck", f"the load has not answered for {seconds} s")
        line = self.process.stdout.readline()
        if line.startswith("bad "):
            self.bad = True
            what = line[4:].strip()
            known = re.match(r"(stuck|connect)", what)
            raise Failure(known.group(1) if known else check, what)
        if not line:
            with open(self.log_name, encoding="utf-8", errors="replace") as f:
                raise Failure("load", f"it died: {f.read()[-1500:]}")
        words = line.split()
        self.sums = {key: int(value) for key, value in (w.split("=") for w in words[1:])}
        return words[0] == "ok"

    def ask(self, line, check="oracle"):
        self.say(line)
        return self.hear(check)

    def trace(self):
        """Has the last operations written down; where it was bad it has done so."""
        if not self.bad and self.process.poll() is None:
            self.say("trace")
            select.select([self.process.stdout], [], [], 5)

    def close(self):
        self.process.stdin.close()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Dedupe:
    """A `sameblk dedupe` beside the load, perhaps not to its end, that a later one goes on from."""

    def __init__(self, programs, server, hashfile, log_name):
        with open(log_name, "ab") as log:
            self.process = subprocess.Popen(
                [programs.sameblk, "dedupe", "-c", server.control, "--hashfile", hashfile,
                 "--no-progress"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, number):
        """Its status. number: a signal that ends it now; without one it may take its time, which
        is what others leave of the processor (it is SCHED_IDLE)."""
        patience = [(number, DEDUPE_SECONDS)] if number else [(None, DEDUPE_SECONDS),
                                                              (signal.SIGINT, DEDUPE_SECONDS)]
        for each, seconds in patience:
            if each and self.process.poll() is None:
                self.process.send_signal(each)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(seconds)
        self.process.kill()
        return self.process.wait()
