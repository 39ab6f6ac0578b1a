# SPDX-License-Identifier: GPL-2.0-or-later
"""crash_images - makes a crash image at every flush of a recorded run, and judges each

What guest/crash.py recorded is replayed here, on the host. An image is made at every flush, and at
every mark `done`, where a flush was just answered and nothing after it is on the disk yet. Each one
is given to `sameblk check`, which must find no damage; then to sameblkd, which recovers it, and
every block is compared with what crash_plan.py allows; then to `sameblk check` once more.
"""

import os
import shutil
import sys
import tempfile

import crash_plan
import log_writes

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "rigs"))
import rig

IMAGES = 50
NOTE_EVERY = 500
# Each image is copied, recovered and flushed: what they say does not depend on where they lie, and
# a disk would take an hour for thousands of them.
MEMORY = "/dev/shm"
MARK_CREATED = "created"


class Point:
    """An entry of the log after which the power fails."""

    def __init__(self, entry, done, begun):
        self.number, self.done, self.begun = entry.number, done, begun
        self.what = entry.mark or "flush"

    def __str__(self):
        return (f"after entry {self.number} ({self.what}; round {self.done} done, "
                f"{self.begun} begun)")


def points(entries):
    """Every flush and every answered flush since the store was made."""
    done, begun, created = 0, 0, False
    for entry in entries:
        if entry.mark:
            word, _, number = entry.mark.partition("-")
            created = created or word == MARK_CREATED
            done = int(number) if word == "done" else done
            begun = int(number) if word == "begin" else begun
        if created and (entry.is_flush() or (entry.mark or "").startswith("done-")):
            yield Point(entry, done, begun)


def chosen(found, limit):
    """Not more than limit, evenly spread, first and last among them."""
    if limit is None or len(found) <= limit:
        return found
    return [found[i * (len(found) - 1) // (limit - 1)] for i in range(limit)]


def judge(r, image, point, model):
    """Raises rig.Failure if the image is not what it must be."""
    copy = r.path("copy")
    shutil.copyfile(image, copy)
    try:
        rig.offline_check(copy)
        server = r.server(copy)
        disk = server.connect()
        data = disk.read(0, crash_plan.VOLUME_BYTES)
        disk.close()
        server.stop()
        rig.offline_check(copy)
    except rig.Failure as why:
        raise rig.Failure(f"{point}: {why}") from None
    for number, values in enumerate(model.allowed(point.done, point.begun)):
        off = number * crash_plan.BLOCK
        value = crash_plan.value_of(data[off:off + crash_plan.BLOCK])
        if value not in values:
            raise rig.Failure(f"{point}: block {number} is {value and hex(value)}, "
                              f"not one of {sorted(map(hex, values))}")


def judge_forgetful(r, log, store_bytes):
    """A disk that lost all writes of an answered round: had that no findings, nothing would."""
    plan = crash_plan.rounds(r.long)
    model = crash_plan.Model(plan)
    number = next(n for n in range(len(plan), 0, -1) if model.after[n] != model.after[n - 1])
    losing, point = False, None
    with new_image(r, store_bytes) as image, open(log, "rb") as f:
        for entry in log_writes.entries(f.fileno()):
            losing = losing or entry.mark == f"begin-{number}"
            if entry.mark == f"done-{number}":
                point = Point(entry, number, number)
                break
            if not losing:
                log_writes.replay(f.fileno(), entry, image.fileno())
        rig.expect(losing and point, f"the log has round {number}")
        try:
            judge(r, image.name, point, model)
        except rig.Failure as why:
            r.note(f"seen as it must be: {str(why)[:100]}")
            return
    raise rig.Failure(f"nobody saw that all writes of round {number} were lost")


def new_image(r, store_bytes):
    image = open(r.path("image"), "w+b", buffering=0)
    image.truncate(store_bytes)
    return image


def judge_all(r, log, store_bytes):
    plan, limit = crash_plan.rounds(r.long), None if r.long else IMAGES
    model = crash_plan.Model(plan)
    with new_image(r, store_bytes) as image, open(log, "rb") as f:
        found = list(points(log_writes.entries(f.fileno())))
        rig.expect(found and found[-1].done == len(plan), "the log has all rounds")
        wanted = {point.number: point for point in chosen(found, limit)}
        judged = 0
        for entry in log_writes.entries(f.fileno()):
            log_writes.replay(f.fileno(), entry, image.fileno())
            if entry.number in wanted:
                judge(r, image.name, wanted[entry.number], model)
                judged += 1
                if judged % NOTE_EVERY == 0:
                    r.note(f"{judged} of {len(wanted)} images are good")
    r.note(f"{len(wanted)} images of {len(found)} places where the power could fail, "
           f"{sum(p.what == 'flush' for p in wanted.values())} of them at flushes")


def run(log, store_bytes, long):
    """Prints ok or not ok for each test; True if all is good."""
    tests = {"every_image_has_what_was_acknowledged": judge_all,
             "a_disk_that_forgets_a_flushed_round_is_found_out": judge_forgetful}
    before = tempfile.tempdir
    if os.access(MEMORY, os.W_OK):
        tempfile.tempdir = MEMORY
    results = [rig.run_test(f"vm.crash.{name}",
                            lambda r, judged=judged: judged(r, log, store_bytes), long)
               for name, judged in tests.items()]
    tempfile.tempdir = before
    return all(results)
