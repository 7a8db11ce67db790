"""The classifiers with an outlier detector on their embeddings: the report's section 3, and the same on descriptors.

One network learns to tell machine types (or machine IDs) apart; the detectors are fitted per machine type (or ID) to
the embeddings of the normal training clips.
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import spectral_model
from audio import features
from audio.clips import Clip
from config import DenseL2Softmax, L2Softmax, SpectralL2Softmax, System
from detectors import decision, memory, outliers
from detectors.facts import detector_facts
from detectors.memory import Memory
from storage.records import record_path
from training import backbone, clip_trainer, distribution, embedding, heads
from training.classes import class_names, stratified_order
from training.deviation import Deviation
from training.families import Part
from training.fit import fit_job
from training.folds import fold_of_each
from training.metric_layers import CosineLogits
from training.model_records import TrainingScores, check_sample_rate, resume_path
from training.models import load_finished, save_model
from training.run import Job, Run
from training.workload import n_folds, network_name, networks, on_part, passes, prolonged

UNSEEN = 1e9  # deviation of an input that never changes in training: it stays near zero whatever it does

logger = logging.getLogger(__name__)


# ---- networks ----


def build(
    model: L2Softmax, *, n_mels: int, frames: int, n_classes: int, mean: np.ndarray, deviation: np.ndarray
) -> keras.Model:
    """Network of the report's table in section 3.

    Parameters
    ----------
    mean, deviation : ndarray, shape (n_mels,) [dB], value scaling of each band

    Returns
    -------
    keras.Model : log-mel energies [dB] (n, n_mels, frames, 1) -> logits (n, n_classes); the output of its layer
        ``embedding`` is (n, 1280), (n, 1280 * width) where the width is above 1
    """
    size = (model.input_size, model.input_size) if model.input_size else (n_mels, frames)
    backbone.check_size(size)
    inputs = layers.Input((n_mels, frames, 1))
    h = scaled(inputs, np.reshape(mean, (n_mels, 1, 1)), np.reshape(deviation, (n_mels, 1, 1)))
    if model.input_size:
        h = layers.Resizing(*size, interpolation=model.resize, dtype="float32")(h)
    h = layers.Concatenate(dtype="float32")([h, h, h])  # (n, *size, 3)
    h = backbone.mobilenet(model, size)(h)  # (n, 1280)
    h = heads.l2_constraint(model)(h)
    if model.margin:
        return keras.Model(inputs, CosineLogits(n_classes, name="logits")(h))
    return keras.Model(inputs, layers.Dense(n_classes, dtype="float32", name="logits")(h))


def build_dense(model: DenseL2Softmax, *, n_classes: int, mean: np.ndarray, deviation: np.ndarray) -> keras.Model:
    """The same L2-softmax on dense layers; several networks that share nothing but their input.

    Parameters
    ----------
    mean, deviation : ndarray, shape (n_numbers,), value scaling of the descriptor

    Returns
    -------
    keras.Model : descriptors (n, n_numbers) -> logits (n, model.networks, n_classes); the output of its layer
        ``embedding`` is (n, model.networks, model.embedding)
    """
    inputs = layers.Input((len(mean),))
    h = scaled(inputs, mean, deviation)
    networks = [layers.Dense(model.embedding)(backbone.dense(h, model.units)) for _ in range(model.networks)]
    return keras.Model(inputs, heads.joint(model, networks, n_classes))


def scaled(inputs: keras.KerasTensor, mean: np.ndarray, deviation: np.ndarray) -> keras.KerasTensor:
    """Inputs less their mean, over their deviation; both have the inputs' dimensions, or 1 in their place."""
    axes = tuple(range(1, mean.ndim + 1))
    # Keras 3.12, the last for Python 3.10, takes no vector for an axis but the last: hence all axes, values repeated.
    return layers.Normalization(
        axes, mean.tolist(), np.square(np.minimum(deviation, UNSEEN)).tolist(), dtype="float32"
    )(inputs)


# ---- the functions that the scripts call ----


