#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""run - every suite, and the sum at the end; started by tools/test

    tools/test [--long] [--mutants] [--coverage] [--list] [SUITE...]

    --long       what takes hours as well: many kills, millions of crash states, large trees
    --mutants    instead: every bug that is put in on purpose, and the test that sees it
    --coverage   instead: branches of core/ that unit tests and the simulator take
    --list       the names of the suites

Without names all suites run: those that use every processor one after the other, then the others
side by side. Output of each goes to LOGS/SUITE.log and, where it failed, to the
terminal. The last line is `N passed, N failed`; what could not run here is listed as `skipped: NAME
(why)` and counts as neither. Exit status 1 if anything failed.
"""

import argparse
import concurrent.futures
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as xml

from suite import TOO_LONG

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("SAMEBLK_BUILD") or os.path.join(TOP, "build")
LOGS = os.path.join(BUILD, "logs")
JOBS = str(min(os.cpu_count() or 1, 8))
FAILURE_LINES = 60
SKIPPED = 77
# One that takes longer than this is stuck, on a machine that does nothing else.
SUITE_SECONDS = 1500
SUITE_SECONDS_LONG = 6 * 3600
# Suites of one process that waits for most of its time: so many at once.
LANES = 2
# Rigs that run a suite themselves.
ALONE = ("own_tools",)


class Results:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], []
        self.lock = threading.Lock()

    def ok(self, name):
        self.passed += 1

    def bad(self, name):
        self.failed.append(name)

    def skip(self, name, why):
        self.skipped.append((name, why))


def log_name(suite):
    return os.path.join(LOGS, re.sub(r"[^\w.-]", "_", suite) + ".log")


def slowness():
    """How many times longer than on a quiet machine a suite may take."""
    return max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


class Stopped(Exception):
    """tools/test was asked to end: nothing begins any more."""


# What runs, so that a signal ends all of it; None once nothing more may begin.
running, running_lock = set(), threading.Lock()


def start(args, log, env):
    with running_lock:
        if running is None:
            raise Stopped
        # A session of its own, so that what the terminal sends comes from us, once.
        process = subprocess.Popen(args, cwd=TOP, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True,
                                   env={**os.environ, **(env or {})})
        running.add(process)
    return process


def end_all():
    """Ends what runs, and waits for it; each ends what it has started (tests/suite.py)."""
    global running
    with running_lock:
        left, running = running or set(), None
    for process in left:
        if process.poll() is None:
            process.terminate()
    for process in left:
        process.wait()


def stop(signum, frame):
    """Ctrl-C and TERM end the suites under way by an exception."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"\nended by {signal.Signals(signum).name}", flush=True)
    sys.exit(128 + signum)


def command(suite, args, seconds, env=None):
    """Runs it, output to the suite's log. Returns (status, output); status None: too long."""
    os.makedirs(LOGS, exist_ok=True)
    with open(log_name(suite), "w+", encoding="utf-8", errors="replace") as log:
        process = start([sys.executable, f"{TOP}/tests/suite.py", str(seconds * slowness()), *args],
                        log, env)
        status = process.wait()
        with running_lock:
            if running is None:
                raise Stopped
            running.discard(process)
        log.seek(0)
        return None if status == TOO_LONG else status, log.read()


def take_lines(results, suite, status, output):
    """Sums up `ok NAME`, `not ok NAME`, `skip NAME why`; a bad end alone counts too."""
    before = len(results.failed)
    variant = ".".join(suite.split(".")[2:])
    for line in output.splitlines():
        match = re.match(r"(ok|not ok|skip) (\S+) ?(.*)", line)
        if not match:
            continue
        kind, name, rest = match.groups()
        name += f" ({variant})" if variant else ""
        if kind == "ok":
            results.ok(name)
        elif kind == "skip":
            results.skip(name, rest)
        else:
            results.bad(name)
    if status not in (0, SKIPPED) and len(results.failed) == before:
        results.bad(f"{suite}, {'stuck' if status is None else f'ended with {status}'}")


