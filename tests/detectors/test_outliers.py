"""detectors.py: scores by hand, equal to scikit-learn; which clips are left out together."""

import numpy as np
import pytest
from sklearn.neighbors import LocalOutlierFactor

import common
from detectors import outliers
from training.folds import ALONE, folds

SCORES = ("lof", "knn", "density")


def scores(train, test, score="lof", n_neighbors=1, metric="euclidean", **options):
    return outliers.outlier_scores(
        np.asarray(train, float),
        np.asarray(test, float),
        score=score,
        n_neighbors=n_neighbors,
        metric=metric,
        **options,
    )


# ---- by hand ----


def test_lof_on_three_points_by_hand():
    # On a line at 1, 2, 4 with one neighbour. k-distances 1, 1, 2; reachability of 1 and 2 from each other is 1, of 4
    # from 2 is 2: densities 1, 1, 1/2. The point 3.5 has neighbour 4 at 0.5; reachability max(2, 0.5) = 2, density
    # 1/2: LOF 1. The point 2.5 has neighbour 2 at 0.5; reachability max(1, 0.5) = 1: LOF 1. The point 0 has neighbour
    # 1 at 1: LOF 1. The point 10 has neighbour 4 at 6: density 1/6, LOF (1/2) / (1/6) = 3.
    assert np.allclose(scores([[1], [2], [4]], [[3.5], [2.5], [0], [10]]), [1, 1, 1, 3])


def test_knn_by_hand():
    assert np.allclose(scores([[1], [2], [4]], [[0], [10]], score="knn", n_neighbors=2), [1.5, 7])


def test_density_by_hand():
    # On a line at 1, 2, 4: distances to the nearest other 1, 1, 2; to both others 2, 1.5, 2.5 in the mean.
    train, test = [[1], [2], [4]], [[0], [10]]
    assert np.allclose(scores(train, test, "density", n_nearest=1), [1, 3])  # of 1, 2, 2; of 9, 8, 3
    assert np.allclose(scores(train, test, "density", n_nearest=2), [1.5, 5.5])
    expected = [(0.5 + 2 / 1.5) / 2, (6 / 2.5 + 9 / 2) / 2]  # of 1/2, 2/1.5, 4/2.5; of 9/2, 8/1.5, 6/2.5
    assert np.allclose(scores(train, test, "density", n_neighbors=2, n_nearest=2), expected)


# ---- laws ----


def test_lof_equals_scikit_learn_and_all_scores_rise_with_distance():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(200, 16)), rng.normal(size=(50, 16))
    expected = -LocalOutlierFactor(n_neighbors=20, novelty=True).fit(train).score_samples(test)
    assert np.array_equal(scores(train, test, n_neighbors=20), expected)
    away = np.vstack([train[:1] * 0, train[:1] * 0 + 5, train[:1] * 0 + 10])
    for score in SCORES:
        assert np.all(np.diff(scores(train, away, score, n_neighbors=5)) > 0)


@pytest.mark.parametrize("score", SCORES)
def test_order_of_clips_and_size_of_blocks_are_irrelevant(score, monkeypatch):
    rng = np.random.default_rng(0)
    train, test, order = rng.normal(size=(50, 6)), rng.normal(size=(20, 6)), rng.permutation(50)
    expected = scores(train, test, score, 4)
    monkeypatch.setattr(outliers, "BLOCK_NUMBERS", 1)
    assert np.allclose(scores(train[order], test[::-1], score, 4)[::-1], expected)


@pytest.mark.parametrize("score", ["lof", "density"])
def test_unit_of_the_vectors_is_irrelevant(score):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(50, 6)), rng.normal(size=(20, 6))
    assert np.allclose(scores(train, test, score, 4), scores(1e4 * train, 1e4 * test, score, 4))


# ---- copies, few clips ----


