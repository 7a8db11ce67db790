"""All that training and scoring would check, without either: what is found is told. Nothing here loads TensorFlow."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from audio import likeness
from audio.clips import LABELS, Clip, machine_types_in, test_folders
from common import UserError, fault_list, soundfile_library
from config import Config, Detector, Fusion, System
from training import dataset
from training.model_records import require_writable, start_weights

Clips = dict[str, list[Clip]]  # machine type -> its clips

LABEL_NAMES = {label: name for name, label in LABELS.items()} | {None: "without label"}

logger = logging.getLogger(__name__)


def survey(
    settings: Config, training_data: str, split: str, systems: Sequence[System], wanted: Sequence[str] | None
) -> Iterator[str]:
    """Lines on the folders of each machine type; warnings go to the log.

    Parameters
    ----------
    training_data : ``dev``, ``eval`` or ``dev+eval``
    split : ``dev`` or ``eval``, whose test clips are to be scored
    wanted : machine types; None: all

    Raises
    ------
    UserError : with all that is wrong, when everything has been looked at.
    """
    errors: list[str] = []
    trained: Clips = {}
    tested: Clips = {}
    with _noted(errors):
        trained = dataset.train_clips(settings, training_data, systems, wanted)
    with _noted(errors):
        tested = _test_clips(settings, split, systems, wanted)
    for machine_type in sorted({*trained, *tested}):
        yield machine_type
        yield from _described([*trained.get(machine_type, ()), *tested.get(machine_type, ())])
    for system in systems:
        with _noted(errors):
            start_weights(system)
            if trained:
                dataset.work(settings, [system], trained)
        with _noted(errors):
            require_writable(settings, split, training_data, [system], models=True)
        with _noted(errors):
            _require_scorable(system, trained, tested if trained else {})
    for line in _unlike(trained, tested):
        logger.warning("%s", line)
    if errors:
        raise UserError("\n".join(dict.fromkeys(errors)))


@contextlib.contextmanager
def _noted(errors: list[str]) -> Iterator[None]:
    """Keep an error for the end."""
    try:
        yield
    except UserError as error:
        errors.append(str(error))


def _test_clips(settings: Config, split: str, systems: Sequence[System], wanted: Sequence[str] | None) -> Clips:
    """Test clips of the machine types that have a folder for them."""
    directory, year = settings.directory(split), settings.challenge
    there = [
        name
        for name in machine_types_in(directory, f"{split}_directory", year)
        if (not wanted or name in wanted) and any(map(Path.is_dir, test_folders(directory, name, year)))
    ]
    return dataset.test_clips(settings, split, systems, there) if there else {}


def _described(clips: Sequence[Clip]) -> Iterator[str]:
    """Lines on the clips of a machine type, folder by folder."""
    library = soundfile_library()
    for folder in dict.fromkeys(clip.path.parent for clip in clips):
        own = [clip for clip in clips if clip.path.parent == folder]
        lengths = _span(sorted({f"{clip.n_samples / clip.sample_rate:.1f}" for clip in own}, key=float))
        rates = _span(sorted({clip.sample_rate for clip in own}))
        channels = _span(sorted({library.info(str(clip.path)).channels for clip in own}))
        yield f"  {folder}: {len(own)} clips, {lengths} s, {rates} Hz, channels: {channels}"
        for machine_id in sorted({clip.machine_id for clip in own}):
            of_id = [clip for clip in own if clip.machine_id == machine_id]
            yield f"    {machine_id}: {_counts(of_id)}"


def _span(values: Sequence) -> str:
    """``10.0``, or ``9.5 to 10.0``."""
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _counts(clips: Sequence[Clip]) -> str:
    """``990 normal source, 10 normal target; attributes: 12 different, in 1000 clips``."""
    kinds = Counter((clip.label or 0, LABEL_NAMES[clip.label], clip.domain or "") for clip in clips)
    words = ", ".join(f"{number} {label} {domain}".rstrip() for (_, label, domain), number in sorted(kinds.items()))
    attributes = [clip.attributes for clip in clips if clip.attributes]
    return words + (f"; attributes: {len(set(attributes))} different, in {len(attributes)} clips" if attributes else "")


def _require_scorable(system: System, trained: Mapping, tested: Mapping) -> None:
    """Raise UserError for test clips that the system could not score, were it trained on these training clips."""
    faults = []
    for machine_type, clips in tested.items():
        own = trained.get(machine_type)
        if not own:
            faults.append(f"{machine_type}: no training clips")
            continue
        if clips[0].sample_rate != own[0].sample_rate:
            faults.append(
                f"{machine_type}: {clips[0].sample_rate} Hz; the training clips have {own[0].sample_rate} Hz. Resample"
            )
        if any(map(_by_machine_id, (system, *system.members))):
            unknown = {clip.machine_id for clip in clips} - {clip.machine_id for clip in own}
            faults += [f"{machine_type} {machine_id}: no training clips" for machine_id in sorted(unknown)]
    if faults:
        advice = "Add training clips of these machines, or name other machine types with --machine-type."
        raise fault_list(f"{system.name}: test clips that could not be scored", faults, advice)


def _by_machine_id(system: System) -> bool:
    """True where a clip is scored by the training clips of its machine ID alone."""
    model = system.model
    if not isinstance(model, Detector):
        return isinstance(model, Fusion)
    return model.classes != "machine_type" if model.score == "softmax" else model.lof_per == "machine_id"


def _unlike(trained: Mapping, tested: Mapping) -> Iterator[str]:
    """Lines on test clips that are not like the training clips, or are copies."""
    for machine_type in tested:
        if own := trained.get(machine_type):
            usual = likeness.summary(own)
            lines = likeness.misfits(tested[machine_type], usual, "test clips")
            lines += likeness.copies(tested[machine_type], "test clips", usual["sounds"])
            yield from (f"{machine_type}: {line}" for line in lines)
