#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ublk_held - whoever has the device keeps it, however little shows of that; run by tests/vm/run.py

A device is refused to be removed while anything has it open, and the refusal says who. On Linux
6.12 the driver does not tell whether a device is open, so all of it is found out from outside.
"""

import os
import signal
import subprocess

import rig
from rig import MIB, expect

import device

# Takes hold of a device in one of several ways, says so, and waits to be killed.
HOLD = """
import array, ctypes, mmap, os, socket, struct, sys, threading, time
how, path = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
kept = []

def held():
    os.write(1, b"held\\n")
    time.sleep(600)

def of_a_thread():
    assert libc.unshare(0x400) == 0  # CLONE_FILES
    kept.append(os.open(path, os.O_RDONLY))
    held()

def mapped():
    fd = os.open(path, os.O_RDONLY)
    kept.append(mmap.mmap(fd, 4096, prot=mmap.PROT_READ))
    kept[0][0]
    os.close(fd)
    # Python's own copy of the descriptor.
    for other in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + other) == path:
                os.close(int(other))
        except OSError:
            pass
    held()

def registered():
    ring = libc.syscall(425, 1, ctypes.create_string_buffer(120))  # io_uring_setup
    fd = os.open(path, os.O_RDONLY)
    files = (ctypes.c_int * 1)(fd)
    assert libc.syscall(427, ring, 2, files, 1) == 0  # io_uring_register, files
    os.close(fd)
    held()

def in_flight():
    kept.extend(socket.socketpair())
    fd = os.open(path, os.O_RDONLY)
    socket.send_fds(kept[0], [b"x"], [fd])
    os.close(fd)
    held()

def first_thread_gone():
    kept.append(os.open(path, os.O_RDONLY))
    threading.Thread(target=held).start()
    libc.syscall(60, 0)  # exit, of this thread alone

if how == "of_a_thread":
    threading.Thread(target=of_a_thread).start()
else:
    globals()[how]()
"""
HOWS = {"of_a_thread": "has it open", "first_thread_gone": "has it open", "mapped": "has it mapped",
        "registered": "in an io_uring", "in_flight": "whom nothing shows"}
# Mounts in a namespace of its own, where nobody else sees it.
MOUNT_APART = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # recursively private
assert libc.mount(sys.argv[1].encode(), sys.argv[2].encode(), b"ext4", 0, None) == 0
os.write(1, b"held\\n")
time.sleep(600)
"""


def hold(r, script, *args):
    holder = r.spawn("python3", "-c", script, *args, stdout=subprocess.PIPE)
    line = holder.stdout.readline()
    rig.expect_equal(line, b"held\n", f"what the holder says ({args[0]})")
    return holder


def let_go(holder):
    os.kill(holder.pid, signal.SIGKILL)
    device.ended(holder)


def expect_refused(path, *words):
    done = rig.sameblk("detach", path, ok=(2,))
    for word in words:
        expect(word in done.stderr, f"{word!r} is in the refusal: {done.stderr}")


def test_a_filesystem_on_a_loop_device_of_it_keeps_it(r):
    server = device.serve(r, device.create(r))
    loop = rig.run("losetup", "-f", "--show", server.path).stdout.strip()
    r.later("losetup", "-d", loop)
    rig.run("mkfs.ext4", "-q", loop)
    folder = device.mount(r, loop)
    device.write_twice(folder, MIB)
    expect_refused(server.path, "loop device", os.path.basename(loop))
    server.stop()
    expect("loop device" in server.log(), f"why it stays: {server.log()}")
    server.start()
    device.write_twice(folder, MIB)
    device.expect_equal_files(folder, MIB)
    rig.run("umount", folder)
    rig.run("losetup", "-d", loop)
    server.stop()
    device.expect_nothing_left()
    rig.offline_check(server.store)
    device.expect_no_io_error()


def test_whoever_has_it_open_keeps_it_however_little_shows_of_that(r):
    server = device.serve(r, device.create(r))
    for how, words in HOWS.items():
        holder = hold(r, HOLD, how, server.path)
        expect_refused(server.path, words)
        let_go(holder)
    server.stop()
    device.expect_nothing_left()


def test_what_holds_it_is_named(r):
    server = device.serve(r, device.create(r))
    sectors = device.size_bytes(server.path) // 512
    rig.run("dmsetup", "create", "upon", "--table", f"0 {sectors} linear {server.path} 0")
    expect_refused(server.path, "device-mapper device upon")
    rig.run("dmsetup", "remove", "upon")
    rig.run("mkfs.ext4", "-q", server.path)
    os.makedirs(r.path("apart"))
    holder = hold(r, MOUNT_APART, server.path, r.path("apart"))
    expect_refused(server.path, "mounted on", f"process {holder.pid}")
    let_go(holder)
    rig.run("/bin/mkswap", server.path)
    rig.run("/bin/swapon", server.path)
    expect_refused(server.path, "swap")
    rig.run("/bin/swapoff", server.path)
    server.stop()
    device.expect_nothing_left()


def test_other_devices_that_are_used_are_in_nobodys_way(r):
    """What the driver's module counts is of all devices together."""
    used, other = [device.serve(r, device.create(r, name, 64), name=name)
                   for name in ("used", "other")]
    loop = rig.run("losetup", "-f", "--show", used.path).stdout.strip()
    r.later("losetup", "-d", loop)
    rig.run("mkfs.ext4", "-q", used.path)
    folder = device.mount(r, used.path)
    with open(used.path, "rb", buffering=0):
        rig.sameblk("detach", other.path)
    rig.run("umount", folder)
    rig.run("losetup", "-d", loop)
    used.stop()
    device.expect_nothing_left()


if __name__ == "__main__":
    rig.main(globals())
