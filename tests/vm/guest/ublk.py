#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ublk - a volume as /dev/ublkbN: used, verified, taken away; run by tests/vm/run.py

What state each kind of end leaves is in docs/ublk.md; here each has a test that is named after it.
"""

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import time

import rig
from rig import BLOCK, MIB, expect, expect_equal

import device

TREE_FILES = 200
ROUNDS = 10
NOBODY = 65534
RECORDS = "/run/sameblk"
SECONDS = 30


class Attached:
    """A store that was attached by the CLI; its server runs in the background."""

    def __init__(self, r, store):
        self.rig, self.store = r, store
        self.path = rig.sameblk("attach", store).stdout.strip()
        r.later("sameblk", "detach", "--force", store)
        expect(stat.S_ISBLK(os.stat(self.path).st_mode), f"{self.path} is a block device at once")

    def cli(self, command, *args, **options):
        return rig.sameblk(command, *args, **options)

    def stats(self):
        return json.loads(self.cli("stats", "--json").stdout)

    def detach(self, *options, **how):
        return rig.sameblk("detach", *options, self.path, **how)


def servers():
    """The processes that are sameblkd."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
                name = f.read().strip()
            with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                state = f.read().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if name == "sameblkd" and state != "Z":
            found.append(int(pid))
    return found


def listed():
    return json.loads(rig.sameblk("list", "--json").stdout)["devices"]


def state(path):
    return next((one["state"] for one in listed() if one["device"] == path), None)


def kill_servers():
    for pid in servers():
        os.kill(pid, signal.SIGKILL)
    rig.wait_until(lambda: not servers(), "the server is dead", seconds=5)


def make_tree(folder):
    for i in range(TREE_FILES):
        place = os.path.join(folder, str(i % 10))
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, f"file{i}"), "wb") as f:
            f.write(rig.blocks(i % 50, 1 + i % 24) + b"end" * i)


def expect_tree(folder):
    for i in range(TREE_FILES):
        with open(os.path.join(folder, str(i % 10), f"file{i}"), "rb") as f:
            expect(f.read() == rig.blocks(i % 50, 1 + i % 24) + b"end" * i, f"file{i} is as it was")


def test_attach_use_and_detach_leave_nothing(r):
    attached = Attached(r, device.create(r))
    rig.run("mkfs.ext4", "-q", attached.path)
    folder, tree = device.mount(r, attached.path), r.path("tree")
    make_tree(tree)
    merging = device.Side(lambda: device.merge_equal(attached, attached.path))
    for name in ("one", "two", "three"):
        rig.run("cp", "-r", tree, os.path.join(folder, name))
        rig.run("sync")
    rounds = merging.end()
    device.merge_equal(attached, attached.path)
    saved = attached.stats()["saved_bytes"]
    expect(saved > 2 * MIB, f"three equal trees were merged, but only {saved} bytes saved")
    r.note(f"{rounds} rounds of merges beside cp, {saved} bytes saved")
    device.drop_caches()
    for name in ("one", "two", "three"):
        expect_tree(os.path.join(folder, name))
    rig.run("umount", folder)
    rig.run("e2fsck", "-fn", attached.path)
    attached.detach()
    device.expect_nothing_left()
    rig.wait_until(lambda: not servers(), "no server is left", seconds=5)
    rig.offline_check(attached.store)
    device.expect_no_io_error()


def test_all_sizes_trim_and_zeroes_are_verified_while_merges_run(r):
    server = device.serve(r, device.create(r))
    model = device.ZeroModel(server.path, 120 * MIB, 2 * MIB, r.name)
    sides = [device.Side(model.round), device.Side(lambda: device.merge_equal(server, server.path))]
    loops = "8" if r.long else "1"
    device.fio("verify-sizes", DEVICE=server.path, OFFSET="0", SIZE="48M", LOOPS=loops,
               BS_MIN="512", seconds=1800)
    device.fio("verify-trim", DEVICE=server.path, OFFSET="48M", SIZE="48M", LOOPS=loops,
               seconds=1800)
    r.note(f"{sides[0].end()} rounds of zeroes, {sides[1].end()} of merges")
    server.stop()
    device.expect_nothing_left()
    rig.offline_check(server.store)
    device.expect_no_io_error()


