"""What the model families share: reproducible, resumable ``fit``, models on disk, progress."""

import contextlib
import io
import itertools
import json
import logging
import math
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import decision
import features
import process
from common import Clip, UserError, by_machine_type, fingerprint, write_whole
from config import Config, Fit, System
from features import Cache
from records import (
    LAYOUT,
    SHOWN,
    UNREADABLE,
    TrainingScores,
    checked_file,
    configuration,
    differences,
    file_digest,
    file_faults,
    finish,
    model_path,
    read_record,
    require_trained,
    require_writable,
    resume_path,
)

with process.lean_import():
    import keras
    import tensorflow as tf  # before keras, which imports it

    import distribution

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
    draws: bool = True  # pictures beside the scores, where a model family has one

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
        for system in systems:
            require_writable(self.result_folder(system.name), "result_directory")
            if models:
                require_writable(self.model_folder(system), "model_directory")

    def model_folder(self, system: System) -> Path:
        """Folder of a system's models."""
        return self.config.model_folder(self.training_data, system.name)

    def result_folder(self, system_name: str) -> Path:
        """Folder of a system's score CSVs."""
        return self.config.result_folder(self.training_data, system_name)


# ---- models ----


def save_model(
    model: keras.Model,
    job: "Job",
    history: dict[str, list[float]],
    writers: Mapping[str, Callable[[Path], object]] | None = None,
    facts: dict | None = None,
) -> None:
    """Write the plot of the losses, the model, what ``writers`` write, and last the record: see ``records.finish``."""
    if not job.is_chief:
        return
    plot_history(history, job.folder / f"history_{job.name}.png")
    writers = {model_path(job.folder, job.name).name: lambda path: write_model(model, path), **(writers or {})}
    finish(job, writers, {"parameters": model.count_params(), **(facts or {})})


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
    folder = run.model_folder(system)
    record = require_trained(run, system, name)
    return load_model(checked_file(folder, record, model_path(folder, name).name))


def load_model(path: Path) -> keras.Model:
    """Model of a ``.keras`` file; nothing in it is executed."""
    written_by = None
    try:
        with zipfile.ZipFile(path) as archive:  # Keras says "File not found" of what is no archive
            written_by = json.loads(archive.read("metadata.json"))["keras_version"]
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except UNREADABLE as error:
        advice = "delete it and train anew"
        if written_by and is_newer(written_by, keras.__version__):
            advice = (
                f"it was written by Keras {written_by}, and {keras.__version__} is installed: "
                f'pip install "keras>={written_by}", or train anew'
            )
        raise UserError(f"{path}: not a model that can be loaded ({str(error)[:SHOWN]}); {advice}") from error


def is_newer(version: str, other: str) -> bool:
    """True where ``version`` comes after ``other``, by their numbers; what is no version is not newer."""
    numbers = [[int(number) for number in re.findall(r"\d+", str(each))[:3]] for each in (version, other)]
    return numbers[0] > numbers[1]


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


# ---- training ----


def epoch_batches(n: int, *, seed: int, batch_size: int, shuffle: bool, first_epoch: int = 0) -> tf.data.Dataset:
    """Batches of the numbers 0 to n - 1, epoch after epoch.

    The order is a function of seed and epoch alone, so that a resumed training sees what an unbroken one sees.
    """

    def batches() -> Iterator[np.ndarray]:
        for epoch in itertools.count(first_epoch):
            order = np.arange(n, dtype=np.int32)
            if shuffle:
                np.random.default_rng([seed, epoch]).shuffle(order)
            for start in range(0, n, batch_size):
                yield order[start : start + batch_size]

    return untuned(
        tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec((None,), tf.int32)).prefetch(4)
    )


def untuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same without TensorFlow's tuning of pipelines: indices need none, and its thread takes seconds to stop."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def make_optimizer(fit: Fit) -> keras.optimizers.Optimizer:
    """Optimiser of the YAML; Keras's own learning rate where none is given."""
    settings = {"use_ema": fit.compile.use_ema, "ema_momentum": fit.compile.ema_momentum}
    if fit.compile.learning_rate is not None:
        settings["learning_rate"] = fit.compile.learning_rate
    optimizer = keras.optimizers.get({"class_name": fit.compile.optimizer, "config": settings})
    if type(optimizer) is keras.optimizers.Adam and not distribution.is_distributed(tf.distribute.get_strategy()):
        return FusedAdam.from_config(optimizer.get_config())
    return optimizer


