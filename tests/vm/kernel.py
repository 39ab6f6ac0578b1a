# SPDX-License-Identifier: GPL-2.0-or-later
"""kernel - Debian's cloud kernel of another suite, and other packages of it, unpacked into a folder

Nothing is installed, and the machine's apt sources stay as they are: apt is asked with lists, a
cache and a source line of its own. That line names the archive that the machine's apt already has
for Debian itself, so the machine's mirror, proxy and keys are used.

A folder appears whole or not at all, by a rename at the end; one that is there is used as it is.
"""

import lzma
import os
import re
import shutil
import struct
import subprocess
import sys

KERNEL_PACKAGE = "linux-image-cloud-amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
APT_SECONDS = 300
# Where boot protocol 2.08 says what of a bzImage is payload; see the kernel's boot.rst.
MAGIC_OFFSET, MAGIC = 0x202, b"HdrS"
SETUP_SECTORS_OFFSET, PAYLOAD_OFFSET = 0x1f1, 0x248
SETUP_SECTORS_IF_0, SECTOR = 4, 512
UNPACKERS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b\x08\x00": "gzip", b"\xfd7zX": "xz",
             b"\x02\x21\x4c\x18": "lz4"}


class Missing(Exception):
    """What cannot be had here, and why."""


def run(*args, **options):
    try:
        done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=APT_SECONDS, check=False, **options)
    except FileNotFoundError:
        raise Missing(f"no {args[0]}") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"{args[0]} took longer than {APT_SECONDS} s") from None
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no word"]
        raise Missing(f"{args[0]} failed: {why[-1]}")
    return done.stdout


class Apt:
    """apt, looking at one suite of the machine's Debian archive, with a state of its own."""

    def __init__(self, folder, suite):
        lists, cache = os.path.join(folder, "lists"), os.path.join(folder, "cache")
        os.makedirs(os.path.join(lists, "partial"))
        os.makedirs(os.path.join(cache, "archives", "partial"))
        sources = os.path.join(folder, "sources.list")
        with open(sources, "w", encoding="ascii") as f:
            f.write(f"deb [signed-by={KEYRING}] {self.archive()} {suite} main\n")
        self.options = ["-q", "-o", f"Dir::Etc::SourceList={sources}",
                        "-o", "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={lists}",
                        "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=root",
                        "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30"]
        run("apt-get", *self.options, "update")

    @staticmethod
    def archive():
        """The address of Debian itself, not of its security archive nor of anybody else's."""
        out = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
                  "Origin: Debian", "Label: Debian").decode().split()
        if not out:
            raise Missing("apt knows no archive of Debian")
        return out[0]

    def depends(self, package, pattern):
        out = run("apt-cache", *self.options, "depends", package).decode()
        return re.findall(r"^ *Depends: (" + pattern + r")$", out, flags=re.M)

    def unpack(self, packages, tree):
        debs = os.path.join(tree + ".debs")
        os.makedirs(debs)
        run("apt-get", *self.options, "download", *packages, cwd=debs)
        for name in sorted(os.listdir(debs)):
            run("dpkg", "-x", os.path.join(debs, name), tree)


def cached(folder, make):
    """Makes the folder, once."""
    if os.path.isdir(folder):
        return folder
    new = folder + ".new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    try:
        make(new)
        os.rename(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def vmlinux(vmlinuz):
    """The kernel's ELF image. QEMU starts it without that the emulated processor unpacks it."""
    with open(vmlinuz, "rb") as f:
        image = f.read()
    if image[MAGIC_OFFSET:MAGIC_OFFSET + len(MAGIC)] != MAGIC:
        raise Missing(f"{vmlinuz} is no bzImage")
    offset, length = struct.unpack_from("<II", image, PAYLOAD_OFFSET)
    offset += ((image[SETUP_SECTORS_OFFSET] or SETUP_SECTORS_IF_0) + 1) * SECTOR
    payload = image[offset:offset + length]
    tool = UNPACKERS.get(payload[:4])
    if not tool:
        raise Missing(f"{vmlinuz} is packed in an unknown way")
    try:
        # What follows the payload makes the tools complain, after all of it is unpacked.
        out = subprocess.run([tool, "-dcq"], input=payload, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, check=False).stdout
    except FileNotFoundError:
        raise Missing(f"no {tool}") from None
    if out[:4] != b"\x7fELF":
        raise Missing(f"{tool} made no ELF image of {vmlinuz}")
    return out


def find(tree, pattern):
    for place, folders, names in os.walk(tree):
        for name in folders + names:
            path = os.path.join(place, name)
            if re.search(pattern, path):
                return path
    raise Missing(f"the kernel's packages have no {pattern}")


def get_kernel(folder, suite):
    """A folder with vmlinux, lib/modules/VERSION and modules.dep, from Debian's suite."""
    def make(new):
        apt, tree = Apt(os.path.join(new, "apt"), suite), os.path.join(new, "tree")
        wanted = apt.depends(KERNEL_PACKAGE, r"linux-(?:image|binary|modules)\S+")
        # Newer kernels split the image into a binary and a package of modules.
        for package in list(wanted):
            wanted += apt.depends(package, r"linux-(?:binary|modules|base)-[0-9]\S*")
        if not wanted:
            raise Missing(f"{suite} has no {KERNEL_PACKAGE}")
        apt.unpack(sorted(set(wanted)), tree)
        with open(os.path.join(new, "vmlinux"), "wb") as f:
            f.write(vmlinux(find(tree, r"/vmlinuz[^/]*$")))
        os.mkdir(os.path.join(new, "lib"))
        os.rename(find(tree, r"/lib/modules$"), os.path.join(new, "lib", "modules"))
        run("depmod", "-b", new, os.listdir(os.path.join(new, "lib", "modules"))[0])
        for rest in ("apt", "tree", "tree.debs"):
            shutil.rmtree(os.path.join(new, rest))
    return cached(folder, make)


def get_packages(folder, suite, packages):
    """A folder with these packages of the suite unpacked, without what they depend on."""
    def make(new):
        apt = Apt(os.path.join(new, "apt"), suite)
        apt.unpack(packages, os.path.join(new, "tree"))
        for rest in ("apt", "tree.debs"):
            shutil.rmtree(os.path.join(new, rest))
    return os.path.join(cached(folder, make), "tree")


def modules(folder, names):
    """[(name, content)] of these modules and all they need, in the order they are loaded in."""
    version = os.listdir(os.path.join(folder, "lib", "modules"))[0]
    found = {}
    for name in names:
        out = run("modprobe", "-d", folder, "-C", "/dev/null", "-S", version, "--show-depends",
                  name).decode()
        for path in re.findall(r"^insmod (\S+)", out, flags=re.M):
            base = os.path.basename(path).split(".ko")[0]
            if base not in found:
                found[base] = content(path)
    return list(found.items())


def content(path):
    if path.endswith(".zst"):
        return run("zstd", "-dcq", path)
    with (lzma.open if path.endswith(".xz") else open)(path, "rb") as f:
        return f.read()


if __name__ == "__main__":
    sys.exit("kernel: this is a part of tests/vm/run.py")
