# SPDX-License-Identifier: GPL-2.0-or-later
"""driver - commands to the kernel's ublk driver past any server, as another tool gives them"""

import ctypes
import fcntl
import mmap
import os
import struct

SETUP, ENTER = 425, 426
SQE128, GETEVENTS, URING_CMD = 1 << 10, 1, 46
SQES_OFFSET, RING_BYTES, COMMAND_AT = 0x10000000, 4096, 48
READ, WRITE = 2, 3
GET_INFO, ADD, DELETE, STOP, START_RECOVERY = 0x02, 0x04, 0x05, 0x07, 0x10
ANY = 0xffffffff
MARK = 0x5342 << 48


class Driver:
    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = os.open("/dev/ublk-control", os.O_RDWR)
        params = ctypes.create_string_buffer(struct.pack("<III", 0, 0, SQE128), 120)
        self.ring = self.libc.syscall(SETUP, 1, params)
        self.sq = struct.unpack_from("<7I", params, 40)
        self.cq = struct.unpack_from("<6I", params, 80)
        self.rings = mmap.mmap(self.ring, RING_BYTES)
        self.entries = mmap.mmap(self.ring, RING_BYTES, offset=SQES_OFFSET)

    def command(self, number, device, data=b"", direction=WRITE):
        """0 or a negative errno, and what came back."""
        code = direction << 30 | 32 << 16 | ord("u") << 8 | number
        both = ctypes.create_string_buffer(data, max(len(data), 1))
        entry = struct.pack("<BBHiI", URING_CMD, 0, 0, self.fd, code).ljust(COMMAND_AT, b"\0")
        entry += struct.pack("<IHHQQQ", device, 0xffff, len(data),
                             ctypes.addressof(both) if data else 0, 0, 0)
        self.entries[:128] = entry.ljust(128, b"\0")
        tail = struct.unpack_from("<I", self.rings, self.sq[1])[0]
        struct.pack_into("<I", self.rings, self.sq[6], 0)
        struct.pack_into("<I", self.rings, self.sq[1], tail + 1)
        self.libc.syscall(ENTER, self.ring, 1, 1, GETEVENTS, None, 0)
        head, mask = (struct.unpack_from("<I", self.rings, self.cq[i])[0] for i in (0, 2))
        at = self.cq[5] + (head & mask) * 16
        result = struct.unpack_from("<i", self.rings, at + 8)[0]
        struct.pack_into("<I", self.rings, self.cq[0], head + 1)
        return result, both.raw

    def mark(self, device):
        result, info = self.command(GET_INFO, device, bytes(64), READ)
        assert result == 0, result
        return struct.unpack_from("<Q", info, 32)[0]

    def make(self, mark=MARK | 1):
        """A device as a server of sameblk's makes it, before it has it open: its number."""
        info = struct.pack("<4H2IiIQQ", 1, 8, 0, 0, 65536, ANY, -1, 0, 1 << 6, mark)
        result, info = self.command(ADD, ANY, info.ljust(64, b"\0"))
        assert result == 0, result
        return struct.unpack_from("<I", info, 12)[0]

    def hold(self):
        """As whoever makes a device."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def close(self):
        os.close(self.ring)
        os.close(self.fd)
