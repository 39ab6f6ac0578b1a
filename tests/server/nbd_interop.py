#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd_interop - the clients that people have: libnbd's tools, QEMU's, nbdkit, fio, nbdfuse

    tests/server/nbd_interop.py [--long] [TEST...]

A rig like those in tests/rigs, which see. Images are 128 MiB, with --long 4 GiB.
"""

import filecmp
import json
import os
import random
import shutil
import subprocess
import sys

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "rigs"))

import rig as r  # noqa: E402
from rig import MIB, expect, expect_equal  # noqa: E402

SIZE, SIZE_LONG = 128 * MIB, 4096 * MIB


def needs(*programs):
    for program in programs:
        if shutil.which(program) is None:
            raise r.Skip(f"no {program}")


def make_image(rig, name, size, holes):
    """Random data; with holes every other 4 MiB is left out."""
    path = rig.path(name)
    chance = random.Random(size)
    with open(path, "wb") as f:
        f.truncate(size)
        for off in range(0, size, 4 * MIB):
            if not holes or off // (4 * MIB) % 2 == 0:
                f.seek(off)
                f.write(chance.randbytes(4 * MIB))
    return path


def run(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False,
                          timeout=900)
    expect_equal(done.returncode, 0, f"{args[0]}: {done.stdout[-500:]} {done.stderr[-500:]}")
    return done.stdout


def serve(rig, size):
    return rig.server(rig.create("--size", size), "-w", 2)


def copy_in_and_out(rig, holes):
    needs("nbdcopy")
    size = SIZE_LONG if rig.long else SIZE
    image, back = make_image(rig, "image", size, holes), rig.path("back")
    server = serve(rig, size)
    run("nbdcopy", "--flush", image, server.uri)
    stats = server.stats()
    expect_equal(stats["mapped_bytes"], size // 2 if holes else size, "mapped bytes")
    run("nbdcopy", server.uri, back)
    expect(filecmp.cmp(image, back, shallow=False), "what came back differs")
    if holes:
        expect(os.stat(back).st_blocks * 512 < size * 6 // 10, "the holes came back as data")
        extents = json.loads(run("nbdinfo", "--json", "--map", server.uri))
        found = {(e["offset"], e["length"], e["type"]) for e in extents}
        wanted = {(off, 4 * MIB, 0 if off // (4 * MIB) % 2 == 0 else 3)
                  for off in range(0, size, 4 * MIB)}
        expect_equal(found, wanted, "the map")
    server.stop()
    r.offline_check(server.store)


def test_nbdcopy(rig):
    copy_in_and_out(rig, False)


def test_nbdcopy_with_holes(rig):
    copy_in_and_out(rig, True)


def test_qemu_img(rig):
    needs("qemu-img", "qemu-io")
    image, back = make_image(rig, "image", SIZE, True), rig.path("back")
    server = serve(rig, SIZE)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, server.uri)
    out = run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, server.uri)
    expect("identical" in out, out)
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri, back)
    expect(filecmp.cmp(image, back, shallow=False), "what came back differs")
    run("qemu-io", "-f", "raw", "-c", "write -P 7 1000 70000", "-c", "flush", "-c",
        "read -P 7 1000 70000", "-c", "discard 4M 4M", "-c", "write -z 20M 1M", "-c",
        "read -P 0 20M 1M", server.uri)
    server.stop()
    r.offline_check(server.store)


def test_nbdkit_as_a_client(rig):
    needs("nbdkit", "nbdcopy")
    image, back = make_image(rig, "image", SIZE, True), rig.path("back")
    server = serve(rig, SIZE)
    run("nbdcopy", "--flush", image, server.uri)
    run("nbdkit", "-U", "-", "nbd", f"uri={server.uri}", "--run", f'nbdcopy "$uri" {back}')
    expect(filecmp.cmp(image, back, shallow=False), "what came back differs")
    run("nbdkit", "-U", "-", "nbd", f"socket={server.nbd}", "shared=true", "--run",
        'nbdinfo --size "$uri"')
    server.stop()


def test_fio_verifies(rig):
    needs("fio")
    server = serve(rig, SIZE)
    # Of two overlapping writes in flight a disk may keep either one, but fio checks for the later.
    run("fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randwrite",
        "--bsrange=4k-256k", "--bs_unaligned", "--blockalign=512", "--iodepth=16", "--size=32M",
        "--serialize_overlap=1", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0")
    server.stop()
    r.offline_check(server.store)


def test_nbdfuse(rig):
    needs("nbdfuse")
    if not os.access("/dev/fuse", os.W_OK):
        raise r.Skip("no /dev/fuse")
    server = serve(rig, SIZE)
    point = rig.path("disk")
    with open(point, "wb"):
        pass
    rig.later("fusermount3", "-u", point)
    rig.spawn("nbdfuse", point, server.uri)
    r.wait_until(lambda: os.path.getsize(point) == SIZE, "nbdfuse is ready")
    data = random.Random(1).randbytes(3 * MIB)
    with open(point, "r+b", buffering=0) as f:
        f.seek(5 * MIB + 1000)
        f.write(data)
        os.fsync(f.fileno())
        f.seek(5 * MIB + 1000)
        got = b"".join(iter(lambda: f.read(MIB), b""))[:len(data)]
    expect(got == data, "what was read back differs")
    run("fusermount3", "-u", point)
    server.stop()
    r.offline_check(server.store)


if __name__ == "__main__":
    r.main(globals())
