# SPDX-License-Identifier: GPL-2.0-or-later
"""bench_report - holds the results of tools/bench nbd against the goals, as Markdown and SVG

The goal of a job is a multiple of the best peer's IOPS. Where the ceiling is below that multiple,
the client is the bound and no server could reach it: then the goal is 0.9 of the ceiling. The
ceiling is valid only where it is at least as fast as the best peer, and says nothing about a job
that flushes, which it does not do. In every 4 KiB job, server CPU an operation is at most 0.6 of
the lowest peer's, and IOPS at least 0.8 of the ceiling's.
"""

import json
import os

import bench_plot
import bench_servers

MIB = 1 << 20
CPU_GOAL = 0.6
CEILING_GOAL_4K = 0.8
CEILING_GOAL_BOUND = 0.9
WRITTEN = {"linear": "Volume written once in order (LINEAR)",
           "leaf": "Volume written once at random (LEAF)"}
OURS = ("sameblkd", "sameblkd-w2")


def paired_ratios(ours, theirs):
    """Round by round, the lowest and the highest."""
    ratios = [a["iops"] / b["iops"] for a, b in zip(ours, theirs)]
    return min(ratios), max(ratios)


def judge_job(job, results, summed):
    """One job's row: keys that do not apply are absent."""
    row = {"job": job.name, "goals": []}
    own = next((name for name in OURS if name in summed), None)
    peers = [name for name in bench_servers.PEERS if name in summed]
    if own is None or not peers:
        return row
    iops = {name: summed[name]["iops"] for name in summed}
    best = max(peers, key=iops.get)
    row |= {"server": own, "best_peer": best, "ratio": iops[own] / iops[best]}
    row["ratio_min"], row["ratio_max"] = paired_ratios(results[own], results[best])
    row["ceiling_valid"] = ("ceiling" in iops and not job.flushes
                            and iops["ceiling"] >= iops[best])
    of_ceiling = iops[own] / iops["ceiling"] if row["ceiling_valid"] else None
    row["client_bound"] = row["ceiling_valid"] and iops["ceiling"] < job.goal * iops[best]
    if of_ceiling is not None:
        row["of_ceiling"] = of_ceiling
    row["goal_ratio"] = job.goal
    if row["client_bound"]:
        row["goal_ratio"] = CEILING_GOAL_BOUND * iops["ceiling"] / iops[best]
        row["goals"].append(goal("of the ceiling (client is the bound)", of_ceiling,
                                 CEILING_GOAL_BOUND))
    else:
        row["goals"].append(goal("of the best peer", row["ratio"], job.goal))
    if job.is_4k:
        cpu = min(summed[name]["cpu_us"] for name in peers)
        row["cpu_ratio"] = summed[own]["cpu_us"] / cpu if cpu else float("inf")
        row["goals"].append(goal("CPU", row["cpu_ratio"], CPU_GOAL, at_most=True))
        if of_ceiling is not None and not row["client_bound"]:
            row["goals"].append(goal("of the ceiling", of_ceiling, CEILING_GOAL_4K))
    return row


def goal(what, found, wanted, at_most=False):
    return {"what": what, "found": found, "goal": wanted, "at_most": at_most,
            "pass": found <= wanted if at_most else found >= wanted}


def judge(jobs, results, summed):
    return [judge_job(job, results[job.name], summed[job.name]) for job in jobs]


def goal_text(one):
    sign = "at most" if one["at_most"] else "at least"
    return (f"{one['what']} {sign} {one['goal']:.2f}: {one['found']:.3f} "
            f"{'pass' if one['pass'] else '**falls short**'}")


def number(row, key):
    return f"{row[key]:.2f}" if key in row else "-"


def goals_table(rows, jobs):
    yield "| job | best peer | ratio, lowest to highest | of the ceiling | CPU ratio | goals |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        if "ratio" not in row:
            yield f"| {jobs[row['job']].title} | - | - | - | - | not compared |"
            continue
        ceiling = number(row, "of_ceiling") if row["ceiling_valid"] else "not valid"
        if jobs[row["job"]].flushes:
            ceiling = "does not flush"
        yield (f"| {jobs[row['job']].title} | {row['best_peer']} | {row['ratio']:.2f}, "
               f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f} | {ceiling} "
               f"| {number(row, 'cpu_ratio')} | {'; '.join(map(goal_text, row['goals']))} |")


def servers_table(rows, jobs, summed):
    yield ("| job | server | IOPS, lowest to highest | MB/s | p50, us | p99, us | CPU an op, us "
           "| memory, MiB (of it mapped files) | of the best peer |")
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        servers = summed[row["job"]]
        best = servers[row["best_peer"]]["iops"] if "best_peer" in row else None
        for name, one in servers.items():
            yield (f"| {jobs[row['job']].title} | {name} | {one['iops']:,.0f}, "
                   f"{one['iops_min']:,.0f} to {one['iops_max']:,.0f} | {one['mbps']:,.0f} "
                   f"| {one['p50_us']:,.0f} | {one['p99_us']:,.0f} | {one['cpu_us']:.2f} "
                   f"| {one['rss_bytes'] / MIB:,.0f} ({one['rss_file_bytes'] / MIB:,.0f}) "
                   f"| {format(one['iops'] / best, '.2f') if best else '-'} |")


def markdown(document, jobs):
    yield (f"{document['machine']}; files of {document['size_bytes'] >> 20} MiB in the page cache "
           f"on {document['filesystem']}; {document['rounds']} rounds of {document['seconds']} s, "
           f"{'fio of one connection pinned' if document['pinned'] else 'nothing pinned'}; "
           f"{'; '.join(document['versions'])}.")
    for prepare, one in document["runs"].items():
        yield f"\n### {WRITTEN[prepare]}\n"
        goals = [g for row in one["rows"] for g in row["goals"]]
        yield f"{sum(g['pass'] for g in goals)} of {len(goals)} goals are met.\n"
        yield from goals_table(one["rows"], jobs)
        yield ""
        yield from servers_table(one["rows"], jobs, one["medians"])


def write(document, jobs, folder):
    """Markdown to stdout; with a folder, that, JSON and a plot for each run into it."""
    text = "\n".join(markdown(document, jobs)) + "\n"
    print(text)
    if not folder:
        return
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "nbd.md"), "w", encoding="utf-8") as f:
        f.write(text)
    with open(os.path.join(folder, "nbd.json"), "w", encoding="utf-8") as f:
        json.dump(document, f, indent=1)
    for prepare, one in document["runs"].items():
        if not any("ratio" in row for row in one["rows"]):
            continue
        with open(os.path.join(folder, f"nbd-{prepare}.svg"), "w", encoding="utf-8") as f:
            f.write(bench_plot.draw(f"{WRITTEN[prepare]}: IOPS as multiples of the best peer's",
                                    one["rows"], one["medians"], jobs))
