"""Write a synthetic dataset in the official layout, so that everything can be tried without the real recordings.

The sounds are computed, not recorded (``challenge/demo_clips.py``). Figures on them say that the scripts work, and
nothing about how good a system is on real machines.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

import yaml
from tqdm import tqdm

import common
from challenge.demo_clips import DEFAULT_TYPES, Options, layout, synthesise
from challenge.demo_machines import SAMPLE_RATE, machine_of
from storage.files import write_text, write_whole
from years.year import DEFAULT, known_years, read_year

MARKER = "demo_data.txt"  # says that a folder is ours, and with which options it was written
CONFIG = Path(__file__).with_name("baseline.yaml")
SHORT_FIT = {"epochs": 5, "batch_size": 128}  # of the autoencoders: minutes on two cores
SHORT_CLASSIFIER_FITS = {  # by type; the dataset is small, so that an epoch has few steps
    "l2_softmax": {"epochs": 8, "batch_size": 16},
    "dense_l2_softmax": {"epochs": 25, "batch_size": 32},
    "spectral_l2_softmax": {"epochs": 8, "batch_size": 32},
}
SMALL_MODELS = {  # by type
    "l2_softmax": {"input_size": 96, "n_neighbors": 4},
    "dense_l2_softmax": {"networks": 1, "min_steps": 150, "folds": 2},
    "spectral_l2_softmax": {"min_steps": 0},
    "conv_ae": {"filters": [8, 16, 32, 64, 128], "hop": 32},
}
QUICK = ("baseline_ae", "neighbors", "dense_l2_softmax")  # systems of years that may have one section per type
QUICK_FIT = SHORT_FIT | {"epochs": 10}  # a type of one section has half as many clips

logger = logging.getLogger(__name__)

# ---- the dataset ----


def write_dataset(directory: Path, options: Options) -> int:
    """Write what is missing of a demo dataset in ``directory``, and say how many clips that was.

    Raises
    ------
    UserError : if ``directory`` holds another dataset, or a demo dataset with other options, or cannot be written.
    """
    files, texts = layout(options)
    channel = read_year(options.year).channel
    soundfile = common.soundfile_library()
    try:
        claim(directory, options, sorted({path.partition("/")[0] for path in (*dict(files), *texts)}))
        missing = [(path, clip) for path, clip in files if not (directory / path).is_file()]
        for path, text in texts.items():
            if missing or not (directory / path).is_file():
                write_text(directory / path, text)
        for path, clip in tqdm(missing, unit="clip", disable=not missing):
            seconds = options.seconds or machine_of(clip.machine_type).seconds
            waveform = synthesise(clip, seconds=seconds, seed=options.seed, channel=channel)
            with write_whole(directory / path) as beside:
                soundfile.write(beside, waveform, SAMPLE_RATE, subtype="PCM_16")
    except (OSError, soundfile.SoundFileError) as error:
        raise common.UserError(
            f"{directory.resolve()}: cannot be written ({error})\n"
            "Make room or name another folder with --directory; the same command goes on where this one stopped."
        ) from error
    return len(missing)


def claim(directory: Path, options: Options, names: Sequence[str]) -> None:
    """Mark ``directory`` as demo data with these options, unless something else is in it under our ``names``."""
    # What is new to the options stands in front, and only where it is used: older folders are known again.
    in_order = sorted(fields(options), key=lambda field: field.default is MISSING)
    said = [(field.name, getattr(options, field.name)) for field in in_order]
    lines = ["Synthetic demo data, written by make_demo_data.py: computed sounds, not recordings of machines."]
    lines += [f"version: {common.__version__}"]
    lines += [f"{name}: {value}" for name, value in said if value != getattr(Options, name, MISSING)]
    marker, text = directory / MARKER, "\n".join(lines) + "\n"
    if not marker.is_file():
        others = [name for name in names if (directory / name).exists()]
        if others:
            raise common.UserError(
                f"{directory.resolve()} already holds {', '.join(others)}, and no {MARKER} says that it is demo data.\n"
                "Nothing was written. Name another folder with --directory."
            )
        write_text(marker, text)
    elif not (written := marker.read_text(encoding="utf-8")).startswith(text):
        raise common.UserError(
            f"{directory.resolve()} holds demo data with other options; they are in {marker}:\n{written}"
            "Give the same options, or remove the folder, or name another one with --directory."
        )


def write_config(directory: Path, year: int = DEFAULT) -> Path:
    """Write ``baseline.yaml`` with the demo's folders, its systems, and a schedule of minutes into ``directory``."""
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    settings["year"] = year
    for key, folder in (("dev", "dev_data"), ("eval", "eval_data"), ("model",) * 2, ("result",) * 2, ("cache",) * 2):
        settings[f"{key}_directory"] = (directory / folder).as_posix()
    if read_year(year).domains:
        settings["system"] = [*QUICK, "fusion"]
        settings["systems"]["fusion"]["model"]["members"] = dict.fromkeys(QUICK, 1)
        settings["submissions"] = {1: {"system": "fusion", "training_data": "eval"}}
        settings["fit"] |= QUICK_FIT
    else:
        settings["system"] = list(settings["systems"])
        settings["fit"] |= SHORT_FIT
        settings["spectra"] |= {"duration": 2.5, "windows": [0.064]}  # [s] an eighth of the time
    for system in settings["systems"].values():
        model = system["model"]
        model |= SMALL_MODELS.get(model["type"], {})
        if model["type"] in SHORT_CLASSIFIER_FITS:
            system["fit"] |= SHORT_CLASSIFIER_FITS[model["type"]]
    text = "# baseline.yaml with the folders of the synthetic demo data and a short schedule (make_demo_data.py)\n"
    path = directory / CONFIG.name
    write_text(path, text + yaml.safe_dump(settings, sort_keys=False))
    return path


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace."""
    parser = argparse.ArgumentParser(
        description="Write a synthetic dataset in the official layout. A dataset that is there is kept; an interrupted "
        "one is completed."
    )
    add = parser.add_argument
    years = known_years()
    help_text = "of the challenge, whose layout it has: %(choices)s (default: %(default)s)"
    add("--year", type=int, choices=years, default=DEFAULT, metavar="YEAR", help=help_text)
    add("--directory", type=Path, metavar="PATH", help=f"default: demo, or demo_YEAR for other years than {DEFAULT}")
    add("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    help_text = "train clips per machine ID or section, and an eighth more of its target domain (default: %(default)s)"
    add("--clips", type=int, default=24, metavar="N", help=help_text)
    help_text = (
        "normal test clips per machine ID, or section and domain, and as many anomalous ones (default: %(default)s)"
    )
    add("--test-clips", type=int, default=16, metavar="N", help=help_text)
    add("--seconds", type=float, metavar="S", help="length of the clips (default: ToyCar 11, others 10)")
    add("--all-machine-ids", action="store_true", help="all official machine IDs (default: two dev, one eval per type)")
    help_text = (
        f"all official machine types, of a year with domains (default: {DEFAULT_TYPES} dev, {DEFAULT_TYPES} eval)"
    )
    add("--all-machine-types", action="store_true", help=help_text)
    help_text = "machine type whose names hide the attributes, of a year that has any; may be repeated"
    add("--hide-attributes", action="append", default=[], metavar="TYPE", help=help_text)
    args = parser.parse_args(argv)
    for name, low in {"seed": 0, "clips": 1, "test_clips": 1, "seconds": 0.5}.items():
        value = getattr(args, name)
        if value is not None and not low <= value < math.inf:
            parser.error(f"--{name.replace('_', '-')} {value}: expected at least {low}")
    args.hide_attributes = tuple(args.hide_attributes)
    args.directory = args.directory or Path("demo" if args.year == DEFAULT else f"demo_{args.year}")
    return args


def check_hidden(options: Options) -> None:
    """Raise a UserError if a machine type that is to hide its attributes is not written, or has none."""
    types = {clip.machine_type for _, clip in layout(options)[0] if clip.domain is not None}
    unknown = [name for name in options.hide_attributes if name not in types]
    if unknown:
        raise common.UserError(
            f"--hide-attributes {' '.join(unknown)}: machine types with attributes are, by the other options, "
            f"{', '.join(sorted(types)) or 'none'}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the demo dataset that the command line asks for."""
    args = vars(parse_arguments(argv))
    directory = args.pop("directory")
    options = Options(**args)
    check_hidden(options)
    n_clips, n_written = len(layout(options)[0]), write_dataset(directory, options)
    config = write_config(directory, options.year)
    done = f"{n_written} of {n_clips} clips written" if n_written else f"all {n_clips} clips are there; nothing to do"
    logger.info("%s: %s (synthetic demo data); settings for it: --config %s", directory, done, config)


if __name__ == "__main__":
    common.run_main(main)
