"""Verdicts on recordings by an exported system: NumPy, soundfile and ONNX Runtime alone, and frontend.py beside.

python score_onnx.py export/dev/onnx/tuned_ae_fan.json id_00 RECORDING.wav...

For the autoencoders and the classifier of log-mel windows; what 05_export.py has written says how all is done. All
systems' scores are here: 05_export.py itself scores the test clips by these functions before its files count.
"""

import json
import sys
from pathlib import Path

import numpy as np
from frontend import log_mel_energies, network_inputs

# Keys of the JSON with lists of numbers.
ARRAYS = ("mean", "scale", "matrix", "vectors", "radii", "densities", "inverse_covariances")


def read(json_path):
    """What 05_export.py has written of a system."""
    text = Path(json_path).read_text(encoding="utf-8")
    return json.loads(text, object_hook=lambda block: {key: _array(key, value) for key, value in block.items()})


def _array(key, value):
    return np.array(value) if key in ARRAYS and isinstance(value, list) else value


def of_id(block, machine_id):
    """What a block of the JSON says of a machine ID, or of all that it does not name."""
    return block[machine_id if machine_id in block else "all"]


# ---- inputs and outputs of one clip -> its score ----


def reconstruction_score(inputs, outputs, system, machine_id):
    """Of an autoencoder: mean squared error of each vector of frames, put together, or by covariances of training."""
    if "inverse_covariances" in system["score"]:
        return mahalanobis_score(inputs - outputs, **system["score"])
    errors = np.square(inputs - outputs).mean(axis=1).astype(np.float64)
    return {"mean": np.mean, "median": np.median, "std": np.std, "max": np.max}[system["score"]["aggregate"]](errors)


def mahalanobis_score(residuals, inverse_covariances, aggregate, **_):
    """Mean form of the residuals of the frames, official: of all pairs of frames; the smallest of the domains."""
    frames = residuals.reshape(-1, inverse_covariances.shape[1]).astype(np.float64)
    if aggregate == "mahalanobis_official":
        mean = frames.mean(axis=0)
        return (mean @ inverse_covariances @ mean).min()
    return (frames @ inverse_covariances * frames).sum(axis=(1, 2)).min() / len(frames)


def softmax_score(inputs, outputs, system, machine_id):
    """Minus the log probability of the clip's own class, over the windows and networks."""
    logits = outputs.astype(np.float64)
    log_probabilities = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    by_id = system["score"]["class_is"] == "machine_id"
    own = f"{system['machine_type']}/{machine_id}" if by_id else system["machine_type"]
    return -log_probabilities[..., system["score"]["classes"].index(own)].mean()


def clip_vector(outputs):
    """Mean over the windows, brought back to the norm that they have; (n_numbers,)."""
    outputs = outputs.reshape(len(outputs), -1).astype(np.float64)
    mean = outputs.mean(axis=0)
    return mean if len(outputs) == 1 else mean * np.linalg.norm(outputs[0]) / np.linalg.norm(mean)


def part_scores(outputs, score, machine_id):
    """How far each part of the clip's vector lies from those of the training clips, by a detector of its own."""
    vector, scores = clip_vector(outputs), []
    for part in score["parts"]:
        scores.append(outlier_score(vector[: part["width"]], of_id(part["machine_ids"], machine_id), score))
        vector = vector[part["width"] :]
    return scores


def detector_score(inputs, outputs, system, machine_id):
    """One score of those of the parts."""
    score = system["score"]
    scores = part_scores(outputs, score, machine_id)
    if len(scores) == 1:
        return scores[0]
    logs = [standardised(s, of_id(p["log"], machine_id)) for s, p in zip(scores, score["parts"], strict=True)]
    together = {"max": np.max, "mean": np.mean}[score["combine"]](logs)
    return standardised(together, of_id(score["joined"], machine_id))


def outlier_score(vector, train, score):
    """Of one detector; ``train`` has the vectors of the training clips, and how densely they lie."""
    if "mean" in train:
        vector = (vector - train["mean"]) * train["scale"]
    if "matrix" in train:
        vector = vector @ train["matrix"]
    distances = distances_to(train["vectors"], vector, score["metric"])
    near = np.argsort(distances)[: score["n_neighbors"]]
    if score["score"] == "knn":
        return distances[near].mean()
    if score["score"] == "density":
        return np.sort(distances / train["radii"])[: score["n_nearest"]].mean()
    reach = np.maximum(distances[near], train["radii"][near]).mean()  # local outlier factor
    return train["densities"][near].mean() * (reach + 1e-10)


def distances_to(train, vector, metric):
    """(n_train, n_numbers), (n_numbers,) -> (n_train,)."""
    if metric == "cosine":
        return 1 - train @ vector / np.linalg.norm(train, axis=1) / np.linalg.norm(vector)
    return np.linalg.norm(train - vector, ord={"euclidean": 2, "manhattan": 1}[metric], axis=1)


def standardised(score, log):
    """Log score in deviations from the mean of the training clips'; one that was joined of several is a log score."""
    return ((np.log(max(score, log["least"])) if "least" in log else score) - log["mean"]) / log["deviation"]


def fusion_score(of_members, _, system, machine_id):
    """Of a fusion; ``of_members``: name -> score of the clip by this member's JSON."""
    members = system["score"]["members"].items()
    together = sum(m["weight"] * standardised(of_members[name], of_id(m["log"], machine_id)) for name, m in members)
    return standardised(together, of_id(system["score"]["joined"], machine_id))


SCORES = {
    "reconstruction": reconstruction_score,
    "softmax": softmax_score,
    "detector": detector_score,
    "fusion": fusion_score,
}


def main(json_path, machine_id, *recordings):
    """Print name, score, threshold and verdict of each recording."""
    import onnxruntime
    import soundfile

    system = read(json_path)
    if not system["model"] or "windows" not in system:
        sys.exit(f"{json_path}: of a system that does not look at log-mel windows; this example hears those that do")
    session = onnxruntime.InferenceSession(Path(json_path).parent / system["model"]["file"])
    threshold = of_id(system["thresholds"], machine_id)
    for name in recordings:
        waveform, sample_rate = soundfile.read(name, dtype="float32", always_2d=True)
        if sample_rate != system["sample_rate"]:
            sys.exit(f"{name}: {sample_rate} Hz; expected {system['sample_rate']} Hz")
        channel = system["channel"]
        only = waveform.shape[1] == 1
        waveform = waveform.mean(axis=1) if channel == "mean" else waveform[:, 0 if only else channel or 0]
        inputs = network_inputs(log_mel_energies(waveform, system["feature"]), system)
        (outputs,) = session.run(None, {"input": inputs})
        score = float(SCORES[system["score"]["kind"]](inputs, outputs, system, machine_id))
        print(f"{name},{score!r},{threshold!r},{'anomaly' if score > threshold else 'normal'}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
