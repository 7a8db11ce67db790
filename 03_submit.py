"""Build the challenge's submission package as a zip, or check one."""

import argparse
import logging
from pathlib import Path

import common
from years.year import DEFAULT, known_years, read_year

OTHER_CLIPS = (
    "If the package is for other clips, such as the demo's, name them: --truth eval_data_list.csv, or --truth eval_data"
)

logger = logging.getLogger("03_submit")


def argument_parser() -> argparse.ArgumentParser:
    """Parser of this script; it has no dev or eval, as only evaluation scores are submitted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s {common.__version__}")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument(
        "--authors", type=Path, metavar="YAML", help="build a package for these authors; copy examples/authors.yaml"
    )
    task.add_argument(
        "--check", type=Path, metavar="ZIP|DIR", help="check a zip, a task2 folder or a single submission folder"
    )
    parser.add_argument(
        "--config", type=Path, default=Path("baseline.yaml"), metavar="PATH", help="default: %(default)s"
    )
    parser.add_argument(
        "--year",
        type=int,
        choices=known_years(),
        metavar="YEAR",
        help="of a package to check; default: its files' names say it",
    )
    parser.add_argument("--report-pdf", type=Path, metavar="FILE", help="technical report to put into the package")
    parser.add_argument("--output", type=Path, metavar="ZIP", help="default: <label>_task2.zip")
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="CSV|DIR",
        help="the clips to expect: eval_data_list.csv, or a dataset folder (default: with --check the official "
        "evaluation clips, with --authors those in eval_directory)",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run with ``argv``, or the arguments of the command line."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    if args.year and not args.check:
        parser.error("--year goes with --check; a package that is built is of the YAML's year")
    if args.check and (args.report_pdf or args.output):
        parser.error("--report-pdf and --output go with --authors")

    from challenge import meta_file, package, submission

    if args.check:
        found = package.read_package(args.check)
        year = read_year(args.year) if args.year else package.year_of(found, DEFAULT)
        clips = package.clips_at(args.truth, "--truth", year) if args.truth else year.eval_clips()
        shown = f"{args.check}, checked for {args.truth or f'the official evaluation clips of {year.year}'}"
        package.check(found, clips, year, shown, "Mend the files, then check again." if args.truth else OTHER_CLIPS)
        logger.info("%s: no faults; %s", args.check, package.summary(found))
        return

    from config import load_config

    config = load_config(args.config)
    authors = meta_file.read_authors(args.authors)
    year, where = config.challenge, args.truth or config.eval_directory
    clips = package.clips_at(where, "--truth" if args.truth else "eval_directory", year)
    built = submission.build(config, authors, report=args.report_pdf, clips=clips)
    package.check(built, clips, year, "No package written", "Mend the authors file or the results, then run again.")
    submission.require_clips(config)
    output = args.output or Path(f"{authors.team}.zip")
    package.write_zip(output, built.files)
    logger.info("%s: written; %s", output, package.summary(built))


if __name__ == "__main__":
    common.run_main(main)
