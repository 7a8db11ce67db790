"""Where a training step of an autoencoder goes: the step, the step with a part left out, and its matrix products alone.

python benchmarks/benchmark_step.py --system tuned_ae

A part's share is what the step gains without it. Networks with a part left out learn nothing; only their time counts.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from sides import BATCH, FRAMES, N_MELS, UNITS, Ours  # noqa: E402 beside this file

import config  # noqa: E402
import keras_model  # noqa: E402 it imports TensorFlow, and says nothing
from training import FusedAdam, keras, tf  # noqa: E402

N_CLIPS, CALLS, EPOCHS = 100, 3, 8  # of an epoch, calls of as many steps as keras_model takes in one


def without_normalisation(h, bias, gamma, beta, epsilon):
    """ReLU alone."""
    return tf.nn.relu(h), tf.zeros_like(bias), tf.zeros_like(bias)


def plain_descent(self, gradient, variable, learning_rate):
    """One pass over each weight in place of Adam's."""
    tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=1e-9, delta=gradient)


PARTS = {
    "batch normalisation": {(keras_model, "_normalised_relu"): without_normalisation},
    "Adam": {(FusedAdam, "update_step"): plain_descent},
}


class Stopwatch(keras.callbacks.Callback):
    """Notes when each epoch ends."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note it."""
        self.ends.append(time.perf_counter())


def step_time(system: config.System, replaced: dict[tuple[object, str], Callable]) -> float:
    """Median time of a training step [ms], with functions replaced."""
    kept = {(owner, name): getattr(owner, name) for owner, name in replaced}
    for (owner, name), other in replaced.items():
        setattr(owner, name, other)
    try:
        trainer, rng = keras_model.make_trainer(system, 0), np.random.default_rng(0)
        frames = [rng.normal(-30, 8, (FRAMES, N_MELS)).astype(np.float32) for _ in range(N_CLIPS)]
        n_windows = trainer.load(frames, np.arange(N_CLIPS + 1) * FRAMES)
        n_call = BATCH * keras_model.STEPS_PER_CALL
        indices = rng.permutation(n_windows)[: CALLS * n_call].astype(np.int64)
        batches = tf.data.Dataset.from_tensor_slices(indices).batch(n_call).repeat()
        watch = Stopwatch()
        trainer.fit(batches, steps_per_epoch=CALLS, epochs=EPOCHS, verbose=0, shuffle=False, callbacks=[watch])
        return 1e3 * statistics.median(np.diff(watch.ends)) / (len(indices) / BATCH)
    finally:
        for (owner, name), own in kept.items():
            setattr(owner, name, own)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=UNITS, default="tuned_ae", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args(argv)
    system = config.load_config(ROOT / "baseline.yaml").systems[args.system]
    warnings.filterwarnings("ignore", "Gradients do not exist")  # of what is left out
    ways = {"whole step": {}} | PARTS
    times = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, replaced in ways.items():
            times[name].append(step_time(system, replaced))
    whole = min(times.pop("whole step"))  # what else the machine does only adds
    products = 1e3 * Ours.products(None, [], args.system)
    print(f"{args.system}: a step of {BATCH} vectors takes {whole:.2f} ms")
    print(f"{'its matrix products alone':32}{products:8.2f} ms")
    for name, values in times.items():
        print(f"{name:32}{whole - min(values):8.2f} ms")


if __name__ == "__main__":
    main()
