# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_same_report - holds the results of tools/bench same against the goals

Goals (issue 5): cached, requests of 1 MiB and 16 MiB, bytes a second: at least 4.5 times XFS, 12
times btrfs, and 0.7 of one core's memcmp over mapped ranges (whose page tables are there; what it
does the first time is given beside it). Cached, 4 KiB: at least twice the better of both in
requests a second. Cold, 1 MiB and 16 MiB: bytes read a second at least 0.9 of what fio reads.
Clients: p99 of 4 KiB writes at most 3 times idle over other ranges, 20 ms over the same.
"""

import json
import os
import statistics

import bench_plot

KERNEL = ("xfs", "btrfs")
BYTES_GOALS = {"xfs": 4.5, "btrfs": 12.0}
LARGE = ("1m", "16m")
TITLES = {"4k": "4 KiB", "128k": "128 KiB", "1m": "1 MiB", "16m": "16 MiB"}
CLIENT_TIMES, CLIENT_US = 3.0, 20000.0
MIB = 1 << 20


def parse(text):
    return json.loads(text)


def goal(what, ratios, wanted, at_most=False):
    """Of the rounds' ratios the median is judged."""
    found = statistics.median(ratios)
    return {"what": what, "found": found, "min": min(ratios), "max": max(ratios), "goal": wanted,
            "at_most": at_most, "pass": found <= wanted if at_most else found >= wanted}


def ratios(ours, theirs, key="mbps", times=1.0):
    return [times * a[key] / b[key] for a, b in zip(ours, theirs)]


def judge_clients(document):
    for name, one in document["clients"].items():
        over, size = name.split("-")
        what = f"clients, p99 over {over} ranges, batch of {TITLES[size]} lines"
        if over == "other":
            yield goal(f"{what}: times idle", [one["merging_p99_us"] / one["idle_p99_us"]],
                       CLIENT_TIMES, at_most=True)
        else:
            yield goal(f"{what}: us", [one["merging_p99_us"]], CLIENT_US, at_most=True)


def judge(document):
    merges = document["merges"]
    for size in LARGE:
        one = merges.get(f"cached-{size}")
        if one is None:
            continue
        for name in KERNEL:
            yield goal(f"cached, {TITLES[size]}: bytes/s of {name}",
                       ratios(one["sameblk"], one[name]), BYTES_GOALS[name])
        yield goal(f"cached, {TITLES[size]}: of one core's memcmp",
                   ratios(one["sameblk"], document["memcmp"]), 0.7)
    small = merges.get("cached-4k")
    if small:
        best = max(KERNEL, key=lambda n: document["medians"]["cached-4k"][n]["requests_per_s"])
        yield goal(f"cached, 4 KiB: requests/s of {best}",
                   ratios(small["sameblk"], small[best], "requests_per_s"), 2.0)
    for size in LARGE:
        one = merges.get(f"cold-{size}")
        if one:
            # Two bytes are read for each that is merged.
            yield goal(f"cold, {TITLES[size]}: of fio's sequential read",
                       ratios(one["sameblk"], document["fio"], times=2.0), 0.9)
    yield from judge_clients(document)
    yield from judge_dedupe(document["dedupe"])


def goal_row(one):
    sign = "at most" if one["at_most"] else "at least"
    return (f"| {one['what']} | {sign} {one['goal']:,.2f} | {one['found']:,.2f}, {one['min']:,.2f} "
            f"to {one['max']:,.2f} | {'pass' if one['pass'] else '**falls short**'} |")


def merges_table(document):
    yield "| data, request | who | MB/s | requests/s | CPU, s a GiB | times sameblk is as fast |"
    yield "|---|---|---|---|---|---|"
    for key, one in document["medians"].items():
        temperature, size = key.split("-")
        runs = document["merges"][key]
        for name, median in one.items():
            times = ratios(runs["sameblk"], runs[name])
            yield (f"| {temperature}, {TITLES[size]} | {name} | {median['mbps']:,.0f} "
                   f"| {median['requests_per_s']:,.0f} | {median['cpu_s_per_gib']:.2f} "
                   f"| {statistics.median(times):.2f}, {min(times):.2f} to {max(times):.2f} |")


