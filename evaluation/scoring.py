"""Scores and labels -> AUC and pAUC; the score CSVs, result.csv and the ground truth: written, read back, verified."""

import csv
import functools
import io
import logging
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import common
from audio.clips import CLIP_OF_FOLDER, FOLDER_LABELS, machine_types_in, parse_clip_name, wav_paths
from storage.files import write_text

DECISION_FILE = re.compile(r"decision_result_(.+)_(id_\d\d)\.csv", re.ASCII)
SCORE_FILE = re.compile(r"anomaly_score_(.+)_(id_\d\d)\.csv", re.ASCII)
PUBLISHED_FILE = Path(__file__).with_name("published.yaml")
LABELS_ADVICE = "give the labels with --truth eval_data_list.csv"
NAMES_SHOWN = 5  # clip names that one line of an error holds

Key = tuple[str, str]  # machine type, machine ID
Performance = dict[str, dict[str, tuple[float, float]]]  # machine type -> machine ID -> (AUC, pAUC)
Truth = dict[Key, dict[str, int]]  # -> clip name -> label

logger = logging.getLogger(__name__)


class NoLabelsError(common.UserError):
    """The clips' names have no labels, and no ground truth gives them."""


class LabelledScores(NamedTuple):
    """The test clips of one machine ID, by name."""

    labels: np.ndarray  # shape (n_clips,), 0 normal, 1 anomaly, -1 unknown
    scores: np.ndarray  # shape (n_clips,), higher = more anomalous
    names: tuple[str, ...]
    decisions: np.ndarray | None = None  # shape (n_clips,), 0 called normal, 1 anomalous; None: not decided


# ---- AUC and pAUC ----


def auc_pauc(labels: Sequence[int], scores: Sequence[float], *, max_fpr: float) -> tuple[float, float]:
    """Area under the ROC curve, and its part up to ``max_fpr``, McClish-standardised so that 0.5 is chance.

    Parameters
    ----------
    labels : shape (n_clips,), 0 normal, 1 anomaly
    scores : shape (n_clips,), higher = more anomalous
    max_fpr : float in (0, 1], highest false positive rate of the pAUC; the challenge's is 0.1

    Raises
    ------
    ValueError : if a label is neither 0 nor 1, one of the two is absent, or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"{labels.shape} labels and {scores.shape} scores; expected one of each per clip")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (normal) or 1 (anomaly)")
    n_anomalies = int(labels.sum())
    if n_anomalies in (0, labels.size):
        raise ValueError(
            f"{labels.size - n_anomalies} normal and {n_anomalies} anomalous clips; AUC needs at least one of each"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} scores are not finite numbers")
    return float(roc_auc_score(labels, scores)), float(roc_auc_score(labels, scores, max_fpr=max_fpr))


def evaluate(scores: Mapping[Key, Sequence], *, max_fpr: float, rated_only: bool = False) -> Performance:
    """AUC and pAUC of every machine ID.

    Parameters
    ----------
    scores : (machine type, machine ID) -> (labels, scores) or LabelledScores
    rated_only : whether to pass over machine IDs that give none: with clips whose label is not known, or of one kind

    Raises
    ------
    UserError : naming every machine ID whose clips or scores give no AUC.
    """
    performance: Performance = {}
    faults = []
    for (machine_type, machine_id), values in scores.items():
        labels, values = values[:2]
        if rated_only and set(np.asarray(labels).tolist()) != {0, 1}:
            continue
        try:
            performance.setdefault(machine_type, {})[machine_id] = auc_pauc(labels, values, max_fpr=max_fpr)
        except ValueError as error:
            faults.append(f"{machine_type} {machine_id}: {error}")
    if faults:
        raise common.fault_list("No AUC for these machine IDs", faults, "Mend or remove their test clips.")
    return performance


def averages(performance_of_a_type: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Arithmetic means of AUC and pAUC over the machine IDs of a type."""
    auc, pauc = np.mean(list(performance_of_a_type.values()), axis=0)
    return float(auc), float(pauc)


# ---- decisions ----


class Decisions(NamedTuple):
    """How good the decisions on the test clips of a machine ID are; NaN where the clips do not tell."""

    precision: float  # share of anomalies among the clips that are called anomalous
    recall: float  # share of the anomalies that are called anomalous
    f1: float  # harmonic mean of the two
    false_alarms: float  # share of the normal clips that are called anomalous


