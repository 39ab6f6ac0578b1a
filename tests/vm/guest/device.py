# SPDX-License-Identifier: GPL-2.0-or-later
"""device - what the tests in the guest do with a block device that a volume is behind"""

import fcntl
import mmap
import os
import random
import re
import threading

import rig
from rig import BLOCK, MIB, expect

FIO_JOBS = os.path.join(rig.TOP, "fio-jobs")
RUN_BYTES_MAX = 8 * MIB
BLKDISCARD, BLKZEROOUT = 0x1277, 0x127f
# What the kernel says when a request failed, or when it is in trouble itself.
KERNEL_TROUBLE = re.compile(r"I/O error|EXT4-fs (error|warning)|JBD2: .*[Ee]rror|WARNING:|"
                            r"BUG:|Oops|blocked for more than|lost async page write|"
                            r"remounting filesystem")


def create(r, name="store", mib=128):
    """A new store; and what the kernel has said so far was about another test."""
    rig.run("dmesg", "-c")
    return r.create("--size", f"{mib}M", name=name)


class Served(rig.Server):
    """A server whose volume is a ublk device, at self.path."""

    def start(self, *options, **how):
        super().start(*options, **how)
        self.path = next(uri for uri in self.ready if uri.startswith("/dev/"))
        return self


def serve(r, store, *options, name="server"):
    server = Served(r, store, "--ublk", *options, name=name).start()
    # Or whoever waits for its I/O in a test that failed could not even be killed.
    r.later("sameblk", "detach", "--force", server.path)
    return server


def ended(process, seconds=20):
    """The status of a process that is about to end."""
    return process.wait(seconds * rig.slowness())


def has_zero_copy():
    return tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 17)


def ublk_left():
    """What is in /dev and in the driver of ublk devices: nothing, if all were removed."""
    nodes = [n for n in os.listdir("/dev") if re.match(r"ublk[bc]\d", n)]
    folder = "/sys/class/ublk-char"
    return sorted(nodes + (os.listdir(folder) if os.path.isdir(folder) else []))


def expect_nothing_left():
    rig.wait_until(lambda: not ublk_left(), f"no ublk device is left, but {ublk_left()}", seconds=5)


def size_bytes(path):
    name = os.path.basename(os.path.realpath(path))
    with open(f"/sys/class/block/{name}/size", encoding="ascii") as f:
        return int(f.read()) * 512


def queue(path, name):
    """An attribute of its request queue, as the kernel has it."""
    base = os.path.basename(path)
    with open(f"/sys/class/block/{base}/queue/{name}", encoding="ascii") as f:
        return f.read().strip()


def mount(r, path, name="mnt"):
    folder = r.path(name)
    os.makedirs(folder, exist_ok=True)
    rig.run("mount", "-t", "ext4", path, folder)
    r.later("umount", "-l", folder)
    return folder


def fio_command(job, **env):
    """A job of fio-jobs/ as (arguments, environment)."""
    return ["fio", os.path.join(FIO_JOBS, job + ".fio")], {**os.environ, **env}


def fio(job, seconds=300, **env):
    args, env = fio_command(job, **env)
    return rig.run(*args, env=env, seconds=seconds)


