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
from evaluation.published import Published, comparable_figures, official_dataset
from evaluation.ranking import Ranked
from evaluation.tables import Table
from storage.files import write_text

STYLE_FILE = Path(__file__).with_name("report.css")
MARKED = re.compile(r"(?<!\S)(\[[^]]*\]|[\d.]+)\*(?=$| )")  # figures with a star behind them
RANKING_NOTE = (
    "Mean of the ranks by AUC / pAUC over the machine types, as in the challenge; a tie: the higher mean pAUC."
)
SCORE_NOTE = "By the official score, the harmonic mean of all figures."
DECISIONS_NOTE = "Of the decisions at the thresholds of 01_test.py. Averages are over what is known."
DIFFERENCES_NOTE = (
    "AUC and pAUC in %. Intervals (paired, stratified bootstrap over the clips) that leave out 0 are coloured."
)
DOMAINS_NOTE = (
    " AUC source and target: the normal clips of that domain against the anomalies of both; their means are harmonic."
)
SCORES_NOTE = "Share of the clips of each kind per score; the outermost bins also hold the 0.5 % beyond them."
CLIPS = "By their numbers they are {} of DCASE {{year}} Challenge Task 2"
DATASETS = {
    "dev": CLIPS.format("the official test clips of the development dataset") + ".",
    "eval": CLIPS.format("the official test clips of the evaluation dataset") + ".",
    None: CLIPS.format("not those of the official test clips") + ": published figures cannot be compared.",
}


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
    """Draw all figures and write the report with them; UserError if they cannot be written."""
    published = comparable_figures([result.scores for result in results], max_fpr=max_fpr, year=results[0].year)
    official = published[0] if published else None
    try:
        files = figures.write_figures(figure_folder(path), results, max_fpr=max_fpr, published=official)
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
    images = {kind: [file for file in files if file.kind == kind] for kind in ("bars", "roc", "scores")}
    sections = {
        "Machine types": _systems_section(results, published) + "".join(map(_figure, images["bars"])),
        "Ranking": _section(tables.ranking_table(ranking), SCORE_NOTE if results[0].rule.harmonic else RANKING_NOTE),
        "Machine IDs": _ids_section(results, published),
        "Decisions": _section(_decisions(results), DECISIONS_NOTE),
        "Differences": "".join(map(_comparison_section, comparisons)),
        "ROC curves": "".join(map(_figure, images["roc"])),
        "Scores": _note(SCORES_NOTE) + _folded(images["scores"]),
    }
    anchors = {title: title.lower().replace(" ", "-") for title, body in sections.items() if body}
    links = "".join(f'<a href="#{anchor}">{title}</a>' for title, anchor in anchors.items())
    bodies = "\n".join(f'<h2 id="{anchor}">{title}</h2>\n{sections[title]}' for title, anchor in anchors.items())
    title = escape(f"Evaluation of {results[0].name if len(results) == 1 else f'{len(results)} systems'}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE_FILE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{_introduction(results, max_fpr)}\n<nav>{links}</nav>\n{bodies}\n</body>\n</html>\n"
    )


def _introduction(results: Sequence[Result], max_fpr: float) -> str:
    """What was scored, what the figures are."""
    n_clips = [sum(len(clips.names) for clips in result.scores.values()) for result in results]
    counts = str(n_clips[0]) if len(set(n_clips)) == 1 else f"{min(n_clips)} to {max(n_clips)}"
    year = results[0].year
    datasets = {official_dataset(result.scores, year) for result in results}
    dataset = DATASETS[datasets.pop() if len(datasets) == 1 else None].format(year=year.year)
    about = (
        "AUC: area under the ROC curve. pAUC: its part up to a false positive rate of "
        f"{100 * max_fpr:g} %, McClish-standardised. 50 % is chance for both."
    )
    return f"<p>{counts} test clips. {dataset}</p>{_note(about + DOMAINS_NOTE * results[0].rule.apart)}"


def _section(table: Table | None, note: str) -> str:
    return (_table(table) + (_note(note) if note else "")) if table else ""


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _table(table: Table) -> str:
    """HTML of a table; what has a star is in colour."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    lines = []
    for name, *cells in table.rows:
        kind = "published" if name.startswith("* ") else "average" * _is_average(name)
        cells = "".join(f"<td>{cell}</td>" for cell in [escape(name), *map(_value, cells)])
        lines.append(f'<tr class="{kind}">{cells}</tr>\n')
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


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


def _systems_section(results: Sequence[Result], published: Sequence[Published]) -> str:
    """Averages per machine type, published ones too."""
    sources = "".join(f"<br>{escape(entry.name)}: {escape(entry.source)}." for entry in published)
    section = _section(tables.systems_table(results, published), sources and f"* Published figures.{sources}")
    return section and f'<div class="systems">{section}</div>'


def _ids_section(results: Sequence[Result], published: Sequence[Published]) -> str:
    """AUC and pAUC of every machine ID, systems side by side, and which have none."""
    lines = dict.fromkeys(escape(line) for result in results for line in tables.notes(result))
    notes = ["<br>".join(lines)] if lines else []
    rule = results[0].rule
    columns = {r.name: tables.machine_lines(r.performance, rule.average, rule.mean_name) for r in results}
    table = tables.side_by_side(f"{' / '.join(rule.names)} [%]", columns, best=True)
    if table and published:
        theirs = tables.published_lines(published[0], rule)
        beside = [" / ".join(f"{x:.2f}" for x in theirs[name]) if name in theirs else "-" for name, *_ in table.rows]
        rows = [[*row, cell] for row, cell in zip(table.rows, beside, strict=True)]
        table = Table([*table.head, f"{published[0].name} *"], rows)
    if table and len(results) > 1:
        notes.append("The best of our figures in each line are in colour.")
    return (_table(table) if table else "") + "".join(map(_note, notes))


def _decisions(results: Sequence[Result]) -> Table | None:
    """Precision, recall, F1 and false-alarm rate of every machine ID, systems side by side."""
    columns = {result.name: tables.decision_lines(result.decisions) for result in results}
    first = " / ".join(column.removesuffix(" [%]") for column in tables.DECISION_COLUMNS)
    return tables.side_by_side(f"{first} [%]", columns)


def _comparison_section(entry: Comparison) -> str:
    """One result against another: averages in sight, machine IDs and scores folded."""
    head, rows = tables.differences_table(entry)
    means = [row for row in rows if _is_average(row[0])]
    folds = {
        "Machine IDs": Table(head, [row for row in rows if row not in means]),
        "Scores": tables.scores_table(entry),
    }
    note = escape(tables.official_difference(entry)) + DIFFERENCES_NOTE
    shown = f"<h3>a: {escape(entry.a)}, b: {escape(entry.b)}</h3>\n{_section(Table(head, means), note)}"
    return shown + "".join(_fold(title, _table(table)) for title, table in folds.items())


def _is_average(name: str) -> bool:
    return name == "mean" or name.endswith((" Average", " harmonic mean"))


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>\n"


def _folded(files: Sequence[figures.FigureFile]) -> str:
    """Figures, a fold per system."""
    systems = groupby(files, key=lambda file: file.about)
    return "".join(_fold(system, "".join(map(_figure, of_system))) for system, of_system in systems)
