"""Figures of source and target: which clips count, which means are taken, what is not defined."""

import importlib

import numpy as np
import pytest

import common
from evaluation import comparison, folders, metrics, ranking, truth
from evaluation.metrics import LabelledScores
from evaluation.rules import RULES
from years.year import read_year

evaluate = importlib.import_module("02_evaluate")
APART, MIXED = RULES["domains_apart"], RULES["domains_mixed"]
LABELS = np.array([0, 0, 1, 0, 0, 1])
DOMAINS = np.array([0, 0, 0, 1, 1, 1])
SCORES = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # all of the target above all of the source
NAMES = tuple(
    f"section_00_{d}_test_{kind}_000{n}.wav"
    for d in ("source", "target")
    for kind, n in (("normal", 0), ("normal", 1), ("anomaly", 0))
)


def clips(**changes) -> LabelledScores:
    return LabelledScores(LABELS, SCORES, NAMES, **{"domains": DOMAINS} | changes)


def test_normals_of_a_domain_stand_against_the_anomalies_of_both():
    # source: 1, 2 against 3, 6: 1. target: 4, 5 against 3, 6: 2 of 4 pairs. All: 6 of 8 pairs in order.
    auc_source, auc_target, pauc = metrics.figures(clips(), MIXED, max_fpr=0.1)
    assert (auc_source, auc_target) == (1.0, 0.5)
    assert pauc == metrics.auc_pauc(LABELS, SCORES, max_fpr=0.1)[1]


def test_without_clips_of_a_domain_its_figure_is_not_defined():
    source = LabelledScores(LABELS[:3], SCORES[:3], NAMES[:3], None, DOMAINS[:3])
    figures = metrics.figures(source, MIXED, max_fpr=0.1)
    assert figures == pytest.approx((1, np.nan, 1), nan_ok=True)
    assert np.isnan(MIXED.official_score({"fan": {"section_00": figures}}))
    unknown = metrics.figures(clips(domains=None), MIXED, max_fpr=0.1)
    assert np.isnan(unknown[:2]).all() and unknown[2] > 0


def test_means_are_harmonic_and_have_a_floor():
    performance = {"fan": {"00": (0.5, 1.0, 0.8), "01": (1.0, 0.5, 0.8)}, "pump": {"00": (0.25, 0.5, 0.4)}}
    assert MIXED.average(performance["fan"]) == pytest.approx((2 / 3, 2 / 3, 0.8))
    assert MIXED.overall(performance) == pytest.approx((3 / 7, 0.6, 0.6))  # of the sections, not of the types
    assert MIXED.official_score(performance) == pytest.approx(9 / (3 / (3 / 7) + 3 / 0.6 + 3 / 0.6))
    assert 0 < MIXED.official_score({"fan": {"00": (0.0, 1.0, 1.0)}}) < 1e-15
    assert RULES["ids"].official_score(performance) is None
    assert APART.official_score({"fan": {"00_source": (0.5, 0.6), "00_target": (1.0, 0.6)}}) == pytest.approx(
        4 / (2 + 1 + 2 / 0.6)
    )


def test_decisions_are_judged_by_domain():
    decided = clips(decisions=np.array([0, 1, 1, 0, 0, 0]))
    figures = metrics.judge({("fan", "section_00"): decided}, ["source", "target"])["fan"]
    assert list(figures) == ["section_00 source", "section_00 target"]
    assert figures["section_00 source"] == pytest.approx((0.5, 1, 2 / 3, 0.5))
    assert figures["section_00 target"] == pytest.approx((0, 0, 0, 0))
    assert list(metrics.judge({("fan", "section_00"): decided})["fan"]) == ["section_00"]


def test_ranking_is_by_the_official_score():
    low, high = {"fan": {"00": (0.5, 0.5, 0.5)}}, {"fan": {"00": (0.9, 0.4, 0.5)}}
    first, second = ranking.rank({"low": low, "high": high}, MIXED)
    assert (first.name, second.name, first.mean_rank) == ("high", "low", None)
    assert first.official_score == pytest.approx(3 / (1 / 0.9 + 1 / 0.4 + 1 / 0.5))


