#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ublk_ends - servers that end at a bad moment, hang, or lose their device: tests/vm/run.py"""

import json
import os
import signal
import subprocess
import time

import rig
from rig import MIB, expect, expect_equal

import device
from driver import DELETE, START_RECOVERY, STOP, Driver

DISK_SECTORS = 64 * MIB // 512


def number_of(path):
    return int(path[len("/dev/ublkb"):])


def state(path):
    listed = json.loads(rig.sameblk("list", "--json").stdout)["devices"]
    return next((one["state"] for one in listed if one["device"] == path), None)


def wait_for_state(path, wanted):
    rig.wait_until(lambda: state(path) == wanted, f"{path} is {wanted}", seconds=10)


def is_waiting(pid):
    """A thread of it waits in the kernel and cannot be interrupted."""
    for name in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{name}/stat", encoding="utf-8") as f:
            if f.read().rpartition(")")[2].split()[0] == "D":
                return True
    return False


def waits_for_it(path):
    """Some process waits in the kernel, and has the device open."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            if path in links and is_waiting(pid):
                return True
        except OSError:
            continue
    return False


def serve_of_disk(r):
    """A server whose store's disk can be held up; it has a cache, so that a flush waits for it."""
    rig.run("dmesg", "-c")
    rig.run("dmsetup", "create", "slow", "--table", f"0 {DISK_SECTORS} linear /dev/vda 0")
    r.later("dmsetup", "remove", "slow")
    rig.sameblk("create", "--force", "--size", "32M", "/dev/mapper/slow")
    return device.serve(r, "/dev/mapper/slow", "--direct")


def test_a_server_that_is_killed_while_its_device_is_written_back_ends(r):
    """Or nobody could have its store, nor its device, until the machine is restarted."""
    first, second = rig.blocks("first", 256), rig.blocks("second", 256)
    server = serve_of_disk(r)
    for data in (first, second):
        device.write_direct(server.path, 0, data)
    rig.run("dmsetup", "suspend", "--noflush", "slow")
    try:
        detaching = r.spawn("sameblk", "detach", server.path)
        rig.wait_until(lambda: waits_for_it(server.path), "it is written back", seconds=20)
        time.sleep(1)
        expect(waits_for_it(server.path), "that does not end")
        os.kill(server.process.pid, signal.SIGKILL)
        time.sleep(0.5)
    finally:
        rig.run("dmsetup", "resume", "slow")
    device.ended(server.process)
    server.kill()
    expect(device.ended(detaching) != 0, "detach has failed")
    wait_for_state(server.path, "waiting")
    server.start()
    expect(device.read_direct(server.path, 0, MIB) == second, "what was written last is there")
    server.stop()
    device.expect_nothing_left()
    rig.run("dmsetup", "remove", "slow")
    device.expect_no_io_error()


def test_a_take_over_that_was_begun_and_not_ended_is_ended_by_the_next_server(r):
    server, data = device.serve(r, device.create(r)), rig.blocks("begun", 256)
    device.write_direct(server.path, 0, data)
    server.kill()
    wait_for_state(server.path, "waiting")
    driver = Driver()
    result = driver.command(START_RECOVERY, number_of(server.path))[0]
    expect_equal(result, 0, "what the driver says")
    driver.close()
    server.start()
    expect(device.read_direct(server.path, 0, MIB) == data, "what was written is read")
    server.stop()
    device.expect_nothing_left()
    device.expect_no_io_error()


def process_of(name, parent):
    """The process of that name that another one has started, if there is one."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                before, _, after = f.read().rpartition(")")
        except OSError:
            continue
        if before.endswith("(" + name) and int(after.split()[1]) == parent:
            return int(pid)
    return None


def test_a_take_over_that_fails_is_for_the_unit_to_try_again(r):
    """Its status is the one for which the unit starts another server: I/O waits."""
    server, data = device.serve(r, device.create(r)), rig.blocks("again", 256)
    device.write_direct(server.path, 0, data)
    server.kill()
    wait_for_state(server.path, "waiting")
    held = os.open(f"/dev/ublkc{number_of(server.path)}", os.O_RDWR)
    try:
        failing = r.spawn("sameblkd", "--ublk", "-c", r.path("failing.ctl"), server.store,
                          stderr=subprocess.PIPE)
        rig.wait_until(lambda: process_of("sameblkd-agent", failing.pid), "it has its agent")
        os.kill(process_of("sameblkd-agent", failing.pid), signal.SIGKILL)
    finally:
        os.close(held)
    said = failing.communicate(timeout=30 * rig.slowness())[1].decode()
    expect_equal(failing.returncode, 3, f"the status of a server that said {said}")
    expect("is no more" in said, f"why: {said}")
    wait_for_state(server.path, "waiting")
    server.start()
    expect(device.read_direct(server.path, 0, MIB) == data, "what was written is read")
    server.stop()
    device.expect_nothing_left()
    device.expect_no_io_error()


def test_a_server_whose_device_another_tool_takes_away_says_so_and_fails(r):
    server = device.serve(r, device.create(r))
    for command in (STOP, DELETE):
        driver = Driver()
        expect_equal(driver.command(command, number_of(server.path))[0], 0, "the driver says")
        driver.close()
        expect_equal(device.ended(server.process), 2, "the server's status")
        expect("by somebody else" in server.log(), f"why: {server.log()}")
        server.kill()
        device.expect_nothing_left()
        expect_equal(state(server.path), None, "the state of a device that is gone")
        said = rig.sameblk("detach", server.path, ok=(2,)).stderr
        expect("there is no such device" in said, f"nor can it be detached: {said}")
        rig.offline_check(server.store)
        os.truncate(server.log_name, 0)
        server.start()
    server.stop()


def test_a_server_that_hangs_keeps_nobody_from_the_others(r):
    hanging = device.serve(r, device.create(r, mib=32))
    other, took = device.create(r, "other", 32), []
    os.kill(hanging.process.pid, signal.SIGSTOP)
    try:
        for command in (["list"], ["attach", other], ["detach", other], ["recover"], ["cleanup"]):
            began = time.monotonic()
            done = rig.sameblk(*command, seconds=30)
            took.append(f"{command[0]} {time.monotonic() - began:.1f}")
            expect("does not answer" in done.stderr, f"what is said of it: {done.stderr}")
            if command == ["list"]:
                expect(hanging.path in done.stdout, f"what is listed: {done.stdout}")
        r.note(f"seconds beside one that hangs: {', '.join(took)}")
    finally:
        os.kill(hanging.process.pid, signal.SIGCONT)
    hanging.stop()
    device.expect_nothing_left()


def locked_kib(pid, path):
    """How much of a file's mappings is locked in memory, and whether there is one."""
    total, within, found = 0, False, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        for line in f:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                within = words[-1] == path
                found = found or within
            elif within and words[0] == "Locked:":
                total += int(words[1])
    return total, found


