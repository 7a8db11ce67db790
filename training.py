"""What the two model families share: reproducible, resumable ``fit``, records of what a model was trained on, progress.

A model file counts only with its record: ``record_<name>.yaml`` beside ``model_<name>.keras`` says what decided it,
and is written last.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import platform
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up messages among ours

import keras
import numpy as np
import tensorflow as tf
import yaml
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common import Clip, UserError, __version__, fingerprint, write_text, write_whole
from config import Config, Fit, System
from features import Cache

# Compiled by XLA, a training step of a dense autoencoder takes 0.7 to 0.8 times as long on a CPU.
JIT_COMPILE = sys.platform != "darwin"  # TensorFlow has no XLA for Apple's GPUs

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def progress_bar(total: int, verbose: int) -> Iterator[tqdm]:
    """One bar over the whole run, counted in clips; log lines appear above it."""
    interval = 0.5 if sys.stderr.isatty() else 30  # [s] a log file gets a line now and then
    with (
        logging_redirect_tqdm(),
        tqdm(total=total, unit="clip", disable=verbose == 0, mininterval=interval, smoothing=0.05) as bar,
    ):
        yield bar


@dataclass
class Run:
    """What one call of a script works with."""

    config: Config
    training_data: str  # "dev", "eval" or "dev+eval"
    progress: tqdm = field(repr=False)

    @property
    def cache(self) -> Cache | None:
        """Cache of log-mel energies, None where the YAML switches it off."""
        directory = self.config.cache_directory
        return Cache(directory, self.config.cache_gigabytes) if directory else None

    def model_folder(self, system: System) -> Path:
        """Folder of a system's models."""
        return self.config.model_directory / self.training_data / system.name

    def result_folder(self, system_name: str) -> Path:
        """Folder of a system's score CSVs."""
        return self.config.result_directory / self.training_data / system_name


# ---- records ----


def configuration(system: System, seed: int) -> dict:
    """All settings that decide a model, as plain values."""
    fit = dataclasses.asdict(system.fit)
    del fit["verbose"]
    settings = {
        "model": {"type": system.model_type, **dataclasses.asdict(system.model)},
        "feature": dataclasses.asdict(system.feature),
        "fit": fit,
        "seed": seed,
    }
    return json.loads(json.dumps(settings))  # tuples become lists, as they will be when read back


def make_record(run: Run, system: System, clips: Sequence[Clip]) -> dict:
    """What decides a model: system, settings and training clips."""
    return {
        "system": system.name,
        "training_data": run.training_data,
        "configuration": configuration(system, run.config.seed),
        "clips": len(clips),
        "fingerprint": fingerprint(clips),
        "sample_rate": clips[0].sample_rate,
    }


def model_path(folder: Path, name: str) -> Path:
    """Model file; ``name`` is the machine type, or what a model over several types is called."""
    return folder / f"model_{name}.keras"


def record_path(folder: Path, name: str) -> Path:
    """Record of a model file."""
    return folder / f"record_{name}.yaml"


def resume_path(folder: Path, name: str) -> Path:
    """State after the last epoch of an unfinished training."""
    return folder / f"resume_{name}.npz"


