"""Published figures, and the test sets that they are of: ``published.yaml``."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.metrics import Key


@dataclass(frozen=True)
class Published:
    """Figures that somebody published, in percent."""

    name: str
    dataset: str  # "dev" or "eval"
    source: str
    machine_types: dict[str, tuple[float, float]] = field(default_factory=dict)  # (AUC, pAUC), averaged over its IDs
    machine_ids: dict[str, dict[str, tuple[float, float]]] = field(
        default_factory=dict
    )  # of each type, where published
    mean: tuple[float, float] | None = None  # over all machine types, where theirs were not published
    mean_of_both: float | None = None  # of AUC and pAUC, where not even these were


@functools.cache
def published_file() -> dict:
    """Content of ``published.yaml``; ``test_clips`` has the numbers of clips per machine ID and label."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def published_figures() -> list[Published]:
    """All published figures; the first of each dataset is the official one."""
    return [Published(**entry) for entry in published_file()["systems"]]


def official_dataset(scores: Mapping[Key, Sequence]) -> str | None:
    """``dev`` or ``eval`` if all clips (labels first) are, by their numbers, an official test set's; else None."""
    counts: dict[str, dict[str, list[int]]] = {}
    for (machine_type, machine_id), values in scores.items():
        of_label = Counter(int(label) for label in values[0])
        counts.setdefault(machine_type, {})[machine_id] = [of_label[0], of_label[1]]
    for dataset, test_clips in published_file()["test_clips"].items():
        if all(test_clips.get(machine_type) == of_a_type for machine_type, of_a_type in counts.items()):
            return dataset
    return None


def comparable_figures(all_scores: Sequence[Mapping[Key, Sequence]], *, max_fpr: float) -> list[Published]:
    """Published figures of the official test set that all of these score; none if it is not one, or by ``max_fpr``.

    A mean over all machine types is there only where all of them were scored.
    """
    datasets = {official_dataset(scores) for scores in all_scores}
    if max_fpr != published_file()["max_fpr"] or len(datasets) > 1 or datasets == {None}:
        return []
    (dataset,) = datasets
    every = published_file()["test_clips"][dataset].keys()
    whole = all({machine_type for machine_type, _ in scores} == every for scores in all_scores)
    return [
        figures for figures in published_figures() if figures.dataset == dataset and (figures.machine_types or whole)
    ]


def official_figures(scores: Mapping[Key, Sequence], *, max_fpr: float = 0.1) -> Published | None:
    """The official published figures for these clips; None unless they are an official test set's."""
    return next(iter(comparable_figures([scores], max_fpr=max_fpr)), None)
