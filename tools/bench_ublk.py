# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_ublk - the same fio jobs on /dev/ublkbN and on what else makes a block device, in a guest

In one boot of the guest of tests/vm: our device over a ram disk, the kernel's loop device over
another, nbd.ko with nbdkit (its volume in memory), and dm-vdo over a third. The guest is emulated,
so no figure is good for anything but the ratio to another one of the same boot.

In another boot, of a kernel that has zero copy: our device with it and without, over a store in the
page cache and over one past it.

A result is the median of the rounds. Our memory is the server's resident memory after all jobs;
dm-vdo's is what the machine's available memory shrinks by when its device is made.
"""

import json
import os
import re
import statistics
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests", "vm"))
import run as vm

import kernel

VDO_PACKAGE = "vdo"
# (job, peer, our IOPS as a multiple of its, at least)
GOALS = [("4k-read", "nbd+nbdkit", 2), ("4k-write", "nbd+nbdkit", 2), ("4k-read", "dm-vdo", 1),
         ("4k-write", "dm-vdo", 2), ("1m-write", "dm-vdo", 3)]
MEMORY_GOAL = 1 / 3
# (job, device, and the one that it is to be faster than, times)
ZERO_COPY_GOALS = [("1m-write", "direct-zero-copy", "direct-copied", 1.5),
                   ("1m-write", "cached-zero-copy", "cached-copied", 1.5)]
ZERO_COPY_PAIRS = {"cached-zero-copy": "cached-copied", "direct-zero-copy": "direct-copied"}
RUNS_A_ROUND = 4 * 4  # jobs and devices
RAMDISK_MIB, RAMDISKS = 8192, 4
MEMORY = "6G"
SECONDS_EACH, SECONDS_MORE = 12, 300
OURS, MIB = "sameblk", 1 << 20


def vdoformat():
    packages = kernel.get_packages(os.path.join(vm.FOLDER, f"{VDO_PACKAGE}-{vm.SUITE}"), vm.SUITE,
                                   [VDO_PACKAGE])
    return os.path.join(packages, "usr", "bin", "vdoformat")


def measure(options, which, suite, programs):
    tree, found = vm.get_kernel(suite), {}
    made = vm.root(tree, programs=programs)

    def each_line(line):
        if line.startswith("JSON "):
            found.update(json.loads(line[len("JSON "):]))
        else:
            print(line, file=sys.stderr, flush=True)

    command = ("exec python3 /sameblk/tests/vm/guest/bench_ublk.py "
               f"{which} {options.rounds} {options.seconds} {options.size >> 20}")
    runs = options.rounds * RUNS_A_ROUND
    status = vm.boot(tree, made, command, "bench_ublk",
                     runs * (options.seconds + SECONDS_EACH) + SECONDS_MORE, each_line,
                     ramdisk_mib=RAMDISK_MIB, ramdisks=RAMDISKS, memory=MEMORY)
    if status or not found:
        vm.print_console("bench_ublk")
        sys.exit(f"tools/bench ublk: the guest ended with {status}")
    return found


def medians(results):
    return {job: {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                  for name, runs in peers.items()} for job, peers in results.items()}


def judge(summed, memory_bytes):
    """[(what, found, wanted, met)]"""
    rows = []
    for job, peer, wanted in GOALS:
        found = summed[job][OURS]["iops"] / summed[job][peer]["iops"]
        rows.append((f"{job}: of {peer}, at least", found, wanted, found >= wanted))
    found = memory_bytes[OURS] / memory_bytes["dm-vdo"]
    rows.append(("memory: of dm-vdo's, at most", found, MEMORY_GOAL, found <= MEMORY_GOAL))
    return rows


def markdown(document):
    yield (f"{document['machine']}; in a guest under emulation, {document['kernel']}; working set "
           f"{document['size_bytes'] >> 20} MiB of volumes of 4 GiB over ram disks; "
           f"{document['rounds']} rounds of {document['seconds']} s, medians.\n")
    yield "| job | device | IOPS, lowest to highest | MB/s | ours is, times |"
    yield "|---|---|---|---|---|"
    for job, peers in document["results"].items():
        for name, runs in peers.items():
            one, iops = document["medians"][job][name], [run["iops"] for run in runs]
            ours = document["medians"][job][OURS]["iops"] / one["iops"]
            yield (f"| {job} | {name} | {one['iops']:,.0f}, {min(iops):,.0f} to {max(iops):,.0f} "
                   f"| {one['mbps']:,.0f} | {'-' if name == OURS else format(ours, '.2f')} |")
    for name, found in document["memory_bytes"].items():
        if found is not None:
            yield f"\nMemory of {name}: {found / MIB:,.0f} MiB."
    yield "\n| goal | found | wanted | |"
    yield "|---|---|---|---|"
    for what, found, wanted, met in document["goals"]:
        yield f"| {what} | {found:.2f} | {wanted:.2f} | {'met' if met else '**falls short**'} |"
    yield from zero_copy_markdown(document["zero_copy"])


def zero_copy_markdown(part):
    if "missing" in part:
        yield f"\nZero copy was not measured: {part['missing']}."
        return
    yield f"\nZero copy, in a boot of {part['kernel']}:\n"
    yield "| job | device | IOPS, lowest to highest | MB/s | of the copied one |"
    yield "|---|---|---|---|---|"
    for job, devices in part["results"].items():
        for name, runs in devices.items():
            one, iops = part["medians"][job][name], [run["iops"] for run in runs]
            other = part["medians"][job].get(ZERO_COPY_PAIRS.get(name))
            ratio = format(one["iops"] / other["iops"], ".2f") if other else "-"
            yield (f"| {job} | {name} | {one['iops']:,.0f}, {min(iops):,.0f} to {max(iops):,.0f} "
                   f"| {one['mbps']:,.0f} | {ratio} |")
    yield "\n| goal | found | wanted | |"
    yield "|---|---|---|---|"
    for what, found, wanted, met in part["goals"]:
        yield f"| {what} | {found:.2f} | {wanted:.2f} | {'met' if met else '**falls short**'} |"


def zero_copy(options):
    try:
        found = measure(options, "zero-copy", vm.SUITE_NEW, [])
    except kernel.Missing as why:
        return {"missing": str(why)}
    summed, goals = medians(found["results"]), []
    for job, name, other, wanted in ZERO_COPY_GOALS:
        ratio = summed[job][name]["iops"] / summed[job][other]["iops"]
        goals.append((f"{job}: {name}, of {other}, at least", ratio, wanted, ratio >= wanted))
    return {"kernel": kernel_version(vm.SUITE_NEW), "results": found["results"],
            "medians": summed, "goals": goals}


def run(options, machine):
    try:
        found = measure(options, "peers", vm.SUITE, [vdoformat()])
    except kernel.Missing as why:
        sys.exit(f"tools/bench ublk: {why}")
    document = {
        "machine": machine, "kernel": kernel_version(vm.SUITE), "rounds": options.rounds,
        "seconds": options.seconds, "size_bytes": options.size, **found,
        "medians": medians(found["results"]),
    }
    document["goals"] = judge(document["medians"], document["memory_bytes"])
    document["zero_copy"] = zero_copy(options)
    text = "\n".join(markdown(document)) + "\n"
    print(text)
    if options.out:
        os.makedirs(options.out, exist_ok=True)
        for ending, content in (("md", text), ("json", json.dumps(document, indent=1))):
            with open(os.path.join(options.out, f"ublk.{ending}"), "w", encoding="utf-8") as f:
                f.write(content)


def kernel_version(suite):
    names = os.listdir(os.path.join(vm.get_kernel(suite), "lib", "modules"))
    return f"Linux {re.sub(r'^.*/', '', names[0])}"
