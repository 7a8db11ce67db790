"""The ground truth: which test clips are anomalies."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import common
from audio.clips import machine_types_in, parse_clip_name, wav_paths
from evaluation.metrics import Key
from evaluation.score_files import csv_rows, parsed

Truth = dict[Key, dict[str, int]]  # machine type, machine ID -> clip name -> label


def read_truth(path: Path) -> Truth:
    """Labels of the test clips: from the official list, or from the names in a dataset folder.

    Parameters
    ----------
    path : ``eval_data_list.csv`` (a line with the machine type alone, then lines ``name,original name,label``), or a
        folder ``<machine type>/test/*.wav`` whose names begin with normal_ or anomaly_

    Raises
    ------
    UserError : naming every row or clip that gives no label.
    """
    if path.is_dir():
        labels, faults = _labels_in_folder(path)
    else:
        labels, _, faults = parsed(path, _clip_rows(path), _parse_row)
    if faults:
        raise common.fault_list("Ground truth with faults", faults, "Get eval_data_list.csv again, or mend the names.")
    truth: Truth = {}
    for (machine_type, machine_id, name), label in labels.items():
        truth.setdefault((machine_type, machine_id), {})[name] = label
    return truth


def _clip_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of the clips' rows of the official list, the machine type behind them."""
    machine_type = ""
    for number, row in csv_rows(path):
        if len(row) == 1 and ".wav" not in row[0].lower():
            machine_type = row[0].strip()
        else:
            yield number, [*row, machine_type]


def _parse_row(row: Sequence[str]) -> tuple[tuple[str, str, str], int]:
    """Machine type, machine ID, name and label of a row of the official list, its machine type behind it."""
    *cells, machine_type = row
    if not machine_type:
        raise ValueError("no line with a machine type above it")
    if len(cells) != 3 or cells[2] not in ("0", "1"):
        raise ValueError(f"{','.join(cells)!r}; expected name,original name,0 or 1")
    name, original, label = cells
    machine_id, _ = parse_clip_name(name)
    if parse_clip_name(original) != (machine_id, int(label)):
        raise ValueError(f"{original} is not the original name of {name} with label {label}")
    return (machine_type, machine_id, name), int(label)


def _labels_in_folder(directory: Path) -> tuple[dict[tuple[str, str, str], int], list[str]]:
    """Machine type, machine ID, name -> label, and faults, of the test clips of a dataset folder."""
    labels: dict[tuple[str, str, str], int] = {}
    faults = []
    for machine_type in machine_types_in(directory, "--truth"):
        for path in wav_paths(directory / machine_type / "test"):
            try:
                machine_id, label = parse_clip_name(path.name)
                if label is None:
                    raise ValueError("name does not begin with normal_ or anomaly_")
                labels[machine_type, machine_id, path.name] = label
            except ValueError as error:
                faults.append(f"{path}: {error}")
    return labels, faults
