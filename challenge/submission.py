"""The challenge's submission package, built from the results and an authors file."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

import common
from challenge.meta_file import MAX_ABBREVIATION, Authors
from challenge.package import REPORT_ENDING, Clips, Files, Package, result_types
from config import Config, System
from evaluation import result_record, score_files
from evaluation.folders import rated
from evaluation.rules import RULES
from storage import records
from years.year import Year

METHODS = {  # by model type; None: nothing but a detector, or what the members say
    "dense_ae": "AE",
    "vae": "VAE",
    "conv_ae": "convolutional AE",
    "l2_softmax": "CNN",
    "dense_l2_softmax": "MLP",
    "spectral_l2_softmax": "CNN",
    "neighbors": None,
    "fusion": None,
}
DETECTORS = {"lof": "LOF", "knn": "k-NN", "density": "k-NN", "softmax": None}
EMBEDDINGS = {"l2_softmax": "MobileNetV2", "dense_l2_softmax": "MLP", "spectral_l2_softmax": "CNN"}
FEATURES = {  # by part of a descriptor
    "slow": "modulation spectrum",
    "fast": "modulation spectrum",
    "statistics": "log-mel energies",
}
AGGREGATES = {
    "mean": "average",
    "median": "median",
    "std": "standard deviation",
    "max": "maximum",
    "mahalanobis": "average",
    "mahalanobis_official": "average",
}
DATA_USAGE = {"eval": "development", "dev+eval": "development, training"}


def build(config: Config, authors: Authors, *, report: Path | None, clips: Clips) -> Package:
    """Package of the YAML's ``submissions``, as files in memory.

    Raises
    ------
    UserError : naming everything that has not been run yet or cannot be read.
    """
    files: Files = {}
    faults, year = [], config.challenge
    if report:
        try:
            files[f"{authors.team}{REPORT_ENDING}"] = report.read_bytes()
        except OSError as error:
            faults.append(f"--report-pdf: {report} cannot be read ({error.strerror})")
    for number, entry in sorted(config.submissions.items()):
        folder = f"{authors.team}_{number}"
        system = config.systems[entry.system]
        try:
            results = config.result_folder(entry.training_data, system.name)
            scores = score_files.score_files(results, year)
            parameters, sample_rate = model_facts(config.model_directory / entry.training_data, system)
            result_record.check(results, config=config, system=system, required=True)
        except common.UserError as error:
            data = "" if entry.training_data == "eval" else f" --training-data {entry.training_data}"
            options = f"-e{data} --system {system.name}"
            commands = f"python 00_train.py {options}, then python 01_test.py {options}"
            faults.append(f"submission {number}: {error} ({commands})")
            continue
        decided = score_files.files_of(results, score_files.DECISIONS, year) if year.decisions else {}
        files |= {f"{folder}/{path.name}": path.read_bytes() for path in [*scores.values(), *decided.values()]}
        block = {
            "submission": _submission_block(number, authors, f"{system.name} {entry.training_data}"),
            "system": _system_block(system, entry.training_data, sample_rate, parameters, authors.source_code, year),
            "results": {"development_dataset": dev_results(config, system, result_types(clips, year))},
        }
        text = yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=1000)
        files[f"{folder}/{folder}.meta.yaml"] = text.encode()
    if not config.submissions:
        faults.append("the YAML's block `submissions` is empty; expected 1 to 4 submissions")
    if faults:
        raise common.fault_list("No package written", faults, "Do what is missing, then run again.")
    return Package(files, [], True)


def require_clips(config: Config) -> None:
    """Raise UserError where evaluation clips, where they are there, have been replaced since they were scored."""
    for entry in config.submissions.values():
        folder = config.result_folder(entry.training_data, entry.system)
        found, _ = result_record.read_all(folder)
        result_record.require_clips(folder, found, config)


def model_facts(directory: Path, system: System) -> tuple[int, int]:
    """Number of parameters and sample rate [Hz] of a system, from the records in its model folder, or its members'.

    Where each machine type has its own model, the number is the size of one (the largest), not their sum: the
    official baseline and its kin state 269,992. Of the members of a fusion it is the sum; a detector has none.

    Parameters
    ----------
    directory : folder of the models of all systems with the same training data
    """
    if system.members:
        left_out = [records.read(path, {"left_out": list})["left_out"] for path in _record_paths(directory, system)]
        everywhere = set.intersection(*map(set, left_out)) if left_out else set()
        members = [member for member in system.members if member.name not in everywhere]
        parameters, sample_rates = zip(*(model_facts(directory, member) for member in members), strict=True)
        return sum(parameters), max(sample_rates)
    fields = {"sample_rate": int} | ({"parameters": int} if "fit" in system.model.BLOCKS else {})
    facts = []
    for path in _record_paths(directory, system):
        try:
            record = records.read(path, fields)
        except (OSError, ValueError) as error:
            raise common.UserError(f"{path}: {error}") from error
        facts.append((record.get("parameters", 0), record["sample_rate"]))
    if not facts:
        raise common.UserError(f"{directory / system.name}: no record_<machine type>.yaml of a trained model")
    return max(facts)


def _record_paths(directory: Path, system: System) -> list[Path]:
    return sorted((directory / system.name).glob("record_*.yaml"))


def _submission_block(number: int, authors: Authors, what: str) -> dict:
    """The meta file's ``submission``; name and abbreviation are made up where the user gives none."""
    name, abbreviation = authors.names.get(number, (None, None))
    short = f"{authors.institute[: MAX_ABBREVIATION - 2]}_{number}"
    return {
        "label": f"{authors.team}_{number}",
        "name": name or f"{authors.team.removesuffix('_task2')} {what}",
        "abbreviation": abbreviation or short,
        "authors": authors.authors,
    }


