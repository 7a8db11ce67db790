"""Hear recordings and say of each whether it is normal or anomalous."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import common
from deployment import arguments
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
  arecord -f S16_LE -r 16000 -c 8 -t raw | 04_detect.py --watch - --raw 16000,8 --channels all --machine-type fan

exit code: 0 whatever the verdict (with --fail-on-anomaly 3 if there is an anomaly), 1 for an error"""
ANOMALY_EXIT_CODE = 3
WATCH_ENDINGS = (".csv", ".jsonl")  # what lines can be added to


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.plain_parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    what = "wav file, folder of wav files, pattern with *, or - for standard input"
    add("recordings", nargs="*", metavar="RECORDING", help=what)
    add("--machine-type", required=True, metavar="NAME", help="of the machine in the recordings")
    which = "machine in the recordings, such as id_02; default: what their names say, or the only one of the training"
    add("--machine-id", type=arguments.machine_ids, default=(), metavar="ID", help=which)
    each = "judge each of these channels, such as 0,3,5, or all of them, as a recording of its own, with an alarm of "
    each += "its own; --machine-id id_00,id_02,id_04 then names the machine of each; default: the YAML's channel"
    add("--channels", type=arguments.channels, metavar="LIST", help=each)
    add("--system", metavar="NAME", help="system of the YAML that judges; default: the YAML's system")
    trained = "what the system was trained on; default: %(default)s"
    add("--training-data", choices=common.TRAINING_DATA, default="dev", help=trained)
    on = "judge the recordings that can be judged, name the others at the end, and exit with 1 if there are any"
    add("--keep-going", action="store_true", help=on)
    _add_watch(parser.add_argument_group("in place of recordings").add_argument)
    _add_output(parser.add_argument_group("output").add_argument)
    return parser


def _add_watch(add) -> None:
    """Options on what arrives."""
    watch = "judge the wav files of this folder that were not judged before, and each that arrives once it is whole, "
    watch += "until Ctrl-C or SIGTERM; with -, the samples that come through standard input, window by window"
    add("--watch", type=common.user_path, metavar="FOLDER", help=watch)
    raw = "with --watch -: samples without a wav header, of signed 16 bits (arecord -f S16_LE -t raw)"
    add("--raw", type=arguments.raw, metavar="RATE,CHANNELS", help=raw)


def _add_output(add) -> None:
    """Options on what is done with the verdicts."""
    output = "write the verdicts to this file as well: x.csv, x.json, or x.jsonl with a JSON object in each line"
    add("--output", type=common.user_path, metavar="FILE", help=output)
    add("--json", action="store_true", help="print JSON objects, one in each line, in place of a table")
    plot = "draw score and threshold over time, the log-mel energies, and where they are unlike the training clips; "
    plot += "say which frequencies are most unusual"
    add("--plot", type=common.user_path, metavar="FILE.png", help=plot)
    rule = "tell when at least N of the last M windows of a machine are anomalous, such as 3/5, and when it is over"
    add("--alarm", type=arguments.rule, metavar="N/M", help=rule)
    code = f"exit code {ANOMALY_EXIT_CODE} if a recording is anomalous; with --alarm, if there was an alarm"
    add("--fail-on-anomaly", action="store_true", help=code)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace."""
    known = parser()
    args = known.parse_args(with_paths(argv))
    if bool(args.recordings) == bool(args.watch):
        known.error("name recordings, or --watch FOLDER")
    if args.raw and args.watch != Path("-"):
        known.error("--raw goes with --watch -")
    if args.watch and (args.plot or args.keep_going):
        known.error("--plot and --keep-going go with recordings; a watch goes on in any case")
    if len(args.machine_id) > 1 and len(args.machine_id) != len(args.channels or ()):
        known.error("several --machine-id go with as many --channels, such as --channels 0,3,5")
    endings = WATCH_ENDINGS if args.watch else (*WATCH_ENDINGS, ".json")
    if args.output and args.output.suffix not in endings:
        known.error(f"--output {args.output}: expected a name that ends in {' or '.join(endings)}")
    if args.plot and args.plot.suffix != ".png":
        known.error(f"--plot {args.plot}: expected a name that ends in .png")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then judge; the verdicts go to standard output."""
    args = parse_arguments(argv)
    from config import load_config  # what takes time to import comes after --help
    from deployment import recordings, watch
    from deployment.detection import Session
    from deployment.report import Telling

    heard = {"machine_type": args.machine_type, "channels": args.channels, "machine_ids": args.machine_id}
    session = Session.of(load_config(args.config), args.training_data, args.system, **heard)
    telling = Telling(args.alarm, as_json=args.json)
    how = {"output": args.output, "telling": telling}
    if args.watch:
        watch.judge(session, args.watch, raw=args.raw, **how)
    else:
        recordings.judge(session, args.recordings, keep_going=args.keep_going, plot=args.plot, **how)
    if args.fail_on_anomaly and telling.occurred:
        sys.exit(ANOMALY_EXIT_CODE)


if __name__ == "__main__":
    common.run_main(main)
