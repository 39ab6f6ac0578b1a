# SPDX-License-Identifier: GPL-2.0-or-later
"""machine - boots a guest under QEMU's software emulation, and runs one command in it

No KVM is needed; a guest is up within three seconds. It has two virtual processors (more do not
help under emulation). What the command prints comes back through a port of its own (a virtio serial
port), so that the kernel's messages, which go to the console, never mix with it; the last line on
it is the command's exit status. When that line has come the emulator is killed: a guest that cannot
shut down any more has still said what it had to say.

    booting --up--> running --status--> ended
       |               |---- time ----> stuck (STUCK)
       |               `---- end -----> died (DIED): panic, triple fault
       `-- end or time, once more --> booting

That a guest does not even come up is the emulator's trouble, hence the second try.

Its time is counted in what the machine can do just now: a limit is for a machine on which a guest
boots in BOOT_SECONDS, and grows with what this boot took, and with the load that comes later. It
starts anew with each line that comes, since a guest that says something is at work and not stuck,
but not beyond LINES_FACTOR times.
"""

import os
import select
import subprocess
import time

import kernel

QEMU = "qemu-system-x86_64"
# Without -cx16 a 6.12 kernel now and then panics in the slab allocator under QEMU 7's emulation.
PROCESSOR = "max,-cx16,-erms,-la57"
APPEND = "console=hvc0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=reliable"
UP, END = "VM-UP", "VM-END"
UP_SECONDS = 240
BOOT_SECONDS = 3
LINES_FACTOR = 4
STUCK, DIED = 124, 125
TRIES = 2
PIECE_BYTES = 65536


def load():
    """How many have to share what a guest on a quiet machine has alone."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


class Guest:
    def __init__(self, vmlinux, initramfs, console, memory="2G", disks=(), processors=2):
        """console: the file that gets the kernel's messages. disks: image files, as /dev/vda..."""
        self.vmlinux, self.initramfs, self.console = vmlinux, initramfs, console
        self.memory, self.disks, self.processors = memory, disks, processors
        self.environment = {}
        self.booted_seconds = None
        self.slowness = None
        self.status = None

    def arguments(self):
        # What the kernel does not know as an option it hands to init as environment.
        append = " ".join([APPEND] + [f"{k}={v}" for k, v in self.environment.items()])
        args = [QEMU, "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR,
                "-smp", str(self.processors), "-m", self.memory, "-nodefaults",
                "-no-user-config", "-display", "none", "-no-reboot",
                "-kernel", self.vmlinux, "-initrd", self.initramfs, "-append", append,
                "-device", "virtio-serial", "-chardev", f"file,id=console,path={self.console}",
                "-device", "virtconsole,chardev=console",
                "-chardev", "file,id=out,path=/dev/stdout",
                "-device", "virtserialport,chardev=out,name=out"]
        for number, disk in enumerate(self.disks):
            args += ["-drive", f"file={disk},format=raw,if=none,id=disk{number},cache=writeback,"
                     "discard=unmap,detect-zeroes=off",
                     "-device", f"virtio-blk-pci,drive=disk{number}"]
        return args

    def run(self, seconds, each_line):
        """Boots; calls each_line for every line that the command prints. The command's status."""
        for _ in range(TRIES):
            self.status, up = None, False
            for line in self._lines(seconds):
                if line.startswith(UP + " "):
                    up, self.booted_seconds = True, float(line.split()[1])
                elif line.startswith(END + " "):
                    self.status = int(line.split()[1])
                else:
                    each_line(line)
            if up:
                break
        return self.status

    def _lines(self, seconds):
        """The lines from the guest until the last; sets the status if there is none."""
        try:
            process = subprocess.Popen(self.arguments(), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE)
        except FileNotFoundError:
            raise kernel.Missing(f"no {QEMU}") from None
        began = time.monotonic()
        end, up, rest = began + UP_SECONDS, None, b""
        try:
            while True:
                left = end - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    self.status = STUCK
                    return
                piece = os.read(process.stdout.fileno(), PIECE_BYTES)
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    line = line.decode("utf-8", "replace").rstrip("\r")
                    yield line
                    now = time.monotonic()
                    if line.startswith(UP + " "):
                        up, self.slowness = now, max(1, (now - began) / BOOT_SECONDS)
                    if up:
                        self.slowness = max(self.slowness, load())
                        end = min(up + LINES_FACTOR * seconds * self.slowness,
                                  now + seconds * self.slowness)
                    if line.startswith(END + " "):
                        return
                if not piece:
                    self.status = DIED
                    return
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
