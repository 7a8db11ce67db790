"""False alarms asked for and got, by system and number of training clips, with the recall beside it.

python benchmarks/thresholds.py                                       synthetic machines; a quarter of an hour
python benchmarks/thresholds.py valve_2023 features.npz --clips 10 25 real ones: folders as the dataset's, arrays

Of each source (a folder in the official layout, or one machine type's; an npz file as of real_features.py; synthetic
machines where none is named) so many training clips of each machine ID are drawn as ``--clips`` says. The systems are
those members of the YAML's fusion that stand on descriptors, and their fusion.
"""

import argparse
import collections
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import real_features
from real_features import ROOT, Features, Key, Scores

import common
import config
from audio import features
from audio.clips import check_clips
from config import Neighbors, System
from detectors import decision
from evaluation import metrics, tables

SAMPLE_RATE, SECONDS = 16000, 2.0
N_TEST = 100  # normal test clips of each synthetic machine ID, and half as many anomalies
FALSE_ALARMS, RECALL, AUC = range(3)


# ---- synthetic machines ----


def hum(rng: np.random.Generator, t: np.ndarray, number: int, anomaly: bool) -> np.ndarray:
    """A hum with a beat, and noise; the anomaly beats at another rate."""
    beat = (8 + number) * (1.5 if anomaly else 1)
    tone = np.sin(2 * np.pi * (120 + 30 * number) * t + rng.uniform(0, 6))
    return 0.1 * tone * (1 + 0.3 * np.sin(2 * np.pi * beat * t + rng.uniform(0, 6))) + noise(rng, t)


def tones(rng: np.random.Generator, t: np.ndarray, number: int, anomaly: bool) -> np.ndarray:
    """Harmonics of random strength; the anomaly has one more, between them."""
    base = (200 + 45 * number) * rng.uniform(0.99, 1.01)
    parts = [rng.uniform(0.3, 1) * np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6)) for k in (1, 2, 3, 5)]
    parts += [0.3 * np.sin(2 * np.pi * 2.5 * base * t)] if anomaly else []
    return 0.04 * sum(parts) + noise(rng, t)


def knocks(rng: np.random.Generator, t: np.ndarray, number: int, anomaly: bool) -> np.ndarray:
    """Decaying knocks at intervals; of the anomaly every third is missing."""
    starts = np.arange(rng.uniform(0, 0.2), SECONDS, 0.18 + 0.04 * number)
    starts = starts[np.arange(len(starts)) % 3 > 0] if anomaly else starts
    since = [np.maximum(t - start, 0) for start in starts + rng.normal(0, 0.004, len(starts))]
    knock = sum((s > 0) * np.exp(-40 * s) * np.sin(2 * np.pi * (900 + 150 * number) * s) for s in since)
    return 0.1 * knock + noise(rng, t)


