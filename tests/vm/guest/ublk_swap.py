#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ublk_swap - swap on a device whose server lives in the memory that is short: tests/vm/run.py"""

import subprocess

import rig
from rig import expect, expect_equal

import device

STORE = "/dev/vda"
HOG_MIB, HOG_SECONDS = 480, 200
HOG = """
import sys
kept = []
for i in range(int(sys.argv[1])):
    kept.append(bytearray((i % 255 + 1).to_bytes(1, "little") * (1 << 20)))
print(all(piece[0] == piece[-1] == i % 255 + 1 for i, piece in enumerate(kept)), flush=True)
"""


def swapped_kib():
    with open("/proc/swaps", encoding="ascii") as f:
        return sum(int(line.split()[3]) for line in f.readlines()[1:])


def test_who_needs_more_memory_than_there_is_gets_it_from_the_device(r):
    rig.run("dmesg", "-c")
    rig.sameblk("create", "--force", "--size", "700M", STORE)
    server = device.serve(r, STORE, "--direct")
    rig.run("/bin/mkswap", server.path)
    rig.run("/bin/swapon", server.path)
    hog = r.spawn("python3", "-c", HOG, HOG_MIB, stdout=subprocess.PIPE)
    out = hog.communicate(timeout=HOG_SECONDS * rig.slowness())[0]
    expect_equal(out, b"True\n", "what the hog finds in its memory")
    r.note(f"{swapped_kib() >> 10} MiB are still swapped out")
    expect(server.alive(), "the server lives")
    rig.run("/bin/swapoff", server.path)
    server.stop()
    device.expect_nothing_left()
    device.expect_no_io_error()


if __name__ == "__main__":
    rig.main(globals())
