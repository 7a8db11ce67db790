"""The clips that a run works on: found in the YAML's folders, all of them checked. Nothing here loads TensorFlow."""

import contextlib
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

from audio import likeness
from audio.clips import (
    SUPPLEMENTAL,
    Clip,
    by_machine_type,
    check_clips,
    official_order,
    select_machine_types,
    test_folders,
)
from common import UserError, fault_list
from config import Config, System
from training import expected
from training.workload import workload

logger = logging.getLogger(__name__)


def train_clips(
    settings: Config, training_data: str, systems: Sequence[System], wanted: Sequence[str] | None
) -> dict[str, list[Clip]]:
    """Machine type -> its training clips; what is odd about them is said.

    Parameters
    ----------
    training_data : ``dev``, ``eval`` or ``dev+eval``
    wanted : machine types; None: all
    """
    splits = training_data.split("+")
    types = {split: _machine_types(settings, split, wanted) for split in splits}
    everywhere = set.intersection(*map(set, types.values()))
    alone = [f"{name}: only in {settings.directory(split)}" for split in types for name in {*types[split]} - everywhere]
    if alone:
        advice = "Training on dev+eval needs both; name the types that have both with --machine-type."
        raise fault_list("Machine types that one dataset lacks", sorted(alone), advice)
    folders = [(name, settings.directory(split) / name / "train") for split in types for name in types[split]]
    if settings.supplemental:
        folders += [(name, settings.directory(split) / name / SUPPLEMENTAL) for split in types for name in types[split]]
    clips = checked_clips(settings, folders, systems, normal_only=True)
    expected.check(settings, splits, clips, tested=False)
    for machine_type, own in clips.items():
        logger.info("%s: %d training clips", machine_type, len(own))
        for line in [*likeness.misfits(own, likeness.summary(own), "training clips"), *likeness.uncut(own)]:
            logger.warning("%s: %s", machine_type, line)
    for line in likeness.copies([*itertools.chain(*clips.values())], "training clips"):
        logger.warning("%s", line)
    return clips


def test_clips(
    settings: Config, split: str, systems: Sequence[System], wanted: Sequence[str] | None
) -> dict[str, list[Clip]]:
    """Machine type -> its test clips in the official order; parameters as above."""
    directory, types = settings.directory(split), _machine_types(settings, split, wanted)
    folders = [(name, folder) for name in types for folder in test_folders(directory, name, settings.challenge)]
    clips = checked_clips(settings, folders, systems, normal_only=False)
    expected.check(settings, [split], clips, tested=True)
    return {machine_type: official_order(own) for machine_type, own in clips.items()}


def _machine_types(settings: Config, split: str, wanted: Sequence[str] | None) -> list[str]:
    """Machine types of a split that there are, or those of them that are wanted."""
    return select_machine_types(settings.directory(split), f"{split}_directory", wanted, settings.challenge)


def checked_clips(
    settings: Config, folders: Sequence[tuple[str, Path]], systems: Sequence[System], *, normal_only: bool
) -> dict[str, list[Clip]]:
    """Machine type -> the clips of (machine type, folder) pairs, which all of the systems can work on."""
    return by_machine_type(
        check_clips(
            folders,
            min_samples=max(system.min_samples for system in systems),
            normal_only=normal_only,
            names=settings.names,
            year=settings.challenge,
            channel=settings.channel,
            cache_directory=settings.cache_directory,
        )
    )


def work(settings: Config, systems: Sequence[System], clips: dict[str, list[Clip]]) -> int:
    """Progress steps that training takes.

    Raises
    ------
    UserError : if a system cannot be trained on these clips, naming those of the YAML that can.
    """
    try:
        return sum(workload(system, clips) for system in systems)
    except UserError as error:
        able = []
        for system in settings.systems.values():
            with contextlib.suppress(UserError):
                workload(system, clips)
                able.append(system.name)
        advice = f"\nOn these clips, --system {', '.join(able)} can be trained." if able else ""
        raise UserError(f"{error}{advice}") from error
