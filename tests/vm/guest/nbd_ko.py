#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd_ko - a volume on the kernel's own NBD client, over a Unix socket; run by tests/vm/run.py"""

import rig
from rig import MIB, expect

import device

NBD = "/dev/nbd0"


def connect(r, server):
    # As /bin/..., because busybox has an applet of that name.
    rig.run("/bin/nbd-client", "-unix", server.nbd, NBD, "-b", "4096")
    r.later("/bin/nbd-client", "-d", NBD)
    rig.wait_until(lambda: device.size_bytes(NBD) == 128 * MIB, f"{NBD} has its size")


def test_filesystem_is_sound_after_fio_and_merges(r):
    server = r.server(device.create(r))
    connect(r, server)
    rig.run("mkfs.ext4", "-q", "-F", NBD)
    folder = device.mount(r, NBD)
    device.fio("verify-file", FOLDER=folder, SIZE="24M")
    # The same data twice, so that a merge has something to do.
    device.write_twice(folder, 8 * MIB)
    rig.run("sync", "-f", folder)
    freed = device.merge_equal(server, NBD)
    expect(freed >= 7 * MIB, f"only {freed} bytes of two equal files of 8 MiB were freed")
    device.expect_equal_files(folder)
    rig.run("umount", folder)
    rig.run("e2fsck", "-fn", NBD)
    rig.run("/bin/nbd-client", "-d", NBD)
    server.stop()
    rig.offline_check(server.store)
    device.expect_no_io_error()


def test_all_sizes_trim_and_zeroes_are_verified_while_merges_run(r):
    server = r.server(device.create(r))
    connect(r, server)
    model = device.ZeroModel(NBD, 96 * MIB, 2 * MIB, r.name)
    sides = [device.Side(model.round), device.Side(lambda: device.merge_equal(server, NBD))]
    device.fio("verify-sizes", DEVICE=NBD, OFFSET="0", SIZE="40M", LOOPS="1", BS_MIN="4k")
    device.fio("verify-trim", DEVICE=NBD, OFFSET="40M", SIZE="40M", LOOPS="1")
    r.note(f"{sides[0].end()} rounds of zeroes, {sides[1].end()} of merges")
    rig.run("/bin/nbd-client", "-d", NBD)
    server.stop()
    rig.offline_check(server.store)
    device.expect_no_io_error()


if __name__ == "__main__":
    rig.main(globals())