def decision_figures(labels: Sequence[int], decisions: Sequence[int]) -> Decisions:
    """Precision, recall, F1 and false-alarm rate.

    Parameters
    ----------
    labels, decisions : shape (n_clips,), 0 normal, 1 anomaly

    Notes
    -----
    As the official baselines since 2021: a ratio whose denominator is 0 is 0. Without anomalies only the false-alarm
    rate can be told, without normal clips only the recall.
    """
    labels, decisions = np.asarray(labels), np.asarray(decisions)
    hits, false_alarms = (int(np.sum(decisions[labels == label])) for label in (1, 0))
    anomalies, normals = (int(np.sum(labels == label)) for label in (1, 0))
    precision, recall = hits / max(hits + false_alarms, 1), hits / max(anomalies, 1)
    f1 = 2 * precision * recall / max(precision + recall, np.finfo(float).eps)
    both = anomalies and normals
    return Decisions(
        precision if both else math.nan,
        recall if anomalies else math.nan,
        f1 if both else math.nan,
        false_alarms / normals if normals else math.nan,
    )


def judge(scores: Mapping[Key, LabelledScores]) -> dict[str, dict[str, Decisions]]:
    """Machine type -> machine ID -> how good its decisions are; without those that have no decisions or no labels."""
    figures: dict[str, dict[str, Decisions]] = {}
    for (machine_type, machine_id), values in scores.items():
        if values.decisions is not None and (values.labels >= 0).all():
            of_a_type = figures.setdefault(machine_type, {})
            of_a_type[machine_id] = decision_figures(values.labels, values.decisions)
    return figures


def decision_averages(figures: Iterable[Decisions]) -> Decisions:
    """Arithmetic means over machine IDs or types, of those that are known."""
    columns = np.array(list(figures)).T
    return Decisions(*(float(np.mean(known)) if (known := c[~np.isnan(c)]).size else math.nan for c in columns))


def decision_result_name(result_file: str) -> str:
    """Name of the file beside result.csv that has the figures of the decisions."""
    return f"decision_{result_file}"


# ---- score and decision CSVs: write, find, read back, verify ----


def score_path(directory: Path, machine_type: str, machine_id: str) -> Path:
    """Path of the score CSV of one machine ID, named as the challenge wants it."""
    return directory / f"anomaly_score_{machine_type}_{machine_id}.csv"


def decision_path(directory: Path, machine_type: str, machine_id: str) -> Path:
    """Path of the decision CSV of one machine ID, named as the later baselines do."""
    return directory / f"decision_result_{machine_type}_{machine_id}.csv"


def score_files(directory: Path) -> dict[Key, Path]:
    """(machine type, machine ID) -> score CSV in ``directory``, sorted.

    Raises
    ------
    UserError : if there is no such folder, no score CSV in it, or one whose name is not of the official form.
    """
    if not directory.is_dir():
        raise common.UserError(f"{directory}: no such folder; expected one with score files of 01_test.py")
    paths = sorted(path for path in directory.iterdir() if path.name.startswith("anomaly_score_"))
    matches = {path: SCORE_FILE.fullmatch(path.name) for path in paths}
    misnamed = [str(path) for path, match in matches.items() if not match]
    if misnamed:
        raise common.fault_list(
            "Files whose names are not of the form anomaly_score_<machine type>_id_<NN>.csv",
            misnamed,
            "Rename or remove them.",
        )
    if not paths:
        raise common.UserError(f"{directory}: no file anomaly_score_<machine type>_id_<NN>.csv; run 01_test.py first")
    return dict(sorted((match.groups(), path) for path, match in matches.items()))


def scores_text(names: Sequence[str], scores: Sequence[float]) -> str:
    """Content of a score CSV in the official format: no header, ``name,score``, full precision, LF.

    Raises
    ------
    ValueError : if a score is not finite, naming the clips.
    """
    rows = [[name, float(score)] for name, score in zip(names, scores, strict=True)]
    bad = [f"{name} ({score})" for name, score in rows if not math.isfinite(score)]
    if bad:
        raise ValueError(f"{len(bad)} scores are not finite: {some(bad)}")
    return _csv_text(rows)


