# SPDX-License-Identifier: GPL-2.0-or-later
"""log_writes - reads what dm-log-writes recorded, and replays it up to a point

The kernel's target log-writes passes every request on to one device and writes down on another
what a device with a volatile cache is bound to have when its power fails (see
Documentation/admin-guide/device-mapper/log-writes). A write stands in the log only once a flush has
come after it, or if it was FUA; so the log, replayed up to an entry, is what is on the disk if
everything that was not flushed by then is lost.

On the log device, little-endian, all in sectors of the size that the superblock says:

    sector 0    u64 magic, u64 version, u64 entries, u32 sector size
    then each   u64 sector, u64 sectors, u64 flags, u64 length of a mark's text: one sector, in
                which that text follows; then the data, if it is a write that has some
"""

import os
import struct

MAGIC, VERSION = 0x6a736677736872, 1
SUPER, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16
# What was discarded may read as anything; whoever relies on zeros is found out.
GARBAGE = b"\xdb"


class BadLog(Exception):
    """It is not what dm-log-writes writes."""


class Entry:
    def __init__(self, number, sector_bytes, fields, data_off, mark):
        sector, sectors, self.flags, _ = fields
        self.number, self.mark = number, mark
        self.off, self.length = sector * sector_bytes, sectors * sector_bytes
        self.data_off = data_off

    def is_flush(self):
        return bool(self.flags & FLUSH)

    def has_data(self):
        return self.length > 0 and not self.flags & (DISCARD | MARK)


def entries(fd):
    """Every entry of the log, in the order in which it became durable."""
    magic, version, count, sector_bytes = SUPER.unpack(os.pread(fd, SUPER.size, 0))
    if magic != MAGIC or version != VERSION:
        raise BadLog(f"magic {magic:#x}, version {version}")
    off = sector_bytes
    for number in range(count):
        head = os.pread(fd, sector_bytes, off)
        fields, mark = ENTRY.unpack_from(head), None
        if fields[2] & MARK:
            mark = head[ENTRY.size:ENTRY.size + fields[3]].rstrip(b"\0").decode()
        entry = Entry(number, sector_bytes, fields, off + sector_bytes, mark)
        yield entry
        off += sector_bytes + (entry.length if entry.has_data() else 0)


def replay(fd, entry, image_fd):
    """Does to the image what the entry did to the device."""
    if entry.flags & MARK or not entry.length:
        return
    if entry.flags & DISCARD:
        data = GARBAGE * entry.length
    else:
        data = os.pread(fd, entry.length, entry.data_off)
    if len(data) != entry.length:
        raise BadLog(f"entry {entry.number} is cut short")
    os.pwrite(image_fd, data, entry.off)
