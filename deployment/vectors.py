"""Test vectors: clips with all that lies between sound and score, for whoever writes the same in another language."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import common
from audio import features
from audio.clips import Clip, load_clip
from config import System
from deployment import json_scores, runtimes
from deployment.runtimes import Network
from training.families import Part

FOLDER = "test_vectors"
LONGEST = 12  # [s] of a clip; the challenge's have 10 to 12
TEXT_WINDOWS = 10  # of a network's inputs and outputs, as text: all of them would be megabytes
PARAMETERS = "frontend.txt"  # what examples/frontend.c reads


def chosen(clips: Sequence[Clip]) -> list[Clip]:
    """Two clips: the first normal and the first anomalous one, where there are such."""
    labelled = [next((clip for clip in clips if clip.label == label), None) for label in (0, 1)]
    found = [clip for clip in labelled if clip]
    return [*found, *(clip for clip in clips if clip not in found)][:2]


@dataclass
class Vectors:
    """Test vectors of a system for one machine type; those of a fusion take the scores of its members' ones."""

    clips: list[Clip]
    min_samples: int
    samples: list[np.ndarray] = field(default_factory=list)  # of each clip, (n_samples,), int16
    scores: list[dict[str, float]] = field(default_factory=list)  # of each clip: name of a part's system -> score

    @classmethod
    def of(cls, system: System, clips: Sequence[Clip]) -> "Vectors":
        """Of two of the clips."""
        two = chosen(clips)
        return cls(two, system.min_samples, scores=[{} for _ in two])

    def named(self, part: Part) -> list[dict]:
        """What the JSON says of them; ``path`` is that of the files without their endings."""
        labels = {0: "normal", 1: "anomaly", None: None}
        return [
            {
                "path": f"{FOLDER}/{part.name}/clip_{number}",
                "recording": clip.name,
                "machine_id": clip.machine_id,
                "label": labels[clip.label],
            }
            for number, clip in enumerate(self.clips, 1)
        ]

    def write(self, part: Part, content: dict, network: Network | None, folder: Path) -> None:
        """Write the vectors of a part into a new folder.

        Parameters
        ----------
        content : of its JSON, as examples/score_onnx.py reads it
        """
        folder.mkdir(parents=True)
        if not self.samples:  # parts of a fusion were trained on the same clips
            longest = max(self.min_samples, min(content["n_samples"], LONGEST * content["sample_rate"]))
            self.samples = [integers(load_clip(clip)[0][:longest]) for clip in self.clips]
        if "feature" in content:
            (folder / PARAMETERS).write_text(parameters(content), encoding="utf-8", newline="\n")
        for number, (clip, samples, scores) in enumerate(zip(self.clips, self.samples, self.scores, strict=True), 1):
            arrays, outputs = {}, (scores, None)
            if not part.system.members:
                arrays, outputs = heard(part.system, content, samples, network)
            arrays |= scored(part, content, clip, outputs)
            scores[part.system.name] = float(arrays["score"][0])
            path = folder / f"clip_{number}"
            common.soundfile_library().write(path.with_suffix(".wav"), samples, clip.sample_rate, subtype="PCM_16")
            np.savez_compressed(path.with_suffix(".npz"), **arrays)
            path.with_suffix(".txt").write_text(text(arrays), encoding="utf-8", newline="\n")


def integers(waveform: np.ndarray) -> np.ndarray:
    """Samples as a wav file of 16 bits has them; those of such a file are as they were."""
    return np.clip(np.round(waveform * 2**15), -(2**15), 2**15 - 1).astype(np.int16)


def heard(
    system: System, content: dict, samples: np.ndarray, network: Network | None
) -> tuple[dict, tuple[np.ndarray, np.ndarray]]:
    """Features of a clip and what the network makes of them, by name; and the network's inputs and outputs."""
    waveform, sample_rate = samples * np.float32(2**-15), content["sample_rate"]
    if system.spectra:
        arrays = {"spectra": features.spectra(system.spectra, sample_rate).compute(waveform, sample_rate)}
    else:
        arrays = {"log_mel": features.log_mel(system.feature).compute(waveform, sample_rate)}
    if system.descriptor:
        groups = features.parts(system.descriptor, system.feature)
        quantities = [quantity for group in groups for quantity in group.values()]
        of_parts = [quantity.compute(waveform, sample_rate) for quantity in quantities]
        arrays["descriptor"] = np.concatenate(of_parts, axis=1)  # (1, n_numbers)
    inputs = json_scores.frontend.network_inputs([*arrays.values()][-1], content)
    if not network:
        return arrays, (inputs, inputs)
    outputs = network.run(inputs)
    arrays |= {"inputs": inputs, "outputs": outputs}
    for name, values in (("input", inputs), ("output", outputs)):
        if "scale" in network.facts[name]:
            arrays[f"int8_{name}s"] = runtimes.as_integers(values, network.facts[name])
    return arrays, (inputs, outputs)


def scored(part: Part, content: dict, clip: Clip, outputs: tuple) -> dict[str, np.ndarray]:
    """Score of a clip, and those that it is made of where there are several: of the detectors, or of the members."""
    arrays, score = {}, content["score"]
    if score["kind"] == "detector":
        arrays["part_scores"] = np.array(json_scores.example.part_scores(outputs[1], score, clip.machine_id))
    elif score["kind"] == "fusion":
        arrays["part_scores"] = np.array([outputs[0][name] for name in score["members"]])
    return arrays | {"score": json_scores.scores(content, [clip], [outputs], part.scorer)}


# ---- as text, for fscanf ----


def text(arrays: dict[str, np.ndarray]) -> str:
    """Each array: a line with name, number of dimensions and these, then the numbers, a line for each row.

    Of inputs and outputs the first windows, and how many there are.
    """
    arrays, lines = dict(arrays), []
    for name in [name for name in arrays if name.endswith(("inputs", "outputs"))]:
        arrays["n_windows"] = np.array([len(arrays[name])])
        arrays[name] = arrays[name][:TEXT_WINDOWS]
    for name, values in arrays.items():
        lines.append(" ".join(map(str, (name, values.ndim, *values.shape))))
        lines += [numbers(row) for row in values.reshape(len(values), -1)]
    return "\n".join(lines) + "\n"


def numbers(values: np.ndarray) -> str:
    """With the digits that give the same float32 again, or the same float64."""
    digits = 9 if values.dtype == np.float32 else 17
    return " ".join(f"{value:.{digits}g}" for value in values.tolist())


def parameters(content: dict) -> str:
    """What a front end takes of the JSON: names and values in a fixed order, then the mel filters.

    ``frames`` is 0 where log-mel energies are no autoencoder's vectors; a filter is its first bin, the number of its
    weights, and these.
    """
    feature, windows = content["feature"], content.get("windows", {})
    cut = windows if "hop" in windows else {"frames": 0, "hop": 0}
    values = {
        "sample_rate": content["sample_rate"],
        **{name: feature[name] for name in ("n_fft", "hop_length", "n_mels", "power", "pad_mode")},
        **{name: cut[name] for name in ("frames", "hop")},
    }
    lines = [f"{name} {value:.9g}" if name == "power" else f"{name} {value}" for name, value in values.items()]
    for band in feature["mel_filters"]:
        weights = np.array(band["weights"], np.float32)
        lines.append(f"{band['first_bin']} {len(weights)} {numbers(weights)}".rstrip())
    return "\n".join(lines) + "\n"
