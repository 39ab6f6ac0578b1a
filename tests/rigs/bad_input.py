#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""bad_input - stores, sizes and clients as they should not be: a clear error, a living
server, nothing lost"""

import contextlib
import fcntl
import json
import os
import random
import resource
import signal
import socket
import struct
import time

import rig
from rig import BLOCK, MIB, blocks, expect, expect_equal, sameblk

FLIPS, FLIPS_LONG = 40, 1000
HUGE_LINE_BYTES = 100 * MIB


def refused(r, store, *words, options=()):
    """The server does not serve the store, says why in one line at least, and ends with 2."""
    log = r.path("refused.log")
    with open(log, "wb") as err:
        process = r.spawn(rig.SAMEBLKD, "-U", r.path("refused.nbd"), "-c", r.path("refused.ctl"),
                          *options, store, stdout=rig.subprocess.DEVNULL, stderr=err)
    ended = process.wait(60)
    with open(log, encoding="utf-8", errors="replace") as f:
        said = f.read()
    expect(not rig.BAD_IN_LOG.search(said), said[-2000:])
    expect_equal(ended, 2, f"exit status; it said {said!r}")
    expect(any(line.startswith("sameblk") for line in said.splitlines()),
           f"no clear error: {said!r}")
    for word in words:
        expect(word in said, f"the error does not say {word!r}: {said!r}")


def status(*args):
    return sameblk(*args, ok=None).returncode


def good_store(r):
    """A store that was stopped cleanly, and where its data lies."""
    server = r.server(r.create("--size", "64M"))
    disk = server.connect()
    for i in range(40):
        disk.write(i * MIB, blocks(i, 16))
    disk.flush()
    server.cli("clone", 0, 8 * BLOCK, 50 * MIB)
    runs = [x for x in server.json("map")["runs"] if x["kind"] == "data"]
    disk.close()
    server.stop()
    return server, [(x["physical"], x["physical"] + x["length"]) for x in runs]


def test_store_absent_or_empty(r):
    refused(r, r.path("absent"), r.path("absent"))
    open(r.path("empty"), "wb").close()
    refused(r, r.path("empty"))
    refused(r, r.folder)
    expect_equal(status("check", r.path("absent")), 2, "check of an absent store")
    expect(status("check", r.path("empty")) in (1, 2), "check of an empty store is clean")


def test_store_foreign(r):
    path = r.path("foreign")
    with open(path, "wb") as f:
        f.write(random.Random(1).randbytes(8 * MIB))
    refused(r, path)
    with open(path, "wb") as f:
        f.truncate(64 * MIB)
    rig.need("mkfs.ext4")
    rig.run("mkfs.ext4", "-q", "-F", path)
    refused(r, path)
    before = rig.run("sha256sum", path).stdout
    done = sameblk("create", "--size", "32M", path, ok=None)
    expect_equal(done.returncode, 2, "create over a filesystem")
    expect("ext4" in done.stderr and "--force" in done.stderr, f"what is there: {done.stderr}")
    expect_equal(rig.run("sha256sum", path).stdout, before, "the filesystem")
    sameblk("create", "--force", "--size", "32M", path)
    done = sameblk("create", "--size", "32M", path, ok=None)
    expect_equal(done.returncode, 2, "create over a volume")
    expect("--force" in done.stderr, done.stderr)
    rig.offline_check(path)


def test_store_truncated(r):
    server, _ = good_store(r)
    size = os.path.getsize(server.store)
    for cut in (size - BLOCK, size // 2, 64 * 1024, BLOCK, 100):
        os.truncate(server.store, cut)
        refused(r, server.store)
        expect(status("check", server.store) in (1, 2), "check of a cut store is clean")


def serve_or_refuse(server):
    """With a flipped bit: either a clear refusal, or every read is right or an error."""
    import nbd
    try:
        server.start()
    except rig.Failure:
        expect(not rig.BAD_IN_LOG.search(server.log()), server.log()[-2000:])
        expect_equal(server.process.wait(60), 2, f"exit status; it said {server.log()[-500:]}")
        return "refused"
    disk = server.connect()
    outcome = "served"
    for i in range(40):
        try:
            expect(disk.read(i * MIB, 16 * BLOCK) == blocks(i, 16), f"wrong content at {i} MiB")
        except nbd.Error:
            outcome = "read errors"
    expect(server.alive(), "the server died: " + server.log()[-2000:])
    server.kill()
    return outcome


def test_store_with_flipped_bits(r):
    server, data = good_store(r)
    with open(server.store, "rb") as f:
        whole = f.read()
    # Blocks that hold something and are no data.
    places = [b for b in range(0, len(whole), BLOCK) if any(whole[b:b + BLOCK])
              and not any(start <= b < end for start, end in data)]
    chance = random.Random(int(os.environ.get("SEED", "5")))
    outcomes = {}
    for i in range(FLIPS_LONG if r.long else FLIPS):
        # Each of the first blocks once, as they are of the superblock; then anywhere.
        place = places[i] if i < 4 else chance.choice(places)
        at = place + chance.randrange(BLOCK)
        with open(server.store, "wb") as f:
            f.write(whole)
            f.seek(at)
            f.write(bytes([whole[at] ^ 1 << chance.randrange(8)]))
        outcome = f"check {status('check', server.store)}, {serve_or_refuse(server)}"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    r.note(f"{len(places)} blocks of metadata; "
           + ", ".join(f"{n} x {o}" for o, n in outcomes.items()))
    expect(any(o.startswith("check 1") for o in outcomes), "check never saw anything")


def test_a_superblock_that_is_gone_is_found_and_the_other_one_serves(r):
    server, _ = good_store(r)
    with open(server.store, "rb") as f:
        whole = f.read()
    blocks_each, = struct.unpack_from("<I", whole, 96)
    for copy, at in (("A", 0), ("B", struct.unpack_from("<Q", whole, 120)[0] * BLOCK)):
        with open(server.store, "r+b") as f:
            f.write(whole)
            f.seek(at)
            f.write(bytes(blocks_each * BLOCK))
        done = sameblk("check", "--json", server.store, ok=(1,))
        found = json.loads(done.stdout)
        expect_equal([f["where"] for f in found["findings"]], [f"superblock copy {copy}"], "found")
        expect_equal((found["clean"], found["clean_shutdown"]), (False, True), "verdict")
        expect_equal(serve_or_refuse(server), "served", "the store")
        rig.offline_check(server.store)


def test_a_copy_of_two_moments_is_told(r):
    """What cp does to a store in use: the end of the file is read later than its beginning."""
    server = r.server(r.create("--size", "64M"))
    disk = server.connect()
    for i in range(0, 1024, 2):
        disk.write(i * BLOCK, blocks(i))
    disk.flush()
    server.kill()
    done = json.loads(sameblk("check", "--json", server.store).stdout)
    expect_equal((done["clean_shutdown"], "copied_in_use" in done), (False, False), "killed")
    expect("single moment" in sameblk("check", server.store).stdout, "nothing is said of copies")
    with open(server.store, "rb") as f:
        data_start, = struct.unpack_from("<Q", f.read(BLOCK), 128)
        f.seek(0)
        first = f.read(data_start * BLOCK)
    server.start()
    disk = server.connect()
    disk.write(BLOCK, blocks(1))
    disk.flush()
    server.stop()
    with open(server.store, "r+b") as f:
        f.write(first)
    done = json.loads(sameblk("check", "--json", server.store, ok=(1,)).stdout)
    expect(done["findings_total"] > 0 and done.get("copied_in_use"), f"it found {done}")


def test_sizes(r):
    bad = [("--size", size) for size in ("4097", "0", "512K", "65T", "-4096", "1G1", "9" * 20)]
    bad += [("--size", "64M", "--store-size", size) for size in ("64K", "1000")]
    for options in bad + [()]:
        path = r.path("sized")
        done = sameblk("create", *options, path, ok=None)
        expect_equal(done.returncode, 2, f"create {' '.join(options)}: {done.stdout}")
        expect(done.stderr.startswith("sameblk"), f"create {' '.join(options)}: {done.stderr!r}")
        expect(not os.path.exists(path), f"create {' '.join(options)} left a file behind")
    for size in ("1M", "0x100000", "1028K", "3G"):
        sameblk("create", "--size", size, r.path("good"))
        rig.offline_check(r.path("good"))
        os.unlink(r.path("good"))


def test_create_that_is_interrupted_leaves_no_file(r):
    path = r.path("half")
    create = r.spawn(rig.SAMEBLK, "create", "--size", "64T", "--store-size", "8G", path,
                     stderr=rig.subprocess.PIPE, text=True)
    rig.wait_until(lambda: os.path.exists(path), "the file is there", pause=0.001)
    create.send_signal(signal.SIGINT)
    said = create.stderr.read()
    expect_equal(create.wait(60), 2, "exit status")
    expect("interrupted" in said, said)
    expect(not os.path.exists(path), "the file is still there")


def test_commands_and_options(r):
    server = r.server(r.create("--size", "8M"))
    for args in (("nonsense",), (), ("same",), ("same", "0"), ("same", "a", "b", "c"), ("create",),
                 ("status", "--nonsense"), ("check",), ("clone", "0", "4096"),
                 ("map", "4096", "x")):
        done = sameblk(*args, "-c", server.control, ok=None) if args else sameblk(ok=None)
        expect_equal(done.returncode, 2, f"sameblk {' '.join(args)}: {done.stdout}")
        expect(done.stderr, f"sameblk {' '.join(args)} says nothing")
    for args in (("--nonsense",), (), ("-p", "70000", server.store)):
        done = rig.run(rig.SAMEBLKD, *args, ok=None)
        expect_equal(done.returncode, 2, f"sameblkd {' '.join(args)}: {done.stderr}")
    done = rig.run(rig.SAMEBLKD, r.create("--size", "8M", name="other"), ok=None)
    expect(done.returncode == 2 and "-U" in done.stderr, f"nothing to serve: {done.stderr}")
    server.stop()


def test_store_in_use(r):
    server = r.server(r.create("--size", "8M"))
    began = time.monotonic()
    refused(r, server.store, "use")
    expect(2 < time.monotonic() - began < 30 * rig.slowness(),
           "the lock is waited for, some 5 seconds")
    done = sameblk("check", server.store, ok=None)
    expect_equal(done.returncode, 2, "check of a store in use")
    expect(str(server.process.pid) in done.stderr, f"check names the pid: {done.stderr}")
    expect_equal(status("create", "--force", "--size", "8M", server.store), 2, "create over it")
    # The same sockets, another store: a live one is not taken away.
    other = rig.Server(r, r.create("--size", "8M", name="other"), name="server")
    done = rig.run(rig.SAMEBLKD, "-U", server.nbd, "-c", r.path("x.ctl"), other.store, ok=None)
    expect(done.returncode == 2 and server.nbd in done.stderr, f"a live socket: {done.stderr}")
    expect_equal(server.json("status")["state"], "ok", "state")
    server.stop()


def still_fine(server, disk, data):
    expect(server.alive(), "the server died: " + server.log()[-2000:])
    expect_equal(server.json("status")["state"], "ok", "state")
    expect_equal(disk.read(0, len(data)), data, "content")


def call(method, params="{}"):
    return f'{{"jsonrpc":"2.0","id":1,"method":{method},"params":{params}}}'


def test_control_clients(r):
    server = r.server(r.create("--size", "8M"))
    disk, data = server.connect(), blocks("kept", 16)
    disk.write(0, data)
    lines = ["garbage", "{", "[]", "null", "{}", '{"jsonrpc":"2.0"}', "\x00\x00", "[" * 100000,
             call('"nonsense"'), call("7"), call('"same"'), call('"same"', "[]"),
             call('"same"', '{"src":-1,"length":4096,"dsts":[8192]}'),
             call('"same"', '{"src":0,"length":1e99,"dsts":[8192]}'),
             call('"same"', '{"src":0,"length":4096,"dsts":"x"}'),
             call('"map"', '{"offset":99999999999999999999}')]
    for line in lines:
        answer = server.control_line(line, 30)
        expect("error" in answer, f"{line[:60]!r} is answered with an error, not {answer!r}")
        still_fine(server, disk, data)
    with server.control_connect() as half:
        half.sendall(b'{"jsonrpc":"2.0","id":1,"meth')
        still_fine(server, disk, data)
    still_fine(server, disk, data)
    idle = [server.control_connect() for _ in range(20)]
    still_fine(server, disk, data)
    for connection in idle:
        connection.close()
    server.stop()


def test_control_client_with_a_huge_line(r):
    server = r.server(r.create("--size", "8M"))
    disk, data = server.connect(), blocks("kept", 16)
    disk.write(0, data)
    before = server.rss_bytes()
    with server.control_connect() as connection:
        piece = b"x" * MIB
        try:
            for _ in range(HUGE_LINE_BYTES // len(piece)):
                connection.sendall(piece)
            connection.sendall(b"\n")
            answer = connection.recv(65536)
            expect(b"error" in answer, f"answered with an error, not {answer!r}")
        except (BrokenPipeError, ConnectionResetError):
            pass
        grown = server.rss_bytes() - before
    expect(grown < 20 * MIB, f"the server kept {grown} bytes of it")
    still_fine(server, disk, data)
    server.stop()


def test_nbd_clients(r):
    server = r.server(r.create("--size", "8M"))
    disk, data = server.connect(), blocks("kept", 16)
    disk.write(0, data)
    option = b"\x00\x00\x00\x03IHAVEOPT\x00\x00\x00"
    go_huge = option + b"\x07\xff\xff\xff\xff" + bytes(100)
    # Into transmission, then a write of 1 MiB of which only 5,000 bytes come.
    half_a_write = (option + b"\x01\x00\x00\x00\x00" + b"\x25\x60\x95\x13\x00\x00\x00\x01"
                    + bytes(16) + b"\x00\x10\x00\x00" + bytes(5000))
    for junk in (b"", b"GET / HTTP/1.0\r\n\r\n", bytes(1000),
                 random.Random(3).randbytes(100000), go_huge, half_a_write):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(server.nbd)
            try:
                connection.recv(18)
                connection.sendall(junk)
                time.sleep(0.05)
            except (BrokenPipeError, ConnectionResetError):
                pass
        still_fine(server, disk, data)
    disk.close()
    server.stop()
    rig.offline_check(server.store)


def test_control_clients_that_do_not_read(r):
    """Each makes as much be held as it may: a status and a stop of others do not wait for them."""
    server = r.server(r.create("--size", "32M"))
    line = call('"same"', json.dumps({"src": 0, "length": BLOCK, "dsts": [
        i * BLOCK for i in range(1, 4097)]})) + "\n"
    slow = []
    for _ in range(12):
        connection = server.control_connect()
        connection.setblocking(False)
        slow.append(connection)
    left = {c: line.encode() * 20 for c in slow}
    end = time.monotonic() + 4
    while time.monotonic() < end:
        for connection in slow:
            with contextlib.suppress(BlockingIOError, ConnectionResetError, BrokenPipeError):
                left[connection] = left[connection][connection.send(left[connection]):]
        time.sleep(0.01)
    began = time.monotonic()
    expect_equal(server.json("status")["state"], "ok", "state")
    took = time.monotonic() - began
    expect(took < 12 * rig.slowness(), f"a status took {took:.1f} s")
    began = time.monotonic()
    server.cli("stop")
    took = time.monotonic() - began
    expect(took < 15, f"a stop took {took:.1f} s")
    expect_equal(server._wait(), 0, "exit status")
    for connection in slow:
        connection.close()


def test_check_waits_for_a_lock_as_a_server_does(r):
    store = r.create("--size", "8M")
    with open(store, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        check = r.spawn(rig.SAMEBLK, "check", store, stdout=rig.subprocess.PIPE,
                        stderr=rig.subprocess.STDOUT, text=True)
        time.sleep(1)
        expect_equal(check.poll(), None, "exit status so far")
        fcntl.flock(held, fcntl.LOCK_UN)
    out = check.communicate(timeout=60)[0]
    expect_equal(check.returncode, 0, f"exit status; it said {out!r}")


def as_somebody_with_little_locked_memory():
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def test_a_limit_of_locked_memory_is_named(r):
    if os.geteuid() != 0:
        raise rig.Skip("only root can be somebody else")
    store = r.create("--size", "8M")
    os.chmod(r.folder, 0o777)
    os.chmod(store, 0o666)
    done = rig.run(rig.SAMEBLKD, "-w", "8", "-U", r.path("limited.nbd"), "-c",
                   r.path("limited.ctl"), store, ok=None, seconds=30,
                   preexec_fn=as_somebody_with_little_locked_memory)
    expect_equal(done.returncode, 2, f"exit status; it said {done.stderr!r}")
    expect("64 KiB" in done.stderr and "LimitMEMLOCK" in done.stderr, f"it said {done.stderr!r}")


def test_strangers_leave_slots_for_this_machine(r):
    """Whoever reaches the port and says nothing takes a quarter of the slots, and keeps no other
    address out; refusals are told at a pace."""
    server = r.server(r.create("--size", "8M"), "-p", "0", "--insecure-tcp")
    port = int(server.ready[-1].split(":")[-1].strip("/"))
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(140)]
    time.sleep(0.5)
    disk = server.connect()
    expect_equal(disk.read(0, BLOCK), bytes(BLOCK), "content")
    server.cli("dedupe", "--dry-run")
    with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) as other:
        other.settimeout(10)
        expect_equal(other.recv(8), b"NBDMAGIC", "what another address is told")
    told = [line for line in server.log().splitlines() if "refused" in line]
    expect(1 <= len(told) <= 3, f"{len(told)} lines tell of refusals: {told[:5]}")
    expect("handshake" in told[0], told[0])
    for connection in idle:
        connection.close()
    disk.close()
    server.stop()


if __name__ == "__main__":
    rig.main(globals())
