"""Records of finished models: of which files they consist, and what decided them.

``record_<name>.yaml`` beside a model's files is written last: without it, a model is not finished.
"""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audio.clips import Clip
from common import UserError, __version__, scored_by
from config import Config, System
from storage import files, records
from storage.records import file_fault, record_path
from years.year import DEFAULT

# What a record holds, beside facts that a model family adds; one without ``files`` and ``n_samples`` (machine type ->
# its usual length) is of an earlier version.
RECORD = {
    "system": str,
    "training_data": str,
    "configuration": dict,
    "clips": int,
    "fingerprint": str,
    "sample_rate": int,
    "versions": dict,
}
LAYOUT = 6  # of the arrays beside a model, and the unit of its thresholds; those of another layout are made anew
JOINED = "deviations"  # unit of joined scores: 0 as the usual training clip's, 1: one deviation more
# Keys of a model that decide nothing where another one has this value.
WITHOUT_EFFECT = (("resize", "input_size", None), ("mixup_share", "mixup", 0))


def configuration(system: System, config: Config) -> dict:
    """All settings that decide a model, as plain values."""
    model = dataclasses.asdict(system.model)
    for name in getattr(system.model, "AFTER_TRAINING", ()):
        del model[name]
    for key, other, off in WITHOUT_EFFECT:
        if key in model and model[other] == off:
            del model[key]
    settings = {"model": {"type": system.model_type, **model}}
    if system.members:
        return settings | {"members": {member.name: configuration(member, config) for member in system.members}}
    settings |= {"feature": dataclasses.asdict(system.feature), "channel": config.channel}
    if config.year != DEFAULT:
        settings["year"] = config.year  # whose machine types may have another's names
    if "descriptor" in system.model.BLOCKS:
        settings["descriptor"] = dataclasses.asdict(system.descriptor)
        del settings["feature"]["frames"]  # a descriptor is of the whole clip
    if "spectra" in system.model.BLOCKS:
        settings["spectra"] = dataclasses.asdict(system.spectra)
        del settings["feature"]
    if "fit" in system.model.BLOCKS:
        settings |= {"fit": dataclasses.asdict(system.fit), "seed": config.seed}
        del settings["fit"]["verbose"]
        if not system.fit.compile.use_ema:
            del settings["fit"]["compile"]["ema_momentum"]
    return records.plain(settings)


def model_path(folder: Path, name: str) -> Path:
    """Model file; ``name`` is the machine type, or what a model over several types is called."""
    return folder / f"model_{name}.keras"


def scores_path(folder: Path, machine_type: str) -> Path:
    """File of the scores of a machine type's training clips."""
    return folder / f"scores_{machine_type}.npz"


def resume_path(folder: Path, name: str) -> Path:
    """State after the last epoch of an unfinished training."""
    return folder / f"resume_{name}.npz"


def start_weights(system: System) -> dict[str, str]:
    """Digest of the file with the weights that a network starts from, nothing where it starts from no such file."""
    path = getattr(system.model, "weights", None)
    if path in (None, "imagenet"):
        return {}
    if not Path(path).is_file():
        raise UserError(f"model.weights: no file {path} (looked for {Path(path).resolve()})")
    return {"weights": records.file_digest(Path(path))}


def require_writable(
    config: Config, split: str, training_data: str, systems: Sequence[System], *, models: bool
) -> None:
    """Raise UserError unless results of the systems, and ``models``, can be written."""
    for system in systems:
        files.require_writable(config.result_folder(scored_by(split, training_data), system.name), "result_directory")
        if models:
            files.require_writable(config.model_folder(training_data, system.name), "model_directory")


# ---- reading ----


def read_record(folder: Path, name: str) -> dict | None:
    """Record of a finished model, None where there is none.

    Raises
    ------
    UserError : if it is not as it was written.
    """
    path = record_path(folder, name)
    try:
        return records.read(path, RECORD)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: is not as it was written ({error}); delete it to train anew") from error


def file_faults(folder: Path, record: dict) -> list[str]:
    """What is wrong with the files of a record, a sentence each; nothing where all are as they were written."""
    if not record.get("files"):
        return [f"{folder}: the model was saved by an earlier version of this project, which did not record its files"]
    return [fault for name in record["files"] if (fault := file_fault(folder, record, name))]


def checked_file(folder: Path, record: dict, file_name: str) -> Path:
    """Path of a model's file, once its content has been found to be what ``record`` says.

    Raises
    ------
    UserError : naming the file, if it is missing, another than the one that was saved, or none of this record's.
    """
    fault = file_fault(folder, record, file_name)
    if fault:
        raise UserError(f"{fault}; run 00_train.py again with the same --config, which makes it anew")
    return folder / file_name


def check_sample_rate(record: dict, clips: Sequence[Clip]) -> None:
    """Test clips have the sample rate that the model was trained with."""
    if clips[0].sample_rate != record["sample_rate"]:
        raise UserError(
            f"{clips[0].path.parent}: clips have {clips[0].sample_rate} Hz; the model was trained with "
            f"{record['sample_rate']} Hz. Resample the clips."
        )


def versions() -> dict[str, str]:
    """Of the project and of what decides a model beside the YAML."""
    found = {"project": __version__, "python": platform.python_version()}
    for name in ("tensorflow", "keras", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # installed under another name, such as tensorflow-cpu
            found[name] = "unknown"
    return found


def counted(config: Config, training_data: str, system: System, machine_type: str) -> System:
    """A fusion with those members alone that its training has not left out for a machine type; others as they are."""
    record = read_record(config.model_folder(training_data, system.name), machine_type) if system.members else None
    left_out = (record or {}).get("left_out", ())
    members = tuple(member for member in system.members if member.name not in left_out)
    if not left_out or not members:
        return system
    weights = {member.name: system.model.members[member.name] for member in members}
    return dataclasses.replace(system, members=members, model=dataclasses.replace(system.model, members=weights))


# ---- scores of the training clips ----


@dataclass(frozen=True)
class TrainingScores:
    """Anomaly scores of the clips that a model of one machine type was trained on."""

    names: tuple[str, ...]  # of the clips' files
    machine_ids: np.ndarray  # (n_clips,), text
    scores: np.ndarray  # (n_clips,), float64
    checksums: np.ndarray | None = None  # (n_clips,), of the clips' files
    unit: str = "score"  # docs/reference.md has them; this one is of a family that names none

    @property
    def joined(self) -> bool:
        """Whether the scores are standardised log scores, put together from several."""
        return self.unit == JOINED

    def of(self, machine_id: str) -> np.ndarray:
        """Scores of the clips of one machine ID, shape (n,)."""
        return self.scores[self.machine_ids == machine_id]
