"""Trained systems for other runtimes: network and JSON written, and found to score clips as before.

A :class:`Part` is what is exported of one system for one machine type, whichever model family it is of.
"""

import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from keras import layers

import common
import decision
import detectors
import embedding
import exported
import features
import fusion
import keras_model
import metric_model
import neighbor_model
import process
import records
import scoring
import training
from classes import class_names
from common import Clip, UserError
from config import DenseL2Softmax, Detector, Neighbors, System
from memory import Memory, settings
from workload import network_name

CALIBRATION_CLIPS = 100  # training clips that say which values an int8 network must hold
CALIBRATION_INPUTS = 2000  # of these clips together
# What an exported network may differ by before it counts as broken.
FLOAT_BOUND = 1e-3  # of a score, or of the threshold where that is larger; float32 differs by some 1e-6
MIXED_BOUND = 2e-2  # the same for a system trained in mixed precision, which is exported in float32
INT8_AUC_LOSS = 0.02  # mean over the machine IDs
INT8_CORRELATION = 0.95  # of the scores' ranks, where there is no AUC

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What is exported of a system for one machine type."""

    system: System
    machine_type: str
    facts: dict  # for the JSON
    network: keras.Model | None = None  # None: there is none
    network_name: str = ""  # of its file
    inputs: Callable[[Sequence[Clip]], Iterator[np.ndarray]] | None = None  # the network's, of each clip
    reduce: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None  # a clip's inputs and outputs -> (n, ...)
    scores: Callable[[Sequence[Clip], np.ndarray, list[int]], np.ndarray] | None = None  # all of these -> (n_clips,)

    @property
    def name(self) -> str:
        """Of the JSON."""
        return f"{self.system.name}_{self.machine_type}"


# ---- what there is to export ----


def parts(run: training.Run, system: System, machine_type: str) -> list[Part]:
    """Parts of a system; of a fusion, those of its members, and what they are summed by."""
    if system.members:
        of_members = [part for member in system.members for part in parts(run, member, machine_type)]
        return [*of_members, _fusion(run, system, machine_type)]
    if isinstance(system.model, Neighbors):
        return [_neighbors(run, system, machine_type)]
    if system.module is metric_model:
        return [_classifier(run, system, machine_type)]
    return [_autoencoder(run, system, machine_type)]


def _autoencoder(run: training.Run, system: System, machine_type: str) -> Part:
    model, feature = system.model, system.feature

    def inputs(clips: Sequence[Clip]) -> Iterator[np.ndarray]:
        for log_mel in features.log_mel_clips(clips, feature, run.cache):
            yield np.ascontiguousarray(common.stack_frames(log_mel.T, frames=feature.frames)[:: model.hop])

    def reduce(vectors: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return np.square(vectors - outputs).mean(axis=1)

    return Part(
        system,
        machine_type,
        {
            **_common_facts(run, system, machine_type, machine_type),
            "windows": {"frames": feature.frames, "hop": model.hop, "order": "oldest frame first, each n_mels wide"},
            "score": {"kind": "reconstruction", "aggregate": model.aggregate},
        },
        for_inference(training.load_finished(run, system, machine_type)),
        f"{system.name}_{machine_type}",
        inputs,
        reduce,
        lambda clips, errors, counts: keras_model.aggregated(
            errors.astype(np.float64), np.array(counts), model.aggregate
        ),
    )


def _classifier(run: training.Run, system: System, machine_type: str) -> Part:
    model, name = system.model, network_name(system, machine_type)
    network = training.load_finished(run, system, name)
    facts = _common_facts(run, system, name, machine_type)
    if isinstance(model, DenseL2Softmax):
        facts["descriptor"] = dataclasses.asdict(system.descriptor)
    else:
        facts["windows"] = {
            "frames": system.feature.frames,
            "layout": "(n_mels, frames, 1)",
            "rounded_to": "float16",
            "placement": "as few as cover the clip, evenly spaced from its first frame to its last; a shorter clip is "
            "repeated",
        }
    if model.score == "softmax":
        classes = records.require_trained(run, system, name)["classes"]
        facts["score"] = {"kind": "softmax", "classes": classes, "class_is": model.classes}

        def scores(clips: Sequence[Clip], logits: np.ndarray, counts: list[int]) -> np.ndarray:
            log_probabilities = logits - np.logaddexp.reduce(logits.astype(np.float64), axis=-1, keepdims=True)
            if log_probabilities.ndim == 3:  # of several networks
                log_probabilities = log_probabilities.mean(axis=1)
            columns = [classes.index(of_clip) for of_clip in class_names(model, clips)]
            return -embedding.clip_means(log_probabilities, counts)[np.arange(len(clips)), columns]

    else:
        network = keras.Model(network.inputs, network.get_layer("embedding").output)
        remembered, of_parts = metric_model.load_memory(run, system, machine_type), metric_model.parts(system)
        facts["score"] = _detector_facts(system, remembered, **of_parts)

        def scores(clips: Sequence[Clip], embeddings: np.ndarray, counts: list[int]) -> np.ndarray:
            vectors = embedding.clip_embeddings(embeddings.reshape(len(embeddings), -1), counts)
            return remembered.joint_scores(model, vectors, [clip.machine_id for clip in clips], **of_parts)

    return Part(
        system,
        machine_type,
        facts,
        for_inference(network),
        f"{system.name}_{machine_type}" if name == machine_type else system.name,
        lambda clips: (x.astype(np.float32) for x in metric_model.clip_inputs(run, system, clips)),
        lambda inputs, outputs: outputs,
        scores,
    )


def _neighbors(run: training.Run, system: System, machine_type: str) -> Part:
    facts = _common_facts(run, system, machine_type, machine_type)
    facts["descriptor"] = dataclasses.asdict(system.descriptor)
    remembered = neighbor_model.load_memory(run, system, machine_type)
    facts["score"] = _detector_facts(system, remembered, **neighbor_model.groups(system))
    return Part(system, machine_type, facts)


def _fusion(run: training.Run, system: System, machine_type: str) -> Part:
    members = {}
    for member, weight in zip(system.members, system.model.members.values(), strict=True):
        trained = member.module.training_scores(run, member, machine_type)
        log = _log_facts(trained.scores, trained.machine_ids)
        members[member.name] = {"weight": weight, "json": f"{member.name}_{machine_type}.json", "log": log}
    facts = _system_facts(run, system, machine_type)
    return Part(system, machine_type, {**facts, "score": {"kind": "fusion", "members": members}})


def _log_facts(scores: np.ndarray, machine_ids: np.ndarray) -> dict:
    """What standardises log scores, for each machine ID: ``(log(max(score, least)) - mean) / deviation``."""
    return {
        machine_id: dict(
            zip(("least", "mean", "deviation"), fusion.log_statistics(scores[machine_ids == machine_id]), strict=True)
        )
        for machine_id in np.unique(machine_ids).tolist()
    }


def _system_facts(run: training.Run, system: System, machine_type: str) -> dict:
    """What is said of every system."""
    trained = system.module.training_scores(run, system, machine_type)
    quantile, method = run.config.decision_quantile, run.config.decision
    return {
        "system": system.name,
        "machine_type": machine_type,
        "training_data": run.training_data,
        "thresholds": decision.thresholds(trained.scores, trained.machine_ids, quantile=quantile, method=method),
        "decision": {"anomaly": "score > threshold", "method": method, "quantile": quantile},
    }


def _common_facts(run: training.Run, system: System, record_name: str, machine_type: str) -> dict:
    """What is said of every system that has learnt something itself."""
    record, feature = records.require_trained(run, system, record_name), system.feature
    filters = common.mel_filters(record["sample_rate"], feature.n_fft, feature.n_mels).toarray()
    return {
        **_system_facts(run, system, machine_type),
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
    return {"first_bin": int(first), "weights": _numbers(row[first:end])}


def _detector_facts(system: System, remembered: Memory, *, widths: Sequence[int], combine: str) -> dict:
    """The detectors' settings, and for each machine ID the vectors that a clip's is compared with.

    There is a detector for each part of a clip's vector; where there are several, the score is ``exp`` of the largest,
    or of the mean, of their standardised log scores.
    """
    detector, parts = system.model, []
    several = len(widths) > 1
    for _, part in remembered.parts(widths) if several else [(None, remembered)]:
        of_ids = {name: _reference_facts(detector, part, name) for name in np.unique(part.machine_ids).tolist()}
        log = {"log": _log_facts(part.own_scores(detector), part.machine_ids)} if several else {}
        parts.append({"width": part.vectors.shape[1], **log, "machine_ids": of_ids})
    rule = {"combine": "max" if combine == "max" else "mean"} if several else {}
    return {"kind": "detector", **settings(detector), **rule, "parts": parts}


def _reference_facts(detector: Detector, remembered: Memory, machine_id: str) -> dict:
    """Vectors of the training clips; a clip's is compared with them as ``(vector - mean) * scale``."""
    train, facts = remembered.vectors[remembered.group(detector, machine_id)], {}
    if detector.STANDARDISED:
        mean, deviation = detectors.standardisation(train)
        train = (train - mean) / deviation
        facts = {"mean": _numbers(mean), "scale": _numbers(1 / deviation)}
    return {**facts, "vectors": [_numbers(vector) for vector in detectors.distinct(train)]}


