#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd_protocol - what the NBD front end says to clients of every kind, decent or not

    tests/server/nbd_protocol.py [TEST...]

A rig like those in tests/rigs, which see. After every test the server must stop cleanly and the
store be clean.
"""

import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "rigs"))

import nbd_raw as n  # noqa: E402
import rig as r  # noqa: E402
from rig import MIB, expect, expect_equal  # noqa: E402

SIZE = 96 * MIB


def serve(rig, *options):
    return rig.server(rig.create("--size", SIZE), *options)


def client_or_none(server):
    try:
        return n.Raw(server.nbd).go()
    except (n.Gone, ConnectionError):
        return None


def finish(server):
    """A new client is served, and the server stops cleanly."""
    # The places of clients that have just gone may not be free yet.
    raw = r.wait_until(lambda: client_or_none(server), "a new client is served")
    expect_equal(raw.write(0, b"still here" * 100), 0, "a write at the end")
    expect_equal(raw.read(0, 1000), b"still here" * 100, "a read at the end")
    raw.request(n.DISC)
    expect(raw.is_gone(), "DISC did not end the connection")
    server.stop()
    r.offline_check(server.store)


def pattern(seed, length):
    return random.Random(seed).randbytes(length)


# Handshake


def test_options(rig):
    """Each option is answered as the protocol says, and unknown ones do no harm."""
    server = serve(rig, "-e", "disk")
    raw = n.Raw(server.nbd).greet()
    expect_equal(raw.option_replies(77, b"what")[0][0], n.UNSUP, "an unknown option")
    expect_equal(raw.option_replies(n.STARTTLS)[0][0], n.UNSUP, "STARTTLS")
    expect_equal(raw.option_replies(n.LIST), [(n.SERVER, n.string(b"disk")), (n.ACK, b"")],
                 "LIST")
    expect_equal(raw.option_replies(n.LIST, b"x")[0][0], n.INVALID, "LIST with data")
    expect_equal(raw.option_replies(n.GO, n.string(b"other") + b"\0\0")[0][0], n.UNKNOWN,
                 "GO other")
    for bad in (b"", b"\0\0", n.string(b"disk"), n.string(b"disk") + b"\0\1", b"\xff" * 6,
                n.string(b"disk") + b"\0\0x", struct.pack(">I", 5000) + b"x" * 5000 + b"\0\0"):
        expect_equal(raw.option_replies(n.GO, bad)[0][0], n.INVALID, f"GO {bad[:8]!r}")
    expect_equal(raw.option_replies(n.LIST, b"x" * 100000)[0][0], n.TOO_BIG, "a long option")
    replies = raw.option_replies(n.INFO, n.string(b"disk") + struct.pack(">HHH", 2, 1, 3))
    kinds = [struct.unpack(">H", p[:2])[0] for k, p in replies if k == n.REP_INFO]
    expect_equal(kinds, [0, 3, 1], "kinds of information")
    expect_equal(raw.option_replies(n.ABORT), [(n.ACK, b"")], "ABORT")
    expect(raw.is_gone(), "ABORT did not end the connection")
    for option, data in ((n.EXPORT_NAME, b"other"), (n.LIST, None)):
        raw = n.Raw(server.nbd).greet()
        if data is None:
            raw.send(struct.pack(">QII", n.OPTION_MAGIC, option, 0xffffffff))
        else:
            raw.option(option, data)
        expect(raw.is_gone(), f"option {option} did not end the connection")
    server.stop()


def test_contexts(rig):
    """Contexts need structured replies, belong to one export; a second SET replaces the first."""
    server = serve(rig)
    query = n.queries(n.ALLOCATION)
    raw = n.Raw(server.nbd).greet()
    expect_equal(raw.option_replies(n.SET_META, n.string(b"") + query)[0][0], n.INVALID,
                 "too early")
    raw.option_replies(n.STRUCTURED)
    for asked, found in (
            ((), (n.ALLOCATION, n.SHARED)), ((b"base:",), (n.ALLOCATION,)),
            ((b"sameblk:",), (n.SHARED,)), ((n.SHARED, b"base:"), (n.ALLOCATION, n.SHARED)),
            ((n.SHARED,), (n.SHARED,)), ((b"sameblk:shared:", b"sameblk", b"other:x"), ())):
        listed = raw.option_replies(n.LIST_META, n.string(b"") + n.queries(*asked))
        wanted = [(n.META_CONTEXT, bytes(4) + name) for name in found]
        expect_equal(listed, wanted + [(n.ACK, b"")], f"LIST of {asked}")
    for asked, found in (
            ((), []), ((b"base:",), []), ((b"sameblk:",), []), ((n.SHARED,), [n.SHARED]),
            ((n.SHARED, n.ALLOCATION, n.SHARED), [n.ALLOCATION, n.SHARED])):
        raw.set_contexts(b"", *asked)
        expect_equal(sorted(raw.contexts.values()), found, f"SET of {asked}")
    expect_equal(len(raw.option_replies(n.SET_META, n.string(b"") + query)), 2, "SET")
    none = struct.pack(">I", 1) + n.string(b"qemu:dirty")
    expect_equal(raw.option_replies(n.SET_META, n.string(b"") + none), [(n.ACK, b"")],
                 "second SET")
    raw.structured = True
    raw.enter()
    expect_equal(raw.call(n.BLOCK_STATUS, 0, 4096)[0], n.EINVAL, "status without a context")
    raw = n.Raw(server.nbd).greet()
    raw.option_replies(n.STRUCTURED)
    raw.option_replies(n.SET_META, n.string(b"one") + query)
    raw.option_replies(n.GO, n.string(b"two") + b"\0\0")
    expect_equal(raw.call(n.BLOCK_STATUS, 0, 4096)[0], n.EINVAL, "the context of another export")
    finish(server)


def test_export_name(rig):
    """The oldest way in, with and without the zeroes behind."""
    server = serve(rig)
    for flags, length in ((3, 10), (1, 134)):
        raw = n.Raw(server.nbd).greet(flags)
        raw.option(n.EXPORT_NAME, b"any")
        answer = raw.receive(length)
        expect_equal(struct.unpack(">Q", answer[:8])[0], SIZE, "the size")
        expect_equal(raw.write(5, b"hello"), 0, "a write")
        expect_equal(raw.read(5, 5), b"hello", "a read")
        raw.close()
    finish(server)


def test_handshake_garbage(rig):
    """Random bytes for a handshake: the connection ends, the server goes on."""
    server = serve(rig)
    rng = random.Random(1)
    for i in range(200):
        raw = n.Raw(server.nbd)
        try:
            if i % 2:
                raw.greet()
                raw.send(struct.pack(">QII", n.OPTION_MAGIC, rng.randrange(12),
                                     rng.choice((0, 1, 5, 200, 40000))) + rng.randbytes(300))
            else:
                raw.send(rng.randbytes(rng.randrange(400)))
        except ConnectionError:
            pass
        raw.close()
    finish(server)


# As they are where nobody has raised net.core.wmem_max and the server is not root.
SMALL_BUFFERS = """
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	int bytes = 212992;

	if (level == SOL_SOCKET && name == SO_SNDBUFFORCE)
		return -1;
	if (level == SOL_SOCKET && name == SO_SNDBUF)
		value = &bytes;
	return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}
