# SPDX-License-Identifier: GPL-2.0-or-later
"""crash_plan - what is written before a crash, the same in the guest and where images are checked

A plan is rounds of operations; a round ends with a flush. Each is known from its seed alone, so the
guest that carries it out and the host that knows what must be there share nothing but numbers.

Every block has a value: 0 reads as zeros, any other one stands in the block 512 times. Writes of
one stamp have equal blocks, so that a merge of the two has something to do.

A crash image is judged by two rounds: `done`, the last one whose flush was answered, and `begun`,
the last one that had begun. Each block has the value it had after `done`, or one that a round after
that, up to `begun`, gave it.
"""

import random
import struct

BLOCK = 4096
BLOCKS = 4096
VOLUME_BYTES = BLOCKS * BLOCK
EXTENT_BLOCKS_MAX = 48
SEED = "crash"
ROUNDS, ROUNDS_LONG = 60, 600
STAMP_SHIFT = 16


class Operation:
    """kind: write, zero, discard: changes blocks. same: changes nothing that can be read."""

    def __init__(self, kind, first, count, stamp=0, other=0):
        self.kind, self.first, self.count = kind, first, count
        self.stamp, self.other = stamp, other

    def value(self, index):
        return self.stamp << STAMP_SHIFT | index if self.kind == "write" else 0

    def data(self):
        return b"".join(block(self.value(i)) for i in range(self.count))


def block(value):
    return struct.pack("<Q", value) * (BLOCK // 8)


def value_of(data):
    """The value of a block, or None if it is no whole block of one."""
    value = struct.unpack_from("<Q", data)[0]
    return value if data == block(value) else None


def rounds(long):
    """A list of lists of operations."""
    chance, stamp, plan = random.Random(SEED), 0, []
    for _ in range(ROUNDS_LONG if long else ROUNDS):
        operations = []
        for _ in range(chance.randrange(1, 5)):
            length = chance.randrange(1, EXTENT_BLOCKS_MAX + 1)
            first, other = (chance.randrange(BLOCKS - length + 1) for _ in range(2))
            kind = chance.choice(("write", "write", "twins", "twins", "zero", "discard"))
            if kind in ("zero", "discard"):
                operations.append(Operation(kind, first, length))
                continue
            stamp += 1
            operations.append(Operation("write", first, length, stamp))
            if kind == "twins" and abs(first - other) >= length:
                operations.append(Operation("write", other, length, stamp))
                operations.append(Operation("same", first, length, other=other))
        plan.append(operations)
    return plan


class Model:
    """What each block may be, after any round of the plan."""

    def __init__(self, plan):
        self.plan = plan
        self.after = [[0] * BLOCKS]
        for operations in plan:
            values = list(self.after[-1])
            for operation in operations:
                if operation.kind != "same":
                    for i in range(operation.count):
                        values[operation.first + i] = operation.value(i)
            self.after.append(values)

    def allowed(self, done, begun):
        """[{value}] by block. done, begun: numbers of rounds, from 1; 0 is before the first."""
        sets = [{value} for value in self.after[done]]
        for operations in self.plan[done:begun]:
            for operation in operations:
                if operation.kind != "same":
                    for i in range(operation.count):
                        sets[operation.first + i].add(operation.value(i))
        return sets
