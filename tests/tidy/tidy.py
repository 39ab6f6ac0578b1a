#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tidy - what can be checked about the shape of the code without running it

    tests/tidy/tidy.py [NAME...]      all checks, or those named

Prints `ok tidy.NAME`, `not ok tidy.NAME` (each finding above it as `# file:line: what`) or
`skip tidy.NAME why`, which is what tools/test sums up. Exit status 1 if anything was found.
"""

import ast
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800
COLUMNS_MAX = 100
TAB_COLUMNS = 8

# Files that need no licence line: it is the licence itself, or a format without comments.
NO_SPDX = {"LICENSE", ".clang-format", ".clang-tidy", ".editorconfig", ".gitignore"}
NO_SPDX_ENDINGS = (".json", ".bin", ".img")


class Skip(Exception):
    """This check cannot run on this machine."""


def all_files():
    """Every file of the project, also those not added yet, but nothing that is ignored."""
    try:
        out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=TOP, check=True,
                             capture_output=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        out = []
        for folder, folders, names in os.walk(TOP):
            folders[:] = [f for f in folders
                          if f not in (".git", "__pycache__") and not f.startswith("build")]
            out += [os.path.relpath(os.path.join(folder, name), TOP) for name in names]
    return sorted(f for f in set(out) if os.path.isfile(os.path.join(TOP, f)))


def read(name):
    with open(os.path.join(TOP, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def first_line(name):
    with open(os.path.join(TOP, name), "rb") as f:
        return f.readline(200).decode("utf-8", "replace")


FILES = all_files()
C_FILES = [f for f in FILES if f.endswith((".c", ".h"))]
PY_FILES = [f for f in FILES if f.endswith(".py")
            or "." not in os.path.basename(f) and re.match(r"#!.*python", first_line(f))]
SH_FILES = [f for f in FILES if f.endswith(".sh")
            or "." not in os.path.basename(f) and re.match(r"#!.*sh\b", first_line(f))]
CODE_FILES = C_FILES + PY_FILES + SH_FILES


def without_comments(text):
    """The C text with comments and the contents of strings blanked, line by line as before."""
    def blank(match):
        s = match.group(0)
        if s[0] in "\"'":
            return s[0] * 2
        return re.sub(r"[^\n]", " ", s)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def includes(name):
    for number, line in enumerate(read(name).splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match:
            yield number, match.group(1), match.group(2)


def check_functions():
    """No function is longer than 70 lines, from brace to brace."""
    for name in C_FILES:
        start, before = 0, ""
        for number, line in enumerate(read(name).splitlines(), 1):
            if line == "{" and before.rstrip().endswith((")", ",")):
                start = number
            elif line.startswith("}") and start:
                if number - start + 1 > FUNCTION_LINES_MAX:
                    yield f"{name}:{start}: function of {number - start + 1} lines"
                start = 0
            if line.strip():
                before = line
    for name in PY_FILES:
        for node in ast.walk(ast.parse(read(name), name)):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    yield f"{name}:{node.lineno}: {node.name} has {lines} lines"


def check_files():
    """No file is longer than 800 lines."""
    for name in CODE_FILES:
        lines = read(name).count("\n")
        if lines > FILE_LINES_MAX:
            yield f"{name}: {lines} lines"


def check_lines():
    """No line is wider than 100 columns, none ends in blanks, every file ends in a newline."""
    for name in CODE_FILES:
        text = read(name)
        for number, line in enumerate(text.splitlines(), 1):
            columns = len(line.expandtabs(TAB_COLUMNS))
            if columns > COLUMNS_MAX:
                yield f"{name}:{number}: {columns} columns"
            if line != line.rstrip():
                yield f"{name}:{number}: blanks at the end"
        if text and not text.endswith("\n"):
            yield f"{name}: no newline at the end"


# core/ gets these through the store interface or as arguments; see docs/architecture.md.
CORE_HEADERS_BANNED = {
    "liburing.h", "time.h", "sys/time.h", "sys/random.h", "sys/socket.h", "netinet/in.h", "fcntl.h",
    "unistd.h", "sys/stat.h", "sys/mman.h", "syslog.h", "threads.h", "libnbd.h", "jansson.h"}
CORE_CALLS_BANNED = re.compile(
    r"\b(printf|fprintf|vfprintf|puts|fputs|perror|syslog|time|clock_gettime|gettimeofday|random|"
    r"rand|getrandom|arc4random|pthread_create|thrd_create|socket|open|openat|usleep|nanosleep|"
    r"sleep|fork|exit)\s*\(")
CORE_GETENV_ALLOWED = {"core/base/mutant.h"}
# Which folder may include which, besides itself (docs/architecture.md). None of it is a circle.
# The rule itself is tools/measure's, as all of the house; see check_house.
ARROWS = {
    "core/base": "",
    "core/format": "core/base",
    "core/metadata": "core/base core/format",
    "core/volume": "core/base core/format core/metadata",
    "core/request": "core/base core/format core/metadata core/volume",
    "server/base": "core/base",
    "server/store": "core/base server/base",
    "server/loop": "core/base server/base",
    "server/control/protocol": "core/base core/request",
    "server/control": "core/base core/volume core/request server/base server/loop"
                      " server/control/protocol",
    "server/nbd": "core/base core/volume core/request server/base server/loop server/store",
    "server/ublk/driver": "core/base server/base server/control/protocol",
    "server/ublk": "core/base core/volume core/request server/base server/loop"
                   " server/ublk/driver",
    "server": "core/base core/volume core/request server/base server/store server/loop server/nbd"
              " server/control server/control/protocol server/ublk server/ublk/driver",
    "cli/base": "core/base server/base server/control/protocol",
    "cli/check": "core/base core/format server/base server/store server/control/protocol cli/base",
    "cli/same": "core/base core/request server/base server/control/protocol cli/base",
    "cli/dedupe": "core/base core/format core/request server/base server/control/protocol cli/base"
                  " cli/same",
    "cli/device": "core/base server/base server/control/protocol server/ublk/driver cli/base",
    "cli": "core/base core/format core/volume server/base server/store server/control/protocol"
           " server/ublk/driver cli/base cli/check cli/same cli/dedupe cli/device",
}
# Arrows that are there and should not be, each with its reason; three at most.
EXCEPTIONS = {}
# What a front end knows of the engine.
FRONT_ENDS = ("server/nbd", "server/ublk", "server/control")
FRONT_END_CORE = re.compile(r"core/(request/(look|request|same_job)|volume/volume)\.h$|core/base/")


def layer_core(name):
    for number, quote, header in includes(name):
        if quote == "<" and header in CORE_HEADERS_BANNED:
            yield f"{name}:{number}: core/ has no {header}"
    for number, line in enumerate(without_comments(read(name)).splitlines(), 1):
        match = CORE_CALLS_BANNED.search(line)
        if match and not re.search(r"(->|\.|_)\s*" + match.group(1) + r"\s*\(", line):
            yield f"{name}:{number}: core/ does not call {match.group(1)}()"
        if "getenv" in line and name not in CORE_GETENV_ALLOWED:
            yield f"{name}:{number}: core/ does not read the environment"


def check_layers():
    """core/ reaches no system, and front ends reach only requests."""
    for name in C_FILES:
        folder = os.path.dirname(name)
        if folder.startswith("core/"):
            yield from layer_core(name)
        if folder not in FRONT_ENDS:
            continue
        for number, _, header in includes(name):
            if header.startswith("core/") and not FRONT_END_CORE.match(header):
                yield f"{name}:{number}: a front end knows requests, not {header}"


def check_house():
    """Arrows, circles, folders, names and asserts are not worse than tools/measure allows."""
    path = os.path.join(TOP, "tools", "measure")
    loader = importlib.machinery.SourceFileLoader("measure", path)
    measure = importlib.util.module_from_spec(importlib.util.spec_from_loader("measure", loader))
    loader.exec_module(measure)
    yield from measure.findings(sys.modules[__name__])


def check_spdx():
    """The licence stands in the first lines of every file."""
    for name in FILES:
        base = os.path.basename(name)
        if base in NO_SPDX or base.endswith(NO_SPDX_ENDINGS):
            continue
        head = read(name)[:400].splitlines()[:3]
        if not any("SPDX-License-Identifier: GPL-2.0-or-later" in line for line in head):
            yield f"{name}: no SPDX line"


def check_essays():
    """Every module says at its top what it is: in its header, or in a .c file that has none."""
    headers = {f[:-2] for f in C_FILES if f.endswith(".h")}
    for name in C_FILES:
        stem = name[:-2]
        prefixes = {stem.rsplit("_", n)[0] for n in range(stem.count("_") + 1)}
        if name.endswith(".c") and prefixes & headers:
            continue
        # op_read.c is about `read`: the last words of the name are enough.
        words = os.path.basename(stem).split("_")
        nouns = "|".join(re.escape("_".join(words[i:])) for i in range(len(words)))
        head = "\n".join(read(name).splitlines()[:4])
        if not re.search(rf"/\*\s*\n? \* ({nouns}) - ", head):
            yield f"{name}: does not begin with `{words[-1]} - what it is`"


def check_format():
    """clang-format 14 has nothing to change."""
    tool = shutil.which("clang-format-14") or shutil.which("clang-format")
    if not tool:
        raise Skip("no clang-format")
    version = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
    if " 14." not in version:
        raise Skip("clang-format is not version 14")
    if not C_FILES:
        return
    out = subprocess.run([tool, "--dry-run", "-Werror", "--style=file"] + C_FILES, cwd=TOP,
                         capture_output=True, text=True).stderr
    places = {}
    for line in out.splitlines():
        match = re.match(r"(\S+?):(\d+):\d+: error: code should be clang-formatted", line)
        if match:
            places.setdefault(match.group(1), set()).add(int(match.group(2)))
    for name, lines in places.items():
        yield f"{name}:{min(lines)}: clang-format would change {len(lines)} lines"


def check_words():
    """No goto, no mark for later without a reason."""
    later = re.compile(r"\b(TO" r"DO(?!\([^)]+\)|: \w+)|FIX" r"ME|X" r"XX\b(?!X))")
    for name in CODE_FILES:
        for number, line in enumerate(read(name).splitlines(), 1):
            match = later.search(line)
            if match and "mktemp" not in line:
                yield f"{name}:{number}: {match.group(1)} without a reason"
    for name in C_FILES:
        for number, line in enumerate(without_comments(read(name)).splitlines(), 1):
            if re.search(r"\bgoto\b", line):
                yield f"{name}:{number}: goto"


def check_clang_tidy():
    """clang-tidy has nothing to say of the product (.clang-tidy says what is asked)."""
    tool = shutil.which("clang-tidy-14")
    if tool is None:
        raise Skip("no clang-tidy-14")
    names = [f for f in C_FILES if f.endswith(".c") and not f.startswith("tests/")]
    flags = subprocess.run(["pkg-config", "--cflags", "blkid", "libnbd", "gnutls"], text=True,
                           check=False, capture_output=True).stdout.split()
    # MUTANT() as a call: as a constant it makes many an expression redundant.
    flags += ["-std=gnu17", "-D_GNU_SOURCE", "-DSAMEBLK_MUTANTS", "-DSAMEBLK_VERSION=\"\"", "-I."]
    workers = os.cpu_count() or 1
    running = [subprocess.Popen([tool, "-quiet", *names[i::workers], "--", *flags], cwd=TOP,
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
               for i in range(workers)]
    found = set()
    for process in running:
        for line in process.communicate()[0].splitlines():
            match = re.match(r"(\S+?):(\d+):\d+: (?:warning|error): (.*)", line)
            if match:
                name = os.path.relpath(match.group(1), TOP)
                found.add(f"{name}:{match.group(2)}: {match.group(3)}")
        if process.returncode not in (0, 1):
            found.add(f"clang-tidy ended with {process.returncode}")
    yield from sorted(found)


def commands():
    """The subcommands that the CLI has: the names in its table, { "name", name_main, ...}."""
    names = set()
    for name in C_FILES:
        if name.startswith("cli/"):
            names |= set(re.findall(r'^\s*\{\s*"([a-z]+)",\s*\1_main\b', read(name),
                                    flags=re.M))
    return names


def check_links():
    """What the documents point to is there."""
    for name in FILES:
        if not name.endswith(".md"):
            continue
        for number, line in enumerate(read(name).splitlines(), 1):
            for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", line):
                path = os.path.join(TOP, os.path.dirname(name), target)
                if not os.path.exists(path):
                    yield f"{name}:{number}: there is no {target}"


def check_man():
    """Every command has a man page that names it."""
    pages = {os.path.basename(f) for f in FILES if f.startswith("man/")}
    for page in ("sameblk.1", "sameblkd.8"):
        if not any(p.startswith(page) for p in pages):
            yield f"man/{page}: missing"
    overview = "".join(read(f) for f in FILES if f.startswith("man/"))
    for command in sorted(commands()):
        if not (any(p.startswith(f"sameblk-{command}.") for p in pages)
                or re.search(r"\b" + command + r"\b", overview)):
            yield f"man/: nothing about `sameblk {command}`"


def check_counters():
    """The manual page and the protocol's document say what the table of counters says."""
    table = re.sub(r"\\\n\s*", "", read("core/volume/counters.h"))
    rows = re.findall(r"C\((\w+), (\w+), (\w+),\s*\"([^\"]*)\"\)", table)
    if len(rows) != len(re.findall(r"\bC\(", table)) or not rows:
        yield "core/volume/counters.h: a line that is no counter"
    page = re.findall(r"^\.TP\n\.B (\w+)\n(.*)$", read("man/sameblk-stats.1"), re.M)
    document = re.findall(r"^\| `(\w+)` \| (gauge|counter) \| (.*) \|$",
                          read("docs/control-protocol.md"), re.M)
    wanted = [(name, text) for _, _, name, text in rows]
    for said in sorted(set(wanted) ^ {line for line in page if line[0] != "uptime_seconds"}):
        yield f"man/sameblk-stats.1: not as in core/volume/counters.h: {said[0]}: {said[1]}"
    wanted = [(name, kind.lower(), text) for kind, _, name, text in rows]
    for said in sorted(set(wanted) ^ set(document)):
        yield f"docs/control-protocol.md: not as in core/volume/counters.h: {said[0]}: {said[2]}"


def check_scripts():
    """Shell scripts parse and are executable; so are the tools."""
    for name in SH_FILES:
        path = os.path.join(TOP, name)
        shell = "bash" if "bash" in first_line(name) else "sh"
        done = subprocess.run([shell, "-n", path], capture_output=True, text=True)
        if done.returncode:
            yield f"{name}: {done.stderr.strip()}"
    for name in SH_FILES + PY_FILES:
        runs = first_line(name).startswith("#!")
        if runs and not os.access(os.path.join(TOP, name), os.X_OK):
            yield f"{name}: not executable"


CHECKS = {name[len("check_"):]: function for name, function in sorted(globals().items())
          if name.startswith("check_")}


def main():
    wanted = sys.argv[1:] or list(CHECKS)
    unknown = [name for name in wanted if name not in CHECKS]
    if unknown:
        sys.exit(f"tidy: no check named {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
    bad = False
    for name in wanted:
        try:
            findings = list(CHECKS[name]())
        except Skip as why:
            print(f"skip tidy.{name} {why}")
            continue
        for finding in findings:
            print(f"# {finding}")
        print(f"{'not ok' if findings else 'ok'} tidy.{name}")
        bad = bad or bool(findings)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