def write_file(path, data):
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def write_twice(folder, count_bytes, seed="twice"):
    data = rig.blocks(seed, count_bytes // BLOCK)
    for name in ("one", "two"):
        write_file(os.path.join(folder, name), data)


def expect_equal_files(folder, count_bytes=8 * MIB, seed="twice"):
    drop_caches()
    for name in ("one", "two"):
        with open(os.path.join(folder, name), "rb") as f:
            same = f.read() == rig.blocks(seed, count_bytes // BLOCK)
            expect(same, f"{name} is what was written")


def drop_caches():
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("3\n")


def pieces(path, piece_bytes=MIB):
    """(offset, data) of the whole device, past the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        buffer, end = mmap.mmap(-1, piece_bytes), size_bytes(path)
        for off in range(0, end, piece_bytes):
            got = os.preadv(fd, [memoryview(buffer)[:min(piece_bytes, end - off)]], off)
            yield off, bytes(buffer[:got])
    finally:
        os.close(fd)


def equal_runs(path):
    """(source, length, destination) of runs of blocks that an earlier place has as well."""
    first_of, run, zeros = {}, None, bytes(BLOCK)
    for off, data in pieces(path):
        for i in range(0, len(data), BLOCK):
            block = data[i:i + BLOCK]
            # A hash is enough for a hint: the server compares.
            src = None if block == zeros else first_of.setdefault(hash(block), off + i)
            src = None if src == off + i else src
            if run and src == run[0] + run[1] and off + i == run[2] + run[1] \
                    and run[1] < RUN_BYTES_MAX and src < run[2]:
                run[1] += BLOCK
                continue
            if run:
                yield run
            run = [src, BLOCK, off + i] if src is not None else None
    if run:
        yield run


def merge_equal(server, path):
    """Merges what is equal on the device: the bytes it saved."""
    before = server.stats()["saved_bytes"]
    batch = server.rig.path("batch")
    with open(batch, "w", encoding="ascii") as f:
        f.writelines(f"{src} {length} {dst}\n" for src, length, dst in equal_runs(path))
    # 1: something differs by now, which is no failure while the device is written to.
    server.cli("same", "--batch", batch, ok=(0, 1))
    return server.stats()["saved_bytes"] - before


def range_command(path, command, off, length):
    """BLKDISCARD or BLKZEROOUT of a range."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.ioctl(fd, command, off.to_bytes(8, "little") + length.to_bytes(8, "little"))
    finally:
        os.close(fd)


def flush(path):
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def wait_for_load(path):
    """Until the device has requests in flight."""
    name = f"/sys/class/block/{os.path.basename(path)}/inflight"

    def busy():
        with open(name, encoding="ascii") as f:
            return any(int(n) for n in f.read().split())
    rig.wait_until(busy, f"{path} has requests in flight", seconds=60, pause=0.001)


def kernel_log():
    return rig.run("dmesg").stdout


def kernel_trouble():
    return [line for line in kernel_log().splitlines() if KERNEL_TROUBLE.search(line)]


def expect_no_io_error():
    bad = kernel_trouble()
    expect(not bad, "the kernel says:\n" + "\n".join(bad[:20]))


class Side(threading.Thread):
    """Calls a function again and again beside the test, until told to end; its error is raised."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function, self.ending = function, threading.Event()
        self.rounds, self.error = 0, None
        self.start()

    def run(self):
        try:
            while not self.ending.is_set():
                self.function()
                self.rounds += 1
        except Exception as error:  # raised in the test's thread
            self.error = error

    def end(self):
        """How often it was called. At least once: a load that never ran proves nothing."""
        self.ending.set()
        self.join()
        if self.error:
            raise self.error
        expect(self.rounds > 0, "what was to run beside the test ran at least once")
        return self.rounds


class ZeroModel:
    """A range of a device: random writes, write zeroes and discards, and what must be there."""

    def __init__(self, path, off, length, seed):
        self.path, self.off, self.length = path, off, length
        self.chance = random.Random(seed)
        self.content = bytearray(length)
        range_command(path, BLKZEROOUT, off, length)

    def round(self):
        for _ in range(8):
            first = self.chance.randrange(self.length // BLOCK)
            count = self.chance.randrange(1, min(32, self.length // BLOCK - first) + 1)
            start, length = first * BLOCK, count * BLOCK
            kind = self.chance.choice(("write", "write", "zero", "discard"))
            if kind == "write":
                data = self.chance.randbytes(BLOCK) * count
                write_direct(self.path, self.off + start, data)
            else:
                data = bytes(length)
                command = BLKZEROOUT if kind == "zero" else BLKDISCARD
                range_command(self.path, command, self.off + start, length)
            self.content[start:start + length] = data
        found = read_direct(self.path, self.off, self.length)
        if found != self.content:
            at = next(i for i in range(self.length) if found[i] != self.content[i])
            raise rig.Failure(f"{self.path} at {self.off + at}: not what was last written there")


def write_direct(path, off, data):
    buffer = mmap.mmap(-1, len(data))
    buffer.write(data)
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        done = os.pwritev(fd, [buffer], off)
        expect(done == len(data), f"{done} of {len(data)} bytes were written")
    finally:
        os.close(fd)


def read_direct(path, off, length):
    buffer = mmap.mmap(-1, length)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        done = os.preadv(fd, [buffer], off)
        expect(done == length, f"{done} of {length} bytes were read")
        return bytes(buffer)
    finally:
        os.close(fd)