@pytest.mark.parametrize("score", SCORES)
def test_many_exact_duplicates_change_nothing(score):
    rng = np.random.default_rng(0)
    train = rng.normal(size=(60, 8))
    copies = np.vstack([train, np.repeat(train[:1], 40, axis=0), np.repeat(train[1:2], 40, axis=0)])
    test = np.vstack([train[0] + step for step in (0.1, 1, 3, 9, 27)])
    found = scores(copies, test, score, n_neighbors=10)
    assert np.all(np.isfinite(found)) and np.all(np.diff(found) > 0)
    assert np.allclose(found, scores(train, test, score, n_neighbors=10))


def test_scikit_learn_explodes_on_duplicates():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(60, 8))
    copies = np.vstack([train, np.repeat(train[:1], 40, axis=0), np.repeat(train[1:2], 40, axis=0)])
    broken = -LocalOutlierFactor(n_neighbors=10, novelty=True).fit(copies).score_samples(train[:1] + 0.1)
    assert broken[0] > 1e6
    assert scores(copies, train[:1] + 0.1, n_neighbors=10)[0] < 2


def test_distinct_vectors_stay_in_order():
    vectors = np.array([[3.0, 0], [0, 0], [3, 0], [1, 1], [0, 0], [3, 1e-6]])
    assert outliers.distinct(vectors).tolist() == [[3, 0], [0, 0], [1, 1]]
    assert outliers.distinct(np.zeros((3, 2))).tolist() == [[0, 0]]


@pytest.mark.parametrize("score", SCORES)
def test_too_few_distinct_vectors(score):
    with pytest.raises(common.UserError, match="n_neighbors: 3; there are 3 training clips with different embeddings"):
        scores([[1], [2], [4], [4], [4]], [[3]], score, n_neighbors=3)


@pytest.mark.parametrize("score", SCORES)
def test_one_vector_more_than_neighbours_will_do(score):
    train = np.random.default_rng(0).normal(size=(6, 3))
    assert np.isfinite(scores(train, train + 1, score, n_neighbors=5)).all()
    assert np.isfinite(scores(train[:2], train + 1, score)).all()


def test_a_few_recordings_are_left_out_alone_and_many_in_folds():
    assert folds(np.array([30, 10, 30, 20])).tolist() == [2, 0, 2, 1]  # copies together
    many = np.random.default_rng(0).integers(2**32, size=ALONE + 5)
    found = folds(np.concatenate([many, many[:7]]))
    assert np.array_equal(found[-7:], found[:7])
    assert set(np.bincount(found[:-7])) == {5, 6}
    assert np.array_equal(folds(many[::-1])[::-1], folds(many))


# ---- two domains ----


