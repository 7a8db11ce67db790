"""The two sides of the benchmark, each to be made in a process of its own; their methods give seconds."""

import dataclasses
import importlib
import logging
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
MACHINE = "fan"  # what the synthetic clips are called
SAMPLE_RATE, SECONDS, FRAMES = 16000, 10, 313
N_MELS, STACKED, BATCH, VALIDATION = 128, 5, 512, 0.1
WINDOWS = FRAMES - STACKED + 1  # of a clip
UNITS = {
    "baseline_ae": (128, 128, 128, 128, 8, 128, 128, 128, 128),
    "tuned_ae": (1024, 512, 256, 128, 16, 128, 256, 512, 1024),
}
EPOCHS = 4  # of which the first, that compiles, is not timed


def layer_shapes(system: str) -> list[tuple[int, int]]:
    """(inputs, outputs) of each dense layer."""
    sizes = (N_MELS * STACKED, *UNITS[system], N_MELS * STACKED)
    return list(zip(sizes[:-1], sizes[1:], strict=True))


def step_operations(system: str) -> int:
    """Floating-point operations of the products of a training step: forward, weights, inputs but the first layer's."""
    sizes = [n_in * n_out for n_in, n_out in layer_shapes(system)]
    return 2 * BATCH * (3 * sum(sizes) - sizes[0])


def epoch_operations(system: str, n_clips: int) -> float:
    """The same for an epoch: training steps, and the validation's forward products."""
    windows = n_clips * WINDOWS
    weights = sum(n_in * n_out for n_in, n_out in layer_shapes(system))
    return windows * ((1 - VALIDATION) * step_operations(system) / BATCH + VALIDATION * 2 * weights)


def seconds_of(function: Callable[[], object]) -> float:
    """Wall time of one call [s]."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Reference:
    """The official baseline's way: float64 vectors of all clips, ``fit``, one clip in each ``predict``."""

    def __init__(self, official: Path | None):
        import keras

        self.keras = keras
        self.vectors, self.all_vectors = self._vectors, self._all_vectors
        if official:
            sys.path.insert(0, str(official))
            self.vectors = lambda path: importlib.import_module("common").file_to_vector_array(path, n_mels=N_MELS)
            script = importlib.import_module("00_train")
            self.all_vectors = lambda paths: script.list_to_vector_array(paths, n_mels=N_MELS)

    def _vectors(self, path: str) -> np.ndarray:
        import librosa

        waveform, sample_rate = librosa.load(path, sr=None, mono=False)
        mel = librosa.feature.melspectrogram(y=waveform, sr=sample_rate, n_fft=1024, hop_length=512, n_mels=N_MELS)
        log_mel = 10 * np.log10(mel + sys.float_info.epsilon)
        vectors = np.zeros((WINDOWS, N_MELS * STACKED))
        for t in range(STACKED):
            vectors[:, N_MELS * t : N_MELS * (t + 1)] = log_mel[:, t : t + WINDOWS].T
        return vectors

    def _all_vectors(self, paths: Sequence[str]) -> np.ndarray:
        stacked = np.zeros((WINDOWS * len(paths), N_MELS * STACKED))
        for i, path in enumerate(paths):
            stacked[WINDOWS * i : WINDOWS * (i + 1)] = self.vectors(path)
        return stacked

    def _network(self, system: str):
        inputs = h = self.keras.layers.Input(shape=(N_MELS * STACKED,))
        for units in UNITS[system]:
            h = self.keras.layers.Dense(units)(h)
            h = self.keras.layers.BatchNormalization()(h)
            h = self.keras.layers.Activation("relu")(h)
        return self.keras.Model(inputs, self.keras.layers.Dense(N_MELS * STACKED)(h))

    def features(self, paths: Sequence[str]) -> float:
        """Vectors of a folder."""
        return seconds_of(lambda: self.all_vectors(paths))

    def training(self, paths: Sequence[str], system: str) -> float:
        """One epoch; the first, which compiles, does not count."""
        vectors, model, ends = self.all_vectors(paths), self._network(system), []
        model.compile(optimizer="adam", loss="mean_squared_error")
        note = self.keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
        model.fit(vectors, vectors, BATCH, EPOCHS, validation_split=VALIDATION, callbacks=[note])
        return statistics.median(np.diff(ends))

    def scoring(self, paths: Sequence[str]) -> float:
        """Scores of a folder by the official network."""
        model = self._network("baseline_ae")

        def score() -> None:
            for path in paths:
                vectors = self.vectors(path)
                np.mean(np.mean(np.square(vectors - model.predict(vectors)), axis=1))

        return seconds_of(score)


