"""Covariances of residuals, and Mahalanobis scores, by hand."""

from pathlib import Path

import numpy as np
import pytest

from audio.clips import Clip
from config import OF_RESIDUALS
from training.batches import pieces
from training.residuals import covariance, inverse, inverse_covariances, mahalanobis, moments_of


def clips_of(*domains) -> list[Clip]:
    return [Clip(Path("x"), "fan", "id_00", 0, 1, 1, 1, 1, 1, domain=domain) for domain in domains]


def score(residuals, inverses, how="mahalanobis") -> float:
    return mahalanobis(moments_of(np.array(residuals, float)), np.array(inverses, float), how)


def test_pieces_by_hand():
    counts = [2, 5, 1, 3]  # rows 0-1, 2-6, 7, 8-10
    assert [*pieces(counts, 0, 4)] == [(0, slice(0, 2)), (1, slice(2, 4))]
    assert [*pieces(counts, 4, 4)] == [(1, slice(0, 3)), (2, slice(3, 4))]
    assert [*pieces(counts, 8, 4)] == [(3, slice(0, 3))]


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_moments_of_pieces_give_the_covariance_of_the_whole(mean):
    residuals = np.random.default_rng(0).normal(mean, 3, (700, 6)) @ np.random.default_rng(1).normal(size=(6, 6))
    together = sum(map(moments_of, np.split(residuals.astype(np.float32), [1, 5, 300])))
    np.testing.assert_allclose(covariance(together), np.cov(residuals.T), rtol=1e-4)
    np.testing.assert_allclose(inverse(covariance(together)) @ np.cov(residuals.T), np.eye(6), atol=1e-3)


def test_the_mean_form_by_hand():
    inverses = [[[2, 1], [1, 3]]]
    # Of (1, 0): 2; of (1, -1): 2 - 2 + 3 = 3.
    assert score([[1, 0], [1, -1]], inverses) == 2.5


def test_the_official_score_has_products_of_different_frames():
    inverses = [[[2, 1], [1, 3]]]
    # (1, 0) C^-1 (1, -1)^T = 2 - 1 = 1, twice: (2 + 3 + 1 + 1) / 4.
    assert score([[1, 0], [1, -1]], inverses, "mahalanobis_official") == 1.75
    residuals, matrix = np.random.default_rng(0).normal(size=(9, 2)), np.array(inverses[0])
    products = residuals @ matrix @ residuals.T
    assert score(residuals, inverses, "mahalanobis_official") == pytest.approx(products.mean())
    assert score(residuals, inverses) == pytest.approx(np.trace(products) / 9)


def test_the_nearer_domain_counts():
    inverses = [np.diag([1, 4]), np.diag([4, 1])]
    assert score([[0, 2]], inverses) == 4
    assert score([[2, 0]], inverses) == 4
    # The smaller one is taken of the clip, not of each of its frames: (4 + 16) / 2 by either.
    assert score([[0, 2], [2, 0]], inverses) == 10


def test_clips_without_a_domain_are_of_the_source():
    rng = np.random.default_rng(0)
    spreads = [1, 1, 1, 5, 5]
    residuals = [spread * rng.normal(size=(50, 3)) for spread in spreads]
    clips = clips_of(None, "source", None, "target", "target")
    found = inverse_covariances(map(moments_of, residuals), clips)
    expected = [np.cov(np.concatenate(part).T) for part in (residuals[:3], residuals[3:])]
    np.testing.assert_allclose(found, np.linalg.inv(expected))


@pytest.mark.parametrize("domain", [None, "source", "target"])
def test_of_one_domain_there_is_one_covariance(domain):
    moments = moments_of(np.random.default_rng(0).normal(size=(50, 3)))
    assert inverse_covariances([moments, moments], clips_of(domain, domain)).shape == (1, 3, 3)


@pytest.mark.parametrize("kind", ["few frames", "one frame", "a constant band", "nothing varies", "no residuals"])
@pytest.mark.parametrize("how", OF_RESIDUALS)
def test_a_singular_covariance_gives_numbers(kind, how):
    """What never varied in training is far away from it, not beside it."""
    residuals = np.random.default_rng(0).normal(size=(100, 8))
    if kind == "few frames":
        residuals = residuals[:3]
    elif kind == "one frame":
        residuals = residuals[:1]
    elif kind == "a constant band":
        residuals[:, 5] = 2
    else:
        residuals[:] = kind == "nothing varies"
    inverses = inverse_covariances([moments_of(residuals.astype(np.float32))], clips_of(None))
    known, new = (score(frames, inverses, how) for frames in (residuals, residuals + np.eye(8)[5]))
    assert np.isfinite([known, new]).all()
    assert 0 <= known < new
