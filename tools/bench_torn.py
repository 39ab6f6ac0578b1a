#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_torn - how many reads hold a sector that is half old and half new

    tools/bench_torn.py SECONDS SOCKET...

Two clients write and two read the same eight blocks of 4 KiB, then of 64 KiB, 16 requests in flight
each, of whatever NBD server listens on each Unix socket. What is at the beginning of the volume is
overwritten. docs/nbd.md has the figures.
"""

import multiprocessing
import random
import sys
import time

import nbd

BLOCKS, DEPTH, SECTOR = 8, 16, 512


def connect(path):
    client = nbd.NBD()
    client.connect_unix(path)
    return client


def keep_busy(client, end, start, finish):
    """Up to DEPTH requests in flight: start(slot) gives a cookie, finish(slot) takes the answer."""
    free, live = list(range(DEPTH)), {}
    while live or time.monotonic() < end:
        while free and time.monotonic() < end:
            slot = free.pop()
            live[start(slot)] = slot
        client.poll(-1)
        for cookie in [c for c in live if client.aio_command_completed(c)]:
            slot = live.pop(cookie)
            finish(slot)
            free.append(slot)


def write(path, size, values, end):
    client = connect(path)
    contents = [nbd.Buffer.from_bytearray(bytearray([value]) * size) for value in values]
    keep_busy(client, end,
              lambda slot: client.aio_pwrite(random.choice(contents),
                                             random.randrange(BLOCKS) * size),
              lambda slot: None)
    client.shutdown()


def is_torn(content):
    return any(content[at:at + SECTOR].count(content[at]) != SECTOR
               for at in range(0, len(content), SECTOR))


def read(path, size, end, queue):
    client = connect(path)
    buffers = [nbd.Buffer(size) for _ in range(DEPTH)]
    counts = [0, 0]

    def look(slot):
        counts[0] += 1
        counts[1] += is_torn(buffers[slot].to_bytearray())

    keep_busy(client, end,
              lambda slot: client.aio_pread(buffers[slot], random.randrange(BLOCKS) * size), look)
    client.shutdown()
    queue.put(counts)


def measure(path, size, seconds):
    client = connect(path)
    client.pwrite(b"\1" * size * BLOCKS, 0)
    client.shutdown()
    queue = multiprocessing.Queue()
    end = time.monotonic() + seconds
    others = [multiprocessing.Process(target=write, args=(path, size, values, end))
              for values in ((1, 2), (3, 4))]
    others += [multiprocessing.Process(target=read, args=(path, size, end, queue))
               for _ in range(2)]
    for other in others:
        other.start()
    counts = [queue.get() for _ in range(2)]
    for other in others:
        other.join()
    return [sum(column) for column in zip(*counts)]


def main():
    for path in sys.argv[2:]:
        for size in (4096, 65536):
            reads, torn = measure(path, size, float(sys.argv[1]))
            print(f"{path}: {size // 1024} KiB: {torn} of {reads} reads, "
                  f"{100 * torn / reads:.3f} %", flush=True)


if __name__ == "__main__":
    main()
