"""Store what the official baseline's functions give, for the tests to compare with.

Run from anywhere, once: ``python tests/make_golden.py FOLDER``, where FOLDER is a checkout of
https://github.com/y-kawagu/dcase2020_task2_baseline, commit ebfcc2a. Only outputs are stored, beside the versions that
gave them; the clips and the weights are made again by the tests, with the functions below.

The official repository pins librosa 0.6.0, which pads a clip by reflection; since 0.9, librosa pads with zeros. What is
stored with ``reflect`` is the official functions' output with today's librosa told to pad as that of 2020 did.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

GOLDEN = Path(__file__).with_name("golden")
SAMPLE_RATE = 16_000  # [Hz]
PARAMETER_SETS = {  # name -> length of the clip [s], and the arguments of the official file_to_vector_array
    "official": (2.0, {"n_mels": 128, "frames": 5, "n_fft": 1024, "hop_length": 512, "power": 2.0}),
    "toy_car": (11.0, {"n_mels": 128, "frames": 5, "n_fft": 1024, "hop_length": 512, "power": 2.0}),
    "mels_64": (2.0, {"n_mels": 64, "frames": 5, "n_fft": 1024, "hop_length": 512, "power": 2.0}),
    "power_1": (2.0, {"n_mels": 128, "frames": 5, "n_fft": 1024, "hop_length": 512, "power": 1.0}),
    "hop_256": (2.0, {"n_mels": 128, "frames": 5, "n_fft": 1024, "hop_length": 256, "power": 2.0}),
    "fft_2048": (2.0, {"n_mels": 128, "frames": 3, "n_fft": 2048, "hop_length": 512, "power": 2.0}),
    "reflect": (2.0, {"n_mels": 128, "frames": 5, "n_fft": 1024, "hop_length": 512, "power": 2.0}),
    "reflect_2048": (2.0, {"n_mels": 64, "frames": 3, "n_fft": 2048, "hop_length": 256, "power": 1.0}),
}
SCORED = (1.0, 2.0, 11.0)  # lengths of the clips that are scored [s]


def clip(seconds: float) -> np.ndarray:
    """Waveform, shape (n_samples,), int16: loud low tones, noise that comes and goes, quiet high bands, silence.

    RandomState's numbers are the same in all versions of NumPy.
    """
    n = round(seconds * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    random = np.random.RandomState(n)
    tones = sum(np.sin(2 * np.pi * hz * t + hz) / k for k, hz in enumerate((110.0, 221.0, 447.0, 1830.0), 1))
    noise = np.convolve(random.standard_normal(n), np.hanning(16), mode="same") * (t % 1.0 > 0.6)
    sound = 0.2 * tones + 0.02 * noise
    sound[(t > 0.40) & (t < 0.52)] = 0.0  # longer than a frame: log10(0 + eps)
    return np.round(32767 * sound).astype(np.int16)


def write_clip(path: Path, seconds: float) -> Path:
    """Write the clip as a wav file."""
    soundfile.write(path, clip(seconds), SAMPLE_RATE, subtype="PCM_16")
    return path


def pad_mode(name: str) -> str:
    """How the clip of a set of parameters is padded at its ends."""
    return "reflect" if name.startswith("reflect") else "constant"


def kept_vectors(vectors: np.ndarray) -> np.ndarray:
    """The vectors that are stored: the first three, the last three and some in between."""
    n = len(vectors)
    return vectors[np.unique(np.concatenate([np.arange(3), np.arange(0, n, max(1, n // 24)), np.arange(n - 3, n)]))]


def weights(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Weights of a dense network with batch normalisation, a function of their shapes, that keep a signal's size."""
    made = []
    for index, shape in enumerate(shapes):
        numbers = np.random.RandomState(1000 + index).standard_normal(shape)
        if len(shape) == 2:
            made.append(numbers / np.sqrt(shape[0]))
        else:  # biases, scales, means and variances alike: all positive, as a variance must be
            made.append(0.5 + 0.5 * np.abs(numbers))
    return [array.astype(np.float32) for array in made]


def main() -> None:
    """Import the official modules, run them, store what they give."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="checkout of the official baseline")
    folder = parser.parse_args().folder.resolve()
    sys.path.insert(0, str(folder))
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):  # the official common writes a log where it is
        import common as official
        import keras_model

        if Path(official.__file__).parent != folder:
            parser.error(f"{folder} has no common.py")
        paths = {seconds: write_clip(Path(f"{seconds}.wav"), seconds) for seconds in SCORED}
        melspectrogram = official.librosa.feature.melspectrogram
        vectors = {}
        for name, (seconds, arguments) in PARAMETER_SETS.items():
            padded = functools.partial(melspectrogram, pad_mode=pad_mode(name))
            official.librosa.feature.melspectrogram = padded
            found = official.file_to_vector_array(str(paths[seconds]), **arguments)
            vectors[name] = kept_vectors(found).astype(np.float32)
        model = keras_model.get_model(128 * 5)
        model.compile(optimizer="adam", loss="mean_squared_error")
        model.set_weights(weights([w.shape for w in model.get_weights()]))
        scores = {"constant": [], "reflect": []}
        for mode, seconds in itertools.product(scores, SCORED):
            official.librosa.feature.melspectrogram = functools.partial(melspectrogram, pad_mode=mode)
            x = official.file_to_vector_array(str(paths[seconds]), **PARAMETER_SETS["official"][1])
            scores[mode].append(np.mean(np.mean(np.square(x - model.predict(x, verbose=0)), axis=1)))
        network = {
            "layers": [[type(layer).__name__, *layer.output.shape[1:]] for layer in model.layers],
            "parameters": model.count_params(),
            "optimizer": model.optimizer.get_config(),
        }
    packages = ("librosa", "numpy", "scipy", "soundfile", "tensorflow", "keras")
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN / "official_vectors.npz", versions=json.dumps(versions), **vectors)
    np.savez_compressed(
        GOLDEN / "official_model.npz",
        versions=json.dumps(versions),
        network=json.dumps(network, default=float),
        scores=np.array(scores["constant"]),
        scores_reflect=np.array(scores["reflect"]),
    )


if __name__ == "__main__":
    main()
