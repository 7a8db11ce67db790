"""All that a detector's scores take, as plain values for other programs."""

from collections.abc import Sequence

import numpy as np

from config import Detector
from detectors import outliers
from detectors.memory import Memory, settings
from detectors.standardised import log_statistics


def detector_facts(detector: Detector, remembered: Memory, *, widths: Sequence[int], combine: str) -> dict:
    """The detectors' settings, and for each machine ID the vectors that a clip's is compared with.

    There is a detector for each part of a clip's vector; where there are several, the score is ``exp`` of the largest,
    or of the mean, of their standardised log scores.
    """
    parts = []
    several = len(widths) > 1
    for _, part in remembered.parts(widths) if several else [(None, remembered)]:
        of_ids = {name: _reference_facts(detector, part, name) for name in np.unique(part.machine_ids).tolist()}
        log = {"log": log_facts(part.own_scores(detector), part.machine_ids)} if several else {}
        parts.append({"width": part.vectors.shape[1], **log, "machine_ids": of_ids})
    rule = {"combine": "max" if combine == "max" else "mean"} if several else {}
    return {"kind": "detector", **settings(detector), **rule, "parts": parts}


def _reference_facts(detector: Detector, remembered: Memory, machine_id: str) -> dict:
    """Vectors of the training clips; a clip's is compared with them as ``(vector - mean) * scale``."""
    train, facts = remembered.vectors[remembered.group(detector, machine_id)], {}
    if detector.STANDARDISED:
        mean, deviation = outliers.standardisation(train)
        train = (train - mean) / deviation
        facts = {"mean": plain_numbers(mean), "scale": plain_numbers(1 / deviation)}
    return {**facts, "vectors": [plain_numbers(vector) for vector in outliers.distinct(train)]}


def plain_numbers(values: np.ndarray) -> list[float]:
    """As few digits as give the same float32 again."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def log_facts(scores: np.ndarray, machine_ids: np.ndarray) -> dict:
    """What standardises log scores, for each machine ID: ``(log(max(score, least)) - mean) / deviation``."""
    return {
        machine_id: dict(
            zip(("least", "mean", "deviation"), log_statistics(scores[machine_ids == machine_id]), strict=True)
        )
        for machine_id in np.unique(machine_ids).tolist()
    }