class PyTorch(Reference):
    """The same networks in plain PyTorch: float32 vectors in memory, cut into batches by a DataLoader."""

    def __init__(self, official: Path | None):
        import torch

        self.torch = torch

    def training(self, paths: Sequence[str], system: str) -> float:
        """One epoch; the first does not count."""
        torch, blocks = self.torch, []
        for n_in, n_out in layer_shapes(system)[:-1]:
            blocks += [
                torch.nn.Linear(n_in, n_out),
                torch.nn.BatchNorm1d(n_out, eps=1e-3, momentum=0.01),  # Keras's momentum of 0.99
                torch.nn.ReLU(),
            ]
        model = torch.nn.Sequential(*blocks, torch.nn.Linear(*layer_shapes(system)[-1]))
        vectors = torch.from_numpy(np.concatenate([self._vectors(path).astype(np.float32) for path in paths]))
        n_train = int(len(vectors) * (1 - VALIDATION))
        optimizer, loss = torch.optim.Adam(model.parameters(), eps=1e-7), torch.nn.MSELoss()
        sampler = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(range(n_train)), BATCH, drop_last=False)
        loader = torch.utils.data.DataLoader(vectors, sampler=sampler, batch_size=None)

        def epoch() -> None:
            model.train()
            for batch in loader:
                optimizer.zero_grad()
                loss(model(batch), batch).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                sum(loss(model(batch), batch) * len(batch) for batch in vectors[n_train:].split(BATCH))

        return statistics.median([seconds_of(epoch) for _ in range(EPOCHS)][1:])


class Ours:
    """The functions that our scripts call."""

    def __init__(self, official: Path | None):
        sys.path.insert(0, str(ROOT))
        import config
        import keras_model
        from audio import clips, features
        from training import run

        logging.disable()
        self.clips, self.features_module, self.keras_model, self.run = clips, features, keras_model, run
        self.config = config.load_config(Path("baseline.yaml"))

    def _clips(self, paths: Sequence[str]) -> list:
        folder = Path(paths[0]).parent
        clips = self.clips.check_clips([(MACHINE, folder)], min_samples=1, normal_only=False)
        return clips[: len(paths)]

    def features(self, paths: Sequence[str]) -> float:
        """Log-mel energies of a folder."""
        clips, feature = self._clips(paths), self.config.feature
        return seconds_of(lambda: list(self.features_module.log_mel_clips(clips, feature, None)))

    def training(self, paths: Sequence[str], system: str) -> float:
        """One epoch, with all that ``00_train.py`` does in it; the first, which compiles, does not count."""
        clips, ends = self._clips(paths), []

        class Stopwatch(tqdm):
            def update(self, n: int = 1) -> None:  # called at the end of each epoch, with the number of clips
                ends.extend([time.perf_counter()] * (n == len(clips)))

        shutil.rmtree(self.config.model_directory, ignore_errors=True)
        run = self.run.Run(self.config, "dev", Stopwatch(total=1, disable=True))
        self.keras_model.train(run, self.config.systems[system], {MACHINE: clips})
        return statistics.median(np.diff(ends))

    def scoring(self, paths: Sequence[str]) -> float:
        """Scores of a folder by the official network."""
        system = self.config.systems["baseline_ae"]
        model = self.keras_model.build(system.model, system.feature)
        clips = self._clips(paths)
        run = self.run.Run(dataclasses.replace(self.config, cache_directory=None), "dev", tqdm(disable=True))
        return seconds_of(lambda: self.keras_model.score_clips(model, run, system, clips))

    def products(self, paths: Sequence[str], system: str) -> float:
        """Matrix products of one training step alone, float32, by numpy or TensorFlow, whichever is faster."""
        import tensorflow as tf

        rng = np.random.default_rng(0)
        arrays = []
        for n_in, n_out in layer_shapes(system):
            shapes = ((BATCH, n_in), (n_in, n_out), (BATCH, n_out))
            arrays.append([rng.standard_normal(shape, np.float32) for shape in shapes])

        def step(matmul: Callable, layers: list) -> list:
            forward = [matmul(x, w) for x, w, _ in layers]
            weights = [matmul(tf.transpose(x) if tf.is_tensor(x) else x.T, dy) for x, _, dy in layers]
            inputs = [matmul(dy, tf.transpose(w) if tf.is_tensor(w) else w.T) for _, w, dy in layers[1:]]
            return forward + weights + inputs

        compiled = tf.function(lambda layers: step(tf.matmul, layers))
        tensors = [[tf.constant(array) for array in layer] for layer in arrays]
        ways = (lambda: step(np.matmul, arrays), lambda: compiled(tensors)[-1].numpy())
        return min(statistics.median(seconds_of(way) for _ in range(40)) for way in ways)
