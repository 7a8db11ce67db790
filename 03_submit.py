"""Build the challenge's submission package as a zip, or check one."""

import argparse
import logging
from pathlib import Path

import common

logger = logging.getLogger("03_submit")


def argument_parser() -> argparse.ArgumentParser:
    """Parser of this script; it has no dev or eval, as only evaluation scores are submitted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s {common.__version__}")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument(
        "--authors", type=Path, metavar="YAML", help="build a package for these authors; copy authors_example.yaml"
    )
    task.add_argument(
        "--check", type=Path, metavar="ZIP|DIR", help="check a zip, a task2 folder or a single submission folder"
    )
    parser.add_argument(
        "--config", type=Path, default=Path("baseline.yaml"), metavar="PATH", help="default: %(default)s"
    )
    parser.add_argument("--report-pdf", type=Path, metavar="FILE", help="technical report to put into the package")
    parser.add_argument("--output", type=Path, metavar="ZIP", help="default: <label>_task2.zip")
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="CSV",
        help="eval_data_list.csv with the clips to expect (default: with --check the official evaluation clips, with "
        "--authors those in eval_directory)",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run with ``argv``, or the arguments of the command line."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    if args.check and (args.report_pdf or args.output):
        parser.error("--report-pdf and --output go with --authors")

    import meta_file
    import submission

    if args.check:
        clips = submission.clips_of_truth(args.truth) if args.truth else submission.official_clips()
        package = submission.read_package(args.check)
        submission.check(package, clips, f"{args.check}, checked for {args.truth or 'the official evaluation clips'}")
        logger.info("%s: no faults; %s", args.check, submission.summary(package))
        return

    from config import load_config

    config = load_config(args.config)
    authors = meta_file.read_authors(args.authors)
    clips = submission.clips_of_truth(args.truth) if args.truth else submission.clips_of_folder(config.eval_directory)
    package = submission.build(config, authors, report=args.report_pdf, clips=clips)
    submission.check(package, clips, "No package written")
    output = args.output or Path(f"{authors.team}.zip")
    submission.write_zip(output, package.files)
    logger.info("%s: written; %s", output, submission.summary(package))


if __name__ == "__main__":
    common.run_main(main)
