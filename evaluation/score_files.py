"""The CSVs of a result folder: scores and decisions, written, read back and verified; result.csv."""

import codecs
import csv
import functools
import io
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import common
from audio.clips import parse_clip_name
from evaluation.metrics import Decisions, Key, LabelledScores, Performance, decision_averages
from evaluation.rules import IDS, Rule
from storage.files import write_text
from years.year import DEFAULT, ClipName, Year, read_year

SCORES, DECISIONS = "anomaly_score", "decision_result"  # kinds of CSVs: their names begin so
DECISION_COLUMNS = ("precision", "recall", "F1", "false alarm rate")
UTF16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE  # marks that a file in UTF-16 begins with
SEPARATOR = re.compile(r"\.wav\"? *([,;\t])(?!.*\.wav\"? *[,;\t])", re.IGNORECASE)  # what stands behind a clip's name
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.IGNORECASE)
ADVICE = "give the labels with --truth: eval_data_list.csv, or the folder of the official evaluator"
NAMES_SHOWN = 5  # clip names that one line of an error holds

logger = logging.getLogger(__name__)


class NoLabelsError(common.UserError):
    """The clips' names have no labels, and no ground truth gives them."""


def score_path(directory: Path, machine_type: str, unit: str, year: Year | None = None) -> Path:
    """Path of the score CSV of one machine ID, or other unit of the year, named as the challenge wants it."""
    return directory / (year or read_year(DEFAULT)).file_name(SCORES, machine_type, unit)


def files_of(directory: Path, kind: str, year: Year) -> dict[Key, Path]:
    """(machine type, unit) -> CSV of a kind in ``directory``, sorted; others are passed over.

    Raises
    ------
    UserError : naming two files of the same unit.
    """
    found: dict[Key, Path] = {}
    twice = []
    for path in sorted(directory.glob(f"{kind}_*.csv")):
        if (key := year.parse_file(path.name, kind)) and found.setdefault(key, path) != path:
            twice.append(f"{path.name} and {found[key].name}")
    if twice:
        raise common.fault_list(f"{directory}: files of the same clips", twice, "Keep one of each two.")
    return dict(sorted(found.items()))


def decision_result_name(result_file: str) -> str:
    """Name of the file beside result.csv that has the figures of the decisions."""
    return f"decision_{result_file}"


def score_files(directory: Path, year: Year | None = None) -> dict[Key, Path]:
    """(machine type, machine ID or other unit of the year) -> score CSV in ``directory``, sorted.

    Raises
    ------
    UserError : if there is no such folder, no score CSV in it, or one whose name is not of the official form.
    """
    if not directory.is_dir():
        raise common.UserError(f"{directory}: no such folder; expected one with score files of 01_test.py")
    year = year or read_year(DEFAULT)
    form = year.file_name(SCORES, "<machine type>", year.unit.format(id=year.names["id_form"], domain="<domain>"))
    names = sorted(path.name for path in directory.iterdir() if path.suffix.lower() == ".csv")  # pictures may be there
    paths = [directory / name for name in names if name.startswith(f"{SCORES}_")]
    misnamed = [str(path) for path in paths if not year.parse_file(path.name, SCORES)]
    if misnamed:
        raise common.fault_list(f"Files whose names are not of the form {form}", misnamed, "Rename or remove them.")
    if not paths:
        raise common.UserError(f"{directory}: no file {form}; run 01_test.py first")
    return files_of(directory, SCORES, year)


# ---- write ----


def csv_text(rows: Iterable[Sequence]) -> str:
    """CSV with LF as the official scripts write it; floats have the digits that give the same number again."""
    lines = []
    for row in rows:
        line = io.StringIO()
        csv.writer(line).writerow(row)  # quotes a cell with a carriage return, which it does not where lines end in LF
        lines.append(line.getvalue().removesuffix("\r\n"))
    return "".join(f"{line}\n" for line in lines)


def scores_text(names: Sequence[str], scores: Sequence[float]) -> str:
    """Content of a score CSV in the official format: no header, ``name,score``, full precision, LF.

    ValueError names the clips whose scores are not finite.
    """
    rows = [[name, float(score)] for name, score in zip(names, scores, strict=True)]
    bad = [f"{name} ({score})" for name, score in rows if not math.isfinite(score)]
    if bad:
        raise ValueError(f"{len(bad)} scores are not finite: {some(bad)}")
    return csv_text(rows)


