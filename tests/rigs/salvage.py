#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""salvage - check --salvage: what can be read of a store that nothing else opens

Whatever is damaged: each block that the list does not name reads as it was, and what is named is
no more than has to be.
"""

import json
import os
import random
import struct

import rig
from rig import BLOCK, MIB, REGION, blocks, expect, expect_equal, offline_check, sameblk

SIZE = 16 * MIB
ROUNDS, ROUNDS_LONG = 12, 400


class Store:
    """A store's file, and where things lie on it: docs/disk-format.md."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            head = f.read(2 * BLOCK)
            self.super_blocks, self.ring_blocks = struct.unpack_from("<II", head, 96)
            self.ring_start, self.tops_start, self.super_b = struct.unpack_from("<QQQ", head, 104)
            f.seek(self.super_b * BLOCK)
            other = f.read(2 * BLOCK)
        copies = [(struct.unpack_from("<Q", c, 136)[0], at, c)
                  for at, c in ((0, head), (self.super_b, other))]
        self.checkpoint, self.newest, newest = max(copies)
        self.tail_sequence, = struct.unpack_from("<Q", newest, 152)
        generation, = struct.unpack_from("<I", newest, BLOCK)
        self.root = self.tops_start + (generation & 1)

        with open(path, "rb") as f:
            self.bytes = f.read()
        ring = [(struct.unpack_from("<QQ", self.bytes, (self.ring_start + i) * BLOCK + 24), i)
                for i in range(self.ring_blocks)
                if self.bytes[(self.ring_start + i) * BLOCK:][:4] == b"SLBj"]
        self.last_ring_block = self.ring_start + max(ring)[1] if ring else None

    def leaves(self):
        """All blocks that hold a leaf, in force or not."""
        return [at // BLOCK for at in range(self.super_b * BLOCK, len(self.bytes), BLOCK)
                if self.bytes[at:at + 6] == b"SLBp\x03\x00"]

    def put(self, block, data):
        with open(self.path, "r+b") as f:
            f.seek(block * BLOCK)
            f.write(data)

    def flip(self, block, at=777):
        with open(self.path, "r+b") as f:
            f.seek(block * BLOCK + at)
            byte = f.read(1)[0]
            f.seek(block * BLOCK + at)
            f.write(bytes([byte ^ 0x10]))

    def ring(self, sequence):
        return self.ring_start + sequence % self.ring_blocks


