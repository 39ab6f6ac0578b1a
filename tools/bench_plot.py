# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_plot - the ratios of tools/bench nbd as an SVG: a group of bars a job, a bar a server

Bars are IOPS as multiples of the best peer's. What is longer than the plot is cut at its edge and
says its number. The thin line across sameblkd's bar goes from its lowest round to its highest, the
black mark is the goal.
"""

from xml.sax.saxutils import escape

WIDTH = 920
LEFT, RIGHT = 250, 60
TOP, BOTTOM = 78, 34
BAR, GROUP_GAP = 11, 14
RATIO_MAX = 3.0
GRID_STEP = 0.5
COLOURS = {
    "sameblkd": "#c2410c", "sameblkd-w2": "#c2410c", "nbdkit": "#1d4ed8",
    "qemu-io_uring": "#0e7490", "qemu-threads": "#67b7c4", "nbd-server": "#7c3aed",
    "ceiling": "#c4c4c4",
    "sameblk": "#c2410c", "xfs": "#1d4ed8", "btrfs": "#0e7490",
}
TIMES_GRID = 5


class Plot:
    """Elements, and where a ratio lies on the horizontal axis."""

    def __init__(self, ratio_max):
        self.ratio_max, self.elements = ratio_max, []

    def x(self, ratio):
        return LEFT + min(ratio, self.ratio_max) / self.ratio_max * (WIDTH - LEFT - RIGHT)

    def text(self, x, y, text, size=12, anchor="start", weight="normal"):
        self.elements.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" '
                             f'text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>')

    def box(self, x, y, width, height, colour):
        self.elements.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                             f'height="{height:.1f}" fill="{colour}"/>')

    def line(self, x1, y1, x2, y2, colour, width):
        self.elements.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                             f'stroke="{colour}" stroke-width="{width}"/>')

    def svg(self, height):
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="sans-serif" fill="#1f2937">',
            "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *self.elements, "</svg>", ""])


def legend(plot, names, title):
    plot.text(16, 24, title, 15, weight="bold")
    x = 16
    for name in names:
        plot.box(x, 39, 11, 11, COLOURS[name])
        plot.text(x + 16, 49, name)
        x += 34 + 7 * len(name)
    plot.line(x + 5, 38, x + 5, 51, "#000000", 2.5)
    plot.text(x + 13, 49, "goal")


def grid(plot, bottom):
    for step in range(round(plot.ratio_max / GRID_STEP) + 1):
        ratio = step * GRID_STEP
        heavy = ratio == 1
        plot.line(plot.x(ratio), TOP - 8, plot.x(ratio), bottom, "#6b7280" if heavy else "#e5e7eb",
                  1.2 if heavy else 1)
        plot.text(plot.x(ratio), bottom + 16, f"{ratio:.1f}", 11, "middle")
    plot.text(plot.x(1), bottom + 29, "best peer", 11, "middle")


def group(plot, y, row, servers, title):
    best = servers[row["best_peer"]]["iops"]
    height = BAR * len(servers)
    plot.text(LEFT - 10, y + height / 2 + 4, title, 12, "end")
    for name, one in servers.items():
        ratio = one["iops"] / best
        plot.box(LEFT, y, plot.x(ratio) - LEFT, BAR - 1.5, COLOURS[name])
        if name == row["server"]:
            middle = y + BAR / 2 - 0.75
            plot.line(plot.x(row["ratio_min"]), middle, plot.x(row["ratio_max"]), middle,
                      "#431407", 1.5)
            mark = plot.x(row["goal_ratio"])
            plot.line(mark, y - 3, mark, y + BAR + 1.5, "#000000", 2.5)
            end = max(plot.x(max(ratio, row["ratio_max"])), mark)
            plot.text(end + 5, y + BAR - 1.5, f"{ratio:.2f}", 11, weight="bold")
        elif ratio > plot.ratio_max:
            plot.text(plot.x(ratio) + 4, y + BAR - 1.5, f"{ratio:.1f}", 10)
        y += BAR
    return y + GROUP_GAP


def draw(title, rows, summed, jobs):
    """The SVG of one run; rows without a comparison are left out."""
    rows = [row for row in rows if "ratio" in row]
    names = []
    for row in rows:
        names += [name for name in summed[row["job"]] if name not in names]
    longest = max([1.5] + [max(one["iops"] for one in summed[row["job"]].values())
                           / summed[row["job"]][row["best_peer"]]["iops"] for row in rows])
    ratio_max = min(RATIO_MAX, -(-longest // GRID_STEP) * GRID_STEP)
    plot = Plot(ratio_max)
    bottom = TOP + sum(BAR * len(summed[row["job"]]) + GROUP_GAP for row in rows)
    legend(plot, [name for name in names if name != "sameblkd-w2"], title)
    grid(plot, bottom)
    y = TOP
    for row in rows:
        y = group(plot, y, row, summed[row["job"]], jobs[row["job"]].title)
    return plot.svg(bottom + BOTTOM)


def draw_times(title, groups, ours):
    """Of tools/bench same: groups of (title, {name: number}), as multiples of the best other's."""
    times = [(name, {who: n / max(v for w, v in numbers.items() if w != ours)
                     for who, n in numbers.items()}) for name, numbers in groups]
    longest = max(max(one.values()) for _, one in times)
    plot = Plot(max(TIMES_GRID, -(-longest // TIMES_GRID) * TIMES_GRID))
    bottom = TOP + sum(BAR * len(one) + GROUP_GAP for _, one in times)
    plot.text(16, 24, title, 15, weight="bold")
    x = 16
    for name in groups[0][1]:
        plot.box(x, 39, 11, 11, COLOURS[name])
        plot.text(x + 16, 49, name)
        x += 34 + 7 * len(name)
    for ratio in [1, *range(TIMES_GRID, int(plot.ratio_max) + 1, TIMES_GRID)]:
        plot.line(plot.x(ratio), TOP - 8, plot.x(ratio), bottom, "#6b7280" if ratio == 1
                  else "#e5e7eb", 1)
        plot.text(plot.x(ratio), bottom + 16, str(ratio), 11, "middle")
    y = TOP
    for name, one in times:
        plot.text(LEFT - 10, y + BAR * len(one) / 2 + 4, name, 12, "end")
        for who, ratio in one.items():
            plot.box(LEFT, y, plot.x(ratio) - LEFT, BAR - 1.5, COLOURS[who])
            plot.text(plot.x(ratio) + 5, y + BAR - 1.5, f"{ratio:.2f}", 11)
            y += BAR
        y += GROUP_GAP
    return plot.svg(bottom + BOTTOM)