def decisions_text(names: Sequence[str], decisions: Sequence[int]) -> str:
    """Content of a decision CSV, as the official baselines since 2021 have it: no header, ``name,0 or 1``, LF."""
    return csv_text([name, int(decision)] for name, decision in zip(names, decisions, strict=True))


def write_result(path: Path, performance: Performance, rule: Rule = IDS) -> None:
    """Write result.csv in the official format: per machine type a block of IDs, their average and a blank line."""
    _write_blocks(path, rule.names, performance, rule.average, rule.mean_name)


def write_decision_result(path: Path, figures: Mapping[str, Mapping[str, Decisions]]) -> None:
    """Write the figures of the decisions in the form of result.csv; what is not known stays empty."""
    _write_blocks(path, DECISION_COLUMNS, figures, lambda ids: decision_averages(ids.values()), "Average")


def _write_blocks(
    path: Path, columns: Sequence[str], figures: Mapping[str, Mapping], average: Callable, mean_name: str
) -> None:
    rows: list[list] = []
    for machine_type, ids in figures.items():
        first, prefix = ("section", "section_") if all(name.startswith("section_") for name in ids) else ("id", "id_")
        rows += [[machine_type], [first, *columns]]
        for name, values in [*ids.items(), (mean_name, average(ids))]:
            rows.append([name.removeprefix(prefix), *("" if math.isnan(value) else value for value in values)])
        rows.append([])
    write_text(path, csv_text(rows))


# ---- read ----


def csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of each row of a CSV file that may have been through a spreadsheet.

    Such a file may begin with a mark of its encoding (UTF-8 or UTF-16), have semicolons or tabs between its columns,
    empty cells behind the others, and empty rows.

    Raises
    ------
    UserError : if it cannot be read, or its numbers have decimal commas.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
        separator = SEPARATOR.search(text)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator[1] if separator else ","))
    except OSError as error:
        raise common.UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise common.UserError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from error
    for row in rows:
        while row and not row[-1].strip():
            row.pop()
        if DECIMAL_COMMA.fullmatch(number := ",".join(row[1:])):
            raise common.UserError(
                f"{path}: numbers with decimal commas, such as {number}; save it with decimal points, or score again"
            )
    return [(number, row) for number, row in enumerate(rows, 1) if row]


def _rows_of_clips(path: Path) -> list[tuple[int, list[str]]]:
    """As ``csv_rows``, without the folders before the clips' names."""
    return [(number, [re.split(r"[/\\]", row[0])[-1], *row[1:]]) for number, row in csv_rows(path)]


def parsed(
    rows: Iterable[tuple[int, list[str]]], parse: Callable[[list[str]], tuple[Any, Any]]
) -> tuple[dict, dict[Any, int], list[tuple[int, str]]]:
    """Rows whose first cell is a clip's name, by the (key, value) that ``parse`` makes of them or its ValueError.

    Returns
    -------
    key -> value; key, or name in a faulty row, -> its first row; number and fault of each faulty row
    """
    values: dict = {}
    first: dict[Any, int] = {}
    faults = []
    for number, row in rows:
        key = row[0] if row else ""
        try:
            key, value = parse(row)
            if key in first:
                raise ValueError(f"{row[0]} again, first in row {first[key]}")
            values[key] = value
        except ValueError as error:
            faults.append((number, str(error)))
        first.setdefault(key, number)
    return values, first, faults


def parsed_file(path: Path, parse: Callable, rows: Callable = csv_rows) -> tuple[dict, dict, list[str]]:
    """As ``parsed``, of a file that cannot be read too; the faults are lines that name it."""
    try:
        values, first, faults = parsed(rows(path), parse)
    except common.UserError as error:
        return {}, {}, [str(error)]
    lines = [f"{path}, row {number}: {text}" for number, text in faults]
    return values, first, lines or ([] if first else [f"{path}: no rows"])


