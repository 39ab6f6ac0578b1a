# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_dedupe - `sameblk dedupe` against duperemove on XFS and btrfs, with the same data

The data are disk images, as a host of virtual machines has them: each is a row of real files of
this machine, padded to 4 KiB as a file system would. Every image takes most of its files from the
same pool in an order of its own, so that equal runs lie at other offsets; some files are shifted by
half a block, so that nothing of them can be shared. What part of the data is duplicate at 4 KiB is
counted by hashing every block, and must be from 30 to 70 %.

The images are files on the file systems, and one after the other in the volume. Freed is what the
file system has more of afterwards, or by how much used_bytes fell. *Cold*: the page cache was
dropped. Each run begins with fresh data and no hashfile; *again*: the same hashfile, nothing has
changed. Without a `sameblk dedupe` in this build that is said, and nothing is measured.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

BLOCK = 4096
MIB = 1 << 20
IMAGES = 4
POOL_FOLDERS = ("/usr/lib", "/usr/share", "/usr/bin")
FILE_BYTES_MAX = 16 * MIB
SHIFTED_ONE_IN = 10
# By itself 0.11.2 merges whole extents alone, of which images have hardly any that are equal; with
# these it frees the most.
BLOCKS = "--dedupe-options=partial,same,nofiemap"
DUPEREMOVE = {"duperemove -b 4096": ["-b", "4096", BLOCKS], "duperemove": [BLOCKS]}


def unavailable(rig):
    """Why it cannot be measured here, or None."""
    done = rig.run(rig.SAMEBLK, "dedupe", "--help", ok=None)
    if done.returncode != 0:
        return "not in this build"
    if not shutil.which("duperemove"):
        return "no duperemove"
    if not shutil.which("time"):
        return "no time(1) (Debian: time)"
    return None


def pool_files(wanted_bytes):
    found, total = [], 0
    for folder in POOL_FOLDERS:
        for top, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(top, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                size = os.path.getsize(path)
                if 0 < size <= FILE_BYTES_MAX:
                    found.append(path)
                    total += size
                if total >= wanted_bytes:
                    return found
    return found


def make_image(number, files, size, path):
    """Files of the pool in this image's own order, up to its size."""
    chance = random.Random(number)
    order = chance.sample(files, len(files))
    with open(path, "wb") as out:
        for name in order:
            if out.tell() >= size:
                break
            with open(name, "rb") as f:
                data = f.read()
            if chance.randrange(SHIFTED_ONE_IN) == 0:
                data = bytes(BLOCK // 2) + data
            out.write(data + bytes(-len(data) % BLOCK))
        out.truncate(size)


def duplicate_part(paths):
    """Of all blocks, those that are equal to one before."""
    seen, blocks = set(), 0
    for path in paths:
        with open(path, "rb") as f:
            while block := f.read(BLOCK):
                seen.add(hashlib.blake2b(block, digest_size=16).digest())
                blocks += 1
    return 1 - len(seen) / blocks


def make_images(folder, size):
    """Paths, and what part is duplicate."""
    os.makedirs(folder, exist_ok=True)
    each = size // IMAGES // MIB * MIB
    # Twice what an image takes: so half of an image's files are in each other one.
    files = pool_files(2 * each)
    paths = [os.path.join(folder, f"image{i}") for i in range(IMAGES)]
    for i, path in enumerate(paths):
        make_image(i, files, each, path)
    part = duplicate_part(paths)
    if not 0.3 <= part <= 0.7:
        sys.exit(f"tools/bench same: {part:.0%} of the data are duplicates, not 30 to 70 %: are "
                 f"there files in {', '.join(POOL_FOLDERS)}?")
    return paths, part


def measured(args, env=None):
    """Runs it: seconds, processor seconds, the most memory it had.

    What wait4() says of memory begins with what Python had when it forked, so time(1) asks: it is
    small, and what it forks begins with that.
    """
    args = [str(a) for a in args]
    begin = time.monotonic()
    with tempfile.NamedTemporaryFile("r") as memory:
        with subprocess.Popen(["time", "-q", "-f", "%M", "-o", memory.name, *args], env=env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as process:
            said = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            raise RuntimeError(f"{args}: {said[-400:]}")
        return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime,
                "memory_bytes": int(memory.read()) * 1024}


class OfVolume:
    """sameblk dedupe, over the images in the bench's volume."""

    def __init__(self, bench, paths):
        self.bench, self.name = bench, "sameblk dedupe"
        self.hashfile = bench.test.path("volume.hashes")
        self.volume, at = bench.volume, 0
        for path in paths:
            with open(path, "rb") as f:
                while data := f.read(16 * MIB):
                    self.volume.write(at, data)
                    at += len(data)
        self.volume.disk.discard(at, self.volume.disk.size - at)
        self.volume.make_durable()

    def used_bytes(self):
        self.volume.make_durable()
        return self.volume.server.stats()["used_bytes"]

    def run(self):
        cpu = self.volume.cpu_seconds()
        found = measured([self.bench.rig.SAMEBLK, "dedupe", "--min-run", BLOCK, "--hashfile",
                          self.hashfile, "-c", self.volume.server.control])
        found["cpu_seconds"] += self.volume.cpu_seconds() - cpu
        return found


class OfFiles:
    """duperemove, over the images as files of a file system."""

    def __init__(self, bench, files, name, options, paths):
        self.bench, self.name, self.options = bench, f"{name}, {files.name}", options
        self.folder = os.path.join(os.path.dirname(files.path), "images")
        self.hashfile = bench.test.path("files.hashes")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.mkdir(self.folder)
        for path in paths:
            shutil.copyfile(path, os.path.join(self.folder, os.path.basename(path)))
        os.sync()

    def used_bytes(self):
        os.sync()
        status = os.statvfs(self.folder)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def run(self):
        return measured(["duperemove", "-d", "-r", "-q", *self.options,
                         f"--hashfile={self.hashfile}", self.folder])


def measure(bench, make, temperature, drop_caches, results):
    subject = make()
    if os.path.exists(subject.hashfile):
        os.unlink(subject.hashfile)
    if temperature == "cold":
        drop_caches()
    before = subject.used_bytes()
    found = subject.run()
    found["freed_bytes"] = before - subject.used_bytes()
    found["hashfile_bytes"] = os.path.getsize(subject.hashfile)
    found["again_seconds"] = subject.run()["seconds"]
    results.setdefault(f"{temperature}: {subject.name}", []).append(found)
    print(f"bench: dedupe {temperature} {subject.name}: {found}", file=sys.stderr, flush=True)


def run(bench, drop_caches):
    why = unavailable(bench.rig)
    if why:
        return why
    paths, part = make_images(bench.test.path("images"), 2 * bench.half)
    results = {"duplicates": part, "runs": {}}
    makers = [lambda: OfVolume(bench, paths)]
    for files in bench.subjects[1:]:
        for name, options in DUPEREMOVE.items():
            makers.append(lambda f=files, n=name, o=options: OfFiles(bench, f, n, o, paths))
    for _ in range(bench.options.rounds):
        for temperature in bench.options.temperatures.split(","):
            for make in makers:
                measure(bench, make, temperature, drop_caches, results["runs"])
    return results
