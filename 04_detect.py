"""Hear recordings and say of each whether it is normal or anomalous."""

import argparse
import contextlib
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import common
from deployment import alarm
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
  04_detect.py --watch recordings --machine-type fan --alarm 3/5
  arecord -f S16_LE -r 16000 -c 8 -t raw | 04_detect.py --watch - --raw 16000,8 --machine-type fan --machine-id id_02

exit code: 0 whatever the verdict (with --fail-on-anomaly 3 if there is an anomaly), 1 for an error"""
ANOMALY_EXIT_CODE = 3
WATCH_ENDINGS = (".csv", ".jsonl")  # what lines can be added to
ENDINGS = (*WATCH_ENDINGS, ".json")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s {common.__version__}")
    parser.add_argument(
        "recordings",
        nargs="*",
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
        "--keep-going",
        action="store_true",
        help="judge the recordings that can be judged, name the others at the end, and exit with 1 if there are any",
    )
    _add_watch(parser.add_argument_group("in place of recordings"))
    _add_output(parser.add_argument_group("output"))
    return parser


def _add_watch(group) -> None:
    """Options on what arrives."""
    group.add_argument(
        "--watch",
        metavar="FOLDER",
        help="judge the wav files of this folder that were not judged before, and each that arrives once it is whole, "
        "until Ctrl-C or SIGTERM; with -, the samples that come through standard input, window by window",
    )
    group.add_argument(
        "--raw",
        type=_raw,
        metavar="RATE,CHANNELS",
        help="with --watch -: samples without a wav header, of signed 16 bits (arecord -f S16_LE -t raw)",
    )


def _raw(text: str) -> tuple[int, int]:
    """``16000,8`` -> (16000, 8)."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and 0 < int(part) < 2**15 * 12 for part in parts):
        raise argparse.ArgumentTypeError(f"{text}: expected sample rate and number of channels, such as 16000,8")
    return int(parts[0]), int(parts[1])


def _add_output(group) -> None:
    """Options on what is done with the verdicts."""
    group.add_argument(
        "--output",
        type=common.user_path,
        metavar="FILE",
        help="write the verdicts to this file as well: x.csv, x.json, or x.jsonl with a JSON object in each line",
    )
    group.add_argument("--json", action="store_true", help="print JSON objects, one in each line, in place of a table")
    group.add_argument(
        "--plot",
        type=common.user_path,
        metavar="FILE.png",
        help="draw score and threshold over time, the log-mel energies, and where they are unlike the training clips; "
        "say which frequencies are most unusual",
    )
    group.add_argument(
        "--alarm",
        type=alarm.rule,
        metavar="N/M",
        help="tell when at least N of the last M windows of a machine are anomalous, such as 3/5, and when it is over",
    )
    group.add_argument(
        "--fail-on-anomaly",
        action="store_true",
        help=f"exit code {ANOMALY_EXIT_CODE} if a recording is anomalous; with --alarm, if there was an alarm",
    )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace."""
    known = parser()
    args = known.parse_args(with_paths(argv))
    if bool(args.recordings) == bool(args.watch):
        known.error("name recordings, or --watch FOLDER")
    if args.raw and args.watch != "-":
        known.error("--raw goes with --watch -")
    if args.watch and (args.plot or args.keep_going):
        known.error("--plot and --keep-going go with recordings; a watch goes on in any case")
    endings = WATCH_ENDINGS if args.watch else ENDINGS
    if args.output and args.output.suffix not in endings:
        known.error(f"--output {args.output}: expected a name that ends in {' or '.join(endings)}")
    if args.plot and args.plot.suffix != ".png":
        known.error(f"--plot {args.plot}: expected a name that ends in .png")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then judge; the verdicts go to standard output."""
    args = parse_arguments(argv)
    from config import load_config  # what takes time to import comes after --help
    from deployment import detection

    settings = dataclasses.replace(load_config(args.config), cache_directory=None)  # nothing is heard twice
    system, *others = settings.select([args.system] if args.system else None)
    if others:
        raise common.UserError(f"--system: name one of {', '.join(one.name for one in (system, *others))}")
    trained = detection.trained_clips(settings, args.training_data, system, args.machine_type)
    check = functools.partial(
        detection.check_recording,
        machine_type=args.machine_type,
        trained=trained,
        min_samples=system.min_samples,
        channel=settings.channel,
    )
    work = watch if args.watch else judge_recordings
    with tempfile.TemporaryDirectory() as folder:
        is_anomaly = work(args, settings, system, trained, check, Path(folder))
    if args.fail_on_anomaly and is_anomaly:
        sys.exit(ANOMALY_EXIT_CODE)


