"""One HTML file about evaluated systems: tables and figures, all of it inside, to be read without a network."""

import base64
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np

import common
from evaluation import comparison, figures, scoring
from evaluation.comparison import Comparison, Ranked, Result
from storage.files import write_text

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6470; --line: #d7dbe0; --paper: #fff; --band: #f4f6f8;
  --mark: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a3abb5; --line: #3a4048; --paper: #16181b;
  --band: #1f2328; --mark: #7db8f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; } h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p, figcaption { max-width: 60rem; } .note, figcaption { color: var(--soft); font-size: .875rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: .5rem 0; border-bottom: 1px solid var(--line); }
a { color: var(--mark); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { vertical-align: bottom; font-weight: 600; } thead th { border-bottom-width: 2px; }
th { white-space: normal; } th:first-child, td:first-child { text-align: left; }
.systems td:first-child { white-space: normal; min-width: 11rem; max-width: 17rem; }
tr.average td { background: var(--band); font-weight: 600; } tr.published td { color: var(--soft); }
td b { color: var(--mark); }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: .4rem; padding: .5rem; }
details { border-top: 1px solid var(--line); padding: .5rem 0; } summary { cursor: pointer; font-weight: 600; }
@media print { body { max-width: none; } figure, tr { break-inside: avoid; } }
"""


def figure_folder(report: Path) -> Path:
    """Folder of the report's figures, beside it."""
    return report.with_name(f"{report.stem}_figures")


def write_report(
    path: Path,
    results: Sequence[Result],
    comparisons: Sequence[Comparison] = (),
    ranking: Sequence[Ranked] = (),
    *,
    max_fpr: float,
) -> None:
    """Draw all figures and write the report with them.

    Raises
    ------
    UserError : if the report or its figures cannot be written.
    """
    published = comparison.published_beside(results, max_fpr=max_fpr)
    try:
        files = figures.write_figures(
            figure_folder(path), results, max_fpr=max_fpr, published=published[0] if published else None
        )
        write_text(path, report_html(results, comparisons, ranking, files, published, max_fpr=max_fpr))
    except OSError as error:
        raise common.UserError(f"--report {path}: cannot be written ({error})") from error


def report_html(
    results: Sequence[Result],
    comparisons: Sequence[Comparison],
    ranking: Sequence[Ranked],
    files: Sequence[figures.FigureFile],
    published: Sequence[scoring.Published],
    *,
    max_fpr: float,
) -> str:
    """The whole page."""
    of_kind = {kind: [file for file in files if file.kind == kind] for kind in ("bars", "roc", "scores")}
    sections = {
        "Machine types": _systems_section(results, published, of_kind["bars"]),
        "Ranking": _ranking_section(ranking),
        "Machine IDs": _ids_section(results, published[0] if published else None),
        "Decisions": _decisions_section(results),
        "Differences": "".join(map(_comparison_section, comparisons)),
        "ROC curves": "".join(map(_figure, of_kind["roc"])),
        "Scores": _scores_section(of_kind["scores"]),
    }
    sections = {title: body for title, body in sections.items() if body}
    anchor = {title: title.lower().replace(" ", "-") for title in sections}
    links = "".join(f'<a href="#{anchor[title]}">{title}</a>' for title in sections)
    bodies = "\n".join(f'<h2 id="{anchor[title]}">{title}</h2>\n{body}' for title, body in sections.items())
    title = f"Evaluation of {results[0].name if len(results) == 1 else f'{len(results)} systems'}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{_introduction(results, max_fpr)}\n<nav>{links}</nav>\n{bodies}\n"
        "</body>\n</html>\n"
    )


