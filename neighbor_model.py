"""Systems without a network: outlier detectors on descriptors of the clips.

Their training computes the descriptors of the training clips, which the detectors remember. One machine is enough.

Each group of a descriptor's parts has a detector of its own, since an anomaly is heard in one of them: in a distance
over all, or a sum, those that hear nothing dilute it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audio import features
from audio.bands import mel_edges, numbers_of
from audio.clips import Clip
from config import System
from detectors import decision, memory
from detectors.facts import detector_facts
from detectors.memory import Memory
from storage.records import record_path
from training.deviation import Deviation
from training.families import Part
from training.model_records import TrainingScores, check_sample_rate
from training.run import Job, Run


def train(run: Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Compute the descriptors of each machine type's clips, except where they are there.

    Parameters
    ----------
    clips : machine type -> training clips
    """
    for machine_type, train_clips in clips.items():
        job = Job(run, system, machine_type, train_clips)
        if job.is_done():
            job.skip(1)
            continue
        vectors = run.descriptors(system, train_clips)
        remembered = Memory.of(train_clips, vectors)
        own = own_scores(system, remembered)
        facts = {"thresholds": {machine_type: decision.of_training(own, run.config)}, "score_unit": own.unit}
        writers = {memory.file_name("descriptors", machine_type): remembered.write}
        job.finish(writers, facts)


def require(run: Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Raise UserError unless the descriptors of enough training clips are there for each machine type and ID."""
    faults = []
    for machine_type, test_clips in clips.items():
        check_sample_rate(run.require_trained(system, machine_type), test_clips)
        of_type = load_memory(run, system, machine_type).faults(system.model, [clip.machine_id for clip in test_clips])
        faults += [f"{machine_type} {fault}" for fault in of_type]
    memory.require_scorable(system, faults)


def made_by(run: Run, system: System, machine_type: str) -> list[Path]:
    """Files that stand for what scores the clips of a machine type: the record of their descriptors."""
    return [record_path(run.model_folder(system), machine_type)]


def load_memory(run: Run, system: System, machine_type: str) -> Memory:
    """Descriptors of a machine type's training clips."""
    return memory.load(run, system, machine_type, "descriptors", machine_type)


def anomaly_scores(run: Run, system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips of a machine type, shape (n_clips,), float64; higher = more anomalous."""
    vectors = run.descriptors(system, clips)
    remembered = load_memory(run, system, machine_type)
    return remembered.joint_scores(system.model, vectors, [clip.machine_id for clip in clips], **groups(system))


def training_scores(run: Run, system: System, machine_type: str) -> TrainingScores:
    """Scores of the training clips of a machine type, each as if the detectors did not remember it."""
    return own_scores(system, load_memory(run, system, machine_type))


def own_scores(system: System, remembered: Memory) -> TrainingScores:
    """Scores of the clips that are remembered, each as if it were not."""
    scores = remembered.joint_own_scores(system.model, **groups(system))
    return remembered.training_scores(scores, memory.score_unit(system.model, **groups(system)))


def deviations(run: Run, system: System, machine_type: str, clips: Sequence[Clip]) -> list[Deviation]:
    """Where each clip is unlike the training clips: what each number of its descriptor adds to the distance."""
    sample_rate = clips[0].sample_rate
    vectors = np.stack([*features.descriptors(clips, system.descriptor, system.feature, None)])
    remembered, machine_ids = load_memory(run, system, machine_type), [clip.machine_id for clip in clips]
    weights = np.concatenate(
        [
            part.excess(system.model, vectors[:, columns], machine_ids)
            for columns, part in remembered.parts(groups(system)["widths"])
        ],
        axis=1,
    )
    about = dataclasses.asdict(numbers_of(system.descriptor, system.feature, sample_rate))
    about |= {"edges": mel_edges(system.feature, sample_rate), "unit": "deviations of the distances"}
    return [Deviation(system.name, weights=row, **about) for row in weights]


def groups(system: System) -> dict:
    """Numbers of each group of a descriptor's parts, and how their scores become one."""
    of_groups = features.parts(system.descriptor, system.feature)
    widths = [sum(quantity.width for quantity in quantities.values()) for quantities in of_groups]
    return {"widths": widths, "combine": system.model.combine}


def parts(run: Run, system: System, machine_type: str) -> list[Part]:
    """What is exported: the descriptors that a clip's are compared with."""
    score = detector_facts(system.model, load_memory(run, system, machine_type), **groups(system))
    facts = {"descriptor": dataclasses.asdict(system.descriptor), "score": score}
    return [Part(system, machine_type, facts, machine_type)]
