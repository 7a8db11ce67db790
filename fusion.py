"""One score from several systems: the weighted sum of their log scores, each standardised by the training clips' own.

The sum is standardised as well: 0 as the usual training clip's, 1 one deviation above.

Systems differ in the unit and the spread of their scores, and fail on different machines. A fusion has no model of its
own: it trains its members where they are not trained, and scores with what they have learnt. Classifiers that have one
class alone to hear cannot be trained: it goes without them, which its record says.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audio.clips import Clip
from common import UserError
from config import System
from detectors.facts import log_facts
from detectors.standardised import standardised_by_id
from storage.records import differences, record_path
from training.deviation import Deviation
from training.families import Part, family_of
from training.model_records import JOINED, TrainingScores, counted, read_record
from training.run import Job, Run
from training.workload import trainable


def train(run: Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Train the members that can be trained on these clips, except where they are; records say which they left out."""
    able = {member.name: trainable(member, clips) for member in system.members}
    for member in system.members:
        if able[member.name]:
            family_of(member).train(run, member, able[member.name])
    for machine_type, own in clips.items():
        job = Job(run, system, machine_type, own)
        facts = {
            "left_out": [name for name, of_member in able.items() if machine_type not in of_member],
            "machine_ids": sorted({clip.machine_id for clip in own}),
        }
        old = read_record(job.folder, machine_type) if job.is_chief else None
        if not old or differences(old, job.record | facts):
            job.finish({}, facts)


