"""Figures of evaluated systems as PNG: AUC and pAUC bars, ROC curves, score histograms."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation.folders import Result
from evaluation.metrics import Performance
from evaluation.published import Published
from evaluation.rules import IDS, Rule
from evaluation.tables import machine_types
from storage.files import write_whole

logger = logging.getLogger(__name__)

# Figures 1 and 2 of Wei & Liu (2020) are of the first group, 3 and 4 of the second.
REPORT_GROUPS = (("baseline_ae", "tuned_ae"), ("baseline_ae", "tuned_ae", "l2_softmax"))
# Okabe and Ito's colours, told apart by colour-blind readers too; hatches tell apart bars that repeat one. Of equal
# curves the upper one has gaps.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
LINE_STYLES = ("-", "--", ":", "-.")
HATCHES = ("", "///", "...", "xx")
DPI = 120
MAX_COLUMNS = 4  # machine IDs side by side
HISTOGRAMS = ((0, "normal", COLOURS[0]), (1, "anomalous", COLOURS[5]), (-1, "without a label", "0.4"))
LEGEND_SIZE = 9  # of a legend's text [pt]
LEGEND_GAPS = 5 * LEGEND_SIZE  # for a column's handle and the space around it [pt]
LEGEND_ROW = 0.22  # height of a row of a legend [inch]
LARGEST_SCORE = 1e300  # of a histogram; with larger ones the width of its range would not be a number
CHANCE, PAUC_RANGE = "chance", "pAUC range"


class FigureFile(NamedTuple):
    """A figure on disk."""

    path: Path
    caption: str
    kind: str  # "bars", "roc" or "scores"
    about: str  # group of systems, machine type, system


def write_figures(
    folder: Path, results: Sequence[Result], *, max_fpr: float, published: Published | None
) -> list[FigureFile]:
    """Draw and write all figures of the results; their files in the order of a report."""
    logger.info("drawing the figures into %s", folder)
    performances = {result.name: result.performance for result in results}
    rule, drawn = results[0].rule, []
    for group in bar_groups([name for name, performance in performances.items() if performance]):
        for metric, name in enumerate(rule.names):
            figure = bar_figure(performances, group, metric, published=published, rule=rule)
            mean = "harmonic mean of the sections" if rule.harmonic else "averaged over machine IDs"
            caption, stem = f"{name} per machine type, {mean}", f"{name.replace(' ', '_')}_all_systems"
            if group in REPORT_GROUPS and rule is IDS:
                caption += f" (as Figure {1 + 2 * REPORT_GROUPS.index(group) + metric} of Wei and Liu, 2020)"
                stem = f"{name}_{'_'.join(group)}"
            drawn.append((figure, stem, caption, "bars", ", ".join(group)))
    for machine_type in machine_types(list(performances.values())):
        caption = f"ROC curves, {machine_type}; pAUC range: false positive rate up to {100 * max_fpr:g} %"
        drawn.append((roc_figure(results, machine_type, max_fpr=max_fpr), f"ROC_{machine_type}", caption, "roc", ""))
    for result in results:
        for machine_type in dict.fromkeys(machine_type for machine_type, _ in result.scores):
            figure = score_figure(result, machine_type)
            caption = f"{result.name}, {machine_type}"
            drawn.append((figure, f"scores_{result.name}_{machine_type}", caption, "scores", result.name))
    return [
        FigureFile(save(figure, folder / f"{stem.replace('/', '_')}.png"), *facts) for figure, stem, *facts in drawn
    ]


def save(figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; its path."""
    with write_whole(path) as beside:
        figure.savefig(beside, dpi=DPI)
    return path


def drawable(text: str) -> str:
    """The text as matplotlib is to be given it: names of files and folders may hold anything.

    Characters that its font lacks become code points (U+88C5), dollars do not begin a formula, and a name that begins
    with an underscore is not left out of legends.
    """
    known = _own_characters()
    shown = "".join(c if ord(c) in known or c.isspace() else f"U+{ord(c):04X} " for c in text)
    return " " * shown.startswith("_") + shown.strip().replace("$", r"\$")


