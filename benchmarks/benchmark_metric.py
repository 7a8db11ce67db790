"""Speed and memory of the classifier: training step, embedding, local outlier factor.

python benchmarks/benchmark_metric.py                    training step and embedding at 224 x 224 x 3; LOF
python benchmarks/benchmark_metric.py --clips 20119      the same with the frames of a whole development set in memory

All inputs are random numbers. Keras's own way is measured in the same run: the same network and data, Keras's batch
normalisation, ``fit`` on arrays with default settings. Both start from the same weights and see the same batches.
"""

import argparse
import logging
import platform
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import tensorflow as tf

import config
import metric_model
from detectors import outliers
from training import clip_trainer, embedding
from training.optimizers import make_optimizer

N_MELS, FRAMES, N_CLASSES = 64, 313, 6


class StepTimes(keras.callbacks.Callback):
    """Time, processor time [s] and loss of each training step, over several calls of ``fit``."""

    def __init__(self):
        super().__init__()
        self.seconds, self.processor_seconds, self.losses = [], [], []

    def on_train_begin(self, logs=None):
        """Start the clocks."""
        self.last, self.processor_last, self.sum = time.perf_counter(), time.process_time(), 0.0

    def on_train_batch_end(self, batch, logs=None):
        """Take the times; the loss that Keras reports is the mean since the epoch's first step."""
        self.seconds.append(time.perf_counter() - self.last)
        self.processor_seconds.append(time.process_time() - self.processor_last)
        self.losses.append(logs["loss"] * (batch + 1) - self.sum)
        self.sum += self.losses[-1]
        self.last, self.processor_last = time.perf_counter(), time.process_time()

    def medians(self, n_steps: int) -> tuple[float, float]:
        """Time and processor time of a step; the first two of each call, which set up and trace, do not count."""
        chosen = np.arange(len(self.seconds)) % n_steps >= 2
        return float(np.median(np.array(self.seconds)[chosen])), float(
            np.median(np.array(self.processor_seconds)[chosen])
        )


def settings(args: argparse.Namespace) -> SimpleNamespace:
    """The report's network, with random weights."""
    model = config.L2Softmax(
        classes="machine_type",
        alpha=16.0,
        margin=0.0,
        mixup=0.0,
        width=args.width,
        weights=None,
        input_size=args.input_size or None,
        resize="bilinear",
        scaling="standard",
        score="lof",
        lof_per="machine_type",
        n_neighbors=20,
        metric="euclidean",
    )
    keys = config.Compile("adam", "categorical_crossentropy", args.learning_rate)
    return SimpleNamespace(model=model, fit=SimpleNamespace(compile=keys))


def build(system: SimpleNamespace) -> keras.Model:
    """Network, the same weights each time."""
    keras.utils.set_random_seed(0)
    zeros, deviation = np.zeros(N_MELS), np.full(N_MELS, 10.0)
    return metric_model.build(
        system.model, n_mels=N_MELS, frames=FRAMES, n_classes=N_CLASSES, mean=zeros, deviation=deviation
    )


