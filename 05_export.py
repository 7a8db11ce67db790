"""Export trained systems to other runtimes, with all that a caller needs in a JSON."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import common
import config
from audio.clips import Clip, by_machine_type, check_clips, clip_folders, select_machine_types, wav_paths
from deployment import runtimes
from training.families import family_of

DESCRIPTION = """Write the networks of a trained system in the format of another runtime, and for each machine type a
JSON with all that a caller needs beside: features, windows, detector, thresholds. The clips of the test folder (where
there are none, the training clips) are scored again with the written file; one that scores them otherwise is refused:
float32 by more than 0.001 of a score or of the threshold, 8-bit integers where the AUC falls by more than 0.02.

Files go to <output>/<training data>/<format>/, those of --int8 to <output>/<training data>/litert_int8/."""

EXAMPLES = """examples:
  05_export.py --system tuned_ae --format onnx
  05_export.py --system baseline_ae --format litert --int8 --machine-type fan

examples/score_onnx.py scores recordings with what the first one writes."""

logger = logging.getLogger(__name__)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s {common.__version__}")
    parser.add_argument("--system", required=True, metavar="NAME", help="system of the YAML; of a fusion, its members")
    parser.add_argument("--format", required=True, choices=list(runtimes.FORMATS))
    parser.add_argument(
        "--int8", action="store_true", help="with litert: integers of 8 bits throughout, for microcontrollers"
    )
    parser.add_argument(
        "--machine-type", action="append", metavar="NAME", help="only this machine type; may be repeated (default: all)"
    )
    parser.add_argument(
        "--config", type=Path, default=Path("baseline.yaml"), metavar="PATH", help="default: %(default)s"
    )
    parser.add_argument(
        "--training-data",
        choices=common.TRAINING_DATA,
        default="dev",
        help="what the system was trained on; default: %(default)s",
    )
    parser.add_argument("--output", type=Path, default=Path("export"), metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.int8 and args.format != "litert":
        parser.error("--int8 goes with --format litert")
    return args


def clips_of(
    settings: config.Config, split: str, machine_types: Sequence[str], folder: str, system: config.System
) -> dict[str, list[Clip]]:
    """Machine type -> its clips in ``train`` or ``test``, every one of them checked."""
    clips = check_clips(
        [(machine_type, settings.directory(split) / machine_type / folder) for machine_type in machine_types],
        min_samples=system.min_samples,
        normal_only=folder == "train",
        names=settings.names,
        channel=settings.channel,
        cache_directory=settings.cache_directory,
    )
    return by_machine_type(clips)


def has_test_clips(settings: config.Config, split: str, machine_type: str) -> bool:
    """True where there are test clips of a machine type."""
    folder = settings.directory(split) / machine_type / "test"
    sources = clip_folders(machine_type, folder, names=settings.names, normal_only=False)
    return any(wav_paths(source.path) for source in sources)


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then export."""
    args = parse_arguments(argv)
    runtimes.require_packages(args.format)
    settings = config.load_config(args.config)
    (system,) = settings.select([args.system])
    split = "dev" if args.training_data == "dev" else "eval"
    key = f"{split}_directory"
    types = select_machine_types(settings.directory(split), key, args.machine_type)
    untested = [name for name in types if not has_test_clips(settings, split, name)]
    if untested:
        logger.info("no test clips of %s: training clips are scored again", ", ".join(untested))
    tested = [name for name in types if name not in untested]
    calibration = clips_of(settings, split, types, "train", system) if args.int8 else None
    clips = {
        **(clips_of(settings, split, tested, "test", system) if tested else {}),
        **(clips_of(settings, split, untested, "train", system) if untested else {}),
    }
    folder = args.output / args.training_data / (args.format + ("_int8" if args.int8 else ""))

    from training.run import (  # TensorFlow takes seconds to import: after all that can be wrong has been checked
        Run,
        progress_bar,
    )

    with progress_bar(2 * sum(map(len, clips.values())), settings.fit.verbose) as bar:
        run = Run(settings, args.training_data, bar)
        family_of(system).require(run, system, clips)
        from deployment import export

        lines = list(export.export(run, system, folder, args.format, clips, calibration))
    print("\n".join([f"files in {folder}:", *lines]))


if __name__ == "__main__":
    common.run_main(main)
