"""All that a detector's scores take, as plain values for other programs; examples/score_onnx.py computes with them."""

from collections.abc import Sequence

import numpy as np

from config import Detector
from detectors import memory, outliers
from detectors.memory import Memory
from detectors.standardised import log_statistics

LOF_EPSILON = 1e-10  # scikit-learn's, added to a mean reachability distance


def detector_facts(detector: Detector, remembered: Memory, *, widths: Sequence[int], combine: str) -> dict:
    """The detectors' settings, and for each machine ID, or for ``all``, the vectors that a clip's is compared with.

    There is a detector for each part of a clip's vector; where there are several, the score is the largest, or the
    mean, of their standardised log scores, standardised as ``joined`` says.
    """
    several, parts = len(widths) > 1, []
    owns = memory.own_scores_of_parts(remembered, detector, tuple(widths)) if several else [None]
    for own, (_, part) in zip(owns, remembered.parts(widths) if several else [(None, remembered)], strict=True):
        known = np.unique(part.machine_ids).tolist()
        names = {"all": known[0]} if detector.lof_per == "machine_type" else dict(zip(known, known, strict=True))
        of_ids = {name: _reference_facts(detector, part, machine_id) for name, machine_id in names.items()}
        log = {"log": log_facts(own, part.machine_ids)} if several else {}
        parts.append({"width": part.vectors.shape[1], **log, "machine_ids": of_ids})
    rule = {}
    if several:
        joined = log_facts(remembered.joined(detector, widths, combine), remembered.machine_ids, joined=True)
        rule = {"combine": "max" if combine == "max" else "mean", "joined": joined}
    return {"kind": "detector", **memory.settings(detector), **rule, "parts": parts}


def _reference_facts(detector: Detector, remembered: Memory, machine_id: str) -> dict:
    """Vectors of the training clips, which a clip's is compared with as ``((vector - mean) * scale) @ matrix``.

    Of each its radius, the mean distance to its neighbours (lof: that to the last one), and lof's reachability density.
    """
    train, facts = remembered.vectors[remembered.group(detector, machine_id)], {}
    if detector.STANDARDISED:
        mean, deviation = outliers.standardisation(train)
        train = (train - mean) / deviation
        facts = {"mean": plain_numbers(mean), "scale": plain_numbers(1 / deviation)}
        if detector.decorrelation:
            matrix = outliers.decorrelation(train, power=detector.decorrelation)
            train = train @ matrix
            facts["matrix"] = [plain_numbers(row) for row in matrix]
    train = outliers.distinct(train)
    facts["vectors"] = [plain_numbers(vector) for vector in train]
    return facts | _density_facts(detector, train)


def _density_facts(detector: Detector, train: np.ndarray) -> dict:
    """How densely the training vectors (n_train, n_numbers) lie, where scores depend on it."""
    from sklearn.neighbors import NearestNeighbors

    if detector.score == "knn" or len(train) <= detector.n_neighbors:  # too few to score by, which the scores say
        return {}
    nearest = NearestNeighbors(n_neighbors=detector.n_neighbors, metric=detector.metric).fit(train)
    distances, neighbors = nearest.kneighbors()
    if detector.score == "density":
        return {"radii": plain_numbers(distances.mean(axis=1))}
    radii = distances[:, -1]
    reach = np.maximum(distances, radii[neighbors]).mean(axis=1)
    return {"radii": plain_numbers(radii), "densities": plain_numbers(1 / (reach + LOF_EPSILON))}


def plain_numbers(values: np.ndarray) -> list[float]:
    """As few digits as give the same float32 again."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def log_facts(scores: np.ndarray, machine_ids: np.ndarray, *, joined: bool = False) -> dict:
    """What standardises scores, of each machine ID and of all: ``(log(max(score, least)) - mean) / deviation``.

    Those that are ``joined`` have no ``least``: ``(score - mean) / deviation``.
    """
    groups = {name: machine_ids == name for name in np.unique(machine_ids).tolist()} | {"all": slice(None)}
    return {name: log_statistics(scores[group], joined=joined) for name, group in groups.items()}