"""


def serve_with_small_buffers(rig):
    r.need("cc")
    with open(rig.path("small.c"), "w", encoding="ascii") as f:
        f.write(SMALL_BUFFERS)
    r.run("cc", "-shared", "-fPIC", "-o", rig.path("small.so"), rig.path("small.c"))
    before = dict(os.environ)
    os.environ["LD_PRELOAD"] = rig.path("small.so")
    os.environ["ASAN_OPTIONS"] += ":verify_asan_link_order=0"
    try:
        return serve(rig)
    finally:
        os.environ.clear()
        os.environ.update(before)


def ask_and_abort(server, count):
    """Takes none of the answers; after so many the last one may be the first that has no room."""
    raw = n.Raw(server.nbd)
    raw.send(struct.pack(">I", 3))
    for _ in range(count):
        raw.option(n.INFO, n.string(b"n" * 4000) + struct.pack(">HH", 1, 1))
    raw.option(n.ABORT)
    return raw


def has_ended(raw, seconds):
    ended = select.poll()
    ended.register(raw.socket, 0)
    return ended.poll(1000 * seconds)


def test_silent_client_is_dropped(rig):
    """Who never finishes the handshake is not kept for ever; others are served meanwhile."""
    server = serve_with_small_buffers(rig)
    full = [ask_and_abort(server, count) for count in range(64, 96)]
    silent = [n.Raw(server.nbd) for _ in range(20)]
    silent[0].greet()
    decent = n.Raw(server.nbd).go()
    start = time.monotonic()
    for raw in silent:
        raw.socket.settimeout(30 * r.slowness())
        while raw.socket.recv(100):
            pass
    expect(5 < time.monotonic() - start < 20 * r.slowness(),
           f"dropped after {time.monotonic() - start:.0f} s")
    for raw in full:
        expect(has_ended(raw, 5 * r.slowness()), "one that takes no answers is kept")
        raw.close()
    expect_equal(decent.write(0, b"x"), 0, "the decent one")
    decent.close()
    finish(server)


# Requests


def test_both_kinds_of_reply(rig):
    """Reads of every size, simple and structured, give what was written, byte for byte."""
    server = serve(rig)
    image = bytearray(pattern(2, 40 * MIB))
    for structured in (True, False):
        raw = n.Raw(server.nbd).go(structured=structured)
        for off in range(0, len(image), 8 * MIB):
            expect_equal(raw.write(off, bytes(image[off:off + 8 * MIB]), n.FUA), 0, "a write")
        for off, length in ((0, 1), (511, 2), (4095, 4098), (1, MIB), (0, MIB), (3, MIB + 1),
                            (12345, 33 * MIB + 7), (0, 40 * MIB)):
            expect(raw.read(off, length) == image[off:off + length],
                   f"read {off}+{length}, structured {structured}")
        raw.close()
    finish(server)


def test_pipelined(rig):
    """Hundreds of requests of all sizes without waiting: each is answered once and right. More than
    there are places, and more than there is memory."""
    server = serve(rig, "--buffer-memory", "2M")
    for structured in (True, False):
        pipeline(server, structured)
    finish(server)


def pipeline(server, structured):
    rng = random.Random(3)
    raw = n.Raw(server.nbd).go(structured=structured)
    image = pattern(4, 24 * MIB)
    out, wanted = [], {}
    for i in range(0, len(image), MIB * 3 // 2):
        piece = image[i:i + MIB * 3 // 2]
        expect_equal(raw.write(i, piece), 0, "a write")
    for i in range(600):
        off = rng.randrange(len(image))
        length = min(len(image) - off, rng.choice((1, 512, 4096, 65536, 300000, 3 * MIB)))
        wanted[i + 1] = (off, length)
        out.append(struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.READ, i + 1, off, length))
    out = b"".join(out)
    got = {}
    while len(got) < 600:
        if out:
            _, can_send, _ = select.select([], [raw.socket], [], 0)
            if can_send:
                out = out[raw.socket.send(out[:5000]):]
        if structured:
            collect_chunk(raw, got, wanted, image)
        else:
            magic, error, cookie = struct.unpack(">IIQ", raw.receive(16))
            off, length = wanted[cookie]
            expect((magic, error) == (n.SIMPLE_MAGIC, 0), f"request {cookie}: error {error}")
            expect(raw.receive(length) == image[off:off + length], f"{cookie}: wrong data")
            expect(cookie not in got, "answered twice")
            got[cookie] = length
    raw.close()


def collect_chunk(raw, got, wanted, image, partly={}):
    magic, flags, kind, cookie, size = struct.unpack(">IHHQI", raw.receive(20))
    payload = raw.receive(size)
    expect(magic == n.CHUNK_MAGIC and kind == n.CHUNK_DATA, f"chunk {hex(magic)} {kind}")
    expect(cookie not in got, "a chunk after the last one")
    at, = struct.unpack(">Q", payload[:8])
    expect(payload[8:] == image[at:at + size - 8], f"request {cookie}: wrong data")
    partly.setdefault(cookie, []).append((at, size - 8))
    if flags & 1:
        off, length = wanted[cookie]
        for at, size in sorted(partly.pop(cookie)):
            expect_equal(at, off, f"request {cookie}: a gap")
            off, length = off + size, length - size
        expect_equal(length, 0, f"request {cookie}: bytes missing")
        got[cookie] = True


def test_bad_requests(rig):
    """Refused with the right error, a refused write's payload is passed over, and what follows is
    served."""
    server = serve(rig)
    raw = n.Raw(server.nbd).go(contexts=[n.ALLOCATION])
    junk = b"\xaa" * 70000
    for command, off, length, flags, payload, error in (
            (n.WRITE, SIZE - 100, 70000, 0, junk, n.ENOSPC),
            (n.WRITE, 2 ** 64 - 1000, 70000, 0, junk, n.ENOSPC),
            (n.WRITE, 0, 70000, 1 << 9, junk, n.EINVAL),
            (n.READ, SIZE, 1, 0, b"", n.EINVAL),
            (n.READ, 0, 0xffffffff, 0, b"", n.EINVAL),
            (n.READ, 2 ** 64 - 1, 0xffffffff, 0, b"", n.EINVAL),
            (n.READ, 0, 2 * MIB, n.DF, b"", n.EOVERFLOW),
            (n.TRIM, SIZE - 1, 2, 0, b"", n.EINVAL),
            (n.WRITE_ZEROES, 1, SIZE, 0, b"", n.ENOSPC),
            (n.CACHE, SIZE, 1, 0, b"", n.EINVAL),
            (n.BLOCK_STATUS, 0, 0, 0, b"", n.EINVAL),
            (n.BLOCK_STATUS, SIZE - 1, 2, 0, b"", n.EINVAL),
            (99, 0, 0, 0, b"", n.EINVAL)):
        expect_equal(raw.call(command, off, length, flags, payload)[0], error,
                     f"command {command} {off}+{length} flags {flags}")
        expect_equal(raw.write(4096, b"good"), 0, "a write behind it")
        expect_equal(raw.read(4096, 4), b"good", "a read behind it")
    big = 65 * MIB
    expect_equal(raw.call(n.WRITE, 0, big, 0, bytes(big))[0], n.EINVAL, "a write of 65 MiB")
    for command in (n.READ, n.WRITE, n.TRIM, n.WRITE_ZEROES, n.CACHE):
        expect_equal(raw.call(command)[0], 0, f"command {command} of no length")
    raw.request(n.READ, 0, 1, magic=0x12345678)
    expect(raw.is_gone(), "a request without magic did not end the connection")
    finish(server)


def test_latencies_are_counted(rig):
    """Each good request once, under its operation; in stats as text, JSON and for Prometheus."""
    server = serve(rig, "-w", 2)
    one, two = n.Raw(server.nbd).go(), n.Raw(server.nbd).go()
    for i in range(10):
        expect_equal(one.write(i * 4096, b"x" * 4096), 0, "a write")
        two.read(i * 4096, 4096)
    for command in (n.FLUSH, n.TRIM, n.WRITE_ZEROES, n.CACHE):
        expect_equal(one.call(command, 0, 0 if command == n.FLUSH else 4096)[0], 0, "a request")
    expect(one.call(n.READ, SIZE, 1)[0] != 0, "a read behind the end")
    latency = r.wait_until(lambda: whole_latency(server), "all are counted")
    for one_op in latency.values():
        expect_equal(len(one_op["counts"]), 25, "buckets")
        expect(one_op["total_ns"] > 0, "their time")
    text = server.cli("stats").stdout
    expect("write_latency" in text and "99 % under" in text, text)
    text = server.cli("stats", "--prometheus").stdout
    labels = f'store="{server.store}",uuid="{server.json("status")["uuid"]}"}}'
    expect(f'sameblk_request_seconds_count{{op="write",{labels} 10\n' in text, text)
    expect(f'sameblk_request_seconds_bucket{{op="read",le="+Inf",{labels} 10\n' in text, text)
    total_ns = latency["write"]["total_ns"]
    total = f"{total_ns // 10**9}.{total_ns % 10**9:09}"
    expect(f'sameblk_request_seconds_sum{{op="write",{labels} {total}\n' in text, text)
    expect("sameblk_uptime_seconds{" + labels in text and "sameblk_info{version=" in text, text)
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    expect(all(labels in line for line in samples), "a sample does not say whose it is")
    finish(server)


def test_counted(rig):
    """A request counts once in stats, however many pieces it is cut into; zeros are no discards."""
    server = rig.server(rig.create("--size", SIZE))
    raw = n.Raw(server.nbd).go()
    expect_equal(raw.write(0, bytes(range(256)) * (1 << 14), n.FUA), 0, "a write of 4 MiB")
    raw.read(0, 4 << 20)
    expect_equal(raw.call(n.WRITE_ZEROES, 0, 4096)[0], 0, "zeros")
    expect_equal(raw.call(n.TRIM, 4096, 4096)[0], 0, "a discard")
    stats = server.stats()
    wanted = {"reads": 1, "writes": 1, "zeroes": 1, "discards": 1, "flushes": 0,
              "read_bytes": 4 << 20, "written_bytes": 4 << 20}
    expect_equal({key: stats[key] for key in wanted}, wanted, "what was counted")
    finish(server)


def whole_latency(server):
    latency = server.stats()["latency"]
    counts = {op: sum(one["counts"]) for op, one in latency.items()}
    wanted = {"read": 10, "write": 10, "flush": 1, "discard": 2}
    return latency if counts == wanted else None


def test_read_only(rig):
    """-r: whatever changes is EPERM, also with payload; reads, flushes and block status work."""
    store = rig.create("--size", SIZE)
    server = rig.server(store, "-r")
    raw = n.Raw(server.nbd).go(contexts=[n.ALLOCATION])
    expect(raw.flags & 2, "the read-only flag")
    for command, payload in ((n.WRITE, bytes(8192)), (n.TRIM, b""), (n.WRITE_ZEROES, b"")):
        expect_equal(raw.call(command, 0, 8192, 0, payload)[0], n.EPERM, f"command {command}")
    expect_equal(raw.read(100, 5000), bytes(5000), "a read")
    expect_equal(raw.call(n.FLUSH)[0], 0, "a flush")
    expect_equal(raw.call(n.BLOCK_STATUS, 0, SIZE)[1], [(SIZE, 3)], "block status")
    server.stop()


def test_block_status(rig):
    """Extents cover the range from its first byte, at any alignment, never beyond with REQ_ONE."""
    server = serve(rig)
    raw = n.Raw(server.nbd).go(contexts=[n.ALLOCATION])
    for off in range(0, 8 * MIB, 8192):
        raw.request(n.WRITE, off, 4096, 0, b"d" * 4096)
        raw.reply()
    cases = ((0, 4096), (1, 4095), (1, 4096), (4095, 2), (100, 3 * MIB + 5), (9 * MIB, 64 * MIB),
             (SIZE - 7, 7), (0, SIZE))
    for off, length in cases:
        at, _, extents = off, *raw.call(n.BLOCK_STATUS, off, length)
        expect(extents, f"no extents of {off}+{length}")
        for size, flags in extents:
            for probe in (at, at + size - 1):
                data = probe < 8 * MIB and probe % 8192 < 4096
                expect_equal(flags, 0 if data else 3, f"{off}+{length}: flags at {probe}")
            expect(size > 0, "an empty extent")
            at += size
        expect(at <= off + length, f"{off}+{length}: extents up to {at}")
        one = raw.call(n.BLOCK_STATUS, off, length, n.REQ_ONE)[1]
        expect_equal(one, extents[:1], f"{off}+{length} with REQ_ONE")
    finish(server)


def test_zero_trim_cache(rig):
    """Zeroes are exact to the byte, trim keeps partial blocks, cache answers."""
    server = serve(rig)
    raw = n.Raw(server.nbd).go()
    image = bytearray(pattern(5, 5 * MIB))
    raw.write(0, bytes(image))
    for off, length, flags in ((1, 100, 0), (4000, 200000, 0), (MIB + 5, MIB, n.NO_HOLE),
                               (0, 4096, n.FUA)):
        expect_equal(raw.call(n.WRITE_ZEROES, off, length, flags)[0], 0, "zeroes")
        image[off:off + length] = bytes(length)
    expect(raw.read(0, len(image)) == image, "after zeroes")
    expect_equal(raw.call(n.TRIM, 3 * MIB + 1, MIB)[0], 0, "trim")
    image[3 * MIB + 4096:4 * MIB] = bytes(MIB - 4096)
    expect(raw.read(0, len(image)) == image, "after trim")
    expect_equal(raw.call(n.CACHE, 0, SIZE)[0], 0, "cache")
    finish(server)


# Dying and stalling


def test_death_at_any_point(rig):
    """Clients that go away in the middle of a header, a payload, a reply."""
    server = serve(rig)
    whole = struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.WRITE, 1, 8 * MIB, 3 * MIB)
    whole += b"w" * (3 * MIB)
    for cut in (1, 27, 28, 29, 5000, 200000, MIB, MIB + 28, 2 * MIB + 100, len(whole) - 1,
                len(whole)):
        raw = n.Raw(server.nbd).go()
        raw.send(whole[:cut])
        raw.close()
    for structured in (True, False):
        for taken in (0, 1, 17, 1000, 2 * MIB):
            raw = n.Raw(server.nbd).go(structured=structured)
            for _ in range(3):
                raw.request(n.READ, 0, 32 * MIB)
            raw.receive(taken)
            raw.close()
    finish(server)


def test_half_payload_holds_nobody_up(rig):
    """Clients with half a payload and clients that take no answers hold memory, not others."""
    server = serve(rig, "--buffer-memory", "2M")
    stuck = []
    for i in range(3):
        raw = n.Raw(server.nbd).go()
        if i < 2:
            raw.send(struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.WRITE, 1, 0, 8 * MIB))
            raw.send(b"h" * 100000)
        else:
            for _ in range(50):
                raw.request(n.READ, 0, 8 * MIB)
        stuck.append(raw)
    time.sleep(0.2)
    raw = n.Raw(server.nbd).go()
    data = pattern(6, 5 * MIB)
    start = time.monotonic()
    for _ in range(5):
        expect_equal(raw.write(0, data), 0, "a write beside them")
        expect(raw.read(0, len(data)) == data, "a read beside them")
    expect(time.monotonic() - start < 20 * r.slowness(), "they hold others up")
    raw.close()
    for raw in stuck:
        raw.close()
    finish(server)


def test_many_connections(rig):
    """More than are taken: those beyond are closed, and places come free again; several workers."""
    server = serve(rig, "-w", 3)
    good = []
    for i in range(200):
        raw = n.Raw(server.nbd)
        try:
            raw.go()
            expect_equal(raw.write(i * 8192, b"%d" % i), 0, "a write")
            good.append((i, raw))
        except (n.Gone, ConnectionError):
            raw.close()
    expect(100 <= len(good) < 200, f"{len(good)} were served")
    for i, raw in good:
        expect_equal(raw.read(i * 8192, 3), (b"%d" % i).ljust(3, b"\0"), "a read")
        raw.close()
    r.wait_until(lambda: "refused" in server.log(), "a line in the log")
    finish(server)


def test_flush_covers_other_connections(rig):
    """CAN_MULTI_CONN: what one connection wrote, another flushes; a kill -9 later it is there."""
    server = serve(rig, "-w", 2)
    one, two = n.Raw(server.nbd).go(), n.Raw(server.nbd).go()
    expect(one.flags & 256, "the multi-conn flag")
    expect_equal(one.write(12288, b"flushed by another"), 0, "a write")
    expect_equal(two.call(n.FLUSH)[0], 0, "a flush")
    server.kill()
    server.start()
    expect_equal(n.Raw(server.nbd).go().read(12288, 18), b"flushed by another", "after the kill")
    finish(server)


def test_stop_with_clients(rig):
    """SIGTERM while clients read and write: what was answered is there, the server ends with 0."""
    server = serve(rig, "-w", 2)
    readers = [n.Raw(server.nbd).go() for _ in range(4)]
    for raw in readers:
        for i in range(100):
            raw.request(n.WRITE, i * 4096, 4096, 0, bytes([i]) * 4096)
    answered = set()
    for _ in range(50):
        answered.add(readers[0].reply()[0])
    server.stop()
    r.offline_check(server.store)
    server.start()
    raw = n.Raw(server.nbd).go()
    for cookie in answered:
        expect_equal(raw.read((cookie - 1) * 4096, 1), bytes([cookie - 1]), "an answered write")
    raw.close()
    finish(server)


# Starting


def test_sockets(rig):
    """A stale socket is replaced, a live one and a file are refused, the mode is 0600."""
    server = serve(rig)
    expect_equal(os.stat(server.nbd).st_mode & 0o777, 0o600, "the socket's mode")
    other = rig.create("--size", MIB, name="other")
    done = r.run(r.SAMEBLKD, "-U", server.nbd, "-c", rig.path("x.ctl"), other, ok=(2,))
    expect("another server listens" in done.stderr, done.stderr)
    done = r.run(r.SAMEBLKD, "-U", other, "-c", rig.path("x.ctl"), other, ok=(2,))
    expect("not a socket" in done.stderr, done.stderr)
    done = r.run(r.SAMEBLKD, other, ok=(2,))
    expect("-U" in done.stderr, done.stderr)
    done = r.run(r.SAMEBLKD, "-U", rig.path("x.nbd"), "--no-such-option", other, ok=(2,))
    expect("no-such-option" in done.stderr, done.stderr)
    start = time.monotonic()
    done = r.run(r.SAMEBLKD, "-U", rig.path("x.nbd"), server.store, ok=(2,))
    expect(str(server.process.pid) in done.stderr, done.stderr)
    expect(4 < time.monotonic() - start < 15 * r.slowness(), "the lock was not waited for")
    server.kill()
    server.start()
    # At once, while the killed one is still dying.
    for _ in range(5):
        n.Raw(server.nbd).go().write(0, bytes(MIB))
        os.kill(server.process.pid, signal.SIGKILL)
        server.start()
    finish(server)
    expect(not os.path.exists(server.nbd), "the socket is left")


def test_socket_activation_and_single(rig):
    """LISTEN_FDS and -s: sockets that others made."""
    store = rig.create("--size", SIZE)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(rig.path("given"))
    listening.listen()
    shell = f'exec 3<&{listening.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -c "$1" "$2"'
    process = rig.spawn("/bin/sh", "-c", shell, r.SAMEBLKD, rig.path("a.ctl"), store,
                        pass_fds=[listening.fileno()], stdout=subprocess.PIPE)
    raw = n.Raw(rig.path("given")).go()
    expect_equal(raw.write(0, b"activated"), 0, "a write")
    process.terminate()
    expect_equal(process.wait(30), 0, "the exit status")
    expect_equal(process.stdout.read(), b"", "what is printed for whoever made the socket")
    ours, theirs = socket.socketpair()
    process = rig.spawn(r.SAMEBLKD, "-s", "-c", rig.path("a.ctl"), store, stdin=theirs,
                        stdout=theirs)
    theirs.close()
    raw.socket = ours
    ours.settimeout(30)
    raw.go()
    expect_equal(raw.read(0, 9), b"activated", "a read")
    raw.request(n.DISC)
    expect_equal(process.wait(30), 0, "the exit status of -s")
    r.offline_check(store)


if __name__ == "__main__":
    r.main(globals())