def _numbers(values: np.ndarray) -> list[float]:
    """As few digits as give the same float32 again."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


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
        part.network.export(str(path), format=exported.FORMATS[format_name].keras_name, verbose=False, **options)


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


def scored_again(run: training.Run, part: Part, network: exported.Network, clips: Sequence[Clip]) -> np.ndarray:
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
    aucs = [[scoring.auc_pauc(labels[i].astype(int), values[i], max_fpr=1)[0] for i in of_ids] for values in scores]
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
    run: training.Run,
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
        for part in parts(run, system, machine_type):
            lines = [f"{part.name}: {part.name}.json"]
            model = None
            if part.network:
                model, text = _export_network(run, part, folder, format_name, clips, calibration, written)
                lines = [f"{part.name}: {model['file']}, {part.name}.json", text]
            _write_json(folder / f"{part.name}.json", {"model": model, **part.facts})
            yield "\n  ".join(lines)


def _export_network(
    run: training.Run,
    part: Part,
    folder: Path,
    format_name: str,
    clips: Sequence[Clip],
    calibration: dict[str, list[Clip]] | None,
    written: dict[str, dict],
) -> tuple[dict, str]:
    """Write a part's network, unless it has been in this run, and score the clips again."""
    file_name = part.network_name + exported.FORMATS[format_name].suffix
    chosen = None
    if calibration is not None:
        shared = part.network_name != part.name
        chosen = [clip for own in calibration.values() for clip in own] if shared else calibration[part.machine_type]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".", ignore_cleanup_errors=True) as beside:
        path = folder / file_name if part.network_name in written else Path(beside) / file_name
        if part.network_name not in written:
            write_network(part, path, format_name, chosen)
        network = exported.load(path, format_name)
        before = part.system.module.anomaly_scores(run, part.system, part.machine_type, clips)
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
    common.write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
