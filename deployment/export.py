"""Trained systems for other runtimes: network and JSON written, and found to score clips as before.

Each model family says what there is to export of it, as :class:`training.families.Part`.
"""

import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from keras import layers

import common
from audio.clips import Clip
from common import UserError
from config import System
from deployment import runtimes
from detectors import decision
from detectors.facts import plain_numbers
from evaluation.metrics import auc_pauc
from storage.files import write_text
from training import process
from training.families import Part, family_of
from training.run import Run

CALIBRATION_CLIPS = 100  # training clips that say which values an int8 network must hold
CALIBRATION_INPUTS = 2000  # of these clips together
# What an exported network may differ by before it counts as broken.
FLOAT_BOUND = 1e-3  # of a score, or of the threshold where that is larger; float32 differs by some 1e-6
MIXED_BOUND = 2e-2  # the same for a system trained in mixed precision, which is exported in float32
INT8_AUC_LOSS = 0.02  # mean over the machine IDs
INT8_CORRELATION = 0.95  # of the scores' ranks, where there is no AUC

logger = logging.getLogger(__name__)


# ---- what is said of a part ----


def with_facts(run: Run, part: Part) -> Part:
    """A part with all that its JSON says."""
    facts = _system_facts(run, part.system, part.machine_type)
    if part.record:
        facts |= _learnt_facts(run, part.system, part.record, part.machine_type)
    return dataclasses.replace(part, facts=facts | part.facts)


def _system_facts(run: Run, system: System, machine_type: str) -> dict:
    """What is said of every system."""
    trained = family_of(system).training_scores(run, system, machine_type)
    quantile, method = run.config.decision_quantile, run.config.decision
    return {
        "system": system.name,
        "machine_type": machine_type,
        "training_data": run.training_data,
        "thresholds": decision.thresholds(trained.scores, trained.machine_ids, quantile=quantile, method=method),
        "decision": {"anomaly": "score > threshold", "method": method, "quantile": quantile},
    }


def _learnt_facts(run: Run, system: System, record_name: str, machine_type: str) -> dict:
    """What is said of every system that has learnt something itself."""
    record, feature = run.require_trained(system, record_name), system.feature
    filters = common.mel_filters(record["sample_rate"], feature.n_fft, feature.n_mels).toarray()
    return {
        "sample_rate": record["sample_rate"],
        "n_samples": record["n_samples"][machine_type],  # of the longest training clip
        "channel": run.config.channel,
        "feature": {
            **dataclasses.asdict(feature),
            "frame": "n_fft samples around each multiple of hop_length, times a periodic Hann window; before and "
            "behind the clip stand n_fft // 2 samples by pad_mode",
            "log_mel": "20 / power * log10(filters @ abs(rfft) ** power + 2.220446049250313e-16)",
            "mel_filters": [_nonzero(row) for row in filters],
        },
        "trained_with": record["versions"],
    }


def _nonzero(row: np.ndarray) -> dict:
    """One mel filter: its first bin that is not 0, and the weights from there."""
    bins = np.flatnonzero(row)
    first, end = (bins[0], bins[-1] + 1) if len(bins) else (0, 0)
    return {"first_bin": int(first), "weights": plain_numbers(row[first:end])}


# ---- the network ----


@keras.saving.register_keras_serializable("export")
class Scale(layers.Layer):
    """``(inputs - mean) / deviation`` with weights, where Keras's Normalization has constants.

    Constants that are not weights become inputs of an ONNX file.
    """

    def build(self, shape):
        """Make the weights."""
        self.mean = self.add_weight(name="mean", shape=(1, *shape[1:]), trainable=False)
        self.deviation = self.add_weight(name="deviation", shape=(1, *shape[1:]), trainable=False)

    def call(self, inputs):
        """(n, ...) -> (n, ...)."""
        return (inputs - self.mean) / self.deviation