def decisions_text(names: Sequence[str], decisions: Sequence[int]) -> str:
    """Content of a decision CSV, as the official baselines since 2021 have it: no header, ``name,0 or 1``, LF."""
    return _csv_text([[name, int(decision)] for name, decision in zip(names, decisions, strict=True)])


def write_scores(path: Path, names: Sequence[str], scores: Sequence[float]) -> None:
    """Write a score CSV; nothing is written if a score is not finite (ValueError)."""
    write_text(path, scores_text(names, scores))


def read_scores(path: Path, *, any_names: bool = False) -> dict[str, float]:
    """Clip name -> score, in the file's order.

    Raises
    ------
    UserError : naming the rows that are malformed, not finite, repeated or of another machine ID.
    """
    scores, _, faults = _parse(path, _score, any_names=any_names)
    if faults:
        raise common.fault_list("Score file with faults", faults, "Mend the rows, or score the clips again.")
    return scores


def _parse(
    path: Path, value_of: Callable[[str], float], *, any_names: bool = False
) -> tuple[dict[str, float], dict[str, int], list[str]]:
    """Clip name -> value, clip name -> its first row (faulty ones too), and the faults, one line each."""
    values: dict[str, float] = {}
    rows: dict[str, int] = {}
    faults = []
    match = SCORE_FILE.fullmatch(path.name) or DECISION_FILE.fullmatch(path.name)
    machine_id = None if any_names or not match else match[2]
    for number, row in enumerate(_csv_rows(path), 1):
        try:
            name, value = _parse_row(row, value_of, machine_id=machine_id, any_names=any_names)
            if name in rows:
                raise ValueError(f"{name} again, first in row {rows[name]}")
            values[name] = value
        except ValueError as error:
            faults.append(f"{path}, row {number}: {error}")
        rows.setdefault(row[0] if row else "", number)
    if not rows:
        faults.append(f"{path}: no rows")
    return values, rows, faults


def parse_score_row(row: Sequence[str], *, machine_id: str | None) -> tuple[str, float]:
    """Clip name and score of a row of a score file of ``machine_id``."""
    return _parse_row(row, _score, machine_id=machine_id)


def _parse_row(
    row: Sequence[str], value_of: Callable[[str], float], *, machine_id: str | None, any_names: bool = False
) -> tuple[str, float]:
    """Clip name and value of a row."""
    if len(row) != 2:
        raise ValueError(f"{len(row)} columns; expected two: file name,score")
    name, text = row
    if not any_names:
        try:
            clip_id, _ = parse_clip_name(name)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
        if machine_id and clip_id != machine_id:
            raise ValueError(f"{name} is a clip of {clip_id}; the file is of {machine_id}")
    try:
        return name, value_of(text)
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


def _decision(text: str) -> int:
    if text not in ("0", "1"):
        raise ValueError(f"decision {text!r}; expected 0 or 1")
    return int(text)


def _csv_rows(path: Path) -> list[list[str]]:
    """Rows of a UTF-8 CSV file; spoilt files are a UserError."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.reader(stream))
    except OSError as error:
        raise common.UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise common.UserError(f"{path}: not a CSV file in UTF-8 ({error})") from error


def _csv_text(rows: Sequence[Sequence]) -> str:
    """CSV with LF as the official scripts write it; floats have the digits that give the same number again."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


# ---- ground truth, and whole folders of score CSVs ----


def read_truth(path: Path) -> Truth:
    """Labels of the test clips: from the official list, or from the names in a dataset folder.

    Parameters
    ----------
    path : ``eval_data_list.csv`` (a line with the machine type alone, then lines ``name,original name,label``), or a
        folder ``<machine type>/test/*.wav`` whose names begin with normal_ or anomaly_

    Raises
    ------
    UserError : naming every row or clip that gives no label.
    """
    truth, faults = _truth_of_folder(path) if path.is_dir() else _truth_of_list(path)
    if faults:
        raise common.fault_list("Ground truth with faults", faults, "Get eval_data_list.csv again, or mend the names.")
    return truth


