"""Fetch the official recordings from zenodo.org, check them, and unpack them into the folders that the YAML names.

What is there and whole is not fetched again, and a transfer that broke off goes on where it stopped: after any
mishap, give the same command again. Which archives there are stands in ``years/<year>.yaml``.
"""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import common
from years.year import known_years

EXAMPLES = """examples:
  python download_data.py --dev                        the development dataset
  python download_data.py --eval                       additional training clips, evaluation clips, ground truth
  python download_data.py --dev --machine-type fan     one machine type
  python download_data.py --dev --year 2023            the development dataset of another year
  python download_data.py --dev --from ~/Downloads     archives that were fetched by hand
"""
BASE_URL = "https://zenodo.org"

logger = logging.getLogger("download_data")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-v", "--version", action="version", version=f"%(prog)s {common.__version__}")
    split = parser.add_mutually_exclusive_group(required=True)
    split.add_argument("-d", "--dev", dest="split", action="store_const", const="dev", help="development dataset")
    eval_help = (
        "additional training clips, evaluation clips, and for 2020 their ground truth, eval_data_list.csv, beside them"
    )
    split.add_argument("-e", "--eval", dest="split", action="store_const", const="eval", help=eval_help)
    add("--machine-type", action="append", metavar="NAME", help="only this one; may be repeated (default: all)")
    year_help = "of the challenge: %(choices)s (default: the YAML's); it goes into the YAML's folders"
    add("--year", type=int, choices=known_years(), metavar="N", help=year_help)
    add("--config", type=Path, default=Path("baseline.yaml"), metavar="PATH", help="default: %(default)s")
    add("--keep-archives", action="store_true", help="keep the archives in the dataset's folder when unpacked")
    source = parser.add_mutually_exclusive_group()
    url_help = (
        "a mirror, with files at URL/records/<record>/files/<name>, and what their MD5 are, unless known, at "
        "URL/api/records/<record> (default: %(default)s); proxies are taken from HTTP_PROXY and HTTPS_PROXY"
    )
    source.add_argument("--base-url", default=BASE_URL, metavar="URL", help=url_help)
    from_help = "unpack archives from this folder, where they stay"
    source.add_argument("--from", dest="source", type=Path, metavar="DIR", help=from_help)
    args = parser.parse_args(argv)
    if not re.match(r"https?://[^/]", args.base_url):
        parser.error(f"--base-url {args.base_url}: expected an address that begins with http:// or https://")
    if args.source and not args.source.is_dir():
        parser.error(f"--from {args.source}: no such folder")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch and unpack what the YAML's folder for the dataset lacks."""
    args = parse_arguments(argv)

    import config
    from challenge import download
    from challenge.archives import read_archives
    from challenge.server import Server

    settings = config.load_config(args.config)
    directory, year = settings.directory(args.split), args.year or settings.year
    archives = read_archives(year, args.split, args.machine_type)
    with download.alone(directory):
        wanted = download.lacking(archives, directory)
        for archive in archives:
            if archive not in wanted:  # unpacked, and the run killed before it could remove the archive
                archive.part(directory).unlink(missing_ok=True)
        download.install_all(wanted, directory, Server(args.base_url), source=args.source, kept=args.keep_archives)
    logger.info(
        "%s: all %d clips are there; %d of %d files unpacked now",
        directory,
        download.count_clips(archives, directory),
        len(wanted),
        len(archives),
    )
    if year != settings.year:
        logger.info("For the other scripts, set `year: %d` in %s.", year, args.config)


if __name__ == "__main__":
    common.run_main(main)
