"""memory.py: which training clips a detector remembers, its scores, what is told of clips it cannot score."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

import common
import config
from detectors import outliers
from detectors.memory import Memory, score_unit
from training.folds import folds

PER_ID = config.Neighbors(
    score="density", lof_per="machine_id", n_neighbors=4, n_nearest=3, metric="manhattan", combine="max"
)


def detector(**changes) -> config.Neighbors:
    return config.Neighbors(
        **{
            "score": "lof",
            "lof_per": "machine_id",
            "n_neighbors": 4,
            "metric": "euclidean",
            "combine": "max",
            **changes,
        }
    )


@pytest.fixture
def memory() -> Memory:
    """Two machines that sound different: 30 clips of 8 numbers each."""
    rng = np.random.default_rng(0)
    ids = np.array(["id_00"] * 30 + ["id_02"] * 30)
    vectors = rng.normal(size=(60, 8)) * np.linspace(1, 5, 8) + np.where(ids == "id_02", 20, 0)[:, None]
    return Memory(np.array([f"{k}.wav" for k in range(60)]), ids, vectors, np.zeros(60))


def test_detector_per_type_or_per_id(memory):
    swapped = np.stack([memory.vectors[-1], memory.vectors[0]]) + 0.1  # each sounds like the other machine
    per_id = memory.scores(detector(), swapped, ["id_00", "id_02"])
    per_type = memory.scores(detector(lof_per="machine_type"), swapped, ["id_00", "id_02"])
    assert np.all(per_type < 2) and np.all(per_id > 5)


def test_scores_are_those_of_the_detector_on_standardised_vectors(memory):
    new = np.random.default_rng(1).normal(size=(5, 8))
    train = memory.vectors[:30]
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    keys = {"score": "density", "n_neighbors": 4, "n_nearest": 3, "metric": "manhattan"}
    expected = outliers.outlier_scores((train - mean) / deviation, (new - mean) / deviation, **keys)
    assert np.allclose(memory.scores(PER_ID, new, ["id_00"] * 5), expected)


def test_decorrelation(memory):
    new = np.random.default_rng(1).normal(size=(5, 8))
    mean, deviation = outliers.standardisation(memory.vectors[:30])
    train, others = (memory.vectors[:30] - mean) / deviation, (new - mean) / deviation
    matrix = outliers.decorrelation(train, power=0.5)
    keys = {"score": "density", "n_neighbors": 4, "n_nearest": 3, "metric": "manhattan"}
    model = dataclasses.replace(PER_ID, decorrelation=0.5)
    found = memory.scores(model, new, ["id_00"] * 5)
    assert np.allclose(found, outliers.outlier_scores(train @ matrix, others @ matrix, **keys))
    assert not np.allclose(found, memory.scores(PER_ID, new, ["id_00"] * 5))


def test_a_classifiers_embeddings_are_compared_as_they_are(memory):
    keys = {"score": "knn", "lof_per": "machine_id", "n_neighbors": 1, "metric": "euclidean"}
    model = config.DenseL2Softmax(
        classes="machine_id",
        alpha=16.0,
        mixup=0.0,
        network_per="all",
        networks=1,
        units=(4,),
        embedding=8,
        exchange=0.0,
        min_steps=0,
        **keys,
    )
    new = memory.vectors[:2] + [[3, 0, 0, 0, 0, 0, 0, 0]]
    nearest = np.linalg.norm(memory.vectors[:30, None] - new, axis=2).min(axis=0)
    assert np.allclose(memory.scores(model, new, ["id_00"] * 2), nearest)


@pytest.mark.parametrize("score", ["lof", "knn", "density"])
@pytest.mark.parametrize("keys", [{}, {"decorrelation": 0.5}, {"lof_per": "machine_type"}])
@pytest.mark.parametrize("n_neighbors", [1, 4, 29])
def test_own_scores_are_those_without_the_clip(memory, score, keys, n_neighbors):
    """By brute force: a memory of the other clips alone, whose scaling and decorrelation know nothing of the clip."""
    few = memory.of_clips(np.arange(15, 45))  # 15 of each ID
    one = detector(score=score, n_neighbors=n_neighbors, **keys)
    n_others = 29 if "lof_per" in keys else 14
    fitted = dataclasses.replace(one, n_neighbors=min(n_neighbors, n_others - 1))
    expected = [
        few.of_clips(np.flatnonzero(np.arange(30) != k)).scores(fitted, few.vectors[[k]], few.machine_ids[[k]])[0]
        for k in range(30)
    ]
    assert np.allclose(few.own_scores(one), expected)


def test_own_scores_of_many_clips_leave_a_tenth_out(memory):
    one = detector(lof_per="machine_type", score="density")
    own = folds(memory.checksums)
    assert own.max() == 9
    rest = memory.of_clips(np.flatnonzero(own != 3))
    expected = rest.scores(one, memory.vectors[own == 3], memory.machine_ids[own == 3])
    assert np.allclose(memory.own_scores(one)[own == 3], expected)


def test_own_scores_are_those_of_new_clips():
    """Of one distribution, with fewer clips than numbers: a clip that stays in scaling and covariance is too near."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(60, 60))
    own, new = [], []
    for _ in range(5):
        train = Memory(*[np.array(["id_00"] * 15)] * 2, rng.normal(size=(15, 60)) @ mix, np.zeros(15))
        model = dataclasses.replace(PER_ID, decorrelation=0.15)
        own.append(train.own_scores(model).mean())
        new.append(train.scores(model, rng.normal(size=(200, 60)) @ mix, ["id_00"] * 200).mean())
    assert np.mean(own) == pytest.approx(np.mean(new), rel=0.02)


