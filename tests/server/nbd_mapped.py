#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd_mapped - reads that are sent straight from the mapped store

    tests/server/nbd_mapped.py [TEST...]

A rig like those in tests/rigs, which see.
"""

import os
import random
import struct
import sys

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "rigs"))

import nbd_raw as n  # noqa: E402
import rig as r  # noqa: E402
from rig import MIB, expect, expect_equal  # noqa: E402

SIZE = 64 * MIB
BLOCK = 4096
EIO = 5


def serve(rig, *options):
    return rig.server(rig.create("--size", SIZE), *options)


def fill(raw, seed, order=None):
    """The whole volume, a MiB at a time or block by block in that order."""
    image = bytearray(random.Random(seed).randbytes(SIZE))
    if order is None:
        for off in range(0, SIZE, MIB):
            expect_equal(raw.write(off, bytes(image[off:off + MIB])), 0, "a write")
        return image
    for at in range(0, len(order), 64):
        batch = order[at:at + 64]
        for block in batch:
            raw.request(n.WRITE, block * BLOCK, BLOCK, 0,
                        bytes(image[block * BLOCK:(block + 1) * BLOCK]))
        for _ in batch:
            expect_equal(raw.reply()[1], 0, "a write")
    return image


def answers(raw, cookies):
    """(cookie, error, bytes) of each request: a dict from its cookie to its length. Chunks of
    different answers may come mixed."""
    data, errors = {cookie: [] for cookie in cookies}, {}
    while data:
        magic, = struct.unpack(">I", raw.receive(4))
        if magic == n.SIMPLE_MAGIC:
            error, cookie = struct.unpack(">IQ", raw.receive(12))
            if not error:
                data[cookie].append((0, raw.receive(cookies[cookie])))
            errors[cookie], done = error, True
        else:
            flags, kind, cookie, payload = raw.chunk(magic)
            done = flags & 1
            if kind == n.CHUNK_DATA:
                data[cookie].append((struct.unpack(">Q", payload[:8])[0], payload[8:]))
            elif kind == n.CHUNK_ERROR:
                errors[cookie] = struct.unpack(">I", payload[:4])[0]
        if done:
            chunks = b"".join(part for _, part in sorted(data.pop(cookie)))
            error = errors.pop(cookie, 0)
            expect(error or len(chunks) == cookies[cookie], f"{len(chunks)} bytes came")
            yield cookie, error, chunks


def read_many(raw, image, wanted):
    """Sends all requests, then takes the answers, whatever their order."""
    asked = {raw.request(n.READ, off, length): (off, length) for off, length in wanted}
    take(raw, image, asked)


def take(raw, image, asked):
    for cookie, error, data in answers(raw, {c: length for c, (_, length) in asked.items()}):
        off, length = asked[cookie]
        expect_equal(error, 0, "a read")
        expect(data == image[off:off + length], f"{length} bytes at {off}")


def test_every_size_and_alignment(rig):
    server = serve(rig)
    raw = n.Raw(server.nbd).go()
    image = fill(raw, 1)
    chance = random.Random(2)
    for off in range(0, SIZE, 4 * MIB):  # holes between
        expect_equal(raw.call(n.TRIM, off, MIB + 8192)[0], 0, "a trim")
        image[off:off + MIB + 8192] = bytes(MIB + 8192)
    for structured in (True, False):
        raw = n.Raw(server.nbd).go(structured=structured)
        for _ in range(150):
            off = chance.randrange(SIZE - 3 * MIB)
            length = chance.choice((1, 511, BLOCK, 5000, 65536, MIB, MIB + 1, 3 * MIB))
            read_many(raw, image, [(off, length)])
    server.stop()


def test_shared_blocks(rig):
    server = serve(rig)
    raw = n.Raw(server.nbd).go()
    image = fill(raw, 1)
    server.cli("clone", 0, 8 * MIB, 32 * MIB)
    image[32 * MIB:40 * MIB] = image[0:8 * MIB]
    read_many(raw, image, [(off, 65536) for off in range(32 * MIB, 40 * MIB, 65536)])
    expect_equal(raw.write(33 * MIB, b"x" * 5000), 0, "a write")
    image[33 * MIB:33 * MIB + 5000] = b"x" * 5000
    read_many(raw, image, [(0, 4 * MIB), (32 * MIB, 4 * MIB)])
    server.stop()


def test_slow_reader_does_not_hold_blocks(rig):
    """A client that takes no answers: blocks given up meanwhile come back, and what it reads at
    last is what is there then, or was."""
    server = serve(rig)
    raw = n.Raw(server.nbd).go()
    image = fill(raw, 1)
    slow = n.Raw(server.nbd).go()
    asked = {slow.request(n.READ, off, MIB): off for off in range(0, 60 * MIB, MIB)}
    expect_equal(raw.call(n.TRIM, 0, 32 * MIB)[0], 0, "a trim")
    expect_equal(raw.call(n.FLUSH)[0], 0, "a flush")
    # A checkpoint gives back what is left, the places of leaves.
    r.wait_until(lambda: server.stats()["pending_bytes"] < MIB, "nothing is held")
    for cookie, error, got in answers(slow, dict.fromkeys(asked, MIB)):
        expect_equal(error, 0, "a read")
        off = asked[cookie]
        then = bytes(image[off:off + MIB])
        if off >= 32 * MIB:
            expect(got == then, f"at {off}")
        for at in range(0, MIB, BLOCK):
            block = got[at:at + BLOCK]
            expect(block in (then[at:at + BLOCK], bytes(BLOCK)), f"at {off + at}")
    server.stop()


def test_leaves_that_go_while_answers_wait(rig):
    """The socket is full, and the metadata cache is too small for all: what was looked up when the
    request came cannot be looked up when it is sent."""
    store = rig.create("--size", "4G")
    server = rig.server(store, "--metadata-cache", MIB)
    raw = n.Raw(server.nbd).go()
    order = list(range(0, SIZE // BLOCK, 1))
    random.Random(3).shuffle(order)
    image = fill(raw, 3, order)
    expect_equal(raw.call(n.FLUSH)[0], 0, "a flush")
    for off in range(SIZE, SIZE + 1200 * 2 * MIB, 2 * MIB):
        expect_equal(raw.write(off + BLOCK, b"a leaf"), 0, "a write")
    slow = n.Raw(server.nbd).go()
    read_many(slow, image, [(off, MIB) for off in range(0, SIZE, MIB)])
    asked = {slow.request(n.READ, off, MIB): (off, MIB) for off in range(0, SIZE, MIB)}
    for off in range(SIZE, SIZE + 1200 * 2 * MIB, 2 * MIB):
        expect_equal(raw.read(off + BLOCK, 6), b"a leaf", "another leaf")
    take(slow, image, asked)
    server.stop()


def test_store_that_was_cut(rig):
    """A page that cannot be had is EIO of that request; the server and the connection live."""
    server = serve(rig)
    for structured in (True, False):
        raw = n.Raw(server.nbd).go(structured=structured)
        image = fill(raw, 1)
        read_many(raw, image, [(0, MIB), (32 * MIB, MIB)])
        size = os.path.getsize(server.store)
        expect_equal(raw.call(n.FLUSH)[0], 0, "a flush")
        os.truncate(server.store, size - 40 * MIB)
        expect_equal(raw.call(n.READ, 60 * MIB, 8192)[0], EIO, "a read of what is gone")
        read_many(raw, image, [(0, MIB)])
        asked = {raw.request(n.READ, off, 65536): off for off in (0, 60 * MIB, MIB)}
        for cookie, error, data in answers(raw, dict.fromkeys(asked, 65536)):
            off = asked[cookie]
            expect_equal(error, EIO if off == 60 * MIB else 0, f"the read at {off}")
            expect(error or data == image[off:off + 65536], f"65536 bytes at {off}")
        os.truncate(server.store, size)
        raw.close()
    server.stop()


def test_aligned_requests_are_not_copied(rig):
    """The counter of bytes that the server copies by itself stays 0, whatever the sizes."""
    for options in ((), ("--direct",)):
        store = rig.create("--size", SIZE, name=f"store{len(options)}")
        server = rig.server(store, *options, name=f"server{len(options)}")
        raw = n.Raw(server.nbd).go()
        image = fill(raw, 1)
        chance = random.Random(4)
        fill(raw, 1, chance.sample(range(SIZE // BLOCK), 1000))
        for length in (BLOCK, 3 * BLOCK, 65536, MIB, 5 * MIB):
            off = chance.randrange((SIZE - length) // BLOCK) * BLOCK
            expect_equal(raw.write(off, bytes(image[off:off + length])), 0, "a write")
            read_many(raw, image, [(off, length)] * 3)
        expect_equal(raw.call(n.FLUSH)[0], 0, "a flush")
        expect_equal(server.stats()["copied_bytes"], 0, f"copied bytes {options}")
        expect_equal(raw.write(4097, b"not aligned"), 0, "a write")
        expect(server.stats()["copied_bytes"] > 0, "it counts")
        server.stop()


if __name__ == "__main__":
    r.main(globals())
