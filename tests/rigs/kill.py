#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""kill - SIGKILL of the real server under a mixed load, again and again

Each time: the store is clean for `sameblk check` as it lies there, the server serves on the same
sockets, and every block holds what the oracle allows. 50 times, with --long 2,000 times. What the
kernel holds in its page cache survives such a kill; rig powercut takes that away as well. With
--lasting the oracle allows less: what was answered is there, also if nobody has flushed it.
"""

import fcntl
import os
import random
import threading
import time

import rig
from rig import BLOCK, expect, offline_check

ORACLE = os.path.join(rig.BIN, "tests", "rigs", "oracle")
CYCLES, CYCLES_LONG = 50, 2000


def load_while(r, server, state, seed, end):
    """Runs the load until end() has ended the server; fails if the load saw wrong data."""
    words = ["lasting"] if "--lasting" in server.options else []
    load = r.spawn(ORACLE, "run", state, server.uri, server.control, rig.SAMEBLK, seed, 60,
                   *words, stdout=rig.subprocess.PIPE, stderr=rig.subprocess.STDOUT, text=True)
    first = load.stdout.readline()
    expect(first == "running\n", f"the load did not begin: {first}")
    end()
    out = load.communicate(timeout=120 * rig.slowness())[0]
    expect(load.returncode == 0, f"the load found wrong data (seed {seed}): {out[-2000:]}")
    return {name: int(count) for name, count in zip(*[iter(out.split())] * 2)}


def verify(server, state, seed):
    done = rig.run(ORACLE, "verify", state, server.uri, ok=None)
    expect(done.returncode == 0, f"after the restart (seed {seed}): {done.stderr[-2000:]}")


# The volume's end is anywhere, and the least cache makes recovery load what it replays on.
SIZES = (64 << 20, (64 << 20) + BLOCK, (64 << 20) - 37 * BLOCK, 8 * 2016 * BLOCK - BLOCK)
VARIANTS = ((), ("--metadata-cache", "1M"), ("--cow-hint", "4096"), ("--discard=off",),
            ("--direct",))


def run_cycles(r, cycles, *options):
    if not os.access(ORACLE, os.X_OK):
        raise rig.Skip(f"no {ORACLE}")
    first_seed = int(os.environ.get("SEED") or time.time())
    r.note(f"SEED={first_seed}")
    chance = random.Random(first_seed)
    # Too small for all: full stores and pressure on the ring belong to it.
    server = r.server(r.create("--size", chance.choice(SIZES)), *options)
    state = r.path("state")
    sums = {}
    for cycle in range(cycles):
        seed = first_seed + cycle

        def kill_later():
            time.sleep(chance.choice((0.05, 0.3, 0.8)) * (0.5 + chance.random()))
            server.kill()
        for name, count in load_while(r, server, state, seed, kill_later).items():
            sums[name] = sums.get(name, 0) + count
        offline_check(server.store)
        # What a server was started with is no property of its store.
        server.start(*chance.choice(VARIANTS))
        verify(server, state, seed)
    server.stop()
    offline_check(server.store)
    r.note(f"{cycles} kills, " + ", ".join(f"{count} {name}" for name, count in sums.items()))
    expect(sums["operations"] > cycles * 10 and sums["merges"] > cycles, f"hardly any load: {sums}")


def test_under_load(r):
    run_cycles(r, CYCLES_LONG if r.long else CYCLES)


def test_with_two_workers(r):
    run_cycles(r, CYCLES_LONG // 10 if r.long else CYCLES // 5, "--workers", "2")


def test_check_waits_for_a_lock_that_is_let_go_of(r):
    """A killed server's last writes may hold it for a moment."""
    store = r.create("--size", "8M")
    for options in ((), ("--repair",)):
        with open(store, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            timer = threading.Timer(1, fcntl.flock, (held, fcntl.LOCK_UN))
            timer.start()
            done = rig.sameblk("check", *options, store, ok=None)
            timer.join()
        expect(done.returncode == 0, f"check {options} ended with {done.returncode}: {done.stderr}")


def test_nothing_that_was_answered_is_undone_with_lasting(r):
    run_cycles(r, CYCLES_LONG // 10 if r.long else CYCLES // 5, "--lasting", "--workers", "2")


def test_a_client_that_connects_again_finds_what_it_wrote_with_lasting(r):
    """First writes, a copy-on-write, zeroes, a discard and a clone; never a flush."""
    server = r.server(r.create("--size", "64M"), "--lasting")
    disk, expected = server.connect(), {}

    def write(off, data):
        disk.write(off, data)
        expected[off] = data

    for i in range(8):
        write(i * 2 * rig.MIB, rig.blocks(f"first {i}", 16))
    server.cli("clone", 0, 16 * BLOCK, 32 * rig.MIB)
    expected[32 * rig.MIB] = expected[0]
    write(4 * BLOCK, rig.blocks("apart", 2))
    expected[0] = expected[0][:4 * BLOCK]
    disk.zero(2 * rig.MIB, 16 * BLOCK)
    disk.discard(4 * rig.MIB, 16 * BLOCK)
    expected[2 * rig.MIB] = expected[4 * rig.MIB] = bytes(16 * BLOCK)
    # The last one, so that nothing after it commits it too.
    server.cli("clone", 6 * rig.MIB, 16 * BLOCK, 40 * rig.MIB)
    expected[40 * rig.MIB] = expected[6 * rig.MIB]
    server.kill()
    server.start()
    disk = server.connect()
    for off, data in expected.items():
        expect(disk.read(off, len(data)) == data, f"what was answered at {off} is gone")
    disk.flush()
    disk.close()
    server.stop()
    offline_check(server.store)


def test_a_qemu_that_connects_again_finds_what_it_wrote_with_lasting(r):
    """It sends again what was in flight, not what was answered, and flushes in the new life."""
    rig.need("qemu-io")
    server = r.server(r.create("--size", "64M"), "--lasting")
    with open(r.path("qemu.out"), "wb") as out:
        qemu = r.spawn("qemu-io", "-t", "writeback", "--image-opts",
                       f"driver=nbd,server.type=unix,server.path={server.nbd},reconnect-delay=60",
                       stdin=rig.subprocess.PIPE, stdout=out, stderr=out, text=True)

    def said():
        with open(r.path("qemu.out"), encoding="utf-8") as f:
            return f.read()

    def ask(command, answer):
        count = said().count(answer)
        qemu.stdin.write(command + "\n")
        qemu.stdin.flush()
        rig.wait_until(lambda: said().count(answer) > count, f"{command}: {said()}")

    ask("write -P 0x55 0 64k", "wrote 65536/65536")
    server.kill()
    server.start()
    ask("write -P 0x66 1M 64k", "wrote 65536/65536")
    ask("flush", "qemu-io> ")
    ask("read -P 0x55 0 64k", "read 65536/65536")
    ask("read -P 0x66 1M 64k", "read 65536/65536")
    qemu.stdin.write("quit\n")
    qemu.stdin.close()
    expect(qemu.wait(60) == 0, f"qemu-io ended with {qemu.returncode}: {said()}")
    expect("failed" not in said(), f"qemu-io says: {said()}")
    server.stop()
    offline_check(server.store)


if __name__ == "__main__":
    rig.main(globals())
