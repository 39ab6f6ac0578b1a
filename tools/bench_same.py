# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_same - merging equal ranges: `sameblk same --batch` against FIDEDUPERANGE, memcmp and fio

The same data lies twice in each of: a volume, a file on XFS and a file on btrfs, both file systems
on loop devices over files in the same folder as the store. In a round each merges the second half
with the first in requests of each size: lines of a batch here, ioctls one after the other there
(tests/yardstick). Before each measurement the second half is written anew and made durable, so that
nobody finds shared blocks or pays for writeback; *cached* means that it is in the page cache then,
*cold* that the cache was dropped. One core's memcmp over two mapped ranges of a file, and what fio
reads in order from the store's own file after the cache was dropped, are measured in the same
round. Time runs from the start of the program that asks to its end.

Clients: fio writes random 4 KiB blocks at depth 1, at first alone, and then while the second half
is merged and, in the pauses, written anew; counted is what was answered while a batch ran.

A result is the median of the rounds; processor time is that of whoever does the work: the server
and `sameblk`, or the caller of the ioctl (a kernel thread's is not in it).
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bench_dedupe
import bench_same_clients
import bench_same_report
import bench_servers

MIB = 1 << 20
SIZES = {"4k": 4096, "128k": 128 << 10, "1m": MIB, "16m": 16 * MIB}
WRITE_BYTES = MIB
NEEDED = {"losetup": "mount", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "fio": "fio",
          "mount": "mount"}


def missing():
    """What keeps this benchmark from running here, as a list of sentences."""
    found = [f"no {name} (Debian: {package})" for name, package in NEEDED.items()
             if not shutil.which(name)]
    if os.geteuid() != 0:
        found.append("not root: loop devices, mounting and dropping the page cache need it")
    elif not os.path.exists("/dev/loop-control"):
        found.append("no /dev/loop-control: this kernel has no loop devices")
    try:
        import nbd  # noqa: F401
    except ImportError:
        found.append("no python3-libnbd")
    return found


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("3\n")


def yardstick():
    return os.path.join(os.environ["SAMEBLK_BIN"], "tests", "yardstick", "yardstick")


def result(seconds, requests, data_bytes, cpu_seconds):
    return {"seconds": seconds, "requests": requests, "bytes": data_bytes,
            "requests_per_s": requests / seconds, "mbps": data_bytes / seconds / 1e6,
            "cpu_s_per_gib": cpu_seconds * (1 << 30) / data_bytes}


class Volume:
    """A server's volume: the first half is the source."""

    name = "sameblk"

    def __init__(self, rig, test, half):
        self.rig, self.test, self.half = rig, test, half
        store = test.create("--size", str(4 * half))
        self.server = test.server(store)
        self.disk = self.server.connect()

    def write(self, off, data):
        for at in range(0, len(data), WRITE_BYTES):
            self.disk.write(off + at, data[at:at + WRITE_BYTES])

    def make_durable(self):
        self.disk.flush()

    def lines(self, request, begin=0, end=None):
        """A batch file that merges [begin, end) of the second half."""
        path = self.test.path(f"batch-{request}")
        with open(path, "w", encoding="ascii") as f:
            for at in range(begin, end or self.half, request):
                f.write(f"{at} {request} {self.half + at}\n")
        return path

    def cpu_seconds(self):
        fields = bench_servers.stat_fields(self.server.process.pid)
        return sum(int(f) for f in fields[11:13]) / bench_servers.TICKS

    def merge(self, request):
        path = self.lines(request)
        cpu = self.cpu_seconds() + bench_servers.own_cpu_seconds()
        begin = time.monotonic()
        done = self.server.cli("same", "--batch", path, seconds=1800)
        seconds = time.monotonic() - begin
        cpu = self.cpu_seconds() + bench_servers.own_cpu_seconds() - cpu
        words = done.stdout.splitlines()[-1].split()
        merged = int(words[words.index("bytes_deduped") + 1])
        shared = int(words[words.index("bytes_already_shared") + 1])
        self.rig.expect_equal((merged, shared), (self.half, 0), "merged and already shared bytes")
        return result(seconds, self.half // request, merged, cpu)

    def data_offset(self):
        """Where in the store's file the volume's first block lies."""
        return self.server.rpc("map", offset=0, length=4096)[0]["runs"][0]["physical"]

    def close(self):
        self.disk.close()
        self.server.stop()


class Files:
    """A file on a file system of its own on a loop device."""

    def __init__(self, rig, test, half, name, mkfs):
        self.rig, self.test, self.half, self.name = rig, test, half, name
        image, mount = test.path(f"{name}.image"), test.path(f"{name}.mount")
        with open(image, "wb") as f:
            f.truncate(4 * half + 1024 * MIB)
        os.mkdir(mount)
        loop = rig.run("losetup", "--find", "--show", image).stdout.strip()
        test.later("losetup", "-d", loop)
        rig.run(*mkfs, loop)
        rig.run("mount", loop, mount)
        test.later("umount", mount)
        self.path = os.path.join(mount, "file")
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, off, data):
        view = memoryview(data)
        for at in range(0, len(data), WRITE_BYTES):
            os.pwrite(self.fd, view[at:at + WRITE_BYTES], off + at)

    def make_durable(self):
        os.fsync(self.fd)

    def merge(self, request):
        cpu = bench_servers.own_cpu_seconds()
        said = self.rig.run(yardstick(), "dedupe", self.path, 0, self.half, self.half, request,
                            seconds=1800)
        cpu = bench_servers.own_cpu_seconds() - cpu
        found = bench_same_report.parse(said.stdout)
        return result(found["seconds"], found["requests"], found["bytes"], cpu)

    def close(self):
        os.close(self.fd)


def memcmp(rig, path, half):
    with open(path, "rb") as f:
        while f.read(16 * MIB):
            pass
    found = bench_same_report.parse(rig.run(yardstick(), "memcmp", path, 0, half, half).stdout)
    return {"mbps": half / found["seconds"] / 1e6,
            "first_mbps": half / found["first_seconds"] / 1e6}


def fio_read(rig, path, off, size):
    drop_caches()
    said = rig.run("fio", "--name=read", f"--filename={path}", f"--offset={off}", f"--size={size}",
                   "--rw=read", "--bs=1M", "--ioengine=psync", "--readonly",
                   "--output-format=json", seconds=1800)
    text = said.stdout
    read = bench_same_report.parse(text[text.index("{"):])["jobs"][0]["read"]
    return {"mbps": read["bw_bytes"] / 1e6}


class Bench:
    """The subjects with their data, and results by temperature, size and subject."""

    def __init__(self, rig, test, options):
        self.rig, self.test, self.options = rig, test, options
        self.half = options.size // 2
        self.data = os.urandom(self.half)
        self.volume = Volume(rig, test, self.half)
        self.subjects = [self.volume,
                         Files(rig, test, self.half, "xfs", ["mkfs.xfs", "-q", "-m", "reflink=1"]),
                         Files(rig, test, self.half, "btrfs", ["mkfs.btrfs", "-q"])]
        self.plain = test.path("memcmp.file")
        self.merges = {}
        self.memcmp, self.fio = [], []

    def prepare(self):
        for subject in self.subjects:
            subject.write(0, self.data)
            subject.write(self.half, self.data)
            subject.make_durable()
        with open(self.plain, "wb") as f:
            f.write(self.data)
            f.write(self.data)

    def measure(self, subject, temperature, size):
        subject.write(self.half, self.data)
        subject.make_durable()
        if temperature == "cold":
            drop_caches()
        found = subject.merge(SIZES[size])
        key = f"{temperature}-{size}"
        self.merges.setdefault(key, {}).setdefault(subject.name, []).append(found)
        print(f"bench: {key} {subject.name}: {found['mbps']:,.0f} MB/s, "
              f"{found['requests_per_s']:,.0f} requests/s, {found['cpu_s_per_gib']:.2f} CPU s/GiB",
              file=sys.stderr, flush=True)

    def measure_bounds(self):
        self.memcmp.append(memcmp(self.rig, self.plain, self.half))
        self.fio.append(fio_read(self.rig, self.volume.server.store, self.volume.data_offset(),
                                 2 * self.half))
        print(f"bench: memcmp {self.memcmp[-1]['mbps']:,.0f} MB/s, first time "
              f"{self.memcmp[-1]['first_mbps']:,.0f}; fio cold {self.fio[-1]['mbps']:,.0f} MB/s",
              file=sys.stderr, flush=True)

    def round(self, number):
        turn = number % len(self.subjects)
        for temperature in self.options.temperatures.split(","):
            for size in self.options.requests.split(","):
                for subject in self.subjects[turn:] + self.subjects[:turn]:
                    self.measure(subject, temperature, size)
        self.measure_bounds()


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def run(rig, options, machine):
    lacking = missing()
    if lacking:
        sys.exit("tools/bench same cannot run here:\n  " + "\n  ".join(lacking))
    if options.dir:
        tempfile.tempdir = os.path.abspath(options.dir)
    test = rig.Rig("bench.same", False)
    try:
        bench = Bench(rig, test, options)
        bench.prepare()
        for number in range(options.rounds):
            bench.round(number)
        clients = bench_same_clients.run(bench) if options.clients else {}
        dedupe = bench_dedupe.run(bench, drop_caches) if options.dedupe else "left out"
        for subject in bench.subjects:
            subject.close()
    finally:
        test.clean_up()
    bench_same_report.write({
        "machine": machine, "rounds": options.rounds, "size_bytes": 2 * bench.half,
        "filesystem": filesystem(), "merges": bench.merges, "memcmp": bench.memcmp,
        "fio": bench.fio, "clients": clients,
        "medians": {key: {name: medians(runs) for name, runs in one.items()}
                    for key, one in bench.merges.items()},
        "dedupe": dedupe,
    }, options.out)


def filesystem():
    done = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", tempfile.gettempdir()],
                          check=False, capture_output=True, text=True)
    return (done.stdout.split() or ["an unknown filesystem"])[-1]