@keras.saving.register_keras_serializable("training")
class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam, whose dozen passes over each weight are TensorFlow's one."""

    def update_step(self, gradient, variable, learning_rate):
        """Move ``variable`` and its moments."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def falling_rate(fit: Fit) -> keras.callbacks.Callback:
    """Half a cosine from the learning rate of the YAML to nearly 0, a step per epoch.

    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, eq. 5, without restarts.
    """
    start = float(make_optimizer(fit).learning_rate)
    return keras.callbacks.LearningRateScheduler(
        lambda epoch, _: start * (1 + math.cos(math.pi * epoch / fit.epochs)) / 2
    )


def reset_optimizer(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Bring the optimiser to its start, also when it has trained another machine type before."""
    fresh = type(optimizer).from_config(optimizer.get_config())
    for one in (optimizer, fresh):
        if not one.built:
            one.build(model.trainable_variables)
    for variable, start in zip(optimizer.variables, fresh.variables, strict=True):
        variable.assign(start)


def start_weights(system: System) -> dict[str, str]:
    """Digest of the file with the weights that a network starts from, nothing where it starts from no such file."""
    path = getattr(system.model, "weights", None)
    if path in (None, "imagenet"):
        return {}
    if not Path(path).is_file():
        raise UserError(f"model.weights: no file {path} (looked for {Path(path).resolve()})")
    return {"weights": file_digest(Path(path))}


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
            "configuration": configuration(system, run.config),
            "clips": len(clips),
            "layout": LAYOUT,
            "fingerprint": fingerprint(clips),
            "sample_rate": clips[0].sample_rate,
            **start_weights(system),
            "n_samples": {name: max(clip.n_samples for clip in own) for name, own in by_machine_type(clips).items()},
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

    def thresholds(self, own: TrainingScores) -> dict[str, float]:
        """Machine ID -> threshold by the YAML as it is now, for the record; scoring takes it anew from the scores."""
        config = self.run.config
        return decision.thresholds(
            own.scores, own.machine_ids, quantile=config.decision_quantile, method=config.decision
        )

    def watch(self, per_clip: Iterable) -> Iterator:
        """Hand on what comes clip by clip, with the progress shown."""
        yield from self.run.watch(per_clip)

    def skip(self, passes: int) -> None:
        """Take passes over the clips that need not be made off the progress bar."""
        self.run.progress.total -= passes * len(self.clips)
        self.run.progress.refresh()


def train(
    model: keras.Model,
    trainee: keras.Model,
    job: Job,
    *,
    n_train: int,
    validation: tf.data.Dataset | None,
    steps_per_call: int = 1,
    steps_taken: tf.Variable | None = None,
) -> dict[str, list[float]]:
    """Fit the compiled ``trainee``, going on from the last finished epoch of a training of the same ``job.record``.

    Parameters
    ----------
    model : the network that is kept; its weights and the trainee's optimiser are the state of the training
    trainee : the model whose ``fit`` takes batches of indices below ``n_train``
    validation : batches of indices, None where there are none
    steps_per_call : int, batches that the trainee's ``train_step`` is given at once
    steps_taken : the trainee's own count of steps, from which it draws at random; brought to where the training goes on

    Raises
    ------
    UserError : if the loss is no number, or no step has changed the network.

    Returns
    -------
    dict : the loss (and ``val_loss``, metrics) of each epoch
    """
    strategy = job.run.strategy
    with strategy.scope():
        reset_optimizer(trainee.optimizer, model)
    state = TrainingState(model, trainee, job)
    first_epoch = state.restore()
    job.skip(first_epoch)
    fit = job.system.fit
    if first_epoch < fit.epochs:
        seed = job.run.config.seed
        n_call = fit.batch_size * steps_per_call
        batches = epoch_batches(n_train, seed=seed, batch_size=n_call, shuffle=fit.shuffle, first_epoch=first_epoch)
        callbacks = [state, *([falling_rate(fit)] if fit.compile.learning_rate_schedule == "cosine" else [])]
        n_calls = math.ceil(n_train / n_call)
        if steps_taken is not None:
            steps_taken.assign(first_epoch * n_calls)
        with strategy.scope(), distribution.lost_worker_is_user_error(strategy):
            trainee.fit(
                distribution.whole_batches(strategy, batches),
                steps_per_epoch=n_calls,
                initial_epoch=first_epoch,
                epochs=fit.epochs,
                validation_data=validation and distribution.whole_batches(strategy, untuned(validation.repeat())),
                validation_steps=validation and len(validation),
                shuffle=False,  # the batches are
                callbacks=callbacks,
                verbose=0,
            )
    _require_a_step(trainee, job)
    with strategy.scope():  # fit has done so, but for a training that was broken off after its last epoch
        trainee.optimizer.finalize_variable_values(model.trainable_variables)
    return state.history


