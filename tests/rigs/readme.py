#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""readme - the README's lines, typed as they are printed, as the first thing on a bare Debian 12

    tests/rigs/readme.py --long [TEST...]

The system is made by debootstrap from the package source of the machine it runs on, so nothing is
there that Debian does not call essential. It is entered by chroot, as root; it has the sources of
the last commit and the machine's network. Lines that begin with # are comments; a line that ends
with & has a moment until the next one is typed, as if by hand.
"""

import os
import re
import shutil
import subprocess

import rig
from rig import Skip, expect, need

SUITE = "bookworm"
SECONDS = 3600


def source_uri():
    """Where this machine gets Debian's packages from."""
    for place, _, names in os.walk("/etc/apt"):
        for name in sorted(names):
            if not name.endswith((".list", ".sources")):
                continue
            with open(os.path.join(place, name), encoding="utf-8") as f:
                for line in f:
                    match = re.match(r"(?:URIs:\s*|deb (?:\[[^]]*\] )?)(\S+/debian)/?(?:\s|$)",
                                     line)
                    if match:
                        return match.group(1)
    raise Skip("no package source of Debian is known")


def lines_of_readme(section):
    """The shell lines of a section."""
    with open(os.path.join(rig.TOP, "README.md"), encoding="utf-8") as f:
        text = f.read()
    if section:
        text = text[text.index("## " + section):]
        text = text[:text.index("\n## ", 4)]
    return [line.strip() for line in text.splitlines()
            if line.startswith("    ") and not line.strip().startswith("#")]


def bare_system(r):
    need("debootstrap", "chroot")
    if os.geteuid() != 0:
        raise Skip("not root")
    root = r.path("debian")
    rig.run("debootstrap", "--variant=minbase", SUITE, root, source_uri(), seconds=SECONDS)
    shutil.copytree("/etc/apt/apt.conf.d", f"{root}/etc/apt/apt.conf.d", dirs_exist_ok=True)
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        if os.path.exists(name):
            shutil.copy(name, root + name)
    for name in ("proc", "sys", "dev"):
        r.later("umount", "-R", "-l", f"{root}/{name}")
        rig.run("mount", "--rbind", "--make-rslave", f"/{name}", f"{root}/{name}")
    os.makedirs(f"{root}/src")
    archive = subprocess.run(["git", "-C", rig.TOP, "archive", "HEAD"], check=True,
                             stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", f"{root}/src"], input=archive, check=True)
    return root


def type_lines(r, root, lines):
    script = ["set -e", "cd /src"]
    for line in lines:
        script += [f"cat <<'TYPED'\n$ {line}\nTYPED", line]
        if line.rstrip().split("#")[0].rstrip().endswith("&"):
            script.append("sleep 2")
    with open(f"{root}/typed", "w", encoding="utf-8") as f:
        f.write("\n".join(script) + "\n")
    done = rig.run("chroot", root, "/bin/bash", "/typed", ok=None, seconds=SECONDS,
                   errors="replace",
                   env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb"})
    typed = done.stdout[-6000:]
    expect(done.returncode == 0, f"ended with {done.returncode}: {typed}\n{done.stderr[-2000:]}")
    return done.stdout


def test_each_line_runs_as_printed_on_a_bare_system(r):
    if not r.long:
        raise Skip("takes ten minutes: --long")
    root = bare_system(r)
    out = type_lines(r, root, lines_of_readme("The first ten minutes"))
    for word in ("summary: requests 2 destinations 2 same 2", "clean"):
        expect(word in out, f"`{word}` is said: {out[-3000:]}")
    out = type_lines(r, root, ["tools/demo"])
    r.note([line for line in out.splitlines() if line.strip()][-1])


if __name__ == "__main__":
    rig.main(globals())