def _truth_of_list(path: Path) -> tuple[Truth, list[str]]:
    """Labels, and faults, of the official list."""
    truth: Truth = {}
    faults = []
    machine_type = None
    for number, row in enumerate(_csv_rows(path), 1):
        if len(row) == 1:
            machine_type = row[0].removeprefix("\ufeff")  # a spreadsheet's mark of UTF-8
            continue
        try:
            if machine_type is None:
                raise ValueError("no line with a machine type above it")
            machine_id, label = _parse_truth_row(row)
            of_id = truth.setdefault((machine_type, machine_id), {})
            if row[0] in of_id:
                raise ValueError(f"{row[0]} again")
            of_id[row[0]] = label
        except ValueError as error:
            faults.append(f"{path}, row {number}: {error}")
    if not truth and not faults:
        faults.append(f"{path}: no rows")
    return truth, faults


def _parse_truth_row(row: Sequence[str]) -> tuple[str, int]:
    """Machine ID and label of a row of the official list."""
    if len(row) != 3 or row[2] not in ("0", "1"):
        raise ValueError(f"{','.join(row)!r}; expected name,original name,0 or 1")
    name, original, label = row
    machine_id, _ = parse_clip_name(name)
    if parse_clip_name(original) != (machine_id, int(label)):
        raise ValueError(f"{original} is not the original name of {name} with label {label}")
    return machine_id, int(label)


def _truth_of_folder(directory: Path) -> tuple[Truth, list[str]]:
    """Labels, and faults, of the test clips of a dataset folder."""
    truth: Truth = {}
    faults = []
    for machine_type in machine_types_in(directory, "--truth"):
        for path in wav_paths(directory / machine_type / "test"):
            try:
                machine_id, label = parse_clip_name(path.name)
                if label is None:
                    raise ValueError("name does not begin with normal_ or anomaly_")
                truth.setdefault((machine_type, machine_id), {})[path.name] = label
            except ValueError as error:
                faults.append(f"{path}: {error}")
    return truth, faults


def read_folder(
    directory: Path,
    truth: Truth | None = None,
    *,
    machine_types: Collection[str] | None = None,
    any_names: bool = False,
    unlabelled: bool = False,
) -> dict[Key, LabelledScores]:
    """All score CSVs of a folder with their labels, paired by clip name; in the order of ``truth``, or sorted.

    Parameters
    ----------
    truth : what ``read_truth`` gives; if None, the labels are in the clips' names
    machine_types : those whose CSVs are read; None: all
    any_names : whether clip names need not be of the official form (``names: any`` in the YAML)
    unlabelled : whether clips whose names say no label are taken, with the label -1

    Raises
    ------
    UserError : naming, in one message, all rows that are malformed, not finite, repeated, or of no clip of ``truth``,
        all clips of ``truth`` without a row, and all machine IDs of a scored machine type without a file.
    NoLabelsError : if all that is wrong is that clip names have no labels.
    """
    files = {
        key: path for key, path in score_files(directory).items() if machine_types is None or key[0] in machine_types
    }
    faults = _file_faults(directory, files, truth) if truth is not None else []
    scored: dict[Key, LabelledScores] = {}
    nameless: list[str] = []
    for key, path in files.items():
        if truth is not None and key not in truth:
            continue  # named in faults
        scores, rows, faults_of_file = _parse(path, _score, any_names=any_names)
        faults += faults_of_file
        labels = {name: label_of(name, any_names=any_names) for name in scores} if truth is None else truth[key]
        without = {name: rows[name] for name in scores if labels.get(name) is None}
        if truth is not None:
            faults += _pairing_faults(path, without, [name for name in labels if name not in rows])
        elif not unlabelled:
            nameless += without
        names = tuple(name for name in scores if name not in without or (unlabelled and truth is None))
        decisions, faults_of_file = _read_decisions(decision_path(directory, *key), scores, any_names=any_names)
        faults += faults_of_file
        scored[key] = LabelledScores(
            np.array([-1 if labels[name] is None else labels[name] for name in names], int),
            np.array([scores[name] for name in names]),
            names,
            None if decisions is None else np.array([decisions[name] for name in names]),
        )
    if nameless:
        fault = f"{directory}: {len(nameless)} names do not say normal or anomaly ({some(nameless)}); {LABELS_ADVICE}"
        if not faults:
            raise NoLabelsError(fault)
        faults.append(fault)
    if faults:
        advice = "Every test clip needs one row with a finite score; score the clips again, or mend the files."
        raise common.fault_list(f"{directory}: score files with faults", faults, advice)
    return {key: scored[key] for key in truth or scored if key in scored}


