"""Scores from exported files alone, by the functions of examples/: as another program computes them."""

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

import common
from audio import features
from audio.clips import Clip
from config import System
from deployment.runtimes import Network
from training.residuals import moments_of
from training.run import Run

Outputs = Iterator[tuple[np.ndarray, np.ndarray]]  # of each clip: the network's inputs and outputs, (n_windows, ...)


def _load_example(name: str) -> ModuleType:
    path = Path(common.__file__).parent / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


frontend = _load_example("frontend")  # first: score_onnx.py imports it by this name, as what lies beside it
example = _load_example("score_onnx")


def outputs(run: Run, system: System, content: dict, clips: Sequence[Clip], network: Network | None) -> Outputs:
    """What a network takes and gives of each clip, as the JSON's ``content`` says; the progress is shown.

    Where there is none, what it would take is what a detector compares.
    """
    if system.spectra:
        heard = run.watch(features.blocks(clips, features.spectra(system.spectra, content["sample_rate"]), None))
    elif system.descriptor:
        heard = run.descriptors(system, clips)[:, None]
    else:
        heard = run.watch(features.log_mel_clips(clips, system.feature, run.cache))
    for of_clip in heard:
        inputs = frontend.network_inputs(of_clip, content)
        yield inputs, network.run(inputs) if network else inputs


def scores(
    content: dict, clips: Sequence[Clip], of_clips: Iterable[tuple], scorer: Callable[..., float] | None = None
) -> np.ndarray:
    """Scores of the clips, (n_clips,), float64, from :func:`outputs`, or of a fusion from the members' scores."""
    score = scorer or example.SCORES[content["score"]["kind"]]
    pairs = zip(clips, of_clips, strict=True)
    return np.array([score(*of_clip, content, clip.machine_id) for clip, of_clip in pairs], np.float64)


def learnt(content: dict, clips: Sequence[Clip], of_clips: Outputs) -> np.ndarray:
    """What is learnt of training clips, see :class:`training.families.Part`."""
    kind = content["score"]["kind"]
    if kind == "detector":
        return np.stack([example.clip_vector(found) for _, found in of_clips]).astype(np.float32)
    if kind == "fusion":
        return np.array([[*of_members.values()] for of_members, _ in of_clips])
    if "inverse_covariances" in content["score"]:
        frame = (-1, content["feature"]["n_mels"])
        return np.stack([moments_of((inputs - found).reshape(frame)) for inputs, found in of_clips])
    return scores(content, clips, of_clips)
