#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""sparse_8t - a thin volume of 8 TiB opens in under a second and needs no more memory than is
published

Resident memory stays below metadata cache + 96 MiB + 8 MiB per TiB while random writes go all over
it.
"""

import time

import rig
from rig import MIB, expect, need, offline_check

TIB = 8
WRITES, WRITES_LONG = 8000, 100000
CACHE_BYTES = 128 * MIB
LIMIT_BYTES = CACHE_BYTES + 96 * MIB + TIB * 8 * MIB


def open_seconds(server):
    began = time.monotonic()
    server.start()
    return time.monotonic() - began


def random_writes(server, seed, count):
    rig.run("fio", "--name=all-over", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randwrite",
            "--bs=4k", f"--size={TIB}T", f"--number_ios={count}", "--iodepth=16", "--norandommap",
            "--random_generator=tausworthe64", f"--randseed={seed}", "--end_fsync=1", seconds=900)


def test_thin_volume(r):
    need("fio")
    began = time.monotonic()
    store = r.create("--size", f"{TIB}T", "--store-size", "8G")
    made = time.monotonic() - began
    server = rig.Server(r, store)
    opened = open_seconds(server)
    random_writes(server, 1, WRITES_LONG if r.long else WRITES)
    resident = server.rss_bytes()
    server.stop()
    reopened = open_seconds(server)
    random_writes(server, 2, 1000)
    server.kill()
    recovered = open_seconds(server)
    server.stop()
    offline_check(store)
    r.note(f"created in {made:.2f} s, opened in {opened:.2f}, {reopened:.2f} and after a kill "
           f"{recovered:.2f} s; {resident // MIB} of {LIMIT_BYTES // MIB} MiB resident")
    expect(resident < LIMIT_BYTES, f"{resident} bytes resident, more than {LIMIT_BYTES}")
    limit = rig.slowness()
    expect(opened < limit and reopened < limit, f"opened in {opened:.2f} and {reopened:.2f} s")


if __name__ == "__main__":
    rig.main(globals())
