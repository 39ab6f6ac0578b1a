#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""linear - clients that race with merges, clones and discards see one order of everything

8 clients write values that nobody else writes, to the blocks that are merged, cloned, zeroed and
read at the same time; for every sector there must be one order that explains every answer.
tools/test runs it with the server under ThreadSanitizer and AddressSanitizer, too.
"""

import os
import time

import rig
from rig import expect, offline_check

LINEAR = os.path.join(rig.BIN, "tests", "rigs", "linear")
SECONDS, SECONDS_LONG = 12, 120
RACES = 6


def race_once(r, clients, seed, *options):
    """Whether blocks were shared, and copied when they were written."""
    server = r.server(r.create("--force", "--size", "64M"), *options)
    seconds = SECONDS_LONG if r.long else SECONDS
    done = rig.run(LINEAR, server.uri, server.control, rig.SAMEBLK, seed, seconds, clients, ok=None,
                   seconds=seconds * 20 + 300)
    server.expect_sane()
    expect(done.returncode == 0, f"seed {seed}: {done.stdout} {done.stderr[-3000:]}")
    stats = server.stats()
    r.note(f"{done.stdout.strip()}, {stats['same_bytes']} bytes merged, {stats['differs']} "
           f"differed, {stats['cow_blocks']} blocks copied on write")
    server.stop()
    offline_check(server.store)
    return stats["same_bytes"] > 0 and stats["cow_blocks"] > 0


def race(r, clients, *options):
    if not os.access(LINEAR, os.X_OK):
        raise rig.Skip(f"no {LINEAR}")
    seed = int(os.environ.get("SEED") or time.time())
    r.note(f"SEED={seed}")
    # On a busy machine, under ThreadSanitizer, one race may be over before anything is shared.
    expect(any(race_once(r, clients, seed + again, *options) for again in range(RACES)),
           f"nothing was shared in {RACES} races")


def test_one_worker(r):
    race(r, 8, "--workers", "1")


def test_two_workers(r):
    race(r, 8, "--workers", "2")


def test_many_clients(r):
    race(r, 24, "--workers", "4")


if __name__ == "__main__":
    rig.main(globals())
