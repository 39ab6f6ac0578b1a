#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ublk_kill - SIGKILL of the server under load: the filesystem above it goes on

    fio, verifying -> ext4 -> /dev/ublkbN -> sameblkd, killed five times (--long: twenty), and three
    times with its store past the page cache. On a kernel with zero copy payload goes straight.

Each time a new server takes the device back; the time counts from its start until a write and a
flush through the filesystem are answered.
"""

import os
import random
import subprocess
import time

import rig
from rig import MIB, expect, expect_equal

import device

KILLS, KILLS_LONG, DIRECT_KILLS = 5, 20, 3
RECOVERED_SECONDS = 5
LOAD_JOBS = 2


class Load:
    """fio jobs one after the other, each verified, until told to end."""

    def __init__(self, r, folder):
        self.r, self.folder, self.jobs = r, folder, 0
        self.side = device.Side(self.job)

    def job(self):
        place = os.path.join(self.folder, f"job{self.jobs % LOAD_JOBS}")
        os.makedirs(place, exist_ok=True)
        args, env = device.fio_command("verify-file", FOLDER=place, SIZE="16M")
        fio = self.r.spawn(*args, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out = fio.communicate(timeout=300 * rig.slowness())[0].decode("utf-8", "replace")
        expect_equal(fio.returncode, 0, f"fio's status, which said {out[-600:]}")
        self.jobs += 1


def acknowledged(folder, number):
    """Writes a file and waits until it is durable: seconds that took."""
    began = time.monotonic()
    device.write_file(os.path.join(folder, f"kept{number}"), rig.blocks(number, 16))
    return time.monotonic() - began


def test_the_filesystem_goes_on_when_the_server_is_killed_under_load(r):
    kill_under_load(r, device.serve(r, device.create(r)), KILLS_LONG if r.long else KILLS)


def test_the_filesystem_goes_on_also_when_the_store_is_past_the_page_cache(r):
    store = "/dev/ram0"
    rig.run("dmesg", "-c")
    rig.sameblk("create", "--force", "--size", "52M", store)
    kill_under_load(r, device.serve(r, store, "--direct"), DIRECT_KILLS)


def kill_under_load(r, server, count):
    chance, path, took = random.Random(r.name), server.path, []
    # As systemd has it; the tests of ublk.py have private mounts, as containers do.
    rig.run("mount", "--make-rshared", "/")
    rig.run("mkfs.ext4", "-q", path)
    folder = device.mount(r, path)
    load = Load(r, folder)
    straight = server.stats()["zero_copy_bytes"] > 0
    expect_equal(straight, device.has_zero_copy(), "whether payload goes straight to the store")
    for number in range(count):
        device.wait_for_load(path)
        time.sleep(chance.uniform(0, 1.5))
        acknowledged(folder, number)
        device.wait_for_load(path)
        server.kill()
        began = time.monotonic()
        server.start()
        expect_equal(server.path, path, "the device that was taken back")
        acknowledged(folder, f"after{number}")
        took.append(time.monotonic() - began)
        if number % 2:
            device.merge_equal(server, path)
    load.side.end()
    r.note(f"recovered after {', '.join(f'{t:.2f}' for t in took)} s; {load.jobs} jobs verified")
    limit = RECOVERED_SECONDS * rig.slowness()
    expect(max(took) <= limit, f"recovered within {limit:.0f} s each: {took}")
    expect(os.path.ismount(folder), "the filesystem is still mounted")
    device.drop_caches()
    for number in range(count):
        with open(os.path.join(folder, f"kept{number}"), "rb") as f:
            expect(f.read() == rig.blocks(number, 16), f"what was durable before kill {number}")
    device.expect_no_io_error()
    rig.run("umount", folder)
    rig.run("e2fsck", "-fn", path)
    server.stop()
    device.expect_nothing_left()
    rig.offline_check(server.store)


if __name__ == "__main__":
    rig.main(globals())
