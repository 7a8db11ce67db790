"""Reproducible, resumable ``fit``: whatever stops a training, the next run goes on after its last finished epoch."""

import io
import itertools
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from common import UserError
from storage.files import write_whole
from storage.records import SHOWN, UNREADABLE, differences
from training import distribution
from training.model_records import resume_path
from training.optimizers import reset_optimizer, schedule
from training.run import Job

logger = logging.getLogger(__name__)


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


def fit_job(
    model: keras.Model,
    trainee: keras.Model,
    job: Job,
    *,
    n_train: int,
    validation: tf.data.Dataset | None,
    steps_per_call: int = 1,
    steps_taken: tf.Variable | None = None,
) -> dict[str, list[float]]:
    """Losses and metrics of each epoch; goes on from the last finished epoch of a training of the same ``job.record``.

    Parameters
    ----------
    model : the network that is kept; its weights and the trainee's optimiser are the state of the training
    trainee : compiled; its ``fit`` takes batches of indices below ``n_train``
    validation : batches of indices, None where there are none
    steps_per_call : int, batches that the trainee's ``train_step`` is given at once
    steps_taken : the trainee's own count of steps, from which it draws at random; brought to where the training goes on

    Raises
    ------
    UserError : if the loss is no number, or no step has changed the network.
    """
    strategy, fit = job.run.strategy, job.system.fit
    state = TrainingState(model, trainee, job)
    first_epoch = state.restore()
    job.skip(first_epoch)
    if first_epoch < fit.epochs:
        n_call, seed = fit.batch_size * steps_per_call, job.run.config.seed
        n_calls = math.ceil(n_train / n_call)
        if steps_taken is not None:
            steps_taken.assign(first_epoch * n_calls)
        batches = epoch_batches(n_train, seed=seed, batch_size=n_call, shuffle=fit.shuffle, first_epoch=first_epoch)
        callbacks = [state, *schedule(fit)]  # outside of the scope, in which a rate would be one of each replica
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
    _finish(model, trainee, job)
    return state.history


def _finish(model: keras.Model, trainee: keras.Model, job: Job) -> None:
    """Give the network the weights that the optimiser averages, if it does.

    Raises
    ------
    UserError : if no step was taken: under mixed_float16, those whose gradients overflow are left out.
    """
    if np.asarray(trainee.optimizer.iterations) == 0:
        raise UserError(
            f"{job.system.name} {job.name}: fit.precision: {job.system.fit.precision}: the gradients of every step "
            "were too large for 16 bits, so that nothing was learnt. Train for more epochs, or set fit.precision: "
            "float32."
        )
    with job.run.strategy.scope():  # fit has done so, but for a training that was broken off after its last epoch
        trainee.optimizer.finalize_variable_values(model.trainable_variables)


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
        """Bring back the state of an unfinished training of the same record, or the start; how many epochs are done."""
        with self.job.run.strategy.scope():
            reset_optimizer(self.trainee.optimizer, self.network)
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