def _read_decisions(
    path: Path, scores: Mapping[str, float], *, any_names: bool
) -> tuple[dict[str, float] | None, list[str]]:
    """Clip name -> decision, None where there is no such CSV or it is at fault; and its faults."""
    if not path.exists():
        return None, []
    decisions, _, faults = _parse(path, _decision, any_names=any_names)
    if not faults and decisions.keys() != scores.keys():
        faults = [f"{path}: other clips than in the score file beside it"]
    return (None if faults else decisions), faults


def label_of(name: str, *, any_names: bool) -> int | None:
    """Label that a clip's name says, None where it says none."""
    if any_names:
        match = CLIP_OF_FOLDER.fullmatch(name)
        return FOLDER_LABELS[match[1].lower()] if match else None
    return parse_clip_name(name)[1]


def _file_faults(directory: Path, files: Mapping[Key, Path], truth: Truth) -> list[str]:
    """Score files of machine IDs that the ground truth does not have, and those it has that are missing.

    A machine type without any file is said in a warning: one may evaluate some types only.
    """
    scored_types = {machine_type for machine_type, _ in files}
    faults = [
        f"{path}: the ground truth has no clips of this machine ID" for key, path in files.items() if key not in truth
    ]
    faults += [
        f"{score_path(directory, *key)}: missing ({len(clips)} clips)"
        for key, clips in truth.items()
        if key not in files and key[0] in scored_types
    ]
    absent = list(dict.fromkeys(machine_type for machine_type, _ in truth if machine_type not in scored_types))
    if absent:
        logger.warning("%s: no scores of %s; the figures are of the other machine types", directory, ", ".join(absent))
    return faults


def _pairing_faults(path: Path, unlabelled: Mapping[str, int], missing: Sequence[str]) -> list[str]:
    """At most two lines on rows without a label (clip name -> row) and on clips without a row."""
    faults = []
    if unlabelled:
        named = some([f"{name} (row {row})" for name, row in unlabelled.items()])
        faults.append(f"{path}: {len(unlabelled)} clips that the ground truth does not have: {named}")
    if missing:
        faults.append(f"{path}: {len(missing)} clips of the ground truth are missing: {some(missing)}")
    return faults


# ---- result.csv ----


def write_result(path: Path, performance: Performance) -> None:
    """Write result.csv in the official format: per machine type a block of IDs, their average and a blank line."""
    rows: list[list] = []
    for machine_type, performance_of_a_type in performance.items():
        rows += [[machine_type], ["id", "AUC", "pAUC"]]
        rows += [
            [machine_id.removeprefix("id_"), auc, pauc] for machine_id, (auc, pauc) in performance_of_a_type.items()
        ]
        rows += [["Average", *averages(performance_of_a_type)], []]
    write_text(path, _csv_text(rows))


def write_decision_result(path: Path, figures: Mapping[str, Mapping[str, Decisions]]) -> None:
    """Write the figures of the decisions in the form of result.csv; what is not known stays empty."""

    def row(name: str, figures_of_one: Decisions) -> list:
        return [name, *("" if math.isnan(value) else value for value in figures_of_one)]

    rows: list[list] = []
    for machine_type, ids in figures.items():
        rows += [[machine_type], ["id", "precision", "recall", "F1", "false alarm rate"]]
        rows += [row(machine_id.removeprefix("id_"), of_id) for machine_id, of_id in ids.items()]
        rows += [row("Average", decision_averages(ids.values())), []]
    write_text(path, _csv_text(rows))


# ---- published figures ----


@dataclass(frozen=True)
class Published:
    """Figures that somebody published, in percent."""

    name: str
    dataset: str  # "dev" or "eval"
    source: str
    machine_types: dict[str, tuple[float, float]]  # machine type -> (AUC, pAUC), averaged over its IDs
    machine_ids: dict[str, dict[str, tuple[float, float]]]  # empty where only averages were published
    mean: tuple[float, float] | None = None  # over all machine types, where theirs were not published
    mean_of_both: float | None = None  # of AUC and pAUC, where not even these were


@functools.cache
def _published_file() -> dict:
    import yaml

    return yaml.safe_load(PUBLISHED_FILE.read_text(encoding="utf-8"))