def for_inference(network: keras.Model) -> keras.Model:
    """The same network in float32, for inference alone, with all its numbers in weights; its input is ``input``."""
    keras.config.set_dtype_policy("float32")

    def copied(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, layers.Normalization):
            return Scale(name=layer.name)
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(network, clone_function=copied, recursive=True)
    for old, new in zip(_layers(network), _layers(copy), strict=True):
        if isinstance(old, layers.Normalization):
            deviation = np.maximum(np.sqrt(np.asarray(old.variance)), keras.config.epsilon())
            new.set_weights([np.reshape(values, new.mean.shape) for values in (np.asarray(old.mean), deviation)])
        else:
            new.set_weights(old.get_weights())
    inputs = keras.Input(network.input_shape[1:], name="input")
    inference = keras.Model(inputs, copy(inputs, training=False))  # without, Keras exports some layers as in training
    inference(np.zeros((1, *network.input_shape[1:]), np.float32))  # it exports none that was never called
    return inference


def _layers(network: keras.Model) -> Iterator[layers.Layer]:
    flat = network._flatten_layers(recursive=True, include_self=False)
    return (layer for layer in flat if not isinstance(layer, keras.Model))


def write_network(part: Part, path: Path, format_name: str, calibration: Sequence[Clip] | None) -> None:
    """Write the network as a file of a format; with calibration clips, as integers of 8 bits throughout."""
    options = {}
    if calibration is not None:
        options = {
            "input_signature": [keras.InputSpec(shape=(1, *part.network.input_shape[1:]), dtype="float32")],
            "optimizations": [tf.lite.Optimize.DEFAULT],
            "representative_dataset": lambda: ([example[None]] for example in calibration_inputs(part, calibration)),
            "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
            "inference_input_type": tf.int8,
            "inference_output_type": tf.int8,
        }
    for name in ("tf2onnx", "tensorflow"):  # what they say while they work is of no use
        logging.getLogger(name).setLevel(logging.ERROR)
    with process.quiet():
        part.network.export(str(path), format=runtimes.FORMATS[format_name].keras_name, verbose=False, **options)


