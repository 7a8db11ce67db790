"""One HTML file about evaluated systems: tables and figures, all of it inside, to be read without a network."""

import base64
import re
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import common
from evaluation import figures, tables
from evaluation.comparison import Comparison
from evaluation.folders import Result
from evaluation.metrics import averages
from evaluation.published import Published, official_dataset
from evaluation.ranking import Ranked
from evaluation.tables import Table
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
MARKED = re.compile(r"(?<!\S)(\[[^]]*\]|[\d.]+)\*(?=$| )")  # figures with a star behind them
DATASETS = {"dev": "development", "eval": "evaluation"}


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
    published = tables.published_beside(results, max_fpr=max_fpr)
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
    published: Sequence[Published],
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
    anchors = {title: title.lower().replace(" ", "-") for title, body in sections.items() if body}
    links = "".join(f'<a href="#{anchor}">{title}</a>' for title, anchor in anchors.items())
    bodies = "\n".join(f'<h2 id="{anchor}">{title}</h2>\n{sections[title]}' for title, anchor in anchors.items())
    title = escape(f"Evaluation of {results[0].name if len(results) == 1 else f'{len(results)} systems'}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{_introduction(results, max_fpr)}\n<nav>{links}</nav>\n{bodies}\n</body>\n</html>\n"
    )


def _introduction(results: Sequence[Result], max_fpr: float) -> str:
    """What was scored, what the figures are."""
    n_clips = [sum(len(clips.names) for clips in result.scores.values()) for result in results]
    counts = str(n_clips[0]) if len(set(n_clips)) == 1 else f"{min(n_clips)} to {max(n_clips)}"
    datasets = {official_dataset(result.scores) for result in results}
    origin = (
        "Their numbers per machine ID and label are not those of the official test clips of DCASE 2020 Challenge "
        "Task 2 (they are synthetic, a selection, or of other machines): the figures cannot be compared with "
        "published ones."
    )
    if len(datasets) == 1 and None not in datasets:
        origin = (
            "Their numbers per machine ID and label are those of the official test clips of the "
            f"{DATASETS[datasets.pop()]} dataset of DCASE 2020 Challenge Task 2."
        )
    about = (
        "AUC: area under the ROC curve. pAUC: its part up to a false positive rate of "
        f"{100 * max_fpr:g} %, McClish-standardised. 50 % is chance for both."
    )
    return f"<p>{counts} test clips. {origin}</p>{_note(about)}"


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _table(table: Table) -> str:
    """HTML of a table; what has a star is in colour."""
    head = "".join(f"<th>{_name(cell)}</th>" for cell in table.head)
    lines = []
    for name, *cells in table.rows:
        kind = "published" if name.startswith("* ") else "average" if f" {name}".endswith((" Average", " mean")) else ""
        cells = "".join(f"<td>{cell}</td>" for cell in [_name(name), *map(_value, cells)])
        lines.append(f'<tr class="{kind}">{cells}</tr>\n')
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _name(text: str) -> str:
    """Escaped name that may be broken after slashes and underscores."""
    return escape(text).replace("/", "/<wbr>").replace("_", "_<wbr>")


def _value(text: str) -> str:
    """Escaped figures, those with a star in colour; minus signs are as wide as a plus."""
    text = MARKED.sub(r"<b>\1</b>", escape(text.strip()))
    return "–" if text == "-" else re.sub(r"(?<![^\s\[>])-(?=\d)", "−", text)


def _figure(file: figures.FigureFile) -> str:
    """The image itself, inside the page."""
    image = base64.b64encode(file.path.read_bytes()).decode("ascii")
    caption = escape(file.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{image}">\n'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _systems_section(
    results: Sequence[Result], published: Sequence[Published], bars: Sequence[figures.FigureFile]
) -> str:
    """Averages per machine type, published ones too, and the bars."""
    table = tables.systems_table(results, published)
    if not table:
        return ""
    sources = "".join(f"<br>{escape(entry.name)}: {escape(entry.source)}." for entry in published)
    note = _note(f"* Published figures.{sources}") if published else ""
    return f'<div class="systems">{_table(table)}</div>{note}{"".join(map(_figure, bars))}'


def _ranking_section(ranking: Sequence[Ranked]) -> str:
    """The challenge's ranking."""
    note = "Mean of the ranks by AUC / pAUC over the machine types, as in the challenge; a tie goes to the higher mean "
    return _table(tables.ranking_table(ranking)) + _note(f"{note}pAUC.") if ranking else ""


def _ids_section(results: Sequence[Result], published: Published | None) -> str:
    """AUC and pAUC of every machine ID, systems side by side, and which have none."""
    unrated = dict.fromkeys(line for result in results for line in tables.unrated_lines(result))
    note = _note(f"No AUC: {'<br>'.join(map(escape, unrated))}.") if unrated else ""
    columns = {result.name: tables.machine_lines(result.performance, averages) for result in results}
    table = tables.side_by_side("AUC / pAUC [%]", columns, best=True)
    if published:
        theirs = tables.published_lines(published)
        beside = ["{:.2f} / {:.2f}".format(*theirs[name]) if name in theirs else "-" for name, *_ in table.rows]
        rows = [[*row, cell] for row, cell in zip(table.rows, beside, strict=True)]
        table = Table([*table.head, f"{published.name} *"], rows)
    if len(results) > 1:
        note += _note("The best of our figures in each line are in colour.")
    return _table(table) + note if table.rows else note


def _decisions_section(results: Sequence[Result]) -> str:
    """Precision, recall, F1 and false-alarm rate of every machine ID, systems side by side."""
    columns = {result.name: tables.decision_lines(result.decisions) for result in results}
    first = " / ".join(column.removesuffix(" [%]") for column in tables.DECISION_COLUMNS)
    table = tables.side_by_side(f"{first} [%]", columns)
    note = (
        "Of the decisions at the threshold that follows from the scores of the training clips. Averages are over what "
        "is known: without anomalies there is no recall, without normal clips no false alarm."
    )
    return _table(table) + _note(note) if table.rows else ""


def _comparison_section(entry: Comparison) -> str:
    """One result against another: averages in sight, machine IDs and scores folded."""
    head, rows = tables.differences_table(entry)
    averages_of = [row for row in rows if row[0] == "mean" or row[0].endswith(" Average")]
    ids = [row for row in rows if row not in averages_of]
    note = (
        "AUC and pAUC in %; intervals in colour (paired, stratified bootstrap over the clips) are those that leave "
        "out 0."
    )
    folds = {"Machine IDs": Table(head, ids), "Scores": tables.scores_table(entry)}
    return (
        f"<h3>a: {escape(entry.a)}, b: {escape(entry.b)}</h3>\n{_table(Table(head, averages_of))}{_note(note)}"
        + "".join(f"<details><summary>{title}</summary>{_table(of)}</details>\n" for title, of in folds.items())
    )


def _scores_section(files: Sequence[figures.FigureFile]) -> str:
    """Histograms, a fold per system."""
    folds = "".join(
        f"<details><summary>{escape(system)}</summary>{''.join(map(_figure, of_system))}</details>\n"
        for system, of_system in groupby(files, key=lambda file: file.about)
    )
    note = (
        "Share of the normal and of the anomalous clips per score; the outermost bins also hold the 0.5 % beyond them "
    )
    return _note(f"{note}on each side.") + folds