def parse_score_row(
    row: Sequence[str],
    *,
    unit: str | None,
    kind: str = SCORES,
    any_names: bool = False,
    year: Year | None = None,
) -> tuple[str, float]:
    """Clip name and value of a row of a unit's score file; ValueError says what is wrong with it."""
    if len(row) != 2:
        raise ValueError(f"{len(row)} columns; expected two: file name,score")
    name, text = row
    if not any_names:
        year = year or read_year(DEFAULT)
        try:
            said = parse_clip_name(name, year)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
        if unit and (own := year.unit_of(said.machine_id, said.domain)) != unit:
            raise ValueError(f"{name} is a clip of {own}; the file is of {unit}")
    try:
        return name, (binary if kind == DECISIONS else _score)(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _score(text: str) -> float:
    """Finite number; not what Python alone takes for one, such as 1_000 or digits of other scripts."""
    try:
        if "_" in text or not text.isascii():
            raise ValueError(text)
        score = float(text)
    except ValueError as error:
        raise ValueError(f"score {text!r} is not a number") from error
    if not math.isfinite(score):
        raise ValueError(f"score {text} is not finite")
    return score


def binary(text: str) -> int:
    """0 or 1, also where they are written as 0.0 or 1.0."""
    if text.strip() not in ("0", "1", "0.0", "1.0"):
        raise ValueError(f"{text!r}; expected 0 or 1")
    return int(float(text))


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def said_by(name: str, *, any_names: bool, year: Year) -> ClipName:
    """What a clip's name says; with ``any_names``, nothing but the label, by the folder before a slash."""
    return ClipName("") if any_names and "/" not in name else parse_clip_name(name, year)


# ---- whole folders ----


def read_folder(
    directory: Path,
    truth: Mapping[Key, Mapping[str, ClipName]] | None = None,
    *,
    year: Year | None = None,
    machine_types: Collection[str] | None = None,
    any_names: bool = False,
    unlabelled: bool = False,
) -> dict[Key, LabelledScores]:
    """All score CSVs of a folder with their labels, paired by clip name; in the order of ``truth``, or sorted.

    Parameters
    ----------
    truth : what ``truth.read_truth`` gives; if None, the labels are in the clips' names
    year : of the challenge, whose files and clips these are; None: the YAML's default
    machine_types : those whose CSVs are read; None: all
    any_names : whether clip names need not be of the official form (``names: any`` in the YAML)
    unlabelled : whether clips whose names say no label are taken, with the label -1

    Raises
    ------
    UserError : naming, in one message, all rows that are malformed, not finite, repeated, or of no clip of ``truth``,
        all clips of ``truth`` without a row, and all machine IDs of a scored machine type without a file.
    NoLabelsError : if clip names have no labels.
    """
    year = year or read_year(DEFAULT)
    found = score_files(directory, year)
    files = {key: path for key, path in found.items() if not machine_types or key[0] in machine_types}
    decided = files_of(directory, DECISIONS, year)
    if undecided := [" ".join(key) for key in files if decided and key not in decided]:
        logger.warning("%s: no decisions on %s", directory, some(undecided))
    faults = [] if truth is None else _file_faults(directory, files, truth, year)
    scored: dict[Key, LabelledScores] = {}
    for key, path in files.items():
        if truth is None or key in truth:  # others are named in faults
            paths = path, decided.get(key)
            scored[key], faults_of_file = _read_machine(*paths, truth and truth[key], any_names=any_names, year=year)
            faults += faults_of_file
    if not faults:
        _tell_labels_by_names(directory, scored, truth, year)
    nameless = [name for c in scored.values() for name, label in zip(c.names, c.labels, strict=True) if label < 0]
    if nameless and not unlabelled:
        raise NoLabelsError(
            f"{directory}: {len(nameless)} names do not say normal or anomaly ({some(nameless)}); {ADVICE}"
        )
    if faults:
        advice = "Every test clip needs one row with a finite score; score the clips again, or mend the files."
        raise common.fault_list(f"{directory}: score files with faults", faults, advice)
    return {key: scored[key] for key in truth or scored if key in scored}


def _tell_labels_by_names(
    directory: Path, scored: Mapping[Key, LabelledScores], truth: Mapping[Key, Mapping] | None, year: Year
) -> None:
    """Warn of labels that are the names', not those of a ground truth, or of a list that is not taken for one."""
    if truth:
        if any(truth[key].keys().isdisjoint(clips.names) for key, clips in scored.items()):
            logger.warning("%s: labels as the clips' names say them; the ground truth has other names", directory)
    elif year.list_refused and any(
        unit in year.units("eval", machine_type) and (clips.labels >= 0).any()
        for (machine_type, unit), clips in scored.items()
    ):
        logger.warning("%s: labels by names of evaluation clips. Official list: %s", directory, year.list_refused)


def _read_machine(
    path: Path, decided: Path | None, truth: Mapping[str, ClipName] | None, *, any_names: bool, year: Year
) -> tuple[LabelledScores, list[str]]:
    """Scores and decisions of a machine ID with their labels, and the faults of both files."""
    options = {"any_names": any_names, "year": year}
    unit = year.parse_file(path.name, SCORES)[1]
    parse = functools.partial(parse_score_row, unit=unit, **options)
    read = functools.partial(parsed_file, rows=csv_rows if any_names else _rows_of_clips)
    scores, rows, faults = read(path, parse)
    told = {name: said_by(name, **options) for name in scores}
    if truth is not None and rows:
        told, unpaired = _paired(told, rows, truth, year)
        faults += [f"{path}: {text}" for text in unpaired]
    called = None
    if decided:
        decisions, _, faults_of_file = read(decided, functools.partial(parse, kind=DECISIONS))
        if rows and not faults_of_file and decisions.keys() != scores.keys():
            faults_of_file = [f"{decided}: other clips than in the score file beside it"]
        faults += faults_of_file
        called = None if faults_of_file else np.array([decisions[name] for name in scores])
    labels = np.array([-1 if one.label is None else one.label for one in told.values()], int)
    numbers = {name: number for number, name in enumerate(year.domains)}
    domains = np.array([numbers.get(one.domain, -1) for one in told.values()], int) if numbers else None
    return LabelledScores(labels, np.array(list(scores.values())), tuple(scores), called, domains), faults


def _paired(
    own: Mapping[str, ClipName], rows: Mapping[str, int], truth: Mapping[str, ClipName], year: Year
) -> tuple[Mapping[str, ClipName], list[str]]:
    """What is told of the clips with a score, and the faults.

    The official baseline since 2023 gives the clips the official list's names, which say all. Where that list is the
    truth, none of the rows has a name of the ground truth, and no more than numbers of clips can be compared.

    Parameters
    ----------
    own : what the names in the rows say themselves
    rows : name -> row, with the faulty ones
    """
    unknown = [f"{name} (row {rows[name]})" for name in own if name not in truth]
    if own and len(unknown) == len(own) and _renamed(own, truth, year):
        fields = [field for field in ClipName._fields if any(getattr(one, field) is not None for one in truth.values())]
        counts = [Counter(tuple(getattr(one, f) for f in fields) for one in told.values()) for told in (own, truth)]
        text = f"clips by the {' and '.join(fields[1:])} in their names than the ground truth has"
        return own, [] if counts[0] == counts[1] else [f"other numbers of {text}"]
    faults = [f"{len(unknown)} clips that the ground truth does not have: {some(unknown)}"] if unknown else []
    if missing := [name for name in truth if name not in rows]:
        faults.append(f"{len(missing)} clips of the ground truth are missing: {some(missing)}")
    return {name: truth.get(name, ClipName("", 0)) for name in own}, faults


def _renamed(own: Mapping[str, ClipName], truth: Mapping[str, ClipName], year: Year) -> bool:
    """Whether all names in the rows say their labels, and those of the ground truth do not."""
    hidden = all(year.parse(name).label is None for name in truth)
    return hidden and not year.list_refused and all(one.label is not None for one in own.values())


def _file_faults(directory: Path, files: Mapping[Key, Path], truth: Mapping[Key, Mapping], year: Year) -> list[str]:
    """Score files of machine IDs that the ground truth does not have, and those it has that are missing.

    A machine type without any file is said in a warning: one may evaluate some types only.
    """
    scored_types = {machine_type for machine_type, _ in files}
    faults = [
        f"{path}: the ground truth has no clips of this machine ID" for key, path in files.items() if key not in truth
    ]
    faults += [
        f"{score_path(directory, *key, year)}: missing ({len(clips)} clips)"
        for key, clips in truth.items()
        if key not in files and key[0] in scored_types
    ]
    absent = list(dict.fromkeys(machine_type for machine_type, _ in truth if machine_type not in scored_types))
    if absent:
        logger.warning("%s: no scores of %s; the figures are of the other machine types", directory, ", ".join(absent))
    return faults
