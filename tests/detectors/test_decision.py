"""Thresholds by hand, against the official baselines' fit, and where there is nothing to fit."""

import numpy as np
import pytest
import scipy.stats

import config
from detectors import decision

GAMMA = {"quantile": 0.9, "method": "gamma"}
EMPIRICAL = {"quantile": 0.9, "method": "empirical"}


def normal_scores(n: int) -> np.ndarray:
    return np.random.default_rng(1).gamma(5, 2, n)


def empirical(scores) -> float:
    return np.quantile(scores, 0.9, method="weibull")


def test_empirical_by_hand():
    assert decision.threshold(np.arange(9.0), **EMPIRICAL) == 8  # rank 9 of 9
    assert decision.threshold(np.arange(11.0), **EMPIRICAL) == pytest.approx(9.8)  # rank 10.8 of 11
    assert decision.threshold(np.array([1.0, 2.0]), **EMPIRICAL) == 2
    assert decision.threshold(np.arange(11.0), quantile=0.5, method="empirical") == 5
    assert decision.threshold(np.arange(3.0), quantile=0.1, method="empirical") == 0


@pytest.mark.parametrize("n", [10, 30, 100])
@pytest.mark.parametrize("method", decision.METHODS)
def test_new_scores_are_above_as_often_as_asked_for(n, method):
    """The mean over many thresholds; NumPy's default quantile would have 17 % above with ten scores."""
    rng = np.random.default_rng(n)
    new = np.sort(rng.gamma(5, 2, 100_000))
    found = [decision.threshold(rng.gamma(5, 2, n), quantile=0.9, method=method) for _ in range(50)]
    shares = 1 - np.searchsorted(new, found) / len(new)
    assert shares.mean() == pytest.approx(0.1, abs=0.03)
    low, high = decision.expected_false_alarms(n, 0.9)
    assert np.mean((shares >= low) & (shares <= high)) > 0.8


def test_expected_false_alarms_by_hand():
    # The largest of 9 scores: the share above is Beta(1, 9), whose distribution function is 1 - (1 - x) ** 9.
    low, high = decision.expected_false_alarms(9, 0.9)
    assert low == pytest.approx(1 - 0.95 ** (1 / 9)) and high == pytest.approx(1 - 0.05 ** (1 / 9))
    assert decision.expected_false_alarms(1, 0.9) == pytest.approx((0.05, 0.95))
    assert decision.expected_false_alarms(100_000, 0.9) == pytest.approx((0.1, 0.1), abs=0.002)


@pytest.mark.parametrize("n", [30, 900])
def test_gamma_is_that_of_the_official_baselines(n):
    scores = normal_scores(n)
    shape, location, scale = scipy.stats.gamma.fit(scores)
    expected = scipy.stats.gamma.ppf(q=0.9, a=shape, loc=location, scale=scale)
    assert decision.threshold(scores, **GAMMA) == pytest.approx(expected, rel=0.01)
    assert decision.threshold(scores, **GAMMA) != decision.threshold(scores, **EMPIRICAL)


def test_gamma_finds_the_distribution_that_the_scores_come_from():
    assert decision.threshold(normal_scores(20_000), **GAMMA) == pytest.approx(
        scipy.stats.gamma.ppf(0.9, 5, scale=2), rel=0.02
    )


def test_unit_and_sign_of_the_scores_are_irrelevant():
    for seed in range(5):
        scores = np.random.default_rng(seed).gamma(2, 1, 50)
        found = decision.threshold(scores, **GAMMA)
        for factor, shift in ((1, -100), (1e-4, 0), (0.05, 1), (1e5, 0)):
            there = decision.threshold(factor * scores + shift, **GAMMA)
            assert (there - shift) / factor == pytest.approx(found, rel=1e-3)


def test_no_threshold_lies_beyond_the_scores():
    """A fit to the scores as they are ended above the largest: nothing was an anomaly."""
    scores = np.random.default_rng(1).gamma(2, 1, 30)
    for factor, shift in ((1, 0), (1e-3, 0), (0.05, 1), (0.05, 1000)):
        found = decision.threshold(factor * scores + shift, **GAMMA)
        assert np.quantile(scores, 0.8) < (found - shift) / factor < scores.max()


