#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""giveback - what clients freed goes back to the file, whatever came between

Ten slots of one volume are written at random and trimmed; a server is killed with its hands full; a
copy of a store has its holes filled. Each time the file falls to what the metadata takes, and what
the volume holds is still there.
"""

import os
import random

import rig
from rig import BLOCK, MIB, blocks, expect, expect_equal, offline_check, run, wait_until

SLOTS, SLOT_BYTES = 10, 8 * MIB
WRITES = 300 # of a slot
KEPT = SLOTS * SLOT_BYTES # where a block lies that stays


def held(store):
    return os.stat(store).st_blocks * 512


def wait_given(server):
    """Until nothing is pending or due, without any write; the counters then."""
    def settled():
        stats = server.stats()
        return stats["pending_bytes"] + stats["giveback_due_bytes"] == 0 and stats
    return wait_until(settled, "pending_bytes and giveback_due_bytes become 0", 20, 0.2)


def expect_small(server):
    stats = wait_given(server)
    expect_equal(stats["used_bytes"], BLOCK, "used bytes")
    expect_equal(stats["giveback_failed_bytes"], 0, "bytes that the file did not take")
    limit = stats["metadata_bytes"] + BLOCK + MIB # the filesystem has some of its own
    found = held(server.store)
    expect(found <= limit, f"the file holds {found} bytes, metadata and data are {limit}")


def write_slots(disk):
    order = [(slot * SLOT_BYTES + block * BLOCK) for slot in range(SLOTS)
             for block in random.Random(12).sample(range(SLOT_BYTES // BLOCK), WRITES)]
    random.Random(1).shuffle(order)
    for off in order:
        disk.write(off, blocks(off))


def check_kept(disk):
    expect_equal(disk.read(KEPT, BLOCK), blocks("kept"), "the block that stays")


def begin(r):
    server = r.server(r.create("--size", KEPT + SLOT_BYTES))
    disk = server.connect()
    disk.write(KEPT, blocks("kept"))
    disk.flush()
    return server, disk


def test_slots_that_are_trimmed(r):
    server, disk = begin(r)
    write_slots(disk)
    disk.flush()
    before = held(server.store)
    for slot in range(SLOTS):
        disk.discard(slot * SLOT_BYTES, SLOT_BYTES)
    disk.flush()
    expect_small(server)
    r.note(f"{before // 1024} KiB before, {held(server.store) // 1024} KiB after")
    check_kept(disk)
    disk.close()
    server.stop()
    offline_check(server.store)


def test_a_kill_amid(r):
    server, disk = begin(r)
    write_slots(disk)
    disk.discard(0, SLOTS * SLOT_BYTES)
    disk.flush()
    server.kill()
    server.start()
    disk = server.connect()
    for i in range(1000): # written, and lost with the server
        disk.write(i * BLOCK, blocks(i))
    server.kill()
    server.start()
    disk = server.connect()
    disk.discard(0, SLOTS * SLOT_BYTES) # what was recorded after all
    disk.flush()
    expect_small(server)
    check_kept(disk)
    disk.close()
    server.stop()
    offline_check(server.store)


def test_a_copy_with_its_holes_filled(r):
    server, disk = begin(r)
    disk.close()
    server.stop()
    copy = r.path("copy")
    run("cp", "--sparse=never", server.store, copy)
    expect(held(copy) >= KEPT, f"the copy holds {held(copy)} bytes only")
    server = r.server(copy, name="copy")
    result = server.json("trim")
    expect_equal(result["failed_bytes"], 0, "bytes that the file did not take")
    expect(result["discarded_bytes"] >= KEPT, f"given back: {result}")
    expect_small(server)
    disk = server.connect()
    check_kept(disk)
    disk.close()
    server.stop()
    offline_check(copy)


def test_who_gives_nothing_back_says_so(r):
    server = r.server(r.create("--size", "16M"), "--discard=off")
    done = server.cli("trim", ok=(2,))
    expect("--discard=off" in done.stderr, done.stderr)
    server.stop()


if __name__ == "__main__":
    rig.main(globals())
