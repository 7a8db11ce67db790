"""The clips that a run works on: found in the YAML's folders, all of them checked. Nothing here loads TensorFlow."""

import contextlib
import itertools
import logging
from collections.abc import Mapping, Sequence
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
from training.workload import left_out, workload

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
    types = machine_types(settings, training_data.split("+"), wanted)
    if alone := _lacking(settings, types):
        if not wanted:
            advice = "Put the others' clips there too, or name the types to train on with --machine-type."
            raise fault_list("Machine types that one dataset lacks", alone, advice)
        logger.warning("%s", "; ".join(alone))
    clips = checked_clips(settings, train_folders(settings, types), systems, normal_only=True)
    for split in types:
        place = settings.directory(split)
        of_split = {name: [clip for clip in own if place in clip.path.parents] for name, own in clips.items()}
        expected.check(settings, split, {name: own for name, own in of_split.items() if own}, tested=False)
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
    directory, types = settings.directory(split), machine_types(settings, [split], wanted)[split]
    folders = [(name, folder) for name in types for folder in test_folders(directory, name, settings.challenge)]
    clips = checked_clips(settings, folders, systems, normal_only=False)
    expected.check(settings, split, clips, tested=True)
    return {machine_type: official_order(own) for machine_type, own in clips.items()}


def machine_types(settings: Config, splits: Sequence[str], wanted: Sequence[str] | None) -> dict[str, list[str]]:
    """Split -> the machine types that it has, or those of them that are wanted."""
    keys = [f"{split}_directory" for split in splits]
    directories = dict(zip(keys, map(settings.directory, splits), strict=True))
    return dict(zip(splits, select_machine_types(directories, wanted, settings.challenge).values(), strict=True))


def _lacking(settings: Config, types: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines on machine types that one of several splits lacks, though both should have them.

    The year knows which one has its machine types; one's own are looked for in both.
    """
    lines = []
    for name in sorted({*itertools.chain(*types.values())}):
        there = {split for split in types if name in types[split]}
        should = {split for split in types if settings.challenge.units(split, name)} or {*types}
        if should - there:
            lines.append(f"{name}: only in {' and '.join(str(settings.directory(split)) for split in sorted(there))}")
    return lines


def train_folders(settings: Config, types: Mapping[str, Sequence[str]]) -> list[tuple[str, Path]]:
    """Machine type and folder of training clips; ``types``: split -> machine types."""
    pairs = [(name, settings.directory(split) / name) for split in types for name in types[split]]
    kinds = ["train", SUPPLEMENTAL] if settings.supplemental else ["train"]
    return [(name, place / kind) for kind in kinds for name, place in pairs]


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
    """Progress steps that training takes; the log says which members a fusion leaves out.

    Raises
    ------
    UserError : if a system cannot be trained on these clips, naming those of the YAML that can.
    """
    try:
        steps = sum(workload(system, clips) for system in systems)
    except UserError as error:
        able = []
        for system in settings.systems.values():
            with contextlib.suppress(UserError):
                workload(system, clips)
                able.append(system.name)
        advice = f"\nOn these clips, --system {', '.join(able)} can be trained." if able else ""
        raise UserError(f"{error}{advice}") from error
    for line in filter(None, (left_out(system, clips) for system in systems)):
        logger.warning("%s", line)
    return steps
