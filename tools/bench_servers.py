# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_servers - the servers that tools/bench nbd compares, and what they cost

Each serves a file of its own (the ceiling: memory) over a Unix socket, all in one folder. A server
is all its processes: nbd-server forks one a connection.
"""

import glob
import os
import re
import resource
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")


def own_cpu_seconds():
    """The processor time of the children that have been waited for: of the clients."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_through(path):
    with open(path, "rb", buffering=0) as f:
        piece = bytearray(1 << 20)
        while f.readinto(piece):
            pass


def stat_fields(pid):
    """What follows the name in /proc/PID/stat, so that [1] is the parent; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


class Server:
    """One server: start() leaves it serving at self.uri."""

    name = None
    is_peer = True
    workers = 1

    def __init__(self, rig, test, size_bytes):
        self.rig, self.test, self.size_bytes = rig, test, size_bytes
        self.file = test.path(f"{self.name}.file")
        self.socket = test.path(f"{self.name}.sock")
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.pid = None

    @classmethod
    def version(cls):
        """What it says about itself, or None: it is of this tree."""
        return None

    def warm(self):
        """Has the file in memory."""
        if os.path.exists(self.file):
            read_through(self.file)

    def make_file(self):
        with open(self.file, "wb") as f:
            f.truncate(self.size_bytes)

    def spawn(self, *args):
        with open(self.test.path(f"{self.name}.log"), "wb") as log:
            process = self.test.spawn(*args, stdout=log, stderr=log)
        self.pid = process.pid
        self.wait_for_socket()

    def wait_for_socket(self):
        self.rig.wait_until(lambda: os.path.exists(self.socket), f"{self.name} is ready")

    def pids(self):
        """The process and its children."""
        children = []
        for path in glob.glob("/proc/[0-9]*"):
            pid = int(os.path.basename(path))
            fields = stat_fields(pid)
            if fields and int(fields[1]) == self.pid:
                children.append(pid)
        return [self.pid, *children]

    def cpu_seconds(self):
        """Processor time of all threads, and of children, also of those that have ended."""
        ticks = 0
        for pid in self.pids():
            ticks += sum(int(field) for field in (stat_fields(pid) or [0] * 15)[11:15])
        return ticks / TICKS

    def memory_bytes(self):
        """Resident memory, summed over the processes: (all of it, what is mapped of files)."""
        all_kib = file_kib = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
                    kib = dict(re.findall(r"(VmRSS|RssFile|RssShmem):\s+(\d+) kB", f.read()))
            except (FileNotFoundError, ProcessLookupError):
                continue
            all_kib += int(kib.get("VmRSS", 0))
            file_kib += int(kib.get("RssFile", 0)) + int(kib.get("RssShmem", 0))
        return all_kib << 10, file_kib << 10


class Sameblkd(Server):
    name = "sameblkd"
    is_peer = False

    def start(self):
        store = self.test.create("--size", str(self.size_bytes), name=f"{self.name}.file")
        server = self.test.server(store, "--workers", self.workers, name=self.name)
        self.uri, self.pid = server.uri, server.process.pid


class SameblkdWorkers(Sameblkd):
    name = "sameblkd-w2"
    workers = 2


class Before(Sameblkd):
    """The same of another build, to see what a change costs."""

    name = "before"
    build = None

    def start(self):
        ours = self.rig.SAMEBLK, self.rig.SAMEBLKD
        self.rig.SAMEBLK = os.path.join(self.build, "cli", "sameblk")
        self.rig.SAMEBLKD = os.path.join(self.build, "server", "sameblkd")
        try:
            super().start()
        finally:
            self.rig.SAMEBLK, self.rig.SAMEBLKD = ours


class BeforeWorkers(Before):
    name = "before-w2"
    workers = 2


class Nbdkit(Server):
    name = "nbdkit"

    @classmethod
    def version(cls):
        return version_line("nbdkit", "--version")

    def start(self):
        self.make_file()
        self.spawn("nbdkit", "-f", "-U", self.socket, "file", self.file)


class QemuIoUring(Server):
    name = "qemu-io_uring"
    aio = "io_uring"

    @classmethod
    def version(cls):
        return version_line("qemu-nbd", "--version")

    def start(self):
        self.make_file()
        self.spawn("qemu-nbd", "--format=raw", f"--aio={self.aio}", "--cache=writeback",
                   "--persistent", "--shared=8", f"--socket={self.socket}", self.file)


class QemuThreads(QemuIoUring):
    name = "qemu-threads"
    aio = "threads"


class NbdServer(Server):
    name = "nbd-server"

    @classmethod
    def version(cls):
        return version_line("nbd-server", "-V")

    def start(self):
        self.make_file()
        self.uri = f"nbd+unix:///volume?socket={self.socket}"
        config, pid_file = self.test.path("nbd-server.conf"), self.test.path("nbd-server.pid")
        with open(config, "w", encoding="ascii") as f:
            f.write(f"[generic]\nunixsock = {self.socket}\n"
                    f"[volume]\nexportname = {self.file}\nflush = true\nfua = true\n")
        # Only as a daemon does it serve more than one connection.
        self.rig.run("nbd-server", "-C", config, "-p", pid_file)
        self.wait_for_socket()
        with open(pid_file, encoding="ascii") as f:
            self.pid = int(f.read())
        self.test.later("kill", self.pid)


class Ceiling(Server):
    name = "ceiling"
    is_peer = False

    def start(self):
        program = os.path.join(os.environ["SAMEBLK_BIN"], "tests", "ceiling", "ceiling")
        self.spawn(program, self.socket, self.size_bytes)


SERVERS = [Sameblkd, SameblkdWorkers, Nbdkit, QemuIoUring, QemuThreads, NbdServer, Ceiling]
PEERS = [server.name for server in SERVERS if server.is_peer]


def version_line(*args):
    """The line of its answer that has the version in it."""
    done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    for line in (done.stdout + done.stderr).splitlines():
        if re.search(r"[ -]\d+\.\d+", line):
            return line.strip().removeprefix("This is ")
    return "unknown"


def versions(servers):
    lines = [version_line("fio", "--version")]
    for server in servers:
        line = server.version()
        if line and line not in lines:
            lines.append(line)
    return lines
