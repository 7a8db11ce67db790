"""Time our functions and scripts against the official baseline's, on the same synthetic clips, in turns.

python benchmarks/benchmark.py                  against plain librosa and Keras, used as the official baseline does
python benchmarks/benchmark.py --official DIR   against the official baseline itself, unpacked in DIR
python benchmarks/benchmark.py --full           on 3,675 training clips as well; the official way needs 24 GB for it

Where PyTorch is installed, an epoch stands beside the same in plain PyTorch as well.

Each side runs in processes of its own and what is timed alternates between them; medians of the rounds count. A ratio
is the reference's figure over ours. It stands beside the one in recorded.yaml, and is marked where it fell.
"""

import argparse
import contextlib
import importlib.util
import itertools
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml
from sides import (
    EPOCHS,
    MACHINE,
    ROOT,
    SAMPLE_RATE,
    SECONDS,
    UNITS,
    Ours,
    PyTorch,
    Reference,
    epoch_operations,
    step_operations,
)

RECORDED = Path(__file__).with_name("recorded.yaml")
FALL = 0.85  # a ratio below this share of the recorded one is marked
FULL_CLIPS = 3675  # the largest training set of 10-s clips in the development dataset
FULL_MEMORY = 24e9  # [bytes] that the official way needs for them

# ---- synthetic dataset ----


def write_dataset(directory: Path, n_train: int, n_test: int) -> None:
    """Tones in noise, as training clips and as normal and anomalous test clips."""
    import soundfile

    seconds = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    names = [f"train/normal_id_00_{i:08d}.wav" for i in range(n_train)]
    names += [f"test/{'normal' if i % 2 else 'anomaly'}_id_00_{i:08d}.wav" for i in range(n_test)]
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        waveform = 0.03 * rng.standard_normal(len(seconds))
        for hz in rng.uniform(50, 4000, 3):
            waveform += 0.02 * np.sin(2 * np.pi * hz * seconds)
        path = directory / MACHINE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform, SAMPLE_RATE, "PCM_16")


def write_config(folder: Path, source: Path, dataset: Path, **changes: int) -> None:
    """The baseline.yaml of one side with the benchmark's folders and its number of epochs."""
    settings = yaml.safe_load(source.read_text(encoding="utf-8"))
    settings["fit"]["epochs"] = EPOCHS
    settings.update(dev_directory=str(dataset), model_directory="model", result_directory="result", **changes)
    folder.mkdir(exist_ok=True)
    (folder / "baseline.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8", newline="\n")


# ---- timing ----


def serve(connection, side: type, folder: Path, official: Path | None) -> None:
    """Answer calls of one side's methods, with what it prints kept in a file."""
    os.chdir(folder)
    with Path("output.log").open("a") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    timed = side(official)
    with contextlib.suppress(EOFError):  # the other end is closed: done
        while True:
            name, arguments = connection.recv()
            connection.send(getattr(timed, name)(*arguments))


@contextlib.contextmanager
def started(side: type, folder: Path, official: Path | None) -> Iterator[Callable[..., float]]:
    """Start a side's process; yields what calls a method there."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, side, folder, official), daemon=True)
    process.start()
    there.close()

    def call(name: str, *arguments) -> float:
        here.send((name, arguments))
        try:
            return here.recv()
        except EOFError:
            sys.exit(f"{side.__name__}.{name} failed:\n{(folder / 'output.log').read_text(encoding='utf-8')[-3000:]}")

    try:
        yield call
    finally:
        here.close()
        process.join()


def run_script(folder: Path, *command: object) -> tuple[float, float]:
    """Wall time [s] and peak memory [GB] of a command; NaN where the system does not tell the memory."""
    start = time.perf_counter()
    with (folder / "output.log").open("a") as output:
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=folder, stdout=output, stderr=output)
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
        else:
            process.wait()
            peak = float("nan")
    if process.returncode:
        sys.exit(f"{command} failed:\n{(folder / 'output.log').read_text(encoding='utf-8')[-3000:]}")
    return time.perf_counter() - start, peak


def forget(*folders: Path) -> None:
    """Delete what runs of the scripts have left."""
    for folder, name in itertools.product(folders, ("model", "result", "cache")):
        shutil.rmtree(folder / name, ignore_errors=True)


FIRST_STEP = """
import importlib, os, sys, time
sys.path.insert(0, sys.argv.pop(1))
def note(self, batch, logs=None):
    print(repr(time.time()), file=open("first_step.txt", "w"), flush=True)
    os._exit(0)
TrainingState.on_train_batch_end = note
importlib.import_module("00_train").main()
"""


def first_step(folder: Path, system: str) -> float:
    """Seconds from the command to the end of the first call of the training step, which takes several batches."""
    start = time.time()
    run_script(folder, "-c", FIRST_STEP, ROOT, "-d", "--system", system)
    return float((folder / "first_step.txt").read_text()) - start


# ---- the rows of the table ----


@dataclass
class Row:
    """One line of the table."""

    name: str
    unit: str
    ours: float
    reference: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better than the reference we are."""
        if self.reference is None:
            return None
        return self.ours / self.reference if self.unit == "GFLOPS" else self.reference / self.ours


