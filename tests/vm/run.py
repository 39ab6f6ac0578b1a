#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""run - tests in a small virtual machine, with a real kernel that has ublk_drv and nbd

    tests/vm/run.py [--long] [AREA[.TEST]...]     the suite; each area is one guest
    tests/vm/run.py --script FILE [ARG...]        one script in a guest, by hand
        [--program NAME|PATH]...                  further programs of the machine to take along
        [--disk FILE]...                          image files that are /dev/vda, /dev/vdb... there
        [--ramdisk SIZE]                          of /dev/ram0 (default 64M)
        [--memory SIZE] [--seconds S]             of the guest (2G), until it counts as stuck (300)
        [--kernel SUITE]                          Debian suite of the kernel (bookworm-backports)

A script says by its first line what runs it: sh is busybox's (which prefers its own applets: call
the machine's dd as /bin/dd), python3 is Debian's with `import rig` at hand. It is root, finds
sameblk and sameblkd of SAMEBLK_BIN (default build/gcc) in its PATH and the sources' tests/ and
fio-jobs/ below /sameblk. Its output comes back line by line and its exit status is ours; 124 means
stuck, 125 that the guest died. The kernel's messages lie in BUILD/vm/logs.

The kernel is fetched once, as a package of Debian, into BUILD/vm (BUILD is $SAMEBLK_BUILD or
build). Where there is no kernel or no QEMU the suite is skipped, with the reason.

Figures from in here serve as ratios within one boot, never as absolute ones: emulated vector code
is six times slower, memcpy ten times.
"""

import argparse
import os
import re
import sys
import tempfile

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "vm"))

import initramfs
import kernel
import machine

BUILD = os.environ.get("SAMEBLK_BUILD") or os.path.join(TOP, "build")
BIN = os.environ.setdefault("SAMEBLK_BIN", os.path.join(BUILD, "gcc"))
FOLDER = os.path.join(BUILD, "vm")
LOGS = os.path.join(FOLDER, "logs")
SUITE, SUITE_NEW = "bookworm-backports", "trixie-backports"
MODULES = ["virtio_blk", "ublk_drv", "nbd", "brd", "loop", "dm-log-writes", "dm-vdo"]
PROGRAMS = ["blkdiscard", "blkid", "blockdev", "dmsetup", "e2fsck", "fio", "losetup", "lsblk",
            "mkfs.ext4", "nbd-client", "setsid"]
PROGRAMS_WANTED = ["btrfs", "mkfs.btrfs", "mkfs.xfs", "nbdfuse", "nbdkit", "xfs_repair"]
NBDKIT_PLUGINS = "/usr/lib/x86_64-linux-gnu/nbdkit/plugins"
CRASH_STORE_MIB, CRASH_LOG_MIB = 64, 8192
CONSOLE_LINES = 30
WORDS = {machine.STUCK: "stuck", machine.DIED: "the guest died"}
SKIPPED = 77


class Area:
    """One guest: a file of tests in guest/ (or one of tests/rigs), and what they need.

    wanted: called with whether it is a long run; False leaves it out. disk_mib: sizes of empty
    disks, /dev/vda and so on. after: called on the host when the guest has ended well, with whether
    it is a long run and with the disks' image files; prints its own results, True if they are good.
    """

    def __init__(self, name, seconds, seconds_long=None, folder="tests/vm/guest", wanted=None,
                 modules=(), ramdisk_mib=64, memory="2G", disk_mib=(), after=None):
        self.name, self.seconds, self.seconds_long = name, seconds, seconds_long or seconds
        self.script, self.wanted = f"/sameblk/{folder}/{name}.py", wanted
        self.modules, self.ramdisk_mib, self.memory = list(modules), ramdisk_mib, memory
        self.disk_mib, self.after = disk_mib, after


def check_images(long, disks):
    import crash_images
    return crash_images.run(disks[0], CRASH_STORE_MIB << 20, long)


def host_has_no_loop(long):
    """Then the filesystems' rig, which needs loop devices and FUSE, runs in here instead."""
    return long or not (os.path.exists("/dev/loop-control") and os.path.exists("/dev/fuse"))


def only_long(long):
    return long


AREAS = [
    Area("nbd_ko", 120),
    Area("ublk", 240, seconds_long=1800),
    Area("ublk_kill", 200, seconds_long=700),
    Area("ublk_held", 200),
    Area("ublk_ends", 200, disk_mib=[64]),
    Area("ublk_swap", 300, wanted=only_long, memory="520M", disk_mib=[768]),
    Area("crash", 120, seconds_long=900, ramdisk_mib=CRASH_STORE_MIB,
         disk_mib=[CRASH_LOG_MIB], after=check_images),
    Area("filesystems", 600, seconds_long=7200, folder="tests/rigs", wanted=host_has_no_loop,
         modules=["xfs", "btrfs"], memory="4G"),
]


def get_kernel(suite):
    return kernel.get_kernel(os.path.join(FOLDER, f"kernel-{suite}"), suite)


