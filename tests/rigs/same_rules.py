#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""same_rules - each row of the table in docs/same-range.md, seen from outside: CLI, control socket,
NBD

The number in a test's name is the row's. Row 17 (several volumes) comes with what it needs; row 24
(change tracking does not see a merge) is in changes.py.
"""

import json
import os
import threading
import time

import rig
from rig import BLOCK, MIB, blocks, expect, expect_equal, need, offline_check

SIZE = 64 * MIB


def start(r, size="64M", *options):
    server = r.server(r.create("--size", size), *options)
    return server, server.connect()


def fill_equal(disk, src, length, *dsts, seed="equal"):
    data = blocks(seed, length // BLOCK)
    for off in (src, *dsts):
        for i in range(0, length, 4 * MIB):
            disk.write(off + i, data[i:i + 4 * MIB])
    disk.flush()
    return data


def status_and_bytes(result):
    return result["status"], result["bytes_deduped"]


def physical(server, off, length):
    """Where each run of the range lies, as (offset from its start, length, physical)."""
    return [(run["offset"] - off, run["length"], run.get("physical"))
            for run in server.json("map", off, length)["runs"]]


def finish(server, disk):
    disk.close()
    server.stop()
    offline_check(server.store)


def test_row_01_whose_error_it_is(r):
    server, disk = start(r)
    fill_equal(disk, 0, 4 * BLOCK, 1 * MIB, 2 * MIB)
    results = server.same(0, 4 * BLOCK, 1 * MIB, SIZE, 2 * MIB)
    expect_equal([x["status"] for x in results], ["same", "error", "same"], "statuses")
    expect_equal(results[1]["error"], "EINVAL", "a destination past the end")
    before = physical(server, 3 * MIB, BLOCK)
    result, error = server.rpc("same", src=SIZE, length=BLOCK, dsts=[3 * MIB])
    expect(result is None and error, f"a source past the end fails all: {result}")
    expect_equal(physical(server, 3 * MIB, BLOCK), before, "the destination's mapping")
    expect_equal(server.cli("same", SIZE, BLOCK, 3 * MIB, ok=None).returncode, 2, "exit status")
    finish(server, disk)


def test_row_02_destinations_in_order_with_true_numbers(r):
    server, disk = start(r)
    fill_equal(disk, 0, 8 * BLOCK, 4 * MIB, 1 * MIB)
    results = server.same(0, 8 * BLOCK, 4 * MIB, 1 * MIB, 4 * MIB)
    expect_equal([x["dst"] for x in results], [4 * MIB, 1 * MIB, 4 * MIB], "order")
    keys = ("bytes_deduped", "bytes_freed", "bytes_already_shared")
    expect_equal([tuple(x[k] for k in keys) for x in results],
                 [(8 * BLOCK, 8 * BLOCK, 0), (8 * BLOCK, 8 * BLOCK, 0), (8 * BLOCK, 0, 8 * BLOCK)],
                 "deduped, freed, already shared")
    finish(server, disk)


def test_row_03_many_destinations(r):
    server, disk = start(r)
    limit = server.json("status")["limits"]["destinations_max"]
    expect(limit >= 4096, f"at least 4,096 destinations, not {limit}")
    data = blocks("many")
    for off in range(0, SIZE, 2 * MIB):
        disk.write(off, data * (2 * MIB // BLOCK))
    dsts = [BLOCK * (1 + i) for i in range(limit)]
    result, error = server.rpc("same", src=0, length=BLOCK, dsts=dsts)
    expect(error is None, f"the limit itself is taken: {error}")
    expect_equal({status_and_bytes(x) for x in result["results"]}, {("same", BLOCK)}, "results")
    before = server.stats()["same_requests"]
    result, error = server.rpc("same", src=0, length=BLOCK, dsts=dsts + [SIZE - BLOCK])
    expect(error and "E2BIG" in json.dumps(error), f"one more is refused: {error} {result}")
    expect_equal(server.stats()["same_requests"], before, "requests that the engine saw")
    # The CLI splits what one request does not take.
    results = server.same(0, BLOCK, *dsts, SIZE - BLOCK)
    expect_equal(len(results), limit + 1, "results of the CLI")
    finish(server, disk)


def test_row_04_length_0(r):
    server, disk = start(r)
    done = server.cli("same", 0, 0, MIB)
    expect_equal(done.stdout.split(), [str(MIB), "same", "0", "freed", "0"], "the line")
    expect_equal(status_and_bytes(server.same(0, 0, MIB)[0]), ("same", 0), "result")
    finish(server, disk)


def test_row_05_past_the_end_or_around(r):
    server, disk = start(r)
    huge = 2**63 - BLOCK
    for src, length, dst in ((SIZE - BLOCK, 2 * BLOCK, 0), (0, 2 * BLOCK, SIZE - BLOCK),
                             (huge, 2 * BLOCK, 0), (0, 2 * BLOCK, huge), (BLOCK, huge, 2 * MIB),
                             (2**64 - BLOCK, 2 * BLOCK, 0), (0, BLOCK, 2**64 - BLOCK)):
        done = server.cli("same", src, length, dst, ok=None)
        expect_equal(done.returncode, 2, f"exit status of {src} {length} {dst}")
        said = done.stdout + done.stderr
        # What no 63 bits hold does not even reach the server.
        expect("EINVAL" in said or "too large" in said, f"EINVAL: {said}")
    finish(server, disk)


def test_row_06_unaligned(r):
    server, disk = start(r)
    for src, length, dst in ((512, BLOCK, MIB), (0, BLOCK + 1, MIB), (0, BLOCK, MIB + 2048)):
        done = server.cli("same", src, length, dst, ok=None)
        expect_equal(done.returncode, 2, f"exit status of {src} {length} {dst}")
        said = done.stdout + done.stderr
        expect("EINVAL" in said and "4096" in said, f"EINVAL that names the block size: {said}")
    finish(server, disk)


def test_row_07_a_long_range_is_clamped(r):
    server, disk = start(r, "512M")
    limit = server.json("status")["limits"]["length_max"]
    expect(limit >= 16 * MIB, f"at least 16 MiB, not {limit}")
    length = limit + 4 * MIB
    fill_equal(disk, 0, length, 256 * MIB)
    result, error = server.rpc("same", src=0, length=length, dsts=[256 * MIB])
    expect(error is None, f"{error}")
    expect_equal(status_and_bytes(result["results"][0]), ("same", limit), "clamped")
    # The CLI goes on until all is done.
    result = server.same(0, length, 256 * MIB)[0]
    expect_equal(status_and_bytes(result), ("same", length), "all of it")
    finish(server, disk)


def test_row_08_all_report_the_same_count(r):
    server, disk = start(r, "512M")
    limit = server.json("status")["limits"]["length_max"]
    length = limit + MIB
    fill_equal(disk, 0, length, 128 * MIB, 256 * MIB)
    result, _ = server.rpc("same", src=0, length=length, dsts=[128 * MIB, 256 * MIB])
    expect_equal({x["bytes_deduped"] for x in result["results"]}, {limit}, "counts")
    finish(server, disk)


def test_row_09_one_differing_byte(r):
    server, disk = start(r)
    data = fill_equal(disk, 0, 64 * BLOCK, 4 * MIB)
    for at in (0, 1, 511, 512, BLOCK - 1, BLOCK, 17 * BLOCK + 123, 64 * BLOCK - 1):
        disk.write(4 * MIB, data)
        disk.write(4 * MIB + at, bytes([data[at] ^ 1]))
        before = physical(server, 0, SIZE)
        result = server.same(0, 64 * BLOCK, 4 * MIB)[0]
        expect_equal(status_and_bytes(result), ("differs", 0), f"differing at {at}")
        expect_equal(result["differs_at"] // BLOCK, at // BLOCK, "the block that differs")
        expect_equal(physical(server, 0, SIZE), before, "the map")
        done = server.cli("same", 0, 64 * BLOCK, 4 * MIB, ok=None)
        expect_equal(done.returncode, 1, "exit status")
    expect(server.stats()["differs"] >= 8, "stats count what differed")
    finish(server, disk)


def test_row_10_differs_after_slices_that_merged(r):
    server, disk = start(r)
    length, at = 8 * MIB, 6 * MIB + 5
    data = fill_equal(disk, 0, length, 16 * MIB)
    disk.write(16 * MIB + at, bytes([data[at] ^ 1]))
    result = server.same(0, length, 16 * MIB)[0]
    merged = result["bytes_deduped"]
    expect_equal(result["status"], "differs", "status")
    expect(4 * MIB <= merged <= 6 * MIB, f"the slices before stay merged, not {merged} bytes")
    expect_equal(physical(server, 0, merged), physical(server, 16 * MIB, merged), "shared mapping")
    expect_equal(disk.read(16 * MIB, length), data[:at] + bytes([data[at] ^ 1]) + data[at + 1:],
                 "content")
    finish(server, disk)


def test_row_11_overlap(r):
    server, disk = start(r)
    disk.write(0, blocks("x") * 32)
    results = server.same(0, 8 * BLOCK, 0, 4 * BLOCK, 8 * BLOCK)
    expect_equal([x["status"] for x in results], ["error", "error", "same"], "statuses")
    expect_equal({x["error"] for x in results[:2]}, {"EINVAL"}, "errors")
    expect_equal(disk.read(0, 32 * BLOCK), blocks("x") * 32, "content")
    finish(server, disk)


def test_row_12_already_shared(r):
    server, disk = start(r)
    fill_equal(disk, 0, 16 * BLOCK, MIB)
    server.same(0, 16 * BLOCK, MIB)
    used = server.stats()["used_bytes"]
    result = server.same(0, 16 * BLOCK, MIB)[0]
    expect_equal(status_and_bytes(result), ("same", 16 * BLOCK), "result")
    expect_equal((result["bytes_freed"], result["bytes_already_shared"]), (0, 16 * BLOCK), "freed")
    expect_equal(server.stats()["used_bytes"], used, "used")
    finish(server, disk)


def test_row_13_the_source_stays(r):
    server, disk = start(r)
    fill_equal(disk, 0, 16 * BLOCK, MIB)
    before = server.stats()
    source = physical(server, 0, 16 * BLOCK)
    server.cli("same", "--sync", 0, 16 * BLOCK, MIB)
    expect_equal(physical(server, 0, 16 * BLOCK), source, "the source's blocks")
    expect_equal(physical(server, MIB, 16 * BLOCK), source, "the destination's blocks")
    after = server.stats()
    expect_equal(before["used_bytes"] - after["used_bytes"], 16 * BLOCK, "freed")
    finish(server, disk)


def write_all_the_time(disk, off, length, ending, errors, last):
    """Writes whole ranges of one value after the other; last[0] is the newest that was answered."""
    try:
        number = 0
        while not ending.is_set():
            number += 1
            disk.write(off, number.to_bytes(8, "little") * (length // 8))
            last[0] = number
    except Exception as error:
        errors.append(error)


def test_row_14_writes_wait_and_are_never_lost(r):
    server, disk = start(r)
    length = 64 * BLOCK
    ending, errors, last = threading.Event(), [], [0]
    disk.write(0, (1).to_bytes(8, "little") * (length // 8))
    writer = threading.Thread(target=write_all_the_time, args=(
        server.connect(), 4 * MIB, length, ending, errors, last))
    writer.start()
    merges, end = 0, time.monotonic() + 4
    while time.monotonic() < end:
        # Sometimes equal for a moment: the source follows what the writer wrote.
        disk.write(0, disk.read(4 * MIB, length))
        server.rpc("same", src=0, length=length, dsts=[4 * MIB])
        merges += 1
    ending.set()
    writer.join(60)
    expect(not errors and last[0] > 10, f"writes failed: {errors}, {last[0]} written")
    expected = last[0].to_bytes(8, "little") * (length // 8)
    expect(disk.read(4 * MIB, length) == expected, "the last write is not there")
    r.note(f"{merges} merges, {last[0]} writes")
    finish(server, disk)


def test_row_15_a_write_before_makes_it_differ(r):
    server, disk = start(r)
    data = fill_equal(disk, 0, 16 * BLOCK, MIB)
    disk.write(MIB + 3 * BLOCK, blocks("other"))
    result = server.same(0, 16 * BLOCK, MIB)[0]
    expect_equal(status_and_bytes(result), ("differs", 0), "result")
    expect_equal(disk.read(MIB + 3 * BLOCK, BLOCK), blocks("other"), "the write")
    expect_equal(disk.read(0, 16 * BLOCK), data, "the source")
    finish(server, disk)


def test_row_16_a_read_only_server(r):
    server, disk = start(r)
    data = fill_equal(disk, 0, BLOCK, MIB)
    disk.close()
    server.stop()
    server.start("--read-only")
    for command in (("same", 0, BLOCK, MIB), ("clone", 0, BLOCK, 2 * MIB)):
        done = server.cli(*command, ok=None)
        expect_equal(done.returncode, 2, f"exit status of {command}")
        expect("EROFS" in done.stdout + done.stderr or "ead-only" in done.stdout + done.stderr,
               f"{done.stdout}{done.stderr}")
    disk = server.connect()
    expect_equal(disk.read(MIB, BLOCK), data, "content")
    finish(server, disk)


def fill_up(disk, size):
    """Writes blocks from the start until the store is full; returns how many bytes went in."""
    import nbd
    step, off = MIB, 0
    while off < size:
        try:
            disk.write(off, blocks(off, step // BLOCK))
            off += step
        except nbd.Error as error:
            expect_equal(error.errno, "ENOSPC", "the error of a full store")
            if step == BLOCK:
                return off
            step = BLOCK
    raise rig.Failure("the store never got full")


def test_row_18_no_room_for_metadata(r):
    server = r.server(r.create("--size", "512M", "--store-size", "48M"))
    disk = server.connect()
    fill_up(disk, 512 * MIB)
    disk.flush()
    done = server.cli("clone", 0, BLOCK, 400 * MIB, ok=None)
    expect_equal(done.returncode, 2, "exit status of a clone into a hole region")
    expect("ENOSPC" in done.stdout + done.stderr or "space" in done.stdout + done.stderr,
           f"{done.stdout}{done.stderr}")
    expect_equal(disk.read(400 * MIB, BLOCK), bytes(BLOCK), "the failing slice")
    expect_equal(server.json("status")["state"].split()[0] != "read-only", True, "not latched")
    disk.discard(0, 4 * MIB)
    disk.write(0, blocks("again"))
    server.cli("clone", 0, BLOCK, 400 * MIB)
    expect_equal(disk.read(400 * MIB, BLOCK), blocks("again"), "the clone")
    finish(server, disk)


REFS_MAX = 65535


def test_row_19_a_saturated_refcount(r):
    server, disk = start(r, "512M")
    disk.write(0, blocks("one"))
    count = 1
    while count < REFS_MAX:
        more = min(count, REFS_MAX - count)
        server.cli("clone", 0, more * BLOCK, count * BLOCK)
        count += more
    dsts = [400 * MIB + i * BLOCK for i in range(3)]
    for dst in dsts:
        disk.write(dst, blocks("one"))
    result, error = server.rpc("same", src=0, length=BLOCK, dsts=dsts[:1])
    expect(error is None, f"{error}")
    expect_equal((result["results"][0]["status"], result["results"][0].get("error")),
                 ("error", "EMLINK"), "one owner too many")
    # The CLI goes on with the refused destination as the source of the others.
    results = server.same(0, BLOCK, *dsts)
    expect_equal([(x["status"], x.get("error")) for x in results],
                 [("error", "EMLINK"), ("same", None), ("same", None)], "statuses")
    expect_equal({physical(server, dst, BLOCK)[0][2] for dst in dsts},
                 {physical(server, dsts[0], BLOCK)[0][2]}, "where the three are")
    done = server.cli("clone", 0, BLOCK, 300 * MIB, ok=None)
    expect(done.returncode == 2 and "EMLINK" in done.stdout + done.stderr,
           f"a clone is refused as well: {done.stdout}{done.stderr}")
    expect(disk.read((REFS_MAX - 1) * BLOCK, BLOCK) == blocks("one"), "the last owner's content")
    finish(server, disk)


def test_row_20_a_read_error_is_never_same(r):
    need("nbdkit", "nbdfuse", "umount")
    if not os.path.exists("/dev/fuse"):
        raise rig.Skip("no /dev/fuse")
    with open(r.path("disk"), "wb") as f:
        f.truncate(96 * MIB)
    os.mkdir(r.path("mnt"))
    store, faults = r.path("mnt/store"), r.path("faults")
    r.spawn("nbdkit", "-f", "-U", r.path("sock"), "--filter=error", "file", r.path("disk"),
            "error-pread-rate=100%", f"error-file={faults}", "error=EIO",
            stderr=rig.subprocess.DEVNULL)
    rig.wait_until(lambda: os.path.exists(r.path("sock")), "nbdkit")
    r.later("umount", "-l", r.path("mnt"))
    fuse = r.spawn("nbdfuse", store, "--unix", r.path("sock"), stderr=rig.subprocess.DEVNULL)
    rig.wait_until(lambda: os.path.exists(store) or fuse.poll() is not None, "nbdfuse")
    if fuse.poll() is not None:
        raise rig.Skip("nbdfuse cannot mount here")
    rig.sameblk("create", "--force", "--size", "64M", store)
    # O_DIRECT, so that no page cache answers in the faulty disk's place.
    server = r.server(store, "--direct")
    disk = server.connect()
    data = fill_equal(disk, 0, 16 * BLOCK, MIB)
    with open(faults, "w", encoding="ascii"):
        pass
    result = server.same(0, 16 * BLOCK, MIB)[0]
    os.unlink(faults)
    expect_equal((result["status"], result.get("error")), ("error", "EIO"), "result")
    expect_equal(result["bytes_deduped"], 0, "bytes")
    expect_equal(disk.read(MIB, 16 * BLOCK), data, "content")
    result = server.same(0, 16 * BLOCK, MIB)[0]
    expect_equal(status_and_bytes(result), ("same", 16 * BLOCK), "when the disk reads again")
    finish(server, disk)


def test_row_21_interrupted(r):
    server, disk = start(r, "2G")
    length, count = 16 * MIB, 50
    dsts = [(1 + i) * length for i in range(count)]
    data = fill_equal(disk, 0, length, *dsts)
    with server.control_connect() as connection:
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 7, "method": "same", "params": {
            "src": 0, "length": length, "dsts": dsts}}).encode() + b"\n")
        time.sleep(0.05)
    # The client is gone; the server goes on serving, and what was merged stays merged.
    rig.wait_until(lambda: server.stats()["same_bytes"] == server.stats()["same_bytes"], "stats")
    expect_equal(disk.read(dsts[-1], length), data, "content after the client went")
    with server.control_connect() as connection:
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 8, "method": "same", "params": {
            "src": 0, "length": length, "dsts": dsts}}).encode() + b"\n")
        time.sleep(0.02)
        server.rpc("stop")
        with connection.makefile("rb") as answers:
            answer = json.loads(answers.readline() or b"null")
    server._wait()
    results = (answer or {}).get("result", {}).get("results", [])
    statuses = [(x["status"], x.get("error")) for x in results]
    r.note(f"{statuses.count(('same', None))} merged, "
           f"{statuses.count(('error', 'ECANCELED'))} cancelled when the server stopped")
    expect(set(statuses) <= {("same", None), ("error", "ECANCELED")}, f"{set(statuses)}")
    offline_check(server.store)
    server.start()
    disk = server.connect()
    for dst in (dsts[0], dsts[count // 2], dsts[-1]):
        expect_equal(disk.read(dst, length), data, f"content at {dst} after the stop")
    finish(server, disk)


def test_row_22_zeros(r):
    server, disk = start(r)

    def kinds(off):
        return {run["kind"] for run in server.json("map", off, 16 * BLOCK)["runs"]}
    for off in (MIB, 4 * MIB, 8 * MIB):
        disk.zero(off, 16 * BLOCK, no_hole=True)
        expect_equal(kinds(off), {"data"}, "zeros that are mapped")
    # A hole as the source, and the word zero.
    for src, dst in ((0, MIB), ("zero", 4 * MIB)):
        used = server.stats()["used_bytes"]
        result = server.same(src, 16 * BLOCK, dst)[0]
        expect_equal(used - server.stats()["used_bytes"], 16 * BLOCK, "what used_bytes fell by")
        expect_equal((*status_and_bytes(result), result["bytes_freed"]),
                     ("same", 16 * BLOCK, 16 * BLOCK), f"{src} -> {dst}")
        expect_equal(kinds(dst), {"hole"}, "the destination")
    # Mapped zeros onto a hole: the hole stays.
    result = server.same(8 * MIB, 16 * BLOCK, 16 * MIB)[0]
    expect_equal((*status_and_bytes(result), result["bytes_freed"]), ("same", 16 * BLOCK, 0),
                 "zeros onto a hole")
    expect_equal(kinds(16 * MIB), {"hole"}, "the hole")
    disk.write(20 * MIB, blocks("no zeros"))
    expect_equal(server.same("zero", BLOCK, 20 * MIB)[0]["status"], "differs", "what is not zeros")
    finish(server, disk)


def test_row_23_sync_makes_it_durable(r):
    server, disk = start(r)
    data = fill_equal(disk, 0, 64 * BLOCK, MIB, 2 * MIB)
    server.cli("same", 0, 64 * BLOCK, 2 * MIB)
    server.cli("same", "--sync", 0, 64 * BLOCK, MIB)
    server.kill()
    offline_check(server.store)
    server.start()
    disk = server.connect()
    expect_equal(physical(server, MIB, 64 * BLOCK), physical(server, 0, 64 * BLOCK), "shared")
    for off in (0, MIB, 2 * MIB):
        expect_equal(disk.read(off, 64 * BLOCK), data, "content")
    finish(server, disk)


def test_row_25_nothing_is_compared_inside_the_fence(r):
    server, disk = start(r, "256M")
    fill_equal(disk, 0, 32 * MIB, 64 * MIB)
    result = server.same(0, 32 * MIB, 64 * MIB)[0]
    expect_equal(status_and_bytes(result), ("same", 32 * MIB), "result")
    expect_equal(server.stats()["fenced_read_bytes"], 0, "bytes read under the fence")
    finish(server, disk)


if __name__ == "__main__":
    rig.main(globals())