def function_rows(folder: Path, paths: dict[str, list[str]], rounds: int, official: Path | None) -> Iterator[Row]:
    """Features, training and scoring by the functions."""
    n_train = len(paths["train"])
    with started(Reference, folder / "reference", official) as reference, started(Ours, folder / "ours", None) as ours:

        def medians(name: str, *arguments) -> tuple[float, float]:
            for side in (reference, ours) if name != "training" else ():
                side(name, paths["train"][:4], *arguments[1:])  # imports and compiles
            times = [(ours(name, *arguments), reference(name, *arguments)) for _ in range(rounds)]
            return tuple(map(statistics.median, zip(*times, strict=True)))

        mine, other = medians("features", paths["train"])
        yield Row("log-mel energies", "ms / clip", 1e3 * mine / n_train, 1e3 * other / n_train)
        for system in UNITS:
            mine, other = medians("training", paths["train"], system)
            yield Row(f"{system}, one epoch", "s", mine, other)
            if importlib.util.find_spec("torch"):
                yield pytorch_row(folder, ours, paths["train"], system, rounds)
            plain = step_operations(system) / statistics.median(ours("products", [], system) for _ in range(rounds))
            rate = epoch_operations(system, n_train) / mine
            yield Row(f"{system}, rate; reference: plain products", "GFLOPS", rate / 1e9, plain / 1e9)
        mine, other = medians("scoring", paths["test"])
        yield Row("scoring", "ms / clip", 1e3 * mine / len(paths["test"]), 1e3 * other / len(paths["test"]))


def pytorch_row(folder: Path, ours: Callable, paths: list[str], system: str, rounds: int) -> Row:
    """One epoch beside the same in plain PyTorch, in turns."""
    with started(PyTorch, folder / "reference", None) as torch:
        times = [(ours("training", paths, system), torch("training", paths, system)) for _ in range(rounds)]
    mine, other = map(statistics.median, zip(*times, strict=True))
    return Row(f"{system}, one epoch; reference: PyTorch", "s", mine, other)


def script_rows(folder: Path, dataset: Path, rounds: int, official: Path | None) -> Iterator[Row]:
    """Whole runs of the scripts with the official network, each from nothing."""
    measured: dict[str, list] = {}
    for _ in range(rounds):
        for side in ("reference", "ours") if official else ("ours",):
            place, root = folder / side, official if side == "reference" else ROOT
            options = ["-d"] if side == "reference" else ["-d", "--system", "baseline_ae"]
            forget(place)
            train, test = (run_script(place, root / script, *options) for script in ("00_train.py", "01_test.py"))
            measured.setdefault(side, []).append((*train, *test, train[0] + test[0]))
        write_config(folder / "ours", ROOT / "baseline.yaml", dataset, seed=1)  # another model, the same features
        measured.setdefault("again", []).append(run_script(folder / "ours", ROOT / "00_train.py", *options)[0])
        write_config(folder / "ours", ROOT / "baseline.yaml", dataset, seed=2)
        measured.setdefault("first", []).append([first_step(folder / "ours", system) for system in UNITS])
        write_config(folder / "ours", ROOT / "baseline.yaml", dataset)
    medians = {name: np.median(values, axis=0) for name, values in measured.items()}
    reference = medians.get("reference", [None] * 5)
    yield Row(f"00_train.py, {EPOCHS} epochs", "s", medians["ours"][0], reference[0])
    yield Row("the same, features cached", "s", float(medians["again"]), reference[0])
    yield Row("01_test.py", "s", medians["ours"][2], reference[2])
    yield Row("both scripts", "s", medians["ours"][4], reference[4])
    yield Row("peak memory of 00_train.py", "GB", medians["ours"][1], reference[1])
    yield Row("peak memory of 01_test.py", "GB", medians["ours"][3], reference[3])
    for system, seconds in zip(UNITS, medians["first"], strict=True):
        yield Row(f"command to first steps, {system}, cached", "s", seconds)


def full_rows(folder: Path, official: Path | None) -> Iterator[Row]:
    """One epoch, whole runs, peak memory and start on the largest training set."""
    dataset = folder / "full"
    write_dataset(dataset, FULL_CLIPS, 1000)
    sides = [("ours", Ours)]
    if hasattr(os, "sysconf") and os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > FULL_MEMORY:
        sides.append(("reference", Reference))
    for name, _ in sides:
        source = official if official and name == "reference" else ROOT
        write_config(folder / name, source / "baseline.yaml", dataset)
    paths = sorted(map(str, (dataset / MACHINE / "train").iterdir()))
    epochs = {}
    for name, side in sides:  # one after the other: both would not fit into the memory
        with started(side, folder / name, official if side is Reference else None) as call:
            epochs[name] = {system: call("training", paths, system) for system in UNITS}
    for system in UNITS:
        reference = epochs["reference"][system] if "reference" in epochs else None
        yield Row(f"{system}, {FULL_CLIPS} clips, one epoch", "s", epochs["ours"][system], reference)
        rate = epoch_operations(system, FULL_CLIPS) / epochs["ours"][system]
        yield Row(f"{system}, {FULL_CLIPS} clips, rate", "GFLOPS", rate / 1e9)
        yield from full_script_rows(folder, dataset, system, official if len(sides) > 1 else None)


