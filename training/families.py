"""A model family is a module with these functions; which module a system's model is of stands in its dataclass.

To add one: a module of this form, a dataclass in config.py and a block in the YAML.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from audio.clips import Clip
from config import System
from training.model_records import TrainingScores

if TYPE_CHECKING:
    import keras

    from training.deviation import Deviation
    from training.run import Run

Clips = dict[str, list[Clip]]  # machine type -> its clips


@dataclass(frozen=True)
class OfficialModel:
    """Files that the official baseline has trained; for ``--official-model``, no part of the YAML."""

    MODULE = "keras_model"
    hop = 1
    aggregate = "mean"
    directory: Path


@dataclass(frozen=True)
class Part:
    """What other programs need of a system for one machine type; a fusion has a part for each of its members too."""

    system: System
    machine_type: str
    facts: dict  # plain values: what is heard of a clip, and "score", how its score follows from that
    record: str | None = None  # name of the record of what was learnt; None: nothing of its own
    network: "keras.Model | None" = None  # None: there is none
    network_name: str = ""  # of its file
    # "score" learnt anew by integers, and the training clips' own scores (n_clips,): from the clips and their vectors
    # (n_clips, n_numbers), of a fusion its members' scores (n_clips, n_members), where residuals have covariances the
    # moments of each clip's, without detectors their scores. None where there is no network.
    learn: Callable[[Sequence[Clip], np.ndarray], tuple[dict, np.ndarray]] | None = None
    # For a "kind" that examples/score_onnx.py does not know: inputs and outputs of the network (both the log-mel
    # energies or the descriptor where there is none), content of the JSON, machine ID -> score.
    scorer: Callable[[np.ndarray, np.ndarray, dict, str], float] | None = None

    @property
    def name(self) -> str:
        """Of the files."""
        return f"{self.system.name}_{self.machine_type}"


class Family(Protocol):
    """The functions of a module that trains models and scores clips with them."""

    def train(self, run: "Run", system: System, clips: Clips) -> None:
        """Train on these clips what is not trained on just these; models and records go to ``run.model_folder``."""

    def require(self, run: "Run", system: System, clips: Clips) -> None:
        """Raise UserError unless there are finished models that can score these clips."""

    def made_by(self, run: "Run", system: System, machine_type: str) -> list[Path]:
        """Files that stand for what scores the clips of a machine type: records of models."""

    def anomaly_scores(self, run: "Run", system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
        """Scores of the clips of a machine type, shape (n_clips,), float64; higher = more anomalous."""

    def training_scores(self, run: "Run", system: System, machine_type: str) -> TrainingScores:
        """Scores of the clips that the machine type's models were trained on."""

    def deviations(self, run: "Run", system: System, machine_type: str, clips: Sequence[Clip]) -> list["Deviation"]:
        """Where each clip is unlike the training clips; empty where its score cannot be traced to frequencies."""

    def parts(self, run: "Run", system: System, machine_type: str) -> list[Part]:
        """What is exported of a system for one machine type."""


def family_of(system: System) -> Family:
    """Module of a system's model, imported when first asked for: it brings TensorFlow."""
    return importlib.import_module(system.model.MODULE)