def noise(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """White noise, whose level differs from clip to clip."""
    return 0.02 * rng.lognormal(0, 0.2) * rng.standard_normal(len(t))


MACHINES: Mapping[str, Callable] = {"hum": hum, "tones": tones, "knocks": knocks}


def write_machines(folder: Path, n_train: int) -> None:
    """Recordings of three machine types, two IDs each, in the official layout."""
    import soundfile

    rng, t = np.random.default_rng(0), np.arange(int(SAMPLE_RATE * SECONDS)) / SAMPLE_RATE
    parts = [("train", "normal", n_train), ("test", "normal", N_TEST), ("test", "anomaly", N_TEST // 2)]
    for machine_type, make in MACHINES.items():
        for part, label, n_clips in parts:
            (folder / machine_type / part).mkdir(parents=True, exist_ok=True)
            for number, clip in np.ndindex(2, n_clips):
                path = folder / machine_type / part / f"{label}_id_{number:02d}_{clip:08d}.wav"
                soundfile.write(path, make(rng, t, number, label == "anomaly"), SAMPLE_RATE)


# ---- sources ----


def read_folder(folder: Path, system: System) -> Features:
    """Descriptors of the clips of a dataset folder, or of one machine type's."""
    of_types = [folder] if (folder / "train").is_dir() else sorted(path.parent for path in folder.glob("*/train"))
    train, test, labels = {}, {}, {}
    for of_type in of_types:
        for part, normal_only, found in (("train", True, train), ("test", False, test)):
            clips = check_clips([(of_type.name, of_type / part)], min_samples=1, normal_only=normal_only)
            vectors = np.stack([*features.descriptors(clips, system.descriptor, system.feature, None)])
            ids = np.array([clip.machine_id for clip in clips])
            for machine_id in np.unique(ids):
                found[of_type.name, str(machine_id)] = vectors[ids == machine_id].astype(np.float32)
                if not normal_only:
                    of_id = [clip.label for clip in clips if clip.machine_id == machine_id]
                    labels[of_type.name, str(machine_id)] = np.array(of_id)
    widths = [sum(one.width for one in group.values()) for group in features.parts(system.descriptor, system.feature)]
    rows = features.band_rows(system.descriptor, system.feature)
    kept = test.keys() & train.keys()
    test, labels = ({key: one[key] for key in sorted(kept)} for one in (test, labels))
    return Features(train, test, labels, rows, tuple(widths))


def drawn(of_all: Features, n_clips: int, seed: int) -> Features:
    """So many training clips of each machine ID, or as many as there are."""
    rng = np.random.default_rng(seed)
    train = {key: rng.permutation(vectors)[:n_clips] for key, vectors in of_all.train.items()}
    return dataclasses.replace(of_all, train=train)


# ---- figures ----


def figures_of(of_draw: Features, settings: config.Config, seed: int) -> dict[str, dict[Key, tuple[float, ...]]]:
    """False alarms, recall and AUC [%] of each system and machine ID."""
    systems, weights = real_features.described(settings)
    scores: dict[str, Mapping[str, Scores]] = {}
    for number, system in enumerate(systems):
        if isinstance(system.model, Neighbors):
            scores[system.name] = real_features.neighbor_scores(of_draw, system)
        else:
            own_seed = real_features.SEEDS_APART * (len(systems) * seed + number)
            scores[system.name] = real_features.classifier_scores(of_draw, system, own_seed)
    scores[real_features.FUSION] = real_features.fused(scores, weights)
    found: dict[str, dict[Key, tuple[float, ...]]] = collections.defaultdict(dict)
    for name, of_types in scores.items():
        for machine_type, one in of_types.items():
            limits = decision.thresholds(
                one.train, one.train_ids, quantile=settings.decision_quantile, method=settings.decision
            )
            for machine_id in np.unique(one.test_ids).tolist():
                of_id, labels = one.test[one.test_ids == machine_id], of_draw.labels[machine_type, machine_id]
                anomalous = decision.is_anomalous(of_id, limits[machine_id])
                auc, _ = metrics.auc_pauc(labels, of_id, max_fpr=settings.max_fpr)
                shares = anomalous[labels == 0].mean(), anomalous[labels == 1].mean(), auc
                found[name][machine_type, machine_id] = tuple(100 * share for share in shares)
    return found


def rows_of(
    source: str, n_clips: int, draws: Sequence[Mapping[str, Mapping[Key, tuple[float, ...]]]]
) -> list[list[str]]:
    """Means over the machine IDs, after those over the draws; and the most false alarms of an ID."""
    rows = []
    for name in draws[0]:
        if draws[0][name]:
            of_ids = np.mean([[*of_draw[name].values()] for of_draw in draws], axis=0)
            mean, most = of_ids.mean(axis=0), of_ids[:, FALSE_ALARMS].max()
            shown = (mean[FALSE_ALARMS], most, mean[RECALL], mean[AUC])
            rows.append([source, str(n_clips), name, *(f"{figure:.1f}" for figure in shown)])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Draw, train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="*", metavar="SOURCE", help="folder or npz file")
    parser.add_argument("--clips", type=int, nargs="+", default=[10, 30, 100], metavar="N", help="of each machine ID")
    parser.add_argument("--draws", type=int, default=3, metavar="N", help="of the training clips")
    parser.add_argument("--config", type=Path, default=ROOT / "baseline.yaml", metavar="PATH")
    args = parser.parse_args(argv)
    settings = config.load_config(args.config)
    system = real_features.described(settings)[0][0]
    with tempfile.TemporaryDirectory() as folder:
        if not args.sources:
            write_machines(Path(folder), max(args.clips))
        header = ["source", "clips", "system", "false alarms [%]", "most of an ID", "recall", "AUC"]
        rows = []
        for source in args.sources or [Path(folder)]:
            whole = read_folder(source, system) if source.is_dir() else real_features.read_features([source])
            name = source.name if args.sources else "synthetic"
            for n_clips in args.clips:
                draws = [figures_of(drawn(whole, n_clips, seed), settings, seed) for seed in range(args.draws)]
                rows += rows_of(name, n_clips, draws)
                print(tables.as_text(tables.Table(header, rows)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except common.UserError as error:
        sys.exit(str(error))
