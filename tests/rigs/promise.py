#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""promise - an overwrite of an unshared block costs no metadata at all

Overwriting what was written before leaves journal_edits, metadata_reads and metadata_writes as they
were: for LINEAR regions (written in order), for LEAF regions (written in random order), and for
regions that were merged, from the second overwrite and a flush on.
"""

import time

import rig
from rig import MIB, GIB, expect, expect_equal, need

COUNTERS = ("journal_edits", "metadata_reads", "metadata_writes")
SIZE = GIB


def fio(server, rw, off, size, seed=1, block="4k"):
    rig.run("fio", "--name=promise", "--ioengine=nbd", f"--uri={server.uri}", f"--offset={off}",
            f"--size={size}", f"--rw={rw}", f"--bs={block}", "--iodepth=32", f"--randseed={seed}",
            "--end_fsync=1", "--refill_buffers", seconds=900)


def counters(server):
    stats = server.stats()
    return {name: stats[name] for name in COUNTERS}


def settle(server):
    """Waits until the checkpoint of earlier edits has come to rest."""
    before, since = counters(server), time.monotonic()
    end = since + 120
    while time.monotonic() - since < 6:
        time.sleep(0.5)
        now = counters(server)
        if now != before:
            before, since = now, time.monotonic()
        expect(time.monotonic() < end, f"the counters do not come to rest: {now}")
    return before


def expect_free(server, what, *overwrites):
    before = settle(server)
    writes = server.stats()["writes"]
    for overwrite in overwrites:
        overwrite()
    after = settle(server)
    expect_equal({n: after[n] - before[n] for n in COUNTERS}, dict.fromkeys(COUNTERS, 0), what)
    expect(server.stats()["writes"] - writes >= SIZE // MIB, "the overwrites did not arrive")


def test_linear(r):
    need("fio")
    server = r.server(r.create("--size", "2G"))
    fio(server, "write", 0, SIZE, block="1M")
    kinds = {run["kind"] for run in server.json("map", 0, SIZE)["runs"]}
    expect_equal(kinds, {"data"}, "kinds of what was written")
    expect_free(server, "LINEAR",
                lambda: fio(server, "write", 0, SIZE, seed=2, block="1M"),
                lambda: fio(server, "randwrite", 0, SIZE, seed=3))
    server.stop()


def test_leaf(r):
    need("fio")
    server = r.server(r.create("--size", "2G"))
    fio(server, "randwrite", 0, SIZE)
    expect_free(server, "LEAF",
                lambda: fio(server, "randwrite", 0, SIZE, seed=2),
                lambda: fio(server, "write", 0, SIZE, seed=3, block="1M"))
    server.stop()


def test_merged(r):
    need("fio", "nbdcopy")
    server = r.server(r.create("--size", "2G"))
    half = SIZE // 2
    # Two equal halves: the same content twice, from one source of fio's.
    fio(server, "write", 0, half, block="1M")
    rig.run("nbdcopy", server.uri, r.path("copy"))
    fill_second_half(server, r.path("copy"), half)
    with open(r.path("batch"), "w", encoding="ascii") as batch:
        batch.writelines(f"{off} {16 * MIB} {half + off}\n" for off in range(0, half, 16 * MIB))
    server.cli("same", "--sync", "--batch", r.path("batch"), seconds=600)
    stats = server.stats()
    expect(stats["saved_bytes"] >= half, f"not merged: {stats}")
    # The first overwrite parts what was shared; fio ends it with a flush.
    fio(server, "write", 0, SIZE, seed=4, block="1M")
    expect_free(server, "merged",
                lambda: fio(server, "write", 0, SIZE, seed=6, block="1M"),
                lambda: fio(server, "randwrite", 0, SIZE, seed=7))
    server.stop()


def fill_second_half(server, copy, half):
    disk = server.connect()
    with open(copy, "rb") as f:
        for off in range(0, half, 8 * MIB):
            disk.write(half + off, f.read(8 * MIB))
    disk.flush()
    disk.close()


if __name__ == "__main__":
    rig.main(globals())
