# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_wait - how long the slowest 4 KiB write of a client takes while cold ranges are merged

Two clients write 4 KiB at random places of a range, each one after the other, what is there
already, so that it stays equal to its source; the store is cold and the server has one worker.
Nothing else happens, the range is merged by one request, or by a batch of 256 KiB lines; on the
machine as it is, and beside a busy loop for each processor. Goal: the longest write at most three
times that without a merge, and the merge goes on (at least 5 % of a processor).
"""

import json
import os
import random
import statistics
import threading
import time

SECONDS = 9
CLIENTS = 2
LINE_BYTES = 256 << 10
BLOCK = 4096
GOAL_FACTOR = 3


class Clients:
    """Writers over one range until told to end; how long each write took."""

    def __init__(self, rig, uri, off, data):
        self.stopping, self.took = False, []
        self.threads = [threading.Thread(target=self.write, args=(rig.Disk(uri), off, data, i))
                        for i in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def write(self, disk, off, data, number):
        chance = random.Random(number)
        while not self.stopping:
            at = chance.randrange(len(data) // BLOCK) * BLOCK
            began = time.monotonic()
            disk.write(off + at, data[at:at + BLOCK])
            self.took.append(time.monotonic() - began)
        disk.close()

    def end(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()
        return self.took


def merge(rig, test, server, how, size):
    """Starts the merge."""
    if how == "one request":
        args = ["0", str(size), str(size)]
    else:
        with open(test.path("lines"), "w", encoding="ascii") as f:
            for at in range(0, size, LINE_BYTES):
                f.write(f"{at} {LINE_BYTES} {size + at}\n")
        args = ["--batch", test.path("lines")]
    with open(test.path("merge.out"), "wb") as out:
        return test.spawn(rig.SAMEBLK, "same", "-c", server.control, *args, stdout=out, stderr=out)


def measure(rig, test, how, data):
    size = len(data)
    server = test.server(test.create("--size", str(4 * size), name="wait"), "-w", "1")
    disk = server.connect()
    for off in (0, size):
        for at in range(0, size, 1 << 20):
            disk.write(off + at, data[at:at + (1 << 20)])
    disk.flush()
    disk.close()
    server.stop()
    server.start()  # which drops what is cached
    clients, began = Clients(rig, server.uri, size, data), time.monotonic()
    merging = merge(rig, test, server, how, size) if how != "no merge" else None
    while time.monotonic() - began < SECONDS and (merging is None or merging.poll() is None):
        time.sleep(0.05)
    seconds = time.monotonic() - began
    merged = server.stats()["shared_bytes"] // 2
    took = sorted(clients.end())
    if merging:
        merging.kill()
        merging.wait()
    server.stop()
    os.unlink(server.store)
    return {"how": how, "writes": len(took) / seconds, "longest_ms": took[-1] * 1000,
            "p99_ms": took[len(took) * 99 // 100] * 1000, "merged_mibs": merged / seconds / 2**20}


def rounds_of(rig, options, busy):
    results, data = [], os.urandom(options.size)
    for _ in range(options.rounds):
        for how in ("no merge", "one request", "batch"):
            test = rig.Rig("bench.wait", False)
            try:
                for _ in range(os.cpu_count() if busy else 0):
                    test.spawn("sh", "-c", "while :; do :; done")
                results.append(measure(rig, test, how, data))
            finally:
                test.clean_up()
    return results


def row(results, how):
    ours = [r for r in results if r["how"] == how]

    def median(what):
        return statistics.median(r[what] for r in ours)

    return (f"| {how} | {median('longest_ms'):.0f} | {max(r['longest_ms'] for r in ours):.0f} "
            f"| {median('p99_ms'):.1f} | {median('writes'):,.0f} | {median('merged_mibs'):.0f} |")


def run(rig, options, machine):
    for busy in (False, True):
        results = rounds_of(rig, options, busy)
        print(f"\nwait: two clients write 4 KiB at random into {options.size >> 20} MiB, "
              f"{options.rounds} rounds{', beside busy loops' if busy else ''}; {machine}\n\n"
              "| | longest write, ms: median | of all | p99 | writes/s | merged MiB/s |\n"
              "|---|---|---|---|---|---|")
        for how in ("no merge", "one request", "batch"):
            print(row(results, how), flush=True)
        if options.out:
            with open(os.path.join(options.out, f"wait-{'busy' if busy else 'quiet'}.json"), "w",
                      encoding="ascii") as f:
                json.dump(results, f, indent=1)