def test_a_server_never_waits_for_memory_that_lies_on_its_own_device(r):
    server = device.serve(r, device.create(r), "--queues", 1, "--depth", 16)
    device.write_direct(server.path, 0, rig.blocks("there", 256))
    expect(len(server.connect().read(0, MIB)) == MIB, "its store is read through the mapping")
    pid = server.process.pid
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        status = dict(line.split(":", 1) for line in f)
    kib = {name: int(status[name].split()[0]) for name in ("VmLck", "VmRSS", "RssAnon")}
    expect(kib["VmLck"] >= kib["RssAnon"] > 4096, f"its memory is locked: {kib}")
    expect_equal(locked_kib(pid, server.store), (0, True), "what is locked of the mapped store")
    with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as f:
        expect_equal(f.read(), "-900\n", "how little it is to be killed")
    server.stop()
    device.expect_nothing_left()


def test_all_unfinished_devices_of_a_volume_are_removed(r):
    server, driver = device.serve(r, device.create(r)), Driver()
    mark = driver.mark(number_of(server.path))
    server.stop()
    for _ in range(2):
        driver.make(mark)
    driver.close()
    server.start()
    left = device.ublk_left()
    expect_equal(len(left), 3, f"nodes of one device, and it itself in sysfs: {left}")
    server.stop()
    device.expect_nothing_left()


def test_a_device_that_is_just_being_made_is_not_cleaned_up(r):
    driver = Driver()
    driver.hold()
    number = driver.make()
    done = rig.sameblk("cleanup", ok=(1,))
    expect("just making" in done.stderr, f"why not: {done.stderr}")
    expect_equal(state(f"/dev/ublkb{number}"), "dead", "its state")
    driver.close()
    rig.sameblk("cleanup")
    device.expect_nothing_left()


def has_requests(path):
    name = f"/sys/block/{os.path.basename(path)}/inflight"
    if not os.path.exists(name):
        return False
    with open(name, encoding="ascii") as f:
        return any(int(n) for n in f.read().split())


def test_a_server_that_is_killed_while_its_device_comes_up_ends(r):
    """The last test: Linux 6.12 never ends such a start, so that device stays here."""
    server, data, driver = serve_of_disk(r), rig.blocks("table", 256), Driver()
    device.write_direct(server.path, 0, data)
    mark = driver.mark(number_of(server.path))
    server.stop()
    # The server has its store open and waits until the unfinished device can be deleted.
    number = driver.make(mark)
    held = os.open(f"/dev/ublkc{number}", os.O_RDWR)
    starting = r.spawn("sameblkd", "--ublk", "--direct", "-c", r.path("starting.ctl"), server.store)
    try:
        rig.wait_until(lambda: not os.path.exists(f"/dev/ublkc{number}"), "it is being deleted")
        rig.run("dmsetup", "suspend", "--noflush", "slow")
    finally:
        os.close(held)
    path = f"/dev/ublkb{number}"
    try:
        rig.wait_until(lambda: has_requests(path), "its partition table is read")
        starting.kill()
        time.sleep(0.5)
    finally:
        rig.run("dmsetup", "resume", "slow")
    device.ended(starting)
    rig.offline_check(server.store)
    driver.close()
    if not device.has_zero_copy():
        return
    wait_for_state(path, "waiting")
    server.start()
    expect(device.read_direct(server.path, 0, MIB) == data, "what was written last is there")
    server.stop()
    device.expect_nothing_left()


if __name__ == "__main__":
    rig.main(globals())