def bounds(document):
    def median(key, what):
        return statistics.median(run[what] for run in document[key])
    yield (f"One core's memcmp: {median('memcmp', 'mbps'):,.0f} MB/s ("
           f"{median('memcmp', 'first_mbps'):,.0f} when it has to make the page tables). fio, "
           f"cold, 1 MiB reads in order: {median('fio', 'mbps'):,.0f} MB/s, which are half as "
           f"many bytes of a merge.")


def clients_table(document):
    yield "| clients write to | batch of | p99 idle, us (writes) | p99 merging, us (writes) |"
    yield "|---|---|---|---|"
    for name, one in document["clients"].items():
        over, size = name.split("-")
        yield (f"| {over} ranges | {TITLES[size]} lines "
               f"| {one['idle_p99_us']:,.0f} ({one['idle_count']:,}) "
               f"| {one['merging_p99_us']:,.0f} ({one['merging_count']:,}) |")


def dedupe_table(dedupe):
    """What bench_dedupe found, or the reason why nothing was measured."""
    if isinstance(dedupe, str):
        yield f"`sameblk dedupe` against duperemove: {dedupe}."
        return
    yield f"{dedupe['duplicates']:.0%} of the data are duplicates at 4 KiB.\n"
    yield ("| data, who | seconds | of sameblk's | CPU, s | memory, MiB | hashfile, MiB "
           "| freed, MiB | again, s |")
    yield "|---|---|---|---|---|---|---|---|"
    for name, runs in dedupe["runs"].items():
        def median(key, of=runs):
            return statistics.median(run[key] for run in of)
        ours = dedupe["runs"][f"{name.split(':')[0]}: sameblk dedupe"]
        times = [a["seconds"] / b["seconds"] for a, b in zip(runs, ours)]
        yield (f"| {name} | {median('seconds'):,.2f} | {statistics.median(times):.2f}, "
               f"{min(times):.2f} to {max(times):.2f} | {median('cpu_seconds'):,.2f} "
               f"| {median('memory_bytes') / MIB:,.0f} | {median('hashfile_bytes') / MIB:,.1f} "
               f"| {median('freed_bytes') / MIB:,.0f} | {median('again_seconds'):,.2f} |")


def judge_dedupe(dedupe):
    if isinstance(dedupe, str):
        return
    runs = dedupe["runs"]
    for name, theirs in runs.items():
        ours = runs[f"{name.split(':')[0]}: sameblk dedupe"]
        if ours is theirs:
            yield goal(f"dedupe, {name.split(':')[0]}: again, of the first run",
                       [run["again_seconds"] / run["seconds"] for run in ours], 0.02,
                       at_most=True)
            continue
        yield goal(f"dedupe, {name}: times as fast",
                   [a["seconds"] / b["seconds"] for a, b in zip(theirs, ours)], 5.0)
        yield goal(f"dedupe, {name}: of the bytes it frees",
                   [b["freed_bytes"] / max(a["freed_bytes"], 1) for a, b in zip(theirs, ours)],
                   1.0)


def markdown(document):
    goals = list(judge(document))
    yield (f"{document['machine']}; {document['size_bytes'] >> 20} MiB, half of it merged with the "
           f"other half, on {document['filesystem']}; {document['rounds']} rounds. "
           f"{sum(g['pass'] for g in goals)} of {len(goals)} goals are met.\n")
    yield "| what | goal | found: median, lowest to highest | |"
    yield "|---|---|---|---|"
    for one in goals:
        yield goal_row(one)
    yield ""
    yield from bounds(document)
    yield ""
    yield from merges_table(document)
    if document["clients"]:
        yield ""
        yield from clients_table(document)
    yield ""
    yield from dedupe_table(document["dedupe"])


def write(document, folder):
    """Markdown to stdout; with a folder, that, JSON and a plot into it."""
    text = "\n".join(markdown(document)) + "\n"
    print(text)
    if not folder:
        return
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "same.md"), "w", encoding="utf-8") as f:
        f.write(text)
    with open(os.path.join(folder, "same.json"), "w", encoding="utf-8") as f:
        json.dump(document, f, indent=1)
    groups = [(f"{key.split('-')[0]}, {TITLES[key.split('-')[1]]}",
               {name: one["mbps"] for name, one in found.items()})
              for key, found in document["medians"].items()]
    with open(os.path.join(folder, "same.svg"), "w", encoding="utf-8") as f:
        f.write(bench_plot.draw_times("Merging: bytes a second as multiples of the better kernel's",
                                      groups, "sameblk"))
