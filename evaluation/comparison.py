"""Several result folders against each other: differences with confidence intervals, and the challenge's ranking."""

import functools
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import common
from config import Config
from evaluation import result_record, scoring
from evaluation.result_record import Record
from evaluation.scoring import Key, LabelledScores, Performance, Truth

REPLICATES = 2000  # bootstrap samples per machine ID
SEED = 0
CONFIDENCE = 0.95
DECISION_COLUMNS = ("precision [%]", "recall [%]", "F1 [%]", "false alarms [%]")
DECIMALS = 12  # of an average or a difference; further ones are rounding errors
ROWS_AT_ONCE = 100  # of bootstrap samples; bounds the memory to some MB

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A folder of score files, evaluated."""

    name: str
    directory: Path
    scores: dict[Key, LabelledScores]
    performance: Performance
    records: Sequence[Record] = ()  # of what made the scores; none in a folder that 01_test.py did not write

    @functools.cached_property
    def decisions(self) -> dict[str, dict[str, scoring.Decisions]]:
        """Machine type -> machine ID -> how good the decisions on its clips are, where there are any."""
        return scoring.judge(self.scores)

    @property
    def unrated(self) -> list[Key]:
        """Machine IDs that give no AUC: not all of their clips have labels, or all have the same."""
        return [key for key in self.scores if key[1] not in self.performance.get(key[0], {})]


# ---- result folders ----


def result_folders(paths: Sequence[Path], systems: Sequence[str] = ()) -> list[Path]:
    """The folders with score files: each path itself, or those directly in it (``result/dev`` holds one per system).

    Those in a path are in the order of ``systems``; others of its folders follow by name.
    """
    folders: list[Path] = []
    places = {name: place for place, name in enumerate(systems)}
    for path in paths:
        inner = {file.parent for file in path.glob("*/anomaly_score_*.csv")}
        if not inner or any(path.glob("anomaly_score_*.csv")):
            folders.append(path)
        else:
            folders += sorted(inner, key=lambda folder: (places.get(folder.name, len(places)), folder))
    return list({folder.resolve(): folder for folder in folders}.values())


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Names for the folders: the fewest last parts of their paths by which all differ."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def read_results(
    paths: Sequence[Path], against: Path | None, truth: Truth | None, *, max_fpr: float, config: Config | None = None
) -> tuple[list[Result], Result | None]:
    """Evaluate every result folder that ``paths`` name, and the one to compare them with.

    Parameters
    ----------
    config : with it, systems are in its order, and the scores in its result directory must be of the present models

    Raises
    ------
    UserError : as ``result_record.check``, ``scoring.read_folder`` and ``scoring.evaluate``; or if ``against`` is
        several or the only one.
    """
    systems = list(config.systems) if config else ()
    wanted = [folder.resolve() for folder in result_folders(paths, systems)]
    reference = [folder.resolve() for folder in result_folders([against] if against else [])]
    if len(reference) > 1:
        raise common.UserError(
            f"--against {against}: {len(reference)} folders with score files in it; name one of them"
        )
    if reference and reference == wanted:
        raise common.UserError(f"--against {against}: the same folder; nothing to compare")
    folders = result_folders([*paths, against] if against else paths, systems)
    results, errors, unlabelled = {}, [], {}
    for name, folder in zip(folder_names(folders), folders, strict=True):
        try:
            ours = config and folder.resolve().parent.parent == config.result_directory.resolve()
            records = result_record.check(folder, config=config if ours else None)
            any_names = any(record.any_names for record in records)
            # Of one's own machines there may be clips of one kind, or without labels; a challenge's have both.
            partial = not truth and (any_names or any(record.training_data == "dev" for record in records))
            scores = scoring.read_folder(folder, truth, any_names=any_names, unlabelled=partial)
            performance = scoring.evaluate(scores, max_fpr=max_fpr, rated_only=partial)
            results[folder.resolve()] = Result(name, folder, scores, performance, records)
        except scoring.NoLabelsError as error:
            unlabelled[str(folder)] = str(error)
        except common.UserError as error:  # to name the faults of all folders at once
            errors.append(str(error))
    if len(unlabelled) > 1:  # one line for all of them
        errors.append(f"{', '.join(unlabelled)}: names do not say normal or anomaly; {scoring.LABELS_ADVICE}")
    else:
        errors += unlabelled.values()
    if errors:
        raise common.UserError("\n".join(errors))
    return [results[folder] for folder in wanted], results[reference[0]] if reference else None


def write_results(
    results: Sequence[Result], output: Path | None, *, file_name: str = "result.csv", max_fpr: float
) -> list[list[Path]]:
    """Write result.csv into each folder; or to ``output``: a file for one result, a folder for several.

    Beside it, where there are decisions, goes a file of the same form with their figures. Without any AUC there is no
    result.csv. The result file of 01_test.py is left alone where it has pAUCs of another ``max_fpr``.

    Raises
    ------
    UserError : if a place cannot be written to.
    """
    written = []
    for result in results:
        taken = {record.result_file for record in result.records if record.max_fpr != max_fpr}
        path = result.directory / (f"result_max_fpr_{max_fpr:g}.csv" if file_name in taken else file_name)
        if output:
            path = output if len(results) == 1 else output / f"result_{result.name.replace('/', '_')}.csv"
        paths = []
        try:
            if result.performance:
                scoring.write_result(path, result.performance)
                paths.append(path)
            if result.decisions:
                paths.append(path.with_name(scoring.decision_result_name(path.name)))
                scoring.write_decision_result(paths[-1], result.decisions)
        except OSError as error:
            raise common.UserError(
                f"{path}: cannot be written ({error.strerror}); --output puts it elsewhere"
            ) from error
        written.append(paths)
    return written


# ---- do two folders cover the same clips? ----


def common_ids(a: Result, b: Result) -> list[Key]:
    """Machine IDs that both results have; says which only one has.

    Raises
    ------
    UserError : if they have none in common, or different clips of a machine ID.
    """
    unrated = [" ".join(key) for key in dict.fromkeys([*a.unrated, *b.unrated])]
    if unrated:
        logger.warning("Without AUC, left out of the comparison: %s", ", ".join(unrated))
    both = [key for key in a.scores if key in b.scores and " ".join(key) not in unrated]
    for one, other in ((a, b), (b, a)):
        alone = [" ".join(key) for key in one.scores if key not in other.scores]
        if alone:
            logger.warning("Only in %s, left out of the comparison: %s", one.name, ", ".join(alone))
    if not both:
        raise common.UserError(
            f"{a.directory} and {b.directory} have no machine ID in common that has an AUC; nothing to compare"
        )
    faults = []
    for key in both:
        names_a, names_b = set(a.scores[key].names), set(b.scores[key].names)
        for one, alone in ((a, names_a - names_b), (b, names_b - names_a)):
            if alone:
                faults.append(f"{' '.join(key)}: {len(alone)} clips only in {one.name}: {scoring.some(sorted(alone))}")
    if faults:
        raise common.fault_list(
            f"{a.directory} and {b.directory} do not cover the same clips",
            faults,
            "Score the same test clips with both systems.",
        )
    return both


def check_same_clips(results: Sequence[Result]) -> None:
    """Raise UserError unless all results have the same machine IDs and clips."""
    first = results[0]
    faults = []
    for result in results[1:]:
        for key in dict.fromkeys([*first.scores, *result.scores]):
            here, there = (set(r.scores[key].names) if key in r.scores else set() for r in (first, result))
            if here != there:
                faults.append(
                    f"{' '.join(key)}: {len(here - there)} clips only in {first.name}, "
                    f"{len(there - here)} only in {result.name}"
                )
    if faults:
        raise common.fault_list(
            "The folders do not cover the same clips", faults, "Score the same test clips with every system."
        )


# ---- confidence intervals ----


def resampled_areas(
    labels: np.ndarray, scores: np.ndarray, counts: np.ndarray, *, max_fpr: float
) -> tuple[np.ndarray, np.ndarray]:
    """AUC and pAUC of many bootstrap samples of the clips at once.

    Parameters
    ----------
    labels, scores : shape (n_clips,)
    counts : shape (n_samples, n_clips), how often a sample has a clip; at least one clip of each label

    Returns
    -------
    ndarray, ndarray : shape (n_samples,) each; equal to ``scoring.auc_pauc`` of the samples

    Notes
    -----
    pAUC: McClish, Med. Decis. Making 9 (1989), as scikit-learn's ``roc_auc_score(max_fpr=...)``.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))

    def rates(label: int) -> np.ndarray:  # of the label's clips above each threshold: (n_samples, 1 + n_thresholds)
        above = np.cumsum(counts[:, order] * (labels[order] == label), axis=1)[:, last_of_tie]
        return np.pad(above / above[:, -1:], ((0, 0), (1, 0)))

    fpr, tpr = rates(0), rates(1)
    left, low = fpr[:, :-1], tpr[:, :-1]
    width, rise = np.diff(fpr), np.diff(tpr)
    auc = np.sum(width * (low + rise / 2), axis=1)
    # The part of each trapezoid left of max_fpr, whose upper edge is cut where the line reaches max_fpr.
    inside = np.clip(max_fpr - left, 0, width)
    slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
    partial = np.sum(inside * (low + slope * inside / 2), axis=1)
    chance = max_fpr**2 / 2
    return auc, (1 + (partial - chance) / (max_fpr - chance)) / 2


