"""Export trained systems to other runtimes, with all that a caller needs in a JSON."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import common
from deployment import runtimes

DESCRIPTION = """Write the networks of a trained system in the format of another runtime, and for each machine type a
JSON with all that a score takes beside: features, windows, detector, thresholds. The clips of the test folder (where
there are none, the training clips) are scored again from the written files alone; what scores otherwise is refused:
float32 by more than 0.001 of the scores' spread, 8-bit integers where the AUC falls by more than 0.02, ranks correlate
at less than 0.95 or more than a tenth of the verdicts change. Integers have detectors and thresholds of their own. Two
of the clips are written as test vectors, with all that lies between sound and score.

Files go to <output>/<training data>/<format>/, those of --int8 to <output>/<training data>/litert_int8/."""

EXAMPLES = """examples:
  05_export.py --system tuned_ae --format onnx
  05_export.py --system baseline_ae --format litert --int8 --machine-type fan

examples/score_onnx.py scores recordings with what the first one writes; examples/frontend.py and frontend.c compare
what they hear with its test vectors."""

logger = logging.getLogger(__name__)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace."""
    parser = common.plain_parser(DESCRIPTION, EXAMPLES)
    parser.add_argument("--system", required=True, metavar="NAME", help="system of the YAML; of a fusion, its members")
    parser.add_argument("--format", required=True, choices=list(runtimes.FORMATS))
    parser.add_argument(
        "--int8", action="store_true", help="with litert: integers of 8 bits throughout, for microcontrollers"
    )
    parser.add_argument(
        "--machine-type", action="append", metavar="NAME", help="only this machine type; may be repeated (default: all)"
    )
    parser.add_argument(
        "--training-data",
        choices=common.TRAINING_DATA,
        default="dev",
        help="what the system was trained on; default: %(default)s",
    )
    parser.add_argument(
        "--output", type=common.user_path, default=Path("export"), metavar="DIR", help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    if args.int8 and args.format != "litert":
        parser.error("--int8 goes with --format litert")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then export."""
    args = parse_arguments(argv)
    runtimes.require_packages(args.format)
    from audio.clips import test_clip_paths, test_folders  # what takes time to import comes after --help
    from config import load_config
    from training import dataset
    from training.families import family_of

    settings = load_config(args.config)
    (system,) = settings.select([args.system])
    year, types = settings.challenge, dataset.machine_types(settings, args.training_data.split("+"), args.machine_type)
    places = {name: settings.directory(split) for split, names in types.items() for name in names}  # the last one
    tested = {n: test_clip_paths(place, n, names=settings.names, year=year) for n, place in places.items()}
    if untested := [name for name in places if not tested[name]]:
        logger.info("no test clips of %s: training clips are scored again", ", ".join(untested))
    clips = {}
    if len(untested) < len(places):
        folders = [(n, path) for n in places if tested[n] for path in test_folders(places[n], n, year)]
        clips |= dataset.checked_clips(settings, folders, [system], normal_only=False)
    if untested:
        folders = [(name, places[name] / name / "train") for name in untested]
        clips |= dataset.checked_clips(settings, folders, [system], normal_only=True)
    train_clips = None
    if args.int8:
        folders = dataset.train_folders(settings, types)
        train_clips = dataset.checked_clips(settings, folders, [system], normal_only=True)
    folder = args.output / args.training_data / (args.format + ("_int8" if args.int8 else ""))

    from training.run import Run, progress_bar  # TensorFlow: after all that can be wrong was checked

    passes = 3 if system.members else 2  # a fusion's members are scored once more for it
    n_heard = passes * sum(map(len, clips.values())) + sum(map(len, (train_clips or {}).values()))
    with progress_bar(n_heard * (len(system.members) or 1), settings.fit.verbose) as bar:
        run = Run(settings, args.training_data, bar)
        family_of(system).require(run, system, clips)
        from deployment.export import Export

        export = Export(run, folder, args.format, train_clips)
        lines = [export.of_type(system, machine_type, own) for machine_type, own in clips.items()]
    print("\n".join([f"files in {folder}:", *lines]))


if __name__ == "__main__":
    common.run_main(main)