def test_sectors_of_4096_refuse_smaller_ones_and_are_verified(r):
    server = device.serve(r, device.create(r), "--sector-size", 4096)
    expect_equal(device.queue(server.path, "logical_block_size"), "4096", "its logical block size")
    device.fio("verify-sizes", DEVICE=server.path, OFFSET="0", SIZE="16M", LOOPS="1", BS_MIN="4k")
    server.stop()
    rig.offline_check(server.store)


def test_the_kernel_sees_a_volatile_cache_discards_and_zeroes(r):
    server = device.serve(r, device.create(r))
    expect_equal(device.queue(server.path, "write_cache"), "write back", "its cache")
    expect_equal(device.queue(server.path, "fua"), "1", "FUA")
    expect(int(device.queue(server.path, "discard_max_bytes")) > 0, "discards are passed on")
    expect(int(device.queue(server.path, "write_zeroes_max_bytes")) > 0, "zeroes are passed on")
    expect_equal(device.queue(server.path, "rotational"), "0", "it does not rotate")
    expect_equal(device.size_bytes(server.path), 128 * MIB, "its size")
    flushes = server.stats()["flushes"]
    device.flush(server.path)
    expect(server.stats()["flushes"] > flushes, "a flush arrives")
    server.stop()


def need_zero_copy():
    if not device.has_zero_copy():
        raise rig.Skip(f"Linux {os.uname().release} has no zero copy (6.17)")


def zero_copy_bytes(server):
    return server.stats()["zero_copy_bytes"]


@contextlib.contextmanager
def more_straight(server, count):
    before = zero_copy_bytes(server)
    yield
    expect_equal(zero_copy_bytes(server) - before, count, "bytes that were copied nowhere")


def expect_zero_copy(server):
    """Whole blocks go straight, whatever they replace; but not short writes to a page cache."""
    path, data, other = server.path, rig.blocks("zero copy", 256), rig.blocks("other", 256)
    with more_straight(server, 4 * MIB):
        device.write_direct(path, 0, data)
        device.write_direct(path, MIB, data)
        device.write_direct(path, MIB, data)
        expect(device.read_direct(path, MIB, MIB) == data, "what was written is read")
    server.cli("same", 0, MIB, MIB)
    with more_straight(server, 2 * MIB):
        device.write_direct(path, MIB, other)
        expect(device.read_direct(path, 0, MIB) == data, "the other owner keeps its blocks")
    with more_straight(server, (1 + ("--direct" in server.options)) * BLOCK):
        device.write_direct(path, 2 * MIB, other[:BLOCK])
        expect(device.read_direct(path, 2 * MIB, BLOCK) == other[:BLOCK], "one block")
    with more_straight(server, 0):
        expect(device.read_direct(path, 32 * MIB, MIB) == bytes(MIB), "a hole")
    device.write_direct(path, 2 * MIB + 512, data[:MIB - 1024])
    expected = other[:512] + data[:MIB - 1024] + bytes(512)
    expect(device.read_direct(path, 2 * MIB, MIB) == expected, "from the middle of a block on")
    expect(device.read_direct(path, 2 * MIB + 512, MIB - 1024) == expected[512:-512],
           "memory and range that are aligned to sectors alone")


def test_zero_copy_goes_straight_where_it_can_and_is_right_everywhere(r):
    need_zero_copy()
    for number, options in enumerate(([], ["--direct"], ["--queues", 2, "--workers", 1])):
        store = "/dev/ram0" if "--direct" in options else device.create(r, f"store{number}")
        if "--direct" in options:
            rig.sameblk("create", "--force", "--size", "48M", store)
        server = device.serve(r, store, *options, name=f"server{number}")
        expect_zero_copy(server)
        server.stop()
        rig.offline_check(store)
    device.expect_nothing_left()
    device.expect_no_io_error()


