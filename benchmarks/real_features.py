"""AUC and pAUC of the systems on descriptors, on descriptors of real clips that are there as files.

python benchmarks/real_features.py FILE.npz...            three seeds, their mean; a few minutes on two cores
python benchmarks/real_features.py FILE.npz... --seeds 1

Taken are the arrays of all files: ``train_<machine type>_<id>``, (n_clips, n_bands, ...) or (n_clips, n_numbers);
``test_<machine type>_<id>`` of the same, ``labels_<machine type>_<id>``, 0 (normal) or 1 (anomaly) for each test clip.
IDs without test clips are for training alone. The systems are those members of the YAML's fusion that stand on
descriptors, with its keys, and their fusion with its weights. Where the clips have no bands, none are exchanged or
shifted.
"""

import argparse
import dataclasses
import math
import re
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sides import ROOT

sys.path.insert(0, str(ROOT))

import config
from common import UserError, fault_list
from config import DenseL2Softmax, Neighbors, System
from detectors.memory import Memory
from detectors.standardised import standardised_by_id
from evaluation import metrics
from evaluation.tables import Table, as_text
from training import workload

ARRAY = re.compile(r"(train|test|labels)_(.+)_(id_\d+)")
SYSTEMS = (Neighbors, DenseL2Softmax)
FUSION = "fusion"
FOLD_SEED = 100  # of the networks that are trained without a fold; more than there are machine types
SEEDS_APART = 1000  # more than there are networks of one system: no two start from the same weights

Key = tuple[str, str]  # machine type, machine ID


@dataclass(frozen=True)
class Features:
    """Descriptors of real clips."""

    train: Mapping[Key, np.ndarray]  # (n_clips, n_numbers), float32
    test: Mapping[Key, np.ndarray]
    labels: Mapping[Key, np.ndarray]  # (n_clips,), 0 or 1
    rows: Sequence[np.ndarray]  # indices of the numbers that tell one thing of all bands; () where there are no bands
    widths: tuple[int, ...] = ()  # numbers of each part that has a detector of its own without a network; (): all one

    @property
    def tested(self) -> list[str]:
        """Machine types with test clips."""
        return sorted({machine_type for machine_type, _ in self.test})


# ---- files ----


def read_features(paths: Sequence[Path]) -> Features:
    """Arrays of all files together.

    Raises
    ------
    UserError : naming the file and the array that cannot be used, and what was expected.
    """
    arrays: dict[tuple[str, str, str], np.ndarray] = {}
    for path in paths:
        for name, array in read_arrays(path).items():
            kind = ARRAY.fullmatch(name).groups()
            if kind in arrays and not np.array_equal(arrays[kind], array):
                raise UserError(f"{path}: {name}: another file has other values under this name; name one of the two")
            arrays[kind] = array
    train, test, labels = (
        {key[1:]: array for key, array in arrays.items() if key[0] == kind} for kind in ("train", "test", "labels")
    )
    check(train, test, labels)
    shape = next(iter(train.values())).shape[1:]
    rows = np.arange(math.prod(shape)).reshape(shape[0], -1).T if len(shape) > 1 else ()
    flat = [{key: part.reshape(len(part), -1).astype(np.float32) for key, part in one.items()} for one in (train, test)]
    return Features(*flat, {key: part.astype(int) for key, part in labels.items()}, rows)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Those arrays of a file whose names say what they are."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # np.load takes other kinds of files as well
                raise ValueError("it is no zip archive")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if ARRAY.fullmatch(name)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not an npz file that can be read: {error}") from error
    if not arrays:
        raise UserError(
            f"{path}: no array is called train_<machine type>_<id>, test_<machine type>_<id> or "
            "labels_<machine type>_<id>, as in train_fan_id_00"
        )
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise UserError(f"{path}: {name}: expected finite numbers")
        if array.size == 0 or (array.ndim > 1) == name.startswith("labels_"):
            expected = "(n_clips,)" if name.startswith("labels_") else "(n_clips, n_bands, ...) or (n_clips, n_numbers)"
            raise UserError(f"{path}: {name}: shape {array.shape}; expected {expected}, with clips in it")
    return arrays