class Suite:
    """A name, what it runs, and how its output is read. One that is `alone` uses every processor
    by itself, or looks at what the whole machine does; others run side by side."""

    def __init__(self, name, args, env=None, build=None, read=take_lines, needs=None, alone=False):
        self.name, self.args, self.env, self.build = name, args, env, build
        self.read, self.needs, self.alone = read, needs, alone

    def run(self, results, builds, seconds):
        if self.needs and not os.path.exists(self.needs):
            results.bad(f"{self.name}, {os.path.relpath(self.needs, TOP)} is missing")
            return
        if self.build and not builds.get(self.build, results):
            results.bad(f"{self.name}, not built")
            return
        began = time.monotonic()
        status, output = command(self.name, self.args, seconds, self.env)
        took = time.monotonic() - began
        with results.lock:
            self.report(results, status, output, took)

    def report(self, results, status, output, took):
        failed, passed, skipped = len(results.failed), results.passed, len(results.skipped)
        self.read(results, self.name, status, output)
        bad = len(results.failed) - failed
        print(f"{'FAILED' if bad else 'passed'} {self.name}: {results.passed - passed} passed, "
              f"{bad} failed, {len(results.skipped) - skipped} skipped, {took:.0f} s", flush=True)
        if bad:
            print("    " + "\n    ".join(output.splitlines()[-FAILURE_LINES:]), flush=True)


class Builds:
    """Each variant is built once, when a suite first asks for it; some only as far as it needs."""

    TARGETS = {"tsan": ["server/sameblkd", "cli/sameblk", "tests/rigs/linear"]}

    def __init__(self):
        self.done = {}

    def get(self, variant, results):
        if variant not in self.done:
            began = time.monotonic()
            args = [f"{TOP}/tools/build", variant, *self.TARGETS.get(variant, [])]
            status, output = command(f"build.{variant}", args, 900)
            self.done[variant] = status == 0
            word = "passed" if status == 0 else "FAILED"
            print(f"{word} build.{variant}: {time.monotonic() - began:.0f} s", flush=True)
            if status == 0:
                results.ok(f"build.{variant}")
            else:
                results.bad(f"build.{variant}")
                print("    " + "\n    ".join(output.splitlines()[-FAILURE_LINES:]), flush=True)
        return self.done[variant]


def folder(variant):
    return os.path.join(BUILD, variant)


def take_meson(results, suite, status, output):
    """Counts every test case that meson's test programs reported."""
    variant = suite.split(".")[1]
    report = os.path.join(folder(variant), "meson-logs", "testlog.junit.xml")
    before = len(results.failed)
    try:
        cases = list(xml.parse(report).iter("testcase"))
    except (OSError, xml.ParseError):
        cases = []
    for case in cases:
        name = f"{suite}.{case.get('classname') or ''}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            results.bad(name)
        elif case.find("skipped") is not None:
            results.skip(name, case.find("skipped").get("message") or "by itself")
        else:
            results.ok(name)
    # Criterion takes no notice of how a test's process ends (tests/lib/leaks.c).
    with open(os.path.join(folder(variant), "meson-logs", "testlog.txt"), encoding="utf-8",
              errors="replace") as f:
        if "ERROR: LeakSanitizer" in f.read():
            results.bad(f"{suite}, a leak: see meson-logs/testlog.txt")
    if status != 0 and len(results.failed) == before or not cases:
        results.bad(f"{suite}, ended with {status}, {len(cases)} cases")


def take_status(results, suite, status, output):
    """For programs that say good or bad by their exit status; 77 is skipped."""
    if status == 0:
        results.ok(suite)
    elif status == SKIPPED:
        results.skip(suite, (output.strip().splitlines() or ["by itself"])[-1])
    else:
        results.bad(suite)


def unit_suite(variant, *options):
    args = ["meson", "test", "-C", folder(variant), "--no-rebuild", "--num-processes", JOBS,
            "--print-errorlogs", "--timeout-multiplier", str(10 * math.ceil(slowness())), *options]
    return Suite(f"unit.{variant}", args, build=variant, read=take_meson, alone=True)


