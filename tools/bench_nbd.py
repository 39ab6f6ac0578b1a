# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_nbd - the same fio jobs against sameblkd, its peers and the ceiling, interleaved

All servers run at once, each on a volume that was written once: in order (linear), so that it lies
in LINEAR regions, or in random 4 KiB order (leaf). In a round every job runs against every server,
one server after the other; the next round begins with the next server. Whatever a job wrote goes to
disk before the next one begins, so that nobody pays for another's writeback; and the server's file
is read once before each job, for it is to be in memory, and a kernel that gives memory back to its
host (DAMON, a balloon) may have dropped it meanwhile.

A fio with one connection is pinned to the last processor, the same for all servers, which run where
they like: or chance decides whether the two share a processor, which at depth 1 is a factor of two
(a server woken on another processor of a virtual machine takes 40 us to come).

A result is the median of the rounds. Server CPU is what the server's processes used from the start
of fio to its end; memory is what they held while it ran, at the most, pages of mapped files (which
are page cache) included and also given apart.
"""

import fnmatch
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import bench_report
import bench_servers

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILL_JOBS = {"linear": "fill", "leaf": "random-write"}
SAMPLE_SECONDS = 0.25
FIO_SECONDS = 1800


class Job:
    """A fio-jobs/nbd-NAME.fio and what is asked of it, as multiples of the best peer."""

    def __init__(self, name, title, goal, connections=1, workers=1, flushes=False):
        self.name, self.title, self.goal = name, title, goal
        self.connections, self.workers, self.flushes = connections, workers, flushes
        self.is_4k = name.startswith("4k-")
        self.writes = "-read" not in name

    def runs_on(self, server):
        """sameblkd is there once with each number of workers; the others serve every job."""
        return not issubclass(server, bench_servers.Sameblkd) or server.workers == self.workers


JOBS = [
    Job("4k-read-d1", "4 KiB random read, depth 1", 1.3),
    Job("4k-write-d1", "4 KiB random write, depth 1", 1.3),
    Job("4k-read-d32", "4 KiB random read, depth 32", 1.5),
    Job("4k-write-d32", "4 KiB random write, depth 32", 1.3),
    Job("4k-mix-d32", "4 KiB random 70/30, depth 32", 1.4),
    Job("64k-read-d16", "64 KiB random read, depth 16", 1.4),
    Job("64k-write-d16", "64 KiB random write, depth 16", 1.2),
    Job("1m-read-d8", "1 MiB sequential read, depth 8", 1.4),
    Job("1m-write-d8", "1 MiB sequential write, depth 8", 1.05),
    Job("4k-fsync", "4 KiB random write, fsync every 32", 1.2, flushes=True),
    Job("4k-read-c4", "4 KiB random read, 4 connections", 1.3, connections=4, workers=2),
    Job("4k-write-c4", "4 KiB random write, 4 connections", 1.3, connections=4, workers=2),
]


def chosen(things, patterns):
    return [t for t in things
            if any(fnmatch.fnmatch(t.name, p) for p in patterns.split(","))]


def run_fio(server, job, options):
    """One job against one server: what fio says and what it cost the server."""
    env = {**os.environ, "URI": server.uri, "SIZE": str(options.size),
           "RUNTIME": str(options.seconds)}
    client_before, server_before = bench_servers.own_cpu_seconds(), server.cpu_seconds()
    pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
    with tempfile.TemporaryFile("w+") as out:
        fio = server.test.spawn(*(pinned if options.pin and job.connections == 1 else []),
                                "fio", "--output-format=json",
                                f"{TOP}/fio-jobs/nbd-{job.name}.fio", env=env, stdout=out,
                                stderr=subprocess.STDOUT)
        memory_bytes, end = (0, 0), time.monotonic() + FIO_SECONDS
        while True:
            try:
                fio.wait(SAMPLE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                memory_bytes = max(memory_bytes, server.memory_bytes())
                server.rig.expect(time.monotonic() < end, f"fio {job.name} ends")
        server_cpu = server.cpu_seconds() - server_before
        client_cpu = bench_servers.own_cpu_seconds() - client_before
        out.seek(0)
        text = out.read()
    server.rig.expect(fio.returncode == 0, f"fio {job.name} on {server.name}: {text[-600:]}")
    mixed = json.loads(text[text.index("{"):])["jobs"][0]["mixed"]
    percentiles = mixed["clat_ns"]["percentile"]
    return {
        "iops": mixed["iops"], "mbps": mixed["bw_bytes"] / 1e6,
        "p50_us": percentiles["50.000000"] / 1000, "p99_us": percentiles["99.000000"] / 1000,
        "cpu_us": server_cpu * 1e6 / mixed["total_ios"],
        "client_cpu_us": client_cpu * 1e6 / mixed["total_ios"],
        "rss_bytes": memory_bytes[0], "rss_file_bytes": memory_bytes[1],
    }


def fill(server, prepare, size_bytes):
    env = {**os.environ, "URI": server.uri, "OFFSET": "0", "SIZE": str(size_bytes)}
    server.rig.run("fio", f"{TOP}/fio-jobs/{FILL_JOBS[prepare]}.fio", env=env, seconds=FIO_SECONDS)


def sync(folder):
    subprocess.run(["sync", "--file-system", folder], check=True)


def run_round(number, servers, jobs, options, results):
    turn = number % len(servers)
    for job in jobs:
        for server in servers[turn:] + servers[:turn]:
            if not job.runs_on(type(server)):
                continue
            server.warm()
            found = run_fio(server, job, options)
            results[job.name].setdefault(server.name, []).append(found)
            if job.writes:
                sync(server.test.folder)
        line = ", ".join(f"{name} {runs[-1]['iops']:,.0f}"
                         for name, runs in results[job.name].items())
        print(f"bench: round {number + 1}, {job.name}: {line}", file=sys.stderr, flush=True)


def run_prepared(rig, options, prepare, kinds, jobs):
    """All rounds on volumes written in this order: {job: {server: [a result a round]}}."""
    results = {job.name: {} for job in jobs}
    test = rig.Rig("bench.nbd", False)
    try:
        servers = [kind(rig, test, options.size) for kind in kinds]
        for server in servers:
            server.start()
            print(f"bench: {prepare}: {server.name} is filled", file=sys.stderr, flush=True)
            fill(server, prepare, options.size)
            sync(test.folder)
        for number in range(options.rounds):
            run_round(number, servers, jobs, options, results)
    finally:
        test.clean_up()
    return results


def medians(results):
    """{job: {server: {key: median}}}, with the lowest and highest IOPS."""
    summed = {}
    for job, servers in results.items():
        summed[job] = {}
        for server, runs in servers.items():
            one = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            one["iops_min"] = min(run["iops"] for run in runs)
            one["iops_max"] = max(run["iops"] for run in runs)
            summed[job][server] = one
    return summed


def print_before(prepare, results):
    """What this tree does of what the other build did, a pair of runs at a time."""
    print(f"\n{prepare}: of the build before, median of the rounds (lowest to highest)\n\n"
          "| job | requests/s | server CPU a request |\n|---|---|---|")
    for job, servers in results.items():
        ours = next((servers[n] for n in ("sameblkd", "sameblkd-w2") if n in servers), [])
        before = next((servers[n] for n in ("before", "before-w2") if n in servers), [])
        row = []
        for key in ("iops", "cpu_us"):
            ratios = sorted(a[key] / b[key] for a, b in zip(ours, before))
            row.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"| {job} | {row[0]} | {row[1]} |", flush=True)


def run(rig, options, machine):
    if options.dir:
        tempfile.tempdir = os.path.abspath(options.dir)
    jobs = chosen(JOBS, options.jobs)
    kinds = [kind for kind in chosen(bench_servers.SERVERS, options.servers)
             if any(job.runs_on(kind) for job in jobs)]
    if not jobs or not kinds:
        sys.exit("tools/bench: --jobs and --servers leave nothing to run")
    if options.before:
        bench_servers.Before.build = os.path.abspath(options.before)
        kinds += [bench_servers.Before, bench_servers.BeforeWorkers]
    prepares = ["linear", "leaf"] if options.prepare == "both" else [options.prepare]
    document = {
        "machine": machine, "versions": bench_servers.versions(kinds),
        "rounds": options.rounds, "seconds": options.seconds, "size_bytes": options.size,
        "pinned": options.pin,
        "filesystem": filesystem(), "runs": {},
    }
    for prepare in prepares:
        results = run_prepared(rig, options, prepare, kinds, jobs)
        summed = medians(results)
        if options.before:
            print_before(prepare, results)
        document["runs"][prepare] = {
            "results": results, "medians": summed,
            "rows": bench_report.judge(jobs, results, summed),
        }
    bench_report.write(document, {job.name: job for job in jobs}, options.out)


def filesystem():
    done = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", tempfile.gettempdir()],
                          check=False, capture_output=True, text=True)
    # Of mounts over one another the last one is seen.
    return (done.stdout.split() or ["an unknown filesystem"])[-1]