def published_figures() -> list[Published]:
    """All published figures of ``published.yaml``; the first of each dataset is the official one."""
    return [
        Published(
            name=entry["name"],
            dataset=entry["dataset"],
            source=entry["source"],
            machine_types={name: tuple(pair) for name, pair in entry.get("machine_types", {}).items()},
            machine_ids={
                name: {machine_id: tuple(pair) for machine_id, pair in ids.items()}
                for name, ids in entry.get("machine_ids", {}).items()
            },
            mean=tuple(entry["mean"]) if "mean" in entry else None,
            mean_of_both=entry.get("mean_of_both"),
        )
        for entry in _published_file()["systems"]
    ]


def official_dataset(scores: Mapping[Key, Sequence]) -> str | None:
    """``dev`` or ``eval`` if the clips of every machine type are, by their numbers, an official test set's; else None.

    Parameters
    ----------
    scores : (machine type, machine ID) -> (labels, ...)
    """
    counts: dict[str, dict[str, list[int]]] = {}
    for (machine_type, machine_id), values in scores.items():
        of_label = Counter(int(label) for label in values[0])
        counts.setdefault(machine_type, {})[machine_id] = [of_label[0], of_label[1]]
    for dataset, test_clips in _published_file()["test_clips"].items():
        if all(test_clips.get(machine_type) == of_a_type for machine_type, of_a_type in counts.items()):
            return dataset
    return None


def comparable_figures(all_scores: Sequence[Mapping[Key, Sequence]], *, max_fpr: float) -> list[Published]:
    """Published figures of the official test set that all of these score; none if it is not one, or by ``max_fpr``.

    A mean over all machine types is there only where all of them were scored.
    """
    datasets = {official_dataset(scores) for scores in all_scores}
    if max_fpr != _published_file()["max_fpr"] or len(datasets) > 1 or datasets == {None}:
        return []
    (dataset,) = datasets
    every = _published_file()["test_clips"][dataset].keys()
    whole = all({machine_type for machine_type, _ in scores} == every for scores in all_scores)
    return [
        figures for figures in published_figures() if figures.dataset == dataset and (figures.machine_types or whole)
    ]


def official_figures(scores: Mapping[Key, Sequence], *, max_fpr: float = 0.1) -> Published | None:
    """The official published figures for these clips; None unless they are an official test set's."""
    return next(iter(comparable_figures([scores], max_fpr=max_fpr)), None)


def summary_table(performance: Performance, published: Published | None = None) -> str:
    """Machine type, AUC, pAUC [%] as text; published figures and the differences beside them where given.

    ``published`` is what ``official_figures`` gives for the scored clips, so that only equals stand side by side.
    """
    ours = {machine_type: averages(ids) for machine_type, ids in performance.items()}
    theirs = {machine_type: published.machine_types[machine_type] for machine_type in ours} if published else {}
    if len(ours) > 1:
        for figures in (ours, theirs):
            if figures:
                figures["mean"] = tuple(np.mean(list(figures.values()), axis=0))
    return _beside("machine type", [(name, pair, theirs.get(name)) for name, pair in ours.items()], published)


def detail_table(performance: Performance, published: Published | None = None) -> str:
    """As ``summary_table``, with a line per machine ID and one for each type's average."""
    lines = []
    for machine_type, ids in performance.items():
        theirs = published.machine_ids.get(machine_type, {}) if published else {}
        lines += [(f"{machine_type} {machine_id}", pair, theirs.get(machine_id)) for machine_id, pair in ids.items()]
        average = published.machine_types[machine_type] if published else None
        lines.append((f"{machine_type} Average", averages(ids), average))
    return _beside("machine", lines, published)


def _beside(first: str, lines: Sequence[tuple], published: Published | None) -> str:
    """Table of (name, our AUC and pAUC, published ones in % or None)."""
    head = [first, "AUC [%]", "pAUC [%]"]
    rows = [[name, f"{100 * auc:.2f}", f"{100 * pauc:.2f}"] for name, (auc, pauc), _ in lines]
    if not published:
        return text_table(head, rows)
    head += ["published", "difference"]
    for row, (_, ours, theirs) in zip(rows, lines, strict=True):
        if theirs is None:
            row += ["-", "-"]
        else:
            row.append("{:.2f} / {:.2f}".format(*theirs))
            row.append("{:+.2f} / {:+.2f}".format(*(100 * np.array(ours) - theirs)))
    return f"{text_table(head, rows)}\npublished: {published.name}, {published.source}"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns in line: the first to the left, the others to the right."""
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