def train(run: Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Train a network on the clips of all machine types, or one for each, but those trained on just these clips.

    Parameters
    ----------
    clips : machine type -> training clips
    """
    for name, of_network in networks(system, clips).items():
        job = Job(run, system, name, [clip for train_clips in of_network.values() for clip in train_clips])
        if job.is_done():
            job.skip(passes(system, len(job.clips)))
        else:
            _train_one(job, of_network)


def _train_one(job: Job, clips: dict[str, list[Clip]]) -> None:
    """Train one network, or go on where an interrupted run got to."""
    job.system = system = prolonged(job.system, len(job.clips))
    keras.utils.clear_session()  # the layers' names count from the start: the same file whatever was built before
    keras.config.set_dtype_policy(system.fit.precision)
    names = class_names(system.model, job.clips)
    classes = sorted(set(names))
    labels = np.searchsorted(classes, names)
    # With a single type, two systems hear the same clips: as members of a fusion they are to differ.
    seed, unheard = job.run.config.seed + (job.name in clips), {}
    prepare: Prepare = functools.partial(window_training, clips)
    if isinstance(system.model, DenseL2Softmax):
        vectors = np.concatenate([job.run.descriptors(system, own) for own in clips.values()])
        prepare = functools.partial(descriptor_training, vectors)
    elif isinstance(system.model, SpectralL2Softmax):
        prepare = spectral_model.preparation(job.run, system, job.clips)
    network, history, examples = _fit(job, prepare, labels, np.arange(len(labels)), seed)
    embeddings, log_probabilities = embedding.embed(network, job.watch(examples))
    own = log_probabilities[np.arange(len(labels)), labels]
    if n_folds(system, len(labels)) > 1:
        own, unheard = _without_folds(job, prepare, labels, seed)
    save(job, network, history, memories(clips, embeddings, own, **unheard), classes)


# Job, labels of all clips, those to train on in their order, and how many of these come before the ones for validation.
Prepare = Callable[[Job, np.ndarray, np.ndarray, int], tuple[keras.Model, Any, Iterator[np.ndarray]]]


def _fit(
    job: Job, prepare: Prepare, labels: np.ndarray, heard: np.ndarray, seed: int
) -> tuple[keras.Model, dict[str, list[float]], Iterator[np.ndarray]]:
    """Trained network, its history, and each clip's inputs in inference.

    Parameters
    ----------
    labels : ndarray, shape (n_clips,), classes of all clips
    heard : ndarray, shape (len(job.clips),), those that the network is trained on
    """
    run, fit = job.run, job.system.fit
    keras.utils.set_random_seed(seed % 2**32)
    order, n_train = stratified_order(labels[heard], fit.validation_split, run.config.seed)
    order = heard[order]
    network, source, examples = prepare(job, labels, order, n_train)
    with run.strategy.scope():
        trainer = clip_trainer.make_trainer(network, job.system, source, labels[order], run.config.seed)
    distribution.synchronise(network, distribution.is_distributed(run.strategy))
    validation = None
    if n_train < len(order):
        validation = tf.data.Dataset.range(n_train, len(order)).batch(fit.batch_size)
    history = fit_job(network, trainer, job, n_train=n_train, validation=validation, steps_taken=trainer.steps_taken)
    distribution.synchronise(network, False)  # the file says nothing of how it was trained
    clip_trainer.settle_statistics(trainer, n_train=n_train, batch_size=fit.batch_size, seed=run.config.seed)
    return network, history, examples


def _without_folds(
    job: Job, prepare: Prepare, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What networks make of clips that they were not trained on, each of one fold of the clips.

    Returns
    -------
    ndarray, shape (n_clips,) : logarithm of the probability of each clip's own class
    dict : ``folds`` and ``unheard`` of a Memory; of the clips that a network was trained on as well
    """
    folds = fold_of_each(job.clips, n_folds(job.system, len(labels)))
    own, unheard, parts = np.empty(len(labels)), [], []
    for fold in range(folds.max() + 1):
        heard, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        clips = [job.clips[index] for index in heard]
        system = on_part(job.system, len(heard), len(labels))
        part = Job(job.run, system, f"{job.name}_without_{fold}", clips)
        network, _, examples = _fit(part, prepare, labels, heard, seed + 2 + fold)
        embeddings, log_probabilities = embedding.embed(network, examples)
        own[out] = log_probabilities[out, labels[out]]
        unheard.append(embeddings)
        parts.append(part)
    for part in parts if job.is_chief else ():
        resume_path(part.folder, part.name).unlink(missing_ok=True)
    return own, {"folds": folds, "unheard": np.stack(unheard)}


def window_training(
    clips: dict[str, list[Clip]], job: Job, labels: np.ndarray, order: np.ndarray, n_train: int
) -> tuple[keras.Model, clip_trainer.LogMelWindows, Iterator[np.ndarray]]:
    """Network with its start weights, the windows to train it on, and each clip's inputs in inference."""
    feature = job.system.feature
    offsets = features.clip_offsets(job.clips, feature)
    log_mel = tf.Variable(tf.zeros((int(offsets[-1]), feature.n_mels), clip_trainer.FRAME_TYPE), trainable=False)
    statistics = clip_trainer.BandStatistics(feature.n_mels)
    of_types = (features.log_mel_clips(own, feature, job.run.cache) for own in clips.values())
    for start, block in zip(offsets, job.watch(itertools.chain.from_iterable(of_types)), strict=False):
        log_mel[start : start + len(block)].assign(block.astype(clip_trainer.FRAME_TYPE))
        statistics.add(block)
    mean, deviation = statistics.scaling(job.system.model.scaling)
    with job.run.strategy.scope():
        network = build(
            job.system.model,
            n_mels=feature.n_mels,
            frames=feature.frames,
            n_classes=int(labels.max()) + 1,
            mean=mean,
            deviation=deviation,
        )
    source = clip_trainer.LogMelWindows(log_mel, offsets, order, frames=feature.frames)
    log_mels = (log_mel[first:end].numpy() for first, end in itertools.pairwise(offsets))
    return network, source, embedding.log_mel_examples(log_mels, feature.frames)


def descriptor_training(
    vectors: np.ndarray, job: Job, labels: np.ndarray, order: np.ndarray, n_train: int
) -> tuple[keras.Model, clip_trainer.Descriptors, Iterator[np.ndarray]]:
    """The same on descriptors."""
    rows = features.band_rows(job.system.descriptor, job.system.feature)
    with job.run.strategy.scope():
        network, source = descriptor_network(job.system.model, vectors, labels, rows, order, n_train)
    return network, source, iter(vectors[:, None])


def descriptor_network(
    model: DenseL2Softmax,
    vectors: np.ndarray,
    labels: np.ndarray,
    rows: Sequence[np.ndarray],
    order: np.ndarray,
    n_train: int | None = None,
) -> tuple[keras.Model, clip_trainer.Descriptors]:
    """Network with its start weights, and the descriptors to train it on.

    Examples whose bands were exchanged or shifted are of classes of their own, behind the others.

    Parameters
    ----------
    vectors : ndarray, shape (n_clips, n_numbers)
    labels : ndarray, shape (n_clips,), their classes
    rows : indices of the numbers, (n_bands,) each: of those that tell one thing of all bands, the lowest first
    order : ndarray, shape (n_heard,), those of the clips that are used, in the order of the indices in training
    n_train : how many of them are trained on; None: all
    """
    mean, deviation = outliers.standardisation(vectors[order])
    n_classes = int(labels.max()) + 1
    noise = model.noise * np.where(np.isfinite(deviation), deviation, 0)
    keys = {"exchange": model.exchange, "shift": model.shift, "noise": noise, "n_classes": n_classes}
    source = clip_trainer.Descriptors(vectors[order], labels[order][:n_train], rows, **keys)
    network = build_dense(model, n_classes=n_classes * source.n_kinds, mean=mean, deviation=deviation)
    return network, source


def memories(
    clips: dict[str, list[Clip]],
    embeddings: np.ndarray,
    log_probabilities: np.ndarray,
    folds: np.ndarray | None = None,
    unheard: np.ndarray | None = None,
) -> dict[str, Memory]:
    """What the detectors of each machine type remember, out of that of all clips in turn."""
    found, start = {}, 0
    for machine_type, own in clips.items():
        part = slice(start, start + len(own))
        by_others = {} if unheard is None else {"folds": folds[part], "unheard": unheard[:, part]}
        found[machine_type] = Memory.of(own, embeddings[part], log_probabilities[part], **by_others)
        start += len(own)
    return found


def save(
    job: Job,
    network: keras.Model,
    history: dict[str, list[float]],
    remembered: dict[str, Memory],
    classes: list[str],
) -> None:
    """Write the network and what the detectors remember; the record last."""
    writers = {memory.file_name("embeddings", name): one.write for name, one in remembered.items()}
    owns = {name: own_scores(job.system, one) for name, one in remembered.items()}
    thresholds = {name: decision.of_training(own, job.run.config) for name, own in owns.items()}
    unit = next(iter(owns.values())).unit
    save_model(network, job, history, writers, {"classes": classes, "thresholds": thresholds, "score_unit": unit})


def require(run: Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Raise UserError unless there is a finished classifier that can score these clips.

    Parameters
    ----------
    clips : machine type -> test clips
    """
    faults = []
    for machine_type, test_clips in clips.items():
        record = run.require_trained(system, network_name(system, machine_type))
        check_sample_rate(record, test_clips)
        if system.model.score == "softmax":
            unknown = sorted(set(class_names(system.model, test_clips)) - set(record["classes"]))
            faults += [f"{name}: no training clips" for name in unknown]
        else:
            remembered = load_memory(run, system, machine_type)
            of_type = remembered.faults(system.model, [clip.machine_id for clip in test_clips])
            faults += [f"{machine_type} {fault}" for fault in of_type]
    memory.require_scorable(system, faults)


def made_by(run: Run, system: System, machine_type: str) -> list[Path]:
    """Files that stand for what scores the clips of a machine type: the record of the network that hears them."""
    return [record_path(run.model_folder(system), network_name(system, machine_type))]


def load_memory(run: Run, system: System, machine_type: str) -> Memory:
    """What the detectors of a machine type remember."""
    return memory.load(run, system, network_name(system, machine_type), "embeddings", machine_type)


def anomaly_scores(run: Run, system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips of a machine type, shape (n_clips,), float64; higher = more anomalous.

    With ``softmax`` the score is minus the logarithm of the probability of the clip's own class.
    """
    network = load_finished(run, system, network_name(system, machine_type))
    embeddings, log_probabilities = embedding.embed(network, clip_inputs(run, system, clips))
    if system.model.score == "softmax":
        record = run.require_trained(system, network_name(system, machine_type))
        columns = [record["classes"].index(name) for name in class_names(system.model, clips)]
        return -log_probabilities[np.arange(len(clips)), columns].astype(np.float64)
    remembered = load_memory(run, system, machine_type)
    if run.draw:
        run.draw(
            run.result_folder(system.name) / f"embedding_{machine_type}.png",
            f"{system.name}, {machine_type}: embeddings",
            remembered.vectors,
            remembered.machine_ids,
            embeddings,
            clips,
        )
    return remembered.joint_scores(system.model, embeddings, [clip.machine_id for clip in clips], **widths(system))


def clip_inputs(run: Run, system: System, clips: Sequence[Clip]) -> Iterator[np.ndarray]:
    """The network's inputs of each clip, with the progress shown."""
    if isinstance(system.model, DenseL2Softmax):
        return iter(run.descriptors(system, clips)[:, None])
    if isinstance(system.model, SpectralL2Softmax):
        return spectral_model.clip_inputs(run, system, clips)
    log_mels = run.watch(features.log_mel_clips(clips, system.feature, run.cache))
    return embedding.log_mel_examples(log_mels, system.feature.frames)


def training_scores(run: Run, system: System, machine_type: str) -> TrainingScores:
    """Scores of the training clips of a machine type, each as if the detector did not remember it."""
    return own_scores(system, load_memory(run, system, machine_type))


def own_scores(system: System, remembered: Memory) -> TrainingScores:
    """Scores of the clips that are remembered, each as if it were not."""
    if system.model.score == "softmax":
        scores = -remembered.log_probabilities.astype(np.float64)
    else:
        scores = remembered.joint_own_scores(system.model, **widths(system))
    return remembered.training_scores(scores, memory.score_unit(system.model, **widths(system)))


def widths(system: System) -> dict:
    """Numbers of each network's embeddings, and how their scores become one."""
    model, n_branches = system.model, 1
    if isinstance(model, L2Softmax):
        return {"widths": [0], "combine": "sum"}  # one network: all of them
    if isinstance(model, SpectralL2Softmax):
        n_branches = system.spectra.spectrum + len(system.spectra.windows)
    return {"widths": model.networks * n_branches * [model.embedding], "combine": "sum"}


def deviations(run: Run, system: System, machine_type: str, clips: Sequence[Clip]) -> list[Deviation]:
    """None: the numbers of an embedding are of no band."""
    return []


def parts(run: Run, system: System, machine_type: str) -> list[Part]:
    """What is exported: the network, and what its embeddings are compared with, or its classes."""
    name = network_name(system, machine_type)
    network = load_finished(run, system, name)
    if isinstance(system.model, DenseL2Softmax):
        facts = {"descriptor": dataclasses.asdict(system.descriptor)}
    elif isinstance(system.model, SpectralL2Softmax):
        facts = spectral_model.facts(system, run.require_trained(system, name)["sample_rate"])
    else:
        facts = {
            "windows": {
                "frames": system.feature.frames,
                "layout": "(n_mels, frames, 1)",
                "rounded_to": "float16",
                "placement": "as few as cover the clip, evenly spaced from its first frame to its last; a shorter clip "
                "is repeated",
            }
        }
    if system.model.score == "softmax":
        classes = run.require_trained(system, name)["classes"]
        score = {"kind": "softmax", "classes": classes, "class_is": system.model.classes}
    else:
        network = keras.Model(network.inputs, network.get_layer("embedding").output)
        score = detector_facts(system.model, load_memory(run, system, machine_type), **widths(system))

    def learn(clips: Sequence[Clip], values: np.ndarray) -> tuple[dict, np.ndarray]:
        if system.model.score == "softmax":
            return score, values
        remembered = dataclasses.replace(load_memory(run, system, machine_type), vectors=values)  # of the same clips
        return detector_facts(system.model, remembered, **widths(system)), own_scores(system, remembered).scores

    network_file = f"{system.name}_{machine_type}" if name == machine_type else system.name
    return [Part(system, machine_type, {**facts, "score": score}, name, network, network_file, learn)]
