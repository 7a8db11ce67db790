"""Train the systems of the YAML: one autoencoder per machine type, or one classifier over all of them.

python 00_train.py -d                            train on dev_data/<machine type>/train
python 00_train.py -e                            train on eval_data/<machine type>/train
python 00_train.py -e --training-data dev+eval   train on both
"""

import logging
from collections.abc import Sequence

import common

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then train; models go to <model_directory>/<training data>/<system>/."""
    args = common.parse_arguments(common.argument_parser(__doc__), argv)
    from config import load_config  # what takes time to import comes after --help
    from training import dataset
    from training.families import family_of

    settings = load_config(args.config)
    systems = settings.select(args.system)
    clips = dataset.train_clips(settings, args.training_data, systems, args.machine_type)
    total = dataset.work(settings, systems, clips)

    from training.run import Run, enough_memory, progress_bar  # TensorFlow: after all that can be wrong was checked

    with progress_bar(total, settings.fit.verbose) as bar:
        run = Run(settings, args.training_data, bar)
        run.require_writable(systems, models=True)
        for system in systems:
            with enough_memory(system):
                family_of(system).train(run, system, clips)
    for system in systems:
        logger.info("%s: models in %s", system.name, run.model_folder(system))


if __name__ == "__main__":
    common.run_main(main)