def calibration_inputs(part: Part, clips: Sequence[Clip]) -> Iterator[np.ndarray]:
    """Inputs of the network from training clips, as many of each."""
    chosen = clips[:: -(-len(clips) // CALIBRATION_CLIPS)]
    of_clip = -(-CALIBRATION_INPUTS // len(chosen))
    for inputs in part.inputs(chosen):
        yield from inputs[:: -(-len(inputs) // of_clip)]


# ---- scored again ----


@dataclass(frozen=True)
class Comparison:
    """Scores of the same clips before and after."""

    n_clips: int
    largest: float  # difference
    relative: float  # the same over the score, or over the threshold where that is larger
    aucs: tuple[float, float] | None  # means over the machine IDs, before and after; None where labels are missing
    correlation: float  # of the ranks
    n_changed: int  # verdicts

    def text(self) -> str:
        """In a line."""
        aucs = "no AUC without labels" if self.aucs is None else "AUC {:.4f} -> {:.4f}".format(*self.aucs)
        return (
            f"{self.n_clips} clips scored again: largest difference {self.largest:.2g} ({self.relative:.2g} of the "
            f"score), {aucs}, {self.n_changed} verdicts changed"
        )


def scored_again(run: Run, part: Part, network: runtimes.Network, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips by the exported network, shape (n_clips,)."""
    reduced = [part.reduce(inputs, network.run(inputs)) for inputs in run.watch(part.inputs(clips))]
    return part.scores(clips, np.concatenate(reduced), [len(of_clip) for of_clip in reduced])


def compare(clips: Sequence[Clip], before: np.ndarray, after: np.ndarray, thresholds: dict[str, float]) -> Comparison:
    """What has changed between two sets of scores of the same clips, (n_clips,) each."""
    difference = np.abs(after - before)
    known = [i for i, clip in enumerate(clips) if clip.machine_id in thresholds]
    limits = np.array([thresholds[clips[i].machine_id] for i in known])
    changed = decision.is_anomalous(before[known], limits) != decision.is_anomalous(after[known], limits)
    scale = np.maximum(np.abs(before), np.finfo(np.float32).tiny)
    scale[known] = np.maximum(scale[known], np.abs(limits))  # a clip that equals a training clip may score 0
    return Comparison(
        len(clips),
        float(difference.max()),
        float((difference / scale).max()),
        _aucs(clips, before, after),
        float(scipy.stats.spearmanr(before, after).statistic) if np.ptp(before) and np.ptp(after) else 0.0,
        int(changed.sum()),
    )


def _aucs(clips: Sequence[Clip], *scores: np.ndarray) -> tuple[float, ...] | None:
    machine_ids, labels = (np.array([getattr(clip, name) for clip in clips]) for name in ("machine_id", "label"))
    of_ids = [machine_ids == name for name in np.unique(machine_ids)]
    if any({*labels[of_id]} != {0, 1} for of_id in of_ids):
        return None
    aucs = [[auc_pauc(labels[i].astype(int), values[i], max_fpr=1)[0] for i in of_ids] for values in scores]
    return tuple(float(np.mean(of_scores)) for of_scores in aucs)


def fault(comparison: Comparison, *, int8: bool, precision: str) -> str | None:
    """What is wrong with an exported network, None if nothing is."""
    if int8 and comparison.aucs:
        before, after = comparison.aucs
        return f"the AUC falls by more than {INT8_AUC_LOSS:g}" if before - after > INT8_AUC_LOSS else None
    if int8:
        low = not comparison.correlation >= INT8_CORRELATION
        return f"the ranks of the scores correlate at less than {INT8_CORRELATION:g}" if low else None
    bound = FLOAT_BOUND if precision == "float32" else MIXED_BOUND
    return (
        f"a score differs by more than {bound:g} of it or of the threshold"
        if not comparison.relative <= bound
        else None
    )


# ---- files ----


def export(
    run: Run,
    system: System,
    folder: Path,
    format_name: str,
    test_clips: dict[str, list[Clip]],
    calibration: dict[str, list[Clip]] | None,
) -> Iterator[str]:
    """Export a system for each machine type; a line on each part once its files are there.

    Parameters
    ----------
    test_clips : machine type -> clips to score again
    calibration : machine type -> training clips, for a network of 8-bit integers; None: one of float32

    Raises
    ------
    UserError : if an exported network scores the clips otherwise than before; nothing is written of it then.
    """
    written: dict[str, dict] = {}  # network -> what the JSON says of it; one may serve all machine types
    for machine_type, clips in test_clips.items():
        for part in family_of(system).parts(run, system, machine_type):
            part = with_facts(run, part)
            lines = [f"{part.name}: {part.name}.json"]
            model = None
            if part.network:
                model, text = _export_network(run, part, folder, format_name, clips, calibration, written)
                lines = [f"{part.name}: {model['file']}, {part.name}.json", text]
            _write_json(folder / f"{part.name}.json", {"model": model, **part.facts})
            yield "\n  ".join(lines)


def _export_network(
    run: Run,
    part: Part,
    folder: Path,
    format_name: str,
    clips: Sequence[Clip],
    calibration: dict[str, list[Clip]] | None,
    written: dict[str, dict],
) -> tuple[dict, str]:
    """Write a part's network, unless it has been in this run, and score the clips again."""
    file_name = part.network_name + runtimes.FORMATS[format_name].suffix
    chosen = None
    if calibration is not None:
        shared = part.network_name != part.name
        chosen = [clip for own in calibration.values() for clip in own] if shared else calibration[part.machine_type]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".", ignore_cleanup_errors=True) as beside:
        path = folder / file_name if part.network_name in written else Path(beside) / file_name
        if part.network_name not in written:
            write_network(part, path, format_name, chosen)
        network = runtimes.load(path, format_name)
        before = family_of(part.system).anomaly_scores(run, part.system, part.machine_type, clips)
        comparison = compare(clips, before, scored_again(run, part, network, clips), part.facts["thresholds"])
        facts = network.facts
        del network  # Windows moves no file that is in use
        wrong = fault(comparison, int8=calibration is not None, precision=part.system.fit.precision)
        if wrong:
            raise UserError(f"{part.name}, {format_name}: {wrong}; not exported\n  {comparison.text()}")
        for entry in Path(beside).iterdir():
            _put(entry, folder / entry.name)
    if part.network_name not in written:
        written[part.network_name] = {
            "file": file_name,
            "format": format_name,
            "int8": calibration is not None,
            "input_shape": list(part.network.input_shape[1:]),
            "output_shape": list(part.network.output_shape[1:]),
            **facts,
        }
    return written[part.network_name], comparison.text()


def _put(source: Path, target: Path) -> None:
    """Move a file or folder to its name, in the place of an earlier one."""
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)


def _write_json(path: Path, content: dict) -> None:
    """Write JSON, a line for each key."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