def write_some(server, model, seed, count=100):
    """Runs, single blocks, holes and clones, all of it flushed."""
    chance = random.Random(seed)
    disk = server.connect()
    for i in range(count):
        off = chance.randrange(SIZE // BLOCK - 16) * BLOCK
        length = chance.choice((1, 1, 4, 8)) * BLOCK
        if chance.random() < 0.2:
            disk.discard(off, length)
            model[off:off + length] = bytes(length)
        else:
            data = blocks(seed * 1000 + i, length // BLOCK)
            disk.write(off, data)
            model[off:off + length] = data
        if i % 5 == 0:
            disk.flush()
    server.cli("clone", 0, REGION, 4 * REGION)
    disk.flush()
    disk.close()
    model[4 * REGION:5 * REGION] = model[0:REGION]


def salvage(r, store, ok, *options):
    out = r.path("salvaged")
    done = sameblk("check", "--json", "--salvage", out, *options, store, ok=(ok,))
    found = json.loads(done.stdout)
    expect_equal(found["size_bytes"], SIZE, "size")
    expect_equal(os.path.getsize(out), SIZE, "size of the image")
    with open(out, "rb") as f:
        image = f.read()
    os.unlink(out)
    return found, image


def is_same(image, model, block):
    return image[block * BLOCK:(block + 1) * BLOCK] == model[block * BLOCK:(block + 1) * BLOCK]


def expect_true(found, image, model):
    """What is not named reads as it was; returns how many blocks of what is older are as well."""
    named, same = set(), 0
    for off, length, state, reason in found["ranges"]:
        expect(reason, "a range without a reason")
        for block in range(off // BLOCK, (off + length) // BLOCK):
            named.add(block)
            same += state == "older" and is_same(image, model, block)
    for block in range(SIZE // BLOCK):
        expect(block in named or is_same(image, model, block),
               f"block {block} is not named and reads otherwise")
    lost = sum(length for _, length, state, _ in found["ranges"] if state == "lost")
    expect_equal(found["lost_bytes"], lost, "lost bytes")
    return same


def expect_refused(r, server):
    """No other way: the reason for all this."""
    expect_equal(sameblk("check", server.store, ok=None).returncode, 1, "check")
    expect_equal(sameblk("check", "--repair", server.store, ok=None).returncode, 1, "repair")
    try:
        server.start()
    except rig.Failure:
        server.process.wait(60)
        return
    server.kill()
    raise rig.Failure("the store opens")


def filled(r, end, lives=2):
    model = bytearray(SIZE)
    server = r.server(r.create("--size", SIZE))
    for life in range(lives):
        if life > 0:
            server.start()
        write_some(server, model, life + 1)
        server.stop() if life < lives - 1 else getattr(server, end)()
    return server, model


def test_what_is_whole_is_copied_whole(r):
    for end in ("stop", "kill"):
        server, model = filled(r, end)
        found, image = salvage(r, server.store, 0)
        expect_equal((found["ranges"], found["unreplayed_records"]), ([], []), "what is missing")
        expect(image == model, f"the image differs, after {end}")
        os.unlink(server.store)


def test_a_flipped_byte_in_a_root_page(r):
    server, model = filled(r, "stop")
    store = Store(server.store)
    store.flip(store.root)
    expect_refused(r, server)
    found, image = salvage(r, server.store, 1)
    same = expect_true(found, image, model)
    expect_equal(found["lost_bytes"], 0, "an older page is there; lost")
    expect(same > SIZE // BLOCK // 4, f"only {same} blocks are as they were")
    expect(any("root page 0" in f["where"] for f in found["findings"]), found["findings"])


def test_the_newest_superblock_of_a_killed_store(r):
    server, model = filled(r, "kill")
    store = Store(server.store)
    store.put(store.newest, bytes(store.super_blocks * BLOCK))
    expect_refused(r, server)
    found, image = salvage(r, server.store, 0)
    expect_equal(found["ranges"], [], "the pages and the journal are there; missing")
    expect(image == model, "the image differs")


def test_damaged_blocks_of_the_journal(r):
    server, model = filled(r, "kill")
    store = Store(server.store)
    for sequence in (store.tail_sequence + 3, store.tail_sequence + 5):
        store.flip(store.ring(sequence))
    expect_refused(r, server)
    found, image = salvage(r, server.store, 1)
    expect_true(found, image, model)
    expect_equal(len(found["unreplayed_records"]), 2, "gaps")
    (first, last), (then, _) = found["unreplayed_records"]
    expect(0 < first <= last < then, f"the gaps are {found['unreplayed_records']}")
    done = sameblk("check", "--salvage", r.path("text"), server.store, ok=(1,)).stdout
    expect(f"records {first} {last} could not be replayed" in done, done)
    expect("NOT all of the volume" in done, done)


def test_a_store_a_block_short(r):
    server, model = filled(r, "stop")
    size = os.path.getsize(server.store)
    os.truncate(server.store, size - BLOCK)
    expect_refused(r, server)
    found, image = salvage(r, server.store, 0)
    expect(image == model, "the image differs")
    sequential = r.server(r.create("--size", SIZE, name="sequential"), name="second")
    disk = sequential.connect()
    model = bytearray(blocks(7, 6 * MIB // BLOCK)) + bytes(SIZE - 6 * MIB)
    disk.write(0, bytes(model[:6 * MIB]))
    disk.close()
    sequential.stop()
    os.truncate(sequential.store, 4 * MIB)
    found, image = salvage(r, sequential.store, 1)
    expect_true(found, image, model)
    (off, length, state, reason), = found["ranges"]
    expect_equal((off + length, state, reason), (6 * MIB, "lost", "it cannot be read"), "lost")
    expect(2 * MIB < length < 3 * MIB, f"lost {length}")


def damage(store, chance):
    """One thing of the metadata, but for the journal's end, whose loss nothing else shows."""
    what = chance.choice(("super", "ring", "ring", "ring", "root", "top", "slabs"))
    if what == "super":
        store.put(chance.choice((0, store.super_b)), bytes(BLOCK))
    elif what == "ring":
        block = store.ring_start + chance.randrange(store.ring_blocks)
        if block != store.last_ring_block:
            store.put(block, chance.choice((bytes(BLOCK), b"\xff" * BLOCK)))
    elif what == "root":
        store.flip(store.root, chance.randrange(BLOCK))
    elif what == "top":
        store.flip(store.tops_start + chance.randrange(2), chance.randrange(BLOCK))
    else:
        leaves = store.leaves()
        store.flip(chance.choice(leaves), chance.randrange(BLOCK))
    return what


def test_whatever_is_damaged_nothing_wrong_is_called_right(r):
    server, model = filled(r, "kill", lives=3)
    with open(server.store, "rb") as f:
        whole = f.read()
    seed = int(os.environ.get("SEED", "0"))
    outcomes = {}
    for i in range(seed, seed + (ROUNDS_LONG if r.long else ROUNDS)):
        chance = random.Random(i)
        Store(server.store).put(0, whole)
        store = Store(server.store)
        damages = [damage(store, chance) for _ in range(chance.randrange(1, 5))]
        out = r.path("salvaged")
        done = sameblk("check", "--json", "--salvage", out, server.store, ok=None)
        if done.returncode != 2:
            with open(out, "rb") as f:
                image = f.read()
            os.unlink(out)
            try:
                expect_true(json.loads(done.stdout), image, model)
            except rig.Failure as failure:
                raise rig.Failure(f"SEED={i}, {damages}: {failure}") from failure
        outcomes[done.returncode] = outcomes.get(done.returncode, 0) + 1
    r.note(", ".join(f"{n} x exit status {o}" for o, n in sorted(outcomes.items())))
    expect(outcomes.get(1, 0) > 0, "nothing was ever missing")


def test_the_output_is_new_and_never_the_store(r):
    server, _ = filled(r, "stop", lives=1)
    before = rig.run("sha256sum", server.store).stdout
    os.link(server.store, r.path("link"))
    os.symlink(server.store, r.path("symlink"))
    for out in (server.store, r.path("link"), r.path("symlink")):
        done = sameblk("check", "--salvage", out, server.store, ok=(2,))
        expect("--force" in done.stderr, done.stderr)
        done = sameblk("check", "--salvage", out, "--force", server.store, ok=(2,))
        expect("the store itself" in done.stderr, done.stderr)
    expect_equal(rig.run("sha256sum", server.store).stdout, before, "the store")
    with open(r.path("there"), "wb") as f:
        f.write(bytes(100))
    sameblk("check", "--salvage", r.path("there"), server.store, ok=(2,))
    expect_equal(os.path.getsize(r.path("there")), 100, "size of what was there")
    sameblk("check", "--salvage", r.path("there"), "--force", server.store)
    expect_equal(os.path.getsize(r.path("there")), SIZE, "size")
    with open(r.path("no store"), "wb") as f:
        f.write(bytes(MIB))
    sameblk("check", "--salvage", r.path("new"), r.path("no store"), ok=(2,))
    expect(not os.path.exists(r.path("new")), "an image of nothing is left")


def test_what_is_overwritten_stays_until_there_is_something_to_write(r):
    server, model = filled(r, "stop", lives=1)
    other = r.create("--size", "8M", name="other")
    with open(r.path("no store"), "wb") as f:
        f.write(bytes(MIB))
    with open(r.path("there"), "wb") as f:
        f.write(model)
    sameblk("check", "--salvage", r.path("there"), "--force", r.path("no store"), ok=(2,))
    expect(os.path.exists(r.path("there")), "what was there is gone, for nothing")
    with open(r.path("there"), "rb") as f:
        expect(f.read() == model, "what was there")
    # A store that somebody serves is never overwritten.
    serving = r.server(other, name="serving")
    done = sameblk("check", "--salvage", other, "--force", server.store, ok=None)
    expect_equal(done.returncode, 2, f"exit status; {done.stderr}")
    expect("in use" in done.stderr, done.stderr)
    serving.stop()
    offline_check(other)


if __name__ == "__main__":
    rig.main(globals())