def test_a_device_made_for_zero_copy_is_served_without(r):
    need_zero_copy()
    server = device.serve(r, device.create(r))
    data = rig.blocks("taken over", 256)
    device.write_direct(server.path, 0, data)
    expect(zero_copy_bytes(server) > 0, "it was made for zero copy")
    server.kill()
    server.start("--zero-copy=off")
    expect(device.read_direct(server.path, 0, MIB) == data, "what was written is read")
    device.write_direct(server.path, 3 * MIB, data)
    device.fio("verify-sizes", DEVICE=server.path, OFFSET="8M", SIZE="8M", LOOPS="1", BS_MIN="512")
    expect(device.read_direct(server.path, 3 * MIB, MIB) == data, "and so is this")
    expect_equal(zero_copy_bytes(server), 0, "bytes that were copied nowhere")
    server.stop()
    rig.offline_check(server.store)
    device.expect_no_io_error()


def test_a_device_made_without_zero_copy_copies(r):
    server = device.serve(r, device.create(r), "--zero-copy=off")
    data = rig.blocks("copied", 256)
    device.write_direct(server.path, 0, data)
    expect(device.read_direct(server.path, 0, MIB) == data, "what was written is read")
    expect_equal(zero_copy_bytes(server), 0, "bytes that were copied nowhere")
    server.kill()
    server.start()
    expect(device.read_direct(server.path, 0, MIB) == data, "also by the next server")
    server.stop()


def test_two_queues_are_verified(r):
    server = device.serve(r, device.create(r), "--queues", 2, "--workers", 2)
    mq = f"/sys/class/block/{os.path.basename(server.path)}/mq"
    expect_equal(len(os.listdir(mq)), 2, "its queues")
    jobs = []
    for i in range(2):
        args, env = device.fio_command("verify-sizes", DEVICE=server.path, OFFSET=f"{i * 32}M",
                                       SIZE="24M", LOOPS="1", BS_MIN="512")
        jobs.append(r.spawn("taskset", str(1 << i), *args, env=env, stdout=subprocess.DEVNULL))
    expect_equal([device.ended(job, 300) for job in jobs], [0, 0], "fio on both processors")
    server.stop()
    rig.offline_check(server.store)
    device.expect_no_io_error()


def test_two_volumes_do_not_mix(r):
    pair = [device.serve(r, device.create(r, f"store{i}", 64), name=f"server{i}") for i in range(2)]
    expect(pair[0].path != pair[1].path, "each has a device of its own")
    stores = {one["device"]: one["store"] for one in listed()}
    expect_equal(stores, {server.path: server.store for server in pair}, "what list shows")
    data = [rig.blocks(i, 256) for i in range(2)]
    sides = [device.Side(device.ZeroModel(s.path, 8 * MIB, MIB, s.path).round) for s in pair]
    for server, content in zip(pair, data):
        device.write_direct(server.path, 0, content)
    for server, content in zip(pair, data):
        found = device.read_direct(server.path, 0, MIB)
        expect(found == content, f"{server.path} has its own data")
    for side in sides:
        side.end()
    pair[0].stop()
    expect(device.read_direct(pair[1].path, 0, MIB) == data[1], "the other goes on")
    pair[1].stop()
    device.expect_nothing_left()
    for server in pair:
        rig.offline_check(server.store)


def test_ten_rounds_of_attach_and_detach_leave_nothing(r):
    store = device.create(r, mib=32)
    for number in range(ROUNDS):
        attached = Attached(r, store)
        if number:
            found = device.read_direct(attached.path, (number - 1) * MIB, MIB)
            expect(found == rig.blocks(number - 1, 256), f"round {number} reads the one before")
        device.write_direct(attached.path, number * MIB, rig.blocks(number, 256))
        attached.detach()
        device.expect_nothing_left()
    rig.wait_until(lambda: not servers(), "no server is left", seconds=5)
    rig.offline_check(store)
    device.expect_no_io_error()


def test_detach_of_a_mounted_device_is_refused_and_changes_nothing(r):
    attached = Attached(r, device.create(r))
    rig.run("mkfs.ext4", "-q", attached.path)
    folder = device.mount(r, attached.path)
    done = attached.detach(ok=(2,))
    expect(attached.path in done.stderr, f"the refusal names the device: {done.stderr}")
    device.write_twice(folder, MIB)
    device.expect_equal_files(folder, MIB)
    rig.run("umount", folder)
    attached.detach()
    device.expect_nothing_left()
    device.expect_no_io_error()


