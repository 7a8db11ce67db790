"""Verdicts on recordings by an exported system: NumPy, soundfile and ONNX Runtime alone.

python score_onnx.py export/dev/onnx/tuned_ae_fan.json id_00 RECORDING.wav...

For the autoencoders and the classifier of log-mel windows; what 05_export.py has written says how all is done.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


def log_mel_energies(waveform, feature):
    """(n_samples,) -> (n_frames, n_mels) [dB]."""
    n_fft = feature["n_fft"]
    padded = np.pad(waveform, n_fft // 2, mode=feature["pad_mode"])
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: feature["hop_length"]]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    spectrum = np.abs(np.fft.rfft(frames * window)) ** feature["power"]
    filters = np.zeros((feature["n_mels"], n_fft // 2 + 1))
    for row, band in zip(filters, feature["mel_filters"], strict=True):
        row[band["first_bin"] : band["first_bin"] + len(band["weights"])] = band["weights"]
    return (20 / feature["power"] * np.log10(spectrum @ filters.T + sys.float_info.epsilon)).astype(np.float32)


def reconstruction_score(log_mel, network, system, machine_id):
    """Of an autoencoder: mean squared error of each vector of frames, put together."""
    frames, hop = system["windows"]["frames"], system["windows"]["hop"]
    windows = np.lib.stride_tricks.sliding_window_view(log_mel, frames, axis=0)[::hop]
    vectors = np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(len(windows), -1)
    errors = np.square(vectors - network(vectors)).mean(axis=1).astype(np.float64)
    return {"mean": np.mean, "median": np.median, "std": np.std, "max": np.max}[system["score"]["aggregate"]](errors)


def window_outputs(log_mel, network, system):
    """Of a classifier: what its network gives for the windows that cover the clip."""
    frames, n = system["windows"]["frames"], len(log_mel)
    starts = np.linspace(0, max(n - frames, 0), -(-n // frames)).round().astype(int)
    windows = log_mel.astype(np.float16)[(starts[:, None] + np.arange(frames)) % n]
    return network(windows.transpose(0, 2, 1)[..., None].astype(np.float32))


def softmax_score(log_mel, network, system, machine_id):
    """Minus the log probability of the clip's own class."""
    logits = window_outputs(log_mel, network, system).astype(np.float64)
    log_probabilities = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).mean(axis=0)
    by_id = system["score"]["class_is"] == "machine_id"
    own = f"{system['machine_type']}/{machine_id}" if by_id else system["machine_type"]
    return -log_probabilities[system["score"]["classes"].index(own)]


def detector_score(log_mel, network, system, machine_id):
    """How far the clip's embedding lies from those of the training clips."""
    embeddings = window_outputs(log_mel, network, system)
    mean = embeddings.mean(axis=0)
    detector = system["score"]
    train = np.array(detector["parts"][0]["machine_ids"][machine_id]["vectors"])
    vector = mean * np.linalg.norm(embeddings[0]) / np.linalg.norm(mean)
    k = detector["n_neighbors"]
    distances = distances_to(train, vector, detector["metric"])
    if detector["score"] == "knn":
        return np.sort(distances)[:k].mean()
    between = np.array([distances_to(train, other, detector["metric"]) for other in train])
    np.fill_diagonal(between, np.inf)
    if detector["score"] == "density":
        radii = np.sort(between, axis=1)[:, :k].mean(axis=1)
        return np.sort(distances / radii)[: detector["n_nearest"]].mean()
    reach = np.sort(between, axis=1)[:, k - 1]  # local outlier factor
    neighbors = np.argsort(between, axis=1)[:, :k]
    far = np.maximum(np.take_along_axis(between, neighbors, axis=1), reach[neighbors])
    densities = 1 / (far.mean(axis=1) + 1e-10)
    near = np.argsort(distances)[:k]
    return densities[near].mean() * (np.maximum(distances[near], reach[near]).mean() + 1e-10)


def distances_to(train, vector, metric):
    """(n_train, n_numbers), (n_numbers,) -> (n_train,)."""
    if metric == "cosine":
        return 1 - train @ vector / np.linalg.norm(train, axis=1) / np.linalg.norm(vector)
    return np.linalg.norm(train - vector, ord={"euclidean": 2, "manhattan": 1}[metric], axis=1)


def main(json_path, machine_id, *recordings):
    """Print name, score, threshold and verdict of each recording."""
    system = json.loads(Path(json_path).read_text(encoding="utf-8"))
    kinds = {"reconstruction": reconstruction_score, "detector": detector_score, "softmax": softmax_score}
    if not system["model"] or "windows" not in system:
        sys.exit(f"{json_path}: of a system that does not look at log-mel windows; this example scores those that do")
    session = onnxruntime.InferenceSession(Path(json_path).parent / system["model"]["file"])
    threshold = system["thresholds"][machine_id]
    for name in recordings:
        waveform, sample_rate = soundfile.read(name, dtype="float32", always_2d=True)
        if sample_rate != system["sample_rate"]:
            sys.exit(f"{name}: {sample_rate} Hz; expected {system['sample_rate']} Hz")
        channel = system["channel"]
        waveform = waveform.mean(axis=1) if channel == "mean" else waveform[:, channel or 0]
        log_mel = log_mel_energies(waveform, system["feature"])
        score = kinds[system["score"]["kind"]](
            log_mel, lambda inputs: session.run(None, {"input": inputs})[0], system, machine_id
        )
        print(f"{name},{float(score)!r},{threshold!r},{'anomaly' if score > threshold else 'normal'}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
