"""Score the test clips with the trained systems; for the development dataset, AUC and pAUC as well.

python 01_test.py -d                            score dev_data/<machine type>/test
python 01_test.py -e                            score eval_data/<machine type>/test
python 01_test.py -e --training-data dev+eval   the same with models trained on both training sets
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import common
import config
import scoring

logger = logging.getLogger(__name__)


def checked_clips(settings: config.Config, args, systems: Sequence[config.System]) -> dict[str, list[common.Clip]]:
    """Machine type -> its test clips in the official order, every one of them checked."""
    directory = settings.directory(args.split)
    types = common.select_machine_types(directory, f"{args.split}_directory", args.machine_type)
    clips = common.check_clips(
        [(machine_type, directory / machine_type / "test") for machine_type in types],
        min_samples=max(system.min_samples for system in systems),
        labelled=args.split == "dev",
        normal_only=False,
    )
    grouped = common.by_machine_type(clips)
    if args.split == "dev":
        common.require_both_labels(grouped)
    return {machine_type: common.test_order(test_clips) for machine_type, test_clips in grouped.items()}


def write_score_files(folder: Path, clips: Sequence[common.Clip], scores: Iterable[float]) -> None:
    """One CSV per machine ID of a machine type."""
    of_id: dict[str, list] = {}
    for clip, score in zip(clips, scores, strict=True):
        of_id.setdefault(clip.machine_id, []).append((clip, score))
    for machine_id, pairs in of_id.items():
        path = scoring.score_path(folder, clips[0].machine_type, machine_id)
        scoring.write_scores(path, [clip.name for clip, _ in pairs], [score for _, score in pairs])
        logger.debug("anomaly score result -> %s", path)


def report(folder: Path, scored: set[tuple[str, str]], settings: config.Config, *, add_up: bool) -> None:
    """AUC and pAUC of a system, written as result.csv and printed.

    ``scored`` are the (machine type, machine ID) pairs of this run. With ``add_up``, result.csv covers all that is in
    the folder, so that jobs that each score one machine type add up to one file.
    """
    labelled = scoring.read_folder(folder)
    ours = {key: values for key, values in labelled.items() if key in scored}
    performance = scoring.evaluate(ours, max_fpr=settings.max_fpr)
    everything = scoring.evaluate(labelled, max_fpr=settings.max_fpr) if add_up else performance
    scoring.write_result(folder / settings.result_file, everything)
    print(f"\n{folder}\n{scoring.summary_table(performance, scoring.official_figures(ours, max_fpr=settings.max_fpr))}")


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then score; CSVs go to <result_directory>/<training data>/<system>/."""
    parser = common.argument_parser(__doc__)
    parser.add_argument(
        "--official-model",
        type=Path,
        metavar="DIR",
        help="score with model_<machine type>.hdf5 of the official baseline",
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

    import training  # TensorFlow takes seconds to import: after all that can be wrong has been checked

    with training.progress_bar(sum(map(len, clips.values())) * len(systems), settings.fit.verbose) as bar:
        run = training.Run(settings, args.training_data, bar)
        for system in systems:
            system.module.require(run, system, clips)
        for system in systems:
            for machine_type, test_clips in clips.items():
                scores = system.module.anomaly_scores(run, system, machine_type, test_clips)
                write_score_files(run.result_folder(system.name), test_clips, scores)
    all_clips = [clip for test_clips in clips.values() for clip in test_clips]
    for system in systems:
        folder = run.result_folder(system.name)
        if args.split == "dev":
            scored = {(clip.machine_type, clip.machine_id) for clip in all_clips}
            report(folder, scored, settings, add_up=bool(args.machine_type))
        else:
            print(f"{system.name}: anomaly scores of {len(all_clips)} clips -> {folder}")


if __name__ == "__main__":
    common.run_main(main)
