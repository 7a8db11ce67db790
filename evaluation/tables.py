"""Evaluated systems as tables of text: the same rows for the terminal and for the report."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.bootstrap import CONFIDENCE
from evaluation.comparison import OFFICIAL_SCORE, Comparison
from evaluation.folders import Result
from evaluation.metrics import Decisions, Performance, decision_averages
from evaluation.published import Published, comparable_figures, official_figures
from evaluation.ranking import Ranked
from evaluation.rules import IDS, Rule
from evaluation.score_files import some

DECISION_COLUMNS = ("precision [%]", "recall [%]", "F1 [%]", "false alarms [%]")


class Table(NamedTuple):
    """Cells as text; a star marks what stands out, a dash what is not known."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def as_text(table: Table) -> str:
    """Columns in line: the first to the left, the others to the right."""
    head, rows = table
    widths = [max(text_width(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]

    def padded(cell: str, column: int) -> str:
        space = " " * (widths[column] - text_width(cell))
        return space + cell if column else cell + space

    return "\n".join("  ".join(padded(cell, column) for column, cell in enumerate(line)).rstrip() for line in lines)


def text_width(text: str) -> int:
    """Columns that a text takes on a terminal: East Asian characters take two, accents that stand alone none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def percentages(values: Sequence[float] | None) -> str:
    """Shares in %, a dash where one is not known, or for none."""
    if values is None:
        return "-"
    return "/".join("-" if np.isnan(value) else f"{100 * value:.2f}" for value in values)


def machine_types(figures: Sequence[Mapping[str, Mapping]]) -> list[str]:
    """Machine types that any system has figures of, in their order."""
    return list(dict.fromkeys(machine_type for of_system in figures for machine_type in of_system))


def machine_lines(
    figures: Mapping[str, Mapping], average: Callable, mean_name: str = "Average"
) -> dict[str, Sequence[float]]:
    """Machine type and ID, or type and Average -> figures."""
    lines = {}
    for machine_type, ids in figures.items():
        lines |= {f"{machine_type} {machine_id}": of_id for machine_id, of_id in ids.items()}
        lines[f"{machine_type} {mean_name}"] = average(ids)
    return lines


def score_line(rule: Rule, performance: Performance) -> list[str]:
    """The official score in words, nothing where the rule has none."""
    score = rule.official_score(performance)
    known = "not defined: a section lacks normal clips of a domain" if score is None or np.isnan(score) else None
    return [] if score is None else [f"official score: {known or f'{100 * score:.3f} %'}"]


# ---- one system ----


def result_text(result: Result, *, max_fpr: float) -> str:
    """Name, numbers of clips, and the figures of every machine ID."""
    n_clips = sum(len(clips.names) for clips in result.scores.values())
    parts = [f"{result.name}: {len(result.scores)} machine IDs, {n_clips} clips"]
    if result.performance:
        published = official_figures(result.scores, max_fpr=max_fpr, year=result.year)
        parts.append(detail_text(result.performance, published, result.rule))
        parts += score_line(result.rule, result.performance)
    parts += notes(result)
    if result.decisions:
        rows = [[name, *map(percentages, zip(of_one))] for name, of_one in decision_lines(result.decisions).items()]
        parts.append("\n" + as_text(Table(["decisions", *DECISION_COLUMNS], rows)))
    return "\n".join(parts)


def summary_text(performance: Performance, published: Published | None = None, rule: Rule = IDS) -> str:
    """Machine type, AUC, pAUC [%] or the rule's; published figures and the differences beside them where given.

    ``published`` is what ``official_figures`` gives for the scored clips, so that only equals stand side by side.
    """
    ours = {machine_type: rule.average(ids) for machine_type, ids in performance.items()}
    known = published.machine_types if published else {}
    theirs = {machine_type: known[machine_type] for machine_type in ours if machine_type in known}
    if len(ours) > 1:
        ours["mean"] = rule.overall(performance)
        if len(theirs) == len(performance):
            theirs["mean"] = tuple(100 * rule.mean(np.array(list(theirs.values())) / 100))
    table = _beside("machine type", ours, theirs, published, rule)
    return "\n".join([table, *score_line(rule, performance)])


def detail_text(performance: Performance, published: Published | None = None, rule: Rule = IDS) -> str:
    """As ``summary_text``, with a line per machine ID."""
    lines = machine_lines(performance, rule.average, rule.mean_name)
    if rule.harmonic and len(performance) > 1:
        lines["mean"] = rule.overall(performance)
    return _beside("machine", lines, published_lines(published, rule), published, rule)


def published_lines(published: Published | None, rule: Rule = IDS) -> dict[str, Sequence[float]]:
    """Published AUC and pAUC [%] of each machine ID and type's average."""
    of_types = published.machine_types.items() if published else ()
    lines = {f"{machine_type} {rule.mean_name}": pair for machine_type, pair in of_types}
    of_ids = published.machine_ids.items() if published else ()
    return lines | {f"{machine_type} {name}": pair for machine_type, ids in of_ids for name, pair in ids.items()}


def _beside(first: str, ours: Mapping, theirs: Mapping, published: Published | None, rule: Rule) -> str:
    """Table of our AUC and pAUC, and of published ones in % where there are any."""
    head = [first, *(f"{name} [%]" for name in rule.names)]
    rows = [[name, *(percentages([figure]) for figure in figures)] for name, figures in ours.items()]
    if not published:
        return as_text(Table(head, rows))
    for row, (name, figures) in zip(rows, ours.items(), strict=True):
        if name in theirs:
            row.append(" / ".join(f"{figure:.2f}" for figure in theirs[name]))
            row.append(" / ".join(f"{100 * a - b:+.2f}" for a, b in zip(figures, theirs[name], strict=True)))
        else:
            row += ["-", "-"]
    table = as_text(Table([*head, "published", "difference"], rows))
    return f"{table}\npublished: {published.name}, {published.source}"


def notes(result: Result) -> list[str]:
    """A line for each machine ID that gives no AUC, or has clips that have no part in it."""
    lines = []
    for key, figures in result.undefined.items():
        lines.append(f"not defined: {' '.join(key)}: {', '.join(figures)}: no normal clips of this domain are known")
    for key, clips in result.scores.items():
        unlabelled = [name for name, label in zip(clips.names, clips.labels, strict=True) if label < 0]
        if key in result.unrated:
            kinds = {0: "normal clips", 1: "anomalous clips", -1: "clips without a label"}
            counts = [f"{n} {kind}" for label, kind in kinds.items() if (n := np.count_nonzero(clips.labels == label))]
            called = "" if clips.decisions is None else f"; {int(clips.decisions.sum())} called anomalous"
            lines.append(f"no AUC: {' '.join(key)}: {' and '.join(counts)}{called}")
        elif unlabelled:
            left_out = f"{len(unlabelled)} clips without a label are left out: {some(unlabelled)}"
            lines.append(f"{' '.join(key)}: {left_out}")
    return lines


def decision_lines(figures: Mapping[str, Mapping[str, Decisions]]) -> dict[str, Decisions]:
    """Machine -> figures of its decisions, with a line for each type's average and one for their mean."""
    lines = machine_lines(figures, lambda ids: decision_averages(ids.values()))
    if len(figures) > 1:
        lines["mean"] = decision_averages(of_one for name, of_one in lines.items() if name.endswith(" Average"))
    return lines


# ---- systems side by side ----


def systems_table(results: Sequence[Result], published: Sequence[Published] = ()) -> Table | None:
    """A line per system: AUC / pAUC [%] per machine type and their means; below ours, published ones.

    The mean of the types' harmonic means is that of all sections where each type has as many of them.
    """
    types, rule = machine_types([result.performance for result in results]), results[0].rule
    lines = [
        (result.name, {t: 100 * np.array(rule.average(ids)) for t, ids in result.performance.items()}, None, None)
        for result in results
    ]
    lines += [
        (f"* {e.name}", e.machine_types, e.mean, e.official_score if rule.harmonic else e.mean_of_both)
        for e in published
    ]
    rows = []
    for name, of_type, mean, of_all in lines:
        pairs = [of_type.get(machine_type) for machine_type in types]
        if len(types) > 1:
            if all(pair is not None for pair in pairs):
                mean = 100 * rule.mean(np.array(pairs) / 100)
            pairs.append(mean)
        rows.append([name, *("-" if pair is None else percentages(np.array(pair) / 100) for pair in pairs)])
        if len(types) > 1:
            of_all = of_all if mean is None else 100 * float(rule.mean(np.array(mean) / 100))
            rows[-1].append("-" if of_all is None else percentages([of_all / 100]))
    last = OFFICIAL_SCORE if rule.harmonic else "mean of both"
    head = [f"{'/'.join(rule.names)} [%]", *types, *["mean", last] * (len(types) > 1)]
    return Table(head, rows) if types else None


def systems_text(results: Sequence[Result], *, max_fpr: float) -> str:
    """Both tables of systems, each with an empty line before it."""
    published = comparable_figures([result.scores for result in results], max_fpr=max_fpr, year=results[0].year)
    note = f"* published; sources in years/{results[0].year.year}.yaml\n" * bool(published)
    tables = (systems_table(results, published), note), (decisions_table(results), "")
    return "".join(f"\n{as_text(table)}\n{below}" for table, below in tables if table)


def decisions_table(results: Sequence[Result]) -> Table | None:
    """A line per system: F1 and false-alarm rate [%] per machine type and their means."""
    types = machine_types([result.decisions for result in results])
    rows = []
    for result in results:
        of_type = {t: decision_averages(ids.values()) for t, ids in result.decisions.items()}
        figures = [of_type.get(machine_type) for machine_type in types]
        if len(types) > 1:
            figures.append(decision_averages(figures) if None not in figures else None)
        rows.append([result.name, *(percentages(of_one and of_one[2:]) for of_one in figures)])
    return Table(["F1/false alarms [%]", *types, *["mean"] * (len(types) > 1)], rows) if types else None


def side_by_side(
    first: str, columns: Mapping[str, Mapping[str, Sequence[float]]], *, best: bool = False
) -> Table | None:
    """A line per machine, a column per system; the ``best`` figures of each line are marked."""
    by_length = sorted(columns.values(), key=len, reverse=True)  # a machine ID that one lacks stays in its place
    rows = []
    for name in dict.fromkeys(name for lines in by_length for name in lines):
        systems = [[percentages([value]) for value in lines.get(name, ())] for lines in columns.values()]
        known = [[float(text) for text in cells] for cells in systems if cells] if best else []
        if len(known) > 1:
            top = np.max(known, axis=0)
            systems = [[c + "*" * int(float(c) == t) for c, t in zip(cells, top, strict=False)] for cells in systems]
        rows.append([name, *(" / ".join(cells) or "-" for cells in systems)])
    return Table([first, *columns], rows) if rows else None


def ranking_table(ranking: Sequence[Ranked]) -> Table | None:
    """A line per system: place, mean rank, ranks by AUC / pAUC per machine type, mean AUC and pAUC."""
    if not ranking:
        return None
    types = list(ranking[0].ranks)
    if not types:
        rows = [[e.name, str(e.place), percentages([e.official_score]), percentages(e.mean)] for e in ranking]
        return Table(["system", "place", f"{OFFICIAL_SCORE} [%]", "means [%]"], rows)
    rows = []
    for entry in ranking:
        ranks = ["{}/{}".format(*entry.ranks[machine_type]) for machine_type in types]
        rows.append([entry.name, str(entry.place), f"{entry.mean_rank:.2f}", *ranks, percentages(entry.mean)])
    return Table(["system", "place", "mean rank", *types, "mean AUC/pAUC [%]"], rows)


# ---- one system against another ----


def differences_table(comparison: Comparison) -> Table:
    """AUC and pAUC [%] of both systems, differences in points with their intervals."""
    rows = []
    for line in comparison.differences:
        if line.name == OFFICIAL_SCORE:
            continue
        row = [line.name]
        for a, b, (low, high) in zip(line.a, line.b, 100 * line.interval.T, strict=True):
            mark = "*" if low > 0 or high < 0 else " "
            row += [f"{100 * a:.2f}", f"{100 * b:.2f}", f"{100 * a - 100 * b:+.2f}"]
            row.append(f"[{low:+.2f}, {high:+.2f}]{mark}")
        rows.append(row)
    columns = ["a", "b", "a - b", f"{CONFIDENCE:.0%} interval "]
    return Table(["", *(f"{metric} {column}" for metric in comparison.columns for column in columns)], rows)


def official_difference(comparison: Comparison) -> str:
    """A line on the official scores, "" where there are none."""
    for name, (a, *_), (b, *_), ends in comparison.differences:
        if name == OFFICIAL_SCORE:
            low, high = 100 * ends[:, 0]
            mark = "*" * int(low > 0 or high < 0)
            return (
                f"{name}: a {100 * a:.2f}, b {100 * b:.2f}, a - b {100 * a - 100 * b:+.2f} "
                f"[{low:+.2f}, {high:+.2f}]{mark}\n"
            )
    return ""


def scores_table(comparison: Comparison) -> Table:
    """How far the scores agree."""
    rows = []
    for line in comparison.score_differences:
        correlation = "-" if line.correlation is None else f"{line.correlation:.4f}"
        scores = f"{line.a - line.b:+.6g}", f"{line.a:.6g}", f"{line.b:.6g}"
        rows.append([line.name, correlation, *scores, line.clip])
    return Table(["", "rank correlation", "largest a - b", "score a", "score b", "clip"], rows)


def comparison_text(comparison: Comparison) -> str:
    """Differences in points [%] with their intervals, then the scores' agreement."""
    return (
        f"a: {comparison.a}\nb: {comparison.b}\n\n{as_text(differences_table(comparison))}\n"
        f"{official_difference(comparison)}"
        "AUC and pAUC in %. * The interval (paired, stratified bootstrap over clips) leaves out 0.\n\n"
        f"{as_text(scores_table(comparison))}"
    )