# ---- folders ----


def write_system(folder, year=2022, shift=0.0, unit="section_03", suffix="_test", seed=0):
    """Score and decision files of the evaluation clips of a section, and the evaluator's folders beside it."""
    rng = np.random.default_rng(seed)
    labels, domains = np.tile([0, 1], 20), np.repeat([0, 1], 20)
    scores = rng.normal(size=40) + (1 + shift) * labels + 0.5 * domains
    names = [f"{unit}_{number:04d}.wav" for number in range(40)]
    for kind, values in {
        f"system/anomaly_score_fan_{unit}{suffix}": scores,
        f"system/decision_result_fan_{unit}{suffix}": (scores > 1).astype(int),
        f"truth/ground_truth_data/ground_truth_fan_{unit}_test": labels,
        f"truth/ground_truth_domain/ground_truth_fan_{unit}_test": domains,
    }.items():
        path = folder / f"{kind}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name},{value}\n" for name, value in zip(names, values, strict=True)))
    return folder / "system", LabelledScores(labels, scores, tuple(names), None, domains)


@pytest.mark.parametrize(
    ("where", "suffix"),
    [("truth", "_test"), ("truth/ground_truth_data", ""), ("truth/ground_truth_domain", "_test")],
)
def test_the_evaluators_folders_are_the_truth(tmp_path, capsys, where, suffix):
    folder, expected = write_system(tmp_path, suffix=suffix)
    rows = (folder / f"anomaly_score_fan_section_03{suffix}.csv").read_text().splitlines()
    (folder / f"anomaly_score_fan_section_03{suffix}.csv").write_text("\n".join(rows[::-1]) + "\n")  # names decide
    evaluate.main([str(folder), "--truth", str(tmp_path / where)])
    (result,), _ = folders.read_results([folder], None, tmp_path / where, max_fpr=0.1)
    assert result.year.year == 2022
    assert result.performance["fan"]["section_03"] == metrics.figures(expected, MIXED, max_fpr=0.1)
    score = 100 * MIXED.official_score(result.performance)
    output = capsys.readouterr().out
    assert f"official score: {score:.3f} %" in output and "fan section_03 target" in output
    assert (folder / "result.csv").read_text().startswith("fan\nsection,AUC source,AUC target,pAUC\n03,")


def test_labels_alone_leave_the_domains_figures_undefined(tmp_path, capsys):
    folder, _ = write_system(tmp_path)
    (tmp_path / "truth" / "ground_truth_domain").rename(tmp_path / "elsewhere")
    evaluate.main([str(folder), "--truth", str(tmp_path / "truth")])
    output = capsys.readouterr().out
    assert "not defined: fan section_03: AUC source, AUC target" in output and "official score: not defined" in output
    assert (folder / "result.csv").read_text().splitlines()[2].startswith("03,,,0.")


def test_truth_of_another_year_and_lists_that_are_wrong(tmp_path):
    folder, _ = write_system(tmp_path)
    other = tmp_path / "other" / "ground_truth_data"
    other.mkdir(parents=True)
    (other / "ground_truth_bandsaw_section_00_test.csv").write_text("section_00_0000.wav,1\n")
    with pytest.raises(common.UserError, match="a ground truth of 2023; the score files are of 2022"):
        evaluate.main([str(folder), "--truth", str(other)])
    (tmp_path / "list.csv").write_text("fan\nsection_03_0000.wav,section_03_source_test_normal_0000_m-n_W.wav\n")
    with pytest.raises(common.UserError, match="the official list of 2022 is not taken: its labels contradict"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "list.csv")])


