#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""make_corpus - writes what the fuzz targets begin with, into tests/fuzz/corpus/TARGET/

    tests/fuzz/make_corpus.py

The layout of an input stands at the top of each target. What is named found-* is an input that
once found something, and is not made here: it stays.
"""

import itertools
import json
import os
import struct

TOP = os.path.dirname(os.path.abspath(__file__))

OPTION_MAGIC = 0x49484156454f5054
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META = 1, 2, 3, 5, 6, 7, \
    8, 9, 10


def write(target, name, data):
    folder = os.path.join(TOP, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name + ".bin"), "wb") as f:
        f.write(data)


# --- volume: life, how, changes, END, operations ---

END, BYTES, ADD, COPY, SECTOR, SUPER, ROOT, SUMMARY, LEAF, REFS, APPEND = range(11)
FORGED = 0x80


def operations():
    """One of each, then a checkpoint, a clean stop and a kill."""
    def one(block, blocks, what, *rest):
        return struct.pack("<HBB", block, blocks - 1, what) + bytes(rest)
    far = struct.pack("<H", 40)
    return b"".join([
        one(1200, 10, 0, 1), one(1, 5, 1), one(520, 8, 2), one(0, 1, 3), one(800, 20, 6, *far),
        one(900, 30, 7, *far), one(0, 1, 4), one(0, 1, 5, 0), one(30, 3, 0, 2), one(0, 1, 3),
        one(0, 1, 5, 1), one(33, 2, 0, 2)])


def volume():
    changes = {
        "bytes": bytes([BYTES, 0, 136, 0, 3, 1, 2, 3, 4]),
        "bytes-forged": bytes([BYTES | FORGED, 0, 136, 0, 3, 9, 0, 0, 0]),
        "add": bytes([ADD | FORGED, 9, 64, 0, 1]),
        "copy": bytes([COPY, 4, 5]),
        "sector": bytes([SECTOR, 1, 0]),
        "super": bytes([SUPER | FORGED, 1, 14, 1, 1, 0]),
        "root": bytes([ROOT | FORGED, 5, 0, 0x84]) + struct.pack("<HHHB", 10, 100, 1, 1),
        "summary": bytes([SUMMARY | FORGED, 7, 0, 2]) + struct.pack("<HH", 1800, 4),
        "leaf": bytes([LEAF | FORGED, 14]) + struct.pack("<HBH", 3, 1, 50),
        "refs": bytes([REFS | FORGED, 9]) + struct.pack("<HH", 3, 2),
        "append": bytes([APPEND, 0, 5, 0]) + struct.pack("<HHHHH", 1, 1000, 0, 700, 0),
    }
    for life in range(4):
        write("volume", f"life-{life}", bytes([life, 0, END]) + operations())
        write("volume", f"life-{life}-read-only", bytes([life, 1]))
        for name, change in changes.items():
            write("volume", f"life-{life}-{name}", bytes([life, life & 2]) + change)
        # Each slot of a page in the other's place.
        for slot in range(4, 20):
            write("volume", f"life-{life}-stale-{slot:02}", bytes([life, 0, COPY, slot, slot ^ 1]))


# --- ctl: line limit, portion, stream ---

def call(method, number=1, **params):
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params},
                      separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def ctl():
    usual = [
        call("same", src=0, length=32768, dsts=[32768, 65536]),
        call("same", src="zero", length=4096, dsts=[4096, 0], sync=True),
        call("same", "x", src=0, length=1, dsts=[4096, 1 << 40]),
        call("clone", src=0, length=8192, dst=131072, sync=False),
        call("map"), call("map", offset=4096, length=8192),
        call("changes", since=0), call("changes", since=3, **{"from": 4096}),
        call("status"), call("stats"), call("stop"), call("nbd"),
        b'{"jsonrpc":"2.0","method":"status"}\n',
    ]
    bad = [
        call("same", src=-1, length=4096, dsts=[]), call("same", src=0, dsts="x"),
        call("nothing"), call("map", other=1), b"\n", b"{}\n", b"[1]\n", b'"\xff"\n',
        b'{"jsonrpc":"1.0","id":null}\n', b'{"jsonrpc":"2.0","id":{},"method":"map"}\n',
        call("x" + 40 * "\u00e9"), call("map", **{"y" + 40 * "\u00e9": 1}),
        b'{"jsonrpc":"2.0","id":1.5,"method":"map","params":[]}\n', b'{"a":1,"a":2}\n',
    ]
    for i, line in enumerate(usual + bad):
        write("ctl", f"line-{i:02}", b"\xff\xff" + line)
    write("ctl", "usual", b"\xff\x10" + b"".join(usual))
    write("ctl", "bad", b"\xff\x03" + b"".join(bad))
    write("ctl", "too-long", b"\x04\x07" + b"".join(usual[:3]) + b"x\n" + b"y" * 70)
    write("ctl", "many", b"\xff\xff" + b"".join(
        call("same", n, src=0, length=4096, dsts=[n * 4096]) for n in range(1, 20)))


# --- handshake: export, portion, client flags and options ---

def option(number, data=b"", length=None):
    return struct.pack(">QII", OPTION_MAGIC, number, len(data) if length is None else length) + data


def text(s):
    return struct.pack(">I", len(s)) + s


def info(name, *wanted):
    return text(name) + struct.pack(f">H{len(wanted)}H", len(wanted), *wanted)


def context(name, *queries):
    return text(name) + struct.pack(">I", len(queries)) + b"".join(map(text, queries))


def sessions():
    allocation = b"base:allocation"
    end = option(GO, info(b"disk", 0, 1, 3))
    options = [
        option(LIST), option(LIST, b"x"), option(STARTTLS), option(INFO, info(b"disk", 1)),
        option(INFO, info(b"other")), option(INFO, b"\xff" * 6), option(INFO, info(b"disk") + b"x"),
        option(STRUCTURED),
        option(STRUCTURED) + option(SET_META, context(b"disk", allocation)),
        option(STRUCTURED) + option(LIST_META, context(b"disk")),
        option(STRUCTURED) + option(LIST_META, context(b"disk", b"base:")),
        option(STRUCTURED) + option(SET_META, context(b"disk", b"x", allocation, b"")),
        option(STRUCTURED) + option(SET_META, b"\0\0\0\x04disk\xff\xff\xff\xff"),
        option(STRUCTURED) + option(SET_META, context(b"disk", allocation)) +
        option(SET_META, context(b"disk", b"y")),
        option(SET_META, context(b"disk", allocation)), option(99, b"y" * 40),
        option(98, b"z" * 33000),
    ]
    flags = struct.pack(">I", 3)
    for one in options:
        yield flags + one + end
    yield flags + b"".join(options[:-1]) + end
    yield flags + option(EXPORT_NAME, b"disk")
    yield struct.pack(">I", 1) + option(EXPORT_NAME, b"")
    yield flags + option(EXPORT_NAME, b"other")
    yield flags + option(LIST) + option(ABORT)
    yield struct.pack(">I", 7) + end
    yield flags + option(GO, b"", 1 << 31)
    yield flags + option(LIST) * 30
    yield flags + b"NotAnOptionAtAll"


def handshake():
    portions = itertools.cycle((255, 0, 15, 3))
    for i, (session, portion) in enumerate(zip(sessions(), portions)):
        write("handshake", f"session-{i:02}", bytes([i % 4, portion]) + session)
    refused = option(98, b"z" * 32769) + option(LIST) + option(ABORT)
    write("handshake", "refused-by-bytes", bytes([0, 0]) + struct.pack(">I", 3) + refused)


# --- nbd: agreement, actions ---

READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, NO_COMMAND = 0, 1, 3, 4, 5, 6, 7, 9
REQUEST, SETTLE, GOODBYE, HALF, GARBAGE = 0, 12, 13, 14, 15
BYTE, SECTOR_UNIT, BLOCK_UNIT, CHUNK_UNIT, OUTSIDE, HUGE = 0, 1, 2, 3, 0x40, 0x60


def request(command, off, length, unit=BLOCK_UNIT, flags=0, cut=0):
    return bytes([REQUEST, unit, command, flags]) + struct.pack("<HHB", off, length - 1, cut)


def nbd():
    usual = [
        request(WRITE, 0, 4), request(READ, 0, 4), request(WRITE, 4, 4, flags=1, cut=20),
        request(WRITE, 100, 700, SECTOR_UNIT, cut=130), request(READ, 3, 9000, BYTE),
        request(WRITE, 9, 10, BYTE), request(FLUSH, 0, 1), request(TRIM, 2, 3),
        request(WRITE_ZEROES, 10, 8, flags=3), request(CACHE, 0, 16),
        request(BLOCK_STATUS, 0, 200), request(BLOCK_STATUS, 0, 200, flags=8),
        request(WRITE, 8, 30, CHUNK_UNIT, cut=99), request(READ, 8, 30, CHUNK_UNIT),
        request(READ, 2, 2, CHUNK_UNIT, flags=4)]
    odd = [
        request(READ, 60, 60, CHUNK_UNIT | OUTSIDE), request(WRITE, 65, 3, CHUNK_UNIT | OUTSIDE),
        request(TRIM, 9, 9, HUGE), request(WRITE, 1, 20, HUGE, cut=77), request(NO_COMMAND, 0, 1),
        request(READ, 0, 1, 0x82, flags=0xff), request(WRITE, 0, 1, 0x82, flags=0xf0),
        request(250, 0, 1)]
    for agreement in (0, 1, 3):
        head = bytes([agreement])
        for end in (SETTLE, GOODBYE, HALF, GARBAGE):
            write("nbd", f"usual-{agreement}-{end}", head + b"".join(usual) + bytes([end, 2, 1]))
        write("nbd", f"odd-{agreement}", head + b"".join(odd) + usual[0] + usual[1])
    for i, one in enumerate(usual + odd):
        write("nbd", f"one-{i:02}", b"\3" + one)
    write("nbd", "deep", b"\1" + b"".join(request(WRITE, 2 * i, 2) for i in range(30)) +
          b"".join(request(READ, i, 3, cut=3) for i in range(30)))


def main():
    volume()
    ctl()
    handshake()
    nbd()


if __name__ == "__main__":
    main()
