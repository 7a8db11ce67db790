"""Score the test clips with the trained systems; for the development dataset, AUC and pAUC as well.

python 01_test.py -d                            score dev_data/<machine type>/test
python 01_test.py -e                            score eval_data/<machine type>/test
python 01_test.py -e --training-data dev+eval   the same with models trained on both training sets
"""

import logging
from collections.abc import Sequence

import common

logger = logging.getLogger(__name__)


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


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then score; CSVs go to <result_directory>/<training data>/<system>/."""
    args = parse_arguments(argv)
    from config import System, load_config  # what takes time to import comes after --help
    from evaluation import embedding_figure, result_record, results
    from training import dataset
    from training.families import OfficialModel, family_of
    from training.usual import unlike_training

    settings = load_config(args.config)
    systems = settings.select(args.system)
    if args.official_model:
        systems = [System("official", OfficialModel(args.official_model), settings.feature, settings.fit)]
    clips = dataset.test_clips(settings, args.split, systems, args.machine_type)
    if not args.machine_type:
        for system in systems:
            folder = settings.result_folder(args.training_data, system.name)
            result_record.require_only(folder, list(clips), settings.directory(args.split), settings.challenge)

    from training.run import Run, enough_memory, progress_bar  # TensorFlow: after all that can be wrong was checked

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
    results.report_all(run, systems, clips, args.split, scores_only=args.scores_only)


if __name__ == "__main__":
    common.run_main(main)
