#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd_extensions - what goes beyond the old requests, and sizes that nobody is fond of

    tests/server/nbd_extensions.py [TEST...]

A rig like those in tests/rigs, which see: fast zeroes, the context of shared blocks, extended
headers with 64-bit lengths, payloads of odd and of largest size. docs/nbd.md is what is tested.
"""

import os
import random
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "rigs"))

import nbd_raw as n  # noqa: E402
import rig as r  # noqa: E402
from rig import BLOCK, GIB, MIB, blocks, expect, expect_equal  # noqa: E402

SIZE = 160 * MIB
TIB = 1 << 40
HOLE, DATA, SHARED = 1, 0, 2  # in sameblk:shared
PAYLOAD_MAX = 64 * MIB
SLICE = 128 << 10  # NBD_RX_SLICE_BYTES
KINDS = ({"structured": False}, {}, {"extended": True})


def serve(rig, *options, size=SIZE):
    return rig.server(rig.create("--size", size), *options)


def connect(server, **kind):
    return n.Raw(server.nbd).go(**kind)


def finish(server):
    server.stop()
    r.offline_check(server.store)


# Fast zeroes


def test_fast_zero(rig):
    """FAST_ZERO works where blocks become holes, and is refused at once, with nothing changed,
    where zeros would have to be written."""
    server = serve(rig)
    for kind in KINDS:
        raw = connect(server, **kind)
        expect(raw.flags & 1 << 11, "the fast-zero flag")
        image = bytearray(blocks(1, 16))
        expect_equal(raw.write(0, bytes(image)), 0, "a write")
        for off, length, flags in ((0, BLOCK, n.NO_HOLE), (0, 16 * BLOCK, n.NO_HOLE), (0, 1, 0),
                                   (1, BLOCK - 1, 0), (1, 2 * BLOCK - 2, 0), (BLOCK + 1, BLOCK, 0)):
            error, _ = raw.call(n.WRITE_ZEROES, off, length, flags | n.FAST_ZERO)
            expect_equal(error, n.ENOTSUP, f"{off}+{length} flags {flags}")
            expect(raw.read(0, len(image)) == image, f"{off}+{length}: changed, though refused")
        for off, length, flags in ((0, BLOCK, 0), (2 * BLOCK - 1, BLOCK + 2, n.FUA),
                                   (5 * BLOCK + 7, 4 * BLOCK, 0), (100, 0, 0)):
            error, _ = raw.call(n.WRITE_ZEROES, off, length, flags | n.FAST_ZERO)
            expect_equal(error, 0, f"{off}+{length} flags {flags}")
            image[off:off + length] = bytes(length)
            expect(raw.read(0, len(image)) == image, f"{off}+{length}: content")
        expect_equal(raw.call(n.WRITE_ZEROES, SIZE - BLOCK, 2 * BLOCK, n.FAST_ZERO | n.NO_HOLE)[0],
                     n.ENOSPC, "past the end")
        expect_equal(raw.call(n.TRIM, 0, BLOCK, n.FAST_ZERO)[0], n.EINVAL, "TRIM with FAST_ZERO")
        raw.close()
    finish(server)


# The context sameblk:shared


def by_block(extents):
    """The flags of each block of a range that begins at a block."""
    flags = []
    for length, flag in extents:
        expect_equal(length % BLOCK, 0, "an extent's length")
        flags += [flag] * (length // BLOCK)
    return flags


def mapped(server, off, length):
    """The same, from `sameblk map`."""
    flags = []
    for run in server.json("map", off, length)["runs"]:
        hole = run["kind"] == "hole"
        flag = HOLE if hole else SHARED if run["references"] > 1 else DATA
        flags += [flag] * (run["length"] // BLOCK)
    return flags


def make_shared(server, raw):
    """Holes, private and shared blocks in the first 4 MiB."""
    for off in (0, MIB, 2 * MIB):
        expect_equal(raw.write(off, blocks("same", 64)), 0, "a write")
    expect_equal(raw.write(3 * MIB, blocks("private", 64)), 0, "a write")
    expect_equal(raw.write(MIB + 10 * BLOCK, b"differs"), 0, "a write")
    expect_equal(raw.call(n.FLUSH)[0], 0, "a flush")
    server.cli("same", 0, 64 * BLOCK, 2 * MIB)
    server.cli("clone", 3 * MIB, 8 * BLOCK, 3 * MIB + 512 * 1024)
    expect_equal(raw.write(2 * MIB + 5 * BLOCK, blocks("again", 1)), 0, "an overwrite")


def test_shared_context(rig):
    """Hole, private or shared: as `sameblk map` has it, at every alignment, in both kinds of
    reply."""
    server = serve(rig)
    make_shared(server, connect(server))
    for kind in ({}, {"extended": True}):
        raw = connect(server, contexts=[n.SHARED], **kind)
        error, extents = raw.call(n.BLOCK_STATUS, 0, 4 * MIB)
        expect_equal(error, 0, "block status")
        flags = by_block(extents)
        expect_equal(len(flags), 1024, "blocks")
        expect_equal(flags, mapped(server, 0, 4 * MIB), "the same as map")
        expect_equal((flags[0], flags[5], flags[64], flags[256], flags[512 + 5], flags[768],
                      flags[896], flags[776]),
                     (SHARED, DATA, HOLE, DATA, DATA, SHARED, SHARED, DATA), "some blocks")
        for off, length in ((1, 3), (5 * BLOCK - 1, 2), (100, MIB), (MIB - 1, 2 * MIB + 5)):
            at = off
            for size, flag in raw.call(n.BLOCK_STATUS, off, length)[1]:
                for probe in (at, at + size - 1):
                    expect_equal(flag, flags[probe // BLOCK], f"{off}+{length} at {probe}")
                at += size
            expect_equal(at, off + length, f"the end of {off}+{length}")
        raw.close()
    finish(server)


def test_contexts_side_by_side(rig):
    """Each context that was agreed upon has its own chunk, cut where that one changes."""
    server = serve(rig)
    make_shared(server, connect(server))
    for kind in ({}, {"extended": True}):
        raw = connect(server, contexts=[n.SHARED, n.ALLOCATION], **kind)
        error, both = raw.call(n.BLOCK_STATUS, 0, 4 * MIB)
        expect_equal(error, 0, "block status")
        shared, allocation = by_block(both[n.SHARED]), by_block(both[n.ALLOCATION])
        expect_equal(shared, mapped(server, 0, 4 * MIB), "shared")
        expect_equal(allocation, [3 if flag == HOLE else 0 for flag in shared], "allocation")
        expect(len(both[n.ALLOCATION]) < len(both[n.SHARED]), "extents of one kind are not joined")
        error, one = raw.call(n.BLOCK_STATUS, 0, 4 * MIB, n.REQ_ONE)
        for name, extents in both.items():
            expect_equal(one[name], extents[:1], f"{name} with REQ_ONE")
        raw.close()
    finish(server)


def test_status_of_fragments(rig):
    """More runs than there is room for: the answer ends early, and asking on gets to the end."""
    server = serve(rig)
    raw = connect(server)
    for i in range(0, 512, 2):
        raw.request(n.WRITE, i * BLOCK, BLOCK, 0, blocks(i))
        raw.reply()
    for kind in ({}, {"extended": True}):
        raw = connect(server, contexts=[n.SHARED, n.ALLOCATION], **kind)
        at, asked, flags = 0, 0, []
        while at < 2 * MIB:
            error, both = raw.call(n.BLOCK_STATUS, at, 2 * MIB - at)
            expect_equal(error, 0, "block status")
            lengths = [sum(length for length, _ in both[name]) for name in both]
            expect(min(lengths) > 0 and max(lengths) <= 2 * MIB - at, f"{lengths} bytes at {at}")
            expect_equal(lengths[0], lengths[1], "what the two contexts cover")
            flags += by_block(both[n.ALLOCATION])
            at, asked = at + lengths[0], asked + 1
        expect_equal(flags, [0, 3] * 256, "blocks")
        expect(asked > 1, "this test no longer fills an answer")
        raw.close()
    finish(server)


# Extended headers


def test_extended_options(rig):
    """When they may be asked for, and what follows from them."""
    server = serve(rig, "-e", "disk")
    raw = n.Raw(server.nbd).greet()
    expect_equal(raw.option_replies(n.EXTENDED, b"x")[0][0], n.INVALID, "with data")
    expect_equal(raw.option_replies(n.STRUCTURED)[0][0], n.ACK, "structured replies first")
    expect_equal(raw.option_replies(n.EXTENDED)[0][0], n.ACK, "extended headers")
    expect_equal(raw.option_replies(n.EXTENDED)[0][0], n.INVALID, "twice")
    expect_equal(raw.option_replies(n.STRUCTURED)[0][0], n.EXT_HEADER_REQD, "structured after it")
    raw.set_contexts(b"disk", n.SHARED)
    expect_equal(list(raw.contexts.values()), [n.SHARED], "contexts without structured replies")
    raw.extended = raw.structured = True
    raw.enter(b"disk")
    expect(raw.flags & 1 << 7, "the don't-fragment flag")
    expect_equal(raw.call(n.BLOCK_STATUS, 0, SIZE)[1], [(SIZE, HOLE)], "block status")
    raw.close()
    raw = n.Raw(server.nbd).greet()
    expect_equal(raw.option_replies(n.EXTENDED)[0][0], n.ACK, "extended headers alone")
    raw.option(n.EXPORT_NAME, b"disk")
    expect(raw.is_gone(), "EXPORT_NAME with extended headers did not end the connection")
    finish(server)


def test_extended_requests(rig):
    """Every command, with replies that are all extended (nbd_raw insists)."""
    server = serve(rig)
    raw = connect(server, extended=True, contexts=[n.ALLOCATION])
    data = random.Random(1).randbytes(5 * MIB + 3)
    expect_equal(raw.write(4095, data, n.FUA), 0, "a write")
    expect(raw.read(4095, len(data)) == data, "a read")
    expect(raw.read(5000, 70000, n.DF) == data[905:70905], "a read in one chunk")
    expect_equal(raw.call(n.FLUSH)[0], 0, "a flush")
    expect_equal(raw.call(n.WRITE_ZEROES, 10000, 20000)[0], 0, "zeroes")
    expect_equal(raw.call(n.TRIM, 2 * MIB, MIB)[0], 0, "trim")
    expect_equal(raw.call(n.CACHE, 0, SIZE)[0], 0, "cache")
    expect_equal(raw.read(9999, 20002), data[5904:5905] + bytes(20000) + data[25905:25906],
                 "zeroes read back")
    error, extents = raw.call(n.BLOCK_STATUS, 0, 4 * MIB)
    expect_equal(extents[-3:], [(2 * MIB - 28672, 0), (MIB, 3), (MIB, 0)], "block status")
    raw.request(n.DISC)
    expect(raw.is_gone(), "DISC did not end the connection")
    finish(server)


def test_extended_bad_requests(rig):
    """Refused ones, with and without a payload that nobody asked for; what follows is served."""
    server = serve(rig)
    raw = connect(server, extended=True)
    junk = b"\x21\xe4\x1c\x71" * 20000
    for command, off, length, flags, payload, error in (
            (n.READ, 0, len(junk), n.PAYLOAD_LEN, junk, n.EINVAL),
            (n.TRIM, 0, len(junk), n.PAYLOAD_LEN, junk, n.EINVAL),
            (n.FLUSH, 0, len(junk), n.PAYLOAD_LEN, junk, n.EINVAL),
            (n.BLOCK_STATUS, 0, len(junk), n.PAYLOAD_LEN, junk, n.EINVAL),
            (99, 0, len(junk), n.PAYLOAD_LEN, junk, n.EINVAL),
            (99, 0, 2 ** 64 - 1, 0, b"", n.EINVAL),
            (n.WRITE, SIZE - 1, len(junk), 0, junk, n.ENOSPC),
            (n.READ, 0, 2 ** 32 + 1, 0, b"", n.EINVAL),
            (n.READ, 2 ** 64 - 1, 2 ** 64 - 1, 0, b"", n.EINVAL),
            (n.TRIM, 1, 2 ** 64 - 1, 0, b"", n.EINVAL),
            (n.TRIM, 0, 2 ** 32 + SIZE, 0, b"", n.EINVAL),
            (n.WRITE_ZEROES, BLOCK, 2 ** 64 - BLOCK, 0, b"", n.ENOSPC),
            (n.WRITE_ZEROES, 0, 2 ** 32 + SIZE, n.FAST_ZERO, b"", n.ENOSPC),
            (n.CACHE, SIZE, 2 ** 63, 0, b"", n.EINVAL)):
        expect_equal(raw.call(command, off, length, flags, payload)[0], error,
                     f"command {command} {off}+{length} flags {flags}")
        expect_equal(raw.write(4096, b"good"), 0, "a write behind it")
        expect_equal(raw.read(4096, 4), b"good", "a read behind it")
    # A write that announces no payload has none.
    raw.cookie += 1
    raw.send(raw.header(n.WRITE, 0, 4096, 0))
    expect_equal(raw.reply()[:2], (raw.cookie, n.EINVAL), "a write without its flag")
    expect_equal(raw.read(4096, 4), b"good", "a read behind it")
    raw.cookie += 1
    raw.send(raw.header(n.WRITE, 0, PAYLOAD_MAX + 1, n.PAYLOAD_LEN))
    expect(raw.is_gone(), "a payload beyond all limits did not end the connection")
    for kind, magic in (({"extended": True}, n.REQUEST_MAGIC), ({}, n.EXTENDED_REQUEST_MAGIC)):
        raw = connect(server, **kind)
        raw.request(n.READ, 0, 1, magic=magic)
        expect(raw.is_gone(), "the other kind of request did not end the connection")
    raw = connect(server)
    expect_equal(raw.call(n.READ, 0, 1, n.PAYLOAD_LEN)[0], n.EINVAL, "the flag without the headers")
    raw.close()
    finish(server)


def test_beyond_4_gib(rig):
    """What has no payload takes any length: zeroes, trim, cache, block status of 8 TiB."""
    server = serve(rig, size=8 * TIB)
    raw = connect(server, extended=True, contexts=[n.ALLOCATION, n.SHARED])
    marks = (0, 2 ** 32 - BLOCK, 2 ** 32, 5 * 2 ** 40 + 12288, 8 * TIB - BLOCK)
    for off in marks:
        expect_equal(raw.write(off, blocks(off)), 0, "a write")
    at, data = 0, []
    while at < 8 * TIB:
        error, both = raw.call(n.BLOCK_STATUS, at, 8 * TIB - at)
        expect_equal(error, 0, "block status")
        for size, flags in both[n.ALLOCATION]:
            data += [(at, size)] if flags == 0 else []
            at += size
    expect_equal(at, 8 * TIB, "the end of the extents")
    expect_equal(data, [(0, BLOCK), (2 ** 32 - BLOCK, 2 * BLOCK), (5 * 2 ** 40 + 12288, BLOCK),
                        (8 * TIB - BLOCK, BLOCK)], "data")
    expect_equal(raw.call(n.CACHE, 0, 8 * TIB)[0], 0, "cache")
    expect_equal(raw.call(n.TRIM, 2 ** 32 - 10, 2 ** 32 + 20)[0], 0, "trim")
    for off in marks:
        wanted = bytes(BLOCK) if off == 2 ** 32 else blocks(off)
        expect(raw.read(off, BLOCK) == wanted, f"after trim, at {off}")
    error, _ = raw.call(n.WRITE_ZEROES, BLOCK, 8 * TIB - 2 * BLOCK, n.FAST_ZERO)
    expect_equal(error, 0, "zeroes")
    for off in marks:
        wanted = blocks(off) if off in (0, 8 * TIB - BLOCK) else bytes(BLOCK)
        expect(raw.read(off, BLOCK) == wanted, f"after zeroes, at {off}")
    expect_equal(raw.call(n.BLOCK_STATUS, 0, 8 * TIB)[1][n.SHARED],
                 [(BLOCK, DATA), (8 * TIB - 2 * BLOCK, HOLE), (BLOCK, DATA)], "what is left")
    server.stop()


def test_status_at_the_edge_of_32_bits(rig):
    """Extents up to 2^32 - 1 bytes long, from any first byte, add up to what was asked."""
    server = serve(rig, size=12 * GIB)
    for kind in ({}, {"extended": True}):
        raw = connect(server, contexts=[n.ALLOCATION], **kind)
        for off in (0, 1, BLOCK - 1, BLOCK, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 7 * GIB + 5):
            for length in (2 ** 32 - 1, 2 ** 32 - BLOCK, 2 ** 32 - BLOCK - 1):
                error, extents = raw.call(n.BLOCK_STATUS, off, length)
                expect_equal((error, extents), (0, [(length, 3)]), f"{off}+{length}")
        raw.close()
    finish(server)


# Sizes


def odd_sizes(rng):
    edges = (1, 511, 512, BLOCK, SLICE, 2 * SLICE, MIB, 3 * MIB)
    return max(1, rng.choice(edges) + rng.choice((-BLOCK - 1, -513, -1, 0, 1, 7, BLOCK + 3)))


def test_odd_sizes(rig):
    """Writes of every size around a slice, a piece and a block, from any byte, many in flight: the
    volume is what a plain array of bytes would be."""
    server = serve(rig)
    for seed, kind in enumerate(KINDS):
        rng = random.Random(seed)
        raw = connect(server, **kind)
        image = bytearray(24 * MIB)
        expect_equal(raw.call(n.WRITE_ZEROES, 0, len(image))[0], 0, "zeroes")
        for _ in range(25):
            at, asked = 0, 0
            # Neighbours that share blocks, and so meet in the engine.
            while asked < 8:
                data = rng.randbytes(odd_sizes(rng))
                at += rng.choice((0, 1, 100, SLICE - 1))
                if at + len(data) > len(image):
                    break
                raw.request(n.WRITE, at, len(data), rng.choice((0, 0, n.FUA)), data)
                image[at:at + len(data)] = data
                at, asked = at + len(data), asked + 1
            for _ in range(asked):
                expect_equal(raw.reply()[1], 0, "a write")
            off, length = rng.randrange(len(image)), odd_sizes(rng)
            length = min(length, len(image) - off)
            expect(raw.read(off, length) == image[off:off + length], f"read {off}+{length}")
        expect(raw.read(0, len(image)) == image, f"the image, seed {seed}")
        raw.close()
    finish(server)


def test_payloads_of_64_mib(rig):
    """The largest payload works from any byte, both ways; one byte more is refused, and a refused
    one of that size is passed over."""
    server = serve(rig)
    data = random.Random(5).randbytes(PAYLOAD_MAX)
    for kind, off in zip(KINDS, (0, 1, SLICE + 4095)):
        raw = connect(server, **kind)
        expect_equal(raw.write(off, data), 0, f"a write at {off}")
        expect(raw.read(off, PAYLOAD_MAX) == data, f"a read at {off}")
        expect(raw.read(off + PAYLOAD_MAX - 3, 7) == data[-3:] + raw.read(off + PAYLOAD_MAX, 4),
               "the last bytes")
        expect_equal(raw.write(SIZE - PAYLOAD_MAX + 1, data), n.ENOSPC, "a write past the end")
        expect_equal(raw.call(n.READ, 0, PAYLOAD_MAX + 1)[0], n.EINVAL, "a longer read")
        expect_equal(raw.read(off, 5), data[:5], "a read behind it")
        if not raw.extended:
            expect_equal(raw.write(0, data + b"x"), n.EINVAL, "a longer write")
            expect_equal(raw.read(off, 5), data[:5], "a read behind it")
        raw.close()
    finish(server)


# Ends


def cpu_seconds(server):
    with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_end_of_input_ends_the_connection(rig):
    """A client that sends no more, at any point: what it asked is answered, then the server closes
    too; nothing turns in circles meanwhile."""
    server = serve(rig)
    before = cpu_seconds(server)
    for asked in (None, 0, 5):
        raw = n.Raw(server.nbd, 15)
        if asked is not None:
            raw.go()
        for i in range(asked or 0):
            raw.request(n.WRITE, i * BLOCK, BLOCK, 0, blocks(i))
        raw.socket.shutdown(1)
        for _ in range(asked or 0):
            expect_equal(raw.reply()[1], 0, "a write")
        if asked is None:
            raw.receive(18)
        expect(raw.is_gone(), f"still there, {asked} requests asked")
        raw.close()
    expect(cpu_seconds(server) - before < 5, "it used the processor all the time")
    finish(server)


def test_death_with_answers_waiting(rig):
    """A client that dies with more answers on their way than its socket takes: its place comes
    free, time and again."""
    server = serve(rig)
    raw = connect(server)
    data = random.Random(7).randbytes(8 * MIB)
    expect_equal(raw.write(0, data), 0, "a write")
    for i in range(150):
        dying = r.wait_until(lambda: connect_or_none(server), "a place", 20)
        for _ in range(2):
            dying.request(n.READ, 0, 8 * MIB)
        dying.receive(1 + 1000 * (i % 3))
        dying.close()
    expect(raw.read(0, len(data)) == data, "a read beside them")
    raw.close()
    finish(server)


def connect_or_none(server):
    try:
        return connect(server)
    except (n.Gone, ConnectionError):
        return None


def test_trims_of_a_client_that_has_gone_are_given_up(rig):
    """64 TiB, 128 times all of it: some 34 s that nobody waits for."""
    server = rig.server(rig.create("--size", "64T", "--store-size", "2G"))
    raw = n.Raw(server.nbd).go(extended=True)
    for _ in range(128):
        raw.request(n.TRIM, 0, 64 << 40)
    time.sleep(0.3)
    raw.close()
    began = time.monotonic()
    r.sameblk("stop", "-c", server.control)
    took = time.monotonic() - began
    expect_equal(server.process.wait(30), 0, "the exit status")
    expect(took < 15, f"the stop took {took:.1f} s")
    rig.note(f"stopped after {took:.1f} s")
    server.start()
    expect_equal(server.json("status")["state"], "ok", "the state")
    server.stop()


def test_stop_tells_an_end_that_is_not_clean(rig):
    """Answered at once, the server still has much to do; then it is told to leave it."""
    server = rig.server(rig.create("--size", "64T", "--store-size", "2G"))
    raw = n.Raw(server.nbd).go(extended=True)
    for _ in range(128):
        raw.request(n.TRIM, 0, 64 << 40)
    stop = rig.spawn(r.SAMEBLK, "stop", "-c", server.control, stderr=subprocess.PIPE, text=True)
    r.wait_until(lambda: not os.path.exists(server.nbd), "the stop begins")
    time.sleep(0.2)
    server.process.kill()
    said = stop.communicate(timeout=60)[1]
    expect_equal(stop.returncode, 2, f"the exit status of stop, which said {said!r}")
    server.process.wait()
    raw.close()


if __name__ == "__main__":
    r.main(globals())
