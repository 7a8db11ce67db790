"""CSVs that went through a spreadsheet, and names with characters that CSVs have a meaning for."""

import importlib

import numpy as np
import pytest
from conftest import read_scores

import common
from evaluation import metrics, score_files
from evaluation.truth import read_truth
from storage.files import write_text
from years.year import read_year

evaluate = importlib.import_module("02_evaluate")

TRUTH = [
    ["fan"],
    ["id_01_00000000.wav", "normal_id_01_00000000.wav", "0"],
    ["id_01_00000001.wav", "anomaly_id_01_00000001.wav", "1"],
    ["pump"],
    ["id_03_00000000.wav", "normal_id_03_00000000.wav", "0"],
]
SCORES = [["normal_id_01_0.wav", "1.5"], ["anomaly_id_01_1.wav", "2"]]


def saved(rows, *, separator=",", quote="", ends="\r\n", encoding="utf-8-sig", pad=False, decimal="."):
    """Bytes of rows as a spreadsheet saves them."""
    width = max(map(len, rows)) if pad else 0
    cells = [[cell if "wav" in cell else cell.replace(".", decimal) for cell in row] for row in rows]
    cells = [[f"{quote}{cell}{quote}" for cell in row] + [""] * (width - len(row)) for row in cells]
    return "".join(separator.join(row) + ends for row in cells).encode(encoding)


READ = [
    {},
    {"pad": True},
    {"separator": ";"},
    {"separator": ";", "pad": True, "quote": '"'},
    {"separator": "\t", "encoding": "utf-16"},
    {"quote": '"', "encoding": "utf-8"},
]


@pytest.mark.parametrize("options", READ)
def test_ground_truth_and_scores_are_read(tmp_path, options):
    (tmp_path / "list.csv").write_bytes(saved(TRUTH, **options) + b"")
    wanted = {
        ("fan", "id_01"): {"id_01_00000000.wav": 0, "id_01_00000001.wav": 1},
        ("pump", "id_03"): {"id_03_00000000.wav": 0},
    }
    told = read_truth(tmp_path / "list.csv")
    assert {key: {name: one.label for name, one in clips.items()} for key, clips in told.items()} == wanted
    path = tmp_path / "anomaly_score_fan_id_01.csv"
    path.write_bytes(saved([*SCORES, ["", ""]], **options))
    assert read_scores(path) == {"normal_id_01_0.wav": 1.5, "anomaly_id_01_1.wav": 2}
    evaluate.main([str(tmp_path)])
    assert (tmp_path / "result.csv").read_text() == "fan\nid,AUC,pAUC\n01,1.0,1.0\nAverage,1.0,1.0\n\n"


@pytest.mark.parametrize(
    "options",
    [
        {"separator": ";"},
        {"quote": '"'},
        {},
        {"separator": "\t", "encoding": "utf-16"},
        {"separator": ";", "pad": True},
    ],
)
@pytest.mark.parametrize("number", ["1.5", "-0.25", "1.2E-05"])
def test_decimal_commas_are_named_in_one_line(tmp_path, options, number):
    rows = [["normal_id_01_0.wav", "2"], ["normal_id_01_1.wav", number], ["anomaly_id_01_1.wav", "7.5"]]
    path = tmp_path / "anomaly_score_fan_id_01.csv"
    path.write_bytes(saved(rows, decimal=",", **options))
    with pytest.raises(common.UserError) as caught:
        evaluate.main([str(tmp_path)])
    fault = f"{path}: numbers with decimal commas, such as {number.replace('.', ',')}; save it with decimal points"
    assert fault in str(caught.value)
    assert "row" not in str(caught.value).replace("one row with", "")


def test_all_files_with_decimal_commas_are_named_at_once(tmp_path):
    for machine_id in ("id_01", "id_03"):
        rows = [[name.replace("id_01", machine_id), "1.5"] for name, _ in SCORES]
        (tmp_path / f"anomaly_score_fan_{machine_id}.csv").write_bytes(saved(rows, decimal=",", separator=";"))
    with pytest.raises(common.UserError, match=r"(?s)id_01.csv: numbers with.*id_03.csv: numbers with"):
        evaluate.main([str(tmp_path)])


@pytest.mark.parametrize(("content", "message"), [
    (b"PK\x03\x04\xff\xff", "not a CSV file in UTF-8"),
    ("Lüfter\r\nid_01_0.wav,normal_id_01_0.wav,0\r\n".encode("cp1252"), "not a CSV file in UTF-8 .*; save it as one"),
    (b'fan\r\n"id_01_0.wav,normal_id_01_0.wav,0"\r\n', "row 2: .*expected name,original name,0 or 1"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(common.UserError, match=message):
        read_truth(tmp_path / "list.csv")


NAMES = ["a\rb.wav", "a\nb.wav", "a\r\nb.wav", 'a"b.wav', "a,b.wav", "a;b.wav", "a.wav;b.wav", "a\tb.wav", " a.wav"]


@pytest.mark.parametrize("folders", [("", ""), ("normal/", "abnormal/")])
def test_names_of_any_kind_are_read_back(tmp_path, folders):
    names = [f"{folder}{number}{name}" for number, folder in enumerate(folders) for name in [*NAMES, "a\\b.wav"]]
    path = tmp_path / "anomaly_score_fan_id_00.csv"
    write_text(path, score_files.scores_text(names, range(len(names))))
    assert list(read_scores(path, any_names=True)) == names
    for name in names:
        write_text(path, score_files.scores_text([name], [1.5]))
        assert read_scores(path, any_names=True) == {name: 1.5}


def test_a_backslash_in_a_name_keeps_its_label():
    for name in NAMES + ["a\\b.wav"]:
        labels = [
            score_files.said_by(f"{folder}{name}", any_names=True, year=read_year(2020)).label
            for folder in ("normal/", "Abnormal/", "")
        ]
        assert labels == [0, 1, None]


def test_one_clip_without_a_label_leaves_the_others_their_auc():
    clips = metrics.LabelledScores(np.array([0, -1, 1, -1]), np.array([0.0, 9.0, 1.0, -9.0]))
    scores = {("fan", "id_00"): clips}
    assert metrics.evaluate(scores, max_fpr=0.1, rated_only=True) == {"fan": {"id_00": (1.0, 1.0)}}
