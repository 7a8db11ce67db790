"""What one call of a script works with: settings, progress, and the networks that it is to train."""

import contextlib
import json
import logging
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from audio import features, likeness
from audio.clips import Clip, by_machine_type, fingerprint
from audio.features import Cache
from common import UserError, scored_by, training_command
from config import Config, System
from storage import records
from storage.files import write_whole
from storage.records import SHOWN, differences
from training import model_records, process
from training.model_records import file_faults, model_path, read_record, resume_path

with process.lean_import():
    import tensorflow as tf  # before keras, which imports it

    from training import distribution

process.keep_freed_memory()
process.share_gpus()

logger = logging.getLogger(__name__)
tf.get_logger().setLevel(logging.ERROR)  # each machine type has a scoring function of its own: no retracing to mend


@contextlib.contextmanager
def progress_bar(total: int, verbose: int) -> Iterator[tqdm]:
    """One bar over the whole run, counted in clips; log lines appear above it."""
    interval = 0.5 if sys.stderr.isatty() else 30  # [s] a log file gets a line now and then
    with (
        logging_redirect_tqdm(),
        tqdm(total=total, unit="clip", disable=verbose == 0, mininterval=interval, smoothing=0.05) as bar,
    ):
        for handler in logging.getLogger().handlers:  # the redirection forgets the screen's level
            if getattr(handler, "stream", None) is sys.stderr:
                handler.setLevel(logging.INFO)
        yield bar


@dataclass
class Run:
    """What one call of a script works with."""

    config: Config
    training_data: str  # "dev", "eval" or "dev+eval"
    progress: tqdm = field(repr=False)
    split: str | None = None  # whose test clips are scored, "dev" or "eval"; None: none, or those that are named
    draw: Callable | None = None  # of a picture of embeddings beside the scores, see evaluation/embedding_figure.py

    @property
    def cache(self) -> Cache | None:
        """Cache of log-mel energies, None where the YAML switches it off."""
        directory = self.config.cache_directory
        return Cache(directory, self.config.cache_gigabytes) if directory else None

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """How training is distributed; TensorFlow's default where it is not."""
        return distribution.strategy(self.config.distribution)

    def watch(self, per_clip: Iterable) -> Iterator:
        """Hand on what comes clip by clip, with the progress shown."""
        for item in per_clip:
            self.progress.update()
            yield item

    def descriptors(self, system: System, clips: Sequence[Clip]) -> np.ndarray:
        """Descriptors of the clips, shape (n_clips, n_numbers), with the progress shown."""
        return np.stack([*self.watch(features.descriptors(clips, system.descriptor, system.feature, self.cache))])

    def require_writable(self, systems: Sequence[System], *, models: bool) -> None:
        """Raise UserError unless results, and ``models``, can be written; the chief alone of several workers writes."""
        if not distribution.is_chief(self.strategy):
            return
        model_records.require_writable(self.config, self.split, self.training_data, systems, models=models)

    def model_folder(self, system: System) -> Path:
        """Folder of a system's models."""
        return self.config.model_folder(self.training_data, system.name)

    def result_folder(self, system_name: str) -> Path:
        """Folder of a system's score CSVs."""
        return self.config.result_folder(scored_by(self.split, self.training_data), system_name)

    def train_command(self, system: System) -> str:
        """What trains a system, for an error."""
        return f"{training_command(self.training_data, self.split)} --system {system.name}"

    def require_trained(self, system: System, name: str) -> dict:
        """Record of the finished model that the YAML describes; its files are there and as they were written.

        Raises
        ------
        UserError : if there is no finished model, a file of it is missing or another, or it was trained with another
            configuration.
        """
        folder, command = self.model_folder(system), self.train_command(system)
        record = read_record(folder, name)
        files = [name for name in (record or {}).get("files", {}) if not (folder / name).exists()]
        missing = [model_path(folder, name).name] if record is None else files
        if missing:
            raise UserError(
                f"{folder / missing[0]}: no finished model; train it first, with the same --config: {command}"
            )
        configuration = model_records.configuration(system, self.config)
        if "channel" in configuration and record["configuration"].get("channel") is None:
            configuration["channel"] = None  # trained on clips of one channel, which any of a recording's is like
        changes = differences(record["configuration"], configuration, "configuration.")
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

    def checked_file(self, system: System, name: str, file_name: str) -> Path:
        """Path of a file of a finished model, see :meth:`require_trained`; ``name`` is that of its record."""
        return model_records.checked_file(self.model_folder(system), self.require_trained(system, name), file_name)


