#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""run - both swarms at the same time: whole worlds of the engine, and of real servers

    tests/swarm/run.py [--seconds S] [--bin DIR]

Each keeps one processor busy and no more, so they run side by side. What they print comes when they
are done, one after the other; each ends with `ok` or `not ok` and its name. Exit status 1 if either
failed. Each has a seed to be repeated by, and options of its own: tests/swarm/engine/main.c,
tests/swarm/server/run.py.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--bin", default=os.environ.get("SAMEBLK_BIN")
                        or os.path.join(TOP, "build", "gcc"))
    options = parser.parse_args()
    # Another stretch of seeds each day; each that fails says which one it was. Both deal what
    # they draw in rounds, the engine's of 12 and the server's of 13 worlds.
    first = str(int(time.time()) // 86400 * 12 * 13 * 10000)
    seconds = ["--seconds", str(options.seconds)]
    commands = {
        "engine": [os.path.join(options.bin, "tests/swarm/engine/swarm_engine"), "--first", first,
                   *seconds],
        "server": [sys.executable, os.path.join(HERE, "server", "run.py"), "--bin", options.bin,
                   "--seed", first, *seconds],
    }
    running = []
    for name, command in commands.items():
        output = tempfile.TemporaryFile()
        running.append((name, output, subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                                       stdout=output, stderr=output)))
    bad = 0
    for name, output, process in running:
        bad += process.wait() != 0
        output.seek(0)
        print(f"--- {name}, ended with {process.returncode} ---", flush=True)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
