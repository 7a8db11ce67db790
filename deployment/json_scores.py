"""Scores from exported files alone, by the functions of examples/score_onnx.py: as another program computes them."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

import common
from audio import features
from audio.clips import Clip
from config import DESCRIBED, System
from deployment.runtimes import Network
from training.run import Run

Outputs = Iterator[tuple[np.ndarray, np.ndarray]]  # of each clip: the network's inputs and outputs, (n_windows, ...)


def _load_example() -> ModuleType:
    path = Path(common.__file__).parent / "examples" / "score_onnx.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = _load_example()


def inputs(run: Run, system: System, content: dict, clips: Sequence[Clip]) -> Iterator[np.ndarray]:
    """The network's inputs of each clip, (n_windows, ...), as the JSON's ``content`` says; the progress is shown."""
    if isinstance(system.model, DESCRIBED):
        heard = run.descriptors(system, clips)[:, None]
    else:
        heard = run.watch(features.log_mel_clips(clips, system.feature, run.cache))
    return (example.network_inputs(of_clip, content) for of_clip in heard)


def outputs(of_clips: Iterator[np.ndarray], network: Network | None) -> Outputs:
    """Inputs and outputs of each clip; where there is no network, the inputs are what a detector compares."""
    return ((of_clip, network.run(of_clip) if network else of_clip) for of_clip in of_clips)


def scores(content: dict, clips: Sequence[Clip], of_clips: Outputs) -> np.ndarray:
    """Scores of the clips, (n_clips,), float64."""
    score = example.SCORES[content["score"]["kind"]]
    return np.array([score(*pair, content, c.machine_id) for c, pair in zip(clips, of_clips, strict=True)], np.float64)


def fused(content: dict, clips: Sequence[Clip], of_members: dict[str, np.ndarray]) -> np.ndarray:
    """Scores of the clips by a fusion, (n_clips,), from those by its members."""
    clip_scores = ({name: member[i] for name, member in of_members.items()} for i in range(len(clips)))
    together = [example.fusion_score(own, content, c.machine_id) for c, own in zip(clips, clip_scores, strict=True)]
    return np.array(together, np.float64)


def learnt(content: dict, clips: Sequence[Clip], of_clips: Outputs) -> np.ndarray:
    """What a part learns of its training clips: a detector their vectors, (n_clips, n_numbers), others their scores."""
    if content["score"]["kind"] == "detector":
        return np.stack([example.clip_vector(found) for _, found in of_clips]).astype(np.float32)
    return scores(content, clips, of_clips)
