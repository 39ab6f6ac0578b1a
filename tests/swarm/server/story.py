# SPDX-License-Identifier: GPL-2.0-or-later
"""story - one world from its creation to its end: lives of a server, and what is asked between them
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import places
import rig
import world
from nbd_raw import TRIM, Raw
from life import Dedupe, Failure, Load, Server, expect

BLOCK = 4096
MIB = 1 << 20
RUN_MS_MAX = 600
HUGE_METADATA_BYTES = 130 * MIB
# Of a processor, for what was in flight on connections that are gone; all of it takes six.
ABANDONED_SECONDS = 3
RAW_TRIMS = 120
HEAD_BYTES = 256 << 10
SLAB_BYTES = 2018 * BLOCK
STILL_SECONDS = 3


class Story:
    """One world from its creation to its end."""

    def __init__(self, programs, place, drawn):
        self.programs, self.place, self.world = programs, place, drawn
        self.chance = random.Random(f"story {drawn.seed}")
        self.folder = place.folder
        self.work = tempfile.mkdtemp(prefix="sameblk-swarm.")
        self.loop = self.server = self.load = None
        self.generation = 0
        self.killed = False
        self.fresh = {}
        self.lives = self.kills = 0
        self.life = None

    # --- beginning ---

    def create(self):
        """Makes the store; `tight` is the least that can be made, or a little more."""
        store = os.path.join(self.folder, "store")
        kind = self.world.buckets["store"]
        store_bytes = None
        if kind != "chosen" or self.place.kind == "loop":
            store_bytes = self.store_bytes(kind)
        if self.place.kind == "loop":
            self.loop = places.Loop(store, store_bytes, self.world.loop_sector)
            store = self.loop.device
            self.programs.run("create", "--size", self.world.size, store, check="create")
        else:
            sizes = ["--size", self.world.size]
            if store_bytes:
                sizes += ["--store-size", store_bytes]
            self.programs.run("create", *sizes, store, check="create")
        self.server = Server(self.programs, store, self.work)
        self.load = Load(self.programs, self.world.seed, self.world.size, self.path("trace"),
                         self.path("load.log"))

    def store_bytes(self, kind):
        if self.world.buckets["size"] == "huge":
            return (HUGE_METADATA_BYTES + int(128 * MIB * self.world.store_part)) // BLOCK * BLOCK
        probe = os.path.join(self.work, "probe")
        self.programs.run("create", "--size", self.world.size, probe, check="create")
        chosen = os.stat(probe).st_size
        os.unlink(probe)
        if kind == "chosen":
            return chosen
        least = chosen - self.world.size
        part = 0.02 if kind == "tight" else self.world.store_part
        wanted = min(self.world.size, 256 * MIB)
        return (least + 4 * MIB + int(wanted * part)) // BLOCK * BLOCK

    def path(self, name):
        return os.path.join(self.work, name)

    # --- a life ---

    def start(self, life):
        options = world.life_options(life)
        if life["sockets"] == "removed":
            self.server.remove_sockets()
        elif life["sockets"] == "renamed":
            self.server.rename()
        closed = [] if life["descriptors"] == "open" else [int(c) for c in life["descriptors"]]
        for _ in range(life["recovery-kills"]):
            self.server.spawn(options, closed)
            time.sleep(self.chance.choice((0.003, 0.01, 0.03, 0.1)) * self.chance.random() * 2)
            self.server.expect_alive()
            self.server.kill()
            self.kills += 1
        fsize = 0
        if life["limit"] == "file-size" and self.place.kind != "loop":
            fsize = self.chance.randrange(os.stat(self.server.store).st_size)
        self.server.spawn(options, closed, fsize)
        try:
            self.server.wait_ready()
        except Failure:
            # Recovery may need what the limit forbids: said, and no signal.
            if not fsize or self.server.process.returncode != 2:
                raise
            life["limit"] = "none"
            self.server.spawn(options, closed)
            self.server.wait_ready()
        self.serves(life)

    def serves(self, life):
        """A store whose metadata lacks space in recovery is served read-only, which is said."""
        if life["read-only"] or (self.server.call("status").get("reason")
                                 != "started read-only"):
            return
        expect(self.may_lack_space(life), "start",
               "served read-only with room for all: " + self.server.log()[-700:])
        life.update({"read-only": True, "dedupe": "none", "drop": False})

    def may_lack_space(self, life):
        """The backing, whatever the store says it has."""
        return life["limit"] != "none" or self.world.buckets["backing"] != "roomy"

    def allow(self, life):
        """What may be answered in this life: `enospc` where the store or its backing is full."""
        full = self.world.buckets["store"] != "chosen" or self.may_lack_space(life)
        return {"enospc": int(full), "eio": int(life["limit"] != "none")}

    def connect(self, life):
        options = {**self.world.load, **self.world.weights, **self.allow(life),
                   "connections": life["connections"], "depth": life["depth"],
                   "read_only": int(life["read-only"]), "lasting": int(life["lasting"])}
        if life["read-only"]:
            for op in ("write", "zero", "trim", "all", "same", "ranges", "clone", "wrong"):
                options[op] = 0
        words = " ".join(f"{key}={value}" for key, value in options.items())
        self.load.ask(f"connect {self.server.nbd} {self.server.control} {words}", "connect")

    def begin(self, life):
        self.start(life)
        self.connect(life)
        self.load.ask("verify " + ("killed" if self.killed else "stopped"))
        self.look(life)

    def look(self, life):
        """In a quiet moment: changes, and the account against the map."""
        if life["limit"] == "none":
            self.load.ask(f"changes {self.generation}", "changes")
            self.generation = self.load.sums["generation"]
        if self.world.buckets["size"] != "huge":
            self.account()

    def account(self):
        runs, stats = self.server.runs(self.world.size), self.server.call("stats")
        owners = {}
        for run in runs:
            if run["kind"] == "data":
                for i in range(0, run["length"], BLOCK):
                    at = run["physical"] + i
                    owners.setdefault(at, []).append(run["references"])
        for at, told in owners.items():
            expect(all(r == len(told) for r in told), "account",
                   f"the block at {at} has {len(told)} owners, the map says {told}")
        mapped = sum(len(told) for told in owners.values()) * BLOCK
        shared = sum(len(told) for told in owners.values() if len(told) > 1) * BLOCK
        for key, value in (("mapped_bytes", mapped), ("used_bytes", len(owners) * BLOCK),
                           ("shared_bytes", shared),
                           ("saved_bytes", mapped - len(owners) * BLOCK)):
            expect(stats[key] == value, "account",
                   f"{key} is {stats[key]}, by the map it is {value}")
        sums = sum(stats[k] for k in ("used_bytes", "free_bytes", "unbacked_bytes",
                                      "pending_bytes", "metadata_bytes", "lost_bytes"))
        expect(sums == stats["store_bytes"], "account", f"not what the store has: {stats}")

    def disturb(self, life):
        """Signals while the load runs."""
        name = life["signal"]
        if name == "none":
            return
        self.server.process.send_signal(getattr(signal, "SIG" + name))
        if name == "STOP":
            time.sleep(0.05)
            self.server.process.send_signal(signal.SIGCONT)

    def run(self, milliseconds):
        """True if the connections still are; the load is heard later if they are to be cut."""
        self.load.say(f"run milliseconds={milliseconds}")

    def live(self, life):
        self.life = life
        self.begin(life)
        if self.lives == 0 and not life["read-only"]:
            self.fill()
        segments = self.chance.randint(1, 3)
        for _ in range(segments):
            dedupe = None
            if life["dedupe"] != "none":
                dedupe = Dedupe(self.programs, self.server, self.path("hashes"),
                                self.path("dedupe.log"))
            self.run(self.chance.randint(20, RUN_MS_MAX))
            time.sleep(self.chance.random() * 0.1)
            self.disturb(life)
            there = self.load.hear("oracle")
            if dedupe:
                self.end_dedupe(life, dedupe)
            self.server.expect_alive(there)
            if life["drop"]:
                self.abandon(life)
        getattr(self, "end_" + life["end"].replace("-", "_"))(life)
        self.load.ask("close")
        self.load.ask("rest " + ("killed" if self.killed else "clean"))
        self.server.expect_sane()

    def abandon(self, life):
        """All connections are closed with requests in flight; those are not gone on with."""
        huge = self.world.buckets["size"] == "huge"
        if huge:
            self.load.ask("zeros")
            self.raw_trims()
        self.load.ask("abandon")
        if huge:
            self.comes_to_rest()
        self.connect(life)

    def comes_to_rest(self):
        """Until the processor is not used any more, however little of it there is."""
        before = last = self.server.processor_seconds()
        while True:
            time.sleep(0.5)
            now = self.server.processor_seconds()
            expect(now - before < ABANDONED_SECONDS * self.programs.sanitizer, "abandoned",
                   f"{now - before:.1f} s of processor time for requests of closed connections")
            if now - last <= 0.02:
                return
            last = now

    def raw_trims(self):
        """All that a connection may have in flight, each of everything, and then it is gone."""
        raw = Raw(self.server.nbd).go(extended=True)
        for _ in range(RAW_TRIMS):
            raw.request(TRIM, 0, self.world.size)
        time.sleep(0.1)
        raw.close()

    def end_dedupe(self, life, dedupe):
        number = {"whole": None, "interrupted": signal.SIGINT, "killed": signal.SIGKILL}
        status = dedupe.end(number[life["dedupe"]])
        # What it asks for may be refused where there is no space.
        allowed = (0, 1, -signal.SIGINT, -signal.SIGKILL) + ((2,) if self.allow(life)["enospc"]
                                                             else ())
        if status not in allowed:
            with open(self.path("dedupe.log"), encoding="utf-8", errors="replace") as f:
                raise Failure("dedupe", f"it ended with {status}: {f.read()[-500:]}")

    # --- ends ---

    def during_load(self, act):
        """Does it while the load runs."""
        self.run(20000)
        timer = threading.Timer(self.chance.choice((0.01, 0.1, 0.5)) * self.chance.random() * 2,
                                act)
        timer.start()
        self.load.hear("oracle")
        timer.join()

    def end_kill(self, life):
        self.during_load(self.server.kill)
        self.killed = True
        self.kills += 1

    def end_quiet_kill(self, life):
        self.load.ask("verify live")
        self.server.kill()
        self.killed = True
        self.kills += 1

    def end_stop(self, life):
        failures = []

        def act():
            try:
                self.server.stop()
            except Failure as failure:
                failures.append(failure)
        self.during_load(act)
        if failures and life["limit"] == "none":
            raise failures[0]
        self.killed = bool(failures)

    def end_stop_kill(self, life):
        def act():
            self.server.process.send_signal(signal.SIGTERM)
            time.sleep(self.chance.choice((0.001, 0.01, 0.05)) * self.chance.random() * 2)
            self.server.kill()
        self.during_load(act)
        self.killed = self.server.process.returncode != 0

    def end_quiet_stop(self, life):
        self.load.ask("verify live")
        self.look(life)
        self.load.ask("close")
        try:
            self.server.stop()
            self.killed = False
        except Failure:
            if life["limit"] == "none":
                raise
            self.killed = True

    def nothing_else_wrote(self):
        """With descriptors closed, what is meant for a log may go to the store."""
        with open(self.server.store, "rb") as f:
            head = f.read(HEAD_BYTES)
        expect(head[:8] == b"sameblk\n", "head", f"the store begins with {head[:80]!r}")
        for text in (b"sameblkd: ", b"ready nbd"):
            at = head.find(text)
            expect(at < 0, "head", f"at {at} the store has {head[at:at + 80]!r}")

    def check(self, how):
        self.nothing_else_wrote()
        if how == "none":
            return
        options = ["--repair"] if how == "repair" else []
        self.programs.run("check", *options, self.server.store, check="check")

    # --- the end of the world ---

    def leave(self):
        """A last life: all is trimmed, and nothing is left."""
        self.place.drain()
        life = {**{dimension: list(buckets)[0] for dimension, buckets in world.LIFE.items()},
                "cache": self.chance.choice(("default", "least"))}
        self.begin(life)
        if self.chance.random() < 0.5:
            # What has not been looked at in this life is given back as well.
            self.load.ask("close")
            self.server.stop()
            self.load.ask("rest clean")
            self.start(life)
            self.connect(life)
        self.trim()
        self.load.ask("close")
        self.server.stop()
        # Places of leaves are given back by checkpoints, as one is at the stop.
        self.check("plain")
        self.load.ask("rest clean")
        self.killed = False
        self.begin(life)
        self.nothing_is_left()
        self.load.ask("close")
        self.server.stop()
        status = self.load.close()
        expect(status == 0, "load", f"it ended with {status}")

    def trim(self):
        """Until nothing is used any more; what was freed waits for commits."""
        end = time.monotonic() + 20 * self.programs.slow
        while True:
            self.load.ask("trim")
            stats = self.server.call("stats")
            if stats["used_bytes"] == 0 or time.monotonic() > end:
                break
            time.sleep(0.02)
        self.load.ask("verify live")
        for key in ("used_bytes", "mapped_bytes", "shared_bytes"):
            expect(stats[key] == 0, "leak.used", f"{key} is {stats[key]}")

    def nothing_is_left(self):
        end = time.monotonic() + 10 * self.programs.slow
        while self.server.call("stats")["pending_bytes"] and time.monotonic() < end:
            time.sleep(0.02)
        stats = self.server.call("stats")
        for of in (stats, self.fresh):
            of["free_bytes"] += of.pop("unbacked_bytes", 0)
        for key in ("used_bytes", "pending_bytes", "metadata_bytes", "free_bytes"):
            expect(stats[key] == self.fresh[key], "leak." + key.split("_", maxsplit=1)[0],
                   f"{key} is {stats[key]}, of a new store it is {self.fresh[key]}")
        self.backing_is_given_back(stats)

    def backing_is_given_back(self, stats):
        """The file takes what metadata takes; slots of counts that were written stay."""
        if self.place.kind == "loop":
            return
        slabs = stats["store_bytes"] // SLAB_BYTES + 1
        most = self.fresh["allocated"] + slabs * 2 * BLOCK + MIB
        least, end = self.allocated(), 0
        # As long as it falls it may take its time.
        while least > most:
            time.sleep(0.1)
            now = self.allocated()
            if now < least or not end:
                least, end = min(now, least), time.monotonic() + STILL_SECONDS * rig.slowness()
            elif time.monotonic() > end:
                break
        expect(self.allocated() <= most, "leak.file",
               f"{self.allocated()} bytes of the file are allocated, {most} at most should be")

    def allocated(self):
        return os.stat(self.server.store).st_blocks * 512

    def measure(self):
        """What a new store has, in a first short life."""
        self.server.spawn([])
        self.server.wait_ready()
        self.fresh = self.server.call("stats")
        self.server.stop()
        self.fresh["allocated"] = 0 if self.place.kind == "loop" else self.allocated()

    def fill(self):
        """Nearly everything is written, but for the end; or it all is one block's."""
        if self.world.buckets["fill"] == "most":
            self.load.ask("fill")
        if self.world.buckets["fill"] == "one-block":
            self.load.ask("share")

    def tell(self):
        self.create()
        self.measure()
        if self.world.buckets["backing"] == "nearly-full":
            self.place.fill(self.world.leave_bytes)
        for number in range(self.world.lives):
            life = self.world.life()
            self.live(life)
            self.lives += 1
            self.check(life["check"])
            if number == self.world.lives - 2:
                self.place.drain()
        self.leave()

    def end(self):
        if self.server and self.server.process:
            self.server.process.send_signal(signal.SIGCONT)
            self.server.kill()
        if self.load:
            self.load.process.kill()
            self.load.process.wait()
        if self.loop:
            self.loop.close()

    def keep(self, folder):
        """What is needed to look into it."""
        if self.load:
            self.load.trace()
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(self.work):
            if name.endswith((".log", "trace")):
                shutil.copy(self.path(name), folder)
        store = os.path.join(self.folder, "store")
        if os.path.exists(store):
            subprocess.run(["cp", "--sparse=always", store, folder], check=False)

    def clean_up(self):
        shutil.rmtree(self.work, ignore_errors=True)
        if not self.place.is_lost():
            self.place.clean()
