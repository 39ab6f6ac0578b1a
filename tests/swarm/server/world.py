# SPDX-License-Identifier: GPL-2.0-or-later
"""world - what one seed draws: a volume, its store and place, its load, and its servers' lives

Each dimension is a list of buckets with weights. They come in rounds, each round in another order,
so that worlds whose seeds follow each other have drawn all of it soon. What was drawn is counted,
so that a bucket which is drawn nowhere is seen (see the table that run.py prints).
"""

import math
import random

BLOCK = 4096
REGION_BLOCKS = 512
SLAB_BLOCKS = 2016
MIB = 1 << 20

# dimension: {bucket: weight}. Of a world:
WORLD = {
    "size": {"least": 1, "one-block-more": 1, "region-less": 1, "region": 1, "region-more": 2,
             "slab-less": 1, "slab": 1, "slab-more": 1, "any": 2, "256M-and-one": 1, "huge": 1},
    "store": {"chosen": 2, "thin": 2, "tight": 1},
    "place": {"here": 1, "tmpfs": 3, "ext4": 1, "xfs": 1, "btrfs": 1, "loop": 1},
    "backing": {"roomy": 3, "nearly-full": 1},
    "fill": {"not": 5, "most": 2, "one-block": 1},
}
# Of each life of a server:
LIFE = {
    "workers": {1: 3, 2: 2, 3: 1, 5: 1},
    "lasting": {False: 3, True: 1},
    "cache": {"least": 2, "4M": 1, "default": 2},
    "cow": {4096: 1, 16384: 1, "default": 2, MIB: 1, 2 * MIB: 1},
    "discard": {"on": 4, "off": 1},
    "direct": {False: 3, True: 1},
    "buffers": {"least": 1, "default": 2},
    "verbose": {False: 2, True: 1},
    "descriptors": {"open": 10, "0": 1, "1": 1, "2": 1, "01": 2, "12": 2, "02": 2, "012": 2},
    "limit": {"none": 14, "file-size": 1},
    "sockets": {"left": 3, "removed": 1, "renamed": 1},
    "read-only": {False: 7, True: 1},
    "recovery-kills": {0: 5, 1: 2, 2: 1, 3: 1},
    "connections": {1: 1, 2: 2, 4: 2, 7: 1},
    "depth": {1: 1, 4: 2, 16: 2, 64: 1},
    "signal": {"none": 6, "HUP": 1, "USR1": 1, "WINCH": 1, "STOP": 1},
    "dedupe": {"none": 5, "whole": 1, "interrupted": 1, "killed": 1},
    "drop": {False: 4, True: 1},
    "end": {"kill": 8, "quiet-kill": 2, "quiet-stop": 2, "stop": 3, "stop-kill": 2},
    "check": {"plain": 3, "repair": 1, "none": 2},
}
# Rounds of all dimensions of a world begin at its multiples.
ROUND_WORLDS = math.lcm(*(sum(buckets.values()) for buckets in WORLD.values()))
# More lives than this are also the next seed's turns.
TURNS = 3
OPS = ("write", "read", "zero", "trim", "cache", "flush", "extents", "wrong", "all", "same",
       "ranges", "clone", "map", "stats")
OP_WEIGHTS = {"write": 40, "read": 25, "zero": 8, "trim": 8, "cache": 2, "flush": 3, "extents": 4,
              "wrong": 1, "all": 1, "same": 30, "ranges": 15, "clone": 30, "map": 5, "stats": 3}


class Draw:
    """Chooses buckets, and counts what it chose."""

    def __init__(self, seed, counts, pins):
        self.chance = random.Random(f"server swarm {seed}")
        self.counts, self.pins = counts, pins

    def bucket(self, dimension, buckets, turn):
        """Each turn of a round draws another bucket, as often as it has weight."""
        if dimension in self.pins:
            return {str(b): b for b in buckets}[self.pins[dimension]]
        drawn = [b for b, weight in buckets.items() for _ in range(weight)]
        number, at = divmod(turn, len(drawn))
        random.Random(f"server swarm {dimension} {number}").shuffle(drawn)
        return drawn[at]

    def count(self, dimension, bucket):
        key = (dimension, str(bucket))
        self.counts[key] = self.counts.get(key, 0) + 1


