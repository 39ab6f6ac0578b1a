#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""suite - runs a program, and ends it and all that it started; what tests/run.py starts

    tests/suite.py SECONDS PROGRAM [ARGUMENT...]

The program is ended when SECONDS are over, or when this process gets SIGTERM or SIGINT. Whatever it
left behind, from sessions of its own too, becomes a child of this process and is ended with it.
Exit status: the program's, 128 and the signal that ended it, or 124 if it took too long.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

TOO_LONG = 124
CLEAN_UP_SECONDS = 20
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def our_children():
    """All of them, theirs too, the parents first."""
    found = [os.getpid()]
    for pid in found:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
                    found += [int(child) for child in f.read().split()]
        except OSError:
            continue
    return found[1:]


def send(pids, signum):
    for pid in pids:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


def end_all(process):
    """Ends a program that is still there, its clean-up included, and whatever it left behind."""
    if process.poll() is None:
        send([process.pid], signal.SIGTERM)
        try:
            process.wait(CLEAN_UP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
    end = time.monotonic() + CLEAN_UP_SECONDS
    while (left := our_children()) and time.monotonic() < end:
        send(left, signal.SIGKILL)
        time.sleep(0.02)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            continue


def stop(signum, frame):
    """An exception, so that what was started is ended on the way out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signum)


def wait(process, seconds):
    """As Popen.wait(), and whatever ends meanwhile as an orphan of ours goes, as init would do."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode
        if pid == 0:
            time.sleep(0.02)
    raise subprocess.TimeoutExpired(process.args, seconds)


def main():
    seconds, args = float(sys.argv[1]), sys.argv[2:]
    adopt_orphans()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    # A session of its own: what the terminal sends is passed on by us, once.
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        status = wait(process, seconds)
    except subprocess.TimeoutExpired:
        print(f"suite: {args[0]} took more than {seconds:.0f} s", flush=True)
        return TOO_LONG
    finally:
        end_all(process)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