def check(train: Mapping[Key, np.ndarray], test: Mapping[Key, np.ndarray], labels: Mapping[Key, np.ndarray]) -> None:
    """Raise UserError unless there is something to score, and each array has what belongs to it."""
    faults = [f"test_{'_'.join(key)}: no train_{'_'.join(key)}" for key in test if key not in train]
    faults += [f"test_{'_'.join(key)}: no labels_{'_'.join(key)}" for key in test if key not in labels]
    faults += [f"labels_{'_'.join(key)}: no test_{'_'.join(key)}" for key in labels if key not in test]
    for key in test.keys() & labels.keys():
        if len(test[key]) != len(labels[key]):
            faults.append(f"test_{'_'.join(key)}: {len(test[key])} clips and {len(labels[key])} labels")
        elif set(np.unique(labels[key])) != {0, 1}:
            faults.append(f"labels_{'_'.join(key)}: expected 0 (normal) and 1 (anomaly), and some of both")
    shapes = {array.shape[1:] for array in (*train.values(), *test.values())}
    if len(shapes) > 1:
        faults.append(f"clips of different shapes, {' and '.join(map(str, sorted(shapes)))}: name these files apart")
    if not test:
        faults.append("no test clips: name files with test_<machine type>_<id> and labels_<machine type>_<id>, too")
    if faults:
        raise fault_list("The files cannot be scored", sorted(faults), "Every array is of the kind that its name says")


# ---- scores ----


@dataclass(frozen=True)
class Scores:
    """What a system says of the clips of one machine type."""

    test: np.ndarray  # (n_clips,)
    test_ids: np.ndarray  # (n_clips,), text
    train: np.ndarray  # (n_clips,), of each as if it were not trained on
    train_ids: np.ndarray
    joined: bool  # standardised log scores, put together from several


def scores_of_type(
    model: Neighbors | DenseL2Softmax,
    machine_type: str,
    train: Mapping[Key, np.ndarray],
    test: Mapping[Key, np.ndarray],
    held_out: Mapping[str, Mapping[Key, np.ndarray]] | None = None,
    **parts,
) -> Scores:
    """Scores by the model's detectors, which remember the training clips' vectors.

    Parameters
    ----------
    train, test : vectors of the clips, (n_clips, n_numbers); descriptors or embeddings
    held_out : ``folds`` and ``unheard`` of a Memory, the latter's clips first, (n_clips, n_folds, n_numbers)
    parts : see ``Memory.joint_scores``
    """
    train_ids, train_vectors = joined(machine_type, train)
    test_ids, test_vectors = joined(machine_type, test)
    by_others = {name: joined(machine_type, of_keys)[1] for name, of_keys in (held_out or {}).items()}
    if by_others:
        by_others["unheard"] = by_others["unheard"].swapaxes(0, 1)
    remembered = Memory(train_ids, train_ids, train_vectors, np.zeros(len(train_ids)), **by_others)
    faults = remembered.faults(model, test_ids)
    if faults:
        raise fault_list(f"{machine_type}: test clips that cannot be scored", faults, "Lower model.n_neighbors")
    return Scores(
        remembered.joint_scores(model, test_vectors, test_ids, **parts),
        test_ids,
        remembered.joint_own_scores(model, **parts),
        train_ids,
        joined=len(parts["widths"]) > 1,
    )


