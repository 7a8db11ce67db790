"""Training step of spectral_l2_softmax: clips per second, by part, beside the same network in plain Keras.

python benchmarks/benchmark_spectral.py [--clips 32] [--steps 5]

Plain Keras has its own batch normalisation and Adam, and is given the spectra; both take turns, step by step.
"""

import argparse
import dataclasses
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

import config  # noqa: E402
import spectral_model  # noqa: E402
from audio.spectra import layout, spectra  # noqa: E402
from training import clip_trainer  # noqa: E402
from training.metric_layers import FusedBatchNormalization  # noqa: E402
from training.waveforms import Waveforms  # noqa: E402

SAMPLE_RATE, N_CLASSES = 16000, 41


def plain(network: keras.Model) -> keras.Model:
    """The same network with Keras's own batch normalisation, compiled with Keras's Adam."""

    def clone(layer: layers.Layer) -> layers.Layer:
        kind = layers.BatchNormalization if isinstance(layer, FusedBatchNormalization) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.compile(keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    return copy


def processor_time() -> float:
    """Seconds of all cores."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def compare(system: config.System, n_clips: int, n_steps: int) -> None:
    """Print the times of a step."""
    parts = layout(system.spectra, SAMPLE_RATE)
    samples = np.random.default_rng(0).normal(0, 600, (n_clips, parts.n_samples)).astype(np.int16)
    labels = np.arange(n_clips) % N_CLASSES
    network = spectral_model.build(
        system.model, parts, scales=spectral_model.scales(samples[:2], parts), n_classes=N_CLASSES
    )
    source = Waveforms(samples, np.arange(n_clips), parts)
    trainer = clip_trainer.make_trainer(network, system, source, labels, 0)
    indices, beside = tf.range(n_clips), plain(network)
    heard = np.stack([spectra(clip, parts) for clip in samples])
    one_hot = np.eye(N_CLASSES, dtype=np.float32)[labels][:, None]
    own_step = tf.function(trainer.train_step)
    hearing = tf.function(lambda rows: source.heard(source.take(rows, rows)))
    ways = {
        "here": lambda: own_step(indices),
        "its spectra": lambda: hearing(indices),
        "plain Keras": lambda: beside.train_on_batch(heard, one_hot),
    }
    seconds = {name: [] for name in ways}
    cores = {name: [] for name in ways}
    for step in range(n_steps + 1):
        for name, way in ways.items():
            start, used = time.perf_counter(), processor_time()
            way()
            if step:  # the first one compiles
                seconds[name].append(time.perf_counter() - start)
                cores[name].append(processor_time() - used)
    for name in ways:
        wall, core = statistics.median(seconds[name]), statistics.median(cores[name])
        print(f"{name}: {n_clips / wall:.1f} clips/s, {1000 * core / n_clips:.1f} ms of a core a clip")
    ratio = statistics.median(cores["plain Keras"]) / statistics.median(cores["here"])
    print(f"plain Keras takes {ratio:.2f} times the processor's time; peak {peak_gigabytes():.2f} GB")


def peak_gigabytes() -> float:
    """Largest memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform != "darwin" else 1) / 1e9


def main() -> None:
    """Compare as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32, metavar="N", help="of a batch")
    parser.add_argument("--steps", type=int, default=5, metavar="N")
    parser.add_argument("--networks", type=int, default=1, metavar="N")
    args = parser.parse_args()
    system = config.load_config(ROOT / "baseline.yaml").systems["spectral_l2_softmax"]
    model = dataclasses.replace(system.model, networks=args.networks)
    compare(dataclasses.replace(system, model=model), args.clips, args.steps)


if __name__ == "__main__":
    main()
