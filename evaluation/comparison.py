"""One system against another: differences of AUC and pAUC with confidence intervals, agreement of the scores."""

import logging
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import common
from evaluation.bootstrap import bootstrap_figures, interval
from evaluation.folders import Result, require_same_clips
from evaluation.metrics import Key, LabelledScores

OFFICIAL_SCORE = "official score"  # name of the line that has it alone
REPLICATES = 2000  # bootstrap samples per machine ID
SEED = 0

logger = logging.getLogger(__name__)


class Difference(NamedTuple):
    """Figures of a machine ID, such as AUC and pAUC, or averages, in two results."""

    name: str  # machine type and ID or "Average"; or mean
    a: tuple[float, ...]
    b: tuple[float, ...]
    interval: np.ndarray  # of a - b, shape (2, n_columns): lower and upper end


class ScoreDifference(NamedTuple):
    """How far the scores of a machine ID agree in two results."""

    name: str  # machine type and ID
    correlation: float | None  # Spearman's; None if the scores of one result are all equal
    clip: str  # with the largest difference
    a: float
    b: float


class Comparison(NamedTuple):
    """Result a against result b on the machine IDs that both have."""

    a: str
    b: str
    differences: list[Difference]
    score_differences: list[ScoreDifference]
    columns: Sequence[str] = ("AUC", "pAUC")


def compare(a: Result, b: Result, *, max_fpr: float, replicates: int = REPLICATES, seed: int = SEED) -> Comparison:
    """Differences of AUC, pAUC and scores, with bootstrap confidence intervals; averages over IDs and over types.

    Raises
    ------
    UserError : if the two do not cover the same clips.
    """
    samples: dict[str, dict[str, np.ndarray]] = {}  # machine type, ID -> of bootstrap samples
    score_differences = []
    for machine_type, machine_id in common_ids(a, b):
        name = f"{machine_type} {machine_id}"
        clips, labels, domains, scores_a, scores_b = _paired(*(r.scores[machine_type, machine_id] for r in (a, b)))
        # Seeded by the ID's name, so that IDs are independent and one ID's interval does not hang on the others.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        samples.setdefault(machine_type, {})[machine_id] = bootstrap_figures(
            *(labels, scores_a, scores_b),
            max_fpr=max_fpr,
            replicates=replicates,
            rng=rng,
            rule=a.rule,
            domains=domains,
        )
        with np.errstate(over="ignore"):
            worst = int(np.argmax(np.abs(scores_a - scores_b)))
        pair = float(scores_a[worst]), float(scores_b[worst])
        score_differences.append(ScoreDifference(name, rank_correlation(scores_a, scores_b), clips[worst], *pair))
    return Comparison(a.name, b.name, _differences(a, b, samples), score_differences, a.rule.names)


def common_ids(a: Result, b: Result) -> list[Key]:
    """Machine IDs that both results have; says which only one has.

    Raises
    ------
    UserError : if they have none in common, or different clips of a machine ID.
    """
    unrated = dict.fromkeys([*a.unrated, *b.unrated])
    if unrated:
        logger.warning("Without AUC, left out of the comparison: %s", ", ".join(map(" ".join, unrated)))
    for one, other in ((a, b), (b, a)):
        alone = [" ".join(key) for key in one.scores if key not in other.scores]
        if alone:
            logger.warning("Only in %s, left out of the comparison: %s", one.name, ", ".join(alone))
    both = [key for key in a.scores if key in b.scores and key not in unrated]
    if not both:
        raise common.UserError(
            f"{a.directory} and {b.directory} have no machine ID in common that has an AUC; nothing to compare"
        )
    require_same_clips([a, b], both)
    return both


def _paired(
    a: LabelledScores, b: LabelledScores
) -> tuple[list[str], np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Names, labels, domains, scores in a, in b of the same clips, by name: the files' order does not matter."""
    first, second = (np.array(sorted(range(len(side.names)), key=side.names.__getitem__)) for side in (a, b))
    domains = None if a.domains is None else a.domains[first]
    return sorted(a.names), a.labels[first], domains, a.scores[first], b.scores[second]


def _differences(a: Result, b: Result, ids: dict[str, dict[str, np.ndarray]]) -> list[Difference]:
    """A line per machine ID, one for the average of each type, and one for all together.

    Parameters
    ----------
    ids : machine type -> machine ID -> figures of bootstrap samples, shape (2, replicates, n_columns)
    """
    rule, differences = a.rule, []
    pairs = [
        {name: {key: r.performance[name][key] for key in of_type} for name, of_type in ids.items()} for r in (a, b)
    ]
    for machine_type, samples in ids.items():
        own = [pair[machine_type] for pair in pairs]
        differences += [
            Difference(f"{machine_type} {machine_id}", *(p[machine_id] for p in own), interval(np.subtract(*of_id)))
            for machine_id, of_id in samples.items()
        ]
        of_type = rule.mean(list(samples.values()))
        ends = interval(np.subtract(*of_type))
        differences.append(Difference(f"{machine_type} {rule.mean_name}", *map(rule.average, own), ends))
    if len(ids) > 1:
        ends = interval(np.subtract(*rule.overall_of(ids)))
        differences.append(Difference("mean", *map(rule.overall, pairs), ends))
    if rule.harmonic:
        together = rule.mean(
            [figures for of_type in ids.values() for of_id in of_type.values() for figures in np.moveaxis(of_id, -1, 0)]
        )
        scores = [(rule.official_score(pair),) for pair in pairs]
        differences.append(Difference(OFFICIAL_SCORE, *scores, interval(np.subtract(*together)[:, None])))
    return differences


def rank_correlation(scores_a: np.ndarray, scores_b: np.ndarray) -> float | None:
    """Spearman's rank correlation; None if all scores of one side are equal."""
    from scipy.stats import spearmanr

    if any(side.min() == side.max() for side in (scores_a, scores_b)):
        return None
    return float(spearmanr(scores_a, scores_b).statistic)