def test_a_mount_on_a_folder_with_a_blank_is_named_and_forgotten(r):
    server = device.serve(r, device.create(r))
    # As systemd has it: the server has a mount namespace of its own, which gets a copy.
    rig.run("mount", "--make-rshared", "/")
    try:
        rig.run("mkfs.ext4", "-q", server.path)
        folder = device.mount(r, server.path, name="a folder")
        done = rig.sameblk("detach", server.path, ok=(2,))
        expect(folder in done.stderr, f"the folder is named: {done.stderr}")
        server.kill()
        server.start()
        with open(f"/proc/{server.process.pid}/mounts", encoding="utf-8") as f:
            expect(server.path not in f.read(), "the new server has forgotten the mount")
        rig.run("umount", folder)
        server.stop()
    finally:
        rig.run("mount", "--make-rprivate", "/")
    device.expect_nothing_left()


def test_a_device_removed_under_an_open_file_fails_reads_and_is_gone(r):
    attached = Attached(r, device.create(r))
    with open(attached.path, "rb", buffering=0) as file:
        expect_equal(len(file.read(BLOCK)), BLOCK, "a read before")
        attached.detach(ok=(2,))
        attached.detach("--force")
        device.expect_nothing_left()
        rig.wait_until(lambda: not servers(), "no server is left", seconds=5)
        device.drop_caches()
        try:
            # Either no data or an error, and at once.
            expect_equal(file.read(BLOCK), b"", "a read after")
        except OSError as error:
            expect(error.errno in (errno.EIO, errno.ENXIO, errno.ENODEV), f"a read after: {error}")
        # And whoever has it open still is in nobody's way.
        again = Attached(r, attached.store)
        again.detach()
        device.expect_nothing_left()
    rig.offline_check(attached.store)


def test_a_server_killed_while_idle_takes_its_device_back(r):
    server = device.serve(r, device.create(r))
    path, data = server.path, rig.blocks("idle", 256)
    device.write_direct(path, 0, data)
    device.flush(path)
    server.kill()
    server.start()
    expect_equal(server.path, path, "the same device")
    expect(device.read_direct(path, 0, MIB) == data, "what was flushed is there")
    server.stop()
    device.expect_nothing_left()
    rig.offline_check(server.store)
    device.expect_no_io_error()


def test_a_clone_that_was_answered_outlives_the_server(r):
    """Nobody above the device learns that the server died, so it must not take the clone along."""
    server, data = device.serve(r, device.create(r)), rig.blocks("cloned", 256)
    device.write_direct(server.path, 0, data)
    device.flush(server.path)
    server.cli("clone", 0, MIB, 8 * MIB)
    server.kill()
    server.start()
    expect(device.read_direct(server.path, 8 * MIB, MIB) == data, "the clone is there")
    server.stop()
    device.expect_nothing_left()


def test_a_copy_of_a_store_does_not_get_the_device_of_the_store(r):
    server = device.serve(r, device.create(r))
    copy, data = r.path("copy"), rig.blocks("original", 256)
    rig.run("cp", server.store, copy)
    device.write_direct(server.path, 0, data)
    device.flush(server.path)
    for killed in (False, True):
        if killed:
            server.kill()
        done = rig.run("sameblkd", "--ublk", copy, ok=(2,), seconds=20)
        expect(server.store in done.stderr and copy in done.stderr,
               f"both stores are named: {done.stderr}")
    server.start()
    expect(device.read_direct(server.path, 0, MIB) == data, "the original's content is there")
    server.stop()
    device.expect_nothing_left()


