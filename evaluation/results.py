"""The result folder of a system: its CSVs written, checked against the models and clips of now, and summed up."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import common
from audio.clips import Clip
from config import Config, System
from detectors import decision
from evaluation import result_record, score_files, tables
from evaluation.folders import Result, rated
from evaluation.published import official_figures
from evaluation.rules import RULES
from training.families import OfficialModel, family_of


def score(run, system: System, machine_type: str, clips: Sequence[Clip]) -> None:
    """Score the test clips of a machine type: one CSV per machine ID, and a record of what made them."""
    paths = family_of(system).made_by(run, system, machine_type)
    directory = result_record.model_directory(run.config, system)
    models = result_record.model_digests(paths, directory)
    thresholds, score_unit = {}, "error"
    if not isinstance(system.model, OfficialModel):  # which keeps no training scores
        trained = family_of(system).training_scores(run, system, machine_type)
        thresholds = decision.of_training(trained, run.config, {clip.machine_id for clip in clips})
        score_unit = trained.unit
    scores = family_of(system).anomaly_scores(run, system, machine_type, clips)
    if result_record.model_digests(paths, directory) != models:
        raise common.UserError(f"{paths[0]}: was replaced while {machine_type} was scored; score it again")
    year = run.config.challenge
    of_unit: dict[tuple[str, str], list] = {}
    for clip, value in zip(clips, scores, strict=True):
        unit = year.unit_of(clip.machine_id, clip.domain)
        of_unit.setdefault((unit, clip.machine_id), []).append((clip.name, value))
    texts = {}
    for (unit, machine_id), pairs in of_unit.items():
        names, values = zip(*pairs, strict=True)
        texts[year.file_name(score_files.SCORES, machine_type, unit)] = score_files.scores_text(names, values)
        if thresholds:
            decisions = decision.is_anomalous(values, thresholds[machine_id])
            name = year.file_name(score_files.DECISIONS, machine_type, unit)
            texts[name] = score_files.decisions_text(names, decisions)
    made = {"models": models, "thresholds": thresholds, "score_unit": score_unit, "texts": texts}
    record = result_record.record_of(run.config, system, run.split, run.training_data, clips, **made)
    result_record.write(run.result_folder(system.name), record, texts)


def check(folder: Path, settings: Config, system: System) -> None:
    """Raise UserError if something in a result folder is not of the models of this YAML, or of the clips of now."""
    records = result_record.check(folder, config=settings, system=system, required=True)
    result_record.require_clips(folder, records, settings)


def report(folder: Path, machine_types: Sequence[str], settings: Config, system: System) -> None:
    """AUC and pAUC: those of this run's machine types printed, those of all in the folder written as result.csv.

    Machine IDs without both normal and anomalous clips have none, and stand in neither.
    """
    year, rule = settings.challenge, RULES[settings.challenge.rule]
    scores, performance = rated(folder, settings, machine_types)
    result = Result(folder.name, folder, scores, performance, year=year)
    published = official_figures(scores, max_fpr=settings.max_fpr, year=year)
    table = [tables.summary_text(performance, published, rule)] if performance else []
    print("", folder, *table, *tables.notes(result), sep="\n")
    check(folder, settings, system)
    if everything := rated(folder, settings)[1]:
        score_files.write_result(folder / settings.result_file, everything, rule)


def report_all(
    run, systems: Sequence[System], clips: Mapping[str, Sequence[Clip]], split: str, *, scores_only: bool
) -> None:
    """Say what has become of the clips, system by system.

    Raises
    ------
    common.UserError : naming the faults of all result folders at once.
    """
    faults = []
    for system in systems:
        folder = run.result_folder(system.name)
        if split == "eval" or scores_only:
            print(f"{system.name}: anomaly scores of {sum(map(len, clips.values()))} clips -> {folder}")
        try:
            if not scores_only and split == "dev":
                report(folder, list(clips), run.config, system)
            elif not scores_only:
                check(folder, run.config, system)
        except common.UserError as error:
            faults.append(str(error))
    if faults:
        raise common.UserError("\n".join(faults))
