#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""full_store - no space left: in the store, and below it

New blocks are refused with NBD's ENOSPC; in-place writes, reads, discards, merges and flushes go
on; space that a merge or a discard frees can be used at once. When the filesystem under a sparse
store is full, data writes fail, nothing latches and nothing is lost.
"""

import os

import rig
from rig import BLOCK, MIB, blocks, expect, expect_equal, offline_check

SIZE = 512 * MIB
STORE_SIZE = "96M"


def fill(disk, size, step=MIB, seed=""):
    """Writes until there is no space; returns {offset: content} of what was answered as good."""
    import nbd
    written, off = {}, 0
    while off < size:
        data = blocks(f"{seed}{off % (24 * MIB)}", step // BLOCK)
        try:
            disk.write(off, data)
        except nbd.Error as error:
            expect_equal(error.errno, "ENOSPC", "the error of a write that needs space")
            if step == BLOCK:
                return written
            step = BLOCK
            continue
        written[off] = data
        off += step
    raise rig.Failure("there was always space")


def expect_content(disk, written):
    for off, data in written.items():
        expect(disk.read(off, len(data)) == data, f"content at {off}")


def goes_on(disk, written):
    """Whatever needs no new block still works."""
    off = next(iter(written))
    written[off] = blocks("in place", len(written[off]) // BLOCK)
    disk.write(off, written[off])
    disk.write(off + 512, written[off][512:1024], fua=True)
    disk.flush()
    expect_content(disk, written)


def state(server):
    return server.json("status")["state"]


def test_store(r):
    server = r.server(r.create("--size", str(SIZE), "--store-size", STORE_SIZE))
    disk = server.connect()
    expect_equal(state(server), "ok", "state of an empty store")
    written = fill(disk, SIZE)
    r.note(f"{sum(len(d) for d in written.values()) // MIB} MiB went into a store of {STORE_SIZE}")
    expect_equal(state(server), "low on space", "state of a full store")
    expect("space" in server.log(), f"the log says nothing of space: {server.log()}")
    expect(server.stats()["free_bytes"] < 2 * MIB, "stats say that there is space")
    goes_on(disk, written)
    # Contents repeat every 24 MiB: merging gives space, and it can be used with no flush in
    # between.
    freed = sum(x["bytes_freed"] for i in range(8)
                for x in server.same((4 + i) * MIB, MIB, (28 + i) * MIB, (52 + i) * MIB))
    expect_equal(freed, 16 * MIB, "freed by merging")
    for i in range(6):
        off = 300 * MIB + i * 2 * MIB
        written[off] = blocks(f"after the merge {i}", 2 * MIB // BLOCK)
        disk.write(off, written[off])
    expect_content(disk, written)
    fill_rest(disk, written)
    for off in [o for o in written if o >= 300 * MIB]:
        disk.discard(off, len(written.pop(off)))
    # No ENOSPC while frees are pending, as long as there is anything to be freed.
    for i in range(5):
        off = 400 * MIB + i * 2 * MIB
        written[off] = blocks(f"after the discard {i}", 2 * MIB // BLOCK)
        disk.write(off, written[off])
    expect_content(disk, written)
    disk.close()
    server.stop()
    offline_check(server.store)
    server.start()
    disk = server.connect()
    expect_content(disk, written)
    goes_on(disk, written)
    server.kill()
    offline_check(server.store)


def fill_rest(disk, written):
    import nbd
    off = 340 * MIB
    while off < 400 * MIB:
        try:
            disk.write(off, blocks(f"rest {off}"))
        except nbd.Error:
            return
        written[off] = blocks(f"rest {off}")
        off += BLOCK
    raise rig.Failure("the store took more than there can be")


def small_filesystem(r, kind):
    """A mounted filesystem of 96 MiB to put a store of nominally more on."""
    if os.geteuid() != 0:
        raise rig.Skip("not root")
    folder = r.path(kind)
    os.mkdir(folder)
    if kind == "tmpfs":
        done = rig.run("mount", "-t", "tmpfs", "-o", "size=96M", "none", folder, ok=None)
    else:
        rig.need("mkfs.ext4", "losetup")
        with open(r.path("fs"), "wb") as f:
            f.truncate(96 * MIB)
        rig.run("mkfs.ext4", "-q", "-F", "-m", "0", r.path("fs"))
        done = rig.run("mount", "-o", "loop", r.path("fs"), folder, ok=None)
    if done.returncode:
        raise rig.Skip(f"cannot mount: {done.stderr.strip()}")
    r.later("umount", "-l", folder)
    return os.path.join(folder, "store")


def below(r, kind):
    store = small_filesystem(r, kind)
    rig.sameblk("create", "--size", str(SIZE), store)
    server = r.server(store)
    disk = server.connect()
    written = fill(disk, SIZE)
    r.note(f"{sum(len(d) for d in written.values()) // MIB} MiB went in")
    expect(state(server) in ("ok", "low on space"), f"latched: {state(server)}")
    goes_on(disk, written)
    # Giving back makes room again: the freed blocks are punched out of the file after their commit.
    gone = list(written)[8:24]
    for off in gone:
        disk.discard(off, len(written.pop(off)))
    disk.flush()

    def fits():
        import nbd
        try:
            disk.write(400 * MIB, blocks("again", MIB // BLOCK))
            return True
        except nbd.Error:
            return False
    rig.wait_until(fits, "a write after the discards")
    written[400 * MIB] = blocks("again", MIB // BLOCK)
    disk.flush()
    expect_content(disk, written)
    server.kill()
    offline_check(store)
    server.start()
    disk = server.connect()
    expect_content(disk, written)
    disk.close()
    server.stop()
    offline_check(store)
    rig.run("umount", os.path.dirname(store))


def test_tmpfs_below_it(r):
    below(r, "tmpfs")


def test_ext4_below_it(r):
    below(r, "ext4")


if __name__ == "__main__":
    rig.main(globals())
