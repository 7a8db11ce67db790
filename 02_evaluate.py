"""AUC and pAUC of score files: evaluated, compared, ranked, drawn."""

import argparse
from pathlib import Path

import common
from storage.files import expanded
from years.year import known_years

DEFAULT_CONFIG = Path("baseline.yaml")
OFFICIAL_RESULT_FILE, OFFICIAL_MAX_FPR = "result.csv", 0.1  # where there is no YAML

DESCRIPTION = """Evaluate folders of score files (anomaly_score_<machine type>_id_<NN>.csv).

AUC and pAUC of every machine ID are printed and written as result.csv into each folder; where 01_test.py has decided,
so are precision, recall, F1 and false alarms, as decision_result.csv. CSVs that are not of one run and of the present
models are named, and nothing is evaluated. A folder that holds folders of score files stands for all of them, so that
`02_evaluate.py result/dev` evaluates every system."""

EXAMPLES = """examples:
  02_evaluate.py result/dev --rank --report report.html
  02_evaluate.py result/dev/tuned_ae --against result/dev/baseline_ae
  02_evaluate.py result/eval result/dev+eval --truth eval_data_list.csv
"""


def parse_arguments(argv):
    """Command line -> namespace."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s {common.__version__}")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder with score files; may be a pattern with *")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        help="YAML whose result_file, max_fpr and order of systems count; default: baseline.yaml, if there is one",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="PATH",
        help="the labels: the official eval_data_list.csv, or the folder of an official evaluator with "
        "ground_truth_data in it, or a dataset folder (dev_data) with labelled clip names; "
        "default: the names in the score files, which cannot tell that a clip is missing",
    )
    parser.add_argument(
        "--year",
        type=int,
        metavar="YEAR",
        help="of the challenge, that the score files are of; default: what made them, or the files' names, say it",
    )
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="result.csv goes to this file; with several DIR, into this folder"
    )
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare every DIR with this folder of score files")
    parser.add_argument("--rank", action="store_true", help="rank the DIRs as the challenge does")
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="write a report with figures, and the figures beside it"
    )
    parser.add_argument(
        "--max-fpr", type=float, metavar="RATE", help="of the pAUC; default: the YAML's, or the challenge's 0.1"
    )
    args = parser.parse_args(argv)
    if args.year is not None and args.year not in known_years():
        parser.error(f"--year {args.year}: there is {', '.join(map(str, known_years()))}")
    if args.max_fpr is not None and not 0 < args.max_fpr <= 1:
        parser.error(f"--max-fpr {args.max_fpr}: expected a rate above 0 and at most 1")
    found = {text: [path for path in expanded(text) if path.is_dir()] for text in args.folders}
    args.folders = [folder for text in args.folders for folder in found[text] or [Path(text)]]
    if args.config is None and DEFAULT_CONFIG.is_file():
        args.config = DEFAULT_CONFIG
    return args


def main(argv=None):
    """Evaluate the folders that the command line names."""
    args = parse_arguments(argv)
    from config import load_config
    from evaluation import comparison, folders, ranking, tables

    config = load_config(args.config) if args.config else None
    max_fpr = args.max_fpr or (config.max_fpr if config else OFFICIAL_MAX_FPR)
    results, reference = folders.read_results(
        args.folders, args.against, args.truth, max_fpr=max_fpr, config=config, wanted_year=args.year
    )
    ranked = ranking.rank_results(results) if args.rank else []
    others = [result for result in results if reference and result is not reference]
    comparisons = [comparison.compare(result, reference, max_fpr=max_fpr) for result in others]
    file_name = config.result_file if config else OFFICIAL_RESULT_FILE
    written = folders.write_results(results, args.output, file_name=file_name, max_fpr=max_fpr)
    for result, paths in zip(results, written, strict=True):
        print(f"\n{tables.result_text(result, max_fpr=max_fpr)}")
        if paths:
            print(f"written to {', '.join(map(str, paths))}")
    print(tables.systems_text(results, max_fpr=max_fpr), end="")
    for entry in comparisons:
        print(f"\n{tables.comparison_text(entry)}")
    if ranked:
        print(f"\n{tables.as_text(tables.ranking_table(ranked))}")
    if args.report:
        from evaluation import html_report

        html_report.write_report(args.report, results, comparisons, ranked, max_fpr=max_fpr)
        print(f"\nreport: {args.report}, its figures: {html_report.figure_folder(args.report)}")


if __name__ == "__main__":
    common.run_main(main)
