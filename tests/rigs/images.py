#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""images - an image at an offset is put in, taken out, cloned and deleted by the lines of
docs/nbd.md, and `sameblk discard` does what it says"""

import json
import os

import rig
from rig import BLOCK, GIB, MIB, blocks, expect, expect_equal, need

SIZE = 16 * MIB  # the document's image has 128, which takes its time


def lines(server, section):
    """The shell lines of a section of docs/nbd.md, for this server."""
    with open(os.path.join(rig.TOP, "docs", "nbd.md"), encoding="utf-8") as f:
        text = f.read()
    text = text[text.index("## " + section):]
    text = text[:text.index("\n## ", 4)]
    text = text.replace("/tmp/disk.nbd", server.nbd).replace("/tmp/disk.ctl", server.control)
    text = text.replace("128M", str(SIZE))
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def used(server):
    return server.stats()["used_bytes"]


def test_the_lines_of_the_document(r):
    need("nbdkit", "nbdcopy")
    server = r.server(r.create("--size", 4 * GIB))
    image = blocks(1, 4 * MIB // BLOCK) + bytes(8 * MIB) + blocks(2, 4 * MIB // BLOCK)
    with open(r.path("image.raw"), "wb") as f:
        f.write(image)
    env = {**os.environ, "PATH": os.path.dirname(os.path.abspath(rig.SAMEBLK)) + ":" +
           os.environ["PATH"]}
    put, take, clone, delete = lines(server, "Images at offsets")
    for line in (put, take, clone):
        rig.run("sh", "-c", line, cwd=r.folder, env=env)
    with open(r.path("copy.raw"), "rb") as f:
        expect(f.read() == image, "what was taken out is what was put in")
    disk = server.connect()
    expect(disk.read(GIB, SIZE) == image and disk.read(2 * GIB, SIZE) == image, "both are there")
    disk.write(2 * GIB, blocks(3))  # the clone has a block of its own
    before = used(server)
    rig.run("sh", "-c", delete, cwd=r.folder, env=env)
    expect(not any(disk.read(2 * GIB, SIZE)), "the clone reads zeros")
    expect(disk.read(GIB, SIZE) == image, "its source is as it was")
    expect_equal(used(server), before - BLOCK, "what only the clone used is free")
    disk.close()
    server.stop()
    rig.offline_check(server.store)


def test_discard_takes_whole_blocks_of_the_volume(r):
    server = r.server(r.create("--size", 16 * MIB))
    disk = server.connect()
    data = blocks(1, 4)
    disk.write(0, data)
    for off, length in ((1, BLOCK), (0, BLOCK + 1), (16 * MIB, BLOCK), (0, 17 * MIB)):
        done = server.cli("discard", off, length, ok=(2,))
        expect("multiples of 4096 inside the volume's 16777216 bytes" in done.stderr, done.stderr)
    expect(disk.read(0, len(data)) == data, "nothing was discarded")
    expect_equal(server.cli("discard", BLOCK, 2 * BLOCK).stdout, f"{BLOCK} discarded {2 * BLOCK}\n",
                 "what it says")
    expect_equal(disk.read(0, 4 * BLOCK), data[:BLOCK] + bytes(2 * BLOCK) + data[3 * BLOCK:],
                 "contents")
    said = json.loads(server.cli("discard", "--sync", "--json", 0, 16 * MIB).stdout)
    expect_equal(said, {"offset": 0, "bytes_discarded": 16 * MIB}, "what it says in JSON")
    expect_equal(used(server), 0, "used")
    disk.close()
    server.stop()
    server.start("--read-only")
    expect("read-only" in server.cli("discard", 0, BLOCK, ok=(2,)).stderr, "a read-only volume")
    server.stop()


if __name__ == "__main__":
    rig.main(globals())
