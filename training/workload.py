"""What the training of a system takes, and whether the clips allow it; nothing here loads TensorFlow."""

import dataclasses
import math
from collections.abc import Sequence

from audio import features
from audio.clips import Clip
from audio.spectra import layout
from common import UserError
from config import Classifier, ClipClassifier, DenseL2Softmax, Fusion, Neighbors, SpectralL2Softmax, System
from training.classes import check_enough_clips, check_trainable

FEW_STEPS = 1000  # of training: so many are cheap whatever min_steps says
OVER_ALL = "classifier"  # name of the files of a network that is one for all machine types


def workload(system: System, clips: dict[str, list[Clip]]) -> int:
    """Progress steps that training takes: how often it goes over each clip.

    Parameters
    ----------
    clips : machine type -> training clips

    Raises
    ------
    UserError : if the system cannot be trained on these clips.
    """
    model = system.model
    if isinstance(model, Fusion):
        return sum(workload(member, clips) for member in system.members)
    if isinstance(model, Classifier):
        return sum(_of_network(system, of_network) for of_network in networks(system, clips).values())
    if isinstance(model, Neighbors):
        for train_clips in clips.values():
            check_enough_clips(model, train_clips)
            features.check_descriptor(system.descriptor, system.feature, train_clips[0].sample_rate)
    return sum(len(train_clips) * passes(system, len(train_clips)) for train_clips in clips.values())


def _of_network(system: System, clips: dict[str, list[Clip]]) -> int:
    """Progress steps of one classifier's network."""
    all_clips = [clip for train_clips in clips.values() for clip in train_clips]
    rates = {name: f"{train_clips[0].sample_rate} Hz" for name, train_clips in clips.items()}
    if len(set(rates.values())) > 1:
        raise UserError(
            f"{system.name}: one network hears all machine types, for which it takes one sample rate; there are "
            f"{', '.join(f'{name} {rate}' for name, rate in rates.items())}. Resample those (ffmpeg -i IN.wav -ar RATE "
            "OUT.wav), or name a machine type with --machine-type"
        )
    check_trainable(system.model, all_clips)
    if isinstance(system.model, DenseL2Softmax):
        features.check_descriptor(system.descriptor, system.feature, all_clips[0].sample_rate)
    if isinstance(system.model, SpectralL2Softmax):
        _check_spectra(system, all_clips)
    return len(all_clips) * passes(system, len(all_clips))


def _check_spectra(system: System, clips: Sequence[Clip]) -> None:
    """Raise UserError unless the spectra can be had, and tell nothing of how long a clip is.

    That of a clip which is repeated has gaps: where some are, a network would learn which machine's clips are short.
    """
    n_samples = layout(system.spectra, clips[0].sample_rate).n_samples
    lengths = sorted({clip.n_samples for clip in clips})
    if lengths[0] < n_samples and len(lengths) > 1:
        seconds = lengths[0] / clips[0].sample_rate
        raise UserError(
            f"{system.name}: spectra.duration: {system.spectra.duration:g} s, and the training clips have from "
            f"{seconds:g} to {lengths[-1] / clips[0].sample_rate:g} s. Set it to {seconds:g}, the shortest one's"
        )


def passes(system: System, n_clips: int) -> int:
    """How often training goes over each of ``n_clips``: it is read; a network sees it once an epoch, and scores it."""
    if "fit" not in system.model.BLOCKS:
        return 1
    trainings = n_folds(system, n_clips)  # the one on all clips, and n - 1 on each without the fold that it is in
    return 2 + trainings * prolonged(system, n_clips).fit.epochs


def prolonged(system: System, n_clips: int) -> System:
    """The system with the epochs that ``n_clips`` training clips take: networks need steps, and few clips give few."""
    if not isinstance(system.model, ClipClassifier):
        return system
    wanted = min(system.model.max_passes, math.ceil(system.model.min_steps / _steps(system, n_clips)))
    fit = dataclasses.replace(system.fit, epochs=max(system.fit.epochs, wanted))
    return dataclasses.replace(system, fit=fit)


def _steps(system: System, n_clips: int) -> int:
    """Training steps of an epoch."""
    return math.ceil(n_clips * (1 - system.fit.validation_split) / system.fit.batch_size)


def n_folds(system: System, n_clips: int) -> int:
    """Number of trainings of a classifier without a part of the clips, which are scored as new ones; 1: there are none.

    At most ``folds``; two where the training on all clips takes more than ``min_steps``, which doubles the time.
    """
    if not isinstance(system.model, ClipClassifier) or system.model.folds == 1:
        return 1
    steps = prolonged(system, n_clips).fit.epochs * _steps(system, n_clips)
    return min(system.model.folds, max(2, 1 + max(system.model.min_steps, FEW_STEPS) // steps))


# ---- a classifier's networks ----


def network_name(system: System, machine_type: str) -> str:
    """Name of the files of the network that hears clips of a machine type."""
    alone = isinstance(system.model, ClipClassifier) and system.model.network_per == "machine_type"
    return machine_type if alone else OVER_ALL


def networks(system: System, clips: dict[str, list[Clip]]) -> dict[str, dict[str, list[Clip]]]:
    """Name of each network's files -> machine type -> the clips that it hears."""
    found: dict[str, dict[str, list[Clip]]] = {}
    for machine_type, own in clips.items():
        found.setdefault(network_name(system, machine_type), {})[machine_type] = own
    return found