@contextlib.contextmanager
def loaded(args: argparse.Namespace, settings, system, total: int = 0) -> Iterator[tuple]:
    """The judge, and a progress bar of ``total`` windows, closed before anything is printed."""
    from deployment.detection import Judge
    from training.run import Run, progress_bar  # TensorFlow: after all that can be wrong was checked

    with progress_bar(total, settings.fit.verbose if total else 0) as bar:
        yield Judge(Run(settings, args.training_data, bar), system, args.machine_type, args.machine_id), bar


def judge_recordings(args: argparse.Namespace, settings, system, trained, check, folder: Path) -> bool:
    """Judge the recordings that are named; True where one is anomalous, with ``--alarm`` where there was an alarm."""
    from deployment import detection, report

    names = detection.recordings(args.recordings, sys.stdin.buffer, folder)
    if args.plot and len(names) > 1:
        raise common.UserError(f"--plot draws one recording; there are {len(names)}")
    clips, errors = detection.check_recordings(names, check)
    detection.go_on(errors, clips, keep_going=args.keep_going)
    windows = [window for clip in clips for window in detection.windows(clip, trained.n_samples)]
    with loaded(args, settings, system, len(windows)) as (judge, bar):
        windows, unusable = judge.usable(windows, names)
        errors += unusable
        detection.go_on(errors, windows, keep_going=args.keep_going)
        verdicts = judge.verdicts(windows, names)
        bar.close()
        heard = alarm.Alarm(args.alarm) if args.alarm else None
        rows = report.rows(verdicts, heard)
        print(report.json_lines(rows) if args.json else report.table(rows), end="" if args.json else "\n")
        if args.output:
            report.write(args.output, rows)
        if args.plot:
            from deployment import picture, unusual

            found = unusual.deviations(judge.run, system, windows, verdicts)
            print(unusual.words(verdicts, found), file=sys.stderr if args.json else sys.stdout)
            picture.plot(args.plot, verdicts, windows, system.feature, found)
    detection.go_on(errors, [], keep_going=False)
    return heard.occurred if heard else any(verdict.verdict == "anomaly" for verdict in verdicts)


def watch(args: argparse.Namespace, settings, system, trained, check, folder: Path) -> bool:
    """Judge what arrives until asked to stop, or the stream ends; True as of :func:`judge_recordings`."""
    from deployment import watch

    heard = alarm.Alarm(args.alarm) if args.alarm else None
    is_stream, place = args.watch == "-", common.user_path(args.watch)
    if not is_stream and not place.is_dir():
        raise common.UserError(f"--watch {args.watch}: no such folder (looked for {place.resolve()})")
    output = args.output or (None if is_stream else place / f"verdicts_{args.machine_type}_{system.name}.csv")
    telling = None
    with watch.until_asked_to_stop():
        log = watch.VerdictLog(output, watch.columns(heard)) if output else None
        if is_stream:
            stream = watch.open_stream(sys.stdin.buffer, args.raw, trained, settings.channel)
        with loaded(args, settings, system) as (judge, _):
            telling = watch.Telling(log, heard, as_json=args.json)
            if is_stream:
                watch.watch_stream(*stream, check, judge, telling, folder)
            else:
                watch.watch_folder(watch.Arrivals(place, check, telling.known), judge, telling, trained.n_samples)
    return heard.occurred if heard else bool(telling and telling.any_anomaly)


if __name__ == "__main__":
    common.run_main(main)