def _introduction(results: Sequence[Result], max_fpr: float) -> str:
    """What was scored, what the figures are."""
    n_clips = [sum(len(clips.names) for clips in result.scores.values()) for result in results]
    counts = str(n_clips[0]) if len(set(n_clips)) == 1 else f"{min(n_clips)} to {max(n_clips)}"
    datasets = {scoring.official_dataset(result.scores) for result in results}
    if len(datasets) == 1 and None not in datasets:
        dataset = {"dev": "development", "eval": "evaluation"}[datasets.pop()]
        origin = (
            "Their numbers per machine ID and label are those of the official test clips of the "
            f"{dataset} dataset of DCASE 2020 Challenge Task 2."
        )
    else:
        origin = (
            "Their numbers per machine ID and label are not those of the official test clips of DCASE 2020 Challenge "
            "Task 2 (they are synthetic, a selection, or of other machines): the figures cannot be compared with "
            "published ones."
        )
    return (
        f"<p>{counts} test clips. {origin}</p>"
        '<p class="note">AUC: area under the ROC curve. pAUC: its part up to a false positive rate of '
        f"{100 * max_fpr:g} %, McClish-standardised. 50 % is chance for both.</p>"
    )


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """HTML table; ``rows`` are (class, cells as HTML)."""
    head_cells = "".join(f"<th>{cell}</th>" for cell in head)
    lines = (f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n" for kind, cells in rows)
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{head_cells}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _name(text: str) -> str:
    """Escaped name that may be broken after slashes and underscores."""
    return escape(text).replace("/", "/<wbr>").replace("_", "_<wbr>")


def _pairs(pairs: Sequence[Sequence[float] | None]) -> list[str]:
    """AUC / pAUC in % of one line's systems; the best of each (as printed) in colour."""
    known = [np.round(pair, 2) for pair in pairs if pair is not None]
    best = np.max(known, axis=0) if len(known) > 1 else (None, None)
    cells = []
    for pair in pairs:
        figures_ = [] if pair is None else [(f"{value:.2f}", np.round(value, 2)) for value in pair]
        marked = [
            f"<b>{text}</b>" if value == top else text for (text, value), top in zip(figures_, best, strict=False)
        ]
        cells.append(" / ".join(marked) or "–")
    return cells


def _figure(file: figures.FigureFile) -> str:
    """The image itself, inside the page."""
    image = base64.b64encode(file.path.read_bytes()).decode("ascii")
    caption = escape(file.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{image}">\n'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _systems_section(
    results: Sequence[Result], published: Sequence[scoring.Published], bars: Sequence[figures.FigureFile]
) -> str:
    """Averages per machine type, published ones too, and the bars."""
    names = figures.machine_types(results)
    if not names:
        return ""
    rows = []
    for number, (name, pairs, mean, of_both) in enumerate(comparison.system_lines(results, published, names)):
        texts = ["–" if pair is None else "{:.2f} / {:.2f}".format(*pair) for pair in [*pairs, mean]]
        texts.append("–" if of_both is None else f"{of_both:.2f}")
        is_published = number >= len(results)
        rows.append(("published" * is_published, [_name(name + "\u00a0*" * is_published), *texts]))
    table = (
        f'<div class="systems">{_table(["AUC / pAUC [%]", *map(escape, names), "mean", "mean of both"], rows)}</div>'
    )
    sources = "".join(f"<br>{escape(entry.name)}: {escape(entry.source)}." for entry in published)
    note = f'<p class="note">* Published figures.{sources}</p>' if published else ""
    return table + note + "".join(map(_figure, bars))


def _ranking_section(ranking: Sequence[Ranked]) -> str:
    """The challenge's ranking."""
    if not ranking:
        return ""
    rows = [
        (
            "",
            [
                _name(r.name),
                str(r.place),
                f"{r.mean_rank:.2f}",
                *("{} / {}".format(*pair) for pair in r.ranks.values()),
            ],
        )
        for r in ranking
    ]
    table = _table(["system", "place", "mean rank", *map(escape, ranking[0].ranks)], rows)
    return (
        f'{table}<p class="note">Mean of the ranks by AUC / pAUC over the machine types, as in the challenge; a tie '
        "goes to the higher mean pAUC.</p>"
    )


def _ids_section(results: Sequence[Result], published: scoring.Published | None) -> str:
    """AUC and pAUC of every machine ID, systems side by side, and which have none."""
    unrated = dict.fromkeys(line for result in results for line in comparison.unrated_lines(result))
    rows = []
    for machine_type in figures.machine_types(results):
        of_type = [result.performance.get(machine_type, {}) for result in results]
        theirs = published.machine_ids.get(machine_type, {}) if published else {}
        for machine_id in dict.fromkeys(machine_id for ids in of_type for machine_id in ids):
            pairs = [100 * np.array(ids[machine_id]) if machine_id in ids else None for ids in of_type]
            rows.append(("", [f"{escape(machine_type)} {machine_id}", *_pairs(pairs)], theirs.get(machine_id)))
        pairs = [100 * np.array(scoring.averages(ids)) if ids else None for ids in of_type]
        average = published.machine_types[machine_type] if published else None
        rows.append(("average", [f"{escape(machine_type)} Average", *_pairs(pairs)], average))
    head = ["AUC / pAUC [%]", *(_name(result.name) for result in results)]
    note = f'<p class="note">No AUC: {"<br>".join(map(escape, unrated))}.</p>' if unrated else ""
    if not rows:
        return note
    note += '<p class="note">The best of our figures in each line are in colour.</p>' if len(results) > 1 else ""
    if not published:
        return _table(head, [(kind, cells) for kind, cells, _ in rows]) + note
    beside = ("–" if pair is None else "{:.2f} / {:.2f}".format(*pair) for _, _, pair in rows)
    head.append(f"{escape(published.name)}\u00a0*")
    return _table(head, [(kind, [*cells, text]) for (kind, cells, _), text in zip(rows, beside, strict=True)]) + note


def _decisions_section(results: Sequence[Result]) -> str:
    """Precision, recall, F1 and false-alarm rate of every machine ID, systems side by side."""
    of_systems = [dict(comparison.decision_lines(result.decisions)) for result in results]
    names = dict.fromkeys(name for of_system in of_systems for name in of_system)
    rows = []
    for name in names:
        cells = [
            " / ".join(map(comparison.percentage, of_system[name])) if name in of_system else "–"
            for of_system in of_systems
        ]
        kind = "average" if name == "mean" or name.endswith(" Average") else ""
        rows.append((kind, [escape(name), *(cell.replace("-", "–") for cell in cells)]))
    if not rows:
        return ""
    columns = " / ".join(column.removesuffix(" [%]") for column in comparison.DECISION_COLUMNS)
    return (
        _table([f"{columns} [%]", *(_name(result.name) for result in results)], rows)
        + '<p class="note">Of the decisions at the threshold that follows from the scores of the training clips. '
        "Averages are over what is known: without anomalies there is no recall, without normal clips no false "
        "alarm.</p>"
    )


def _comparison_section(entry: Comparison) -> str:
    """One result against another: averages in sight, machine IDs and scores folded."""
    columns = ("a", "b", "a − b", f"{comparison.CONFIDENCE:.0%} interval")
    head = ["", *(f"{metric} {column}" for metric in figures.METRICS for column in columns)]
    averages = [line for line in entry.differences if line.machine_id in ("Average", "")]
    ids = [line for line in entry.differences if line not in averages]
    scores = [
        [
            escape(f"{line.machine_type} {line.machine_id}"),
            "–" if line.correlation is None else f"{line.correlation:.4f}",
            *map(_minus, (f"{line.a - line.b:+.6g}", f"{line.a:.6g}", f"{line.b:.6g}")),
            escape(line.clip),
        ]
        for line in entry.score_differences
    ]
    score_head = ["", "rank correlation", "largest a − b", "score a", "score b", "clip"]
    return (
        f"<h3>a: {escape(entry.a)}, b: {escape(entry.b)}</h3>\n"
        + _table(head, [("", _difference_cells(line)) for line in averages])
        + '<p class="note">AUC and pAUC in %; differences in colour are those whose interval (paired, stratified '
        "bootstrap over the clips) leaves out 0.</p>\n<details><summary>Machine IDs</summary>"
        + _table(head, [("", _difference_cells(line)) for line in ids])
        + "</details>\n<details><summary>Scores</summary>"
        + _table(score_head, [("", cells) for cells in scores])
        + "</details>\n"
    )


def _difference_cells(line: comparison.Difference) -> list[str]:
    """Cells of a machine ID or an average: AUC and pAUC in both results, their difference and its interval."""
    cells = [escape(f"{line.machine_type} {line.machine_id}".rstrip())]
    for column in (0, 1):
        a, b = 100 * line.a[column], 100 * line.b[column]
        low, high = 100 * line.interval[:, column]
        difference = _minus(f"{a - b:+.2f}")
        marked = f"<b>{difference}</b>" if low > 0 or high < 0 else difference
        cells += [f"{a:.2f}", f"{b:.2f}", marked, _minus(f"{low:+.2f} to {high:+.2f}")]
    return cells


def _minus(text: str) -> str:
    """Hyphens as minus signs, which are as wide as a plus."""
    return text.replace("-", "−")


def _scores_section(files: Sequence[figures.FigureFile]) -> str:
    """Histograms, a fold per system."""
    folds = "".join(
        f"<details><summary>{escape(system)}</summary>{''.join(map(_figure, of_system))}</details>\n"
        for system, of_system in groupby(files, key=lambda file: file.about)
    )
    return (
        '<p class="note">Share of the normal and of the anomalous clips per score; the outermost bins also hold the '
        f"0.5 % beyond them on each side.</p>{folds}"
    )