def size_blocks(chance, bucket):
    regions, slabs = chance.randint(1, 20), chance.randint(1, 5)
    return {
        "least": lambda: 256,
        "one-block-more": lambda: regions * REGION_BLOCKS + 1,
        "region-less": lambda: regions * REGION_BLOCKS - chance.randint(1, 63),
        "region": lambda: regions * REGION_BLOCKS,
        "region-more": lambda: regions * REGION_BLOCKS + chance.randint(1, 63),
        "slab-less": lambda: slabs * SLAB_BLOCKS - chance.randint(1, 5),
        "slab": lambda: slabs * SLAB_BLOCKS,
        "slab-more": lambda: slabs * SLAB_BLOCKS + chance.randint(1, 5),
        "any": lambda: chance.randint(256, 20 * REGION_BLOCKS),
        "256M-and-one": lambda: 65536 + 1,
        "huge": lambda: (1 << 30) + chance.choice((-1, 0, 1)),
    }[bucket]()


class World:
    def __init__(self, seed, counts, pins):
        self.seed = seed
        self.turn = seed * TURNS
        self.draw = Draw(seed, counts, pins)
        chance = self.draw.chance
        b = {dimension: self.draw.bucket(dimension, buckets, seed)
             for dimension, buckets in WORLD.items()}
        if b["size"] in ("256M-and-one", "huge") and b["place"] not in ("tmpfs", "here"):
            b["place"] = "here"
        if b["size"] in ("256M-and-one", "huge"):
            b["backing"] = "roomy"
        # What can be filled up has an end of its own.
        if b["backing"] == "nearly-full" and b["place"] in ("here", "loop"):
            b["place"] = chance.choice(("tmpfs", "ext4", "xfs", "btrfs"))
        if b["size"] == "huge":
            b["store"] = "thin"
        if b["size"] == "huge":
            b["fill"] = "not"
        self.buckets = b
        for dimension, bucket in b.items():
            self.draw.count(dimension, bucket)
        self.blocks = size_blocks(chance, b["size"])
        self.size = self.blocks * BLOCK
        self.store_part = chance.uniform(0.2, 0.9)
        self.lives = chance.randint(2, 5)
        self.leave_bytes = chance.choice((1, 3, 8)) * MIB + chance.randrange(MIB)
        self.loop_sector = chance.choice((512, 4096))
        # A swarm: each world has kinds of operations that it does not use.
        self.weights = {op: 0 if chance.random() < 0.25 else int(OP_WEIGHTS[op] *
                                                                 chance.choice((1, 1, 3)))
                        for op in OPS}
        self.weights["write"] = self.weights["write"] or 40
        self.weights["flush"] = self.weights["flush"] or chance.choice((0, 1))
        if b["size"] == "huge":
            self.weights["all"] = chance.choice((1, 200))
        self.load = {
            "blocks_max": chance.choice((8, 64, 512, 1200)),
            "windows": 2 if b["size"] == "huge" else chance.choice((0, 0, 2, 5)),
            "pool": chance.choice((0, 3, 24, 60)),
            "aligned": chance.choice((0, 0, 1)),
            "control_depth": chance.choice((1, 4, 16)),
        }

    def move(self, place):
        """To another kind of place, because this one cannot be made."""
        for key, step in ((self.buckets["place"], -1), (place, 1)):
            self.draw.counts[("place", key)] = self.draw.counts.get(("place", key), 0) + step
        self.buckets["place"] = place
        self.buckets["backing"] = "roomy"

    def life(self):
        """The next server's life: a bucket of each dimension."""
        life = {dimension: self.draw.bucket(dimension, buckets, self.turn)
                for dimension, buckets in LIFE.items()}
        self.turn += 1
        if life["read-only"]:
            life["dedupe"], life["drop"] = "none", False
        if self.buckets["size"] == "huge":
            life["dedupe"] = "none"
            life["drop"] = not life["read-only"]
        # Payload memory bounds connections as well.
        if life["buffers"] == "least":
            life["connections"] = min(life["connections"], 2)
        for dimension, bucket in life.items():
            self.draw.count(dimension, bucket)
        return life


def life_options(life):
    """Of sameblkd."""
    options = ["--workers", str(life["workers"])]
    if life["lasting"]:
        options.append("--lasting")
    if life["cache"] != "default":
        options += ["--metadata-cache", "1M" if life["cache"] == "least" else "4M"]
    if life["cow"] != "default":
        options += ["--cow-hint", str(life["cow"])]
    options.append("--discard=" + life["discard"])
    if life["direct"]:
        options.append("--direct")
    if life["buffers"] == "least":
        options += ["--buffer-memory", str(life["workers"] * 2 * MIB)]
    if life["verbose"]:
        options.append("--verbose")
    if life["read-only"]:
        options.append("--read-only")
    return options


def expected(dimension, bucket, worlds, lives):
    """How often a bucket should have been drawn by now."""
    buckets, drawn = (WORLD[dimension], worlds) if dimension in WORLD else (LIFE[dimension], lives)
    return drawn * buckets[bucket] / sum(buckets.values())