def full_script_rows(folder: Path, dataset: Path, system: str, official: Path | None) -> Iterator[Row]:
    """The scripts with one network; the official ones have the official network alone."""
    forget(folder / "reference", folder / "ours")
    for script in ("00_train.py", "01_test.py"):
        reference = (None, None)
        if official and system == "baseline_ae":
            reference = run_script(folder / "reference", official / script, "-d")
        seconds, peak = run_script(folder / "ours", ROOT / script, "-d", "--system", system)
        title = f"{system}, {FULL_CLIPS} and 1000 clips"
        yield Row(f"{title}, {script}", "s", seconds, reference[0])
        yield Row(f"{title}, peak of {script}", "GB", peak, reference[1])
    write_config(folder / "ours", ROOT / "baseline.yaml", dataset, seed=1)
    yield Row(f"{system}, {FULL_CLIPS} clips, command to first steps, cached", "s", first_step(folder / "ours", system))
    write_config(folder / "ours", ROOT / "baseline.yaml", dataset)


# ---- the table ----


def machine() -> str:
    """What the figures were taken on, and what else it was doing."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    names = ("tensorflow", "keras", "numpy", "librosa", "scipy", "soundfile")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    tuned = [
        f"{k}={v}" for k, v in os.environ.items() if k.startswith(("OPENBLAS_", "OMP_", "MKL_", "XLA_", "TF_ENABLE"))
    ]
    return (
        f"{model}, {os.cpu_count()} cores{load}; {platform.system()}, Python {platform.python_version()}, {versions}"
        + (f"; {' '.join(tuned)}" if tuned else "")
    )


def print_row(row: Row, recorded: dict[str, float]) -> None:
    """One line: both figures, their ratio, the recorded ratio, a mark where it fell."""
    ratio, before = row.ratio, recorded.get(row.name)
    cells = ["" if value is None else f"{value:.3g}" for value in (row.reference, row.ours, ratio, before)]
    fell = "  FELL" if ratio and before and ratio < FALL * before else ""
    print(f"{row.name:62}{row.unit:>10}" + "".join(f"{cell:>11}" for cell in cells) + fell, flush=True)


def record(kind: str, rows: Sequence[Row]) -> None:
    """Keep the ratios as those to compare with, and what they were taken on."""
    recorded = yaml.safe_load(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    recorded[kind] = {
        "machine": machine(),
        "ratios": {row.name: round(float(row.ratio), 2) for row in rows if row.ratio is not None},
    }
    text = yaml.safe_dump(recorded, sort_keys=False, width=120)
    RECORDED.write_text(text, encoding="utf-8", newline="\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the clips, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, metavar="DIR", help="folder with the official baseline's files")
    parser.add_argument("--clips", type=int, default=200, help="training clips, and as many test clips (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side takes (%(default)s)")
    parser.add_argument("--full", action="store_true", help=f"{FULL_CLIPS} training clips as well")
    parser.add_argument("--record", action="store_true", help=f"write the ratios to {RECORDED.name}")
    args = parser.parse_args(argv)
    if args.clips < 8 or args.rounds < 1:
        parser.error("--clips must be at least 8, --rounds at least 1")
    official = args.official.resolve() if args.official else None
    if official and not (official / "00_train.py").is_file():
        parser.error(f"--official: no 00_train.py in {official}")
    kind = "official" if official else "plain"
    recorded = yaml.safe_load(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    recorded = recorded.get(kind, {}).get("ratios", {})
    print(f"{machine()}\n{args.clips} clips of {SECONDS} s, {args.rounds} rounds; reference: {official or kind}")
    print(f"{'':62}{'':>10}{'reference':>11}{'ours':>11}{'ratio':>11}{'recorded':>11}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset = folder / "data"
        write_dataset(dataset, args.clips, args.clips)
        write_config(folder / "ours", ROOT / "baseline.yaml", dataset)
        write_config(folder / "reference", (official or ROOT) / "baseline.yaml", dataset)
        paths = {name: sorted(map(str, (dataset / MACHINE / name).iterdir())) for name in ("train", "test")}
        parts = [
            function_rows(folder, paths, args.rounds, official),
            script_rows(folder, dataset, args.rounds, official),
        ]
        for row in itertools.chain(*parts, full_rows(folder, official) if args.full else ()):
            print_row(row, recorded)
            rows.append(row)
    print(machine())
    if args.record:
        record(kind, rows)


if __name__ == "__main__":
    main()