def rig_suite(rig, variant, long, tests=()):
    args = ["/usr/bin/python3", f"{TOP}/tests/rigs/{rig}.py", *tests] + (["--long"] if long else [])
    name = f"rig.{rig}" if variant == "gcc" else f"rig.{rig}.{variant}"
    return Suite(name, args, env={"SAMEBLK_BIN": folder(variant)}, build=variant,
                 alone=rig in ALONE)


def sim_command(build, states, seconds):
    return [f"{build}/tests/sim/sim", "--states", str(states), "--seconds", str(seconds),
            "--jobs", JOBS]


def swarm_suites(long):
    """Whole worlds by seed: of the engine on one processor, of real servers on another."""
    both, one = [f"{TOP}/tests/swarm/run.py"], ["--seconds", "25"]
    server = [f"{TOP}/tests/swarm/server/run.py", "--bin", folder("asan")]
    return [
        Suite("swarm", ["/usr/bin/python3", *both, "--seconds", "7200" if long else "120",
                        "--bin", folder("gcc")], build="gcc", alone=True),
        Suite("swarm.engine.asan", [f"{folder('asan')}/tests/swarm/engine/swarm_engine", *one],
              build="asan"),
        Suite("swarm.server.asan", ["/usr/bin/python3", *server, *one], build="asan"),
    ]


def server_rigs():
    return [(f[:-3], ["/usr/bin/python3", f"{TOP}/tests/server/{f}"])
            for f in sorted(os.listdir(f"{TOP}/tests/server"))
            if f.endswith(".py") and f != "nbd_raw.py"]


def all_suites(long):
    states, seconds = (5000000, 18000) if long else (150000, 600)
    rigs = sorted(f[:-3] for f in os.listdir(f"{TOP}/tests/rigs")
                  if f.endswith(".py") and f != "rig.py")
    suites = [Suite("tidy", [sys.executable, f"{TOP}/tests/tidy/tidy.py"], alone=True)]
    # tidy sees what is included, this what is called.
    suites.append(Suite("house", [sys.executable, f"{TOP}/tools/measure", "--check",
                                  "--build", folder("gcc")], build="gcc"))
    # The simulator's short runs look for nothing that another compiler changes.
    suites += [unit_suite("gcc"), unit_suite("clang", "--no-suite", "sim"), unit_suite("asan")]
    suites += [
        Suite("sim", sim_command(folder("gcc"), states, seconds), build="gcc", read=take_status,
              alone=True),
        Suite("spin", [f"{TOP}/tests/spin/run"] + (["-l"] if long else []),
              needs=f"{TOP}/tests/spin/run"),
        Suite("demo", [f"{TOP}/tools/demo"], read=take_status),
    ]
    suites += [Suite(f"{rig}.{variant}", args, env={"SAMEBLK_BIN": folder(variant)}, build=variant)
               for rig, args in server_rigs() for variant in ("gcc", "asan")]
    suites.append(Suite("fuzz", ["/usr/bin/python3", f"{TOP}/tests/fuzz/fuzz.py"]
                        + (["--long"] if long else []),
                        env={"SAMEBLK_BIN": folder("fuzz")}, build="fuzz"))
    suites += swarm_suites(long)
    suites += [rig_suite(rig, "gcc", long) for rig in rigs]
    suites.append(Suite("vm", ["/usr/bin/python3", f"{TOP}/tests/vm/run.py"]
                        + (["--long"] if long else []),
                        env={"SAMEBLK_BIN": folder("gcc")}, build="gcc", alone=True))
    suites += [rig_suite(rig, variant, long)
               for rig in ("linear", "same_rules", "bad_input") for variant in ("asan", "tsan")
               if rig in rigs]
    return suites


def mutants():
    """Every mutant that the sources have, with the folders that have it: {number: {folder}}."""
    found = {}
    for top in ("core", "server", "cli"):
        for place, _, names in os.walk(os.path.join(TOP, top)):
            for name in names:
                with open(os.path.join(place, name), encoding="utf-8", errors="replace") as f:
                    for number in re.findall(r"\bMUTANT\((\d+)\)", f.read()):
                        found.setdefault(int(number), set()).add(top)
    return dict(sorted(found.items()))


