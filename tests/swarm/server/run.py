#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""run - the server swarm: whole worlds, drawn from a seed, with the real programs

    tests/swarm/server/run.py [--seed N] [--seconds S | --worlds N] [--bin DIR] [--keep-going]
                              [--pin DIMENSION=BUCKET] [--ignore CHECK] [--keep FOLDER]

A world (world.py) is a volume, a store on some filesystem or device, a load (main.c) that knows
what each sector may hold, and several lives of a server, each with other options, which end in
kills, also in recovery, and stops. Between lives `sameblk check` looks at the store; at the end
all is trimmed, and nothing may be left.

One seed is one world; --seconds goes on with the seeds after it. The draw is repeated by the seed,
the timing is not. On failure the store, the logs and the last operations are kept in a folder. What
was drawn is printed as a table; a bucket that stayed empty in a long run fails it.

Prints `ok`, `not ok` and `skip` lines as the rigs do. By hand, --keep-going counts what else there
is, --pin draws one bucket of a dimension always, and --ignore goes on over a check that fails for a
reason that is known.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path[:0] = [HERE, os.path.join(TOP, "tests", "server"), os.path.join(TOP, "tests", "rigs")]

# pylint: disable=wrong-import-position
import world
from life import Failure, Programs
from places import Missing, Places
from story import Story

# A bucket that should have come up so often by now, and never did, is one that is not drawn.
EMPTY_MEANS = 8
NAME = "swarm.server"


class Swarm:
    def __init__(self, options):
        self.options = options
        self.programs = Programs(options.bin, options.load)
        self.pins = dict(pin.split("=", 1) for pin in options.pin)
        self.folder = tempfile.mkdtemp(prefix="sameblk-swarm-places.")
        self.places = Places(self.folder)
        self.counts, self.sums = {}, {}
        self.worlds = self.lives = self.kills = 0
        self.failures = []
        self.skipped = set()
        self.began = time.monotonic()

    def place_for(self, drawn):
        """Where it is to be, or, if that cannot be made here, in a plain folder."""
        try:
            return self.places.get(drawn.buckets["place"])
        except Missing as why:
            kind = drawn.buckets["place"]
            if kind not in self.skipped:
                self.skipped.add(kind)
                print(f"skip {NAME}.{kind} {why}", flush=True)
            drawn.move("here")
            return self.places.get("here")

    def one(self, seed):
        drawn = world.World(seed, self.counts, self.pins)
        story = Story(self.programs, self.place_for(drawn), drawn)
        began = time.monotonic()
        try:
            story.tell()
        except Failure as failure:
            if story.place.is_lost():
                print(f"# seed {seed}: the kernel made {story.place.kind} read-only", flush=True)
            elif failure.check not in self.options.ignore:
                self.failed(story, seed, failure.check, str(failure))
        except Exception:  # a bug of the swarm is a failure too, and says where
            self.failed(story, seed, "swarm", traceback.format_exc())
        finally:
            story.end()
            story.clean_up()
            if story.place.is_lost():
                self.places.lose(story.place)
        self.worlds += 1
        self.lives += story.lives
        self.kills += story.kills
        if story.load:
            for key, value in story.load.sums.items():
                self.sums[key] = self.sums.get(key, 0) + value
        if self.options.verbose:
            print(f"# seed {seed}: {drawn.buckets} {story.lives} lives, "
                  f"{time.monotonic() - began:.1f} s", flush=True)

    def failed(self, story, seed, check, text):
        after = time.monotonic() - self.began
        self.failures.append((check, seed, after))
        keep = os.path.join(self.options.keep or tempfile.gettempdir(),
                            f"sameblk-swarm-{seed}")
        story.keep(keep)
        print(f"# seed {seed} after {after:.0f} s: " + text.replace("\n", "\n# "))
        print(f"# {story.world.buckets}")
        print(f"# life: {story.life}")
        print(f"# {' '.join(sys.argv[:1])} --seed {seed} --worlds 1; kept in {keep}", flush=True)

    def run(self):
        seed = self.options.seed
        print(f"# {NAME}: --seed {seed}", flush=True)
        try:
            while self.goes_on():
                self.one(seed)
                seed += 1
        finally:
            self.places.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.report()

    def goes_on(self):
        if self.failures and not self.options.keep_going:
            return False
        if self.options.worlds:
            return self.worlds < self.options.worlds
        return time.monotonic() - self.began < self.options.seconds

    def report(self):
        """The table, and the verdict. Exit status 1 if anything failed."""
        empty = []
        for dimension, buckets in {**world.WORLD, **world.LIFE}.items():
            row = []
            for bucket in buckets:
                count = self.counts.get((dimension, str(bucket)), 0)
                row.append(f"{bucket} {count}")
                if (count == 0 and dimension not in self.pins and bucket not in self.skipped
                        and world.expected(dimension, bucket, self.worlds, self.lives)
                        > EMPTY_MEANS):
                    empty.append(f"{dimension} {bucket}")
            print(f"# {dimension:14} {', '.join(row)}")
        done = ", ".join(f"{key} {value}" for key, value in self.sums.items()
                         if key != "generation")
        print(f"# {self.worlds} worlds, {self.lives} lives, {self.kills} kills in "
              f"{time.monotonic() - self.began:.0f} s: {done}")
        for check in sorted({check for check, _, _ in self.failures}):
            seen = [(seed, after) for c, seed, after in self.failures if c == check]
            print(f"# {check}: {len(seen)} times, first by seed {seen[0][0]} after "
                  f"{seen[0][1]:.0f} s")
        for name in empty:
            print(f"# never drawn: {name}")
        good = not self.failures and not empty
        print(f"{'ok' if good else 'not ok'} {NAME}")
        return 0 if good else 1


def main():
    parser = argparse.ArgumentParser(prog="tests/swarm/server/run.py")
    first = int(time.time()) // world.ROUND_WORLDS * world.ROUND_WORLDS
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or first))
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--worlds", type=int, default=0)
    parser.add_argument("--bin", default=os.environ.get("SAMEBLK_BIN")
                        or os.path.join(TOP, "build", "gcc"))
    parser.add_argument("--load", help="the load's program, if it is not in --bin")
    parser.add_argument("--keep", help="where failures are kept")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--pin", action="append", default=[], metavar="DIMENSION=BUCKET")
    parser.add_argument("--ignore", action="append", default=[], metavar="CHECK")
    parser.add_argument("--verbose", action="store_true")
    # What was mounted is unmounted also when tools/test is ended.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(2))
    sys.exit(Swarm(parser.parse_args()).run())


if __name__ == "__main__":
    main()
