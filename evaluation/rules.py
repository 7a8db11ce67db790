"""How the challenge judges: which AUCs, how they are averaged, what ranks a system. A year's file names its rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

EPSILON = np.finfo(float).eps  # floor of a harmonic mean's figures, as in the official evaluators


class Column(NamedTuple):
    """A figure of a machine ID or section."""

    name: str
    partial: bool = False  # the pAUC rather than the AUC
    domain: int | None = None  # whose normal clips count, with the anomalies of all domains; None: of all

    def clips(self, labels: np.ndarray, domains: np.ndarray | None) -> np.ndarray:
        """The clips that count, shape (n_clips,), of labels and numbers of domains of that shape."""
        if self.domain is None:
            return np.ones(len(labels), bool)
        of_domain = np.zeros(len(labels), bool) if domains is None else np.asarray(domains) == self.domain
        return (labels == 1) | of_domain


@dataclass(frozen=True)
class Rule:
    """One way of judging."""

    columns: tuple[Column, ...]
    harmonic: bool  # means: harmonic, or arithmetic
    apart: bool = False  # whether decisions are judged apart by the clips' domain

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [column.name for column in self.columns]

    @property
    def mean_name(self) -> str:
        """What a line of means over machine IDs is called."""
        return "harmonic mean" if self.harmonic else "Average"

    def mean(self, figures: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """Mean over the first axis; NaN where a figure is."""
        figures = np.asarray(figures, np.float64)
        if not self.harmonic:
            return np.mean(figures, axis=0)
        return 1 / np.mean(1 / np.maximum(figures, EPSILON), axis=0)

    def average(self, of_a_type: Mapping[str, Sequence[float]]) -> tuple[float, ...]:
        """Means over the machine IDs of a type."""
        return tuple(self.mean(list(of_a_type.values())).tolist())

    def overall(self, performance: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[float, ...]:
        """Means over all: of the machine types' averages, or, harmonic ones, of all sections."""
        return tuple(self.overall_of(performance).tolist())

    def overall_of(self, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
        """The same of arrays of figures, such as those of bootstrap samples."""
        if self.harmonic:
            return self.mean([array for ids in arrays.values() for array in ids.values()])
        return self.mean([self.mean(list(ids.values())) for ids in arrays.values()])

    def official_score(self, performance: Mapping[str, Mapping[str, Sequence[float]]]) -> float | None:
        """The harmonic mean of all figures, by which systems are ranked; None where the mean of ranks decides."""
        if not self.harmonic:
            return None
        return float(self.mean([figure for ids in performance.values() for pair in ids.values() for figure in pair]))


AUC, PAUC = Column("AUC"), Column("pAUC", partial=True)
IDS = Rule((AUC, PAUC), harmonic=False)  # 2020
RULES = {
    "ids": IDS,
    "domains_apart": Rule((AUC, PAUC), harmonic=True),  # 2021: a section's domains are judged as if they were two
    "domains_mixed": Rule(  # since 2022
        (Column("AUC source", domain=0), Column("AUC target", domain=1), PAUC), harmonic=True, apart=True
    ),
}
