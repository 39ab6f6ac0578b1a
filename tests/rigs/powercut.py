#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""powercut - what was not flushed is really gone: the store on nbdkit's cache, which dies with it

    sameblkd -> file of nbdfuse -> nbdkit --filter=cache (in memory) -> file

nbdkit writes its cache back on a flush only, so SIGKILL of nbdkit loses all that was not flushed,
as a power cut does to a disk's cache. Then everything is started anew and the oracle reads. Twice,
with --long 20 times.
"""

import os
import random
import time

import rig
from rig import expect, need, offline_check
from kill import load_while, verify, SIZES

CYCLES, CYCLES_LONG = 2, 20
STORE_BYTES = 160 << 20


class Backing:
    """The chain below the server; cut() drops whatever was not flushed."""

    def __init__(self, r):
        self.r = r
        self.disk = r.path("disk.img")
        self.folder = r.path("mnt")
        self.store = os.path.join(self.folder, "store")
        self.socket = r.path("backing.nbd")
        with open(self.disk, "wb") as f:
            f.truncate(STORE_BYTES)
        os.mkdir(self.folder)
        r.later("umount", "-l", self.folder)

    def start(self):
        self.nbdkit = self.r.spawn("nbdkit", "-f", "-U", self.socket, "--filter=cache", "file",
                                   self.disk, "cache=writeback",
                                   stderr=rig.subprocess.DEVNULL)
        rig.wait_until(lambda: os.path.exists(self.socket), "nbdkit's socket")
        self.fuse = self.r.spawn("nbdfuse", self.store, "--unix", self.socket,
                                 stderr=rig.subprocess.DEVNULL)
        rig.wait_until(lambda: os.path.exists(self.store) or self.fuse.poll() is not None,
                       "nbdfuse's file")
        if self.fuse.poll() is not None:
            raise rig.Skip("nbdfuse cannot mount here")

    def cut(self):
        self.nbdkit.kill()
        self.nbdkit.wait()

    def tear_down(self):
        rig.run("umount", self.folder, ok=None)
        if self.fuse.poll() is None:
            self.fuse.terminate()
        self.fuse.wait()
        if os.path.exists(self.socket):
            os.unlink(self.socket)


def test_under_load(r):
    need("nbdkit", "nbdfuse", "umount")
    if not os.path.exists("/dev/fuse"):
        raise rig.Skip("no /dev/fuse")
    seed = int(os.environ.get("SEED") or time.time())
    r.note(f"SEED={seed}")
    chance = random.Random(seed)
    backing = Backing(r)
    backing.start()
    rig.sameblk("create", "--force", "--size", str(SIZES[0]), backing.store)
    server = r.server(backing.store)
    for cycle in range(CYCLES_LONG if r.long else CYCLES):
        def cut_later():
            time.sleep(1 + 2 * chance.random())
            backing.cut()
            # The server may now fail what it is asked, but not answer what is not durable.
            time.sleep(0.5 * chance.random())
            server.kill()
        sums = load_while(r, server, r.path("state"), seed + cycle, cut_later)
        r.note(f"cycle {cycle}: {sums}")
        expect(sums["operations"] > 10, f"hardly any load: {sums}")
        backing.tear_down()
        backing.start()
        offline_check(backing.store)
        server.start()
        verify(server, r.path("state"), seed + cycle)
    server.stop()
    offline_check(backing.store)
    backing.tear_down()


if __name__ == "__main__":
    rig.main(globals())