def root(tree, programs=(), modules=()):
    """The guest's root filesystem, without the command it is to run."""
    made = initramfs.Root()
    with open(os.path.join(TOP, "tests", "vm", "init"), "rb") as f:
        made.file("init", f.read(), executable=True)
    made.python()
    for name in PROGRAMS + list(programs):
        made.program(name)
    for name in PROGRAMS_WANTED:
        try:
            made.program(name)
        except kernel.Missing:
            continue
    for plugin in ("nbdkit-memory-plugin.so", "nbdkit-file-plugin.so"):
        if os.path.exists(os.path.join(NBDKIT_PLUGINS, plugin)):
            made.copy(os.path.join(NBDKIT_PLUGINS, plugin),
                      os.path.join("/lib", NBDKIT_PLUGINS[len("/usr/lib/"):], plugin))
    for name in ("server/sameblkd", "cli/sameblk"):
        path = os.path.join(BIN, name)
        if not os.path.exists(path):
            sys.exit(f"tests/vm/run.py: no {path}: build (tools/build gcc), or set SAMEBLK_BIN")
        made.copy(path, f"bin/{os.path.basename(name)}")
        made.link(f"sameblk/build/gcc/{name}", f"/bin/{os.path.basename(name)}")
    for folder in ("tests/rigs", "tests/vm", "fio-jobs"):
        made.copy(os.path.join(TOP, folder), f"sameblk/{folder}")
    made.busybox()
    made.modules(tree, MODULES + list(modules))
    return made


def boot(tree, made, command, name, seconds, each_line, ramdisk_mib=64, ramdisks=1,
         memory="2G", disks=()):
    """Runs a shell command in a guest: its status."""
    os.makedirs(LOGS, exist_ok=True)
    made.file("command", command.encode() + b"\n")
    with tempfile.NamedTemporaryFile(prefix="sameblk-vm.", suffix=".cpio") as archive:
        made.write(archive.name)
        guest = machine.Guest(os.path.join(tree, "vmlinux"), archive.name,
                              os.path.join(LOGS, f"{name}.console"), memory, disks)
        guest.environment = {"RAMDISK_KIB": str(ramdisk_mib << 10), "RAMDISKS": str(ramdisks)}
        return guest.run(seconds, each_line)


def print_console(name):
    with open(os.path.join(LOGS, f"{name}.console"), encoding="utf-8", errors="replace") as f:
        for line in f.read().splitlines()[-CONSOLE_LINES:]:
            print(f"# kernel: {line.rstrip()}")


def run_area(tree, area, tests, long, label="vm"):
    """Prints what its tests say, named LABEL.AREA.TEST. True if all is good."""
    bad = []

    def each_line(line):
        line = re.sub(r"^(ok|not ok|skip) (?=\S)", rf"\1 {label}.", line)
        if line.startswith("not ok "):
            bad.append(line)
        print(line, flush=True)

    command = " ".join(["exec python3", area.script, *tests]
                       + (["--long"] if long else []))
    with tempfile.TemporaryDirectory(prefix="sameblk-vm.") as folder:
        disks = [os.path.join(folder, str(i)) for i in range(len(area.disk_mib))]
        for disk, mib in zip(disks, area.disk_mib):
            with open(disk, "wb") as f:
                f.truncate(mib << 20)
        status = boot(tree, root(tree, modules=area.modules), command, area.name,
                      area.seconds_long if long else area.seconds, each_line,
                      ramdisk_mib=area.ramdisk_mib, memory=area.memory, disks=disks)
        if not status:
            return not area.after or area.after(long, disks)
    if not bad or status in WORDS:
        print(f"not ok {label}.{area.name} ended with {status} {WORDS.get(status, '')}")
    print_console(area.name)
    return False


def run_suite(options):
    wanted = options.names or [area.name for area in AREAS
                               if not area.wanted or area.wanted(options.long)]
    unknown = [n for n in wanted if n.split(".")[0] not in {area.name for area in AREAS}]
    if unknown:
        sys.exit(f"tests/vm/run.py: no area named {', '.join(unknown)}")
    tree, good = get_kernel(options.kernel), True
    for area in AREAS:
        names = [n for n in wanted if n.split(".")[0] == area.name]
        if names:
            tests = [n.split(".", 1)[1] for n in names if "." in n]
            good = run_area(tree, area, tests, options.long) and good
    if options.long and not options.names:
        good = run_new_kernel() and good
    return 0 if good else 1


def run_new_kernel():
    """The device once more on a kernel that has what the usual one lacks: zero copy, batches."""
    try:
        tree = get_kernel(SUITE_NEW)
    except kernel.Missing as why:
        print(f"skip vm.{SUITE_NEW} {why}")
        return True
    results = [run_area(tree, area, [], False, f"vm.{SUITE_NEW}")
               for area in AREAS if area.name.startswith("ublk")]
    return all(results)


def run_script(options):
    tree = get_kernel(options.kernel)
    made = root(tree, programs=options.program)
    with open(options.script, "rb") as f:
        made.file("script", f.read(), executable=True)
    command = " ".join(["exec /script"] + [f"'{a}'" for a in options.names])
    status = boot(tree, made, command, "script", options.seconds, print_line,
                  ramdisk_mib=options.ramdisk, memory=options.memory, disks=options.disk)
    if status in (machine.STUCK, machine.DIED):
        print_console("script")
    return status


def print_line(line):
    print(line, flush=True)


def mebibytes(text):
    units = {"M": 0, "G": 10}
    return int(text[:-1]) << units[text[-1]]


def main():
    parser = argparse.ArgumentParser(prog="tests/vm/run.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--script")
    parser.add_argument("--program", action="append", default=[])
    parser.add_argument("--disk", action="append", default=[])
    parser.add_argument("--ramdisk", type=mebibytes, default=64)
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--kernel", default=SUITE)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    os.makedirs(FOLDER, exist_ok=True)
    try:
        return run_script(options) if options.script else run_suite(options)
    except kernel.Missing as why:
        print(f"skip vm {why}")
        return SKIPPED


if __name__ == "__main__":
    sys.exit(main())
