"""Published figures, and the test sets that they are of: in the years' files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.metrics import Key
from years.year import DEFAULT, Year, read_year, total


@dataclass(frozen=True)
class Published:
    """Figures that somebody published, in percent, in the order of the rule's columns."""

    name: str
    dataset: str  # "dev" or "eval"
    source: str
    machine_types: dict[str, tuple[float, ...]] = field(default_factory=dict)  # averaged over its IDs
    machine_ids: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)  # of each type, where published
    mean: tuple[float, ...] | None = None  # over all machine types, where theirs were not published
    mean_of_both: float | None = None  # of AUC and pAUC, where not even these were
    official_score: float | None = None  # where the year has one


def published_figures(year: Year | None = None) -> list[Published]:
    """All published figures of a year; the first of each dataset is the official one."""
    return [Published(**entry) for entry in (year or read_year(DEFAULT)).published]


def official_dataset(scores: Mapping[Key, Sequence], year: Year | None = None) -> str | None:
    """``dev`` or ``eval`` if all clips (labels first) are, by their numbers, an official test set's; else None."""
    counts: dict[str, dict[str, list[int]]] = {}
    for (machine_type, unit), values in scores.items():
        of_label = Counter(int(label) for label in values[0])
        counts.setdefault(machine_type, {})[unit] = [of_label[0], of_label[1]]
    for dataset, test_clips in (year or read_year(DEFAULT)).test_clips.items():
        if all(_equal(test_clips.get(machine_type), of_a_type) for machine_type, of_a_type in counts.items()):
            return dataset
    return None


def _equal(official: Mapping[str, list[int] | int | None] | None, units: Mapping[str, list[int]]) -> bool:
    """Whether units have the official numbers of clips, of each label where these are known."""
    return (
        official is not None
        and official.keys() == units.keys()
        and all(official[unit] in (None, pair, total(pair)) for unit, pair in units.items())
    )


def comparable_figures(
    all_scores: Sequence[Mapping[Key, Sequence]], *, max_fpr: float, year: Year | None = None
) -> list[Published]:
    """Published figures of the official test set that all of these score; none if it is not one, or by ``max_fpr``.

    A mean over all machine types is there only where all of them were scored.
    """
    year = year or read_year(DEFAULT)
    datasets = {official_dataset(scores, year) for scores in all_scores}
    if max_fpr != year.max_fpr or len(datasets) > 1 or datasets == {None}:
        return []
    (dataset,) = datasets
    every = year.test_clips[dataset].keys()
    whole = all({machine_type for machine_type, _ in scores} == every for scores in all_scores)
    return [
        figures
        for figures in published_figures(year)
        if figures.dataset == dataset and (figures.machine_types or whole)
    ]


def official_figures(
    scores: Mapping[Key, Sequence], *, max_fpr: float = 0.1, year: Year | None = None
) -> Published | None:
    """The official published figures for these clips; None unless they are an official test set's."""
    return next(iter(comparable_figures([scores], max_fpr=max_fpr, year=year)), None)