def require(run: Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Raise UserError unless every member can score these clips and was trained on the same ones as the others."""
    faults = []
    of_types = {machine_type: _counted(run, system, machine_type) for machine_type in clips}
    for member in system.members:
        own = {name: part for name, part in clips.items() if member in of_types[name].members}
        try:
            if own:
                family_of(member).require(run, member, own)
        except UserError as error:  # to name the faults of all members at once
            faults.append(f"{system.name}: member {member.name}: {error}")
    if faults:
        raise UserError("\n".join(faults))
    for machine_type, test_clips in clips.items():
        of_members = _training_scores(run, system, machine_type)
        _check_same_clips(run, system, machine_type, of_members, test_clips)
        record = read_record(run.model_folder(system), machine_type) or {}
        known = sorted({*next(iter(of_members.values())).machine_ids.tolist()})
        if record.get("left_out") and record["machine_ids"] != known:
            raise UserError(
                f"{system.name}: {machine_type}: its members know {', '.join(known)}; it goes without "
                f"{', '.join(record['left_out'])} since it was trained on {', '.join(record['machine_ids'])}. "
                f"Train it anew: {run.train_command(system)}"
            )


def _counted(run: Run, system: System, machine_type: str) -> System:
    """The fusion of those members alone that were not left out for a machine type."""
    return counted(run.config, run.training_data, system, machine_type)


def _check_same_clips(
    run: Run, system: System, machine_type: str, of_members: dict[str, TrainingScores], clips: Sequence[Clip]
) -> None:
    """Raise UserError unless the members know the same training clips, and some of each test clip's machine ID."""
    (first, known), *others = of_members.items()
    for name, own in others:
        if own.names != known.names or not np.array_equal(own.checksums, known.checksums):
            raise UserError(
                f"{system.name}: {machine_type}: its members {first} and {name} were trained on different clips"
                f"{' of the same names' if own.names == known.names else ''}; "
                f"train them anew: {run.train_command(system)}"
            )
    unknown = sorted({clip.machine_id for clip in clips} - set(known.machine_ids.tolist()))
    if unknown:
        raise UserError(
            f"{system.name}: {machine_type}: no training clips of {', '.join(unknown)}; a fusion weighs its members by "
            "the training clips of each machine ID. Train on clips of these machines"
        )


def made_by(run: Run, system: System, machine_type: str) -> list[Path]:
    """Files that stand for what scores the clips of a machine type: those of the members, and who they are."""
    members, own = _counted(run, system, machine_type).members, record_path(run.model_folder(system), machine_type)
    paths = [path for member in members for path in family_of(member).made_by(run, member, machine_type)]
    return paths + [own] * own.is_file()  # members that were trained by themselves have no such record


def anomaly_scores(run: Run, system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips of a machine type, shape (n_clips,), float64; higher = more anomalous."""
    n_members, system = len(system.members), _counted(run, system, machine_type)
    run.progress.update(len(clips) * (n_members - len(system.members)))
    scores = [family_of(member).anomaly_scores(run, member, machine_type, clips) for member in system.members]
    machine_ids = np.array([clip.machine_id for clip in clips])
    return _by_machine_id(system, scores, machine_ids, _training_scores(run, system, machine_type))


def training_scores(run: Run, system: System, machine_type: str) -> TrainingScores:
    """Scores of the training clips of a machine type."""
    system = _counted(run, system, machine_type)
    of_members = _training_scores(run, system, machine_type)
    first = next(iter(of_members.values()))
    return dataclasses.replace(first, scores=_own_scores(system, of_members), unit=JOINED)


def _own_scores(system: System, of_members: dict[str, TrainingScores]) -> np.ndarray:
    """Scores of the training clips, (n_clips,), from those that the members give them."""
    scores = [own.scores for own in of_members.values()]
    return _by_machine_id(system, scores, next(iter(of_members.values())).machine_ids, of_members)


def _training_scores(run: Run, system: System, machine_type: str) -> dict[str, TrainingScores]:
    """What each member that counts gives the training clips."""
    members = _counted(run, system, machine_type).members
    return {member.name: family_of(member).training_scores(run, member, machine_type) for member in members}


def _by_machine_id(
    system: System,
    scores: Sequence[np.ndarray],
    machine_ids: np.ndarray,
    of_members: dict[str, TrainingScores],
) -> np.ndarray:
    """The members' ``scores`` as one, each and the sum standardised by the training clips of the clip's machine ID."""
    own, own_ids = _own_sums(system, of_members)
    sums = _addends(system, scores, machine_ids, of_members).sum(axis=0)
    return standardised_by_id(sums, machine_ids, own, own_ids, joined=True)


def _own_sums(system: System, of_members: dict[str, TrainingScores]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of what the members add to the scores of the training clips, (n_clips,), and the clips' machine IDs."""
    own_ids = next(iter(of_members.values())).machine_ids
    return _addends(system, [own.scores for own in of_members.values()], own_ids, of_members).sum(axis=0), own_ids


def _addends(
    system: System, scores: Sequence[np.ndarray], machine_ids: np.ndarray, of_members: dict[str, TrainingScores]
) -> np.ndarray:
    """What each member adds to the scores, (n_members, n_clips)."""
    members = zip(scores, of_members.values(), system.model.members.values(), strict=True)
    return np.stack(
        [
            weight * standardised_by_id(part, machine_ids, own.scores, own.machine_ids, joined=own.joined)
            for part, own, weight in members
        ]
    )


def deviations(run: Run, system: System, machine_type: str, clips: Sequence[Clip]) -> list[Deviation]:
    """Those by the member that weighs most in the score of the most unusual clip, of those that can tell."""
    system = _counted(run, system, machine_type)
    scores = [family_of(member).anomaly_scores(run, member, machine_type, clips) for member in system.members]
    machine_ids = np.array([clip.machine_id for clip in clips])
    addends = _addends(system, scores, machine_ids, _training_scores(run, system, machine_type))
    heaviest = np.argsort(-addends[:, addends.sum(axis=0).argmax()])
    silent = []  # members that weigh more and cannot tell
    for member in (system.members[place] for place in heaviest):
        if found := family_of(member).deviations(run, member, machine_type, clips):
            note = f"{', '.join(silent)} weighs more and tells no bands; " if silent else ""
            return [dataclasses.replace(one, note=f"{note}by {one.note or one.system}") for one in found]
        silent.append(member.name)
    return []


def parts(run: Run, system: System, machine_type: str) -> list[Part]:
    """What is exported: the parts of the members, and what they are summed by."""
    system = _counted(run, system, machine_type)

    def learn(clips: Sequence[Clip], values: np.ndarray) -> tuple[dict, np.ndarray]:
        known = _training_scores(run, system, machine_type).items()
        machine_ids = np.array([clip.machine_id for clip in clips])
        of_members = {
            name: dataclasses.replace(own, machine_ids=machine_ids, scores=column)
            for (name, own), column in zip(known, values.T, strict=True)
        }
        return _score_facts(system, machine_type, of_members), _own_scores(system, of_members)

    of_members = [part for member in system.members for part in family_of(member).parts(run, member, machine_type)]
    score = _score_facts(system, machine_type, _training_scores(run, system, machine_type))
    return [*of_members, Part(system, machine_type, {"score": score}, learn=learn)]


def _score_facts(system: System, machine_type: str, of_members: dict[str, TrainingScores]) -> dict:
    """How the members' scores become one, for other programs."""
    members = {
        name: {
            "weight": weight,
            "json": f"{name}_{machine_type}.json",
            "log": log_facts(of_members[name].scores, of_members[name].machine_ids, joined=of_members[name].joined),
        }
        for name, weight in system.model.members.items()
    }
    return {"kind": "fusion", "members": members, "joined": log_facts(*_own_sums(system, of_members), joined=True)}