def kills(build, number, folders, seconds):
    """The first suite that sees the mutant, or None."""
    env = {"SAMEBLK_MUTANT": str(number), "SAMEBLK_BIN": build}
    tries = [("unit", ["meson", "test", "-C", build, "--no-rebuild", "--num-processes", JOBS])]
    if "server" in folders:
        tries += server_rigs()
    if "core" in folders:
        tries.append(("sim", sim_command(build, 150000, seconds)))
    for suite, args in tries:
        status, output = command(f"mutant.{number}.{suite}", args, 2 * seconds + 300, env)
        if status != 0:
            lines = [" ".join(line.split()) for line in output.splitlines()
                     if re.search(r"\b(not ok|FAIL|FAILED|TIMEOUT|ERROR)\b", line)]
            return f"{suite}: {lines[0][:90] if lines else f'ended with {status}'}"
    return None


def run_mutants(results):
    if not Builds().get("mutants", results):
        return
    build = folder("mutants")
    status, _ = command("mutant.none", ["meson", "test", "-C", build, "--no-rebuild"], 900)
    if status != 0:
        results.bad("mutant.none, the tests fail without any mutant")
        return
    for number, folders in mutants().items():
        killer = kills(build, number, folders, 120)
        print(f"mutant {number:3}: {killer or 'SURVIVED'}", flush=True)
        results.ok(f"mutant.{number}") if killer else results.bad(f"mutant.{number}")


def run_coverage(results):
    if not Builds().get("coverage", results):
        return
    build = folder("coverage")
    for suite, args in (
            ("unit", ["meson", "test", "-C", build, "--no-rebuild", "--num-processes", JOBS]),
            ("sim", sim_command(build, 150000, 900))):
        status, _ = command(f"coverage.{suite}", args, 3600)
        results.ok(suite) if status == 0 else results.bad(f"coverage.{suite}")
    status, output = command("coverage", [
        "gcovr", "--root", TOP, "--object-directory", build, build, "--filter", f"{TOP}/core/",
        "--branches", "--print-summary", "--exclude-branches-by-pattern", r".*\bassert\(.*",
        "--gcov-ignore-parse-errors", "--fail-under-branch", "85"], 900)
    print(output)
    results.ok("coverage") if status == 0 else results.bad("coverage, below 85 %")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tools/test", description="Runs every suite.")
    parser.add_argument("--long", action="store_true", help="what takes hours as well")
    parser.add_argument("--mutants", action="store_true", help="instead: bugs put in on purpose")
    parser.add_argument("--coverage", action="store_true", help="instead: branches of core/ taken")
    parser.add_argument("--list", action="store_true", help="the names of the suites")
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    return parser.parse_args()


def run_suites(results, options):
    suites = all_suites(options.long)
    if options.list:
        print("\n".join(suite.name for suite in suites))
        return
    chosen = [s for s in suites if not options.suites
              or any(s.name == n or s.name.startswith(n + ".") for n in options.suites)]
    if not chosen:
        sys.exit(f"tools/test: no suite named {' '.join(options.suites)}; see --list")
    builds, seconds = Builds(), SUITE_SECONDS_LONG if options.long else SUITE_SECONDS
    for suite in chosen:
        if suite.alone:
            suite.run(results, builds, seconds)
    run_side_by_side(results, [s for s in chosen if not s.alone], builds, seconds)


def run_side_by_side(results, suites, builds, seconds):
    for suite in suites:
        if suite.build:
            builds.get(suite.build, results)
    with concurrent.futures.ThreadPoolExecutor(LANES) as lanes:
        try:
            for done in [lanes.submit(suite.run, results, builds, seconds) for suite in suites]:
                done.result()
        finally:
            end_all()


def main():
    options = parse_arguments()
    results = Results()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    began = time.monotonic()
    try:
        if options.mutants:
            run_mutants(results)
        elif options.coverage:
            run_coverage(results)
        else:
            run_suites(results, options)
    finally:
        end_all()
    if options.list:
        return 0
    print(f"\nin {time.monotonic() - began:.0f} s; logs in {LOGS}")
    for name, why in results.skipped:
        print(f"skipped: {name} ({why})")
    for name in results.failed:
        print(f"failed: {name}")
    print(f"{results.passed} passed, {len(results.failed)} failed")
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
