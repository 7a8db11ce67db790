"""Trained systems for other programs: network and JSON written, and found to score clips as before.

Each model family says what there is to export of it, as :class:`training.families.Part`.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import common
from audio.clips import Clip
from common import UserError
from config import System
from deployment import json_scores, networks, runtimes
from deployment.comparison import compare
from deployment.vectors import FOLDER, Vectors
from detectors import decision
from detectors.facts import plain_numbers
from storage.files import write_text
from training.families import Part, family_of
from training.model_records import TrainingScores
from training.run import Run

CALIBRATION_CLIPS = 100  # training clips that say which values an int8 network must hold
CALIBRATION_INPUTS = 2000  # of these clips together


@dataclass
class Export:
    """One call of 05_export.py."""

    run: Run
    folder: Path
    format_name: str
    # Machine type -> training clips, for networks of 8-bit integers, which learn detectors and thresholds of their own
    # from them; None: float32.
    train_clips: dict[str, list[Clip]] | None = None
    written: dict[str, dict] = field(default_factory=dict)  # network -> what the JSON says; may serve all machine types

    def of_type(self, system: System, machine_type: str, clips: Sequence[Clip]) -> str:
        """Export a system for a machine type: files of all its parts, or none; lines on each part.

        Parameters
        ----------
        clips : to score again

        Raises
        ------
        UserError : if the files score the clips otherwise than the system does.
        """
        lines, after, own, vectors = [], {}, {}, Vectors.of(system, clips)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".", ignore_cleanup_errors=True) as beside:
            for part in family_of(system).parts(self.run, system, machine_type):
                text, after[part.system.name], own[part.system.name] = self._part(
                    part, Path(beside), clips, after, own, vectors
                )
                lines.append(text)
            for entry in [*Path(beside, FOLDER).iterdir(), *Path(beside).iterdir()]:
                if entry.name != FOLDER:  # that of other systems and machine types too
                    _put(entry, self.folder / entry.relative_to(beside))
        return "\n".join(lines)

    def _part(
        self, part: Part, beside: Path, clips: Sequence[Clip], after: dict, own: dict, vectors: Vectors
    ) -> tuple[str, np.ndarray, np.ndarray]:
        """Write a part's files, score the clips with them, and add the test vectors.

        Parameters
        ----------
        after, own : name of each member of a fusion -> its scores of the clips, and of the training clips

        Returns
        -------
        lines on the part; the same scores of its own
        """
        system = part.system
        before = family_of(system).anomaly_scores(self.run, system, part.machine_type, clips)
        trained = family_of(system).training_scores(self.run, system, part.machine_type)
        thresholds = self._thresholds(trained)
        model, network = self._network(part, beside) if part.network else (None, None)
        content = {"model": model, **self._facts(part), "thresholds": thresholds, **part.facts}
        content["test_vectors"] = vectors.named(part)

        def outputs(of_clips: Sequence[Clip], of_members: dict) -> Iterator[tuple]:
            if system.members:
                return (({name: of_members[name][i] for name in of_members}, None) for i in range(len(of_clips)))
            return json_scores.outputs(self.run, system, content, of_clips, network)

        if self.train_clips and part.learn:
            known = self._known_clips(part, trained)
            content["score"], scores = part.learn(known, json_scores.learnt(content, known, outputs(known, own)))
            trained = dataclasses.replace(trained, scores=scores)
            content["thresholds"] = self._thresholds(trained)
        path = beside / f"{part.name}.json"
        _write_json(path, content)
        content = json_scores.example.read(path)
        scores = json_scores.scores(content, clips, outputs(clips, after), part.scorer)
        found = compare(clips, (before, thresholds), (scores, content["thresholds"]))
        wrong = found.fault(int8=self.train_clips is not None, precision=system.fit.precision)
        if wrong:
            advice = "; float32, without --int8, changes nothing" if self.train_clips else ""
            raise UserError(f"{part.name}, {self.format_name}: {wrong}; not exported{advice}\n  {found.text()}")
        vectors.write(part, content, network, beside / FOLDER / part.name)
        files = ", ".join([*([model["file"]] if model else []), path.name, f"{FOLDER}/{part.name}"])
        return f"{part.name}: {files}\n  {found.text()}", scores, trained.scores

    def _network(self, part: Part, beside: Path) -> tuple[dict, runtimes.Network]:
        """A part's network, written unless it has been in this call: what the JSON says of it, and as it is read."""
        file_name = part.network_name + runtimes.FORMATS[self.format_name].suffix
        if part.network_name in self.written:
            return self.written[part.network_name], runtimes.load(self.folder / file_name, self.format_name)
        calibration = self._calibration(part) if self.train_clips else None
        networks.write(networks.for_inference(part.network), beside / file_name, self.format_name, calibration)
        network = runtimes.load(beside / file_name, self.format_name)
        self.written[part.network_name] = {
            "file": file_name,
            "format": self.format_name,
            "int8": self.train_clips is not None,
            "input_shape": list(part.network.input_shape[1:]),
            "output_shape": list(part.network.output_shape[1:]),
            **network.facts,
        }
        return self.written[part.network_name], network

    def _calibration(self, part: Part) -> Iterator[np.ndarray]:
        """Inputs of the network from training clips that it was trained on, as many of each."""
        shared = part.network_name != part.name
        clips = sum(self.train_clips.values(), []) if shared else self.train_clips[part.machine_type]
        clips = clips[:: -(-len(clips) // CALIBRATION_CLIPS)]
        of_clip = -(-CALIBRATION_INPUTS // len(clips))
        for inputs, _ in json_scores.outputs(self.run, part.system, part.facts, clips, None):
            yield inputs[:: -(-len(inputs) // of_clip)]

    def _known_clips(self, part: Part, trained: TrainingScores) -> list[Clip]:
        """The clips that a part was trained on; a UserError where the folder holds others today."""
        clips = self.train_clips[part.machine_type]
        if [clip.name for clip in clips] != list(trained.names):
            raise UserError(
                f"{clips[0].path.parent}: other clips than those that {part.system.name} was trained on, which --int8 "
                "learns its thresholds from. Bring these back, or train anew"
            )
        return clips

    def _thresholds(self, trained: TrainingScores) -> dict[str, float]:
        """Threshold of each machine ID, and for ``all`` others."""
        return decision.of_training(trained, self.run.config, {*trained.machine_ids.tolist(), "all"})

    def _facts(self, part: Part) -> dict:
        """What the JSON says of every system, and of what one hears that has learnt something itself."""
        settings, feature = self.run.config, part.system.feature
        facts = {
            "system": part.system.name,
            "machine_type": part.machine_type,
            "training_data": self.run.training_data,
            "decision": {
                "anomaly": "score > threshold",
                "method": settings.decision,
                "quantile": settings.decision_quantile,
            },
        }
        if not part.record:
            return facts
        record = self.run.require_trained(part.system, part.record)
        facts |= {
            "sample_rate": record["sample_rate"],
            "n_samples": record["n_samples"][part.machine_type],  # the usual length of a training clip
            "channel": settings.channel,
            "trained_with": record["versions"],
        }
        if "spectra" in part.facts:
            return facts
        filters = common.mel_filters(record["sample_rate"], feature.n_fft, feature.n_mels).toarray()
        return facts | {
            "feature": {
                **dataclasses.asdict(feature),
                "frame": "n_fft samples around each multiple of hop_length, times a periodic Hann window; before and "
                "behind the clip stand n_fft // 2 samples by pad_mode",
                "log_mel": "20 / power * log10(filters @ abs(rfft) ** power + 2.220446049250313e-16)",
                "mel_filters": [_nonzero(row) for row in filters],
            }
        }


def _nonzero(row: np.ndarray) -> dict:
    """One mel filter: its first bin that is not 0, and the weights from there."""
    bins = np.flatnonzero(row)
    first, end = (bins[0], bins[-1] + 1) if len(bins) else (0, 0)
    return {"first_bin": int(first), "weights": plain_numbers(row[first:end])}


def _put(source: Path, target: Path) -> None:
    """Move a file or folder to its name, in the place of an earlier one."""
    target.parent.mkdir(exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)


def _write_json(path: Path, content: dict) -> None:
    """Write JSON, a line for each key."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False, separators=(',', ':'))}"
        for key, value in content.items()
    ]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
