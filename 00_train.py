"""Train the systems of the YAML: one autoencoder per machine type, or one classifier over all of them.

python 00_train.py -d                            train on dev_data/<machine type>/train
python 00_train.py -e                            train on eval_data/<machine type>/train
python 00_train.py -e --training-data dev+eval   train on both; the same with -d
python 00_train.py -d --check                    say what is in the folders, and what is wrong with it
"""

import logging
from collections.abc import Sequence

import common

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then train; models go to <model_directory>/<training data>/<system>/."""
    parser = common.argument_parser(__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help="check all that training and scoring take, without either: exit code 0 or 1",
    )
    args = common.parse_arguments(parser, argv)
    from config import load_config  # what takes time to import comes after --help
    from training import dataset
    from training.families import family_of

    settings = load_config(args.config)
    systems = settings.select(args.system)
    if args.check:
        from training.survey import survey

        for line in survey(settings, args.training_data, args.split, systems, args.machine_type):
            print(line)
        return
    clips = dataset.train_clips(settings, args.training_data, systems, args.machine_type)
    total = dataset.work(settings, systems, clips)

    from training.run import Run, enough_memory, progress_bar  # TensorFlow: after all that can be wrong was checked

    with progress_bar(total, settings.fit.verbose) as bar:
        run = Run(settings, args.training_data, bar, args.split)
        run.require_writable(systems, models=True)
        for system in systems:
            with enough_memory(system):
                family_of(system).train(run, system, clips)
    for system in systems:
        logger.info("%s: models in %s", system.name, run.model_folder(system))


if __name__ == "__main__":
    common.run_main(main)
