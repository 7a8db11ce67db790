"""memory.py: which training clips a detector remembers, its scores, what is told of clips it cannot score."""

import dataclasses

import numpy as np
import pytest

import config
from detectors import outliers
from detectors.memory import Memory, combined

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
    assert np.allclose(memory.own_scores(model)[:30], outliers.leave_one_out_scores(train @ matrix, **keys))


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


def test_own_scores_leave_each_clip_out(memory):
    for one in (PER_ID, detector(lof_per="machine_type")):
        own = memory.own_scores(one)
        assert own.shape == (60,) and np.isfinite(own).all()
    rest = np.arange(60) != 7
    without = Memory(memory.names[rest], memory.machine_ids[rest], memory.vectors[rest], np.zeros(59))
    alone = without.scores(detector(), memory.vectors[7:8], ["id_00"])
    scale = memory.vectors[:30].std(axis=0) / np.delete(memory.vectors[:30], 7, axis=0).std(axis=0)
    assert np.allclose(scale, 1, atol=0.2)  # what is left of a difference: the clip's part in the standardisation
    assert memory.own_scores(detector())[7] == pytest.approx(alone[0], rel=0.2)


def test_clips_that_cannot_be_scored(memory):
    assert memory.faults(PER_ID, ["id_00", "id_02"]) == []
    assert memory.faults(PER_ID, ["id_04", "id_00"]) == ["id_04: no training clips"]
    assert memory.faults(detector(lof_per="machine_type"), ["id_04"]) == []
    too_many = detector(n_neighbors=30)
    assert memory.faults(too_many, ["id_02"]) == ["id_02: 30 training clips, no more than model.n_neighbors"]


def test_scores_of_parts_are_combined_by_hand(memory):
    new, ids = memory.vectors[:4] + 1.0, ["id_00"] * 4
    logs = []
    for part in (slice(0, 3), slice(3, 8)):
        alone = dataclasses.replace(memory, vectors=memory.vectors[:, part])
        own = np.log(alone.own_scores(PER_ID)[:30])
        logs.append((np.log(alone.scores(PER_ID, new[:, part], ids)) - own.mean()) / own.std())
    for rule, by_hand in (("max", np.maximum(*logs)), ("sum", (logs[0] + logs[1]) / 2)):
        found = memory.joint_scores(PER_ID, new, ids, widths=[3, 5], combine=rule)
        assert np.allclose(found, np.exp(by_hand))
        assert memory.joint_own_scores(PER_ID, widths=[3, 5], combine=rule).shape == (60,)
    one = memory.joint_scores(PER_ID, new, ids, widths=[8], combine="max")
    assert np.array_equal(one, memory.scores(PER_ID, new, ids))
    assert np.array_equal(memory.joint_own_scores(PER_ID, widths=[8], combine="max"), memory.own_scores(PER_ID))


def test_combined_scores_are_finite():
    assert np.isfinite(combined([np.array([1e5])], "max")).all()


def test_training_clips_are_scored_once_in_a_run(memory, monkeypatch):
    calls, leave_one_out = [], outliers.leave_one_out_scores

    def counted(*arguments, **settings):
        calls.append(settings)
        return leave_one_out(*arguments, **settings)

    monkeypatch.setattr(outliers, "leave_one_out_scores", counted)
    for _ in range(2):
        memory.joint_own_scores(PER_ID, widths=[3, 5], combine="max")
        memory.joint_scores(PER_ID, memory.vectors[:2], ["id_00"] * 2, widths=[3, 5], combine="max")
    assert len(calls) == 4  # two machine IDs, two parts
