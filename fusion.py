"""One score from several systems: the weighted sum of their log scores, each standardised by the training clips' own.

Systems differ in the unit and the spread of their scores, and fail on different machines. A fusion has no model of its
own: it trains its members where they are not trained, and scores with what they have learnt.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import records
import training
from common import Clip, UserError
from config import System

FLOOR = 1e-3  # of the least training score
ROUNDING = 1e-6  # deviation of log scores that are equal but for rounding


def log_statistics(training_scores: np.ndarray) -> tuple[float, float, float]:
    """Least score that counts as itself, and mean and deviation of the log scores, of training clips (n_train,).

    A score of 0 (a probability of one, an error of zero) has no logarithm: no score counts as less than a thousandth
    of the least training score above 0.
    """
    positive = training_scores[training_scores > 0]
    least = FLOOR * positive.min() if positive.size else np.finfo(np.float64).tiny
    logs = np.log(np.maximum(training_scores, least))
    deviation = logs.std()
    return float(least), float(logs.mean()), float(deviation if deviation > ROUNDING else 1.0)


def standardised(scores: np.ndarray, training_scores: np.ndarray) -> np.ndarray:
    """Log scores in deviations from the mean of the training clips' log scores, shape (n,).

    Parameters
    ----------
    scores, training_scores : ndarray, shape (n,) and (n_train,), of one system and machine ID, at least 0
    """
    least, mean, deviation = log_statistics(training_scores)
    return (np.log(np.maximum(scores, least)) - mean) / deviation


def standardised_by_id(scores: np.ndarray, machine_ids: np.ndarray, own: np.ndarray, own_ids: np.ndarray) -> np.ndarray:
    """Standardised log scores, by the training clips' ``own`` of the same machine ID, or of all where it has none."""
    found = np.empty(len(scores))
    for machine_id in np.unique(machine_ids):
        members = machine_ids == machine_id
        of_id = own[own_ids == machine_id]
        found[members] = standardised(scores[members], of_id if of_id.size else own)
    return found


# ---- the functions that the scripts call ----


def train(run: training.Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Train the members that are not trained on just these clips."""
    for member in system.members:
        member.module.train(run, member, clips)


def require(run: training.Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Raise UserError unless every member can score these clips and was trained on the same ones as the others."""
    faults = []
    for member in system.members:
        try:
            member.module.require(run, member, clips)
        except UserError as error:  # to name the faults of all members at once
            faults.append(f"{system.name}: member {member.name}: {error}")
    if faults:
        raise UserError("\n".join(faults))
    for machine_type, test_clips in clips.items():
        _check_same_clips(system, machine_type, _training_scores(run, system, machine_type), test_clips)


def _check_same_clips(
    system: System, machine_type: str, of_members: dict[str, records.TrainingScores], clips: Sequence[Clip]
) -> None:
    """Raise UserError unless the members know the same training clips, and some of each test clip's machine ID."""
    (first, known), *others = of_members.items()
    for name, own in others:
        if own.names != known.names or not np.array_equal(own.checksums, known.checksums):
            raise UserError(
                f"{system.name}: {machine_type}: its members {first} and {name} were trained on different clips"
                f"{' of the same names' if own.names == known.names else ''}; "
                f"train them anew: python 00_train.py --system {system.name}"
            )
    unknown = sorted({clip.machine_id for clip in clips} - set(known.machine_ids.tolist()))
    if unknown:
        raise UserError(
            f"{system.name}: {machine_type}: no training clips of {', '.join(unknown)}; a fusion weighs its members by "
            "the training clips of each machine ID. Train on clips of these machines"
        )


def made_by(run: training.Run, system: System, machine_type: str) -> list[Path]:
    """Files that stand for what scores the clips of a machine type: those of the members."""
    return [path for member in system.members for path in member.module.made_by(run, member, machine_type)]


def anomaly_scores(run: training.Run, system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips of a machine type, shape (n_clips,), float64; higher = more anomalous."""
    scores = [member.module.anomaly_scores(run, member, machine_type, clips) for member in system.members]
    machine_ids = np.array([clip.machine_id for clip in clips])
    return _by_machine_id(system, scores, machine_ids, _training_scores(run, system, machine_type))


def training_scores(run: training.Run, system: System, machine_type: str) -> records.TrainingScores:
    """Scores of the training clips of a machine type."""
    of_members = _training_scores(run, system, machine_type)
    first = next(iter(of_members.values()))
    scores = [own.scores for own in of_members.values()]
    return dataclasses.replace(first, scores=_by_machine_id(system, scores, first.machine_ids, of_members))


def _training_scores(run: training.Run, system: System, machine_type: str) -> dict[str, records.TrainingScores]:
    return {member.name: member.module.training_scores(run, member, machine_type) for member in system.members}


def _by_machine_id(
    system: System,
    scores: Sequence[np.ndarray],
    machine_ids: np.ndarray,
    of_members: dict[str, records.TrainingScores],
) -> np.ndarray:
    """The members' ``scores`` as one, each standardised by the training clips of the clip's machine ID."""
    members = zip(scores, of_members.values(), system.model.members.values(), strict=True)
    return sum(
        weight * standardised_by_id(part, machine_ids, own.scores, own.machine_ids) for part, own, weight in members
    )
