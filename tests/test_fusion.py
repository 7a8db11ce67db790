"""fusion.py: by hand."""

import numpy as np
import pytest

import fusion


def test_standardised_by_hand():
    training = np.exp([1.0, 3.0])  # logarithms: mean 2, deviation 1
    assert np.allclose(fusion.standardised(np.exp([2.0, 4.5]), training), [0, 2.5])


def test_unit_of_a_score_is_irrelevant():
    rng = np.random.default_rng(0)
    training, scores = rng.gamma(2, size=50), rng.gamma(3, size=20)
    assert np.allclose(fusion.standardised(scores, training), fusion.standardised(1e5 * scores, 1e5 * training))


def test_zero_and_equal_scores_are_harmless():
    assert np.isfinite(fusion.standardised(np.array([0.0, 1.0]), np.array([0.0, 2.0]))).all()
    assert np.allclose(fusion.standardised(np.exp([1.0, 2.0]), np.ones(5)), [1, 2])


def test_fused_by_hand():
    training = [np.exp([1.0, 3.0]), np.exp([10.0, 30.0])]
    scores = [np.exp([2.0, 4.0]), np.exp([30.0, 25.0])]
    assert np.allclose(fusion.fused(scores, training, weights=[1, 2]), [0 + 2, 2 + 1])


def test_each_system_has_its_training_scores_and_weight():
    with pytest.raises(ValueError, match="zip"):
        fusion.fused([np.ones(2)], [np.ones(3)], weights=[1, 1])
