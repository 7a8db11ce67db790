"""Hear recordings and say of each whether it is normal or anomalous."""

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import common
from storage.files import with_paths

DESCRIPTION = """Say of each recording whether the machine sounds normal, by a system that 00_train.py has trained.

A score above the threshold is an anomaly; the threshold is the decision_quantile of the scores of the machine's
training clips (the YAML's decision keys), and the percentile says how many of these scores are not above the
recording's. A recording longer than the training clips is judged window by window."""

EXAMPLES = """examples:
  04_detect.py recording.wav --machine-type fan
  04_detect.py recordings --machine-type fan --machine-id id_02 --output verdicts.csv
  04_detect.py an_hour.wav --machine-type fan --machine-id id_02 --plot an_hour.png
  ffmpeg -i video.mp4 -ac 1 -ar 16000 -f wav - | 04_detect.py - --machine-type fan --machine-id id_02

exit code: 0 whatever the verdict (with --fail-on-anomaly 3 if there is an anomaly), 1 for an error"""
ANOMALY_EXIT_CODE = 3
ENDINGS = (".csv", ".json")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s {common.__version__}")
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="RECORDING",
        help="wav file, folder of wav files, pattern with *, or - for standard input",
    )
    parser.add_argument("--machine-type", required=True, metavar="NAME", help="of the machine in the recordings")
    parser.add_argument(
        "--machine-id",
        metavar="ID",
        help="machine in the recordings, such as id_02; default: what their names say, or the only one of the training",
    )
    parser.add_argument(
        "--config", type=common.user_path, default=Path("baseline.yaml"), metavar="PATH", help="default: %(default)s"
    )
    parser.add_argument("--system", metavar="NAME", help="system of the YAML that judges; default: the YAML's system")
    parser.add_argument(
        "--training-data",
        choices=common.TRAINING_DATA,
        default="dev",
        help="what the system was trained on; default: %(default)s",
    )
    parser.add_argument(
        "--output",
        type=common.user_path,
        metavar="FILE",
        help="write the verdicts to this file as well: x.csv or x.json",
    )
    parser.add_argument(
        "--plot",
        type=common.user_path,
        metavar="FILE.png",
        help="draw score and threshold over time, the log-mel energies, and where they are unlike the training clips; "
        "say which frequencies are most unusual",
    )
    parser.add_argument(
        "--fail-on-anomaly", action="store_true", help=f"exit code {ANOMALY_EXIT_CODE} if a recording is anomalous"
    )
    args = parser.parse_args(with_paths(argv))
    if args.output and args.output.suffix not in ENDINGS:
        parser.error(f"--output {args.output}: expected a name that ends in {' or '.join(ENDINGS)}")
    if args.plot and args.plot.suffix != ".png":
        parser.error(f"--plot {args.plot}: expected a name that ends in .png")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then judge; the verdicts go to standard output."""
    args = parse_arguments(argv)
    from config import load_config  # what takes time to import comes after --help
    from deployment import detection
    from training.usual import require_alike

    settings = dataclasses.replace(load_config(args.config), cache_directory=None)  # nothing is heard twice
    system, *others = settings.select([args.system] if args.system else None)
    if others:
        raise common.UserError(f"--system: name one of {', '.join(one.name for one in (system, *others))}")
    trained = detection.trained_clips(settings, args.training_data, system, args.machine_type)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = detection.recordings(args.recordings, sys.stdin.buffer, folder)
        if args.plot and len(names) > 1:
            raise common.UserError(f"--plot draws one recording; there are {len(names)}")
        clips = detection.check_recordings(
            names, args.machine_type, trained, min_samples=system.min_samples, channel=settings.channel
        )
        windows = [window for clip in clips for window in detection.windows(clip, trained.n_samples)]

        from training.run import Run, progress_bar  # TensorFlow: after all that can be wrong was checked

        bar = stack.enter_context(progress_bar(len(windows), settings.fit.verbose))
        run = Run(settings, args.training_data, bar)
        require_alike(run, system, windows, names)
        verdicts = detection.judge(run, system, windows, args.machine_id, names)
        bar.close()
        print(detection.table(verdicts))
        if args.output:
            detection.write(args.output, verdicts)
        if args.plot:
            from deployment import picture, unusual

            found = unusual.deviations(run, system, windows, verdicts)
            print(unusual.words(verdicts, found))
            picture.plot(args.plot, verdicts, windows, system.feature, found)
    if args.fail_on_anomaly and any(verdict.verdict == "anomaly" for verdict in verdicts):
        sys.exit(ANOMALY_EXIT_CODE)


if __name__ == "__main__":
    common.run_main(main)
