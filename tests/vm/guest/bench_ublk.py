#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_ublk - the same fio jobs on our device and on its peers, in one boot; see tools/bench ublk

    bench_ublk.py SET ROUNDS SECONDS WORKING_SET_MIB

SET is what is compared: `peers`, our device with what else makes a block device; `zero-copy`, our
device with zero copy and without, over a store in the page cache and over one past it (--direct).
All devices are there at once, of the same size, each over a ram disk of its own (nbdkit: over its
own memory), and written once in order. In a round every job runs on every device, one after the
other; the next round begins with the next device. Prints one line of JSON.
"""

import json
import os
import re
import statistics
import sys
import time

import rig
from rig import MIB

import device

VOLUME_MIB = 4096
JOBS = ["4k-read", "4k-write", "1m-read", "1m-write"]
VDO_ONLINE_SECONDS = 60
SETTLE_SECONDS = 2


def available_bytes():
    device.drop_caches()
    time.sleep(SETTLE_SECONDS)
    with open("/proc/meminfo", encoding="ascii") as f:
        return int(re.search(r"MemAvailable:\s+(\d+) kB", f.read()).group(1)) << 10


def resident_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) << 10


class Sameblk:
    """Our device, over /dev/ram0 or the ram disk that is named."""

    name, store, options = "sameblk", "/dev/ram0", []

    def __init__(self, test):
        rig.sameblk("create", "--size", f"{VOLUME_MIB}M", self.store)
        self.server = device.serve(test, self.store, *self.options, name=self.name)
        self.path = self.server.path

    def memory_bytes(self):
        return resident_bytes(self.server.process.pid)


class CachedStraight(Sameblk):
    name, store, options = "cached-zero-copy", "/dev/ram0", ["--zero-copy=on"]


class CachedCopied(Sameblk):
    name, store, options = "cached-copied", "/dev/ram1", ["--zero-copy=off"]


class DirectStraight(Sameblk):
    name, store, options = "direct-zero-copy", "/dev/ram2", ["--zero-copy=on", "--direct"]


class DirectCopied(Sameblk):
    name, store, options = "direct-copied", "/dev/ram3", ["--zero-copy=off", "--direct"]


class Loop:
    """The kernel's loop device over /dev/ram1: what passing a request on costs at the least."""

    name = "loop"

    def __init__(self, test):
        self.path = rig.run("/bin/losetup", "--find", "--show", "--direct-io=on",
                            "/dev/ram1").stdout.strip()
        test.later("/bin/losetup", "-d", self.path)

    def memory_bytes(self):
        return None


class Nbd:
    """The kernel's NBD client, and nbdkit with its volume in memory."""

    name = "nbd+nbdkit"

    def __init__(self, test):
        self.path, socket = "/dev/nbd0", test.path("nbdkit")
        self.server = test.spawn("nbdkit", "-f", "-U", socket, "memory", f"size={VOLUME_MIB}M")
        rig.wait_until(lambda: os.path.exists(socket), "nbdkit")
        rig.run("/bin/nbd-client", "-unix", socket, self.path, "-b", "4096")
        test.later("/bin/nbd-client", "-d", self.path)

    def memory_bytes(self):
        return None


class Vdo:
    """dm-vdo, the kernel's own deduplication, over /dev/ram2."""

    name = "dm-vdo"

    def __init__(self, test):
        self.path, store = "/dev/mapper/vdo", "/dev/ram2"
        rig.run("vdoformat", "--force", f"--logical-size={VOLUME_MIB}M", "--slab-bits=15", store)
        self.table = (f"0 {VOLUME_MIB * MIB // 512} vdo V4 {store} "
                      f"{device.size_bytes(store) // 4096} 4096 32768 16380 "
                      f"deduplication on compression off")
        test.later("dmsetup", "remove", "vdo")
        # The first time it writes its index; only then is what it takes no longer the ram disk's.
        self.online()
        rig.run("dmsetup", "remove", "vdo")
        before = available_bytes()
        self.online()
        self.bytes = before - available_bytes()

    def online(self):
        rig.run("dmsetup", "create", "vdo", "--table", self.table)
        rig.wait_until(lambda: " online " in rig.run("dmsetup", "status", "vdo").stdout,
                       "its index is online", seconds=VDO_ONLINE_SECONDS, pause=0.2)

    def memory_bytes(self):
        return self.bytes


SETS = {"peers": [Vdo, Sameblk, Loop, Nbd],
        "zero-copy": [CachedStraight, CachedCopied, DirectStraight, DirectCopied]}


def fio(path, job, seconds, set_mib):
    args, env = device.fio_command(f"ublk-{job}", DEVICE=path, SIZE=f"{set_mib}M",
                                   SECONDS=str(seconds))
    text = rig.run(args[0], "--output-format=json", *args[1:], env=env, seconds=300).stdout
    mixed = json.loads(text[text.index("{"):])["jobs"][0]["mixed"]
    return {"iops": mixed["iops"], "mbps": mixed["bw_bytes"] / 1e6}


def fill(path, set_mib):
    rig.run("fio", "--name=fill", f"--filename={path}", "--rw=write", "--bs=1m", "--direct=1",
            "--thread", "--ioengine=libaio", "--iodepth=4", f"--size={set_mib}M", seconds=600)


def main():
    kinds = SETS[sys.argv[1]]
    rounds, seconds, set_mib = map(int, sys.argv[2:5])
    test = rig.Rig("bench.ublk", False)
    results = {job: {} for job in JOBS}
    try:
        devices = [kind(test) for kind in kinds]
        for one in devices:
            fill(one.path, set_mib)
            print(f"bench: {one.name} is filled", flush=True)
        for number in range(rounds):
            turn = number % len(devices)
            for job in JOBS:
                for one in devices[turn:] + devices[:turn]:
                    found = fio(one.path, job, seconds, set_mib)
                    results[job].setdefault(one.name, []).append(found)
                line = ", ".join(f"{name} {statistics.median(r['iops'] for r in runs):,.0f}"
                                 for name, runs in results[job].items())
                print(f"bench: round {number + 1}, {job}: {line}", flush=True)
        memory = {one.name: one.memory_bytes() for one in devices}
        trouble = device.kernel_trouble()
        rig.expect(not trouble, f"the kernel says {trouble}")
        print("JSON " + json.dumps({"results": results, "memory_bytes": memory}), flush=True)
    except Exception:
        rig.print_logs(test)
        raise
    finally:
        test.clean_up()


if __name__ == "__main__":
    main()
