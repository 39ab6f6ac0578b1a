#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""crash - records, with dm-log-writes under the store, a run whose rounds end in answered flushes

    /dev/ublkb0 (sameblkd) -> /dev/mapper/log (log-writes) -> /dev/ram0, recorded on /dev/vda

The plan is that of crash_plan.py. Before a round a mark `begin-N` goes into the log, and `done-N`
once its flush was answered. What follows from that is checked on the host, by crash_images.py.
"""

import os
import sys

import rig
from rig import expect

sys.path.insert(0, os.path.join(rig.TOP, "tests", "vm"))
import crash_plan
import device

LOG, STORE = "/dev/vda", "/dev/mapper/log"


def mark(text):
    rig.run("dmsetup", "message", "log", "0", "mark", text)


def carry_out(server, path, operation):
    off, length = operation.first * crash_plan.BLOCK, operation.count * crash_plan.BLOCK
    if operation.kind == "write":
        device.write_direct(path, off, operation.data())
    elif operation.kind == "same":
        server.same(off, length, operation.other * crash_plan.BLOCK)
    else:
        command = device.BLKZEROOUT if operation.kind == "zero" else device.BLKDISCARD
        device.range_command(path, command, off, length)


def test_a_run_is_recorded(r):
    sectors = device.size_bytes("/dev/ram0") // 512
    rig.run("dmsetup", "create", "log", "--table",
            f"0 {sectors} log-writes /dev/ram0 {LOG}")
    r.later("dmsetup", "remove", "log")
    rig.sameblk("create", "--size", crash_plan.VOLUME_BYTES, STORE)
    mark("created")
    server = device.serve(r, STORE)
    for number, operations in enumerate(crash_plan.rounds(r.long), 1):
        mark(f"begin-{number}")
        for operation in operations:
            carry_out(server, server.path, operation)
        device.flush(server.path)
        mark(f"done-{number}")
    stats = server.stats()
    expect(stats["same_bytes"] > 0, f"nothing was merged: {stats}")
    server.stop()
    rig.run("dmsetup", "remove", "log")
    device.flush(LOG)
    device.expect_no_io_error()


if __name__ == "__main__":
    rig.main(globals())
