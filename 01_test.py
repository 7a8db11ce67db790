"""Score the test clips with the trained systems; for the development dataset, AUC and pAUC as well.

python 01_test.py -d                            score dev_data/<machine type>/test
python 01_test.py -e                            score eval_data/<machine type>/test
python 01_test.py -e --training-data dev+eval   the same with models trained on both training sets
"""

import time
from collections.abc import Sequence
from pathlib import Path

import common
import config
import decision
import result_record
import scoring

PAUSES = (0.2, 1.0, 3.0)  # [s] before a result folder that does not fit is looked at again


def checked_clips(settings: config.Config, args, systems: Sequence[config.System]) -> dict[str, list[common.Clip]]:
    """Machine type -> its test clips in the official order, every one of them checked."""
    directory = settings.directory(args.split)
    types = common.select_machine_types(directory, f"{args.split}_directory", args.machine_type)
    clips = common.check_clips(
        [(machine_type, directory / machine_type / "test") for machine_type in types],
        min_samples=max(system.min_samples for system in systems),
        normal_only=False,
        names=settings.names,
        channel=settings.channel,
        cache_directory=settings.cache_directory,
    )
    grouped = common.by_machine_type(clips)
    return {machine_type: common.test_order(test_clips) for machine_type, test_clips in grouped.items()}


def score(run, system: config.System, machine_type: str, clips: Sequence[common.Clip]) -> None:
    """Score the test clips of a machine type: one CSV per machine ID, and a record of what made them."""
    paths = system.module.made_by(run, system, machine_type)
    directory = result_record.model_directory(run.config, system)
    models = result_record.model_digests(paths, directory)
    thresholds = thresholds_of(run, system, machine_type, sorted({clip.machine_id for clip in clips}))
    scores = system.module.anomaly_scores(run, system, machine_type, clips)
    if result_record.model_digests(paths, directory) != models:
        raise common.UserError(f"{paths[0]}: was replaced while {machine_type} was scored; score it again")
    of_id: dict[str, list] = {}
    for clip, value in zip(clips, scores, strict=True):
        of_id.setdefault(clip.machine_id, []).append((clip.name, value))
    texts = {}
    for machine_id, pairs in of_id.items():
        names, values = zip(*pairs, strict=True)
        key = (machine_type, machine_id)
        texts[scoring.score_path(Path(), *key).name] = scoring.scores_text(names, values)
        if thresholds:
            decisions = decision.is_anomalous(values, thresholds[machine_id])
            texts[scoring.decision_path(Path(), *key).name] = scoring.decisions_text(names, decisions)
    record = result_record.record_of(
        run.config, system, run.training_data, clips, models=models, thresholds=thresholds, texts=texts
    )
    result_record.write(run.result_folder(system.name), record, texts)


def thresholds_of(run, system: config.System, machine_type: str, machine_ids: Sequence[str]) -> dict[str, float]:
    """Machine ID -> score above which a clip is called anomalous; empty for official models, which have no such scores.

    A machine ID without training clips of its own has the threshold of all of its machine type.
    """
    if isinstance(system.model, config.OfficialModel):
        return {}
    trained = system.module.training_scores(run, system, machine_type)
    known = set(trained.machine_ids.tolist())
    return {
        machine_id: decision.threshold(
            trained.of(machine_id) if machine_id in known else trained.scores,
            quantile=run.config.decision_quantile,
            method=run.config.decision,
        )
        for machine_id in machine_ids
    }


def check_folder(
    folder: Path, settings: config.Config, system: config.System, split: str
) -> list[result_record.Record]:
    """Records of all that is in a result folder.

    Raises
    ------
    UserError : if something in it is not of the models of this YAML, or of other clips than there are now.

    Notes
    -----
    What does not fit is looked at again: a job that scores another machine type may be writing at this moment.
    """
    for pause in PAUSES:
        try:
            return check_once(folder, settings, system, split)
        except common.UserError:
            time.sleep(pause)
    return check_once(folder, settings, system, split)


