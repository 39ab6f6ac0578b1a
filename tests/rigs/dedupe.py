#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""dedupe - `sameblk dedupe` on real volumes: what it frees, what it says, and what it leaves alone

What is freed must be what a plain count of equal blocks gives, what the account says, and what
`stats` says; contents must not change, whatever happens meanwhile.
"""

import array
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

import rig
from rig import BLOCK, GIB, MIB, SAMEBLK, SAMEBLKD, blocks, expect, expect_equal, offline_check

SUMMARY_KEYS = {"scanned", "read", "duplicate", "merged", "freed", "rejected", "kept",
                "unreadable", "requests", "errors", "sample_bits", "dry_run", "complete",
                "elapsed_ms"}
REFERENCES_MAX = 65535
RUNS_MAX = 10


def start(r, size, *options):
    server = r.server(r.create("--size", size), *options)
    return server, server.connect()


def finish(server, disk):
    disk.close()
    server.stop()
    offline_check(server.store)


def dedupe(server, *options, ok=(0,), seconds=300):
    """The account of one run."""
    done = server.cli("dedupe", "--json-lines", *options, ok=ok, seconds=seconds)
    return json.loads(done.stdout.splitlines()[-1])["summary"]


def used(server, disk):
    disk.flush()
    return server.stats()["used_bytes"]


def settle(server, disk):
    """Until what was freed can be used again; places of metadata wait for a checkpoint."""
    def settled():
        disk.flush()
        return server.stats()["pending_bytes"] <= MIB
    rig.wait_until(settled, "freed blocks are free")
    return server.stats()


def write(disk, off, data):
    for i in range(0, len(data), 8 * MIB):
        disk.write(off + i, data[i:i + 8 * MIB])


def block_hashes(data):
    return [hashlib.blake2b(data[i:i + BLOCK], digest_size=16).digest()
            for i in range(0, len(data), BLOCK)]


ZERO = block_hashes(bytes(BLOCK))[0]


def to_be_freed(*pieces):
    """A plain count: the blocks that a volume of these pieces can do without."""
    hashes = [h for piece in pieces for h in block_hashes(piece)]
    return (len(hashes) - len(set(hashes) - {ZERO})) * BLOCK


def image(seed, size):
    """An image as disk images are: most of it unlike anything, some of it copied inside, zeros."""
    chance = random.Random(seed)
    data = bytearray()
    while len(data) < size:
        kind = chance.randrange(10)
        count = chance.randrange(1, 200)
        if kind == 0:
            data += bytes(count * BLOCK)
        elif kind < 3 and len(data) > MIB:
            at = chance.randrange(len(data) // BLOCK) * BLOCK
            data += data[at:at + count * BLOCK]
        else:
            data += chance.randbytes(count * BLOCK)
    return bytes(data[:size])


def differs_at(disk, off, data):
    for i in range(0, len(data), 8 * MIB):
        if disk.read(off + i, len(data[i:i + 8 * MIB])) != data[i:i + 8 * MIB]:
            return off + i
    return None


def expect_content(disk, off, data):
    at = differs_at(disk, off, data)
    expect(at is None, f"the content of the 8 MiB at {at} has changed")


def test_two_equal_images(r):
    """Images of 2 GiB with holes between; the second one is a copy with some blocks of its own."""
    server, disk = start(r, "5G")
    piece, count = (16 * MIB, 12) if not r.long else (128 * MIB, 16)
    step, base = 2 * GIB // 16, 2 * GIB + 5 * BLOCK
    first = [image(i, piece) for i in range(count)]
    second = [bytearray(p) for p in first]
    for i, p in enumerate(second):
        for j in range(10):
            p[j * MIB:j * MIB + BLOCK] = blocks(f"own {i} {j}")
    for i in range(count):
        write(disk, i * step, first[i])
        write(disk, base + i * step, bytes(second[i]))
    expected = to_be_freed(*first, *second)
    before, free_before = used(server, disk), settle(server, disk)["free_bytes"]
    account = dedupe(server)
    r.note(f"{before // MIB} MiB, freed {account['freed'] // MIB} MiB in "
           f"{account['elapsed_ms']} ms, {account['requests']} requests")
    expect_equal(account["freed"], expected, "freed, against a plain count of equal blocks")
    expect_equal(account["duplicate"], expected, "duplicate")
    expect_equal(account["rejected"], 0, "rejected")
    expect(account["complete"], "complete")
    expect_equal(before - used(server, disk), expected, "the drop of used_bytes")
    # Metadata that maps had to be split for takes a little of what was freed.
    expect(settle(server, disk)["free_bytes"] - free_before >= expected - 2 * MIB,
           "the rise of free_bytes")
    for i in range(count):
        expect_content(disk, i * step, first[i])
        expect_content(disk, base + i * step, bytes(second[i]))
    discard_second(server, disk, first, second, base, step)
    overwrite_shared(server, disk, first)
    finish(server, disk)


def discard_second(server, disk, first, second, base, step):
    """Discarding one copy frees what the other does not own, and no more."""
    mine = {h for p in first for h in block_hashes(p)}
    own = {h for p in second for h in block_hashes(bytes(p))} - mine - {ZERO}
    before = used(server, disk)
    for i, p in enumerate(second):
        disk.discard(base + i * step, len(p))
    expect_equal(before - used(server, disk), len(own) * BLOCK, "freed by discarding a copy")
    for i, p in enumerate(first):
        expect_content(disk, i * step, p)


def overwrite_shared(server, disk, first):
    """A block of two owners is copied by the first overwrite and free after the second."""
    at = [i for i, h in enumerate(block_hashes(first[0])) if h != ZERO][0] * BLOCK
    off = 4 * GIB + 512 * MIB
    disk.write(off, blocks("twice"))
    disk.write(off + MIB, blocks("twice"))
    expect_equal(dedupe(server)["freed"], BLOCK, "freed of two equal blocks")
    before = used(server, disk)
    disk.write(off, blocks("once"))
    expect_equal(used(server, disk) - before, BLOCK, "used after overwriting one of two")
    expect(disk.read(off + MIB, BLOCK) == blocks("twice"), "the other owner's block")
    disk.write(off + MIB, blocks("once more"))
    expect_equal(used(server, disk) - before, BLOCK, "used after overwriting both")
    expect_content(disk, at, first[0][at:at + BLOCK])


def test_a_shift_by_blocks_costs_nothing(r):
    server, disk = start(r, "1G")
    data = image("shifted", 64 * MIB)
    for i, shift in enumerate((0, 1, 3, 255, 511)):
        write(disk, i * 128 * MIB + shift * BLOCK, data)
    expected = to_be_freed(*[data] * 5)
    account = dedupe(server)
    expect_equal(account["freed"], expected, "freed")
    for i, shift in enumerate((0, 1, 3, 255, 511)):
        expect_content(disk, i * 128 * MIB + shift * BLOCK, data)
    finish(server, disk)


def test_constant_data(r):
    """One byte all over: more copies than a block can have references."""
    size = 4 * GIB if r.long else 272 * MIB
    server, disk = start(r, "5G")
    piece = b"\x55" * (8 * MIB)
    for off in range(0, size, len(piece)):
        disk.write(off, piece)
    before = used(server, disk)
    account = dedupe(server)
    after = used(server, disk)
    expect_equal(before - after, account["freed"], "freed")
    least = -(-size // BLOCK // REFERENCES_MAX)
    # Requests in flight may each find the block full, and choose a new one each.
    expect(least <= after // BLOCK <= 40 * least,
           f"{after // BLOCK} blocks hold what {least} could")
    expect_equal(account["kept"] + BLOCK, after, "kept: those, and the first")
    # Those that are full stay as they are; of the others each run brings some together.
    for run in range(2, RUNS_MAX):
        again = dedupe(server)
        if again["requests"] == 0:
            break
        expect(again["freed"] > 0, f"run {run} has done nothing by {again['requests']} requests")
        expect_equal(after - used(server, disk), again["freed"], f"freed by run {run}")
        after -= again["freed"]
    r.note(f"{size // MIB} MiB: {-(-account['kept'] // BLOCK)} blocks kept by the first run, "
           f"{after // BLOCK} after run {run}")
    expect_equal((again["requests"], after // BLOCK), (0, least), "requests and blocks at the end")
    for off in range(0, size, 64 * MIB):
        expect(disk.read(off, len(piece)) == piece, f"content at {off}")
    finish(server, disk)


def test_ten_thousand_destinations(r):
    server, disk = start(r, "1G")
    run = blocks("many", 4)
    offs = [i * 8 * BLOCK for i in range(10001)]
    for off in offs:
        disk.write(off, run)
    account = dedupe(server)
    expect_equal(account["freed"], 10000 * len(run), "freed by dedupe")
    expect(account["requests"] < 100, f"{account['requests']} requests where a few will do")
    for off in offs[::97]:
        expect(disk.read(off, len(run)) == run, f"content at {off}")
    # And by one line of `same`, the last destination first.
    other = blocks("others", 4)
    for off in offs:
        disk.write(off, other)
    before = used(server, disk)
    line = " ".join(str(n) for n in [0, len(other), *reversed(offs[1:])])
    with open(r.path("line"), "w", encoding="ascii") as f:
        f.write(line + "\n")
    done = server.cli("same", "--batch", r.path("line"), "--json-lines")
    expect_equal(json.loads(done.stdout.splitlines()[-1])["summary"]["bytes_freed"],
                 10000 * len(other), "freed by same")
    expect_equal(before - used(server, disk), 10000 * len(other), "the drop of used_bytes")
    finish(server, disk)


def test_requests_that_overlap_in_flight(r):
    """Chains, in both directions: each line's source is another one's destination."""
    server, disk = start(r, "256M")
    run = blocks("chain", 64)
    offs = [i * len(run) for i in range(200)]
    for off in offs:
        disk.write(off, run)
    before = used(server, disk)
    lines = [(a, b) for a, b in zip(offs, offs[1:])]
    lines += [(b, a) for a, b in reversed(lines)]
    # Ranges that overlap those of their neighbours by half.
    lines += [(a + len(run) // 2, b + len(run) // 2) for a, b in zip(offs[:-2], offs[1:-1])]
    clients = []
    for i in range(3):
        with open(r.path(f"lines{i}"), "w", encoding="ascii") as f:
            random.Random(i).shuffle(lines)
            f.writelines(f"{src} {len(run)} {dst}\n" for src, dst in lines)
        clients.append(r.spawn(SAMEBLK, "same", "-c", server.control, "--batch",
                               r.path(f"lines{i}"), stdout=subprocess.DEVNULL))
    for client in clients:
        expect_equal(client.wait(120), 0, "exit status of a batch")
    # Nothing but sharing has happened, and one more run brings it all together.
    dedupe(server)
    expect_equal(before - used(server, disk), 199 * len(run), "freed in the end")
    for off in offs:
        expect(disk.read(off, len(run)) == run, f"content at {off}")
    finish(server, disk)


def test_a_dry_run_changes_nothing(r):
    server, disk = start(r, "512M")
    data = image("dry", 48 * MIB)
    write(disk, 0, data)
    write(disk, 128 * MIB, data)
    disk.flush()
    before = server.stats()
    dry = dedupe(server, "--dry-run", "--hashfile", r.path("hashes"))
    after = server.stats()
    for key in ("used_bytes", "mapped_bytes", "shared_bytes", "journal_edits", "writes",
                "same_requests"):
        expect_equal(after[key], before[key], key)
    expect(dry["dry_run"], "it says that it was one")
    expect_equal(dry["freed"], to_be_freed(data, data), "the estimate")
    account = dedupe(server, "--hashfile", r.path("hashes"))
    expect_equal(account["read"], 0, "read again, with the dry run's hashfile")
    expect_equal(account["freed"], dry["freed"], "freed, against the estimate")
    finish(server, disk)


def test_shared_blocks_are_read_once(r):
    server, disk = start(r, "1G")
    data = image("once", 64 * MIB)
    for i in range(6):
        write(disk, i * 130 * MIB, data)
    dedupe(server)
    before = server.stats()
    account = dedupe(server)
    after = server.stats()
    expect_equal(after["read_bytes"] - before["read_bytes"], account["read"], "read")
    # What is under way at one moment may be read twice.
    expect(account["read"] <= before["used_bytes"] + 32 * MIB,
           f"{account['read'] // MIB} MiB read of {before['used_bytes'] // MIB} MiB")
    expect_equal((account["duplicate"], account["freed"], account["requests"]), (0, 0, 0),
                 "left to do after a first run")
    finish(server, disk)


def slow_run(r, server, *options):
    return r.spawn(SAMEBLK, "dedupe", "-c", server.control, "--json-lines", "--hashfile",
                   r.path("hashes"), "--max-rate", "48M", *options, stdout=subprocess.PIPE,
                   stderr=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on(r):
    server, disk = start(r, "1G")
    data = image("killed", 96 * MIB)
    write(disk, 0, data)
    write(disk, 256 * MIB + BLOCK, data)
    disk.flush()
    process = slow_run(r, server)
    time.sleep(2.5)
    process.kill()
    process.wait()
    account = dedupe(server, "--hashfile", r.path("hashes"))
    expect(account["read"] <= 2 * len(data) - 32 * MIB,
           f"{account['read'] // MIB} of {2 * len(data) // MIB} MiB read again")
    expect_equal(account["freed"], to_be_freed(data, data), "freed")
    expect(account["complete"], "complete")
    expect_content(disk, 256 * MIB + BLOCK, data)
    finish(server, disk)


def test_an_interrupted_run_says_so_and_goes_on(r):
    server, disk = start(r, "1G")
    data = image("interrupted", 96 * MIB)
    write(disk, 0, data)
    write(disk, 256 * MIB, data)
    disk.flush()
    process = slow_run(r, server)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60 * rig.slowness())
    expect_equal(process.returncode, 1, "exit status")
    first = json.loads(out.splitlines()[-1])["summary"]
    expect(not first["complete"], "it says that it was complete")
    expect("same hashfile" in err, f"what to do is not said: {err!r}")
    account = dedupe(server, "--hashfile", r.path("hashes"))
    expect_equal(first["read"] + account["read"], 2 * len(data), "read by both")
    expect_equal(account["freed"], to_be_freed(data, data), "freed")
    finish(server, disk)


def tracks_changes(server):
    return server.rpc("changes", since=0)[1] is None


def test_a_second_run_reads_almost_nothing(r):
    server, disk = start(r, "1G")
    if not tracks_changes(server):
        raise rig.Skip("this server does not track changes")
    data = image("second", 96 * MIB)
    write(disk, 0, data)
    write(disk, 256 * MIB, data)
    hashes = ("--hashfile", r.path("hashes"))
    first = dedupe(server, *hashes)
    second = dedupe(server, *hashes)
    expect_equal((second["read"], second["freed"], second["requests"]), (0, 0, 0), "again")
    disk.close()
    server.stop()
    server.start()
    disk = server.connect()
    third = dedupe(server, *hashes)
    expect(third["read"] <= first["read"] // 100, f"{third['read']} read after a restart")
    # A copy of something that was there before is found without reading that again.
    write(disk, 700 * MIB, data[8 * MIB:12 * MIB])
    fourth = dedupe(server, *hashes)
    expect(fourth["read"] <= 8 * MIB, f"{fourth['read']} read after 4 MiB were written")
    expect_equal(fourth["freed"], 4 * MIB, "freed of what was written")
    finish(server, disk)


def test_the_hashfile_of_another_volume_is_refused(r):
    one, disk_one = start(r, "64M")
    write(disk_one, 0, blocks("one", 100))
    dedupe(one, "--hashfile", r.path("hashes"))
    two = rig.Server(r, r.create("--size", "64M", name="store2"), name="two").start()
    done = two.cli("dedupe", "--hashfile", r.path("hashes"), ok=(2,))
    expect("belongs to the volume" in done.stderr, f"why: {done.stderr}")
    dedupe(one, "--hashfile", r.path("hashes"))
    two.stop()
    finish(one, disk_one)


def test_range_and_shortest_run_are_kept_to(r):
    server, disk = start(r, "256M")
    data = blocks("ranges", 1024)
    for off in (0, 16 * MIB, 32 * MIB):
        write(disk, off, data)
    before = server.json("map", 0, 16 * MIB)
    account = dedupe(server, "--range", f"{16 * MIB + 64 * BLOCK}:{32 * MIB}")
    expect_equal(account["freed"], (1024 - 64) * BLOCK, "freed inside the range")
    expect_equal(server.json("map", 0, 16 * MIB), before, "the map outside the range")
    for i in range(100):
        disk.write(64 * MIB + 2 * i * BLOCK, data[i * BLOCK:(i + 1) * BLOCK])
    disk.write(96 * MIB, data[:16 * BLOCK])
    account = dedupe(server, "--min-run", "64K", "--range", f"64M:{64 * MIB}")
    expect_equal(account["freed"], 0, "freed where there is no long run in the range")
    account = dedupe(server, "--min-run", "64K")
    # One of three copies, the heads that lay outside the range, and the run at 96 MiB.
    expect_equal(account["freed"], len(data) + (64 + 16) * BLOCK, "freed in runs of 64 KiB or more")
    expect_content(disk, 96 * MIB, data[:16 * BLOCK])
    finish(server, disk)


def test_the_rate_is_limited(r):
    server, disk = start(r, "256M")
    write(disk, 0, image("rate", 64 * MIB))
    disk.flush()
    account = dedupe(server, "--dry-run", "--max-rate", "32M")
    expect(account["elapsed_ms"] >= 1800, f"64 MiB at 32 MiB/s took {account['elapsed_ms']} ms")
    finish(server, disk)


def test_output(r):
    server, disk = start(r, "256M")
    data = image("output", 32 * MIB)
    write(disk, 0, data)
    write(disk, 64 * MIB, data)
    disk.flush()
    done = server.cli("dedupe", "--json-lines", "--max-rate", "24M")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    expect_equal(set(lines[-1]["summary"]), SUMMARY_KEYS, "keys of the account")
    expect(len(lines) > 1, "no progress within seconds")
    for line in lines[:-1]:
        keys = set(line["progress"]) - {"eta_seconds"}
        expect_equal(keys, {"phase", "done", "total", "rate", "scanned", "duplicate", "freed",
                            "rejected", "elapsed_ms"}, "keys of progress")
    expect_equal(done.stderr, "", "stderr with --json-lines")
    expect_equal(len(server.cli("dedupe", "--json-lines", "--no-progress").stdout.splitlines()), 1,
                 "lines with --no-progress")
    done = server.cli("dedupe")
    expect(done.stdout.startswith("summary: scanned "), f"the account as text: {done.stdout!r}")
    for word in ("scanned", "duplicate", "freed", "rejected"):
        expect(f" {word} " in done.stdout, f"{word} is missing: {done.stdout!r}")
    for bad in (["--memory", "1M"], ["--min-run", "5000"], ["--min-run", "0"], ["--range", "5"],
                ["--range", "1:4096"], ["--range", "0:1T"], ["--max-rate", "0"], ["operand"]):
        done = server.cli("dedupe", *bad, ok=(2,))
        expect_equal(done.stdout, "", f"stdout of dedupe {' '.join(bad)}")
        expect(done.stderr.startswith("sameblk dedupe: "), f"stderr: {done.stderr!r}")
    finish(server, disk)


def test_a_read_only_volume_is_looked_at_only(r):
    server, disk = start(r, "128M")
    data = image("read-only", 16 * MIB)
    write(disk, 0, data)
    write(disk, 64 * MIB, data)
    disk.close()
    server.stop()
    server.start("--read-only")
    done = server.cli("dedupe", ok=(2,))
    expect("read-only" in done.stderr, f"why: {done.stderr!r}")
    expect_equal(dedupe(server, "--dry-run")["freed"], to_be_freed(data, data), "the estimate")
    server.stop()


def test_without_an_nbd_listener(r):
    """The connection comes over the control socket; the server has one client, on its stdin."""
    import nbd
    store, control = r.create("--size", "128M"), r.path("only.ctl")
    ours, theirs = socket.socketpair()
    with open(r.path("only.log"), "wb") as log:
        process = r.spawn(SAMEBLKD, "--single", "-c", control, store, stdin=theirs, stdout=theirs,
                          stderr=log)
    theirs.close()
    client = nbd.NBD()
    client.connect_socket(ours.detach())
    data = image("alone", 16 * MIB)
    for off in (0, 64 * MIB):
        for i in range(0, len(data), MIB):
            client.pwrite(data[i:i + MIB], off + i)
    client.flush()
    rig.wait_until(lambda: os.path.exists(control), "the control socket")
    done = rig.sameblk("dedupe", "-c", control, "--json-lines")
    account = json.loads(done.stdout.splitlines()[-1])["summary"]
    expect_equal(account["freed"], to_be_freed(data, data), "freed")
    client.shutdown()
    expect_equal(process.wait(60), 0, "exit status of the server")
    offline_check(store)


def test_an_nbd_connection_is_handed_out(r):
    """As docs/control-protocol.md has it: one descriptor, with the answer's first byte."""
    import nbd
    server = r.server(r.create("--size", "64M"), "--export", "named")
    disk = rig.Disk("nbd+unix:///named?socket=" + server.nbd)
    disk.write(0, blocks("handed out"))
    with server.control_connect() as connection:
        connection.sendall(b'{"jsonrpc":"2.0","id":9,"method":"nbd"}\n')
        first, fds, _, _ = socket.recv_fds(connection, 1, 4)
        expect_equal(len(fds), 1, "descriptors")
        with connection.makefile("rb") as answers:
            answer = json.loads(first + answers.readline())
    expect_equal(answer, {"jsonrpc": "2.0", "id": 9, "result": {"descriptors": 1}}, "the answer")
    client = nbd.NBD()
    client.connect_socket(fds[0])
    expect(bytes(client.pread(BLOCK, 0)) == blocks("handed out"), "what is read there")
    client.pwrite(blocks("and back"), BLOCK)
    expect(disk.read(BLOCK, BLOCK) == blocks("and back"), "what was written there")
    # It is a client like any other: a stop ends it.
    server.stop()
    offline_check(server.store)