@functools.cache
def _own_characters() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    path = font_manager.findfont(font_manager.FontProperties())
    return frozenset(ft2font.FT2Font(path).get_charmap())


def bar_groups(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Systems that share a bar figure: all of them, then the report's groups, where all of one were run."""
    groups = [group for group in REPORT_GROUPS if set(group) <= set(names)]
    if names and not any(set(group) == set(names) for group in groups):
        groups.insert(0, tuple(names))
    return groups


def _style(index: int) -> tuple[str, int]:
    """Colour of the n-th system, and how often it came before."""
    return COLOURS[index % len(COLOURS)], index // len(COLOURS) % len(HATCHES)


def legend(figure, all_axes: Sequence) -> None:
    """One legend above the axes, systems first, in as many columns as there is room for."""
    from matplotlib.textpath import TextPath

    handles = {}
    for axes in all_axes:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    labels = sorted(handles, key=lambda label: label in (CHANCE, PAUC_RANGE))
    widest = max(TextPath((0, 0), label, LEGEND_SIZE).get_extents().width for label in labels) + LEGEND_GAPS
    columns = min(len(labels), max(1, int(72 * figure.get_figwidth() / widest)))
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(labels) // columns))
    options = {"loc": "outside upper center", "ncols": columns, "fontsize": LEGEND_SIZE, "frameon": False}
    figure.legend([handles[label] for label in labels], labels, **options)


def bar_figure(
    performances: dict[str, Performance],
    group: Sequence[str],
    metric: int,
    *,
    published: Published | None,
    rule: Rule = IDS,
):
    """Bars per machine type, one per system of ``group``; ``metric`` is the number of the rule's column.

    A system has the colour of its place in ``performances``, the same in all figures.
    """
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    names = list(dict.fromkeys(name for system in group for name in performances[system]))
    series = []  # (label, colour, hatch, machine type -> height)
    if published:
        known = published.machine_types
        heights = {name: known[name][metric] / 100 for name in names if name in known}
        series.append((f"{published.name}, published", "0.75", "", heights))
    for system in group:
        colour, repeat = _style(list(performances).index(system))
        heights = {name: rule.average(ids)[metric] for name, ids in performances[system].items()}
        series.append((system, colour, HATCHES[repeat], heights))

    figure = Figure(figsize=(max(8.5, 1.4 + 0.2 * len(names) * len(series)), 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.5, color="0.35", linestyle="--", linewidth=1, label=CHANCE, zorder=0)
    width = min(0.84 / len(series), 0.3)
    upright = len(series) > 2  # bars too narrow for their figures
    for index, (label, colour, hatch, heights) in enumerate(series):
        places = np.array([names.index(name) for name in heights]) + width * (index - (len(series) - 1) / 2)
        shown = drawable(label)
        bars = axes.bar(places, list(heights.values()), 0.92 * width, color=colour, hatch=hatch, label=shown)
        texts = [f"{100 * height:.1f}" for height in heights.values()]
        halo = [withStroke(linewidth=2.5, foreground="white")]  # the line of chance does not cross out the digits
        axes.bar_label(bars, texts, padding=2, fontsize=8, rotation=90 if upright else 0, path_effects=halo)
    axes.set(ylabel=f"{rule.names[metric]} [%]", ylim=(0, 1.14 if upright else 1.06), yticks=np.arange(0, 1.01, 0.1))
    _in_percent(axes.yaxis)
    axes.set_xticks(range(len(names)), [drawable(name) for name in names])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    legend(figure, [axes])
    return figure


def _in_percent(axis) -> None:
    """Let an axis from 0 to 1 read in %, as the tables do."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))


def id_axes(machine_ids: Sequence[str], *, row_height: float, **options):
    """Figure with one axes per machine ID."""
    from matplotlib.figure import Figure

    columns = min(len(machine_ids), MAX_COLUMNS)
    rows = -(-len(machine_ids) // columns)
    figure = Figure(figsize=(max(4.4, 2.9 * columns), row_height * rows + 0.4), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # [inch]; labels do not touch the edge
    all_axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axes in all_axes[len(machine_ids) :]:
        axes.set_axis_off()
    for axes, machine_id in zip(all_axes, machine_ids, strict=False):
        axes.set_title(drawable(machine_id), fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, all_axes[: len(machine_ids)]


def roc_figure(results: Sequence[Result], machine_type: str, *, max_fpr: float):
    """ROC curves of all systems, one axes per machine ID, the pAUC range shaded."""
    from sklearn.metrics import roc_curve

    views = {result.name: _views(result, machine_type, all_anomalies=True) for result in results}
    titles = list(dict.fromkeys(title for of_result in views.values() for title in of_result))
    figure, all_axes = id_axes(titles, row_height=3.1)
    for axes, title in zip(all_axes, titles, strict=True):
        axes.axvspan(0, max_fpr, color="0.88", label=PAUC_RANGE, zorder=0)
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=(0, (1, 2)), label=CHANCE)
        for index, (name, of_result) in enumerate(views.items()):
            if title in of_result:
                labels, scores = of_result[title]
                curve = roc_curve(labels[labels >= 0], scores[labels >= 0])[:2]
                style = {"color": _style(index)[0], "linestyle": LINE_STYLES[index % len(LINE_STYLES)]}
                later = (len(views) - 1 - index) // len(LINE_STYLES)  # curves of that style, drawn above it
                axes.plot(*curve, label=drawable(name), linewidth=1.6 + 1.6 * later, **style)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), box_aspect=1, xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xlabel("false positive rate [%]")
        _in_percent(axes.xaxis)
        _in_percent(axes.yaxis)
    all_axes[0].set_ylabel("true positive rate [%]")
    legend(figure, all_axes)
    return figure


def _views(result: Result, machine_type: str, *, all_anomalies: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Title -> labels and scores of what has axes of its own: a machine ID, or a section's clips of a domain.

    Parameters
    ----------
    all_anomalies : for ROC curves: those of both domains count in each, and what has no figure is left out
    """
    rated, views = result.performance.get(machine_type, ()), {}
    for (name, unit), clips in result.scores.items():
        if name != machine_type or (all_anomalies and unit not in rated):
            continue
        if not result.rule.apart or clips.domains is None or (clips.domains < 0).any():
            views[unit] = clips.labels, clips.scores
            continue
        for number, domain in enumerate(result.year.domains):
            shown = (clips.domains == number) | (all_anomalies & (clips.labels == 1))
            if len(np.unique(clips.labels[shown])) > all_anomalies:
                views[f"{unit} {domain}"] = clips.labels[shown], clips.scores[shown]
    return views


def score_figure(result: Result, machine_type: str, *, n_bins: int = 40):
    """Histograms of the scores of normal and anomalous clips, one axes per machine ID.

    The bins span the middle 99 % of the scores; the outermost two also hold what lies beyond.
    """
    views = _views(result, machine_type, all_anomalies=False)
    figure, all_axes = id_axes(list(views), row_height=2.3)
    for axes, (labels, scores) in zip(all_axes, views.values(), strict=True):
        scores = np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE)
        low, high = np.quantile(scores, [0.005, 0.995])
        inside = np.clip(scores, low, high)
        edges = np.histogram_bin_edges(inside, n_bins)
        for label, name, colour in HISTOGRAMS:
            of_label = inside[labels == label]
            if not len(of_label):
                continue
            share = np.full(len(of_label), 1 / len(of_label))
            axes.hist(of_label, edges, weights=share, color=colour, alpha=0.35)
            axes.hist(of_label, edges, weights=share, color=colour, histtype="step", linewidth=1.4, label=name)
        axes.set_xlabel("anomaly score")
        axes.locator_params(axis="x", nbins=4)
        axes.locator_params(axis="y", nbins=4)
        _in_percent(axes.yaxis)
    all_axes[0].set_ylabel("share of the clips [%]")
    legend(figure, all_axes)
    return figure
