"""The classes that a classifier learns to tell apart, and whether there is enough of each; nothing of TensorFlow."""

import collections
import dataclasses
import logging
import math
from collections.abc import Sequence

import numpy as np

from audio.clips import Clip
from common import UserError, fault_list
from config import Classifier, Detector

BOUND_PROBABILITY = 0.95  # softmax probability of the right class that alpha should allow for

logger = logging.getLogger(__name__)


def class_names(model: Classifier, clips: Sequence[Clip]) -> list[str]:
    """The class of each clip: its machine type, machine type and ID, or these and its attributes where it has some."""
    if model.classes == "machine_type":
        return [clip.machine_type for clip in clips]
    names = [f"{clip.machine_type}/{clip.machine_id}" for clip in clips]
    if model.classes == "machine_id":
        return names
    return [f"{name}/{clip.attributes}" if clip.attributes else name for name, clip in zip(names, clips, strict=True)]


def stratified_order(classes: Sequence[str], validation_split: float, seed: int) -> tuple[np.ndarray, int]:
    """Indices of the clips, those to train on first, and how many these are.

    Of each class, ``validation_split`` of the clips, rounded down, drawn at random, come last.
    """
    rng = np.random.default_rng(seed)
    classes = np.asarray(classes)
    train, validation = [], []
    for name in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == name))
        n_validation = int(len(members) * validation_split)
        validation.append(np.sort(members[:n_validation]))
        train.append(np.sort(members[n_validation:]))
    n_train = sum(map(len, train))
    mixed = rng.permutation(np.concatenate(validation))  # batches of several classes, as those of training
    return np.concatenate([*train, mixed]), n_train


def alpha_lower_bound(n_classes: int, probability: float) -> float:
    """Smallest alpha that allows a softmax ``probability`` of the right class (Ranjan et al. 2017, eq. 8)."""
    if n_classes <= 2:
        return 0.0
    return math.log(probability * (n_classes - 2) / (1 - probability))


def check_enough_clips(model: Detector, clips: Sequence[Clip]) -> None:
    """Raise UserError unless each detector gets more clips than it looks for neighbours; copies count as one."""
    different = {
        (clip.machine_type + (f"/{clip.machine_id}" if model.lof_per == "machine_id" else ""), clip.crc)
        for clip in clips
    }
    groups = collections.Counter(name for name, _ in different)
    few = [f"{name}: {count} training clips" for name, count in sorted(groups.items()) if count <= model.n_neighbors]
    if few:
        raise fault_list(
            f"model.n_neighbors: {model.n_neighbors}, and no more training clips than that, copies aside",
            few,
            "Lower model.n_neighbors, add training clips, or set model.lof_per: machine_type"
            + (" or model.score: softmax" if isinstance(model, Classifier) else ""),
        )


def check_trainable(model: Classifier, clips: Sequence[Clip]) -> None:
    """Raise UserError unless there are classes to tell apart and clips enough for the detectors."""
    classes = sorted(set(class_names(model, clips)))
    if len(classes) < 2:
        finer = [
            by
            for by in ("machine_id", "attributes")
            if len(set(class_names(dataclasses.replace(model, classes=by), clips))) > 1
        ]
        advice = f", or set model.classes: {finer[0]}" if finer else ""
        raise UserError(
            f"model.classes: {model.classes}: all training clips are of one class, {classes[0]}, and a classifier "
            f"needs two.\nAdd the training clips of other machines{advice}; an autoencoder does without"
        )
    if model.score != "softmax":
        check_enough_clips(model, clips)
    bound = alpha_lower_bound(len(classes), BOUND_PROBABILITY)
    if model.alpha != "trained" and model.alpha < bound:
        logger.warning(
            "model.alpha: %g is too small for %d classes: a softmax probability of %g takes at least %.2f "
            "(Ranjan et al. 2017, eq. 8)",
            model.alpha,
            len(classes),
            BOUND_PROBABILITY,
            bound,
        )