def handed_out(server):
    """An NBD client on a connection that came over the control socket."""
    import nbd
    with server.control_connect() as connection:
        connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"nbd"}\n')
        _, fds, _, _ = socket.recv_fds(connection, 4096, 4)
    client = nbd.NBD()
    client.connect_socket(fds[0])
    return client


def test_where_tls_is_required(r):
    """Whoever may control is let in without it, others are not."""
    import nbd
    with open(r.path("keys.psk"), "w", encoding="ascii") as f:
        f.write("somebody:" + 64 * "5a" + "\n")
    server = r.server(r.create("--size", "64M"), "--tls-psk", r.path("keys.psk"), "--tls-required")
    try:
        nbd.NBD().connect_uri(server.uri)
        raise rig.Failure("a client without TLS was let in")
    except nbd.Error:
        pass
    client = handed_out(server)
    for off in range(0, 8 * MIB, MIB):
        client.pwrite(blocks("behind TLS", MIB // BLOCK), off)
    client.shutdown()
    expect_equal(dedupe(server)["freed"], 7 * MIB, "freed")
    server.stop()
    offline_check(server.store)


class Writer(threading.Thread):
    """Flips bytes of two images for as long as it may, and knows what they should hold."""

    def __init__(self, server, first, second, content):
        super().__init__()
        self.disk = server.connect()
        self.images = [(first, bytearray(content)), (second, bytearray(content))]
        self.end = threading.Event()
        self.flips = 0
        self.failure = None

    def run(self):
        chance = random.Random("flips")
        try:
            while not self.end.is_set():
                off, data = chance.choice(self.images)
                # Often there and back, so that blocks become equal again while being compared.
                at = chance.randrange(len(data) // BLOCK) * BLOCK + chance.choice((0, 17, 4095))
                data[at] ^= 1
                self.disk.write(off + at, bytes(data[at:at + 1]))
                self.flips += 1
        except Exception as failure:  # told by the test
            self.failure = failure


def test_race_with_a_writer(r):
    """As generic/630: no flip is ever lost, and a range that changed is no failure."""
    server, disk = start(r, "512M")
    data = image("race", 24 * MIB)
    first, second = 0, 128 * MIB + 3 * BLOCK
    write(disk, first, data)
    write(disk, second, data)
    writer = Writer(server, first, second, data)
    writer.start()
    runs, rejected, freed = 0, 0, 0
    end = time.monotonic() + (60 if r.long else 10)
    while time.monotonic() < end:
        account = dedupe(server)
        expect_equal(account["errors"], 0, "errors")
        runs, rejected, freed = runs + 1, rejected + account["rejected"], freed + account["freed"]
    writer.end.set()
    writer.join()
    expect(writer.failure is None, f"the writer failed: {writer.failure}")
    r.note(f"{runs} runs, {writer.flips} flips, rejected {rejected // BLOCK} blocks, "
           f"freed {freed // MIB} MiB")
    expect(writer.flips > 100 and runs > 0, "nothing raced")
    for off, content in writer.images:
        expect_content(disk, off, bytes(content))
    before = used(server, disk)
    account = dedupe(server)
    expect_equal(before - used(server, disk), account["freed"], "freed when nobody writes")
    for off, content in writer.images:
        expect_content(disk, off, bytes(content))
    finish(server, disk)


def needed(*pieces):
    """The bytes that a volume of these pieces cannot do without."""
    return len({h for piece in pieces for h in block_hashes(bytes(piece))} - {ZERO}) * BLOCK


def edit(disk, images, chance):
    """Writes a run of blocks: new ones, zeros, or a copy from elsewhere."""
    off, data = chance.choice(images)
    count = chance.randrange(1, 60) * BLOCK
    at = chance.randrange((len(data) - count) // BLOCK) * BLOCK
    kind = chance.randrange(4)
    _, other = chance.choice(images)
    start = chance.randrange((len(other) - count) // BLOCK) * BLOCK
    run = (bytes(count) if kind == 0 else chance.randbytes(count) if kind == 1
           else bytes(other[start:start + count]))
    data[at:at + count] = run
    disk.write(off + at, run)


def test_runs_with_a_hashfile_miss_nothing(r):
    """Whatever was written meanwhile and between them, the last run leaves each content once."""
    server, disk = start(r, "256M")
    data = image("miss nothing", 16 * MIB)
    first, second = 0, 64 * MIB + 3 * BLOCK
    write(disk, first, data)
    write(disk, second, data)
    hashes = ("--hashfile", r.path("hashes"))
    writer = Writer(server, first, second, data)
    writer.start()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        dedupe(server, *hashes)
    writer.end.set()
    writer.join()
    expect(writer.failure is None, f"the writer failed: {writer.failure}")
    account = dedupe(server, *hashes)
    contents = [bytes(content) for _, content in writer.images]
    expect_equal(used(server, disk), needed(*contents), "used after a race")
    read, chance = account["read"], random.Random("edits")
    for i in range(5):
        for _ in range(20):
            edit(disk, writer.images, chance)
        read += dedupe(server, *hashes)["read"]
        contents = [bytes(content) for _, content in writer.images]
        expect_equal(used(server, disk), needed(*contents), f"used after edits {i}")
    r.note(f"{read // MIB} MiB read by six runs over {2 * len(data) // MIB} MiB")
    for off, content in writer.images:
        expect_content(disk, off, bytes(content))
    finish(server, disk)


def test_a_server_that_dies_is_said_so(r):
    server, disk = start(r, "512M")
    write(disk, 0, image("dies", 96 * MIB))
    disk.flush()
    process = slow_run(r, server)
    time.sleep(1)
    server.kill()
    _, err = process.communicate(timeout=60 * rig.slowness())
    expect_equal(process.returncode, 2, "exit status")
    expect("closed the connection" in err, f"stderr: {err!r}")
    server.start()
    disk = server.connect()
    account = dedupe(server, "--hashfile", r.path("hashes"))
    expect(account["complete"], "the next run is complete")
    finish(server, disk)


def test_the_finder_keeps_to_its_memory(r):
    """2^24 hashes under 1 MiB; with --long 2^32 under 256 MiB."""
    for blocks_log2, kib in [(24, 1024)] + ([(32, 256 * 1024)] if r.long else []):
        done = rig.run(os.path.join(rig.BIN, "tests", "cli", "finder_bound"), blocks_log2, kib,
                       seconds=3600)
        r.note(done.stdout.strip())


def test_the_hashfile_is_small(r):
    """The bytes that docs/dedupe.md tells for a TiB; with --long of 64 GiB.

    TMPDIR may name a filesystem that compresses: nothing but a number in each block makes it unlike
    the others.
    """
    size = 64 * GIB if r.long else 256 * MIB
    server, disk = start(r, "65G")
    stamped = array.array("Q", bytes(8 * MIB))
    for off in range(0, size, 8 * MIB):
        for i in range(0, len(stamped), BLOCK // 8):
            stamped[i] = 1 + off // 8 + i
        disk.write(off, stamped.tobytes())
    account = dedupe(server, "--hashfile", r.path("hashes"), seconds=3600)
    expect_equal((account["read"], account["duplicate"]), (size, 0), "read, and duplicate")
    r.note(f"{size // MIB} MiB read and hashed in {account['elapsed_ms']} ms")
    per_tib = os.path.getsize(r.path("hashes")) * (1 << 40) // size
    r.note(f"{per_tib / GIB:.2f} GiB of hashfile for a TiB of data")
    expect(per_tib <= 4.6 * GIB, f"{per_tib} bytes for a TiB")
    finish(server, disk)


def test_a_hashfile_with_a_generation_that_cannot_be_begins_anew(r):
    import sqlite3
    server = r.server(r.create("--size", "8M"))
    disk = server.connect()
    for at in (0, 4 * MIB):
        disk.write(at, blocks(1, 64))
    disk.close()
    hashes = r.path("hashes")
    server.cli("dedupe", "--hashfile", hashes)
    with contextlib.closing(sqlite3.connect(hashes)) as file:
        file.execute("UPDATE about SET value=? WHERE key='generation'", (2 ** 40,))
        file.commit()
    done = server.cli("dedupe", "--hashfile", hashes, ok=None)
    expect_equal(done.returncode, 0, f"exit status: {done.stderr}")
    expect("begins anew" in done.stderr, f"it says {done.stderr!r}")
    server.stop()


if __name__ == "__main__":
    rig.main(globals())
