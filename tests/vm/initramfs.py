# SPDX-License-Identifier: GPL-2.0-or-later
"""initramfs - a small root filesystem as a cpio archive, made of the machine's own programs

busybox with its applets, whatever programs are named with the libraries they are linked with,
Debian's Python with the modules that the tests import, kernel modules in the order they are loaded,
and files. The archive is not compressed: the processor that would unpack it is an emulated one.

Paths inside: everything that may be called lies in /bin (/sbin, /usr/bin and /usr/sbin lead there),
and a program takes precedence over busybox's applet of that name.
"""

import os
import re
import shutil
import stat
import subprocess

import kernel

PYTHON = "/usr/bin/python3"
# What the rigs and the tests import; what these import in turn is found by importing them.
PYTHON_MODULES = ["argparse", "ast", "contextlib", "ctypes", "encodings.ascii",
                  "encodings.idna", "encodings.latin_1", "errno", "fcntl", "filecmp", "glob",
                  "hashlib", "json", "mmap", "platform", "random", "re", "select", "shutil",
                  "signal", "socket", "statistics", "struct", "subprocess", "sys", "tempfile",
                  "threading", "time", "traceback"]
PYTHON_MODULES_WANTED = ["nbd"]
FOLDERS = ["bin", "dev", "etc", "lib/x86_64-linux-gnu", "lib64", "mnt", "modules", "proc", "root",
           "run", "sys", "tmp", "usr", "var/lib", "var/lock"]
LINKS = {"sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin", "usr/lib": "../lib",
         "usr/lib64": "../lib64", "var/run": "../run"}
# pthread_cancel() opens it at run time, so no program says that it needs it.
LIBRARIES_OPENED = ["/lib/x86_64-linux-gnu/libgcc_s.so.1"]
ALIGN, TRAILER = 4, "TRAILER!!!"
LIST_MODULES = """
import importlib, sys
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except ImportError:
        if name not in sys.argv[1].split(","):
            raise
for module in list(sys.modules.values()):
    for path in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
        if path:
            print(path)
"""


class Archive:
    """A cpio archive of the form `newc`, everything in it owned by root."""

    def __init__(self):
        self.pieces, self.names = [], set()

    def add(self, name, mode, data=b""):
        """The first one of a name stays."""
        name = name.strip("/")
        if name in self.names:
            return
        self.names.add(name)
        parent = os.path.dirname(name)
        if parent:
            self.folder(parent)
        self._entry(name, mode, data)

    def _entry(self, name, mode, data):
        encoded = name.encode() + b"\0"
        fields = [len(self.names), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        for piece in (head, data):
            self.pieces += [piece, b"\0" * (-len(piece) % ALIGN)]

    def folder(self, name):
        self.add(name, stat.S_IFDIR | 0o755)

    def link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def file(self, name, data, executable=False):
        self.add(name, stat.S_IFREG | (0o755 if executable else 0o644), data)

    def write(self, path):
        self._entry(TRAILER, 0, b"")
        with open(path, "wb") as f:
            f.writelines(self.pieces)


def inside(path):
    """Where a path of the machine lies in the archive: /usr/lib is /lib there, links followed."""
    for old, new in (("/usr/lib64/", "/lib64/"), ("/usr/lib/", "/lib/"), ("/usr/sbin/", "/bin/"),
                     ("/usr/bin/", "/bin/"), ("/sbin/", "/bin/")):
        if path.startswith(old):
            return new + path[len(old):]
    return path


class Root(Archive):
    """The guest's root filesystem."""

    def __init__(self):
        super().__init__()
        for link, target in LINKS.items():
            self.link(link, target)
        for folder in FOLDERS:
            self.folder(folder)
        self.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        self.file("etc/group", b"root:x:0:\n")
        for path in LIBRARIES_OPENED:
            self.copy(path)

    def copy(self, path, name=None):
        """A file with the libraries it needs, or a folder with all that is below it."""
        name = name or inside(path)
        if os.path.isdir(path):
            for below in sorted(os.listdir(path)):
                self.copy(os.path.join(path, below), os.path.join(name, below))
            return
        if name.strip("/") in self.names:
            return
        with open(path, "rb") as f:
            data = f.read()
        self.file(name, data, os.access(path, os.X_OK))
        if data[:4] == b"\x7fELF":
            for library in libraries(path):
                self.copy(library)

    def program(self, name):
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin")
        if not path:
            raise kernel.Missing(f"no {name}")
        # What /usr/sbin/mkfs.ext4 leads to is another name; the one that is called must be there.
        self.copy(path, "bin/" + os.path.basename(name))

    def python(self):
        out = kernel.run(PYTHON, "-c", LIST_MODULES, ",".join(PYTHON_MODULES_WANTED),
                         *PYTHON_MODULES, *PYTHON_MODULES_WANTED).decode()
        self.copy(os.path.realpath(PYTHON), "bin/python3")
        for path in sorted(set(out.split())):
            if os.path.exists(path):
                self.copy(path)

    def busybox(self):
        """Last, so that programs that are there keep their names."""
        path = shutil.which("busybox", path="/bin:/usr/bin")
        if not path:
            raise kernel.Missing("no busybox")
        self.copy(path, "bin/busybox")
        for applet in kernel.run(path, "--list").decode().split():
            self.link("bin/" + applet, "busybox")

    def modules(self, folder, names):
        found = kernel.modules(folder, names)
        for name, data in found:
            self.file(f"modules/{name}.ko", data)
        self.file("modules/order", "".join(f"{name}\n" for name, _ in found).encode())


def libraries(path):
    done = subprocess.run(["ldd", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False)
    return re.findall(r"(?:=>\s*|^\s*)(/\S+) \(0x", done.stdout, flags=re.M)
