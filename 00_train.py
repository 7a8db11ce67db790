"""Train the systems of the YAML: one autoencoder per machine type, or one classifier over all of them.

python 00_train.py -d                            train on dev_data/<machine type>/train
python 00_train.py -e                            train on eval_data/<machine type>/train
python 00_train.py -e --training-data dev+eval   train on both
"""

import contextlib
import itertools
import logging
from collections.abc import Sequence

import common
import config
from audio import likeness
from audio.clips import Clip, by_machine_type, check_clips, select_machine_types
from training.families import family_of
from training.workload import workload

logger = logging.getLogger(__name__)


def train_folders(settings: config.Config, training_data: str, wanted: Sequence[str] | None) -> list[tuple]:
    """(machine type, folder) of every training folder of the run; a machine type has two for dev+eval."""
    types = {
        split: select_machine_types(settings.directory(split), f"{split}_directory", wanted)
        for split in training_data.split("+")
    }
    everywhere = set.intersection(*map(set, types.values()))
    alone = [
        f"{name}: only in {settings.directory(split)}"
        for split in types
        for name in types[split]
        if name not in everywhere
    ]
    if alone:
        advice = "Training on dev+eval needs both; name the types that have both with --machine-type."
        raise common.fault_list("Machine types that one dataset lacks", alone, advice)
    return [(name, settings.directory(split) / name / "train") for split in types for name in types[split]]


def work(settings: config.Config, systems: Sequence[config.System], clips: dict[str, list[Clip]]) -> int:
    """Progress steps that training takes.

    Raises
    ------
    UserError : if a system cannot be trained on these clips, naming those of the YAML that can.
    """
    try:
        return sum(workload(system, clips) for system in systems)
    except common.UserError as error:
        able = []
        for system in settings.systems.values():
            with contextlib.suppress(common.UserError):
                workload(system, clips)
                able.append(system.name)
        advice = f"\nOn these clips, --system {', '.join(able)} can be trained." if able else ""
        raise common.UserError(f"{error}{advice}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then train; models go to <model_directory>/<training data>/<system>/."""
    args = common.parse_arguments(common.argument_parser(__doc__), argv)
    settings = config.load_config(args.config)
    systems = settings.select(args.system)
    clips = by_machine_type(
        check_clips(
            train_folders(settings, args.training_data, args.machine_type),
            min_samples=max(system.min_samples for system in systems),
            normal_only=True,
            names=settings.names,
            channel=settings.channel,
            cache_directory=settings.cache_directory,
        )
    )
    for machine_type, train_clips in clips.items():
        logger.info("%s: %d training clips", machine_type, len(train_clips))
        odd = likeness.misfits(train_clips, likeness.summary(train_clips), "training clips")
        for line in [*odd, *likeness.uncut(train_clips)]:
            logger.warning("%s: %s", machine_type, line)
    for line in likeness.copies([*itertools.chain(*clips.values())], "training clips"):
        logger.warning("%s", line)

    total = work(settings, systems, clips)

    from training.run import (  # TensorFlow takes seconds to import: after all that can be wrong has been checked
        Run,
        enough_memory,
        progress_bar,
    )

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
