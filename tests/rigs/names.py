#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""names - how servers are called and found: paths from the root, a store instead of a socket, two
stores of one name, other users' servers"""

import json
import os
import subprocess

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


def test_a_control_socket_in_no_folder_is_refused(r):
    folder = make(r, "a")
    path = os.path.join(r.folder, "none", "x.ctl")
    done = rig.run(SAMEBLKD, "-U", os.path.join(r.folder, "nbd"), "-c", path,
                   os.path.join(folder, "disk.img"), ok=(2,))
    expect_equal(done.stderr.count(path), 1, f"how often the path is named: {done.stderr}")
    expect(not os.path.exists(os.path.dirname(path)), "no folder is made")


if __name__ == "__main__":
    rig.main(globals())
