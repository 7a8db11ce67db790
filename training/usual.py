"""The usual clips of a system, which it was trained on: what is to be scored is compared with them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from audio import likeness
from audio.clips import Clip
from config import System
from training.families import family_of
from training.model_records import read_record

if TYPE_CHECKING:
    from training.run import Run


def usual_clips(run: "Run", system: System, machine_type: str) -> dict | None:
    """What a system's training clips of a machine type are like, see :func:`audio.likeness.summary`.

    None for models of others, and of an earlier version.
    """
    for path in family_of(system).made_by(run, system, machine_type):
        record = read_record(path.parent, path.stem.removeprefix("record_")) if path.suffix == ".yaml" else None
        usual = (record or {}).get("usual", {}).get(machine_type, {})
        if likeness.MEASURES.keys() <= usual.keys():
            return usual
    return None


def unlike_training(run: "Run", systems: Sequence[System], clips: Mapping[str, Sequence[Clip]]) -> list[str]:
    """Lines on test clips that are not like the training clips, or are copies; what systems have in common once."""
    lines = {}
    for system in systems:
        for machine_type, test_clips in clips.items():
            if usual := usual_clips(run, system, machine_type):
                found = likeness.misfits(test_clips, usual, "test clips")
                found += likeness.copies(test_clips, "test clips", usual["sounds"])
                lines |= dict.fromkeys(f"{machine_type}: {line}" for line in found)
    return [*lines]
