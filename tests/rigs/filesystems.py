#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""filesystems - ext4, XFS and btrfs on the device, with merges over the used area while files are
copied

    sameblkd -> nbdfuse -> loop device (512-byte sectors) -> mkfs, mount

A tree of 1,500 files (--long: 20,000) is copied twice, so that there is something to merge;
meanwhile equal ranges are looked for in all that is mapped, and merged. Then: unmount, the
filesystem's own check, everything started anew (so that no cache answers), mount, and every file
compared.
"""

import filecmp
import os
import random
import threading

import rig
from rig import BLOCK, MIB, expect, need, offline_check

FILES, FILES_LONG = 1500, 20000
POOL_BLOCKS = 2000
RUN_BYTES_MAX = 8 * MIB

FILESYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], ["e2fsck", "-fn"]),
    "xfs": (["mkfs.xfs", "-q", "-f"], ["xfs_repair", "-n"]),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], ["btrfs", "check", "--readonly"]),
}


def make_tree(folder, count):
    chance = random.Random("tree")
    pool = [chance.randbytes(BLOCK) for _ in range(POOL_BLOCKS)]
    for i in range(count):
        os.makedirs(os.path.join(folder, str(i % 40)), exist_ok=True)
        with open(os.path.join(folder, str(i % 40), f"file{i}"), "wb") as f:
            first = chance.randrange(POOL_BLOCKS)
            for b in range(chance.randrange(24)):
                f.write(pool[(first + b) % POOL_BLOCKS])
            f.write(chance.randbytes(chance.randrange(1, BLOCK)))


def differing(a, b):
    """Files below a that b has not, or has otherwise."""
    bad = []
    for folder, _, names in os.walk(a):
        for name in names:
            path = os.path.join(folder, name)
            other = os.path.join(b, os.path.relpath(path, a))
            if not os.path.exists(other) or not filecmp.cmp(path, other, shallow=False):
                bad.append(other)
    return bad


class Stack:
    """From the server up to a mounted filesystem."""

    def __init__(self, r, server):
        self.r, self.server = r, server
        self.file = os.path.join(r.path("fuse"), "disk")
        self.mount_point = r.path("mnt")
        self.loop = None
        os.mkdir(r.path("fuse"))
        os.mkdir(self.mount_point)

    def attach(self):
        self.fuse = self.r.spawn("nbdfuse", self.file, self.server.uri)
        rig.wait_until(lambda: os.path.exists(self.file) or self.fuse.poll() is not None, "nbdfuse")
        if self.fuse.poll() is not None:
            raise rig.Skip("nbdfuse cannot mount here")
        self.r.later("umount", "-l", self.r.path("fuse"))
        done = rig.run("losetup", "--find", "--show", "--sector-size", "512", self.file, ok=None)
        if done.returncode:
            raise rig.Skip(f"no loop device: {done.stderr.strip()}")
        self.loop = done.stdout.strip()
        self.r.later("losetup", "-d", self.loop)

    def mount(self, kind):
        done = rig.run("mount", "-t", kind, self.loop, self.mount_point, ok=None)
        if done.returncode:
            raise rig.Skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
        self.r.later("umount", "-l", self.mount_point)

    def unmount(self):
        rig.run("umount", self.mount_point)

    def detach(self):
        rig.run("losetup", "-d", self.loop)
        rig.run("umount", self.r.path("fuse"))
        self.fuse.wait(60)


class Merger(threading.Thread):
    """Looks for equal runs of blocks in all that is mapped, and merges them, until told to end."""

    def __init__(self, r, server):
        super().__init__()
        self.server, self.batch = server, r.path("batch")
        self.ending = threading.Event()
        self.rounds, self.ranges, self.error = 0, 0, None

    def run(self):
        try:
            while not self.ending.is_set():
                self.round()
        except Exception as error:  # told to the test's thread
            self.error = error

    def round(self):
        runs = list(self.equal_runs())
        with open(self.batch, "w", encoding="ascii") as f:
            f.writelines(f"{src} {length} {dst}\n" for src, length, dst in runs)
        # 1: something differs by now, which is no failure while files are being written.
        self.server.cli("same", "--batch", self.batch, ok=(0, 1), seconds=600)
        self.rounds += 1
        self.ranges += len(runs)

    def equal_runs(self):
        disk = self.server.connect()
        first_of, run = {}, None
        for extent in self.server.json("map")["runs"]:
            if extent["kind"] != "data" or extent["references"] > 1:
                continue
            end = extent["offset"] + extent["length"]
            for off in range(extent["offset"], end, MIB):
                data = disk.read(off, min(MIB, end - off))
                for i in range(0, len(data), BLOCK):
                    src = first_of.setdefault(data[i:i + BLOCK], off + i)
                    if run and (src, off + i) == (run[0] + run[1], run[2] + run[1]) \
                            and run[1] < RUN_BYTES_MAX and src < run[2]:
                        run[1] += BLOCK
                        continue
                    if run:
                        yield run
                    run = [src, BLOCK, off + i] if src != off + i else None
        if run:
            yield run
        disk.close()


def copy_twice(stack, tree, merger):
    merger.start()
    for name in ("one", "two"):
        rig.run("cp", "-r", tree, os.path.join(stack.mount_point, name), seconds=1800)
        rig.run("sync", "-f", stack.mount_point)
    # And one round over all of it.
    rounds = merger.rounds
    rig.wait_until(lambda: merger.rounds > rounds + 1 or merger.error, "another round", seconds=600)
    merger.ending.set()
    merger.join()
    if merger.error:
        raise merger.error


def on_device(r, kind):
    make, check = FILESYSTEMS[kind]
    need("nbdfuse", "losetup", "mount", make[0], check[0])
    if os.geteuid() != 0:
        raise rig.Skip("not root")
    if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        raise rig.Skip("no /dev/fuse or no loop device")
    tree = r.path("tree")
    make_tree(tree, FILES_LONG if r.long else FILES)
    server = r.server(r.create("--size", "6G" if r.long else "1G"))
    stack = Stack(r, server)
    stack.attach()
    rig.run(*make, stack.loop)
    stack.mount(kind)
    merger = Merger(r, server)
    copy_twice(stack, tree, merger)
    bad = differing(tree, os.path.join(stack.mount_point, "two"))
    expect(not bad, f"{len(bad)} files differ while mounted, the first is {bad[:1]}")
    stack.unmount()
    rig.run(*check, stack.loop, seconds=1800)
    stack.detach()
    stats = server.stats()
    r.note(f"{merger.rounds} rounds, {merger.ranges} equal ranges, {stats['saved_bytes']} bytes "
           f"saved, {stats['differs']} differed by then")
    expect(stats["saved_bytes"] > MIB, f"hardly anything was merged: {stats}")
    server.stop()
    offline_check(server.store)
    compare_anew(r, server, stack, kind, tree)


def compare_anew(r, server, stack, kind, tree):
    """Nothing that was cached below the files answers any more."""
    server.start()
    stack.attach()
    stack.mount(kind)
    for name in ("one", "two"):
        bad = differing(tree, os.path.join(stack.mount_point, name))
        expect(not bad, f"{len(bad)} files differ, the first is {bad[:1]}")
    stack.unmount()
    stack.detach()
    server.stop()


def test_ext4(r):
    on_device(r, "ext4")


def test_xfs(r):
    on_device(r, "xfs")


def test_btrfs(r):
    on_device(r, "btrfs")


if __name__ == "__main__":
    rig.main(globals())
