"""Networks as ``.keras`` files."""

import functools
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from common import UserError
from config import System
from storage.records import SHOWN, UNREADABLE
from training.fit import plot_history
from training.model_records import checked_file, model_path
from training.run import Job, Run


def save_model(
    model: keras.Model,
    job: "Job",
    history: dict[str, list[float]],
    writers: Mapping[str, Callable[[Path], object]] | None = None,
    facts: dict | None = None,
) -> None:
    """Write the plot of the losses, the model, what ``writers`` write, and last the record: see ``Job.finish``."""
    if not job.is_chief:
        return
    plot_history(history, job.folder / f"history_{job.name}.png")
    writers = {model_path(job.folder, job.name).name: lambda path: write_model(model, path), **(writers or {})}
    job.finish(writers, {"parameters": model.count_params(), **(facts or {})})


def write_model(model: keras.Model, path: Path) -> None:
    """Write a ``.keras`` file that is a function of the model alone, without the time and object IDs of Keras's."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    del metadata["date_saved"]
    members["metadata.json"] = json.dumps(metadata).encode()
    ids: dict[bytes, int] = {}
    members["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: str(ids.setdefault(found.group(), len(ids))).encode(),
        members["config.json"],
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def load_finished(run: Run, system: System, name: str) -> keras.Model:
    """Finished model of the YAML's configuration, once its file has been found to be the one that was saved."""
    path = model_path(run.model_folder(system), name)
    record = run.require_trained(system, name)
    return _loaded(checked_file(path.parent, record, path.name), record["files"][path.name])


@functools.lru_cache(maxsize=4)
def _loaded(path: Path, digest: str) -> keras.Model:
    """Model of a file whose SHA-256 has been found to be ``digest``; a stream asks window by window."""
    return load_model(path)


def load_model(path: Path) -> keras.Model:
    """Model of a ``.keras`` file; nothing in it is executed."""
    written_by = "no Keras that can be told"
    try:
        with zipfile.ZipFile(path) as archive:  # Keras says "File not found" of what is no archive
            written_by = f"Keras {json.loads(archive.read('metadata.json'))['keras_version']}"
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except UNREADABLE as error:
        raise UserError(
            f"{path}: not a model that can be loaded ({str(error)[:SHOWN]}); written by {written_by}, and here is "
            f"Keras {keras.__version__}. Delete it and train anew, or install what wrote it"
        ) from error