def _require_a_step(trainee: keras.Model, job: Job) -> None:
    """Raise UserError if no step was taken: under mixed_float16, those whose gradients overflow are left out."""
    if np.asarray(trainee.optimizer.iterations) == 0:
        raise UserError(
            f"{job.system.name} {job.name}: fit.precision: {job.system.fit.precision}: the gradients of every step "
            "were too large for 16 bits, so that nothing was learnt. Train for more epochs, or set fit.precision: "
            "float32."
        )


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

    def _content(self) -> bytes | None:
        """Content of the file, None where there is none."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.path}: unreadable ({error}); delete it to train anew") from error

    def restore(self) -> int:
        """Bring back the state of an unfinished training of the same record; the number of epochs that are done."""
        content = distribution.from_chief(self.job.run.strategy, self._content() if self.job.is_chief else None)
        if content is None:
            return 0
        epochs, variables = self.job.system.fit.epochs, list(self._variables())
        try:
            header, values = read_state(content)
            changes = differences(header["record"], self.job.record)
            if not changes:
                self._check(header, values, variables)
        except UNREADABLE as error:
            logger.warning("%s: unreadable (%s); training starts anew", self.path, str(error)[:SHOWN])
            return 0
        if changes:
            logger.info("%s: of another training, not resumed: %s", self.path, "; ".join(changes))
            return 0
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.history = header["history"]
        logger.info("%s: going on after epoch %d of %d", self.path, header["epoch"], epochs)
        return header["epoch"]

    def _check(self, header: dict, values: list[np.ndarray], variables: list) -> None:
        """Raise ValueError unless the state is one that this training can have had."""
        kinds = [(tuple(v.shape), keras.backend.standardize_dtype(v.dtype)) for v in variables]
        if [(value.shape, str(value.dtype)) for value in values] != kinds:
            raise ValueError("the arrays are not those of this network")
        epoch, epochs = header["epoch"], self.job.system.fit.epochs
        if not 1 <= epoch <= epochs:
            raise ValueError(f"epoch {epoch} of {epochs}")
        for name, losses in header["history"].items():
            if len(losses) != epoch or not np.isfinite(losses).all():
                raise ValueError(f"{name} of {len(losses)} epochs, and {epoch} are done")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Check the loss, keep the state, move the progress bar."""
        losses = {name: float(value) for name, value in (logs or {}).items()}
        job, epochs = self.job, self.job.system.fit.epochs
        title = f"{job.system.name} {job.name}"
        if not all(math.isfinite(value) for value in losses.values()):
            raise UserError(
                f"{title}: epoch {epoch + 1} gave {losses}; the training diverged.\n"
                "Lower fit.compile.learning_rate, or raise fit.batch_size. Nothing was saved of this epoch."
            )
        for name, value in losses.items():
            self.history.setdefault(name, []).append(value)
        if job.is_chief:
            self._keep(epoch + 1)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        job.run.progress.set_postfix_str(f"{title} epoch {epoch + 1}/{epochs}: {shown}", refresh=False)
        job.run.progress.update(len(job.clips))
        level = logging.INFO if job.system.fit.verbose == 2 else logging.DEBUG
        logger.log(level, "%s: epoch %d/%d - %s", title, epoch + 1, epochs, shown)

    def _keep(self, epoch: int) -> None:
        values = {f"v{i}": variable for i, variable in enumerate(self._variables())}  # NumPy copies one at a time
        header = {"epoch": epoch, "variables": len(values), "history": self.history, "record": self.job.record}
        with write_whole(self.path) as beside:
            np.savez(beside, header=np.array(json.dumps(header)), **values)


def read_state(content: bytes) -> tuple[dict, list[np.ndarray]]:
    """Header and arrays of a file that :class:`TrainingState` has written; raises one of UNREADABLE if it is not."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        header = json.loads(str(stored["header"]))
        kinds = {"epoch": int, "variables": int, "history": dict, "record": dict}
        wrong = [name for name, kind in kinds.items() if type(header[name]) is not kind]
        if wrong:
            raise ValueError(f"{wrong[0]}: {str(header[wrong[0]])[:SHOWN]}")
        return header, [stored[f"v{i}"] for i in range(header["variables"])]


def plot_history(history: dict[str, list[float]], path: Path) -> None:
    """Loss per epoch, training and validation, as the official picture; accuracy beside it if there is one."""
    from matplotlib.figure import Figure

    names = [name for name in history if not name.startswith("val_")]
    figure = Figure(figsize=(7 * len(names), 4.5), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        epochs = range(1, len(history[name]) + 1)
        axis.plot(epochs, history[name], label="Train", marker="." if len(epochs) < 30 else None)
        if f"val_{name}" in history:
            axis.plot(epochs, history[f"val_{name}"], label="Validation", marker="." if len(epochs) < 30 else None)
        axis.set(title=f"Model {name}", xlabel="Epoch", ylabel=name.capitalize())
        axis.legend(loc="best")
    with write_whole(path) as beside:
        figure.savefig(beside, dpi=100)
