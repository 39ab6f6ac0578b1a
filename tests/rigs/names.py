#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""names - how servers are called and found: paths from the root, a store instead of a socket, two
stores of one name, other users' servers"""

import json
import os
import socket
import subprocess
import threading
import time

import rig
from rig import MIB, expect, expect_equal, sameblk

# They run in folders of their own.
SAMEBLK, SAMEBLKD = os.path.abspath(rig.SAMEBLK), os.path.abspath(rig.SAMEBLKD)


def make(r, folder):
    """A folder with a store disk.img in it."""
    path = os.path.join(r.folder, folder)
    os.mkdir(path)
    sameblk("create", "--size", 16 * MIB, os.path.join(path, "disk.img"))
    return path


def start(r, folder, env):
    """A server that is given relative names; its ready line."""
    process = r.spawn(SAMEBLKD, "-U", "../" + os.path.basename(folder) + ".nbd", "./disk.img",
                      cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    expect(line.startswith("ready "), f"it is ready: {line!r} {process.poll()}")
    return process, line.split()[1:]


def stop(process):
    process.terminate()
    expect_equal(process.wait(60 * rig.slowness()), 0, "the server's end")


def test_paths_are_told_from_the_root(r):
    folder = make(r, "a")
    env = {**os.environ, "SAMEBLK_CONTROL_DIR": os.path.join(r.folder, "ctl")}
    process, uris = start(r, folder, env)
    uri = "nbd+unix:///?socket=" + os.path.join(r.folder, "a.nbd")
    store = os.path.join(folder, "disk.img")
    expect_equal(uris, [uri], "the ready line")
    status = json.loads(sameblk("status", "--json", env=env).stdout)
    expect_equal(status["store"], store, "the store in status")
    expect_equal(status["exports"], [uri], "the exports in status")
    server, = json.loads(sameblk("list", "--json", env=env).stdout)["servers"]
    expect_equal(server["store"], store, "the store in list")
    stop(process)


def test_two_stores_of_one_name_are_two_servers(r):
    env = {**os.environ, "SAMEBLK_CONTROL_DIR": os.path.join(r.folder, "ctl")}
    folders = [make(r, name) for name in ("a", "b")]
    processes = [start(r, folder, env)[0] for folder in folders]
    controls = sorted(os.listdir(env["SAMEBLK_CONTROL_DIR"]))
    expect_equal(len(controls), 2, f"sockets: {controls}")
    expect_equal(controls[1], "disk.ctl", "the first one's")
    stores = {s["store"] for s in json.loads(sameblk("list", "--json", env=env).stdout)["servers"]}
    expect_equal(stores, {os.path.join(folder, "disk.img") for folder in folders}, "list")
    sameblk("status", env=env, ok=(2,))  # which one?
    for folder, process in zip(folders, processes):
        # Every command takes the store, however it is written.
        status = json.loads(rig.run(SAMEBLK, "status", "--json", "-S", "./disk.img", env=env,
                                    cwd=folder).stdout)
        expect_equal(status["pid"], process.pid, f"the server of {folder}")
        for words in ("stats", "map", "dedupe", "same 0 4096 8192", "clone 0 4096 8192"):
            sameblk(*words.split(), "--store", os.path.join(folder, "disk.img"), env=env)
    sameblk("stop", "-S", os.path.join(folders[0], "disk.img"), env=env)
    processes[0].wait(60 * rig.slowness())
    none = sameblk("status", "-S", os.path.join(folders[0], "disk.img"), env=env, ok=(2,)).stderr
    expect("none is running" in none, none)
    both = sameblk("status", "-S", "x", "-c", "y", env=env, ok=(2,)).stderr
    expect("exclude each other" in both, both)
    stop(processes[1])


def test_root_lists_the_servers_of_all_users(r):
    """In namespaces of our own, where we are root and /run/user is a folder of the rig."""
    users = os.path.join(r.folder, "users")
    env = {k: v for k, v in os.environ.items() if k != "SAMEBLK_CONTROL_DIR"}
    os.makedirs(os.path.join(users, "1000"))
    folder = make(r, "a")
    process, _ = start(r, folder, {**env, "XDG_RUNTIME_DIR": os.path.join(users, "1000")})
    env["XDG_RUNTIME_DIR"] = os.path.join(r.folder, "none")
    store = os.path.join(folder, "disk.img")
    inside = f"mount --bind {users} /run/user && exec \"$@\""
    words = ["unshare", "-rm", "sh", "-c", inside, "sh"]
    if subprocess.run(words + ["true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        stop(process)
        raise rig.Skip("no namespace of one's own")
    listed = json.loads(rig.run(*words, SAMEBLK, "list", "--json", env=env).stdout)["servers"]
    expect(store in [s["store"] for s in listed], f"it is listed: {listed}")
    # It is not root's own: nothing is taken for granted that somebody says of himself.
    rig.run(*words, SAMEBLK, "status", "-S", store, env=env, ok=(2,))
    stop(process)


def test_a_folder_that_is_no_utf8_is_told_in_json(r):
    env = {**os.environ, "SAMEBLK_CONTROL_DIR": os.fsdecode(os.fsencode(r.folder) + b"/\xff")}
    process, _ = start(r, make(r, "a"), env)
    servers = json.loads(sameblk("list", "--json", env=env).stdout)["servers"]
    expect_equal([s["control"] for s in servers], [r.path("?/disk.ctl")], "what is listed")
    stop(process)


def test_a_record_of_another_server_is_not_in_the_way(r):
    """The first server's socket is elsewhere, and its record has the name."""
    env = {**os.environ, "SAMEBLK_CONTROL_DIR": os.path.join(r.folder, "ctl")}
    folders = [make(r, name) for name in ("a", "b")]
    processes = []
    for folder, options in zip(folders, (("-c", os.path.join(r.folder, "x.ctl")), ())):
        processes.append(r.spawn(SAMEBLKD, "-U", folder + ".nbd", *options, "disk.img", cwd=folder,
                                 env=env, stdout=subprocess.PIPE, text=True))
        line = processes[-1].stdout.readline()
        expect(line.startswith("ready "), f"it is ready: {line!r} {processes[-1].poll()}")
    for folder, process in zip(folders, processes):
        store = os.path.join(folder, "disk.img")
        status = json.loads(sameblk("status", "--json", "-S", store, env=env).stdout)
        expect_equal(status["pid"], process.pid, f"the server of {store}")
        stop(process)


def hostile(path, answer, trickle=False):
    """A server that answers this, whatever it is asked: at once, or a byte a second."""
    def serve(connection):
        try:
            while connection.recv(4096):
                for at in range(len(answer)) if trickle else ():
                    connection.sendall(answer[at:at + 1])
                    time.sleep(1)
                connection.sendall(answer)
        except OSError:
            pass

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(50)
    threading.Thread(target=accept, daemon=True).start()


def test_another_user_does_no_harm_to_who_lists(r):
    """Neither what a server answers, nor how, ends or keeps root's command or its terminal."""
    users = os.path.join(r.folder, "users")
    folder = os.path.join(users, "1000", "sameblk")
    os.makedirs(folder)
    result = b'{"jsonrpc":"2.0","id":1,"result":{"exports":[1,null],"store":"x\\u001b]0;"}}\n'
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"\\u001b[2J\\u009b2J"}}\n'
    hostile(os.path.join(folder, "a.ctl"), result)
    hostile(os.path.join(folder, "b.ctl"), error)
    hostile(os.path.join(folder, "c.ctl"), b" " * 600, trickle=True)
    for name in range(20):
        hostile(os.path.join(folder, f"d{name}.ctl"), b"")
    env = {k: v for k, v in os.environ.items() if k != "SAMEBLK_CONTROL_DIR"}
    env["XDG_RUNTIME_DIR"] = os.path.join(r.folder, "none")
    words = ["unshare", "-rm", "sh", "-c", f"mount --bind {users} /run/user && exec \"$@\"", "sh"]
    if subprocess.run(words + ["true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        raise rig.Skip("no namespace of one's own")
    done = rig.run(*words, SAMEBLK, "list", env=env, seconds=20)
    expect("x?]0;" in done.stdout, f"what is listed: {done.stdout!r}")
    expect("?[2J??2J" in done.stderr, f"what is told: {done.stderr!r}")
    done = rig.run(*words, SAMEBLK, "stop", "-S", os.path.join(r.folder, "x"), env=env, ok=(2,))
    expect("answer" not in done.stderr, f"who is asked: {done.stderr!r}")


def test_a_control_socket_in_no_folder_is_refused(r):
    folder = make(r, "a")
    path = os.path.join(r.folder, "none", "x.ctl")
    done = rig.run(SAMEBLKD, "-U", os.path.join(r.folder, "nbd"), "-c", path,
                   os.path.join(folder, "disk.img"), ok=(2,))
    expect_equal(done.stderr.count(path), 1, f"how often the path is named: {done.stderr}")
    expect(not os.path.exists(os.path.dirname(path)), "no folder is made")


if __name__ == "__main__":
    rig.main(globals())
