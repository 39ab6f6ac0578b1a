#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""inherited - what the programs inherit does a store no harm: closed descriptors, signals, a
terminal that goes away, limits"""

import itertools
import os
import pty
import resource
import shlex
import signal
import socket
import subprocess
import time

import rig
from rig import BLOCK, MIB, SAMEBLK, SAMEBLKD, blocks, expect, expect_equal, sameblk

CLOSE = {0: "<&-", 1: ">&-", 2: "2>&-"}
SUBSETS = [s for n in range(1, 4) for s in itertools.combinations(range(3), n)]
# Those that nobody sends to end a server, and the real-time ones at both ends.
IGNORED = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM,
           signal.SIGVTALRM, signal.SIGPROF, signal.SIGXFSZ, signal.SIGIO, signal.SIGPWR,
           signal.SIGTTIN, signal.SIGTTOU, signal.SIGRTMIN, signal.SIGRTMAX]
# What they do to a command is right.
TERMINAL = [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU]


def without(closed, *args):
    """The words of a shell that runs a program with these descriptors closed."""
    words = shlex.join(str(a) for a in args)
    return ["sh", "-c", "exec " + words + " " + " ".join(CLOSE[n] for n in closed)]


def connects(server):
    def try_it():
        try:
            return server.connect()
        except Exception:  # whatever libnbd says of a server that is not there yet
            return None
    return rig.wait_until(try_it, "the server serves", rig.READY_SECONDS)


def say_something(server):
    """Makes the server write to its log: a client more than it takes is refused aloud."""
    for text in (b"GET / HTTP/1.0\r\n\r\n", bytes(64)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(server.nbd)
            client.recv(18)
            client.sendall(text)
    clients = []
    for _ in range(140):
        client = socket.socket(socket.AF_UNIX)
        client.connect(server.nbd)
        clients.append(client)
    time.sleep(0.2)
    for client in clients:
        client.close()


def test_a_server_whose_standard_descriptors_are_closed_keeps_its_store(r):
    store = r.create("--size", "8M")
    server = rig.Server(r, store)
    for count, closed in enumerate(SUBSETS):
        server.process = r.spawn(*without(closed, SAMEBLKD, "-v", "-U", server.nbd, "-c",
                                          server.control, store), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        disk = connects(server)
        names = {n: os.readlink(f"/proc/{server.process.pid}/fd/{n}") for n in closed}
        say_something(server)
        disk.write(count * MIB, blocks(count, 4), fua=True)
        server.process.kill()
        server.process.wait()
        rig.offline_check(store)
        expect_equal(set(names.values()), {"/dev/null"}, f"without {closed}: {names}")
    server.start()
    disk = server.connect()
    for count in range(len(SUBSETS)):
        expect_equal(disk.read(count * MIB, 4 * BLOCK), blocks(count, 4), f"content {count}")
    server.stop()


def content(path):
    with open(path, "rb") as f:
        return f.read()


def test_a_command_whose_standard_descriptors_are_closed_keeps_the_store(r):
    server = r.server(r.create("--size", "8M"))
    disk = server.connect()
    disk.write(0, blocks(1, 16), fua=True)
    disk.close()
    for closed in SUBSETS:
        for command in (["same", 0, MIB, 4 * BLOCK], ["clone", 0, BLOCK, 2 * MIB], ["map"],
                        ["dedupe"], ["status"], ["stats"], ["list"], ["nonsense"]):
            at = ["-c", server.control] if command[0] not in ("list", "nonsense") else []
            rig.run(*without(closed, SAMEBLK, *command, *at), ok=None)
    expect_equal(server.json("status")["state"], "ok", "state")
    server.stop()
    before = content(server.store)
    for closed in SUBSETS:
        for command in ("check", "dump"):
            words = [command] + (["map"] if command == "dump" else []) + [server.store]
            rig.run(*without(closed, SAMEBLK, *words), ok=None)
            expect(content(server.store) == before, f"{command} without {closed} changed it")
        rig.run(*without(closed, SAMEBLK, "check", "--repair", server.store), ok=None)
        rig.offline_check(server.store)
        made = r.path("made")
        rig.run(*without(closed, SAMEBLK, "create", "--size", "4M", made), ok=None)
        rig.offline_check(made)
        rig.run(*without(closed, SAMEBLK, "create", "--size", "4M", made), ok=None)
        rig.offline_check(made)
        os.unlink(made)


def test_a_signal_that_asks_for_nothing_does_not_end_a_server(r):
    server = r.server(r.create("--size", "8M"))
    disk = server.connect()
    disk.write(0, blocks(1, 4))
    for number in IGNORED:
        server.process.send_signal(number)
    time.sleep(0.2)
    expect(server.alive(), f"ended with {server.process.poll()}")
    expect_equal(disk.read(0, 4 * BLOCK), blocks(1, 4), "content")
    disk.close()
    # The limit of processor time asks once a second; a clean end it is all the same.
    server.process.send_signal(signal.SIGXCPU)
    server.process.send_signal(signal.SIGXCPU)
    expect_equal(server._wait(), 0, "exit status after SIGXCPU")
    rig.offline_check(server.store)


def test_a_file_size_limit_is_an_error_of_the_write_that_meets_it(r):
    import nbd
    server = rig.Server(r, r.create("--size", "64M"))
    server.start()
    disk = server.connect()
    disk.write(0, blocks(1, 4))
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE,
                     (os.path.getsize(server.store) // 2, resource.RLIM_INFINITY))
    failed = 0
    for at in range(2 * MIB, 64 * MIB, 2 * MIB):
        try:
            disk.write(at, blocks(at, 1))
        except nbd.Error:
            failed += 1
    expect(failed > 0, "no write met the limit")
    expect(server.alive(), f"ended with {server.process.poll()}")
    expect_equal(disk.read(0, 4 * BLOCK), blocks(1, 4), "content")
    disk.close()
    # The main thread closes the volume: what it cannot write is an error of its own too.
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (BLOCK, resource.RLIM_INFINITY))
    expect_equal(server.stop(ok=None), 2, "exit status where nothing can be written")
    rig.offline_check(server.store)


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))


def test_a_command_tells_of_a_file_size_limit(r):
    path = r.path("limited")
    done = rig.run(SAMEBLK, "create", "--size", "64M", path, ok=None, preexec_fn=limit_files)
    expect_equal(done.returncode, 2, "exit status of create")
    expect("File too large" in done.stderr, f"it says: {done.stderr!r}")


def test_a_signal_that_asks_for_nothing_does_not_end_a_command(r):
    server = r.server(r.create("--size", "8M"))
    command = r.spawn(SAMEBLK, "stats", "--watch", "-c", server.control,
                      stdout=subprocess.PIPE)
    expect(command.stdout.readline(), "nothing is printed")
    for number in IGNORED:
        if number not in TERMINAL:
            command.send_signal(number)
    time.sleep(0.2)
    expect_equal(command.poll(), None, "exit status so far")
    command.terminate()
    command.communicate(timeout=60)
    expect_equal(command.returncode, 0, "exit status after SIGTERM")
    server.stop()


def test_a_command_that_nohup_started_goes_on(r):
    server = r.server(r.create("--size", "8M"))
    batch = r.spawn(SAMEBLK, "same", "--batch", "-", "-c", server.control, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, text=True,
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    for line in ("0 4K 4K", "0 4K 8K"):
        batch.stdin.write(line + "\n")
        batch.stdin.flush()
        expect(" same 4096 " in batch.stdout.readline(), f"the answer to {line}")
        batch.send_signal(signal.SIGHUP)
    out, _ = batch.communicate()
    expect_equal(batch.returncode, 0, f"exit status; it said {out}")
    server.stop()


def test_the_background_job_of_a_shell_outlives_its_terminal(r):
    store = r.create("--size", "8M")
    server = rig.Server(r, store)
    words = shlex.join([SAMEBLKD, "-U", server.nbd, "-c", server.control, store])
    pid, terminal = pty.fork()
    if pid == 0:
        # A shell with job control, as a person has; `tostop` stops who writes in the background.
        os.execvp("bash", ["bash", "--norc", "-i"])
    os.write(terminal, f"stty tostop; {words} &\n".encode())
    disk = connects(server)
    try:
        disk.write(0, blocks(1, 4), fua=True)
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            child = int(f.read().split()[0])
        os.close(terminal)
        os.waitpid(pid, 0)
        time.sleep(0.3)
        expect_equal(disk.read(0, 4 * BLOCK), blocks(1, 4), "content")
        say_something(server)
        expect_equal(server.json("status")["state"], "ok", "state")
        disk.close()
    finally:
        sameblk("stop", "-c", server.control, ok=None)
    rig.wait_until(lambda: not os.path.exists(f"/proc/{child}"), "the server stops")
    rig.offline_check(store)


if __name__ == "__main__":
    rig.main(globals())
