#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""frozen - the filesystem below the store keeps whoever writes to it

A write waits until the filesystem goes on. Everybody else does not: reads of other clients are
answered by the same worker, and status and stats say how it stands, and for how long.
"""

import os
import threading
import time

import rig
from rig import BLOCK, MIB, blocks, expect, expect_equal, offline_check

LIMIT = 5  # seconds, for what takes none; the filesystem stays frozen for longer


class Frozen:
    """A server with one worker above a filesystem of its own."""

    def __init__(self, r):
        if os.geteuid() != 0:
            raise rig.Skip("not root")
        rig.need("mkfs.ext4", "losetup", "fsfreeze")
        self.folder = r.path("ext4")
        os.mkdir(self.folder)
        with open(r.path("fs"), "wb") as f:
            f.truncate(96 * MIB)
        rig.run("mkfs.ext4", "-q", "-F", r.path("fs"))
        done = rig.run("mount", "-o", "loop", r.path("fs"), self.folder, ok=None)
        if done.returncode:
            raise rig.Skip(f"cannot mount: {done.stderr.strip()}")
        r.later("umount", "-l", self.folder)
        self.store = os.path.join(self.folder, "store")
        rig.sameblk("create", "--size", "32M", self.store)
        self.server = r.server(self.store)
        self.writer, self.reader = self.server.connect(), self.server.connect()
        self.writer.write(0, blocks("before"))
        self.writer.flush()
        r.later("sh", "-c", f"fsfreeze -u {self.folder} 2>&1 || true")
        rig.run("fsfreeze", "-f", self.folder)

    def start_write(self):
        thread = threading.Thread(target=self.writer.write, args=(0, blocks("frozen")))
        thread.start()
        return thread

    def expect_told(self):
        begin = time.monotonic()
        rig.wait_until(lambda: self.server.json("status").get("silent_seconds", 0) >= 2,
                       "status says that the store is silent")
        self.server.stats()
        expect("has answered nothing for" in self.server.cli("status").stdout, "not for people")
        return time.monotonic() - begin

    def end(self, thread):
        expect(thread.is_alive(), "a write went to a frozen filesystem")
        rig.run("fsfreeze", "-u", self.folder)
        thread.join(60)
        expect(not thread.is_alive(), "the write is not answered")
        rig.wait_until(lambda: "silent_seconds" not in self.server.json("status"), "it answers")
        expect(self.reader.read(0, BLOCK) == blocks("frozen"), "what was written")
        self.writer.close()
        self.reader.close()
        self.server.stop()
        offline_check(self.store)
        rig.run("umount", self.folder)


def test_others_do_not_wait(r):
    """An idle server notices before somebody writes."""
    frozen = Frozen(r)
    time.sleep(1)
    thread = frozen.start_write()
    time.sleep(0.2)
    begin = time.monotonic()
    content = []
    read = threading.Thread(target=lambda: content.append(frozen.reader.read(0, BLOCK)))
    read.start()
    read.join(LIMIT * rig.slowness())
    waited = read.is_alive()
    r.note(f"a read beside it took {(time.monotonic() - begin) * 1000:.0f} ms")
    if waited:
        rig.run("fsfreeze", "-u", frozen.folder)
        read.join()
    expect(not waited, "a read of another client waits")
    expect(content[0] in (blocks("before"), blocks("frozen")), "what it read")
    frozen.expect_told()
    frozen.end(thread)


def test_status_never_waits(r):
    """The worker itself is in the write: that cannot be seen before it happens."""
    frozen = Frozen(r)
    thread = frozen.start_write()
    expect_equal(frozen.server.json("status")["state"], "ok", "state")
    frozen.expect_told()
    frozen.end(thread)


if __name__ == "__main__":
    rig.main(globals())
