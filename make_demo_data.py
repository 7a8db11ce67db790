"""Write a synthetic dataset in the official layout, so that everything can be tried without the real recordings.

The sounds are computed, not recorded (``challenge/demo_machines.py``). Figures on them say that the scripts work, and
nothing about how good a system is on real machines.
"""

import argparse
import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml
from tqdm import tqdm

import common
from challenge.demo_machines import MACHINES, SAMPLE_RATE, factory_noise
from storage.files import write_text, write_whole

NOISE_RMS = 0.01  # of the factory noise, full scale 1; all other levels are rms relative to it
CLIP_SPREAD_DB = 0.7  # standard deviation of the level from clip to clip [dB], of machine and noise each
MARKER = "demo_data.txt"  # says that a folder is ours, and with which options it was written
EVAL_LIST = "eval_data_list.csv"
CONFIG = Path(__file__).with_name("baseline.yaml")
SHORT_FIT = {"epochs": 5, "batch_size": 128}  # of the autoencoders: minutes on two cores
SHORT_CLASSIFIER_FITS = {  # by type; the dataset is small, so that an epoch has few steps
    "l2_softmax": {"epochs": 10, "batch_size": 16},
    "dense_l2_softmax": {"epochs": 25, "batch_size": 32},
}
SMALL_MODELS = {  # by type
    "l2_softmax": {"input_size": 96, "n_neighbors": 4},
    "dense_l2_softmax": {"networks": 1, "min_steps": 300, "folds": 2},
    "conv_ae": {"filters": [8, 16, 32, 64, 128], "hop": 32},
}
DEFAULT_IDS = {"dev": 2, "eval": 1}  # machine IDs per type; the official numbers are 3 or 4 and 3

logger = logging.getLogger(__name__)

# ---- clips ----


@dataclass(frozen=True)
class DemoClip:
    """One clip to write: ``number`` counts the clips of a machine ID that have the same folder and label."""

    machine_type: str
    machine_id: int
    folder: str  # train | test
    label: int  # 0 normal, 1 anomaly
    number: int

    @property
    def name(self) -> str:
        """File name with the label, as the clip has it in the development set and the ground truth."""
        return f"{('normal', 'anomaly')[self.label]}_id_{self.machine_id:02}_{self.number:08}.wav"

    @property
    def key(self) -> tuple[int, ...]:
        """What sets its random numbers apart from all others; the first two say the machine."""
        machine_type = list(MACHINES).index(self.machine_type)
        return machine_type, self.machine_id, int(self.folder == "test"), self.label, self.number


def random(seed: int, key: tuple[int, ...]) -> np.random.Generator:
    """Random numbers of one thing alone, so that neither order nor number of the others matter."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def specimen(clip: DemoClip, seed: int) -> SimpleNamespace:
    """The machine that a clip is of: its ID's own draw from the type's table."""
    rng = random(seed, clip.key[:2])
    drawn = {
        name: int(rng.integers(low, high + 1)) if isinstance(low, int) else rng.uniform(low, high)
        for name, (low, high) in MACHINES[clip.machine_type].specimen.items()
    }
    return SimpleNamespace(**drawn)


def synthesise(clip: DemoClip, *, seconds: float, seed: int) -> np.ndarray:
    """Waveform of a clip, shape (n_samples,), from a seed of its own: the order of writing is irrelevant."""
    machine = MACHINES[clip.machine_type]
    rng = random(seed, clip.key)
    m = specimen(clip, seed)
    bad = dict.fromkeys(machine.faults, 0.0)
    if clip.label:  # kinds in turn; severities spread evenly whatever their number (golden ratio)
        bad[machine.faults[clip.number % len(bad)]] = m.severity * (0.1 + 0.9 * ((clip.number + 1) * 0.618034 % 1))
    n = round(seconds * SAMPLE_RATE)
    machine_gain, noise_gain = 10 ** (CLIP_SPREAD_DB * rng.standard_normal(2) / 20)
    sound = machine_gain * machine.sound(m, bad, n, rng) + noise_gain * factory_noise(n, rng)
    return np.clip(NOISE_RMS * sound, -1, 1)


# ---- the dataset ----


@dataclass(frozen=True)
class Options:
    """What the content of a demo dataset depends on."""

    seed: int
    clips: int  # training clips per machine ID
    test_clips: int  # normal test clips per machine ID, and as many anomalous ones
    seconds: float | None  # of every clip [s]; None for the official lengths
    all_machine_ids: bool  # all official ones, or DEFAULT_IDS per machine type


def layout(options: Options) -> tuple[list[tuple[str, DemoClip]], str]:
    """Paths below the dataset's folder with the clips they hold, and the text of the evaluation ground truth."""
    files, truth = [], []
    for machine_type, machine in MACHINES.items():
        truth.append(machine_type)
        for split, ids in (("dev", machine.dev_ids), ("eval", machine.eval_ids)):
            for machine_id in ids if options.all_machine_ids else ids[: DEFAULT_IDS[split]]:
                new = functools.partial(DemoClip, machine_type, machine_id)
                train = [new("train", 0, number) for number in range(options.clips)]
                test = [new("test", label, number) for label in (0, 1) for number in range(options.test_clips)]
                names = [clip.name for clip in test]
                if split == "eval":  # names that do not tell the label, in an order that does not either
                    rng = random(options.seed, (*train[0].key[:2], 2))
                    test = [test[index] for index in rng.permutation(len(test))]
                    names = [f"id_{machine_id:02}_{number:08}.wav" for number in range(len(test))]
                    truth += [f"{name},{clip.name},{clip.label}" for name, clip in zip(names, test, strict=True)]
                folder = f"{split}_data/{machine_type}"
                files += [(f"{folder}/train/{clip.name}", clip) for clip in train]
                files += [(f"{folder}/test/{name}", clip) for name, clip in zip(names, test, strict=True)]
    return files, "\n".join(truth) + "\n"