@contextlib.contextmanager
def enough_memory(system: System) -> Iterator[None]:
    """What TensorFlow raises where memory does not suffice becomes an error that says what to do."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        logger.debug("out of memory", exc_info=True)
        reason = re.sub(r"\{\{.*?\}\} ", "", str(error) or "no further word")  # without TensorFlow's names of nodes
        raise UserError(
            f"{system.name}: not enough memory ({reason.splitlines()[0][:SHOWN]})\n"
            "Lower fit.batch_size, the sizes of the model or of its features, or name fewer machine types."
        ) from error


def _channel(clips: Sequence[Clip]) -> int | str | None:
    """The channel that clips are of, None where each has one alone."""
    return next((clip.channel for clip in clips if clip.channel is not None), None)


class Job:
    """One network to be trained: what decides it, where its files go, how far it is.

    Parameters
    ----------
    name : str, what its files are called: the machine type, or a name for a network over several
    clips : the training clips
    """

    def __init__(self, run: Run, system: System, name: str, clips: Sequence[Clip]):
        self.run, self.system, self.name, self.clips = run, system, name, clips
        self.folder = run.model_folder(system)
        self.is_chief = distribution.is_chief(run.strategy)  # the others leave the folder alone
        self.record = {
            "system": system.name,
            "training_data": run.training_data,
            "configuration": model_records.configuration(system, run.config) | {"channel": _channel(clips)},
            "clips": len(clips),
            "layout": model_records.LAYOUT,
            "fingerprint": fingerprint(clips),
            "sample_rate": clips[0].sample_rate,
            **model_records.start_weights(system),
            "n_samples": {  # of the usual clip
                name: statistics.median_low([clip.n_samples for clip in own])
                for name, own in by_machine_type(clips).items()
            },
        }

    def is_done(self) -> bool:
        """True where a finished model was trained on just this; the log says if one differs, and in what."""
        old = read_record(self.folder, self.name) if self.is_chief else None
        mine = {"record": self.record, "old": old, "faults": file_faults(self.folder, old) if old else []}
        chief = json.loads(distribution.from_chief(self.run.strategy, json.dumps(mine, default=str).encode()))
        changes = differences(chief["record"], self.record)
        if changes:
            raise UserError(
                f"{self.name}: this worker differs from the chief in {', '.join(changes)}"
                "\nEvery worker needs the same training clips and the same YAML."
            )
        if chief["old"] is None:
            return False
        path = self.folder / next(iter(chief["old"].get("files") or [self.name]))
        changes = differences(chief["old"], self.record)
        if changes:
            logger.info("%s: trained anew, since the model there differs: %s", path, "; ".join(changes))
            return False
        if chief["faults"]:
            logger.warning("%s: trained anew: %s", path, "; ".join(chief["faults"]))
            return False
        logger.info("%s: kept, trained with the same configuration on the same %d clips", path, len(self.clips))
        return True

    def watch(self, per_clip: Iterable) -> Iterator:
        """Hand on what comes clip by clip, with the progress shown."""
        yield from self.run.watch(per_clip)

    def skip(self, passes: int) -> None:
        """Take passes over the clips that need not be made off the progress bar."""
        self.run.progress.total -= passes * len(self.clips)
        self.run.progress.refresh()

    def finish(self, writers: Mapping[str, Callable[[Path], object]], facts: dict) -> None:
        """Write the files of a finished model and, last, the record that makes them count.

        Files of the job's earlier record that are no longer part of it go, and so does the state of the training.

        Parameters
        ----------
        writers : file name -> function that writes the file to the path it is given
        facts : what the record says beside what decided the model, such as its thresholds; plain values
        """
        if not self.is_chief:
            return
        path = records.record_path(self.folder, self.name)
        # While they still stand in the record: a run that is killed here leaves no file that nothing knows of.
        for name in self._recorded_files() - writers.keys():
            (self.folder / name).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        files = {}
        for name, write in writers.items():
            with write_whole(self.folder / name) as beside:
                write(beside)
                files[name] = records.file_digest(beside)
        usual = {name: likeness.summary(own) for name, own in by_machine_type(self.clips).items()}
        facts = {**facts, "usual": usual, "versions": model_records.versions(), "files": files}
        records.write(path, {**self.record, **facts})
        resume_path(self.folder, self.name).unlink(missing_ok=True)
        logger.info("%s: trained on %d clips", path, len(self.clips))

    def _recorded_files(self) -> set[str]:
        """Names of the files of the job's earlier record, none where there is no record that can be read."""
        try:
            return set((read_record(self.folder, self.name) or {}).get("files", {}))
        except UserError:
            return set()
