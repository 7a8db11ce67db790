"""Records: what a finished model consists of, and what decided it.

``record_<name>.yaml`` beside a model's files says from what they were made and which content they have, and is written
last: without it, or with another content, a file does not count. Reading one imports no TensorFlow.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import struct
import tokenize
import typing
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from common import Clip, UserError, __version__, write_text, write_whole
from config import DESCRIBED, Config, Neighbors, System, read_yaml

if typing.TYPE_CHECKING:
    from training import Job, Run

# What a record holds, beside facts that a model family adds; one without ``files`` and ``n_samples`` (machine type ->
# length of its longest clip) is of an earlier version.
RECORD = {
    "system": str,
    "training_data": str,
    "configuration": dict,
    "clips": int,
    "fingerprint": str,
    "sample_rate": int,
    "versions": dict,
}
# What NumPy and zipfile raise on a file that is not as it was written.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
WRITTEN = (".keras", ".yaml", ".npz", ".png", ".csv")  # endings of what is written into model and result folders
LAYOUT = 2  # of the arrays beside a model; those of another layout are made anew
CHECKSUM = "# SHA-256 of the lines above: "  # begins the last line of a record
# Keys of a model that decide nothing where another one has this value.
WITHOUT_EFFECT = (("resize", "input_size", None), ("mixup_share", "mixup", 0))
SHOWN = 200  # characters of another library's message; it may quote the whole file

logger = logging.getLogger(__name__)


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
    if isinstance(system.model, DESCRIBED):
        settings["descriptor"] = dataclasses.asdict(system.descriptor)
        del settings["feature"]["frames"]  # a descriptor is of the whole clip
    if not isinstance(system.model, Neighbors):
        settings |= {"fit": dataclasses.asdict(system.fit), "seed": config.seed}
        del settings["fit"]["verbose"]
        if not system.fit.compile.use_ema:
            del settings["fit"]["compile"]["ema_momentum"]
    return json.loads(json.dumps(settings))  # tuples become lists, as they will be when read back


# ---- names ----


def model_path(folder: Path, name: str) -> Path:
    """Model file; ``name`` is the machine type, or what a model over several types is called."""
    return folder / f"model_{name}.keras"


def scores_path(folder: Path, machine_type: str) -> Path:
    """File of the scores of a machine type's training clips."""
    return folder / f"scores_{machine_type}.npz"


def record_path(folder: Path, name: str) -> Path:
    """Record of a model's files."""
    return folder / f"record_{name}.yaml"


def resume_path(folder: Path, name: str) -> Path:
    """State after the last epoch of an unfinished training."""
    return folder / f"resume_{name}.npz"


# ---- reading ----