def write_dataset(directory: Path, options: Options) -> int:
    """Write what is missing of a demo dataset in ``directory``, and say how many clips that was.

    Raises
    ------
    UserError : if ``directory`` holds another dataset, or a demo dataset with other options, or cannot be written.
    """
    files, truth = layout(options)
    soundfile = common.soundfile_library()
    try:
        claim(directory, options)
        missing = [(path, clip) for path, clip in files if not (directory / path).is_file()]
        if missing or not (directory / EVAL_LIST).is_file():
            write_text(directory / EVAL_LIST, truth)
        for path, clip in tqdm(missing, unit="clip", disable=not missing):
            seconds = options.seconds or MACHINES[clip.machine_type].seconds
            waveform = synthesise(clip, seconds=seconds, seed=options.seed)
            with write_whole(directory / path) as beside:
                soundfile.write(beside, waveform, SAMPLE_RATE, subtype="PCM_16")
    except (OSError, soundfile.SoundFileError) as error:
        raise common.UserError(
            f"{directory.resolve()}: cannot be written ({error})\n"
            "Make room or name another folder with --directory; the same command goes on where this one stopped."
        ) from error
    return len(missing)


def claim(directory: Path, options: Options) -> None:
    """Mark ``directory`` as demo data with these options, unless something else is in it."""
    lines = ["Synthetic demo data, written by make_demo_data.py: computed sounds, not recordings of machines."]
    lines += [f"version: {common.__version__}", *(f"{name}: {value}" for name, value in asdict(options).items())]
    marker, text = directory / MARKER, "\n".join(lines) + "\n"
    if not marker.is_file():
        others = [name for name in ("dev_data", "eval_data", EVAL_LIST) if (directory / name).exists()]
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


def write_config(directory: Path) -> Path:
    """Write ``baseline.yaml`` with the demo's folders, every system, and a schedule of minutes into ``directory``."""
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    for key, folder in (("dev", "dev_data"), ("eval", "eval_data"), ("model",) * 2, ("result",) * 2, ("cache",) * 2):
        settings[f"{key}_directory"] = (directory / folder).as_posix()
    settings["system"] = list(settings["systems"])
    settings["fit"] |= SHORT_FIT
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
    add("--directory", type=Path, default=Path("demo"), metavar="PATH", help="default: %(default)s")
    add("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    add("--clips", type=int, default=24, metavar="N", help="train clips per machine ID (default: %(default)s)")
    help_text = "normal test clips per machine ID, and as many anomalous ones (default: %(default)s)"
    add("--test-clips", type=int, default=16, metavar="N", help=help_text)
    add("--seconds", type=float, metavar="S", help="length of the clips (default: ToyCar 11, others 10)")
    add("--all-machine-ids", action="store_true", help="all official machine IDs (default: two dev, one eval per type)")
    args = parser.parse_args(argv)
    for name, low in {"seed": 0, "clips": 1, "test_clips": 1, "seconds": 0.5}.items():
        value = getattr(args, name)
        if value is not None and not low <= value < math.inf:
            parser.error(f"--{name.replace('_', '-')} {value}: expected at least {low}")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Write the demo dataset that the command line asks for."""
    args = vars(parse_arguments(argv))
    directory = args.pop("directory")
    options = Options(**args)
    n_clips, n_written = len(layout(options)[0]), write_dataset(directory, options)
    config = write_config(directory)
    done = f"{n_written} of {n_clips} clips written" if n_written else f"all {n_clips} clips are there; nothing to do"
    logger.info("%s: %s (synthetic demo data); settings for it: --config %s", directory, done, config)


if __name__ == "__main__":
    common.run_main(main)