def _system_block(
    system: System, training_data: str, sample_rate: int, parameters: int, source_code: str | None, year: Year
) -> dict:
    """The meta file's ``system``, fields in the year's official order."""
    parts = system.members or (system,)

    def together(words: Callable[[System], str | None]) -> str | None:  # of the members of a fusion, each once
        return ", ".join(dict.fromkeys(filter(None, map(words, parts)))) or None

    known = {
        "input_sampling_rate": f"{sample_rate / 1000:g}kHz",
        "data_augmentation": together(lambda part: "mixup" if getattr(part.model, "mixup", 0) else None),
        "acoustic_features": ", ".join(dict.fromkeys(name for part in parts for name in _features(part))),
        "embeddings": together(lambda part: EMBEDDINGS.get(part.model_type)),
        "machine_learning_method": together(_method),
        "aggregation_method": together(lambda part: AGGREGATES.get(getattr(part.model, "aggregate", None))),
        "ensemble_method_subsystem_count": len(system.members) or None,
        "decision_making": "weighted sum of standardised log scores" if system.members else None,
        "external_data_usage": together(
            lambda part: "pre-trained model" if getattr(part.model, "weights", None) else None
        ),
        "development_data_usage": DATA_USAGE[training_data],
        "attribute_usage": together(
            lambda part: "classes" if getattr(part.model, "classes", None) == "attributes" else None
        ),
    }
    return {
        "description": {name: known.get(name) for name in year.meta["description"]},
        "complexity": {"total_parameters": parameters},
        "source_code": source_code,
    }


def _features(part: System) -> list[str]:
    """What a system looks at."""
    if part.spectra:
        return ["spectrum"] * part.spectra.spectrum + ["spectrogram"] * bool(part.spectra.windows)
    names = [name for group in part.descriptor.parts for name in group] if part.descriptor else ["statistics"]
    return [FEATURES[name] for name in names]


def _method(part: System) -> str:
    """Kind of network, and what scores its output."""
    return ", ".join(
        filter(None, (METHODS.get(part.model_type, part.model_type), DETECTORS.get(getattr(part.model, "score", None))))
    )


def dev_results(config: Config, system: System, machine_types: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Development figures [%] of each machine type, from the scores; None where the system was not run on it."""
    folder, year = config.result_folder("dev", system.name), config.challenge
    rule, performance = RULES[year.rule], {}
    result_record.require_clips(folder, result_record.check(folder, config=config, system=system), config)
    if any(folder.glob("anomaly_score_*.csv")):
        _, performance = rated(folder, config)
    keys = [year.meta["results"][name] for name in rule.names]
    found = {}
    for name in machine_types:
        figures = rule.average(performance[name]) if name in performance else [math.nan] * len(keys)
        rounded = [None if math.isnan(figure) else round(100 * figure, 4) for figure in figures]
        found[name] = dict(zip(keys, rounded, strict=True))
    return found