def shifted(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Training clips, 990 of the source and 10 of the target far off, which spreads wider; test clips by kind.

    Anomalies lie farther from their domain's centre than normal clips, in units of its spread alike.
    """
    rng = np.random.default_rng(seed)

    def clips(n: int, centre: float, spread: float, push: float = 0.0) -> np.ndarray:
        directions = rng.normal(size=(n, 16))
        directions *= 4 / np.linalg.norm(directions, axis=1, keepdims=True)  # as long as a normal clip's deviation
        return centre + spread * (rng.normal(size=(n, 16)) + push * directions)

    train = np.vstack([clips(990, 0, 1), clips(10, 12, 3)])
    kinds = {"source": (0, 1), "target": (12, 3)}
    return train, {
        f"{name} {label}": clips(100, *domain, push)
        for name, domain in kinds.items()
        for label, push in (("normal", 0), ("anomaly", 1.5))
    }


def ranked(normal: np.ndarray, anomalies: np.ndarray) -> float:
    """AUC."""
    return float(np.mean(anomalies[:, None] > normal))


@pytest.mark.parametrize("seed", range(5))
def test_density_hears_two_domains_alike(seed):
    """By the plain distance, the target's normal clips are above all anomalies of the source; by the density, not."""
    train, test = shifted(seed)
    found = {
        score: {kind: scores(train, vectors, score, n_neighbors=8) for kind, vectors in test.items()}
        for score in ("knn", "density")
    }
    alarms, across, all_together = {}, {}, {}
    for score, of_kinds in found.items():
        for name in ("source", "target"):  # each by itself is heard by both scores
            assert ranked(of_kinds[f"{name} normal"], of_kinds[f"{name} anomaly"]) > 0.97
        threshold = np.quantile(of_kinds["source normal"], 0.9)
        alarms[score] = np.mean(of_kinds["target normal"] > threshold)
        across[score] = ranked(of_kinds["target normal"], of_kinds["source anomaly"])
        normal, anomalies = (
            np.concatenate([of_kinds[f"{name} {label}"] for name in ("source", "target")])
            for label in ("normal", "anomaly")
        )
        all_together[score] = ranked(normal, anomalies)
    assert alarms["knn"] == 1 and alarms["density"] < 0.3
    assert across["knn"] < 0.02 and across["density"] > 0.95
    assert all_together["knn"] < 0.78 and all_together["density"] > 0.97


# ---- standardisation ----


def test_standardisation_by_hand():
    mean, deviation = outliers.standardisation(np.array([[1.0, 10, 5], [3, 30, 5]], np.float32))
    assert mean.tolist() == [2, 20, 5] and deviation.tolist() == [1, 10, np.inf]


def test_what_never_changes_is_not_heard():
    rng = np.random.default_rng(0)
    train = np.hstack([rng.normal(size=(40, 5)), -100 + 1e-7 * rng.normal(size=(40, 1))])
    mean, deviation = outliers.standardisation(train)
    away = (np.array([[0.0] * 5 + [-99]]) - mean) / deviation
    assert np.all(np.abs(away) < 1)
    for unit in (1e-4, 1e4):  # what is flat is so beside the others
        assert np.array_equal(np.isinf(outliers.standardisation(unit * train)[1]), [False] * 5 + [True])


def test_rounding_noise_where_most_dimensions_never_change():
    rng = np.random.default_rng(0)
    train = np.hstack([rng.normal(size=(40, 3)), -100 + 1e-7 * rng.normal(size=(40, 57))])
    assert np.array_equal(np.isinf(outliers.standardisation(train)[1]), [False] * 3 + [True] * 57)


def test_all_dimensions_constant():
    mean, deviation = outliers.standardisation(np.ones((4, 3)))
    assert np.array_equal((np.ones((4, 3)) - mean) / deviation, np.zeros((4, 3)))


# ---- decorrelation ----


def test_decorrelation_by_hand():
    # 8 vectors along (1, 1) and (1, -1), variances 1.8 and 0.2. 2 dimensions of 10 numbers: a fifth of the mean
    # variance 1 in the place of a fifth of each, 1.64 and 0.36.
    along, across = np.sqrt(1.8) * np.array([1, 1]) / np.sqrt(2), np.sqrt(0.2) * np.array([1, -1]) / np.sqrt(2)
    train = np.array([a * along + b * across for a in (1, -1) for b in (1, -1)] * 2)
    matrix = outliers.decorrelation(train, power=1.0)
    assert np.allclose(np.array([1, 1]) @ matrix, np.array([1, 1]) / np.sqrt(1.64))
    assert np.allclose(np.array([1, -1]) @ matrix, np.array([1, -1]) / np.sqrt(0.36))
    half = outliers.decorrelation(train, power=0.5)
    assert np.allclose(half @ half, matrix) and np.allclose(half, half.T)


def test_decorrelation_of_power_0_and_of_nothing():
    train = np.random.default_rng(0).normal(size=(20, 5))
    assert np.allclose(outliers.decorrelation(train, power=0.0), np.eye(5))
    assert np.isfinite(outliers.decorrelation(np.zeros((4, 3)), power=0.5)).all()  # copies of one vector


def test_decorrelation_whitens_where_there_are_many_vectors():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(20000, 4)) @ rng.normal(size=(4, 4))
    train = (train - train.mean(axis=0)) / train.std(axis=0)
    white = train @ outliers.decorrelation(train, power=1.0)
    assert np.allclose(white.T @ white / len(white), np.eye(4), atol=0.01)