def check_once(folder: Path, settings: config.Config, system: config.System, split: str) -> list[result_record.Record]:
    """As ``check_folder``, without a second look."""
    records = result_record.check(folder, config=settings, system=system, required=True)
    faults = []
    for record in records:
        test_folder = settings.directory(split) / record.machine_type / "test"
        clips = common.clip_names(record.machine_type, test_folder, names=settings.names)
        if clips and clips != result_record.clip_names(folder, record):
            faults.append(f"{scoring.some(list(record.files))}: of other clips than {test_folder} has now")
    if faults:
        raise common.fault_list(f"{folder}: scores of other clips", faults, result_record.ADVICE)
    return records


def report(folder: Path, machine_types: Sequence[str], settings: config.Config, system: config.System) -> None:
    """AUC and pAUC: those of this run's machine types printed, those of all in the folder written as result.csv.

    Machine IDs without both normal and anomalous clips have none, and stand in neither. Jobs that each score one
    machine type so add up to one file: each reads all again if another has come meanwhile.
    """
    options = {"any_names": settings.names == "any", "unlabelled": True}
    scores = scoring.read_folder(folder, machine_types=machine_types, **options)
    performance = scoring.evaluate(scores, max_fpr=settings.max_fpr, rated_only=True)
    if performance:
        published = scoring.official_figures(scores, max_fpr=settings.max_fpr)
        print(f"\n{folder}\n{scoring.summary_table(performance, published)}")
    for (machine_type, machine_id), clips in scores.items():
        if machine_id not in performance.get(machine_type, {}) and clips.decisions is not None:
            n_called = int(clips.decisions.sum())
            print(f"{machine_type} {machine_id}: {n_called} of {len(clips.names)} clips are called anomalous")
    written = None
    while written != (records := check_folder(folder, settings, system, "dev")):
        scores = scoring.read_folder(folder, **options)
        everything = scoring.evaluate(scores, max_fpr=settings.max_fpr, rated_only=True)
        if everything:
            scoring.write_result(folder / settings.result_file, everything)
        written = records


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then score; CSVs go to <result_directory>/<training data>/<system>/."""
    parser = common.argument_parser(__doc__)
    parser.add_argument(
        "--official-model",
        type=Path,
        metavar="DIR",
        help="score with model_<machine type>.hdf5 of the official baseline",
    )
    parser.add_argument(
        "--scores-only",
        action="store_true",
        help="no result.csv, and no look at what else is in its folder: for jobs that score a machine type each, at "
        "the same time; 02_evaluate.py adds them up",
    )
    args = common.parse_arguments(parser, argv)
    if args.official_model and args.system:
        parser.error("--official-model takes the place of --system")
    settings = config.load_config(args.config)
    systems = settings.select(args.system)
    if args.official_model:
        official = config.OfficialModel(args.official_model)
        systems = [config.System("official", official, settings.feature, settings.fit)]
    clips = checked_clips(settings, args, systems)
    if not args.machine_type:
        for system in systems:
            folder = settings.result_directory / args.training_data / system.name
            result_record.require_only(folder, list(clips), settings.directory(args.split))

    import training  # TensorFlow takes seconds to import: after all that can be wrong has been checked

    passes = sum(len(system.members) or 1 for system in systems)  # over the clips
    with training.progress_bar(sum(map(len, clips.values())) * passes, settings.fit.verbose) as bar:
        run = training.Run(settings, args.training_data, bar)
        run.require_writable(systems, models=False)
        for system in systems:
            system.module.require(run, system, clips)
        for system in systems:
            for machine_type, test_clips in clips.items():
                with training.enough_memory(system):
                    score(run, system, machine_type, test_clips)
    faults = []
    unrated = common.without_auc(clips) if args.split == "dev" else []
    for system in systems:
        folder = run.result_folder(system.name)
        try:
            if args.split == "eval" or unrated or args.scores_only:
                print(f"{system.name}: anomaly scores of {sum(map(len, clips.values()))} clips -> {folder}")
            if args.scores_only:
                continue
            if args.split == "dev":
                report(folder, list(clips), settings, system)
            else:
                check_folder(folder, settings, system, "eval")
        except common.UserError as error:  # to name the faults of all folders at once
            faults.append(str(error))
    if unrated:
        print("No AUC, for which it takes normal and anomalous clips, of:", *unrated, sep="\n  ")
    if faults:
        raise common.UserError("\n".join(faults))


if __name__ == "__main__":
    common.run_main(main)
