#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""own_tools - tools/test itself: ended by a signal it leaves nothing; a path may have a space

    tests/rigs/own_tools.py [TEST...]
"""

import os
import signal
import subprocess
import sys

import rig
from rig import expect, expect_equal

SUITE = "rig.kill"


def arguments(pid):
    """None while the program has only just begun."""
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        return f.read().split(b"\0")[:-1]


def rig_servers(pid):
    """The servers among a process's descendants."""
    found, servers = [pid], []
    for one in found:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children", encoding="ascii") as f:
                    found += [int(child) for child in f.read().split()]
            if os.readlink(f"/proc/{one}/exe").endswith("/sameblkd") and arguments(one):
                servers.append(one)
        except OSError:
            continue
    return servers


def folder_of(pid):
    """The rig's folder, from the server's arguments."""
    return os.path.dirname(arguments(pid)[-1].decode())


def end_tests(r, signum):
    """Sends the signal to a run of tests under way: its status, what it printed, the folder."""
    process = r.spawn(sys.executable, os.path.join(rig.TOP, "tests", "run.py"), SUITE,
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                      start_new_session=True)
    server, = rig.wait_until(lambda: rig_servers(process.pid)[:1], "a server runs", seconds=120,
                             pause=0.005)
    folder = folder_of(server)
    process.send_signal(signum)
    out = process.communicate(timeout=60 * rig.slowness())[0]
    expect(not os.path.exists(f"/proc/{server}"), f"the server is ended: {out}")
    return process.returncode, out, folder


def test_a_signal_ends_all_that_tests_started(r):
    for signum in (signal.SIGINT, signal.SIGTERM):
        status, out, folder = end_tests(r, signum)
        expect_equal(status, 128 + signum, "the status")
        expect("Traceback" not in out, f"no traceback: {out}")
        expect(not os.path.exists(folder), f"the rig cleaned up {folder}")


def test_unit_tests_pass_in_a_path_with_a_space(r):
    spaced = r.path("a build")
    os.symlink(os.path.abspath(rig.BIN), spaced)
    sameblk = os.path.join(spaced, "cli", "sameblk")
    for name in ("cli_create", "cli_commands"):
        program = os.path.join(spaced, "tests", "cli", f"test_{name}")
        rig.run(program, "-j2", env={**os.environ, "SAMEBLK": sameblk}, cwd=rig.TOP)


if __name__ == "__main__":
    rig.main(globals())
