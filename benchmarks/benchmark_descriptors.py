"""Time the descriptors beside log-mel energies, and a whole run of the systems that stand on them.

python benchmarks/benchmark_descriptors.py                a clip of 10 s on one core, each way in turn
python benchmarks/benchmark_descriptors.py --clips 2000   the whole job as well, on that many synthetic clips:
                                                          descriptors, training and scoring, beside one epoch of the
                                                          official network
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import threadpoolctl
import yaml
from benchmark import machine, run_script, started
from sides import ROOT, SAMPLE_RATE, SECONDS, Reference

sys.path.insert(0, str(ROOT))

import config
import make_demo_data
from audio import features
from challenge.demo_machines import MACHINES

MEMBERS = ("neighbors", "dense_l2_softmax")  # of the fusion that is timed: the systems on descriptors
N_IDS = 2 * len(MACHINES)  # of the demo's development set
TEST_CLIPS = 20  # normal ones of a machine ID, and as many anomalous ones

# ---- one clip ----


def ways(settings: config.Config) -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """What is computed of a clip, by name; log-mel energies of the general ``feature`` block first."""
    system = settings.systems[MEMBERS[0]]
    found = {"log-mel energies": features.log_mel(settings.feature).compute}
    for group in features.parts(system.descriptor, system.feature):
        found |= {name: quantity.compute for name, quantity in group.items()}
    return found


def clip_times(rounds: int) -> dict[str, float]:
    """Median processor time of each way [s], in turns."""
    waveform = 0.1 * np.random.default_rng(0).standard_normal(SECONDS * SAMPLE_RATE).astype(np.float32)
    computes = ways(config.load_config(ROOT / "baseline.yaml"))
    times: dict[str, list[float]] = {name: [] for name in computes}
    with threadpoolctl.threadpool_limits(1):
        for _ in range(rounds + 1):  # the first, which sets up, does not count
            for name, compute in computes.items():
                start = time.thread_time()  # what else the machine does hardly counts
                compute(waveform, SAMPLE_RATE)
                times[name].append(time.thread_time() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def print_clip_times(times: dict[str, float]) -> None:
    """A line each: milliseconds, and how many times log-mel energies take as long."""
    unit, *parts = times.values()
    for name, seconds in [*times.items(), ("descriptors together", sum(parts))]:
        print(f"{name:40}{1e3 * seconds:10.2f} ms / clip{seconds / unit:10.2f}")


# ---- the whole job ----


def job_times(folder: Path, n_clips: int) -> Iterator[tuple[str, float, int]]:
    """What is done, its seconds, and on how many clips."""
    per_id = max(1, n_clips // N_IDS)
    dataset = folder / "data"
    options = make_demo_data.Options(seed=0, clips=per_id, test_clips=TEST_CLIPS, seconds=None, all_machine_ids=False)
    make_demo_data.write_dataset(dataset, options)
    settings = yaml.safe_load((ROOT / "baseline.yaml").read_text(encoding="utf-8"))
    settings["dev_directory"] = str(dataset / "dev_data")
    settings["systems"]["fusion"]["model"]["members"] = dict.fromkeys(MEMBERS, 1)
    (folder / "baseline.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8", newline="\n")
    n_train, n_test = per_id * N_IDS, 2 * TEST_CLIPS * N_IDS
    for system, title in zip(MEMBERS, ("descriptors, no network", "dense classifier, descriptors cached"), strict=True):
        yield f"00_train.py, {title}", run_script(folder, ROOT / "00_train.py", "-d", "--system", system)[0], n_train
    yield "01_test.py, fusion of both", run_script(folder, ROOT / "01_test.py", "-d", "--system", "fusion")[0], n_test
    paths = sorted(map(str, (dataset / "dev_data").glob("*/train/*.wav")))
    ten = [path for path in paths if "ToyCar" not in path]  # those of one length, as the reference needs it
    with started(Reference, folder, None) as reference:
        yield "one epoch of the official network, by Keras", reference("training", ten, "baseline_ae"), len(ten)


def main(argv: list[str] | None = None) -> None:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=0, help="training clips of the whole job; 0: none (%(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="turns that each way takes (%(default)s)")
    args = parser.parse_args(argv)
    print(machine())
    print_clip_times(clip_times(args.rounds))
    if args.clips:
        with tempfile.TemporaryDirectory() as temporary:
            for title, seconds, n_clips in job_times(Path(temporary), args.clips):
                print(f"{title:44}{seconds:8.1f} s, {n_clips} clips{1e3 * seconds / n_clips:10.1f} s / 1,000 clips")
    print(machine())


if __name__ == "__main__":
    main()