def bootstrap_differences(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    *,
    max_fpr: float,
    replicates: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """AUC and pAUC of a minus those of b on bootstrap samples of the clips, shape (replicates, 2).

    Normal and anomalous clips are drawn apart, so that every sample has as many of each (stratified), and both systems
    are judged on the same samples (paired).
    """
    differences = []
    for start in range(0, replicates, ROWS_AT_ONCE):
        n_samples = min(ROWS_AT_ONCE, replicates - start)
        counts = np.empty((n_samples, len(labels)), np.int32)
        for label in (0, 1):
            clips = np.flatnonzero(labels == label)
            drawn = rng.integers(len(clips), size=(n_samples, len(clips)))
            drawn += len(clips) * np.arange(n_samples)[:, None]
            counts[:, clips] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        areas_a = resampled_areas(labels, scores_a, counts, max_fpr=max_fpr)
        areas_b = resampled_areas(labels, scores_b, counts, max_fpr=max_fpr)
        differences.append(np.subtract(areas_a, areas_b).T)
    return np.concatenate(differences)


# ---- one result against another ----


@dataclass(frozen=True)
class Difference:
    """AUC and pAUC of a machine ID, or averages, in two results."""

    machine_type: str
    machine_id: str  # or "Average"
    a: tuple[float, float]  # AUC, pAUC
    b: tuple[float, float]
    interval: np.ndarray  # of a - b, shape (2, 2): lower and upper end; AUC and pAUC


@dataclass(frozen=True)
class ScoreDifference:
    """How far the scores of a machine ID agree in two results."""

    machine_type: str
    machine_id: str
    correlation: float | None  # Spearman's; None if the scores of one result are all equal
    clip: str  # with the largest difference
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """Result a against result b on the machine IDs that both have."""

    a: str
    b: str
    differences: list[Difference]
    score_differences: list[ScoreDifference]


def compare(a: Result, b: Result, *, max_fpr: float, replicates: int = REPLICATES, seed: int = SEED) -> Comparison:
    """Differences of AUC, pAUC and scores, with bootstrap confidence intervals; averages over IDs and over types.

    Raises
    ------
    UserError : if the two do not cover the same clips.
    """
    ids: dict[str, dict[str, np.ndarray]] = {}  # machine type -> machine ID -> differences of the bootstrap samples
    score_differences = []
    for machine_type, machine_id in common_ids(a, b):
        names, labels, scores_a, scores_b = _paired(
            a.scores[machine_type, machine_id], b.scores[machine_type, machine_id]
        )
        # Seeded by the ID's name, so that IDs are independent and one ID's interval does not hang on the others.
        rng = np.random.default_rng([seed, zlib.crc32(f"{machine_type} {machine_id}".encode())])
        ids.setdefault(machine_type, {})[machine_id] = bootstrap_differences(
            labels, scores_a, scores_b, max_fpr=max_fpr, replicates=replicates, rng=rng
        )
        with np.errstate(over="ignore"):
            worst = int(np.argmax(np.abs(scores_a - scores_b)))
        score_differences.append(
            ScoreDifference(
                machine_type,
                machine_id,
                rank_correlation(scores_a, scores_b),
                names[worst],
                float(scores_a[worst]),
                float(scores_b[worst]),
            )
        )
    return Comparison(a.name, b.name, _differences(a, b, ids), score_differences)


def _paired(a: LabelledScores, b: LabelledScores) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Names, labels, scores in a, scores in b of the same clips, sorted by name: the files' order does not matter."""
    label, score_a, score_b = (
        dict(zip(side.names, values, strict=True)) for side, values in ((a, a.labels), (a, a.scores), (b, b.scores))
    )
    names = sorted(label)
    return names, *(np.array([values[name] for name in names]) for values in (label, score_a, score_b))


def _differences(a: Result, b: Result, ids: dict[str, dict[str, np.ndarray]]) -> list[Difference]:
    """A line per machine ID, one for the average of each type, and one for the mean of the types."""
    differences = []
    averages = []
    for machine_type, samples in ids.items():
        pairs = [{key: r.performance[machine_type][key] for key in samples} for r in (a, b)]
        differences += [
            Difference(machine_type, machine_id, *(p[machine_id] for p in pairs), interval(of_id))
            for machine_id, of_id in samples.items()
        ]
        averages.append((*map(scoring.averages, pairs), np.mean(list(samples.values()), axis=0)))
        differences.append(Difference(machine_type, "Average", *averages[-1][:2], interval(averages[-1][2])))
    if len(ids) > 1:
        mean_a, mean_b, of_mean = (np.mean(values, axis=0) for values in zip(*averages, strict=True))
        differences.append(Difference("mean", "", tuple(mean_a), tuple(mean_b), interval(of_mean)))
    return differences


def interval(differences: np.ndarray) -> np.ndarray:
    """Percentile interval of bootstrap differences, (replicates, 2) -> (2, 2); an end that is 0 is so to the bit."""
    tail = (1 - CONFIDENCE) / 2
    return np.round(np.quantile(differences, [tail, 1 - tail], axis=0), DECIMALS) + 0.0


def rank_correlation(scores_a: np.ndarray, scores_b: np.ndarray) -> float | None:
    """Spearman's rank correlation; None if all scores of one side are equal."""
    from scipy.stats import rankdata

    ranks = rankdata(scores_a), rankdata(scores_b)
    if any(np.ptp(side) == 0 for side in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def compare_all(results: Sequence[Result], reference: Result | None, *, max_fpr: float) -> list[Comparison]:
    """Every other result against ``reference``, if there is one."""
    return [compare(r, reference, max_fpr=max_fpr) for r in results if reference and r is not reference]


# ---- the challenge's ranking ----


@dataclass(frozen=True)
class Ranked:
    """A system's place."""

    place: int
    name: str
    mean_rank: float
    ranks: dict[str, tuple[int, int]]  # machine type -> rank by AUC, by pAUC
    mean: tuple[float, float]  # AUC, pAUC over the machine types


def rank(performances: dict[str, Performance]) -> list[Ranked]:
    """The challenge's ranking: mean rank over machine types and AUC, pAUC; a tie goes to the higher mean pAUC.

    Parameters
    ----------
    performances : system name -> performance; all of the same machine types

    Notes
    -----
    Equal figures in a column share the better rank. Averages of the same figures in another order differ by rounding
    errors; they are equal.
    """
    names = list(performances)
    machine_types = list(performances[names[0]])
    # (systems, machine types, 2)
    figures = np.array([[scoring.averages(performances[n][t]) for t in machine_types] for n in names])
    figures = np.round(figures, DECIMALS)
    ranks = 1 + np.sum(figures[None] > figures[:, None], axis=1)
    means = figures.mean(axis=1)
    mean_ranks = ranks.mean(axis=(1, 2))
    order = sorted(range(len(names)), key=lambda i: (mean_ranks[i], -means[i, 1]))
    return [
        Ranked(
            place,
            names[i],
            float(mean_ranks[i]),
            {t: tuple(map(int, pair)) for t, pair in zip(machine_types, ranks[i], strict=True)},
            tuple(map(float, means[i])),
        )
        for place, i in enumerate(order, 1)
    ]


def rank_results(results: Sequence[Result]) -> list[Ranked]:
    """``rank`` of evaluated folders.

    Raises
    ------
    UserError : if there is only one, or if they do not cover the same clips.
    """
    if len(results) < 2:
        raise common.UserError(f"{results[0].directory}: a ranking needs at least two folders of score files")
    check_same_clips(results)
    if not results[0].performance:
        raise common.UserError(f"{results[0].directory}: no machine ID gives an AUC; nothing to rank by")
    return rank({result.name: result.performance for result in results})


# ---- as text ----


def published_beside(results: Sequence[Result], *, max_fpr: float) -> list[scoring.Published]:
    """Published figures that may stand beside ours: all of the official test set that every result scored, or none."""
    return scoring.comparable_figures([result.scores for result in results], max_fpr=max_fpr)


def result_text(result: Result, *, max_fpr: float) -> str:
    """Name, numbers of clips, and the figures of every machine ID."""
    n_clips = sum(len(clips.names) for clips in result.scores.values())
    parts = [f"{result.name}: {len(result.scores)} machine IDs, {n_clips} clips"]
    if result.performance:
        published = scoring.official_figures(result.scores, max_fpr=max_fpr)
        parts.append(scoring.detail_table(result.performance, published))
    parts += [f"no AUC: {line}" for line in unrated_lines(result)]
    if result.decisions:
        rows = [[name, *map(percentage, figures)] for name, figures in decision_lines(result.decisions)]
        parts.append("\n" + scoring.text_table(["decisions", *DECISION_COLUMNS], rows))
    return "\n".join(parts)


def unrated_lines(result: Result) -> list[str]:
    """A line for each machine ID that gives no AUC: its clips, and how many of them were called anomalous."""
    lines = []
    for key in result.unrated:
        clips = result.scores[key]
        kinds = {0: "normal clips", 1: "anomalous clips", -1: "clips without a label"}
        counts = [f"{n} {kind}" for label, kind in kinds.items() if (n := np.count_nonzero(clips.labels == label))]
        called = "" if clips.decisions is None else f"; {int(clips.decisions.sum())} called anomalous"
        lines.append(f"{' '.join(key)}: {' and '.join(counts)}{called}")
    return lines


def decision_lines(figures: dict[str, dict[str, scoring.Decisions]]) -> list[tuple[str, scoring.Decisions]]:
    """(machine, figures of its decisions), with a line for each type's average and one for their mean."""
    lines, averages = [], []
    for machine_type, ids in figures.items():
        lines += [(f"{machine_type} {machine_id}", of_id) for machine_id, of_id in ids.items()]
        averages.append(scoring.decision_averages(ids.values()))
        lines.append((f"{machine_type} Average", averages[-1]))
    return lines + ([("mean", scoring.decision_averages(averages))] if len(averages) > 1 else [])


def percentage(value: float) -> str:
    """A share in %, or a dash where it is not known."""
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def decisions_table(results: Sequence[Result]) -> str:
    """A line per system: F1 and false-alarm rate [%] per machine type and their means; "" without decisions."""
    machine_types = list(dict.fromkeys(t for result in results for t in result.decisions))
    rows = []
    for result in results:
        averages = {t: scoring.decision_averages(ids.values()) for t, ids in result.decisions.items()}
        figures = [averages.get(t) for t in machine_types]
        if len(machine_types) > 1:
            figures.append(scoring.decision_averages(figures) if None not in figures else None)
        rows.append([result.name, *("-" if f is None else _f1_and_alarms(f) for f in figures)])
    head = ["F1/false alarms [%]", *machine_types, *["mean"] * (len(machine_types) > 1)]
    return scoring.text_table(head, rows) if machine_types else ""


def _f1_and_alarms(figures: scoring.Decisions) -> str:
    return f"{percentage(figures.f1)}/{percentage(figures.false_alarms)}"


def system_lines(
    results: Sequence[Result], published: Sequence[scoring.Published], machine_types: Sequence[str]
) -> list[tuple]:
    """(name, (AUC, pAUC) [%] of each machine type, their mean, the mean of both), None where a figure is not known."""
    ours = [
        (result.name, {t: 100 * np.array(scoring.averages(ids)) for t, ids in result.performance.items()}, None, None)
        for result in results
    ]
    theirs = [(entry.name, entry.machine_types, entry.mean, entry.mean_of_both) for entry in published]
    lines = []
    for name, of_type, mean, of_both in ours + theirs:
        pairs = [of_type.get(machine_type) for machine_type in machine_types]
        if all(pair is not None for pair in pairs):
            mean = np.mean(pairs, axis=0)
        lines.append((name, pairs, mean, of_both if mean is None else np.mean(mean)))
    return lines


def systems_table(results: Sequence[Result], published: Sequence[scoring.Published] = ()) -> str:
    """A line per system: AUC / pAUC [%] per machine type and their means; published figures below ours.

    An empty text where no result has an AUC.
    """
    machine_types = list(dict.fromkeys(t for result in results for t in result.performance))
    if not machine_types:
        return ""
    rows = []
    for number, (name, pairs, mean, of_both) in enumerate(system_lines(results, published, machine_types)):
        pairs = [*pairs, mean] if len(machine_types) > 1 else pairs
        cells = ["-" if pair is None else "{:.2f}/{:.2f}".format(*pair) for pair in pairs]
        cells += ["-" if of_both is None else f"{of_both:.2f}"] * (len(machine_types) > 1)
        rows.append(["* " * (number >= len(results)) + name, *cells])
    head = ["AUC/pAUC [%]", *machine_types, *["mean", "mean of both"] * (len(machine_types) > 1)]
    table = scoring.text_table(head, rows)
    return table + "\n* published; sources in published.yaml" * bool(published)


def ranking_table(ranking: Sequence[Ranked]) -> str:
    """A line per system: place, mean rank, ranks by AUC / pAUC per machine type, mean AUC and pAUC."""
    machine_types = list(ranking[0].ranks)
    rows = [
        [
            entry.name,
            str(entry.place),
            f"{entry.mean_rank:.2f}",
            *("{}/{}".format(*entry.ranks[t]) for t in machine_types),
            "{:.2f}/{:.2f}".format(*(100 * np.array(entry.mean))),
        ]
        for entry in ranking
    ]
    return scoring.text_table(["system", "place", "mean rank", *machine_types, "mean AUC/pAUC [%]"], rows)


def comparison_table(comparison: Comparison) -> str:
    """Differences in points [%] with their intervals, then the scores' agreement."""
    rows = []
    for difference in comparison.differences:
        row = [f"{difference.machine_type} {difference.machine_id}".rstrip()]
        for column in (0, 1):
            a, b = 100 * difference.a[column], 100 * difference.b[column]
            low, high = 100 * difference.interval[:, column]
            mark = "*" if low > 0 or high < 0 else " "
            row += [f"{a:.2f}", f"{b:.2f}", f"{a - b:+.2f}", f"[{low:+.2f}, {high:+.2f}]{mark}"]
        rows.append(row)
    columns = ["a", "b", "a - b", f"{CONFIDENCE:.0%} interval "]
    head = ["", *(f"{metric} {column}" for metric in ("AUC", "pAUC") for column in columns)]
    differences = "\n".join(line.rstrip() for line in scoring.text_table(head, rows).splitlines())
    rows = [
        [
            f"{entry.machine_type} {entry.machine_id}",
            "-" if entry.correlation is None else f"{entry.correlation:.4f}",
            f"{entry.a - entry.b:+.6g}",
            f"{entry.a:.6g}",
            f"{entry.b:.6g}",
            entry.clip,
        ]
        for entry in comparison.score_differences
    ]
    scores = scoring.text_table(["", "rank correlation", "largest a - b", "score a", "score b", "clip"], rows)
    return (
        f"a: {comparison.a}\nb: {comparison.b}\n\n{differences}\n"
        "AUC and pAUC in %. * The interval (paired, stratified bootstrap over clips) leaves out 0.\n\n"
        f"{scores}"
    )