def test_lists_of_later_years_need_no_label():
    row = ["section_00_0000.wav", "section_00_target_test_anomaly_0012_id_C1.wav", "ToyPet"]
    for given in (row, [*row[:2], "1", row[2]]):
        key, told = truth._parse_row(given, read_year(2025))
        assert key == ("ToyPet", "section_00", "section_00_0000.wav")
        assert (told.label, told.domain) == (1, "target")
    with pytest.raises(ValueError, match="not the original name of section_00_0000.wav with label 0"):
        truth._parse_row([*row[:2], "0", row[2]], read_year(2025))


def test_labels_and_domains_of_other_clips(tmp_path):
    folder, _ = write_system(tmp_path)
    path = tmp_path / "truth" / "ground_truth_domain" / "ground_truth_fan_section_03_test.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(common.UserError, match="other clips than in"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "truth")])


def test_sections_without_decisions_are_told(tmp_path, caplog):
    folder, _ = write_system(tmp_path)
    write_system(tmp_path, unit="section_04")
    (folder / "decision_result_fan_section_04_test.csv").unlink()
    evaluate.main([str(folder), "--truth", str(tmp_path / "truth")])
    assert "no decisions on fan section_04" in caplog.text


def test_two_files_of_the_same_clips(tmp_path):
    folder, _ = write_system(tmp_path)
    write_system(tmp_path, suffix="")
    with pytest.raises(common.UserError, match="files of the same clips"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "truth")])


def test_years_do_not_mix_and_the_user_may_name_one(tmp_path, capsys):
    folder, _ = write_system(tmp_path / "a")
    other = tmp_path / "b"
    other.mkdir()
    (other / "anomaly_score_fan_section_00_source_test.csv").write_text(
        "section_00_source_test_normal_0000.wav,1\nsection_00_source_test_anomaly_0000.wav,2\n"
    )
    with pytest.raises(common.UserError, match="Score files of several years"):
        evaluate.main([str(folder), str(other)])
    evaluate.main([str(other), "--year", "2021"])
    assert "fan section_00_source" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        evaluate.main([str(other), "--year", "1999"])


def test_comparison_has_intervals_of_every_figure_and_of_the_score(tmp_path):
    pairs = [write_system(tmp_path / name, shift=shift)[0] for name, shift in (("a", 1.0), ("b", 0.0))]
    (a, b), _ = folders.read_results(pairs, None, tmp_path / "a" / "truth", max_fpr=0.1)
    found = comparison.compare(a, b, max_fpr=0.1, replicates=200)
    assert [line.name for line in found.differences] == ["fan section_03", "fan harmonic mean", "official score"]
    for line in found.differences:
        assert line.interval.shape == (2, len(line.a))
        assert (line.interval[0] <= np.subtract(line.a, line.b) + 0.1).all()
    assert found.differences[0].interval[0, 0] > 0
    assert found.differences[-1].a[0] == MIXED.official_score(a.performance)


def test_a_truth_that_contradicts_itself(tmp_path):
    folder = tmp_path / "ground_truth_data"
    folder.mkdir()
    (folder / "ground_truth_fan_section_00_test.csv").write_text(
        "section_00_source_test_normal_0000.wav,1\nsection_00_source_test_anomaly_0001.wav,1\n"
    )
    with pytest.raises(common.UserError, match="normal_0000.wav: its name says otherwise than its label 1") as error:
        truth.read_truth(tmp_path, read_year(2023))
    assert "anomaly_0001" not in str(error.value)


def rename(folder, old, new):
    for path in folder.glob("*.csv"):
        path.rename(path.with_name(path.name.replace(old, new)))