def read_record(folder: Path, name: str) -> dict | None:
    """Record of a finished model, None where there is none.

    Raises
    ------
    UserError : if it is not as it was written.
    """
    path = record_path(folder, name)
    try:
        record = read_checked(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: unreadable ({str(error)[:SHOWN]}); delete it to train anew") from error
    fault = _record_fault(record)
    if fault:
        raise UserError(f"{path}: is not as it was written ({fault}); delete it to train anew")
    return record


def read_checked(path: Path) -> typing.Any:
    """Content of a record, as plain values; one without the line that ``record_text`` adds is taken as it is.

    Raises
    ------
    OSError : if it cannot be read.
    ValueError : if it is no YAML, or was changed after it was written.
    """
    text, found, digest = path.read_text(encoding="utf-8").rpartition(CHECKSUM)
    if found and digest.strip() != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError("changed after it was written")
    return read_yaml(path, aliases=False)


def record_text(record: Mapping) -> str:
    """A record as YAML, with a last line by which any change of it is found out."""
    text = yaml.safe_dump(json.loads(json.dumps(record)), sort_keys=False, allow_unicode=True)
    return f"{text}{CHECKSUM}{hashlib.sha256(text.encode()).hexdigest()}\n"


def _record_fault(record: typing.Any) -> str | None:
    """What is wrong with a record, None if nothing is."""
    if not isinstance(record, dict):
        return "no keys with values in it"
    for key, kind in RECORD.items():
        if type(record.get(key)) is not kind:
            return f"{key}: {str(record.get(key))[:SHOWN]}"
    for key in ("clips", "sample_rate"):
        if record[key] < 1:
            return f"{key}: {record[key]}"
    files = record.get("files", {})
    if not isinstance(files, dict) or not all(_is_file_entry(*entry) for entry in files.items()):
        return "files: expected names with their SHA-256"
    classes = record.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "classes: expected a list of names"
    lengths = record.get("n_samples", {})
    if not isinstance(lengths, dict) or not all(type(n) is int and n > 0 for n in lengths.values()):
        return "n_samples: expected machine types with lengths"
    return None


def _is_file_entry(name: typing.Any, digest: typing.Any) -> bool:
    plain = isinstance(name, str) and name not in ("", "..") and Path(name).name == name and "\0" not in name
    return plain and isinstance(digest, str) and len(digest) == 64


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Keys of ``new`` whose value in ``old`` is another, as ``key: old -> new``."""
    lines = []
    for name in sorted(new.keys() | (old.keys() if prefix else set()), key=str):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {str(before)[:SHOWN]} -> {str(after)[:SHOWN]}")
    return lines


def require_trained(run: "Run", system: System, name: str) -> dict:
    """Record of the finished model that the YAML describes; its files are there and as they were written.

    Raises
    ------
    UserError : if there is no finished model, a file of it is missing or another, or it was trained with another
        configuration.
    """
    folder = run.model_folder(system)
    command = f"python 00_train.py {'-d' if run.training_data == 'dev' else '-e'} --system {system.name}"
    if run.training_data == "dev+eval":
        command += " --training-data dev+eval"
    record = read_record(folder, name)
    missing = [model_path(folder, name)] if record is None else _missing(folder, record)
    if missing:
        raise UserError(f"{missing[0]}: no finished model; train it first, with the same --config: {command}")
    changes = differences(record["configuration"], configuration(system, run.config), "configuration.")
    if changes:
        raise UserError(
            f"{folder / next(iter(record.get('files') or [name]))} was trained with another configuration than the "
            "YAML's (model -> YAML):\n  "
            + "\n  ".join(changes)
            + f"\nTrain it anew ({command}), or restore these keys."
        )
    faults = file_faults(folder, record)
    if faults:
        raise UserError("\n".join([*faults, f"Train it anew, with the same --config: {command}"]))
    return record


def check_sample_rate(record: dict, clips: Sequence[Clip]) -> None:
    """Test clips have the sample rate that the model was trained with."""
    if clips[0].sample_rate != record["sample_rate"]:
        raise UserError(
            f"{clips[0].path.parent}: clips have {clips[0].sample_rate} Hz; the model was trained with "
            f"{record['sample_rate']} Hz. Resample the clips."
        )


def require_writable(folder: Path, key: str) -> None:
    """Raise UserError unless files can be written into ``folder``, which need not exist; ``key`` is the YAML's.

    Found before hours of training. The folder is not made.
    """
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{key}: {place} is no folder, so that {folder} cannot be made; name another in the YAML")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{key}: {place} is not yours to write into; change its permissions, or name another folder")
    if place == folder:
        for path in place.iterdir():
            if path.suffix in WRITTEN and path.is_dir():
                raise UserError(f"{key}: {path} is a folder where a file is to be written; rename or remove it")


# ---- files and their digests ----


def file_digest(path: Path) -> str:
    """SHA-256 of a file; of a file that has not changed, it is computed once in a process."""
    stat = path.stat()
    return _file_digest(path.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=1024)
def _file_digest(path: Path, *_state: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def file_faults(folder: Path, record: dict) -> list[str]:
    """What is wrong with the files of a record, a sentence each; nothing where all are as they were written."""
    if not record.get("files"):
        return [f"{folder}: the model was saved by an earlier version of this project, which did not record its files"]
    return [fault for name in record["files"] if (fault := _file_fault(folder, record, name))]


def _missing(folder: Path, record: dict) -> list[Path]:
    return [folder / name for name in record.get("files", {}) if not (folder / name).exists()]


def _file_fault(folder: Path, record: dict, file_name: str) -> str | None:
    path = folder / file_name
    if file_name not in record.get("files", {}):
        return f"{path}: no file of this model"
    try:
        digest = file_digest(path)
    except FileNotFoundError:
        return f"{path}: missing"
    except OSError as error:
        return f"{path}: unreadable ({error})"
    return None if digest == record["files"][file_name] else f"{path}: is not the file that was saved with the model"


def checked_file(folder: Path, record: dict, file_name: str) -> Path:
    """Path of a model's file, once its content has been found to be what ``record`` says.

    Raises
    ------
    UserError : naming the file, if it is missing, another than the one that was saved, or none of this record's.
    """
    fault = _file_fault(folder, record, file_name)
    if fault:
        raise UserError(f"{fault}; run 00_train.py again with the same --config, which makes it anew")
    return folder / file_name


def read_arrays(path: Path, kinds: Mapping[str, tuple[str, int]]) -> dict[str, np.ndarray]:
    """Arrays of an npz file, as they should be; nothing in it is executed.

    Parameters
    ----------
    kinds : array -> (kinds of NumPy's ``dtype.kind`` that it may have, its number of dimensions), such as
        ``{"embeddings": ("f", 2), "machine_ids": ("U", 1)}``

    Raises
    ------
    UserError : naming the file, if one is missing, of another kind or shape, or not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in kinds}
    except UNREADABLE as error:
        raise UserError(f"{path}: unreadable ({str(error)[:SHOWN]}); train anew") from error
    for name, (kind, n_dimensions) in kinds.items():
        array = arrays[name]
        fits = array.dtype.kind in kind and array.ndim == n_dimensions
        if not fits or (array.dtype.kind in "fc" and not np.isfinite(array).all()):
            raise UserError(f"{path}: {name} is not as it was written ({array.dtype}, {array.shape}); train anew")
    return arrays


# ---- writing ----


def finish(job: "Job", writers: Mapping[str, Callable[[Path], object]], facts: dict) -> None:
    """Write the files of a finished model and, last, the record that makes them count.

    Files of the job's earlier record that are no longer part of it go, and so does the state of the training.

    Parameters
    ----------
    writers : file name -> function that writes the file to the path it is given
    facts : what the record says beside what decided the model, such as its thresholds; plain values
    """
    if not job.is_chief:
        return
    path = record_path(job.folder, job.name)
    # While they still stand in the record: a run that is killed here leaves no file that nothing knows of.
    for name in _recorded_files(job) - writers.keys():
        (job.folder / name).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    files = {}
    for name, write in writers.items():
        with write_whole(job.folder / name) as beside:
            write(beside)
            files[name] = file_digest(beside)
    record = {**job.record, **facts, "versions": versions(), "files": files}
    write_text(path, record_text(record))
    resume_path(job.folder, job.name).unlink(missing_ok=True)
    logger.info("%s: trained on %d clips", path, len(job.clips))


def _recorded_files(job: "Job") -> set[str]:
    """Names of the files of the job's earlier record, none where there is no record that can be read."""
    try:
        record = read_record(job.folder, job.name)
    except UserError:
        return set()
    return set((record or {}).get("files", {}))


def versions() -> dict[str, str]:
    """Of the project and of what decides a model beside the YAML."""
    found = {"project": __version__, "python": platform.python_version()}
    for name in ("tensorflow", "keras", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # installed under another name, such as tensorflow-cpu
            found[name] = "unknown"
    return found


# ---- scores of the training clips ----


@dataclass(frozen=True)
class TrainingScores:
    """Anomaly scores of the clips that a model of one machine type was trained on."""

    names: tuple[str, ...]  # of the clips' files
    machine_ids: np.ndarray  # (n_clips,), text
    scores: np.ndarray  # (n_clips,), float64
    checksums: np.ndarray | None = None  # (n_clips,), of the clips' files

    def of(self, machine_id: str) -> np.ndarray:
        """Scores of the clips of one machine ID, shape (n,)."""
        return self.scores[self.machine_ids == machine_id]