@pytest.mark.parametrize(
    "scores",
    [[3.0], [-1.0, 2.0], [7.0] * 50, [-7.0] * 50, [0.0] * 12, [5.0, *[5.0 + 1e-12] * 20], normal_scores(19)],
    ids=["one", "two", "equal", "equal and negative", "zero", "equal but for rounding", "nineteen"],
)
def test_too_little_to_fit(scores):
    assert decision.threshold(np.array(scores), **GAMMA) == pytest.approx(empirical(scores))


def test_a_fit_that_misses_the_scores_is_not_taken():
    """Scores with a heavy tail, on which the fit ends with nearly all of them above the threshold, or none."""
    missed = 0
    for seed in range(20):
        scores = 5 + np.random.default_rng(seed).pareto(2, 900)
        shape, location, scale = scipy.stats.gamma.fit(scores)
        fitted = scipy.stats.gamma.ppf(0.9, shape, loc=location, scale=scale)
        missed += abs(np.mean(scores > fitted) - 0.1) > 0.03
        assert abs(np.mean(scores > decision.threshold(scores, **GAMMA)) - 0.1) <= 0.03
    assert missed


def test_a_fit_that_fails_is_not_taken(monkeypatch):
    def fail(scores):
        raise scipy.stats.FitError("no")

    monkeypatch.setattr(scipy.stats.gamma, "fit", fail)
    assert decision.threshold(normal_scores(50), **GAMMA) == pytest.approx(empirical(normal_scores(50)))


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf], [[1.0, 2.0]]])
def test_scores_that_give_no_threshold(scores):
    with pytest.raises(ValueError, match="expected finite scores of at least one clip"):
        decision.threshold(np.array(scores), **GAMMA)


@pytest.mark.parametrize("wrong", [{"quantile": 1.0}, {"quantile": 0.0}, {"method": "normal"}])
def test_settings_that_are_not_allowed(wrong):
    with pytest.raises(ValueError, match="expected one in"):
        decision.threshold(np.arange(3.0), **GAMMA | wrong)


def test_a_threshold_for_each_machine_id():
    scores, machine_ids = np.array([1.0, 10.0, 3.0]), np.array(["id_00", "id_02", "id_00"])
    found = decision.thresholds(scores, machine_ids, quantile=0.5, method="empirical")
    assert found == {"id_00": 2.0, "id_02": 10.0}


def test_a_machine_id_without_training_clips_has_the_threshold_of_all():
    scores, machine_ids = np.array([1.0, 2.0, 9.0]), np.array(["id_00", "id_00", "id_02"])
    found = decision.thresholds(scores, machine_ids, quantile=0.5, method="empirical", wanted={"id_04", "id_00"})
    assert found == {"id_00": 1.5, "id_04": 2.0}


def test_a_score_at_the_threshold_is_normal():
    assert decision.is_anomalous(np.array([1.0, 2.0, 2.1]), 2.0).tolist() == [False, False, True]


def test_percentile_by_hand():
    training = np.array([4.0, 1.0, 2.0, 3.0])
    assert [decision.percentile(score, training) for score in (0.5, 1.0, 2.5, 9.0)] == [0, 25, 50, 100]


def test_keys_of_the_yaml(yaml_file):
    settings = config.load_config(yaml_file())
    assert (settings.decision, settings.decision_quantile) == ("gamma", 0.9)
    settings = config.load_config(yaml_file({"decision": "empirical", "decision_quantile": 0.99}))
    assert (settings.decision, settings.decision_quantile) == ("empirical", 0.99)


def test_a_yaml_from_before_there_were_decisions(yaml_file):
    path = yaml_file()
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith("decision")]
    path.write_text("".join(lines))
    settings = config.load_config(path)
    assert (settings.decision, settings.decision_quantile) == ("gamma", 0.9)


@pytest.mark.parametrize(("key", "value"), [("decision", "normal"), ("decision_quantile", 1.0)])
def test_keys_with_wrong_values(yaml_file, key, value):
    with pytest.raises(Exception, match=f"{key}: .*expected"):
        config.load_config(yaml_file({key: value}))
