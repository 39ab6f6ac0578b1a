#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""changes - the real server tells which regions changed, also after a restart and after a kill

Whoever kept what it read, with the generation that came with it, reads again only what is told.
"""

import random

import rig
from rig import BLOCK, GIB, REGION, expect, expect_equal, offline_check

SIZE = 3 * GIB


def changes(server, since, **params):
    result, error = server.rpc("changes", since=since, **params)
    expect(error is None, f"changes since {since}: {error}")
    return result


def regions(answer):
    """Numbers of the regions that the ranges touch."""
    told = set()
    for off, length in answer["ranges"]:
        told.update(range(off // REGION, -(-(off + length) // REGION)))
    return told


def expect_told(server, since, expected, what):
    answer = changes(server, since)
    expect(answer["complete"], f"{what}: not complete")
    expect_equal(answer["listed_to"], SIZE, f"{what}: listed_to")
    expect_equal(regions(answer), set(expected), what)
    return answer["generation"]


def test_told_and_remembered(r):
    server = r.server(r.create("--size", "3G"))
    disk = server.connect()
    expect_told(server, 0, [], "a new volume")
    for region in (0, 5, 700):
        disk.write(region * REGION, rig.blocks(region, 4))
    since = expect_told(server, 0, [0, 5, 700], "three writes")
    disk.write(5 * REGION, rig.blocks(99))
    disk.write(6 * REGION, rig.blocks(5, 4))
    later = expect_told(server, since, [5, 6], "an overwrite and a write")
    server.same(6 * REGION + BLOCK, BLOCK, 5 * REGION + BLOCK)
    server.cli("same", "zero", BLOCK, 9 * REGION)
    expect_told(server, later, [], "merges")
    disk.discard(700 * REGION, 4 * BLOCK)
    disk.close()
    server.stop()
    offline_check(server.store)
    server.start()
    expect_told(server, later, [700], "after a clean restart")
    expect_told(server, since, [5, 6, 700], "since before the restart")
    server.stop()
    server.start("--read-only")
    expect_told(server, later, [700], "read-only")
    server.stop()


def test_a_second_reading_of_an_unchanged_volume_reads_nothing(r):
    server = r.server(r.create("--size", "3G"))
    disk = server.connect()
    for region in range(0, 1500, 3):
        disk.write(region * REGION, rig.blocks(region))
    since = changes(server, 0)["generation"]
    disk.close()
    for _ in range(2):
        expect_told(server, since, [], "nothing changed")
        server.stop()
        server.start()
    server.stop()


def test_a_kill_forgets_nothing(r):
    """What is not told after a kill reads as it was read before."""
    chance = random.Random(7)
    server = r.server(r.create("--size", "3G"))
    known, since = {}, 0
    for cycle in range(8):
        answer = changes(server, since)
        expect(answer["complete"], f"cycle {cycle}: not complete")
        disk = server.connect()
        told = regions(answer)
        for region in range(0, SIZE // REGION, 64):
            now = disk.read(region * REGION, BLOCK)
            if region not in told:
                expect_equal(now, known.get(region, bytes(BLOCK)), f"region {region}, not told")
            known[region] = now
        since = answer["generation"]
        for _ in range(5):
            disk.write(chance.randrange(0, SIZE // REGION, 64) * REGION,
                       rig.blocks(chance.randrange(1 << 30)))
        disk.close()
        server.kill()
        offline_check(server.store)
        server.start()
    server.stop()


def test_what_is_not_known_is_said(r):
    server = r.server(r.create("--size", "3G"))
    answer = changes(server, 4000)
    expect(not answer["complete"], "a generation from the future is known")
    expect_equal(answer["ranges"], [[0, SIZE]], "everything")
    for params in ({}, {"since": -1}, {"since": 1 << 32}, {"since": 0, "from": SIZE + 1}):
        error = server.rpc("changes", **params)[1]
        expect(error and error["data"]["errno"] == "EINVAL", f"{params}: {error}")
    server.stop()


if __name__ == "__main__":
    rig.main(globals())
