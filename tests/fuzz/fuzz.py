#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""fuzz - runs the fuzz targets for a bounded time each

    tests/fuzz/fuzz.py [--long] [--seconds N] [TARGET...]

SAMEBLK_BIN is the build of variant `fuzz` (tools/build fuzz). A target begins with its part of
tests/fuzz/corpus and with what earlier runs found interesting, which is kept in the build. Prints
`ok fuzz.TARGET`, or `not ok fuzz.TARGET` with the message, where the input was saved and how to
repeat it: an input alone repeats what it did.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("SAMEBLK_BIN") or os.path.join(TOP, "build", "fuzz")
SECONDS, SECONDS_LONG = 20, 600
INPUT_SECONDS = 10
MEMORY_MIB = 1024
GRACE_SECONDS = 60
# The longest inputs that mean anything, in bytes.
LENGTHS = {"ctl": 8192, "handshake": 40000, "nbd": 1024, "volume": 1024}
MESSAGE = re.compile(r"does not hold|Assertion|runtime error|ERROR: |SUMMARY: ")


def command(target, seconds):
    here = os.path.join(TOP, "tests", "fuzz")
    seeds = os.path.join(here, "corpus", target)
    found = os.path.join(BUILD, "fuzz", "corpus", target)
    crashes = os.path.join(BUILD, "fuzz", "crashes", target)
    words = os.path.join(here, target + ".dict")
    for folder in (found, crashes):
        os.makedirs(folder, exist_ok=True)
    return [os.path.join(BUILD, "tests", "fuzz", "fuzz_" + target),
            f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}",
            f"-rss_limit_mb={MEMORY_MIB}", f"-malloc_limit_mb={MEMORY_MIB}",
            f"-max_len={LENGTHS[target]}", f"-artifact_prefix={crashes}/", "-print_final_stats=1",
            *([f"-dict={words}"] if os.path.exists(words) else []), found, seeds]


def explain(target, output):
    """What matters of a failed run, as comments."""
    lines = [line for line in output.splitlines() if MESSAGE.search(line)]
    saved = re.search(r"Test unit written to (\S+)", output)
    yield from lines[:6] or output.splitlines()[-10:]
    if saved:
        yield f"input saved in {saved.group(1)}"
        yield f"again: {BUILD}/tests/fuzz/fuzz_{target} {saved.group(1)}"


def run(target, seconds):
    """Returns what it has to say."""
    try:
        done = subprocess.run(command(target, seconds), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired as stuck:
        output = (stuck.stdout or b"").decode("utf-8", "replace")
        return [f"# {line}" for line in ["stuck", *explain(target, output)]] + \
            [f"not ok fuzz.{target}"]
    output = done.stdout.decode("utf-8", "replace")
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    seeds = len(os.listdir(os.path.join(TOP, "tests", "fuzz", "corpus", target)))
    if done.returncode == 0 and runs and int(runs.group(1)) > seeds:
        covered = re.findall(r"cov: (\d+)", output)[-1:]
        return [f"# {target}: {runs.group(1)} inputs, {''.join(covered)} edges",
                f"ok fuzz.{target}"]
    return [f"# {line}" for line in explain(target, output)] + [f"not ok fuzz.{target}"]


def main():
    parser = argparse.ArgumentParser(prog="fuzz.py", description="Runs the fuzz targets.")
    parser.add_argument("--long", action="store_true", help=f"{SECONDS_LONG} s each")
    parser.add_argument("--seconds", type=int, help=f"of each target ({SECONDS})")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    unknown = set(options.targets) - set(LENGTHS)
    if unknown:
        parser.error(f"no target {' '.join(unknown)}; there are: {' '.join(sorted(LENGTHS))}")
    seconds = options.seconds or (SECONDS_LONG if options.long else SECONDS)
    failed = False
    with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, len(LENGTHS))) as pool:
        for said in pool.map(lambda target: run(target, seconds),
                             options.targets or sorted(LENGTHS)):
            print("\n".join(said), flush=True)
            failed = failed or said[-1].startswith("not ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
