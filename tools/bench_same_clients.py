# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_same_clients - how long clients' 4 KiB writes take while ranges are merged at full speed

fio writes for as long as it takes and logs when each write was answered and how long it took. In
turns: nothing else happens (*idle*), the second half is merged (*merging*), it is written anew (not
counted). *Other ranges*: fio writes beyond both halves. *Same ranges*: it writes to the second
half, so that single lines of the batch differ.
"""

import os
import time

IDLE_SECONDS = 0.5
TURNS = 8
REQUESTS = {"1m": 1 << 20, "4k": 4096}
FIO_SECONDS = 300


def start_fio(bench, off, log):
    return bench.test.spawn(
        "fio", "--name=clients", "--ioengine=nbd", f"--uri={bench.volume.server.uri}",
        f"--offset={off}", f"--size={bench.half // 2}", "--rw=randwrite", "--bs=4k", "--iodepth=1",
        "--time_based", f"--runtime={FIO_SECONDS}", "--norandommap", f"--write_lat_log={log}",
        "--log_unix_epoch=1", "--refill_buffers", stdout=open(f"{log}.out", "wb"))


def turn(bench, request, windows):
    """Fills windows["idle"] and ["merging"] with (begin, end) in ms since the epoch."""
    begin = time.time()
    time.sleep(IDLE_SECONDS)
    windows["idle"].append((begin * 1000, time.time() * 1000))
    bench.volume.write(bench.half, bench.data)
    bench.volume.make_durable()
    path = bench.volume.lines(request)
    begin = time.time()
    bench.volume.server.cli("same", "--batch", path, ok=(0, 1), seconds=1800)
    windows["merging"].append((begin * 1000, time.time() * 1000))


def p99_us(log, windows):
    """Of what was answered inside one of the windows; and how many those were."""
    found = []
    with open(f"{log}_clat.1.log", encoding="ascii") as f:
        for line in f:
            ms, ns = (int(word) for word in line.split(",")[:2])
            if any(begin <= ms <= end for begin, end in windows):
                found.append(ns / 1000)
    found.sort()
    return (found[int(len(found) * 0.99)] if found else 0.0), len(found)


def measure(bench, name, off, request):
    log = bench.test.path(f"fio-{name}")
    windows = {"idle": [], "merging": []}
    if name.startswith("other"):
        bench.volume.write(off, bench.data[:bench.half // 2])
    fio = start_fio(bench, off, log)
    time.sleep(IDLE_SECONDS)
    for _ in range(TURNS):
        turn(bench, request, windows)
    # fio writes its log when it is told to end.
    fio.send_signal(2)
    fio.wait(60)
    idle, idle_count = p99_us(log, windows["idle"])
    merging, merging_count = p99_us(log, windows["merging"])
    for kind in ("clat", "lat", "slat"):
        path = f"{log}_{kind}.1.log"
        if os.path.exists(path):
            os.unlink(path)
    return {"idle_p99_us": idle, "merging_p99_us": merging, "idle_count": idle_count,
            "merging_count": merging_count,
            "merging_seconds": sum(end - begin for begin, end in windows["merging"]) / 1000}


def run(bench):
    found = {}
    for size, request in REQUESTS.items():
        found[f"other-{size}"] = measure(bench, f"other-{size}", 2 * bench.half, request)
        found[f"same-{size}"] = measure(bench, f"same-{size}", bench.half, request)
    return found
