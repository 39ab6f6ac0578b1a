#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""equal_ranges - what two disk images have in common at equal offsets

    tools/equal_ranges.py A B OFFSET_A OFFSET_B

OFFSET_A and OFFSET_B say where the images lie in a volume. Prints the equal ranges as lines for
`sameblk same --batch`: SRC LEN DST, in bytes. Blocks of zeros are left out: where nothing is mapped
there is nothing to free. The last line, on stderr, is the sum.
"""

import mmap
import sys

BLOCK_BYTES = 4096
# One request of the batch; the server takes more, but progress is finer this way.
RANGE_BYTES_MAX = 16 << 20
ZEROS = bytes(BLOCK_BYTES)


def equal_ranges(a, b):
    """Yields (offset, length) of the longest runs of equal blocks that are not zeros."""
    start = None
    end = min(len(a), len(b)) // BLOCK_BYTES * BLOCK_BYTES
    for off in range(0, end + BLOCK_BYTES, BLOCK_BYTES):
        block = a[off:off + BLOCK_BYTES] if off < end else None
        same = block is not None and block == b[off:off + BLOCK_BYTES] and block != ZEROS
        if same and start is None:
            start = off
        if start is not None and (not same or off - start == RANGE_BYTES_MAX):
            yield start, off - start
            start = off if same else None


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__.strip())
    off_a, off_b = int(sys.argv[3], 0), int(sys.argv[4], 0)
    total = 0
    with open(sys.argv[1], "rb") as file_a, open(sys.argv[2], "rb") as file_b:
        a = mmap.mmap(file_a.fileno(), 0, access=mmap.ACCESS_READ)
        b = mmap.mmap(file_b.fileno(), 0, access=mmap.ACCESS_READ)
        for off, length in equal_ranges(a, b):
            print(off_a + off, length, off_b + off)
            total += length
    print(total, file=sys.stderr)


if __name__ == "__main__":
    main()