def test_a_device_that_needs_more_memory_than_the_bound_is_taken_over_all_the_same(r):
    store = device.create(r)
    first = device.serve(r, store, "--depth", 512, "--buffer-memory", "256M")
    path = first.path
    first.kill()
    # Not enough for a depth of 512 at all: a new device would be refused.
    second = device.serve(r, store, "--depth", 512, "--buffer-memory", "16M", name="second")
    expect_equal(second.path, path, "the same device")
    expect("--buffer-memory" in second.log(), "the log names the bound")
    second.stop()
    refused = rig.run("sameblkd", "--ublk", "--depth", 512, "--buffer-memory", "16M", store,
                      ok=(2,))
    expect("--buffer-memory" in refused.stderr, f"why not: {refused.stderr}")
    device.expect_nothing_left()


def test_a_second_server_that_only_reads_leaves_the_device_of_the_first(r):
    store, data = device.create(r), rig.blocks("read", 256)
    first = device.serve(r, store)
    device.write_direct(first.path, 0, data)
    first.stop()
    first = device.serve(r, store, "--read-only")
    done = rig.run("sameblkd", "--ublk", "--read-only", store, ok=(2,), seconds=20)
    expect("serves it" in done.stderr, f"why not: {done.stderr}")
    expect(device.read_direct(first.path, 0, MIB) == data, "the first goes on")
    first.kill()
    first.start()
    expect(device.read_direct(first.path, 0, MIB) == data, "and is taken over when it was killed")
    first.stop()
    device.expect_nothing_left()


def hand_out_nodes():
    """What a udev rule does on a machine that lets users have devices."""
    for name in os.listdir("/dev"):
        if name.startswith(("ublkb", "ublkc")):
            try:
                os.chown(os.path.join("/dev", name), NOBODY, NOBODY)
            except FileNotFoundError:
                pass  # it has just gone
    time.sleep(0.01)


@contextlib.contextmanager
def driver_for_users(*paths):
    """Anybody may make devices, as a udev rule has it; the paths are the user's as well."""
    os.chmod("/dev/ublk-control", 0o666)
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    side = device.Side(hand_out_nodes)
    try:
        yield
    finally:
        side.end()
        os.chmod("/dev/ublk-control", 0o600)


def serve_as_a_user(r, store):
    """A server without privileges, and its device."""
    with open(r.path("log"), "wb") as log:
        server = r.spawn("sameblkd", "--ublk", "-c", r.path("ctl"), store, user=NOBODY,
                         group=NOBODY, stdout=subprocess.PIPE, stderr=log)
    words = server.stdout.readline().decode().split()
    with open(r.path("log"), encoding="utf-8") as log:
        expect(words[:1] == ["ready"], f"it is ready, but said: {log.read()}")
    return server, words[1]


def test_a_user_without_privileges_can_attach_again_after_a_crash(r):
    store = device.create(r)
    with driver_for_users(r.folder, store):
        for number in (signal.SIGKILL, signal.SIGTERM):
            server = serve_as_a_user(r, store)[0]
            server.send_signal(number)
            device.ended(server)
    device.expect_nothing_left()


def udev_names(path):
    return rig.sameblk("list", "--udev", os.path.basename(path)).stdout


def test_a_device_of_a_user_is_in_the_way_of_no_store_with_the_same_uuid(r):
    store, copy = device.create(r, mib=32), r.path("copy")
    rig.run("cp", store, copy)
    with driver_for_users(r.folder, store):
        server, path = serve_as_a_user(r, store)
        attached = Attached(r, copy)
        expect(attached.path != path, f"root's device is another than {path}")
        expect_equal(udev_names(path), "", "the names of a user's device")
        expect(udev_names(attached.path).startswith("SAMEBLK_ID="), "root's has one")
        attached.detach()
        server.send_signal(signal.SIGTERM)
        expect_equal(device.ended(server), 0, "the status of the user's server")
    device.expect_nothing_left()


def test_recover_brings_back_a_killed_server(r):
    attached = Attached(r, device.create(r))
    data = rig.blocks("recover", 256)
    device.write_direct(attached.path, 0, data)
    device.flush(attached.path)
    kill_servers()
    rig.wait_until(lambda: state(attached.path) == "waiting", "the device waits", seconds=5)
    expect_equal(rig.sameblk("recover", attached.store).stdout.strip(), attached.path,
                 "the device that goes on")
    expect_equal(state(attached.path), "live", "its state")
    expect(device.read_direct(attached.path, 0, MIB) == data, "what was flushed is there")
    attached.detach()
    device.expect_nothing_left()
    rig.offline_check(attached.store)


