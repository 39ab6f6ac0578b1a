#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""full_store - no space left: in the store, and below it

New blocks are refused with NBD's ENOSPC; in-place writes, reads, discards, merges and flushes go
on; space that a merge or a discard frees can be used at once. When the filesystem under a sparse
store is full, data writes fail, nothing latches and nothing is lost.
"""

import os
import threading

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
        make = {"ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
        rig.need(make[kind][0], "losetup")
        with open(r.path("fs"), "wb") as f:
            f.truncate((96 if kind == "ext4" else 160) * MIB)
        rig.run(*make[kind], r.path("fs"))
        done = rig.run("mount", "-o", "loop", r.path("fs"), folder, ok=None)
    if done.returncode:
        raise rig.Skip(f"cannot mount: {done.stderr.strip()}")
    r.later("umount", "-l", folder)
    return os.path.join(folder, "store")


def fits(disk):
    import nbd
    try:
        disk.write(400 * MIB, blocks("again", MIB // BLOCK))
        return True
    except nbd.Error:
        return False


def below(r, kind):
    store = small_filesystem(r, kind)
    rig.sameblk("create", "--size", str(SIZE), store)
    server = r.server(store)
    disk = server.connect()
    written = fill(disk, SIZE)
    r.note(f"{sum(len(d) for d in written.values()) // MIB} MiB went in")
    expect_equal(state(server), "backing full", "state above a full filesystem")
    expect_equal(server.log().count("no space for data"), 1, "lines of the log about space")
    expect(server.stats()["no_space_errors"] > 0, "no error is counted")
    rig.wait_until(lambda: server.stats()["free_bytes"] < 8 * MIB,
                   "stats know that there is no space below")
    stats = server.stats()
    expect_equal(sum(stats[key + "_bytes"] for key in ("used", "free", "unbacked", "pending",
                                                       "metadata", "lost")),
                 stats["store_bytes"], "all parts of the store together")
    goes_on(disk, written)
    # Giving back makes room again: the freed blocks are punched out of the file after their commit.
    gone = list(written)[8:24]
    for off in gone:
        disk.discard(off, len(written.pop(off)))
    disk.flush()
    rig.wait_until(lambda: fits(disk), "a write after the discards")
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


def test_btrfs_below_it(r):
    below(r, "btrfs")


def fill_by_blocks(disk):
    """Some MiB at once, then blocks until there is no space: what was written, by offset.

    Loop, at least of Linux 6.18, answers a request of which it wrote only the first part (the
    filesystem was full then) as if it had been written: of a block it is all or nothing.
    """
    import nbd
    written = {i * MIB: blocks(f"{i}", MIB // BLOCK) for i in range(48)}
    for off, data in written.items():
        disk.write(off, data)
    for i in range(48 * MIB // BLOCK, SIZE // BLOCK):
        try:
            disk.write(i * BLOCK, blocks(i % 1000))
        except nbd.Error as why:
            expect_equal(why.errno, "ENOSPC", "the error of a write that needs space")
            return written
        written[i * BLOCK] = blocks(i % 1000)
    raise rig.Failure("the filesystem took more than it has")


def test_a_device_that_runs_out(r):
    """Loop over a sparse file on a full filesystem: more is promised than there is."""
    backing = small_filesystem(r, "ext4")
    with open(backing, "wb") as f:
        f.truncate(SIZE + 64 * MIB)
    device = rig.run("losetup", "--show", "-f", backing).stdout.strip()
    r.later("losetup", "-d", device)
    rig.sameblk("create", "--size", str(SIZE), device)
    server = r.server(device)
    disk = server.connect()
    written = fill_by_blocks(disk)
    disk.flush()
    goes_on(disk, written)
    for off in list(written)[8:24]:
        disk.discard(off, len(written.pop(off)))
    disk.flush()
    rig.wait_until(lambda: server.stats()["pending_bytes"] < MIB, "what was freed is given back")
    for off in range(400 * MIB, 401 * MIB, BLOCK):
        written[off] = blocks(off % 999)
        disk.write(off, written[off])
    disk.flush()
    disk.close()
    server.stop()
    offline_check(device)
    server.start()
    disk = server.connect()
    expect_content(disk, written)
    disk.close()
    expect("O_DIRECT" in server.log(), "it says what it does")
    server.stop()


def fill_file(name):
    with open(name, "wb", buffering=0) as f:
        for step in (MIB, BLOCK):
            try:
                while True:
                    f.write(os.urandom(step))
                    os.fsync(f.fileno())
            except OSError:
                continue


def test_metadata_waits_for_space(r):
    """A copy that shares its extents: what is overwritten goes to a new place. There is none."""
    store = small_filesystem(r, "btrfs")
    rig.sameblk("create", "--size", "64M", store + ".first")
    server = r.server(store + ".first", name="first")
    disk = server.connect()
    written = {i * MIB: blocks(f"old {i}", MIB // BLOCK) for i in range(16)}
    for off, data in written.items():
        disk.write(off, data)
    disk.close()
    server.stop()
    open(store, "wb").close()
    rig.run("chattr", "+C", store)
    done = rig.run("cp", "--reflink=always", store + ".first", store, ok=None)
    if done.returncode:
        raise rig.Skip(f"no reflink: {done.stderr.strip()}")
    server = r.server(store)
    disk = server.connect()
    disk.write(0, written[0])  # the mark of change tracking is written
    disk.flush()
    fill_file(store + ".rest")
    disk.discard(4 * MIB, MIB)
    written.pop(4 * MIB)
    waits = server.connect()
    thread = threading.Thread(target=waits.flush)
    thread.start()
    rig.wait_until(lambda: state(server) == "backing full", "metadata waits")
    expect("metadata waits" in server.json("status")["reason"], "status does not say what waits")
    expect_content(disk, written)
    os.unlink(store + ".rest")
    thread.join(60)
    expect(not thread.is_alive(), "the flush is not answered when there is space")
    rig.wait_until(lambda: state(server) == "ok", "space again", seconds=90)
    disk.write(5 * MIB, blocks("new", 10))
    disk.flush()
    expect_content(disk, {k: v for k, v in written.items() if k != 5 * MIB})
    disk.close()
    waits.close()
    server.stop()
    offline_check(store)
    rig.run("umount", os.path.dirname(store))


def test_discard_cuts_no_clone_that_goes_whole(r):
    """Not at the ends of its pieces either: to cut one takes two blocks, and there is no space."""
    store = small_filesystem(r, "tmpfs")
    rig.sameblk("create", "--size", "3G", store)
    server = r.server(store)
    disk = server.connect()
    image = blocks("image", 2 * MIB // BLOCK)
    disk.write(0, image)
    clones = 2 * MIB, 1024 * MIB, 1026 * MIB, 2502 * MIB
    for off in clones:
        server.cli("clone", 0, 2 * MIB, off)
    disk.write(2048 * MIB, blocks("gone", MIB // BLOCK))
    disk.flush()
    fill_file(store + ".rest")
    server.cli("discard", 2 * MIB + BLOCK, 2500 * MIB - BLOCK)
    for off, left in zip(clones, (BLOCK, 0, 0, 2 * MIB)):
        expect(disk.read(off, 2 * MIB) == image[:left] + bytes(2 * MIB - left), f"clone at {off}")
    expect(disk.read(2048 * MIB, MIB) == bytes(MIB), "the last piece was not discarded")
    # What that freed goes back to the filesystem, which is filled up once more.
    disk.flush()
    rig.wait_until(lambda: server.stats()["pending_bytes"] == 0, "what was freed is given back")
    fill_file(store + ".more")
    done = server.cli("discard", 2502 * MIB, BLOCK, ok=(2,))
    expect("No space left" in done.stderr, f"discard says {done.stderr!r}")
    expect(disk.read(2502 * MIB, 2 * MIB) == image, "content of what could not be cut")
    disk.close()
    server.stop()
    offline_check(store)
    rig.run("umount", os.path.dirname(store))


def test_a_filesystem_that_is_never_written_to(r):
    """squashfs has no fsync; what is on it is served all the same."""
    rig.need("mksquashfs")
    if os.geteuid() != 0:
        raise rig.Skip("not root")
    os.mkdir(r.path("files"))
    os.mkdir(r.path("squashfs"))
    store = os.path.join(r.path("files"), "store")
    rig.sameblk("create", "--size", "16M", store)
    server = r.server(store)
    disk = server.connect()
    disk.write(0, blocks("here"))
    disk.close()
    server.stop()
    rig.run("mksquashfs", r.path("files"), r.path("fs.squashfs"), "-quiet", "-no-progress")
    done = rig.run("mount", "-o", "loop,ro", r.path("fs.squashfs"), r.path("squashfs"), ok=None)
    if done.returncode:
        raise rig.Skip(f"cannot mount: {done.stderr.strip()}")
    r.later("umount", "-l", r.path("squashfs"))
    server = r.server(os.path.join(r.path("squashfs"), "store"), "-r", name="reader")
    disk = server.connect()
    expect(disk.read(0, BLOCK) == blocks("here"), "content")
    disk.close()
    server.stop()
    rig.run("umount", r.path("squashfs"))


if __name__ == "__main__":
    rig.main(globals())
