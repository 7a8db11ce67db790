"""Where a training step goes: the step, the step with a part left out, its matrix products alone; its page faults.

python benchmarks/benchmark_step.py --system tuned_ae

A part's share is what the step gains without it. Networks with a part left out learn nothing; only their time counts.
Page faults do not depend on the machine: memory that a step gives back to the system is zeroed anew for the next.
"""

import argparse
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from sides import FRAMES, N_MELS, UNITS, Ours  # noqa: E402 beside this file

import config  # noqa: E402
from training import run  # noqa: E402

tf = run.tf  # imported first there, and without a word

import keras  # noqa: E402

import keras_model  # noqa: E402
import metric_model  # noqa: E402
from audio import features  # noqa: E402
from training import clip_trainer, window_trainer  # noqa: E402
from training.fit import epoch_batches  # noqa: E402
from training.optimizers import FusedAdam  # noqa: E402

N_CLIPS, CALLS, EPOCHS = 100, 3, 8  # of an epoch, calls of as many steps as keras_model takes in one
DENSE = ("dense_l2_softmax", "dense_l2_softmax_type")


def without_normalisation(h, bias, gamma, beta, epsilon):
    """ReLU alone."""
    return tf.nn.relu(h), tf.zeros_like(bias), tf.zeros_like(bias)


def plain_descent(self, gradient, variable, learning_rate):
    """One pass over each weight in place of Adam's."""
    tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=1e-9, delta=gradient)


PARTS = {
    "batch normalisation": {(window_trainer, "_normalised_relu"): without_normalisation},
    "Adam": {(FusedAdam, "update_step"): plain_descent},
}


class Stopwatch(keras.callbacks.Callback):
    """Notes when each epoch ends, and the page faults until then."""

    def __init__(self):
        super().__init__()
        self.ends, self.faults = [], []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note it."""
        self.ends.append(time.perf_counter())
        self.faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)


def autoencoder_trainer(system: config.System) -> tuple[keras.Model, int, int]:
    """Trainer with noise for frames, its windows, steps in a call."""
    trainer, rng = keras_model.make_trainer(system, 0), np.random.default_rng(0)
    frames = (rng.normal(-30, 8, (FRAMES, N_MELS)).astype(np.float32) for _ in range(N_CLIPS))
    n_windows = trainer.load(frames, np.arange(N_CLIPS + 1) * FRAMES)
    return trainer, min(n_windows, CALLS * trainer.steps_per_call * system.fit.batch_size), trainer.steps_per_call


def classifier_trainer(system: config.System) -> tuple[keras.Model, int, int]:
    """The same of a classifier on descriptors of noise."""
    rows = features.band_rows(system.descriptor, system.feature)
    n_clips = 16 * CALLS * system.fit.batch_size
    vectors = np.random.default_rng(0).normal(size=(n_clips, sum(map(len, rows)))).astype(np.float32)
    labels, order = np.arange(n_clips) % 20, np.arange(n_clips)
    network, source = metric_model.descriptor_network(system.model, vectors, labels, rows, order)
    return clip_trainer.make_trainer(network, system, source, labels, 0), n_clips, 1


def step_cost(system: config.System, replaced: dict[tuple[object, str], Callable]) -> tuple[float, float]:
    """Median time of a training step [ms] and its page faults, with functions replaced."""
    kept = {(owner, name): getattr(owner, name) for owner, name in replaced}
    for (owner, name), other in replaced.items():
        setattr(owner, name, other)
    try:
        make = classifier_trainer if system.name in DENSE else autoencoder_trainer
        trainer, n, per_call = make(system)
        n_call = per_call * system.fit.batch_size
        watch, batches = Stopwatch(), epoch_batches(n, seed=0, batch_size=n_call, shuffle=True)
        trainer.fit(batches, steps_per_epoch=n // n_call, epochs=EPOCHS, verbose=0, shuffle=False, callbacks=[watch])
        per_epoch = (1e3 * np.diff(watch.ends), np.diff(watch.faults))
        return tuple(float(np.median(values)) * system.fit.batch_size / n for values in per_epoch)
    finally:
        for (owner, name), own in kept.items():
            setattr(owner, name, own)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=(*UNITS, *DENSE), default="tuned_ae", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args(argv)
    system = config.load_config(ROOT / "baseline.yaml").systems[args.system]
    warnings.filterwarnings("ignore", "Gradients do not exist")  # of what is left out
    parts = PARTS if args.system in UNITS else {"Adam": PARTS["Adam"]}
    costs = {name: [] for name in ("whole step", *parts)}
    for _ in range(args.rounds):
        for name in costs:
            costs[name].append(step_cost(system, parts.get(name, {})))
    whole, faults = min(costs["whole step"])  # what else the machine does only adds
    print(f"{args.system}: a step of {system.fit.batch_size} takes {whole:.2f} ms and {faults:.0f} page faults")
    if args.system in UNITS:
        print(f"{'its matrix products alone':32}{1e3 * Ours.products(None, [], args.system):8.2f} ms")
    for name in parts:
        print(f"{name:32}{whole - min(costs[name])[0]:8.2f} ms")


if __name__ == "__main__":
    main()
