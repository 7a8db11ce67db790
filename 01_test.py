"""Score the test clips with the trained systems; for the development dataset, AUC and pAUC as well.

python 01_test.py -d                            score dev_data/<machine type>/test
python 01_test.py -e                            score eval_data/<machine type>/test
python 01_test.py -e --training-data dev+eval   the same with models trained on both training sets
"""

import logging
from collections.abc import Sequence

import common
import config
from audio.clips import Clip, by_machine_type, check_clips, official_order, select_machine_types
from evaluation import embedding_figure, result_record, results
from training.families import family_of
from training.usual import unlike_training

logger = logging.getLogger(__name__)


def checked_clips(settings: config.Config, args, systems: Sequence[config.System]) -> dict[str, list[Clip]]:
    """Machine type -> its test clips in the official order, every one of them checked."""
    directory = settings.directory(args.split)
    types = select_machine_types(directory, f"{args.split}_directory", args.machine_type)
    clips = check_clips(
        [(machine_type, directory / machine_type / "test") for machine_type in types],
        min_samples=max(system.min_samples for system in systems),
        normal_only=False,
        names=settings.names,
        channel=settings.channel,
        cache_directory=settings.cache_directory,
    )
    grouped = by_machine_type(clips)
    return {machine_type: official_order(test_clips) for machine_type, test_clips in grouped.items()}


def parse_arguments(argv: Sequence[str] | None):
    """Those of every script, and what is asked for here."""
    parser = common.argument_parser(__doc__)
    parser.add_argument(
        "--official-model",
        type=common.user_path,
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
    return args


def report(settings: config.Config, args, systems: Sequence[config.System], clips: dict[str, list[Clip]]) -> None:
    """Say what has become of the clips, system by system.

    Raises
    ------
    UserError : naming the faults of all result folders at once.
    """
    faults = []
    for system in systems:
        folder = settings.result_folder(args.training_data, system.name)
        if args.split == "eval" or args.scores_only:
            print(f"{system.name}: anomaly scores of {sum(map(len, clips.values()))} clips -> {folder}")
        if args.scores_only:
            continue
        try:
            if args.split == "dev":
                results.report(folder, list(clips), settings, system)
            else:
                results.check(folder, settings, system)
        except common.UserError as error:
            faults.append(str(error))
    if faults:
        raise common.UserError("\n".join(faults))


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then score; CSVs go to <result_directory>/<training data>/<system>/."""
    args = parse_arguments(argv)
    settings = config.load_config(args.config)
    systems = settings.select(args.system)
    if args.official_model:
        official = config.OfficialModel(args.official_model)
        systems = [config.System("official", official, settings.feature, settings.fit)]
    clips = checked_clips(settings, args, systems)
    if not args.machine_type:
        for system in systems:
            folder = settings.result_folder(args.training_data, system.name)
            result_record.require_only(folder, list(clips), settings.directory(args.split))

    from training.run import (  # TensorFlow takes seconds to import: after all that can be wrong has been checked
        Run,
        enough_memory,
        progress_bar,
    )

    passes = sum(len(system.members) or 1 for system in systems)  # over the clips
    with progress_bar(sum(map(len, clips.values())) * passes, settings.fit.verbose) as bar:
        run = Run(settings, args.training_data, bar, draw=embedding_figure.write_figure)
        run.require_writable(systems, models=False)
        for system in systems:
            family_of(system).require(run, system, clips)
        for line in unlike_training(run, systems, clips):
            logger.warning("%s", line)
        for system in systems:
            for machine_type, test_clips in clips.items():
                with enough_memory(system):
                    results.score(run, system, machine_type, test_clips)
    report(settings, args, systems, clips)


if __name__ == "__main__":
    common.run_main(main)