def test_cleanup_removes_what_a_killed_server_left(r):
    attached = Attached(r, device.create(r))
    kill_servers()
    rig.wait_until(lambda: state(attached.path) == "waiting", "the device waits", seconds=5)
    done = rig.sameblk("cleanup", ok=(0, 1))
    if done.returncode == 1:  # a driver without TRY_STOP_DEV
        expect("cannot tell" in done.stderr and "recover" in done.stderr,
               f"why, and what can be done: {done.stderr}")
        expect_equal(state(attached.path), "waiting", "the device's state")
        rig.sameblk("cleanup", "--force")
    device.expect_nothing_left()
    rig.offline_check(attached.store)


def test_cleanup_leaves_a_device_whose_last_user_died_with_writes_waiting(r):
    """Neither a mount nor a process' file shows it: it is in the middle of closing the device."""
    server, data = device.serve(r, device.create(r)), rig.blocks("died", 256)
    script = ("import os,sys; f = os.open(sys.argv[1], os.O_WRONLY); print('open', flush=True);"
              "os.write(f, sys.stdin.buffer.read()); os._exit(0)")
    writer = r.spawn("python3", "-c", script, server.path, stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE)
    expect_equal(writer.stdout.readline(), b"open\n", "the writer says")
    server.kill()
    rig.wait_until(lambda: state(server.path) == "waiting", "the device waits", seconds=5)
    writer.stdin.write(data)
    writer.stdin.close()
    # It has no files any more once it closes them.
    rig.wait_until(lambda: not has_files(writer.pid), "the writer closes its files", seconds=10)
    rig.sameblk("cleanup", ok=(1,))
    expect_equal(state(server.path), "waiting", "the device's state")
    server.start()
    expect_equal(device.ended(writer), 0, "the writer's status")
    expect(device.read_direct(server.path, 0, MIB) == data, "what it wrote is there")
    server.stop()
    device.expect_nothing_left()
    device.expect_no_io_error()


