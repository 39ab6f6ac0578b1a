# SPDX-License-Identifier: GPL-2.0-or-later
"""measure_circles - who reaches whom: arrows between files and folders, and the circles they make

An arrow by includes is an #include. An arrow by calls is a symbol, function or data, that the
object of one file leaves undefined and that of another defines (nm); or it is an inline function of
another file's header, which leaves no symbol. What an inline function itself calls is undefined in
the objects of all who use it, and is the header's arrow. What is reached by a function pointer is
no arrow.
"""

import collections
import json
import os
import re
import subprocess

from measure_source import is_product, unit

CUT_FILES_MAX = 17


class Arrows:
    """from -> to -> the symbols or headers that make the arrow."""

    def __init__(self):
        self.made_by = {}

    def add(self, one, other, what):
        if one != other:
            self.made_by.setdefault(one, {}).setdefault(other, set()).add(what)

    def pairs(self):
        return [(one, other) for one in sorted(self.made_by) for other in sorted(self.made_by[one])]

    def others(self, one):
        return sorted(self.made_by.get(one, ()))

    def reasons(self, one, other):
        return sorted(self.made_by.get(one, {}).get(other, ()))

    def of_folders(self):
        """The arrows between the folders of these files; "FILE: symbol" makes each."""
        arrows = Arrows()
        for one, other in self.pairs():
            for what in self.made_by[one][other]:
                arrows.add(os.path.dirname(one), os.path.dirname(other),
                           f"{os.path.basename(one)}: {what}")
        return arrows

    def without(self, cut):
        arrows = Arrows()
        for one, other in self.pairs():
            if (one, other) not in cut:
                arrows.made_by.setdefault(one, {})[other] = self.made_by[one][other]
        return arrows


def by_includes(source):
    arrows = Arrows()
    for name in source.files:
        for header in source.headers[name]:
            arrows.add(unit(name), unit(header), os.path.basename(header))
    return arrows


def compilations(build):
    """What the build compiles: (file, object); the file's path is that in its tree."""
    with open(os.path.join(build, "meson-info", "meson-info.json"), encoding="utf-8") as f:
        top = json.load(f)["directories"]["source"]
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        entries = json.load(f)
    return [(os.path.relpath(os.path.join(entry["directory"], entry["file"]), top),
             os.path.join(build, entry["output"])) for entry in entries]


def not_built(source, build):
    """What is wrong with the objects of the files that are measured: {file: what}."""
    objects, found = {}, {}
    for name, path in compilations(build):
        objects.setdefault(name, []).append(path)
    for name in source.files:
        paths = [path for path in objects.get(name, []) if os.path.exists(path)]
        text = os.path.getmtime(os.path.join(source.tidy.TOP, name))
        if name.endswith(".c") and not any(os.path.getmtime(path) >= text for path in paths):
            found[name] = "an older object" if paths else "no object"
    return found


def symbols(source, build):
    """What each file's objects leave undefined: {file: {symbol}}; and {symbol: who defines it}."""
    objects = {path: name for name, path in compilations(build)
               if name in source.text and os.path.exists(path)}
    undefined, defined = collections.defaultdict(set), {}
    out = subprocess.run(["nm", "-A", "-P", *objects], check=True, capture_output=True, text=True)
    for line in out.stdout.splitlines():
        path, _, rest = line.partition(": ")
        symbol, kind = rest.split()[:2]
        if kind in "Uwv":
            undefined[objects[path]].add(symbol)
        elif kind.isupper() and symbol != "main":
            defined[symbol] = unit(objects[path])
    return undefined, defined


def by_calls(source, build):
    arrows = Arrows()
    undefined, defined = symbols(source, build)
    words = {f: set(re.findall(r"\w+", source.bodies(f) if f.endswith(".h") else text))
             for f, text in source.text.items()}
    inline = {one.name: one.file for one in source.functions
              if one.static and one.file.endswith(".h")}
    for name in source.files:
        reached = source.reached(name)
        for symbol in undefined[name] & defined.keys():
            callers = {unit(name)}
            if symbol not in words[name]:
                callers = {unit(header) for header in reached if symbol in words[header]}
            for caller in callers:
                arrows.add(caller, defined[symbol], symbol)
        text = source.bodies(name) if name.endswith(".h") else source.text[name]
        for called in re.findall(r"(?<![\w.>])(\w+)\s*\(", text):
            if inline.get(called) in reached:
                arrows.add(unit(name), unit(inline[called]), called)
    return arrows


def circles(arrows):
    """Strongly connected components of two or more, the greatest first (Tarjan's)."""
    order, low, stack, found = {}, {}, [], []

    def visit(one):
        order[one] = low[one] = len(order)
        stack.append(one)
        for other in arrows.others(one):
            if other not in order:
                visit(other)
                low[one] = min(low[one], low[other])
            elif other in stack:
                low[one] = min(low[one], order[other])
        if low[one] == order[one]:
            members = stack[stack.index(one):]
            del stack[-len(members):]
            if len(members) > 1:
                found.append(sorted(members))

    for one in sorted(arrows.made_by):
        if one not in order:
            visit(one)
    return sorted(found, key=lambda members: (-len(members), members))


def way_back(arrows, start, members):
    """The shortest way from START through the members to itself: [start, ...]."""
    came, todo = {start: None}, collections.deque([start])
    while todo:
        one = todo.popleft()
        if start in arrows.others(one):
            way = []
            while one:
                way.insert(0, one)
                one = came[one]
            return way
        for other in arrows.others(one):
            if other in members and other not in came:
                came[other] = one
                todo.append(other)
    raise AssertionError(f"{start} is in no circle")


def shortest_loop(arrows, members):
    """One of the shortest ways round: [(from, to), ...]."""
    way = min((way_back(arrows, start, members) for start in members), key=len)
    return list(zip(way, way[1:] + way[:1]))


def smallest_cut(arrows, members):
    """The arrows [(from, to), ...] of fewest symbols without which there is no circle among the
    members: those that point back in the best order of the members. None if there are too many."""
    count = len(members)
    if count > CUT_FILES_MAX:
        return None
    weight = [[len(arrows.reasons(one, other)) for other in members] for one in members]
    # best[set]: the cost of the set's best order, in which each points only to later ones for free.
    best, last = [0] * (1 << count), [None] * (1 << count)
    for chosen in range(1, 1 << count):
        options = []
        for one in range(count):
            if chosen >> one & 1:
                rest = chosen & ~(1 << one)
                back = sum(w for other, w in enumerate(weight[one]) if rest >> other & 1)
                options.append((best[rest] + back, one))
        best[chosen], last[chosen] = min(options)
    cut, chosen = [], (1 << count) - 1
    while chosen:
        one = last[chosen]
        chosen &= ~(1 << one)
        cut += [(members[one], members[other]) for other in range(count)
                if chosen >> other & 1 and weight[one][other]]
    return sorted(cut)