def test_clips_under_the_names_of_the_official_list(tmp_path, caplog):
    folder, expected = write_system(tmp_path, unit="section_00")
    rename(folder, "fan_section_00_test", "DCASE2023T2fan_section_00_test_seed13711_id(0_)_Eval")  # by the baseline
    for path in folder.glob("*.csv"):
        values = [row.partition(",")[2] for row in path.read_text().splitlines()]
        told = zip(expected.names, expected.labels, expected.domains, values, strict=True)
        rows = [
            f"{name[:11]}{('source', 'target')[d]}_test_{('normal', 'anomaly')[label]}{name[10:-4]}_v_1.wav,{value}\n"
            for name, label, d, value in told
        ]
        path.write_text("".join(rows))
    (result,), _ = folders.read_results([folder], None, tmp_path / "truth", max_fpr=0.1)
    assert result.performance["fan"]["section_00"] == metrics.figures(expected, MIXED, max_fpr=0.1)
    assert "labels as the clips' names say them" in caplog.text and result.decisions
    scores = next(folder.glob("anomaly_score*"))
    scores.write_text(scores.read_text().replace("source_test_normal", "target_test_normal", 1))
    with pytest.raises(common.UserError, match="other numbers of clips by the label and domain in their names"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "truth")])


def test_labels_of_a_list_that_is_wrong(tmp_path, caplog):
    folder, _ = write_system(tmp_path)
    for path in folder.glob("*.csv"):
        rows = path.read_text().splitlines(keepends=True)
        kinds = ["source_test_normal", "source_test_anomaly", "target_test_normal", "target_test_anomaly"] * 10
        path.write_text("".join(f"{row[:11]}{kind}{row[10:]}" for row, kind in zip(rows, kinds, strict=True)))
    with pytest.raises(common.UserError, match="40 clips that the ground truth does not have"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "truth")])
    evaluate.main([str(folder)])
    assert "names of evaluation clips. Official list: its labels contradict" in caplog.text


def test_folders_before_names_decisions_with_points_and_pictures_beside_the_files(tmp_path):
    folder, expected = write_system(tmp_path)
    for before, path in zip(["/data/fan/test/", "C:\\data\\"], sorted(folder.glob("*.csv")), strict=True):
        text = path.read_text().replace("section_03_", f"{before}section_03_")
        path.write_text(text.replace(",1\n", ",1.0\n") if "decision" in path.name else text)
    (folder / "anomaly_score_histogram.png").write_bytes(b"")
    (result,), _ = folders.read_results([folder], None, tmp_path / "truth", max_fpr=0.1)
    assert result.performance["fan"]["section_03"] == metrics.figures(expected, MIXED, max_fpr=0.1)
    assert result.decisions["fan"]["section_03 source"].recall > 0


def test_the_truth_tells_the_year_where_the_score_files_do_not(tmp_path):
    folder, _ = write_system(tmp_path, unit="section_00")
    for place in (folder, tmp_path / "truth" / truth.LABELS, tmp_path / "truth" / truth.DOMAINS):
        rename(place, "fan", "ToyDrone")  # of 2023 and 2026
    labels = tmp_path / "truth" / truth.LABELS
    (labels / "ground_truth_Sander_section_00_test.csv").write_text("section_00_0000.wav,1\n")  # of 2026
    (result,), _ = folders.read_results([folder], None, tmp_path / "truth", max_fpr=0.1)
    assert result.year.year == 2026
    with pytest.raises(common.UserError, match="a ground truth of 2026; the score files are of 2023"):
        evaluate.main([str(folder), "--year", "2023", "--truth", str(tmp_path / "truth")])


def test_truth_of_a_year_whose_files_have_other_names(tmp_path):
    folder, _ = write_system(tmp_path)
    rename(folder, "section_03_test", "section_03_source")  # as teams of 2021 named theirs
    with pytest.raises(common.UserError, match="a ground truth of 2022; the score files are of 2021"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "truth")])


@pytest.mark.parametrize("named", [None, "anomaly_score_fan_sec4.csv"])
def test_what_is_wrong_with_the_score_files_is_told_first(tmp_path, named):
    folder, _ = write_system(tmp_path)
    if named:
        (folder / named).write_text("section_03_0000.wav,1\n")
    else:
        folder = tmp_path / "truth"
    with pytest.raises(common.UserError, match=named or "no file anomaly_score_"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "truth")])
