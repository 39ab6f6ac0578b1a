# SPDX-License-Identifier: GPL-2.0-or-later
"""places - where a world's store lies: filesystems of several kinds, and devices

Each kind is made once, when it is first drawn, and undone at the end. What cannot be made here (no
root, no loop devices, no mkfs) says why, and its worlds use what can. A place that is nearly full
has a filler file beside the store, which a world may take away.
"""

import os
import shutil
import subprocess

MIB = 1 << 20
KINDS = ("here", "tmpfs", "ext4", "xfs", "btrfs", "loop")
# btrfs gives a small filesystem little room for metadata, and aborts when it runs out of it.
IMAGE_BYTES = {"ext4": 768 * MIB, "xfs": 768 * MIB, "btrfs": 3072 * MIB}
MKFS = {"ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"], "xfs": ["mkfs.xfs", "-q", "-f"],
        "btrfs": ["mkfs.btrfs", "-q", "-f"]}
TMPFS_BYTES = 768 * MIB


class Missing(Exception):
    """This kind of place cannot be made here; the reason is its text."""


def run(*args):
    try:
        done = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, check=False)
    except OSError as error:
        raise Missing(str(error)) from None
    if done.returncode != 0:
        raise Missing(f"{args[0]}: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout.strip()


class Place:
    """A folder for a store (or a device that is one), and the means to fill it up."""

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, folder
        self.device = None
        self.filler = os.path.join(folder, "filler")

    def free_bytes(self):
        at = os.statvfs(self.folder)
        return at.f_bavail * at.f_frsize

    def fill(self, leave_bytes):
        """Takes all but so much. What a filesystem keeps for itself makes it a guess."""
        with open(self.filler, "wb") as f:
            take = self.free_bytes() - leave_bytes
            while take >= MIB:
                try:
                    os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, take)
                    break
                except OSError:
                    take = take * 7 // 8

    def is_lost(self):
        """The kernel has made the filesystem read-only, after an error of its own."""
        return bool(os.statvfs(self.folder).f_flag & os.ST_RDONLY)

    def drain(self):
        if os.path.exists(self.filler):
            os.unlink(self.filler)

    def clean(self):
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


class Places:
    def __init__(self, folder):
        self.folder = folder
        self.made, self.missing, self.undo = {}, {}, []

    def get(self, kind):
        """The place of this kind, empty; Missing with the reason."""
        if kind in self.missing:
            raise Missing(self.missing[kind])
        if kind not in self.made:
            try:
                self.made[kind] = self._make(kind)
            except Missing as why:
                self.missing[kind] = str(why)
                raise
        self.made[kind].clean()
        return self.made[kind]

    def _make(self, kind):
        folder = os.path.join(self.folder, kind)
        os.makedirs(folder, exist_ok=True)
        if kind in ("here", "loop"):
            if kind == "loop":
                Loop(os.path.join(folder, "probe"), MIB, 512).close()
            return Place(kind, folder)
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "swarm", folder)
        else:
            image = os.path.join(self.folder, kind + ".image")
            with open(image, "wb") as f:
                f.truncate(IMAGE_BYTES[kind])
            run(*MKFS[kind], image)
            run("mount", "-o", "loop", image, folder)
        self.undo.append(["umount", "-l", folder])
        return Place(kind, folder)

    def lose(self, place):
        """It is made anew when it is drawn again."""
        self.made.pop(place.kind, None)
        run("umount", "-l", place.folder)
        self.undo.remove(["umount", "-l", place.folder])

    def close(self):
        for args in reversed(self.undo):
            subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.undo = []


class Loop:
    """A block device over a file."""

    def __init__(self, path, size, sector_bytes):
        with open(path, "wb") as f:
            f.truncate(size)
        self.path = path
        self.device = run("losetup", "-f", "--show", "-b", sector_bytes, path)

    def close(self):
        subprocess.run(["losetup", "-d", self.device], capture_output=True, check=False)