def has_files(pid):
    try:
        return bool(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def test_a_device_that_a_server_is_taking_over_is_not_removed(r):
    server = device.serve(r, device.create(r))
    server.kill()
    rig.wait_until(lambda: state(server.path) == "waiting", "the device waits", seconds=5)
    # As a server has it that is about to go on.
    with open(server.path.replace("ublkb", "ublkc"), "r+b", buffering=0):
        for command in (("cleanup", "--force"), ("detach", "--force", server.path)):
            done = rig.sameblk(*command, ok=(1, 2))
            expect("a server has it" in done.stderr, f"why not: {done.stderr}")
            expect_equal(state(server.path), "waiting", "the device's state")
    server.start()
    server.stop()
    device.expect_nothing_left()


def test_cleanup_leaves_a_device_that_is_mounted(r):
    attached = Attached(r, device.create(r))
    rig.run("mkfs.ext4", "-q", attached.path)
    folder = device.mount(r, attached.path)
    kill_servers()
    rig.wait_until(lambda: state(attached.path) == "waiting", "the device waits", seconds=5)
    done = rig.sameblk("cleanup", ok=(1,))
    expect(attached.path in done.stdout + done.stderr, f"it is named: {done.stdout + done.stderr}")
    rig.sameblk("recover", attached.path)
    device.write_twice(folder, MIB)
    device.expect_equal_files(folder, MIB)
    rig.run("umount", folder)
    attached.detach()
    device.expect_nothing_left()
    device.expect_no_io_error()


def test_sigterm_leaves_an_open_device_and_a_new_server_goes_on(r):
    """An upgrade in place: load runs from before the stop until after the start."""
    server = device.serve(r, device.create(r))
    rig.run("mkfs.ext4", "-q", server.path)
    folder = device.mount(r, server.path)
    args, env = device.fio_command("verify-file", FOLDER=folder, SIZE="32M")
    load = r.spawn(*args, env=env, stdout=subprocess.DEVNULL)
    device.wait_for_load(server.path)
    server.stop()
    expect_equal(state(server.path), "waiting", "the device's state")
    server.start()
    expect_equal(device.ended(load, 300), 0, "fio, which noticed nothing")
    rig.run("umount", folder)
    rig.run("e2fsck", "-fn", server.path)
    server.stop()
    device.expect_nothing_left()
    device.expect_no_io_error()


class DeadFilesystem:
    """A FUSE mount of which nobody reads a request: whoever asks for a file there hangs."""

    def __init__(self, r):
        self.folder = r.path("dead")
        os.mkdir(self.folder)
        self.fuse = os.open("/dev/fuse", os.O_RDWR)
        rig.run("mount", "-t", "fuse", "-o",
                f"fd={self.fuse},rootmode=40000,user_id=0,group_id=0", "dead", self.folder,
                pass_fds=(self.fuse,))
        # The mount itself can be opened; to ask for its state would hang.
        self.root = os.open(self.folder, os.O_PATH)

    def break_off(self):
        """Whoever hangs there gets an error, and whoever comes: ENOTCONN, or ECONNREFUSED."""
        os.close(self.root)
        os.close(self.fuse)
        self.fuse = None

    def end(self):
        if self.fuse is not None:
            self.break_off()
        rig.run("umount", "-l", self.folder)


def move_record(store, new_store):
    """As if the store had lain there when its device was made."""
    for name in os.listdir(RECORDS):
        path = os.path.join(RECORDS, name)
        if not name.endswith(".ublk"):
            continue
        with open(path, encoding="utf-8") as f:
            record = f.read()
        with open(path, "w", encoding="utf-8") as f:
            f.write(record.replace(store, new_store))


def expect_refused(copy, why):
    """The device's own store may be newer; a unit tries again (3)."""
    done = rig.run("sameblkd", "--ublk", copy, ok=(3,), seconds=SECONDS)
    expect(why in done.stderr, f"why not: {done.stderr}")


def test_a_dead_filesystem_keeps_nobody_from_listing_detaching_and_recovering(r):
    """A process has it open, and the store of a device that waits lies there."""
    kept, lost = Attached(r, device.create(r)), Attached(r, r.create("--size", "64M", name="lost"))
    copy = r.path("copy")
    rig.run("cp", lost.store, copy)
    kill_servers()
    for attached in (kept, lost):
        rig.wait_until(lambda path=attached.path: state(path) == "waiting", "it waits", seconds=5)
    dead = DeadFilesystem(r)
    try:
        move_record(lost.store, os.path.join(dead.folder, "lost"))
        os.unlink(lost.store)
        expect_equal([one["state"] for one in listed()], ["waiting"] * 2, "what is listed")
        expect_refused(copy, "does not answer")
        for operand in (kept.path, kept.store):
            rig.sameblk("recover", operand, seconds=SECONDS)
            expect_equal(state(kept.path), "live", "its state")
            kill_servers()
            rig.wait_until(lambda: state(kept.path) == "waiting", "it waits", seconds=5)
        rig.sameblk("recover", kept.path, seconds=SECONDS)
        kept.detach(seconds=SECONDS)
        dead.break_off()
        expect_refused(copy, "cannot be looked at")
        rig.sameblk("detach", "--force", lost.path, seconds=SECONDS)
    finally:
        dead.end()
    device.expect_nothing_left()
    rig.wait_until(lambda: not servers(), "no server is left", seconds=5)


def test_nbd_and_ublk_serve_one_volume(r):
    server = device.serve(r, device.create(r))
    data = rig.blocks("both", 256)
    disk = server.connect()
    disk.write(MIB, data)
    expect(device.read_direct(server.path, MIB, MIB) == data, "NBD's write is read by ublk")
    device.write_direct(server.path, 2 * MIB, data)
    expect(disk.read(2 * MIB, MIB) == data, "ublk's write is read by NBD")
    disk.close()
    server.stop()
    device.expect_nothing_left()


if __name__ == "__main__":
    rig.main(globals())