def read_record(folder: Path, name: str) -> dict | None:
    """Record of a finished model, None where there is none."""
    if not model_path(folder, name).exists():
        return None
    try:
        record = yaml.safe_load(record_path(folder, name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{record_path(folder, name)}: unreadable ({error}); delete it to train anew") from error
    return record if isinstance(record, dict) else None


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Keys of ``new`` whose value in ``old`` is another, as ``key: old -> new``."""
    lines = []
    for name in sorted(new.keys() | (old.keys() if prefix else set())):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before} -> {after}")
    return lines


def is_trained(folder: Path, name: str, record: dict) -> bool:
    """True where a finished model was trained on just this; the log says why not."""
    old = read_record(folder, name)
    if old is None:
        return False
    changes = differences(old, record)
    if changes:
        logger.info("%s: trained anew, since the model there differs: %s", model_path(folder, name), "; ".join(changes))
        return False
    path = model_path(folder, name)
    logger.info("%s: kept, trained with the same configuration on the same %d clips", path, record["clips"])
    return True


def require_trained(run: Run, system: System, name: str) -> dict:
    """Record of the model that the YAML describes.

    Raises
    ------
    UserError : if there is no finished model, or it was trained with another configuration.
    """
    folder = run.model_folder(system)
    command = f"python 00_train.py {'-d' if run.training_data == 'dev' else '-e'} --system {system.name}"
    if run.training_data == "dev+eval":
        command += " --training-data dev+eval"
    record = read_record(folder, name)
    if record is None:
        raise UserError(f"{model_path(folder, name)}: no finished model; train it first: {command}")
    changes = differences(record.get("configuration") or {}, configuration(system, run.config.seed), "configuration.")
    if changes:
        raise UserError(
            f"{model_path(folder, name)} was trained with another configuration than the YAML's (model -> YAML):\n  "
            + "\n  ".join(changes)
            + f"\nTrain it anew ({command}), or restore these keys."
        )
    return record


def check_sample_rate(record: dict, clips: Sequence[Clip]) -> None:
    """Test clips have the sample rate that the model was trained with."""
    if clips[0].sample_rate != record["sample_rate"]:
        raise UserError(
            f"{clips[0].path.parent}: clips have {clips[0].sample_rate} Hz; the model was trained with "
            f"{record['sample_rate']} Hz. Resample the clips."
        )


def save_model(model: keras.Model, folder: Path, name: str, record: dict, save_more: Callable[[], None] | None) -> None:
    """Write the model, whatever ``save_more`` writes beside it, and last the record, which makes them count."""
    record_path(folder, name).unlink(missing_ok=True)
    with write_whole(model_path(folder, name)) as beside:
        model.save(beside)
    if save_more:
        save_more()
    versions = {
        "project": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
    text = yaml.safe_dump({**record, "parameters": model.count_params(), "versions": versions}, sort_keys=False)
    write_text(record_path(folder, name), text)
    resume_path(folder, name).unlink(missing_ok=True)
    logger.info("%s: trained on %d clips", model_path(folder, name), record["clips"])


def load_model(path: Path) -> keras.Model:
    """Model of a ``.keras`` file; nothing in it is executed."""
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a model that can be loaded ({error}); delete it and train anew") from error


# ---- training ----


def epoch_batches(n: int, *, seed: int, batch_size: int, shuffle: bool, first_epoch: int = 0) -> tf.data.Dataset:
    """Batches of the numbers 0 to n - 1, epoch after epoch.

    The order is a function of seed and epoch alone, so that a resumed training sees what an unbroken one sees.
    """

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.range(n, dtype=tf.int32)
        if shuffle:
            order = tf.random.experimental.stateless_shuffle(
                order, seed=tf.stack([tf.constant(seed, tf.int64), number])
            )
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    return tf.data.Dataset.range(first_epoch, 2**31).flat_map(epoch).prefetch(4)


def make_optimizer(fit: Fit) -> keras.optimizers.Optimizer:
    """Optimiser of the YAML; Keras's own learning rate where none is given."""
    settings = {} if fit.compile.learning_rate is None else {"learning_rate": fit.compile.learning_rate}
    return keras.optimizers.get({"class_name": fit.compile.optimizer, "config": settings})


@dataclass
class Job:
    """One network to be trained: where its files go and what decides it."""

    folder: Path
    name: str
    record: dict
    fit: Fit
    seed: int
    n_clips: int
    progress: tqdm


def train(
    model: keras.Model, trainee: keras.Model, job: Job, *, n_train: int, validation: tf.data.Dataset | None
) -> dict[str, list[float]]:
    """Fit the compiled ``trainee``, going on from the last finished epoch of a training of the same ``job.record``.

    Parameters
    ----------
    model : the network that is kept; its weights and the trainee's optimiser are the state of the training
    trainee : the model whose ``fit`` takes batches of indices below ``n_train``
    validation : batches of indices, None where there are none

    Returns
    -------
    dict : the loss (and ``val_loss``, metrics) of each epoch
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    trainee.optimizer.build(model.trainable_variables)
    state = TrainingState(model, trainee, job)
    first_epoch = state.restore()
    job.progress.total -= first_epoch * job.n_clips  # done by an earlier run
    job.progress.refresh()
    if first_epoch < job.fit.epochs:
        batches = epoch_batches(
            n_train, seed=job.seed, batch_size=job.fit.batch_size, shuffle=job.fit.shuffle, first_epoch=first_epoch
        )
        trainee.fit(
            batches,
            steps_per_epoch=math.ceil(n_train / job.fit.batch_size),
            initial_epoch=first_epoch,
            epochs=job.fit.epochs,
            validation_data=validation,
            callbacks=[state],
            verbose=0,
        )
    plot_history(state.history, job.folder / f"history_{job.name}.png")
    return state.history


class TrainingState(keras.callbacks.Callback):
    """Keeps weights, optimiser and history of each finished epoch in one file, and reports the progress.

    Keras's ``BackupAndRestore`` writes weights and epoch number to two files, one after the other: killed in between,
    an epoch would count twice.
    """

    def __init__(self, network: keras.Model, trainee: keras.Model, job: Job):
        super().__init__()
        self.network, self.trainee, self.job = network, trainee, job
        self.path = resume_path(job.folder, job.name)
        self.history: dict[str, list[float]] = {}

    def _variables(self) -> Iterator:
        yield from self.network.variables
        yield from self.trainee.optimizer.variables

    def restore(self) -> int:
        """Bring back the state of an unfinished training of the same record; the number of epochs that are done."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                header = json.loads(str(stored["header"]))
                values = [stored[f"v{i}"] for i in range(header["variables"])]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning("%s: unreadable (%s); training starts anew", self.path, error)
            return 0
        variables = list(self._variables())
        changes = differences(header["record"], self.job.record)
        if changes or [v.shape for v in values] != [tuple(v.shape) for v in variables]:
            logger.info("%s: of another training, not resumed: %s", self.path, "; ".join(changes))
            return 0
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.history = header["history"]
        logger.info("%s: going on after epoch %d of %d", self.path, header["epoch"], self.job.fit.epochs)
        return header["epoch"]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Check the loss, keep the state, move the progress bar."""
        losses = {name: float(value) for name, value in (logs or {}).items()}
        if not all(math.isfinite(value) for value in losses.values()):
            raise UserError(
                f"{self.job.name}: epoch {epoch + 1} gave {losses}; the training diverged.\n"
                "Lower fit.compile.learning_rate, or raise fit.batch_size. Nothing was saved of this epoch."
            )
        for name, value in losses.items():
            self.history.setdefault(name, []).append(value)
        self._keep(epoch + 1)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self.job.progress.set_postfix_str(f"{self.job.name} epoch {epoch + 1}/{self.job.fit.epochs}: {shown}")
        self.job.progress.update(self.job.n_clips)
        level = logging.INFO if self.job.fit.verbose == 2 else logging.DEBUG
        logger.log(level, "%s: epoch %d/%d - %s", self.job.name, epoch + 1, self.job.fit.epochs, shown)

    def _keep(self, epoch: int) -> None:
        values = {f"v{i}": np.asarray(variable) for i, variable in enumerate(self._variables())}
        header = {"epoch": epoch, "variables": len(values), "history": self.history, "record": self.job.record}
        with write_whole(self.path) as beside:
            np.savez(beside, header=np.array(json.dumps(header)), **values)


def plot_history(history: dict[str, list[float]], path: Path) -> None:
    """Loss per epoch, training and validation, as the official picture; accuracy beside it if there is one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in history if not name.startswith("val_")]
    figure, axes = plt.subplots(1, len(names), figsize=(7 * len(names), 4.5), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        epochs = range(1, len(history[name]) + 1)
        axis.plot(epochs, history[name], label="Train", marker="." if len(epochs) < 30 else None)
        if f"val_{name}" in history:
            axis.plot(epochs, history[f"val_{name}"], label="Validation", marker="." if len(epochs) < 30 else None)
        axis.set(title=f"Model {name}", xlabel="Epoch", ylabel=name.capitalize())
        axis.legend(loc="upper right")
    with write_whole(path) as beside:
        figure.savefig(beside, dpi=100)
    plt.close(figure)