def with_keras_layers(network: keras.Model) -> keras.Model:
    """The network with Keras's own batch normalisation, as keras.applications makes it."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=clone)
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.BatchNormalization.from_config(layer.get_config())
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.set_weights(network.get_weights())
    return copy


def keras_trainer(system: SimpleNamespace, clips: np.ndarray, labels: np.ndarray, args: argparse.Namespace):
    """Function that trains for one epoch with Keras's ``fit``, default settings, on arrays."""
    network = with_keras_layers(build(system))
    network.compile(make_optimizer(system.fit), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs, times = clips.transpose(0, 2, 1)[..., None], StepTimes()

    def fit() -> StepTimes:
        network.fit(inputs, labels, batch_size=args.batch_size, shuffle=False, verbose=0, callbacks=[times])
        return times

    return fit


def our_trainer(system: SimpleNamespace, log_mel: tf.Variable, labels: np.ndarray, args: argparse.Namespace):
    """Network, and a function that trains it for one epoch as ``metric_model`` does."""
    n_clips = log_mel.shape[0] // FRAMES
    source = clip_trainer.LogMelWindows(log_mel, np.arange(n_clips + 1) * FRAMES, np.arange(n_clips), frames=FRAMES)
    trainer = clip_trainer.make_trainer(build(system), system, source, np.resize(labels, n_clips), seed=0)
    batches, times = tf.data.Dataset.range(len(labels)).batch(args.batch_size), StepTimes()

    def fit() -> StepTimes:
        trainer.fit(batches, shuffle=False, verbose=0, callbacks=[times])
        return times

    return trainer.network, fit


def peak_gigabytes() -> float:
    """Largest memory of this process so far."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def measure_training(args: argparse.Namespace) -> keras.Model:
    """Time our steps and Keras's in turns; the trained network. Ours go first: the peak of memory is theirs alone."""
    system = settings(args)
    rng = np.random.default_rng(0)
    n_train = args.steps * args.batch_size
    n_clips = max(args.clips, n_train)
    clips = rng.normal(-30, 10, (n_train, FRAMES, N_MELS)).astype(clip_trainer.FRAME_TYPE)
    labels = np.arange(n_train) % N_CLASSES
    log_mel = tf.Variable(tf.zeros((n_clips * FRAMES, N_MELS), clips.dtype), trainable=False)
    for start in range(0, n_clips, n_train):  # filled, so that the memory is really taken
        block = clips.reshape(-1, N_MELS)[: min(n_clips - start, n_train) * FRAMES]
        log_mel[start * FRAMES : start * FRAMES + len(block)].assign(block)
    network, our_fit = our_trainer(system, log_mel, labels, args)
    ours = our_fit()
    print(f"memory: peak {peak_gigabytes():.2f} GB with the frames of {n_clips} clips, batch {args.batch_size}")
    keras_fit = keras_trainer(system, clips.astype(np.float32), labels, args)
    theirs = keras_fit()
    print(f"first step, with tracing: {ours.seconds[0]:.1f} s; Keras {theirs.seconds[0]:.1f} s")
    for name, losses in (("ours", ours.losses), ("Keras", theirs.losses)):
        print(f"losses {name:6}", *(f"{loss:.5f}" for loss in losses))
    for _ in range(args.rounds):
        our_fit()
        keras_fit()
    (step, processor), (keras_step, keras_processor) = (times.medians(args.steps) for times in (ours, theirs))
    speed, keras_speed = args.batch_size / step, args.batch_size / keras_step
    print(f"training: {speed:.1f} clips/s; Keras fit with default settings: {keras_speed:.1f} clips/s")
    print(f"ours is {keras_step / step:.2f} x as fast; {keras_processor / processor:.2f} x by processor time")
    return network


def measure_embedding(network: keras.Model, args: argparse.Namespace) -> None:
    """Embeddings of clips of 313 frames."""
    rng = np.random.default_rng(1)
    clips = rng.normal(-30, 10, (4 * embedding.EMBEDDING_BATCH, FRAMES, N_MELS)).astype(np.float32)
    times = []

    def watched(log_mels):
        for number, log_mel in enumerate(log_mels):
            if number % embedding.EMBEDDING_BATCH == 0:
                times.append(time.perf_counter())
            yield log_mel

    embedding.embed(network, embedding.log_mel_examples(watched(clips), FRAMES))
    print(f"embedding: {embedding.EMBEDDING_BATCH / np.median(np.diff(times[1:])):.1f} clips/s")


def measure_lof() -> None:
    """Local outlier factor of 1,000 clips against 4,000 training clips, 1280 features."""
    rng = np.random.default_rng(2)
    train, test = rng.normal(size=(4000, 1280)).astype(np.float32), rng.normal(size=(1000, 1280)).astype(np.float32)
    start = time.perf_counter()
    outliers.outlier_scores(train, test, score="lof", n_neighbors=20, metric="euclidean")
    print(f"LOF: 4,000 training clips, 1,000 test clips: {time.perf_counter() - start:.1f} s")


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="training steps in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="after one to warm up (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--clips", type=int, default=0, help="clips whose frames are held (default: those trained on)")
    parser.add_argument("--width", type=float, default=1.0, help="of MobileNetV2 (default: %(default)s)")
    parser.add_argument("--input-size", type=int, default=224, help="0: no resizing (default: %(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=1e-5, help="small: rounding is not blown up (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    devices = ", ".join(device.name for device in tf.config.list_physical_devices())
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {devices}; TensorFlow {tf.__version__}, Keras {keras.__version__}")
    network = measure_training(args)
    measure_embedding(network, args)
    measure_lof()


if __name__ == "__main__":
    main()
