"""AUC and pAUC by hand, the score CSVs and result.csv to the byte, published figures."""

import numpy as np
import pytest
from conftest import read_scores, write_scores

import common
from evaluation import metrics, published, score_files, tables
from evaluation.rules import IDS
from years.year import read_year


def clips(labels, scores):
    return metrics.LabelledScores(np.array(labels), np.array(scores))


def official_test_set(dataset):
    """Labels and increasing scores with as many clips per machine ID and label as the official test set."""
    return {
        (machine_type, machine_id): clips(np.repeat([0, 1], counts), np.arange(sum(counts), dtype=float))
        for machine_type, ids in read_year(2020).test_clips[dataset].items()
        for machine_id, counts in ids.items()
    }


# ---- AUC and pAUC ----


def test_auc_and_pauc_by_hand():
    # One anomaly above all normals, one below: TPR is 1/2 throughout, so half of the range's rectangle is covered.
    auc, pauc = metrics.auc_pauc([0] * 10 + [1, 1], [*range(10), 99, -1], max_fpr=0.1)
    assert auc == 0.5
    assert pauc == pytest.approx(0.5 * (1 + (0.05 - 0.005) / (0.1 - 0.005)))


def test_ties_between_a_normal_and_an_anomaly_count_half():
    assert metrics.auc_pauc([0, 1], [1.0, 1.0], max_fpr=0.1) == (0.5, pytest.approx(0.5))
    assert metrics.auc_pauc([0, 0, 1], [0.0, 1.0, 1.0], max_fpr=1)[0] == 0.75


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [1.0, 2.0], "2 normal and 0 anomalous"),
        ([1, 1], [1.0, 2.0], "0 normal and 2 anomalous"),
        ([0, 1], [1.0, np.nan], "1 scores are not finite"),
        ([0, 1], [np.inf, 1.0], "1 scores are not finite"),
        ([0, 2], [1.0, 2.0], "labels must be 0"),
        ([0, 1], [1.0], "one of each per clip"),
    ],
)
def test_auc_of_what_has_none_is_an_error(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.auc_pauc(labels, scores, max_fpr=0.1)


def test_evaluate_keeps_order_and_averages():
    performance = metrics.evaluate(
        {
            ("pump", "id_02"): clips([0, 1], [0.0, 1.0]),
            ("fan", "id_00"): clips([0, 1], [1.0, 0.0]),
            ("fan", "id_02"): clips([0, 1], [0.0, 1.0]),
        },
        max_fpr=1.0,
    )
    assert performance == {"pump": {"id_02": (1.0, 1.0)}, "fan": {"id_00": (0.0, 0.0), "id_02": (1.0, 1.0)}}
    assert list(performance) == ["pump", "fan"]
    assert IDS.average(performance["fan"]) == (0.5, 0.5)


def test_evaluate_names_every_machine_id_without_auc():
    with pytest.raises(common.UserError, match=r"(?s)fan id_00: 1 normal and 0.*pump id_02: 0 normal and 1"):
        metrics.evaluate({("fan", "id_00"): clips([0], [1.0]), ("pump", "id_02"): clips([1], [1.0])}, max_fpr=0.1)


# ---- score CSVs ----


def test_score_file_is_official_to_the_byte_and_reads_back_equal(tmp_path):
    path = score_files.score_path(tmp_path / "new", "ToyCar", "id_01")
    names = ["normal_id_01_00000000.wav", "anomaly_id_01_00000000.wav", "anomaly_id_01_00000001.wav"]
    scores = np.array([0.1, 1e-7, 11.293758882670634])
    write_scores(path, names, scores)
    assert path.read_bytes() == (
        b"normal_id_01_00000000.wav,0.1\nanomaly_id_01_00000000.wav,1e-07\nanomaly_id_01_00000001.wav,11.293758882670634\n"
    )
    assert read_scores(path) == dict(zip(names, scores.tolist(), strict=True))
    assert score_files.score_files(tmp_path / "new") == {("ToyCar", "id_01"): path}


def test_score_that_is_not_finite_is_never_written(tmp_path):
    path = tmp_path / "anomaly_score_fan_id_00.csv"
    with pytest.raises(ValueError, match=r"2 scores are not finite: b.wav \(nan\), c.wav \(-inf\)"):
        write_scores(path, ["a.wav", "b.wav", "c.wav"], [1.0, np.nan, -np.inf])
    assert list(tmp_path.iterdir()) == []


def test_every_fault_of_a_score_file_is_named_with_its_row(tmp_path):
    path = tmp_path / "anomaly_score_fan_id_00.csv"
    path.write_text(
        "normal_id_00_1.wav,1\nnormal_id_00_2.wav,nan\nnormal_id_00_1.wav,2\nnormal_id_02_1.wav,2\n"
        "file,score\nnormal_id_00_3.wav\nnormal_id_00_4.wav,x\n\nnormal_id_00_5.wav,inf\n"
    )
    with pytest.raises(common.UserError) as error:
        read_scores(path)
    for row, fault in {
        2: "normal_id_00_2.wav: score nan is not finite",
        3: "normal_id_00_1.wav again, first in row 1",
        4: "normal_id_02_1.wav is a clip of id_02; the file is of id_00",
        5: "'file': name is not of the form",
        6: "1 columns; expected two",
        7: "normal_id_00_4.wav: score 'x' is not a number",
        9: "normal_id_00_5.wav: score inf is not finite",
    }.items():
        assert f"{path}, row {row}: {fault}" in str(error.value)
    assert "row 1:" not in str(error.value)


@pytest.mark.parametrize("text", ["0x10", "", "1,5"])
def test_what_is_no_number_is_no_score(text):
    with pytest.raises(ValueError, match=f"score '{text}' is not a number"):
        score_files.parse_score_row(["id_00_1.wav", text], unit=None)
    assert score_files.parse_score_row(["id_00_1.wav", " -1.5e-3"], unit="id_00") == ("id_00_1.wav", -0.0015)


def test_digits_of_other_scripts_make_no_machine_id(tmp_path):
    with pytest.raises(ValueError, match="not of the form"):
        score_files.parse_score_row(["id_٠٠_1.wav", "1"], unit=None)
    (tmp_path / "anomaly_score_fan_id_٠٠.csv").touch()
    with pytest.raises(common.UserError, match="not of the form"):
        score_files.score_files(tmp_path)


@pytest.mark.parametrize(("content", "message"), [(b"", "no rows"), (b"\xff\xfe\x00", "not a CSV file in UTF-8")])
def test_spoilt_score_file_is_an_error(tmp_path, content, message):
    path = tmp_path / "anomaly_score_fan_id_00.csv"
    path.write_bytes(content)
    with pytest.raises(common.UserError, match=message):
        read_scores(path)


def test_folder_without_usable_score_files_is_an_error(tmp_path):
    with pytest.raises(common.UserError, match="no such folder"):
        score_files.score_files(tmp_path / "none")
    with pytest.raises(common.UserError, match=r"run 01_test\.py first"):
        score_files.score_files(tmp_path)
    (tmp_path / "anomaly_score_fan_id_5.csv").touch()
    with pytest.raises(common.UserError, match=r"(?s)not of the form.*anomaly_score_fan_id_5\.csv"):
        score_files.score_files(tmp_path)


def test_files_are_in_the_order_of_machine_types_not_of_their_names(tmp_path):
    for name in ("a_b_id_00", "a_id_02", "a_id_00"):
        (tmp_path / f"anomaly_score_{name}.csv").touch()
    assert list(score_files.score_files(tmp_path)) == [("a", "id_00"), ("a", "id_02"), ("a_b", "id_00")]


# ---- result.csv ----


def test_result_file_is_official_to_the_byte(tmp_path):
    performance = {"ToyCar": {"id_01": (0.5, 0.25), "id_02": (1.0, 0.75)}, "fan": {"id_00": (1 / 3, 0.1)}}
    score_files.write_result(tmp_path / "result.csv", performance)
    assert (tmp_path / "result.csv").read_bytes() == (
        b"ToyCar\nid,AUC,pAUC\n01,0.5,0.25\n02,1.0,0.75\nAverage,0.75,0.5\n\n"
        b"fan\nid,AUC,pAUC\n00,0.3333333333333333,0.1\nAverage,0.3333333333333333,0.1\n\n"
    )


# ---- published figures ----


def test_published_averages_are_those_of_their_machine_ids():
    # Rounding aside: an average of rounded figures is off by at most 0.005, and so is the rounded average.
    checked = 0
    for figures in published.published_figures():
        for machine_type, ids in figures.machine_ids.items():
            assert np.mean(list(ids.values()), axis=0) == pytest.approx(figures.machine_types[machine_type], abs=0.0101)
            assert ids.keys() == read_year(2020).test_clips[figures.dataset][machine_type].keys()
            checked += 1
    assert checked == 12


def test_published_figures_cover_a_test_set_or_say_a_mean():
    every = {dataset: set(types) for dataset, types in read_year(2020).test_clips.items()}
    for figures in published.published_figures():
        means = [mean for mean in (figures.mean, figures.mean_of_both) if mean is not None]
        assert (set(figures.machine_types) == every[figures.dataset]) + len(means) == 1, figures.name
        pairs = [*figures.machine_types.values(), *filter(None, [figures.mean])]
        assert all(50 < pauc < auc < 100 for auc, pauc in pairs)
    names = [figures.name for figures in published.published_figures()]
    assert {"Noisy-ArcMix, pooled over IDs", "STgram-MFN, best epoch on the test clips"} <= set(names)


def test_published_means_need_all_machine_types():
    for dataset in ("dev", "eval"):
        scores = official_test_set(dataset)
        of_all = {figures.name for figures in published.comparable_figures([scores], max_fpr=0.1)}
        assert of_all == {figures.name for figures in published.published_figures() if figures.dataset == dataset}
        fans = {key: values for key, values in scores.items() if key[0] == "fan"}
        of_fan = {figures.name for figures in published.comparable_figures([scores, fans], max_fpr=0.1)}
        assert of_all - of_fan == {"ASDKit", "ASDKit, BEATs", "ASDKit, autoencoder"} | (
            {"SECOM"} if dataset == "dev" else set()
        )


@pytest.mark.parametrize(
    ("dataset", "n_clips", "name"),
    [("dev", 10_868, "official baseline"), ("eval", 7_103, "official sample run")],
)
def test_official_test_sets_are_recognised_by_their_numbers(dataset, n_clips, name):
    scores = official_test_set(dataset)
    assert published.official_dataset(scores) == dataset
    assert sum(len(one.labels) for one in scores.values()) == n_clips
    assert published.official_figures(scores).name == name
    scores["fan", next(id_ for type_, id_ in scores if type_ == "fan")] = ([0, 1], [0, 1])
    assert published.official_figures(scores) is None


def test_one_whole_machine_type_is_enough_to_compare():
    fans = {key: values for key, values in official_test_set("dev").items() if key[0] == "fan"}
    assert published.official_dataset(fans) == "dev"
    fans.popitem()
    assert published.official_dataset(fans) is None


def test_columns_are_in_line_on_a_terminal_whatever_the_script():
    table = tables.Table(["", "AUC"], [["装置", "1"], ["fan", "10"], ["e\u0301", "2"]])
    lines = tables.as_text(table).splitlines()
    assert lines[2:] == ["装置    1", "fan    10", "e\u0301       2"]


def test_summary_table_has_the_published_figures_beside_ours():
    scores = {key: values for key, values in official_test_set("dev").items() if key[0] in ("fan", "pump")}
    performance = metrics.evaluate(scores, max_fpr=0.1)
    table = tables.summary_text(performance, published.official_figures(scores))
    assert table.splitlines()[:-1] == [
        "machine type  AUC [%]  pAUC [%]      published       difference",
        "------------  -------  --------  -------------  ---------------",
        "fan            100.00    100.00  65.83 / 52.45  +34.17 / +47.55",
        "pump           100.00    100.00  72.89 / 59.99  +27.11 / +40.01",
        "mean           100.00    100.00  69.36 / 56.22  +30.64 / +43.78",
    ]
    assert "published" not in tables.summary_text(performance)