def joined(machine_type: str, clips: Mapping[Key, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Machine ID and vector of each clip of a machine type."""
    own = {key[1]: part for key, part in sorted(clips.items()) if key[0] == machine_type}
    return np.repeat(list(own), [len(part) for part in own.values()]), np.concatenate([*own.values()])


def neighbor_scores(features: Features, system: System) -> dict[str, Scores]:
    """Scores of a system without a network, by machine type."""
    widths = features.widths or [next(iter(features.train.values())).shape[1]]
    parts = {"widths": widths, "combine": system.model.combine}
    return {
        machine_type: scores_of_type(system.model, machine_type, features.train, features.test, **parts)
        for machine_type in features.tested
    }


def classifier_scores(features: Features, system: System, seed: int) -> dict[str, Scores]:
    """Scores of a dense classifier, by machine type; none where a network has fewer than two IDs to tell apart."""
    import metric_model

    types_of_networks = [[machine_type] for machine_type in features.tested]
    if system.model.network_per == "all":
        types_of_networks = [sorted({machine_type for machine_type, _ in features.train})]
    found = {}
    for number, machine_types in enumerate(types_of_networks):
        keys = sorted(key for key in features.train if key[0] in machine_types)
        if len(keys) == 1:
            continue
        train, test, held_out = embeddings(features, system, keys, seed=seed + number)
        for machine_type in sorted(set(machine_types) & set(features.tested)):
            parts = metric_model.widths(system)
            found[machine_type] = scores_of_type(system.model, machine_type, train, test, held_out, **parts)
    return found


def embeddings(
    features: Features, system: System, keys: Sequence[Key], *, seed: int
) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray], dict[str, dict[Key, np.ndarray]]]:
    """Embeddings of the training and the test clips of these machine IDs, by a network trained to tell them apart.

    The third are ``folds`` and ``unheard`` of a Memory, as of :func:`scores_of_type`.
    """
    from training import embedding

    counts = [len(features.train[key]) for key in keys]
    vectors = np.concatenate([features.train[key] for key in keys])
    labels = np.repeat(np.arange(len(keys)), counts)
    n_folds = workload.n_folds(system, len(labels))
    system = workload.prolonged(system, len(labels))
    network = trained(features, system, vectors, labels, np.arange(len(labels)), seed=seed)
    test = {key: features.test[key] for key in keys if key in features.test}
    found, _ = embedding.embed(network, iter(np.concatenate([vectors, *test.values()])[:, None]))
    ends = np.cumsum([*counts, *map(len, test.values())])
    parts = np.split(found, ends[:-1])
    folds = np.concatenate([(np.arange(count) + number) % n_folds for number, count in enumerate(counts)])
    unheard = []
    for fold in range(n_folds if n_folds > 1 else 0):
        heard = np.flatnonzero(folds != fold)
        part = workload.on_part(system, len(heard), len(labels))
        network = trained(features, part, vectors, labels, heard, seed=seed + FOLD_SEED + fold)
        unheard.append(embedding.embed(network, iter(vectors[:, None]))[0])
    held_out = {"folds": folds, "unheard": np.stack(unheard, axis=1)} if unheard else {}
    return (
        dict(zip(keys, parts, strict=False)),
        dict(zip(test, parts[len(keys) :], strict=True)),
        {
            name: dict(zip(keys, np.split(of_all, ends[: len(keys) - 1]), strict=True))
            for name, of_all in held_out.items()
        },
    )


def trained(
    features: Features, system: System, vectors: np.ndarray, labels: np.ndarray, heard: np.ndarray, *, seed: int
):
    """Network trained on those clips that are ``heard``."""
    import keras

    import metric_model
    from training import clip_trainer
    from training.fit import epoch_batches
    from training.optimizers import schedule

    fit = system.fit
    if not len(features.rows):
        system = dataclasses.replace(system, model=dataclasses.replace(system.model, exchange=0.0, shift=0.0))
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    network, source = metric_model.descriptor_network(system.model, vectors, labels, features.rows, heard)
    trainer = clip_trainer.make_trainer(network, system, source, labels[heard], seed)
    trainer.fit(
        epoch_batches(len(heard), seed=seed, batch_size=fit.batch_size, shuffle=fit.shuffle),
        steps_per_epoch=math.ceil(len(heard) / fit.batch_size),
        epochs=fit.epochs,
        callbacks=schedule(fit),
        shuffle=False,  # the batches are
        verbose=0,
    )
    clip_trainer.settle_statistics(trainer, n_train=len(heard), batch_size=fit.batch_size, seed=seed)
    return network


def fused(members: Mapping[str, Mapping[str, Scores]], weights: Mapping[str, float]) -> dict[str, Scores]:
    """Weighted sum of the standardised log scores of those systems that have any, by machine type."""
    found = {}
    for machine_type in sorted({machine_type for scores in members.values() for machine_type in scores}):
        own = {name: scores[machine_type] for name, scores in members.items() if machine_type in scores}
        parts = [
            weights[name] * standardised_by_id(one.test, one.test_ids, one.train, one.train_ids, joined=one.joined)
            for name, one in own.items()
        ]
        owns = [
            weights[name] * standardised_by_id(one.train, one.train_ids, one.train, one.train_ids, joined=one.joined)
            for name, one in own.items()
        ]
        any_member = next(iter(own.values()))
        found[machine_type] = dataclasses.replace(any_member, test=sum(parts), train=sum(owns), joined=True)
    return found


# ---- figures ----


def figures(features: Features, scores: Mapping[str, Scores], *, max_fpr: float) -> dict[Key, np.ndarray]:
    """AUC and pAUC of each machine ID [%]."""
    found = {}
    for machine_type, own in scores.items():
        for machine_id in np.unique(own.test_ids):
            key = (machine_type, str(machine_id))
            of_id = own.test[own.test_ids == machine_id]
            found[key] = 100 * np.array(metrics.auc_pauc(features.labels[key], of_id, max_fpr=max_fpr))
    return found


def type_means(of_ids: Mapping[Key, np.ndarray]) -> dict[str, np.ndarray]:
    """Means over the machine IDs of each type."""
    machine_types = sorted({machine_type for machine_type, _ in of_ids})
    return {name: np.mean([one for key, one in of_ids.items() if key[0] == name], axis=0) for name in machine_types}


def table(performance: Mapping[str, Mapping[Key, np.ndarray]]) -> str:
    """AUC/pAUC of each machine ID and type, a column per system."""
    keys = sorted({key for of_ids in performance.values() for key in of_ids})
    rows = [[" ".join(key), *[pair(of_ids.get(key)) for of_ids in performance.values()]] for key in keys]
    means = [type_means(of_ids) for of_ids in performance.values()]
    for machine_type in sorted({key[0] for key in keys}):
        rows.append([machine_type, *[pair(of_types.get(machine_type)) for of_types in means]])
    rows.append(["mean", *[pair(np.mean([*of_types.values()], axis=0)) for of_types in means]])
    return as_text(Table(["AUC/pAUC [%]", *performance], rows))


def pair(auc_pauc: np.ndarray | None) -> str:
    """Two figures as text, nothing where a system has none."""
    return "" if auc_pauc is None else "/".join(f"{figure:.2f}" for figure in auc_pauc)


def main(argv: list[str] | None = None) -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.npz", help="arrays as described above")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="trainings (default: %(default)s)")
    parser.add_argument(
        "--config",
        type=Path,
        default=ROOT / "baseline.yaml",
        metavar="PATH",
        help="default: the project's baseline.yaml",
    )
    args = parser.parse_args(argv)
    try:
        run(read_features(args.files), config.load_config(args.config), args.seeds)
    except UserError as error:
        sys.exit(str(error))


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return int(text)


def described(settings: config.Config) -> tuple[list[System], Mapping[str, float]]:
    """Members of the fusion that stand on descriptors, and the weights of all."""
    whole = settings.systems.get(FUSION)
    systems = [system for system in whole.members if isinstance(system.model, SYSTEMS)] if whole else []
    if not systems:
        raise UserError(f"systems: no {FUSION} with a member that stands on descriptors, such as neighbors")
    return systems, whole.model.members


def run(features: Features, settings: config.Config, n_seeds: int) -> None:
    """Print the figures of each seed and their mean."""
    start = time.perf_counter()
    systems, weights = described(settings)
    scores = {
        system.name: neighbor_scores(features, system) for system in systems if isinstance(system.model, Neighbors)
    }
    classifiers = [system for system in systems if system.name not in scores]
    seeds = []
    for seed in range(n_seeds):
        for number, system in enumerate(classifiers):
            scores[system.name] = classifier_scores(features, system, SEEDS_APART * (len(classifiers) * seed + number))
        every = {name: one for name, one in (scores | {FUSION: fused(scores, weights)}).items() if one}
        seeds.append({name: figures(features, one, max_fpr=settings.max_fpr) for name, one in every.items()})
        print(f"seed {seed}, {time.perf_counter() - start:.0f} s\n{table(seeds[-1])}\n", flush=True)
    means = {
        name: {key: np.mean([one[name][key] for one in seeds], axis=0) for key in of_ids}
        for name, of_ids in seeds[0].items()
    }
    if n_seeds > 1:
        print(f"mean of {n_seeds} seeds\n{table(means)}\n")
    total = np.mean([*type_means(means[FUSION]).values()], axis=0)
    print(f"{FUSION} mean AUC/pAUC {pair(total)}")


if __name__ == "__main__":
    main()
