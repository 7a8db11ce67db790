"""The challenge's ranking of systems."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import common
from evaluation.bootstrap import DECIMALS
from evaluation.folders import Result, require_same_clips
from evaluation.metrics import Performance
from evaluation.rules import IDS, Rule


class Ranked(NamedTuple):
    """A system's place."""

    place: int
    name: str
    mean_rank: float | None  # None: the official score decides
    ranks: dict[str, tuple[int, ...]]  # machine type -> rank by each figure, such as AUC and pAUC
    mean: tuple[float, ...]  # of each figure, over the machine types
    official_score: float | None = None


def rank(performances: dict[str, Performance], rule: Rule = IDS) -> list[Ranked]:
    """The challenge's ranking: by the official score, where the rule has one, or by mean ranks.

    Mean rank over machine types and AUC, pAUC; a tie goes to the higher mean pAUC. ``performances``, by system, are of
    the same machine types. Equal figures share the better rank; averages of the same figures in another order differ
    by rounding errors.
    """
    scores = {name: rule.official_score(performance) for name, performance in performances.items()}
    if None not in scores.values():
        order = sorted(scores, key=lambda name: (np.isnan(scores[name]), -scores[name]))
        return [
            Ranked(place, name, None, {}, rule.overall(performances[name]), scores[name])
            for place, name in enumerate(order, 1)
        ]
    return _by_mean_rank(performances, rule)


def _by_mean_rank(performances: dict[str, Performance], rule: Rule) -> list[Ranked]:
    from scipy.stats import rankdata

    names = list(performances)
    machine_types = list(performances[names[0]])
    # (systems, machine types, 2)
    figures = np.array([[rule.average(performances[n][t]) for t in machine_types] for n in names]).round(DECIMALS)
    ranks = rankdata(-figures, method="min", axis=0)
    means = figures.mean(axis=1)
    mean_ranks = ranks.mean(axis=(1, 2))
    order = sorted(range(len(names)), key=lambda i: (mean_ranks[i], -means[i, 1]))
    of_types = [
        dict(zip(machine_types, map(tuple, of_system.astype(int).tolist()), strict=True)) for of_system in ranks
    ]
    facts = list(zip(names, mean_ranks.tolist(), of_types, map(tuple, means.tolist()), strict=True))
    return [Ranked(place, *facts[i]) for place, i in enumerate(order, 1)]


def rank_results(results: Sequence[Result]) -> list[Ranked]:
    """``rank`` of evaluated folders; UserError if there is only one, or if they do not cover the same clips."""
    if len(results) < 2:
        raise common.UserError(f"{results[0].directory}: a ranking needs at least two folders of score files")
    require_same_clips(results)
    if not results[0].performance:
        raise common.UserError(f"{results[0].directory}: no machine ID gives an AUC; nothing to rank by")
    return rank({result.name: result.performance for result in results}, results[0].rule)
