# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_volume - what merging and a large volume cost: ratios of sameblkd against itself

Merged: two volumes with the same contents, whose second half equals the first; in one of them the
second half is merged into the first. Each round measures, on one and on the other,

    reads              4 KiB at random over the whole volume
    first overwrite    every block of the second half once, in random order: copy-on-write in the
                       merged volume, in place in the other
    second overwrite   the same once more: in place in both

and then makes both anew. Size: the same jobs over the same working set at the start of a volume of
that size and of one of 1 TiB, whose store is sparse.

fio is pinned to the last processor, as in bench_nbd.py. A result is the median of the rounds'
ratios, with the lowest and the highest.
"""

import json
import os
import statistics
import subprocess
import tempfile

import bench_servers

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PIECE = 4 << 20
LARGE_BYTES = 1 << 40
FIO_SECONDS = 1800
SIZE_JOBS = ["nbd-4k-read-d32", "nbd-4k-write-d32"]


def fio(rig, job, server, options, off=0, size_bytes=None):
    """Its IOPS; the store is in memory before and on disk after."""
    bench_servers.read_through(server.store)
    env = {**os.environ, "URI": server.uri, "OFFSET": str(off),
           "SIZE": str(size_bytes or options.size), "RUNTIME": str(options.seconds)}
    done = rig.run("taskset", "-c", str(max(os.sched_getaffinity(0))), "fio",
                   "--output-format=json", f"{TOP}/fio-jobs/{job}.fio", env=env,
                   seconds=FIO_SECONDS)
    subprocess.run(["sync", "--file-system", os.path.dirname(server.store)], check=True)
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    return max(job[kind]["iops"] for kind in ("mixed", "read", "write") if kind in job)


def make_halves(rig, test, name, options):
    """A volume whose second half equals its first."""
    server = test.server(test.create("--size", str(options.size), name=name), name=name)
    half = options.size // 2
    fio(rig, "fill", server, options, size_bytes=half)
    client = server.connect()
    for off in range(0, half, PIECE):
        client.write(half + off, client.read(off, PIECE))
    client.flush()
    client.close()
    return server


def note(results, case, with_it, without_it):
    results.setdefault(case, []).append((with_it / without_it, with_it, without_it))


def merged_round(rig, options, results):
    test = rig.Rig("bench.merged", False)
    try:
        half = options.size // 2
        plain = make_halves(rig, test, "plain", options)
        merged = make_halves(rig, test, "merged", options)
        merged.cli("same", "--sync", 0, half, half)
        rig.expect_equal(merged.stats()["saved_bytes"], half, "one half is saved")
        both = (merged, plain)
        note(results, "reads, one half merged : nothing merged",
             *(fio(rig, "nbd-4k-read-d32", server, options) for server in both))
        for case in ("first", "second"):
            note(results, f"{case} overwrite, merged : in place",
                 *(fio(rig, "random-write", server, options, half, half) for server in both))
        rig.expect_equal(merged.stats()["saved_bytes"], 0, "nothing is shared any more")
        for server in both:
            server.stop()
    finally:
        test.clean_up()


def size_round(rig, options, results):
    test = rig.Rig("bench.size", False)
    try:
        servers = []
        for name, size_bytes in (("large", LARGE_BYTES), ("small", options.size)):
            store = test.create("--size", str(size_bytes), "--store-size",
                                str(2 * options.size + size_bytes // 256), name=name)
            servers.append(test.server(store, name=name))
            fio(rig, "fill", servers[-1], options)
        for job in SIZE_JOBS:
            note(results, f"{job}, 1 TiB : {options.size >> 20} MiB",
                 *(fio(rig, job, server, options) for server in servers))
        for server in servers:
            server.stop()
    finally:
        test.clean_up()


def run(rig, options, machine):
    if options.dir:
        tempfile.tempdir = os.path.abspath(options.dir)
    results = {}
    for number in range(options.rounds):
        for one_round in (merged_round, size_round) if number % 2 == 0 else (size_round,
                                                                             merged_round):
            one_round(rig, options, results)
    print(f"\nmerged: fio nbd engine at depth 32, {options.size >> 20} MiB in the page cache, "
          f"{options.rounds} rounds of {options.seconds} s; {machine}\n")
    print("| case | ratio, lowest to highest | IOPS, medians |\n|---|---|---|")
    for case, runs in results.items():
        ratios = [run[0] for run in runs]
        print(f"| {case} | {statistics.median(ratios):.2f}, {min(ratios):.2f} to "
              f"{max(ratios):.2f} | {statistics.median(run[1] for run in runs):,.0f} : "
              f"{statistics.median(run[2] for run in runs):,.0f} |")
