#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""same_batch - very many ranges at a time: batches, ranges in one call, requests that overlap

Whatever comes of it, each block reads as before, what was freed is what used_bytes fell by, and
check finds nothing.
"""

import json
import os
import random
import signal
import subprocess

import rig
from rig import BLOCK, MIB, blocks, expect, expect_equal, offline_check

SMALL = 300


def start(r, size="64M", *options):
    server = r.server(r.create("--size", size), *options)
    return server, server.connect()


def used(server, disk):
    disk.flush()
    return server.stats()["used_bytes"]


def batch(r, server, lines, *options, ok=(0,)):
    """Runs it; the outcome of each line and destination, and the summary."""
    path = r.path("batch")
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"{line}\n" for line in lines)
    out = server.cli("same", "--batch", path, "--json-lines", *options, ok=ok, seconds=600).stdout
    documents = [json.loads(line) for line in out.splitlines()]
    return documents[:-1], documents[-1]["summary"]


def finish(server, disk):
    disk.close()
    server.stop()
    offline_check(server.store)


def test_small_lines_are_merged_and_counted_one_by_one(r):
    server, disk = start(r)
    data = blocks("small", SMALL)
    disk.write(0, data)
    disk.write(8 * MIB, data)
    for i in range(0, SMALL, 3):  # every third differs in its last byte
        disk.write(8 * MIB + (i + 1) * BLOCK - 1, bytes([data[(i + 1) * BLOCK - 1] ^ 1]))
    before, wanted = used(server, disk), disk.read(8 * MIB, SMALL * BLOCK)
    lines = [f"{i * BLOCK} {BLOCK} {8 * MIB + i * BLOCK}" for i in range(SMALL)]
    lines.insert(100, f"{BLOCK} {BLOCK} {BLOCK}")  # overlaps
    lines.insert(200, f"1 {BLOCK} {BLOCK}")  # unaligned
    lines.insert(250, f"zero {BLOCK} {32 * MIB}")  # a hole is zeros
    documents, summary = batch(r, server, lines, ok=(2,))
    expect_equal(len(documents), len(lines), "answers")
    expect_equal(summary["same"], SMALL - SMALL // 3 + 1, "same")
    expect_equal(summary["differs"], SMALL // 3, "differ")
    expect_equal(summary["errors"], 2, "errors")
    expect_equal(documents[100]["results"][0]["error"], "EINVAL", "an overlap")
    expect_equal(documents[200]["results"][0]["error"], "EINVAL", "an odd offset")
    expect_equal(documents[0]["results"][0]["differs_at"], BLOCK - 1, "where it differs")
    expect_equal(summary["bytes_freed"], before - used(server, disk), "freed")
    expect_equal(summary["bytes_freed"], (SMALL - SMALL // 3) * BLOCK, "freed")
    expect(disk.read(8 * MIB, SMALL * BLOCK) == wanted, "content")
    finish(server, disk)


def test_ranges_in_reverse_order(r):
    server, disk = start(r)
    data = blocks("reverse", 2048)
    disk.write(0, data)
    disk.write(16 * MIB, data)
    before = used(server, disk)
    _, summary = batch(r, server, [f"{i * BLOCK} {BLOCK} {16 * MIB + i * BLOCK}"
                                   for i in reversed(range(2048))])
    expect_equal(summary["same"], 2048, "same")
    expect_equal(summary["bytes_freed"], before - used(server, disk), "freed")
    expect_equal(summary["bytes_freed"], 2048 * BLOCK, "freed")
    expect(disk.read(16 * MIB, 2048 * BLOCK) == data, "content")
    finish(server, disk)


def test_ten_thousand_destinations_in_one_request(r):
    server, disk = start(r)
    block = blocks("many")
    for i in range(0, 10001 * BLOCK, MIB):
        disk.write(i, block * (min(MIB, 10001 * BLOCK - i) // BLOCK))
    before = used(server, disk)
    documents, summary = batch(r, server, [
        f"0 {BLOCK} " + " ".join(str((i + 1) * BLOCK) for i in range(10000))])
    expect_equal([x["dst"] for x in documents[0]["results"]],
                 [(i + 1) * BLOCK for i in range(10000)], "destinations")
    expect_equal(summary["same"], 10000, "same")
    expect_equal(before - used(server, disk), 10000 * BLOCK, "freed")
    expect_equal(disk.read(9999 * BLOCK, BLOCK), block, "content")
    finish(server, disk)


def overlapping_calls(chance, count):
    """Calls over one MiB of which many touch the same blocks, as both kinds of same."""
    for number in range(1, count + 1):
        ranges = []
        for _ in range(chance.randrange(1, 20)):
            length = chance.randrange(1, 32)
            src, dst = chance.randrange(224), chance.randrange(224)
            ranges.append([src * BLOCK, length * BLOCK, dst * BLOCK])
        if number % 2:
            yield number, "same_ranges", {"ranges": ranges}
        else:
            src, length, _ = ranges[0]
            yield number, "same", {"src": src, "length": length,
                                   "dsts": [dst for _, _, dst in ranges]}


def test_requests_that_overlap_one_another_in_flight(r):
    server, disk = start(r, "16M", "--workers", 2)
    # Eight contents in a row, so that a shift by a multiple of eight is the same.
    data = b"".join(blocks(f"overlap {i % 8}") for i in range(256))
    disk.write(0, data)
    count = 2000 if r.long else 300
    chance = random.Random(os.environ.get("SEED", "1"))
    statuses = {}
    with server.control_connect(120) as connection, connection.makefile("rb") as answers:
        asked = list(overlapping_calls(chance, count))
        for begin in range(0, count, 50):
            part = asked[begin:begin + 50]
            connection.sendall(b"".join(
                json.dumps({"jsonrpc": "2.0", "id": number, "method": method,
                            "params": params}).encode() + b"\n"
                for number, method, params in part))
            for _ in part:
                for one in json.loads(answers.readline())["result"]["results"]:
                    status = "same" if isinstance(one, list) else one["status"]
                    statuses[status] = statuses.get(status, 0) + 1
    expect(disk.read(0, len(data)) == data, "content")
    expect(min(statuses.get(s, 0) for s in ("same", "differs", "error")) > 20, f"{statuses}")
    r.note(f"{statuses}")
    finish(server, disk)


def test_a_batch_that_is_interrupted_leaves_whole_merges(r):
    server, disk = start(r)
    data = blocks("half", 4096)
    for off in (0, 32 * MIB):
        disk.write(off, data[:MIB])
        for i in range(MIB, len(data), MIB):
            disk.write(off + i, data[i:i + MIB])
    path = r.path("batch")
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"{i * BLOCK} {BLOCK} {32 * MIB + i * BLOCK}\n" for i in range(4096))
    process = r.spawn(rig.SAMEBLK, "same", "--batch", path, "-c", server.control,
                      stdout=open(r.path("out"), "wb"))
    rig.wait_until(lambda: server.stats()["same_bytes"] > 0, "some are merged", pause=0.001)
    process.kill()
    process.wait()
    expect(disk.read(32 * MIB, len(data)) == data, "content")
    r.note(f"{server.stats()['same_bytes'] // BLOCK} of 4096 merged")
    finish(server, disk)


def test_a_batch_that_is_interrupted_ends_with_whole_lines_and_a_summary(r):
    server, disk = start(r)
    for off in (0, 32 * MIB):
        disk.write(off, blocks("same", 64))
    args = [rig.SAMEBLK, "same", "--batch", "-", "--json-lines", "-c", server.control]
    process = r.spawn(*args, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE, text=True)
    process.stdin.write("# where each comes from\n")
    process.stdin.writelines(f"{i * BLOCK} {BLOCK} {32 * MIB + i * BLOCK}\n" for i in range(64))
    process.stdin.flush()
    rig.wait_until(lambda: server.stats()["same_bytes"] == 64 * BLOCK, "all are merged")
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    documents = [json.loads(line) for line in process.stdout.read().splitlines()]
    expect_equal(process.wait(60), 1, "exit status")
    expect("interrupted" in said and "line 65" in said, said)
    expect_equal(documents[-1]["summary"]["same"], 64, "summary")
    expect_equal([d["line"] for d in documents[:-1]], list(range(2, 66)), "lines of the input")
    finish(server, disk)


def test_a_batch_makes_way_for_who_waits_for_a_processor(r):
    server = r.server(r.create("--size", "64M"))
    args = [rig.SAMEBLK, "same", "--batch", "-", "-c", server.control]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as batch:
        rig.wait_until(lambda: os.getpriority(os.PRIO_PROCESS, batch.pid) == 10, "ten steps nicer")
        rig.expect_equal(os.sched_getscheduler(batch.pid), os.SCHED_OTHER, "it is never stopped")
        batch.stdin.close()
    rig.expect_equal(batch.returncode, 0, "the batch's status")
    server.stop()


def test_a_line_with_a_nul_byte_is_refused(r):
    server = r.server(r.create("--size", "8M"))
    batch = r.path("batch")
    with open(batch, "wb") as f:
        f.write(b"0 4096 8192\0 junk\n4096 4096 16384\n")
    done = server.cli("same", "--batch", batch, ok=None)
    expect_equal(done.returncode, 2, f"exit status: {done.stdout} {done.stderr}")
    expect("line 1" in done.stderr and "NUL" in done.stderr, f"it says {done.stderr!r}")
    server.stop()


if __name__ == "__main__":
    rig.main(globals())
