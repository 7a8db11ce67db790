"""Labels with scores or decisions -> AUC and pAUC, precision and recall, of machine IDs, types, all."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

import common
from evaluation.rules import IDS, Column, Rule

Key = tuple[str, str]  # machine type, machine ID (or what else has score files of its own, see years/year.py)
Performance = dict[str, dict[str, tuple[float, ...]]]  # machine type -> machine ID -> a figure for each of the columns


class LabelledScores(NamedTuple):
    """The test clips of one machine ID, by name."""

    labels: np.ndarray  # shape (n_clips,), 0 normal, 1 anomaly, -1 unknown
    scores: np.ndarray  # shape (n_clips,), higher = more anomalous
    names: tuple[str, ...] = ()
    decisions: np.ndarray | None = None  # shape (n_clips,), 0 called normal, 1 anomalous; None: not decided
    domains: np.ndarray | None = None  # shape (n_clips,), number of the year's domain, -1 unknown; None: as -1

    def labelled(self) -> "LabelledScores":
        """Labels, scores and domains of the clips whose label is known."""
        known = self.labels >= 0
        domains = None if self.domains is None else self.domains[known]
        return LabelledScores(self.labels[known], self.scores[known], domains=domains)


class Decisions(NamedTuple):
    """How good the decisions on the test clips of a machine ID are; NaN where the clips do not tell."""

    precision: float  # share of anomalies among the clips that are called anomalous
    recall: float  # share of the anomalies that are called anomalous
    f1: float  # harmonic mean of the two
    false_alarms: float  # share of the normal clips that are called anomalous


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


def figures(clips: LabelledScores, rule: Rule, *, max_fpr: float) -> tuple[float, ...]:
    """A figure for each of the rule's columns, NaN where the clips of a domain give none.

    Raises
    ------
    ValueError : as :func:`auc_pauc`, of all clips.
    """
    labels, scores = clips.labels, clips.scores
    of_all = auc_pauc(labels, scores, max_fpr=max_fpr)

    def figure(column: Column) -> float:
        chosen = column.clips(labels, clips.domains)
        if chosen.all():
            return of_all[column.partial]
        if len(np.unique(labels[chosen])) < 2:
            return math.nan
        return auc_pauc(labels[chosen], scores[chosen], max_fpr=max_fpr)[column.partial]

    return tuple(figure(column) for column in rule.columns)


def evaluate(
    scores: Mapping[Key, LabelledScores], *, max_fpr: float, rated_only: bool = False, rule: Rule = IDS
) -> Performance:
    """Figures of every machine ID; UserError names those whose labels and scores give none.

    With ``rated_only``, clips whose label is not known are passed over, and machine IDs with clips of one kind.
    """
    performance: Performance = {}
    faults = []
    for (machine_type, machine_id), clips in scores.items():
        if rated_only:
            clips = clips.labelled()
            if len(np.unique(clips.labels)) < 2:
                continue
        try:
            performance.setdefault(machine_type, {})[machine_id] = figures(clips, rule, max_fpr=max_fpr)
        except ValueError as error:
            faults.append(f"{machine_type} {machine_id}: {error}")
    if faults:
        raise common.fault_list("No AUC for these machine IDs", faults, "Mend or remove their test clips.")
    return performance


def decision_figures(labels: Sequence[int], decisions: Sequence[int]) -> Decisions:
    """Precision, recall, F1 and false-alarm rate of labels and decisions, shape (n_clips,), 0 normal, 1 anomaly.

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


def judge(scores: Mapping[Key, LabelledScores], domains: Sequence[str] = ()) -> dict[str, dict[str, Decisions]]:
    """Machine type -> machine ID -> how good its decisions are; without those that have no decisions or no labels.

    Parameters
    ----------
    domains : whose clips are judged apart, where they are known
    """
    figures: dict[str, dict[str, Decisions]] = {}
    for (machine_type, machine_id), clips in scores.items():
        if clips.decisions is None or not (clips.labels >= 0).any():
            continue
        parts = {machine_id: np.ones(len(clips.labels), bool)}
        if domains and clips.domains is not None and (clips.domains >= 0).all():
            parts = {f"{machine_id} {name}": clips.domains == number for number, name in enumerate(domains)}
        for name, part in parts.items():
            if part.any():
                of_a_type = figures.setdefault(machine_type, {})
                of_a_type[name] = decision_figures(clips.labels[part], clips.decisions[part])
    return figures


def decision_averages(figures: Iterable[Decisions]) -> Decisions:
    """Arithmetic means over machine IDs or types, of those that are known."""
    columns = np.array(list(figures)).T
    return Decisions(*(float(np.mean(known)) if (known := c[~np.isnan(c)]).size else math.nan for c in columns))
