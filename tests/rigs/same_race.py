#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""same_race - one byte is flipped in either range, again and again, while the two are merged

A writer makes one byte of one of two equal ranges differ, and then makes them equal again: by
flipping it back, or by flipping the other range's byte too. Two mergers merge as fast as they can,
one in each direction. Whoever asks and when is noted, so that afterwards each answer can be judged:
`same` needs a moment between question and answer at which the ranges were equal, `differs` one at
which that byte was the first to differ. A write in flight may have happened at any time between its
beginning and its answer. No flip may be lost: the ranges are read all the time, and hold what the
writer wrote.

10 seconds; with --long 60. Once with the store in the page cache, where it compares by itself, and
once with --direct, where it is read from.
"""

import bisect
import json
import random
import threading
import time

import rig
from rig import BLOCK, MIB, expect, expect_equal, offline_check

LENGTH = MIB  # merged at one moment: a piece
RANGES = (0, 4 * MIB)
READ_BACK_ONE_IN = 8
REST_SECONDS_MAX = 0.002


class Writer(threading.Thread):
    """history: (begin, end, at) of each write: from some moment in between on, the byte `at` is the
    only one that differs, or (None) none is."""

    def __init__(self, disk, content, ending):
        super().__init__()
        self.disk, self.ending = disk, ending
        self.content = [bytearray(content), bytearray(content)]
        self.history = [(0.0, 0.0, None)]
        self.chance = random.Random("flips")
        self.error = None

    def set_byte(self, side, at, byte, state):
        """Of one range, alone (a read-modify-write) or with its block."""
        content = self.content[side]
        content[at] = byte
        begin, length = (at, 1) if self.chance.random() < 0.5 else (at - at % BLOCK, BLOCK)
        started = time.monotonic()
        self.disk.write(RANGES[side] + begin, bytes(content[begin:begin + length]))
        self.history.append((started, time.monotonic(), state))

    def read_back(self, at):
        begin = at - at % BLOCK
        for side in (0, 1):
            expect_equal(self.disk.read(RANGES[side] + begin, BLOCK),
                         bytes(self.content[side][begin:begin + BLOCK]),
                         f"block {begin // BLOCK} of range {side}")

    def turn(self):
        side, at = self.chance.randrange(2), self.chance.randrange(LENGTH)
        before = self.content[side][at]
        flipped = before ^ (1 << self.chance.randrange(8))
        self.set_byte(side, at, flipped, at)
        time.sleep(self.chance.random() * REST_SECONDS_MAX)
        if self.chance.random() < 0.5:
            self.set_byte(side, at, before, None)
        else:
            self.set_byte(1 - side, at, flipped, None)
        time.sleep(self.chance.random() * REST_SECONDS_MAX)
        if self.chance.randrange(READ_BACK_ONE_IN) == 0:
            self.read_back(at)

    def run(self):
        try:
            while not self.ending.is_set():
                self.turn()
        except Exception as error:  # told by the test
            self.error = error


class Merger(threading.Thread):
    """answers: (asked, answered, status, differs_at)."""

    def __init__(self, server, src, dst, ending):
        super().__init__()
        self.connection = server.control_connect(60)
        self.line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "same", "params": {
            "src": src, "length": LENGTH, "dsts": [dst]}}).encode() + b"\n"
        self.ending, self.answers, self.error = ending, [], None

    def run(self):
        try:
            with self.connection, self.connection.makefile("rb") as lines:
                while not self.ending.is_set():
                    asked = time.monotonic()
                    self.connection.sendall(self.line)
                    result = json.loads(lines.readline())["result"]["results"][0]
                    self.answers.append((asked, time.monotonic(), result["status"],
                                         result.get("differs_at")))
        except Exception as error:  # told by the test
            self.error = error


def possible_states(history, begins, asked, answered):
    """The states that may have been at a moment in between."""
    # State k may be from its write's beginning on until the next write has been answered.
    last = bisect.bisect_right(begins, answered) - 1
    states = set()
    while last >= 0:
        states.add(history[last][2])
        if history[last][1] <= asked:  # what was before it had gone before the question
            break
        last -= 1
    return states


def judge(writer, merger):
    begins = [begin for begin, _, _ in writer.history]
    counts = {"same": 0, "differs": 0}
    for asked, answered, status, at in merger.answers:
        states = possible_states(writer.history, begins, asked, answered)
        expect(status in counts, f"an answer is {status}")
        counts[status] += 1
        expect((None if status == "same" else at) in states,
               f"{status} at {at}, but between question and answer it was one of {states}")
    return counts


def race(r, *options):
    server = r.server(r.create("--size", "16M"), *options)
    disk = server.connect()
    content = random.Random("content").randbytes(LENGTH)
    for off in RANGES:
        disk.write(off, content)
    ending = threading.Event()
    writer = Writer(server.connect(), content, ending)
    mergers = [Merger(server, *RANGES, ending), Merger(server, *reversed(RANGES), ending)]
    for thread in [writer, *mergers]:
        thread.start()
    time.sleep(60 if r.long else 10)
    ending.set()
    for thread in [writer, *mergers]:
        thread.join(60)
        if thread.error is not None:
            raise thread.error
    for side in (0, 1):
        expect(disk.read(RANGES[side], LENGTH) == bytes(writer.content[side]),
               f"range {side} does not hold what was written last")
    for merger in mergers:
        counts = judge(writer, merger)
        expect(min(counts.values()) > 10, f"too few answers of a kind: {counts}")
        r.note(f"{len(writer.history)} writes, {counts}")
    r.note(f"compared inside the fence: {server.stats()['fenced_read_bytes']} bytes")
    disk.close()
    server.stop()
    offline_check(server.store)


def test_no_flip_is_lost_and_every_answer_is_right(r):
    race(r)


def test_the_same_with_two_workers(r):
    race(r, "--workers", 2)


def test_the_same_where_the_engine_reads(r):
    race(r, "--direct")


if __name__ == "__main__":
    rig.main(globals())
