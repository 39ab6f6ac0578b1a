# SPDX-License-Identifier: GPL-2.0-or-later
"""measure_source - the product's C files as tools/measure sees them: functions, asserts, names

It reads text and compiles nothing: it knows the style of this code. A function's brace stands
alone in column 0, and a line that is blank or ends something stands before its head; functions that
a macro makes are not seen. A .c, its .h and its _internal.h are one file, named by the path without
the ending.
"""

import bisect
import collections
import os
import re

PRODUCT = ("core", "server", "cli")
ASSERT = re.compile(r"\b(assert|static_assert|_Static_assert)\s*\(")
ATTRIBUTE = re.compile(r"__attribute__\s*\(\(.*?\)\)")
# A line that goes on: not blank, no end of something else, nothing of the preprocessor.
HEAD = re.compile(r"(?!\s*#)\s*\S.*[^;}\s]\s*$")
NAME = re.compile(r"\b(\w+)\s*\(")

Function = collections.namedtuple("Function", "name file first last static")


def unit(name):
    """The file that a .c or .h belongs to."""
    stem, ending = os.path.splitext(name)
    return stem.removesuffix("_internal") if ending == ".h" else stem


def is_product(name):
    return name.split("/")[0] in PRODUCT


def functions(name, text):
    """Every function that the text defines; its lines are from brace to brace, as tidy counts."""
    lines = text.splitlines()
    first, head = None, ""
    for number, line in enumerate(lines, 1):
        if line == "{" and lines[number - 2].endswith(")"):
            start = number - 2
            while HEAD.match(lines[start - 1]):
                start -= 1
            first, head = number, ATTRIBUTE.sub(" ", " ".join(lines[start:number - 1]))
        elif line.startswith("}") and first:
            static = re.search(r"\bstatic\b", head) is not None
            yield Function(NAME.search(head).group(1), name, first, number, static)
            first = None


class Source:
    """The product files of the tree that a tidy.py stands in, and their functions."""

    def __init__(self, tidy):
        self.tidy = tidy
        self.files = [f for f in tidy.C_FILES if is_product(f)]
        self.text = {f: tidy.without_comments(tidy.read(f)) for f in self.files}
        self.headers = {f: [header for _, quote, header in tidy.includes(f)
                            if quote == '"' and header in self.text] for f in self.files}
        self.functions = [one for f in self.files for one in functions(f, self.text[f])]

    def reached(self, name):
        """The product's headers that the file includes, directly or not."""
        seen, todo = set(), [name]
        while todo:
            for header in self.headers[todo.pop()]:
                if header not in seen:
                    seen.add(header)
                    todo.append(header)
        return seen

    def bodies(self, name):
        """The text of the file's functions and macros: what it does, without what it declares."""
        lines = self.text[name].splitlines()
        keep = [lines[one.first - 1:one.last] for one in self.functions if one.file == name]
        return "\n".join(line for body in keep for line in body) + "\n" + "\n".join(
            re.findall(r"^\s*#\s*define(?:.*\\\n)*.*", self.text[name], re.M))


def static_names(source):
    """Each name of a static function, with the files in which it stands."""
    where = collections.defaultdict(set)
    for one in source.functions:
        if one.static:
            where[one.name].add(unit(one.file))
    return where


def asserts(source, top=""):
    """Counts of functions, of asserts inside and beside them, and of static_asserts likewise."""
    count = collections.Counter()
    spans = collections.defaultdict(list)
    for one in source.functions:
        spans[one.file].append((one.first, one.last))
    for name, text in source.text.items():
        if not name.startswith(top):
            continue
        count["functions"] += len(spans[name])
        starts = [first for first, _ in spans[name]]
        for number, line in enumerate(text.splitlines(), 1):
            place = bisect.bisect_right(starts, number) - 1
            inside = place >= 0 and number <= spans[name][place][1]
            for word in ASSERT.findall(line):
                kind = "asserts" if word == "assert" else "static_asserts"
                count[f"{kind} {'inside' if inside else 'beside'}"] += 1
    return count


def spread(values):
    """Median, 95th percentile (nearest rank) and greatest."""
    ranks = sorted(values)
    return {"median": ranks[(len(ranks) - 1) // 2], "p95": ranks[-(-len(ranks) * 95 // 100) - 1],
            "max": ranks[-1]}