@pytest.mark.parametrize("score", ["lof", "knn", "density"])
def test_copies_are_known_by_their_checksums(memory, score):
    """Whatever rounding does to their vectors, they change nothing, and are left out together."""
    alone = memory.of_clips(np.arange(30))
    again = np.array([*range(30), *[0] * 20, *[1] * 20])
    copies = alone.of_clips(again)
    copies.vectors[30:] += 1e-3 * np.random.default_rng(0).normal(size=(40, 8))
    one, new = detector(score=score, n_neighbors=5), memory.vectors[:5] + 0.5
    assert np.allclose(copies.scores(one, new, ["id_00"] * 5), alone.scores(one, new, ["id_00"] * 5))
    assert np.allclose(copies.own_scores(one), alone.own_scores(one)[again], rtol=1e-2)
    assert copies.faults(detector(n_neighbors=30), ["id_00"])


def test_networks_score_the_clips_that_they_were_not_trained_on(memory):
    """Each fold by its own network's vectors, among the others of the same network."""
    folds, rng = np.arange(60) % 3, np.random.default_rng(3)
    unheard = rng.normal(size=(3, 60, 8))
    held_out = dataclasses.replace(memory, folds=folds, unheard=unheard)
    found, one = held_out.own_scores(detector(score="density")), detector(score="density")
    for fold in range(3):
        others = dataclasses.replace(memory, vectors=unheard[fold]).of_clips(np.flatnonzero(folds != fold))
        out = folds == fold
        assert np.allclose(found[out], others.scores(one, unheard[fold][out], memory.machine_ids[out]))
    assert np.allclose(
        held_out.scores(one, memory.vectors[:5], ["id_00"] * 5), memory.scores(one, memory.vectors[:5], ["id_00"] * 5)
    )
    parts = [part.unheard for _, part in held_out.parts([3, 5])]
    assert np.array_equal(np.concatenate(parts, axis=2), unheard)


def test_own_scores_of_too_few_clips(memory):
    with pytest.raises(common.UserError, match="n_neighbors: 1; there are 1 training clips"):
        memory.of_clips(np.arange(2)).own_scores(detector(n_neighbors=1))


def test_clips_that_cannot_be_scored(memory):
    assert memory.faults(PER_ID, ["id_00", "id_02"]) == []
    assert memory.faults(PER_ID, ["id_04", "id_00"]) == ["id_04: no training clips"]
    assert memory.faults(detector(lof_per="machine_type"), ["id_04"]) == []
    too_many = detector(n_neighbors=30)
    assert memory.faults(too_many, ["id_02"]) == ["id_02: 30 training clips, no more than model.n_neighbors"]


def test_scores_of_parts_are_combined_by_hand(memory):
    new, ids = memory.vectors[:4] + 1.0, ["id_00"] * 4
    logs, logs_of_own = [], []
    parts = (slice(0, 3), slice(3, 8))
    for part in parts:
        alone = dataclasses.replace(memory, vectors=memory.vectors[:, part])
        own = np.log(alone.own_scores(PER_ID)[:30])
        logs_of_own.append((own - own.mean()) / own.std())
        logs.append((np.log(alone.scores(PER_ID, new[:, part], ids)) - own.mean()) / own.std())
    for rule, together in (("max", np.maximum), ("sum", lambda a, b: (a + b) / 2)):
        usual = together(*logs_of_own)
        found = memory.joint_scores(PER_ID, new, ids, widths=[3, 5], combine=rule)
        assert np.allclose(found, (together(*logs) - usual.mean()) / usual.std())
        own = memory.joint_own_scores(PER_ID, widths=[3, 5], combine=rule)
        assert np.allclose(own[:30], (usual - usual.mean()) / usual.std())
        for machine_id in ("id_00", "id_02"):  # 0: as the usual training clip, 1: a deviation above
            of_id = own[memory.machine_ids == machine_id]
            assert np.allclose([of_id.mean(), of_id.std()], [0, 1])
    one = memory.joint_scores(PER_ID, new, ids, widths=[8], combine="max")
    assert np.array_equal(one, memory.scores(PER_ID, new, ids))
    assert np.array_equal(memory.joint_own_scores(PER_ID, widths=[8], combine="max"), memory.own_scores(PER_ID))


@pytest.mark.parametrize(
    ("score", "widths", "unit"),
    [
        ("lof", [0], "factor"),
        ("knn", [0], "distance"),
        ("density", [0], "ratio"),
        ("density", [3, 5], "deviations"),
        ("softmax", [3, 5], "surprisal"),
    ],
)
def test_units_of_scores(score, widths, unit):
    assert score_unit(SimpleNamespace(score=score), widths=widths) == unit


def test_training_clips_are_scored_once_in_a_run(memory, monkeypatch):
    calls, own_scores = [], Memory.own_scores

    def counted(self, detector):
        calls.append(detector)
        return own_scores(self, detector)

    monkeypatch.setattr(Memory, "own_scores", counted)
    for _ in range(2):
        memory.joint_own_scores(PER_ID, widths=[3, 5], combine="max")
        memory.joint_scores(PER_ID, memory.vectors[:2], ["id_00"] * 2, widths=[3, 5], combine="max")
    assert len(calls) == 2  # two parts


def test_folds_that_leave_one_clip_give_way_to_leaving_one_out(memory):
    few = memory.of_clips(np.arange(3))
    one = detector(lof_per="machine_type", score="knn", n_neighbors=1)
    folds = {"folds": np.array([0, 0, 1]), "unheard": np.zeros((2, *few.vectors.shape), np.float32)}
    by_folds = dataclasses.replace(few, **folds)
    assert np.array_equal(by_folds.own_scores(one), few.own_scores(one))
