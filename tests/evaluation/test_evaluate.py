"""02_evaluate.py and comparison.py: pairing, faults, differences, intervals, ranking."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import SHIPPED, read_scores, write_scores

import common
from evaluation import bootstrap, comparison, html_report, metrics, score_files, tables
from evaluation.folders import Result, folder_names, read_results
from evaluation.published import published_figures
from evaluation.ranking import rank
from evaluation.rules import IDS
from evaluation.truth import read_truth
from storage.files import expanded, write_text
from years.year import read_year

evaluate = importlib.import_module("02_evaluate")

# What the official evaluator (dcase2020_task2_evaluator, scikit-learn 1.9.1) writes for the files of `submission`.
OFFICIAL_RESULT = """\
fan
id,AUC,pAUC
01,0.6990950226244343,0.7039771374136699
03,0.7567873303167421,0.6642057632769707
Average,0.7279411764705882,0.6840914503453203

valve
id,AUC,pAUC
01,0.6278280542986425,0.5663253155513217
Average,0.6278280542986425,0.5663253155513217

"""


@pytest.fixture
def submission(tmp_path):
    """Score files of three machine IDs of an evaluation set, and its ground truth; returns (folder, list)."""
    folder = tmp_path / "team"
    folder.mkdir()
    truth = []
    for machine_type, machine_ids in (("fan", ("id_01", "id_03")), ("valve", ("id_01",))):
        truth.append(machine_type)
        for machine_id in machine_ids:
            rows = []
            for k in range(60):
                label = int(k * k % 7 in (1, 2))
                name = f"{machine_id}_{k:08d}.wav"
                truth.append(f"{name},{('normal', 'anomaly')[label]}_{machine_id}_{59 - k:08d}.wav,{label}")
                score = (k * k * 31 + 17 * len(machine_type) * int(machine_id[-1]) * (k + 1)) % 97 / 7 + 4 * label
                rows.append(f"{name},{score!r}")
            score_files.score_path(folder, machine_type, machine_id).write_text("\n".join(rows) + "\n")
    (tmp_path / "eval_data_list.csv").write_text("\n".join(truth) + "\n")
    return folder, tmp_path / "eval_data_list.csv"


def write_folder(folder, *, shift, n_clips=40, keys=(("fan", "id_00"), ("fan", "id_02"), ("pump", "id_00")), noise=1.0):
    """Score files with development names: the same clips for every ``shift``, which is the anomalies' distance."""
    rng = np.random.default_rng(1)
    own = np.random.default_rng(round(1000 * shift))
    for machine_type, machine_id in keys:
        names = [f"{label}_{machine_id}_{k:08d}.wav" for label in ("normal", "anomaly") for k in range(n_clips)]
        labels = np.repeat([0, 1], n_clips)
        scores = rng.standard_normal(2 * n_clips) + noise * own.standard_normal(2 * n_clips) + shift * labels
        write_scores(score_files.score_path(folder, machine_type, machine_id), names, scores)
    return folder


def read(*folders, against=None):
    return read_results(folders, against, None, max_fpr=0.1)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# ---- the official evaluator's job ----


def test_result_is_the_official_evaluators(submission, tmp_path, capsys):
    folder, truth = submission
    evaluate.main([str(folder), "--truth", str(truth)])
    ours, official = (text.splitlines() for text in ((folder / "result.csv").read_text(), OFFICIAL_RESULT))
    assert [line.split(",")[0] for line in ours] == [line.split(",")[0] for line in official]
    numbers = [[float(n) for line in text if line.count(",") == 2 and "id" not in line for n in line.split(",")[1:]]
               for text in (ours, official)]  # fmt: skip
    assert len(numbers[0]) == 10
    assert numbers[0] == pytest.approx(numbers[1], rel=0, abs=1e-12)
    printed = capsys.readouterr().out
    assert ["fan", "id_01", "69.91", "70.40"] in [line.split() for line in printed.splitlines()]
    assert f"written to {folder / 'result.csv'}" in printed


def test_pairing_is_by_name_not_by_order(submission):
    folder, truth = submission
    for path in folder.glob("*.csv"):
        rows = path.read_text().splitlines()
        path.write_text("\n".join(rows[7:] + rows[:7][::-1]) + "\n")
    rows = truth.read_text().splitlines()
    truth.write_text("\n".join([rows[0], *rows[120:0:-1], *rows[121:]]) + "\n")
    evaluate.main([str(folder), "--truth", str(truth)])
    performance = metrics.evaluate(score_files.read_folder(folder, read_truth(truth)), max_fpr=0.1)
    assert performance["fan"]["id_01"] == pytest.approx((0.6990950226244343, 0.7039771374136699), abs=1e-12)
    assert performance["fan"]["id_03"] == pytest.approx((0.7567873303167421, 0.6642057632769707), abs=1e-12)


def test_every_fault_of_a_folder_is_in_one_error(submission):
    folder, truth = submission
    fan_01, fan_03, valve = (score_files.score_path(folder, *key) for key in score_files.score_files(folder))
    rows = fan_01.read_text().splitlines()
    rows[3] = rows[3].split(",")[0] + ",nan"  # not finite
    del rows[10]  # missing
    rows += [rows[0], "id_01_00000777.wav,1.0"]  # repeated, not in the truth
    fan_01.write_text("\n".join(rows) + "\n")
    fan_03.unlink()
    valve.rename(score_files.score_path(folder, "valve", "id_09"))
    with pytest.raises(common.UserError) as error:
        evaluate.main([str(folder), "--truth", str(truth)])
    message = str(error.value)
    assert f"{fan_01}, row 4: id_01_00000003.wav: score nan is not finite" in message
    assert f"{fan_01}, row 60: id_01_00000000.wav again, first in row 1" in message
    assert f"{fan_01}: 1 clips that the ground truth does not have: id_01_00000777.wav (row 61)" in message
    assert f"{fan_01}: 1 clips of the ground truth are missing: id_01_00000010.wav" in message
    assert f"{fan_03}: missing (60 clips)" in message
    assert f"{valve}: missing (60 clips)" in message
    assert "anomaly_score_valve_id_09.csv: the ground truth has no clips of this machine ID" in message
    assert not (folder / "result.csv").exists()


def test_faults_of_all_folders_are_in_one_error(submission, tmp_path):
    folder, truth = submission
    write_folder(tmp_path / "dev", shift=1.0)
    with pytest.raises(common.UserError, match=r"(?s)team.*id_03\.csv: missing.*dev.*has no clips of this machine ID"):
        score_files.score_path(folder, "fan", "id_03").unlink()
        evaluate.main([str(folder), str(tmp_path / "dev"), "--truth", str(truth)])


def test_a_machine_type_that_is_not_scored_is_said_not_an_error(submission, caplog):
    folder, truth = submission
    score_files.score_path(folder, "valve", "id_01").unlink()
    evaluate.main([str(folder), "--truth", str(truth)])
    assert "no scores of valve" in caplog.text
    assert (folder / "result.csv").read_text().startswith("fan\n")


def test_one_line_says_that_labels_are_missing(submission, tmp_path):
    for name in "abc":
        shutil.copytree(submission[0], tmp_path / "eval" / name)
    with pytest.raises(common.UserError) as caught:
        evaluate.main([str(tmp_path / "eval")])
    (line,) = str(caught.value).splitlines()
    assert "eval/a: 180 names do not say normal or anomaly" in line
    evaluate.main([str(tmp_path / "eval"), "--truth", str(submission[1])])


def test_one_name_without_a_label_is_named(tmp_path):
    folder = write_folder(tmp_path / "system", shift=1.0, n_clips=3, keys=[("fan", "id_00")])
    edit(score_files.score_path(folder, "fan", "id_00"), "normal_id_00_00000001", "id_00_00000001")
    with pytest.raises(common.UserError, match=r"1 names do not say normal or anomaly \(id_00_00000001.wav\)"):
        evaluate.main([str(folder)])


def test_dataset_folder_as_truth_finds_missing_clips(tmp_path):
    folder = write_folder(tmp_path / "system", shift=1.0, n_clips=3, keys=[("fan", "id_00")])
    test_clips = tmp_path / "dev_data" / "fan" / "test"
    test_clips.mkdir(parents=True)
    for name in read_scores(score_files.score_path(folder, "fan", "id_00")):
        (test_clips / name).touch()
    evaluate.main([str(folder), "--truth", str(tmp_path / "dev_data")])
    (test_clips / "anomaly_id_00_00000003.wav").touch()
    with pytest.raises(common.UserError, match=r"1 clips of the ground truth are missing: anomaly_id_00_00000003\.wav"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "dev_data")])
    (test_clips / "id_00_00000004.wav").touch()
    with pytest.raises(common.UserError, match="id_00_00000004.wav: no normal or anomaly in its name"):
        evaluate.main([str(folder), "--truth", str(tmp_path / "dev_data")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id_00_1.wav,normal_id_00_1.wav,0\n", "row 1: no line with a machine type above it"),
        ("fan\nid_00_1.wav,normal_id_00_1.wav,2\n", "row 2: .*expected name,original name,0 or 1"),
        ("fan\nid_00_1.wav,normal_id_00_1.wav,1\n", "row 2: normal_id_00_1.wav is not the original name"),
        ("fan\n" + 2 * "id_00_1.wav,normal_id_00_1.wav,0\n", "row 3: id_00_1.wav again"),
        ("fan\nx.wav,normal_id_00_1.wav,0\n", "row 2: name is not of the form"),
        ("fan\n", "no rows"),
    ],
)
def test_faults_of_the_ground_truth(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(common.UserError, match=message):
        read_truth(tmp_path / "list.csv")
    with pytest.raises(common.UserError, match="cannot be read"):
        read_truth(tmp_path / "none.csv")


# ---- folders and files ----


def test_a_folder_of_folders_stands_for_all_of_them(tmp_path, capsys):
    for system, shift in (("a", 0.5), ("b", 2.0)):
        write_folder(tmp_path / "dev" / system, shift=shift)
    (tmp_path / "dev" / "notes.txt").touch()
    evaluate.main([str(tmp_path / "dev"), "--rank"])
    printed = capsys.readouterr().out
    assert (tmp_path / "dev" / "a" / "result.csv").exists()
    assert (tmp_path / "dev" / "b" / "result.csv").exists()
    ranking = [line.split()[:3] for line in printed[printed.index("mean rank") :].splitlines()[2:4]]
    assert ranking == [["b", "1", "1.00"], ["a", "2", "2.00"]]


def test_names_are_as_long_as_they_must_be(tmp_path):
    folders = [tmp_path / "eval" / "x", tmp_path / "dev+eval" / "x"]
    assert folder_names(folders) == ["eval/x", "dev+eval/x"]
    assert folder_names(folders[:1]) == ["x"]


def test_output_is_a_file_or_for_several_a_folder(tmp_path):
    a, b = (write_folder(tmp_path / name, shift=1.0) for name in "ab")
    evaluate.main([str(a), "--output", str(tmp_path / "out" / "a.csv")])
    evaluate.main([str(a), str(b), "--output", str(tmp_path / "out")])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.csv", "result_a.csv", "result_b.csv"]
    assert not (a / "result.csv").exists()
    with pytest.raises(common.UserError, match="--output puts it elsewhere"):
        evaluate.main([str(a), "--output", str(tmp_path / "out")])


def yaml_at(path, **changes):
    block = yaml.safe_load(SHIPPED.read_text(encoding="utf-8")) | changes
    write_text(path, yaml.safe_dump(block, sort_keys=False))
    return path


@pytest.mark.parametrize("given", [True, False])
def test_result_file_and_max_fpr_are_the_yamls(tmp_path, monkeypatch, capsys, given):
    folder = write_folder(tmp_path / "dev" / "a", shift=1.0)
    path = yaml_at(tmp_path / "baseline.yaml", max_fpr=0.3, result_file="figures.csv")
    monkeypatch.chdir("/" if given else tmp_path)
    evaluate.main([str(folder), *(["--config", str(path)] if given else [])])
    assert [file.name for file in folder.glob("*.csv") if "score" not in file.name] == ["figures.csv"]
    wanted = metrics.evaluate(score_files.read_folder(folder), max_fpr=0.3)["fan"]["id_00"][1]
    assert f",{wanted!r}\n" in (folder / "figures.csv").read_text()
    evaluate.main([str(folder), "--max-fpr", "0.1", *(["--config", str(path)] if given else [])])  # has the last word
    assert f",{wanted!r}\n" not in (folder / "figures.csv").read_text()
    path.write_text("max_fpr: 2")
    with pytest.raises(common.UserError, match="baseline.yaml"):
        evaluate.main([str(folder), *(["--config", str(path)] if given else [])])


def test_systems_are_in_the_yamls_order(tmp_path, monkeypatch, capsys):
    for name in ("a_system_of_mine", "l2_softmax", "baseline_ae", "vae", "tuned_ae"):
        write_folder(tmp_path / "dev" / name, shift=1.0, keys=[("fan", "id_00")])
    monkeypatch.chdir(tmp_path)
    yaml_at(tmp_path / "baseline.yaml")
    evaluate.main(["dev"])
    order = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "machine IDs" in line]
    assert order == ["baseline_ae", "tuned_ae", "vae", "l2_softmax", "a_system_of_mine"]
    evaluate.main(["dev/vae", "dev/baseline_ae"])  # named one by one: the user's order
    order = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "machine IDs" in line]
    assert order == ["vae", "baseline_ae"]


def test_patterns_are_expanded_where_the_shell_does_not(tmp_path, monkeypatch):
    for name in ("b", "a"):
        write_folder(tmp_path / "eval" / name, shift=1.0)
    (tmp_path / "eval" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert evaluate.parse_arguments(["eval/*"]).folders == [Path("eval/a"), Path("eval/b")]
    assert expanded(str(tmp_path / "ev*" / "?")) == [tmp_path / "eval" / "a", tmp_path / "eval" / "b"]
    assert expanded("eval") == [Path("eval")]
    (tmp_path / "odd[1]").mkdir()
    assert expanded("odd[1]") == [Path("odd[1]")]
    with pytest.raises(common.UserError, match=r"none\*: no such folder"):
        evaluate.main(["none*"])


def test_help_is_quick_and_bad_rates_exit_with_2():
    code = (
        "import importlib, sys\ntry: importlib.import_module('02_evaluate').main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'tensorflow', 'sklearn', 'matplotlib', 'scipy', 'librosa'} & set(sys.modules)"
    )
    root = Path(evaluate.__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, timeout=30)
    for rate in ("0", "1.5", "x"):
        with pytest.raises(SystemExit) as error:
            evaluate.main(["anywhere", "--max-fpr", rate])
        assert error.value.code == 2


# ---- decisions ----


def test_decisions_by_hand():
    figures = metrics.decision_figures([0, 0, 0, 0, 1, 1, 1], [1, 0, 0, 0, 1, 1, 0])
    assert figures == pytest.approx((2 / 3, 2 / 3, 2 / 3, 1 / 4))
    assert metrics.decision_figures([0, 0, 1], [0, 0, 0]) == (0, 0, 0, 0)  # nothing called: as the later baselines
    from sklearn.metrics import precision_recall_fscore_support

    rng = np.random.default_rng(0)
    labels, decisions = rng.integers(2, size=(2, 50))
    expected = precision_recall_fscore_support(labels, decisions, average="binary")[:3]
    assert metrics.decision_figures(labels, decisions)[:3] == pytest.approx(expected)


def test_what_the_clips_do_not_tell_of_decisions_is_not_known():
    nan = np.nan
    assert metrics.decision_figures([0, 0], [1, 0]) == pytest.approx((nan, nan, nan, 0.5), nan_ok=True)
    assert metrics.decision_figures([1, 1], [1, 0]) == pytest.approx((nan, 0.5, nan, nan), nan_ok=True)
    averages = metrics.decision_averages([metrics.Decisions(nan, 1, nan, 0.5), metrics.Decisions(1, 0, nan, 0)])
    assert averages == pytest.approx((1, 0.5, nan, 0.25), nan_ok=True)


@pytest.fixture
def decided(tmp_path):
    """Folder of score files with decisions: anomalous above 0.5."""
    folder = write_folder(tmp_path / "dev" / "tuned_ae", shift=1.0)
    for key, path in score_files.score_files(folder).items():
        scores = read_scores(path)
        text = score_files.decisions_text(scores, [value > 0.5 for value in scores.values()])
        write_text(folder / read_year(2020).file_name(score_files.DECISIONS, *key), text)
    return folder


def test_decisions_are_told_beside_the_official_result(decided, capsys):
    result = read(decided)[0][0]
    values = result.scores["fan", "id_00"]
    called, anomalies = values.scores > 0.5, values.labels == 1
    precision, recall = np.mean(anomalies[called]), np.mean(called[anomalies])
    expected = (precision, recall, 2 * precision * recall / (precision + recall), np.mean(called[~anomalies]))
    assert result.decisions["fan"]["id_00"] == pytest.approx(expected)
    evaluate.main([str(decided)])
    cells = [f"{100 * value:.2f}" for value in expected]
    out = capsys.readouterr().out
    assert ["fan", "id_00", *cells] in [line.split() for line in out.splitlines()]
    assert "F1/false alarms [%]" in out
    assert " / ".join(cells) in html_report.report_html([result], [], [], [], [], max_fpr=0.1)
    rows = (decided / "decision_result.csv").read_text().splitlines()
    assert rows[:2] == ["fan", "id,precision,recall,F1,false alarm rate"]
    assert [float(cell) for cell in rows[2].split(",")[1:]] == pytest.approx(expected)
    assert [row.split(",")[0] for row in rows[3:]] == ["02", "Average", "", "pump", "id", "00", "Average", ""]
    before = (decided / "result.csv").read_bytes()
    for path in decided.glob("decision_*"):
        path.unlink()
    evaluate.main([str(decided)])
    assert (decided / "result.csv").read_bytes() == before  # official, whatever else there is
    assert "false alarms" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("normal_id_00_00000001.wav,", "normal_id_00_00000001.wav,2", r"row 2: .*'2[01]'; expected 0 or 1"),
        ("normal_id_00_00000001.wav", "normal_id_00_00000077.wav", "other clips than in the score file beside it"),
        (
            "normal_id_00_00000001.wav",
            "normal_id_02_00000001.wav",
            "row 2: .* is a clip of id_02; the file is of ",
        ),
    ],
)
def test_decisions_that_do_not_fit_the_scores_are_named(decided, old, new, message):
    edit(decided / "decision_result_fan_id_00.csv", old, new)
    with pytest.raises(common.UserError, match=f"decision_result_fan_id_00.csv(, |: ){message}"):
        evaluate.main([str(decided)])


# ---- differences and their intervals ----


@pytest.mark.parametrize("max_fpr", [0.1, 0.33, 1.0])
@pytest.mark.parametrize("n_values", [3, 1000])  # with and without ties
def test_areas_of_resampled_clips_are_those_of_the_repeated_clips(max_fpr, n_values):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [15, 9]))
    scores = rng.integers(n_values, size=24).astype(float)
    counts = rng.integers(4, size=(20, 24))
    auc, pauc = bootstrap.resampled_areas(labels, scores, counts, max_fpr=max_fpr)
    for row, *areas in zip(counts, auc, pauc, strict=True):
        expected = metrics.auc_pauc(labels.repeat(row), scores.repeat(row), max_fpr=max_fpr)
        assert areas == pytest.approx(expected, abs=1e-12)


def test_every_bootstrap_sample_keeps_the_numbers_of_both_labels(monkeypatch):
    labels = np.array([0, 1, 0, 0, 1])
    seen = []
    areas = bootstrap.resampled_areas
    monkeypatch.setattr(
        bootstrap,
        "resampled_areas",
        lambda lab, s, counts, **k: seen.append(counts.copy()) or areas(lab, s, counts, **k),
    )
    scores = np.arange(5.0)
    rng = np.random.default_rng(0)
    figures = bootstrap.bootstrap_figures(labels, scores, -scores, max_fpr=0.1, replicates=250, rng=rng)
    assert figures.shape == (2, 250, 2)
    for of_a, of_b in zip(seen[::2], seen[1::2], strict=True):
        np.testing.assert_array_equal(of_a, of_b)  # paired
        assert (of_a[:, labels == 0].sum(axis=1) == 3).all()  # stratified
        assert (of_a[:, labels == 1].sum(axis=1) == 2).all()
    assert len(np.unique(np.concatenate(seen), axis=0)) > 10


def test_comparison_of_equals_and_of_swapped_results(tmp_path):
    a = write_folder(tmp_path / "a", shift=2.5)
    b = write_folder(tmp_path / "b", shift=0.3)
    (result_a, result_b), _ = read(a, b)
    there = comparison.compare(result_a, result_b, max_fpr=0.1)
    back = comparison.compare(result_b, result_a, max_fpr=0.1)
    names = ["fan id_00", "fan id_02", "fan Average", "pump id_00", "pump Average", "mean"]
    assert [difference.name for difference in there.differences] == names
    for one, other in zip(there.differences, back.differences, strict=True):
        assert one.a == other.b
        np.testing.assert_allclose(one.interval, -other.interval[::-1], atol=1e-12)
        assert one.interval[0, 0] < one.a[0] - one.b[0] < one.interval[1, 0]
        assert one.interval[0, 0] > 0  # a is plainly better
    fan = result_a.performance["fan"]
    assert there.differences[2].a == pytest.approx(np.mean([fan["id_00"], fan["id_02"]], axis=0))
    same = comparison.compare(result_a, result_a, max_fpr=0.1)
    assert all((d.interval == 0).all() for d in same.differences)
    assert all(s.correlation == pytest.approx(1) and s.a == s.b for s in same.score_differences)


def test_interval_narrows_with_more_clips_and_averages_are_narrower_than_their_ids(tmp_path):
    widths = {}
    for n_clips in (40, 360):
        folders = [write_folder(tmp_path / f"{s}_{n_clips}", shift=s, n_clips=n_clips) for s in (1.0, 1.2)]
        result = comparison.compare(*read(*folders)[0], max_fpr=0.1, replicates=400)
        widths[n_clips] = [np.ptp(difference.interval[:, 0]) for difference in result.differences]
    # 9 times as many clips: a third of the width, give or take the noise of the bootstrap and of the draw.
    assert np.mean(widths[360]) / np.mean(widths[40]) == pytest.approx(1 / 3, abs=0.1)
    assert widths[360][2] < min(widths[360][:2])


def test_interval_hangs_on_the_seed_alone_not_on_the_order_of_rows_or_ids(tmp_path):
    a, b = (write_folder(tmp_path / f"{shift}", shift=shift) for shift in (1.0, 1.2))
    first = comparison.compare(*read(a, b)[0], max_fpr=0.1).differences
    path = score_files.score_path(a, "fan", "id_00")
    path.write_text("\n".join(path.read_text().splitlines()[::-1]) + "\n")
    for folder in (a, b):
        score_files.score_path(folder, "fan", "id_02").unlink()
    results = read(a, b)[0]
    again = comparison.compare(*results, max_fpr=0.1).differences
    np.testing.assert_array_equal(first[0].interval, again[0].interval)
    other_seed = comparison.compare(*results, max_fpr=0.1, seed=1).differences
    assert (first[0].interval != other_seed[0].interval).any()


def test_an_interval_that_ends_at_nought_but_for_rounding_errors_does_not_leave_it_out():
    differences = np.full((100, 2), -1e-17)
    differences[:50] = -0.3
    ends = bootstrap.interval(differences)
    assert ends.tolist() == [[-0.3, -0.3], [0.0, 0.0]]
    assert not np.signbit(ends[1]).any()


def test_scores_are_compared_by_hand(tmp_path):
    names = [f"{label}_id_00_{k}.wav" for label in ("normal", "anomaly") for k in range(2)]
    for folder, scores in (("a", [1, 2, 3, 4]), ("b", [1, 3, 2, 40]), ("c", [5, 5, 5, 5])):
        write_scores(score_files.score_path(tmp_path / folder, "fan", "id_00"), names, scores)
    a, b, c = read(*(tmp_path / folder for folder in "abc"))[0]
    (scores,) = comparison.compare(a, b, max_fpr=0.1).score_differences
    assert (scores.clip, scores.a, scores.b) == ("anomaly_id_00_1.wav", 4, 40)
    assert scores.correlation == pytest.approx(0.8)  # 1 - 6 * (1 + 1) / (4 * 15)
    against_constant = comparison.compare(a, c, max_fpr=0.1)
    assert against_constant.score_differences[0].correlation is None
    assert "nan" not in tables.comparison_text(against_constant)


def test_against_compares_every_other_folder(tmp_path, capsys):
    for system, shift in (("a", 0.5), ("b", 2.0), ("c", 1.0)):
        write_folder(tmp_path / "dev" / system, shift=shift)
    evaluate.main([str(tmp_path / "dev"), "--against", str(tmp_path / "dev" / "c")])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("a:", "b:")) and len(line) < 5] == [
        "a: a",
        "b: c",
        "a: b",
        "b: c",
    ]
    assert any(line.startswith("fan Average") and "[" in line for line in lines)


def test_folders_that_do_not_cover_the_same_clips(tmp_path, caplog):
    a = write_folder(tmp_path / "a", shift=1.0)
    b = write_folder(tmp_path / "b", shift=2.0, keys=[("fan", "id_00")])
    evaluate.main([str(a), "--against", str(b)])
    assert "Only in a, left out of the comparison: fan id_02, pump id_00" in caplog.text
    with pytest.raises(common.UserError, match="fan id_02: 80 clips only in a: anomaly_id_02_.* and 75 more"):
        evaluate.main([str(a), str(b), "--rank"])
    edit(score_files.score_path(b, "fan", "id_00"), "normal_id_00_00000000.wav", "normal_id_00_99.wav")
    with pytest.raises(common.UserError) as error:
        evaluate.main([str(a), "--against", str(b)])
    assert "fan id_00: 1 clips only in a: normal_id_00_00000000.wav" in str(error.value)
    assert "fan id_00: 1 clips only in b: normal_id_00_99.wav" in str(error.value)
    c = write_folder(tmp_path / "c", shift=1.0, keys=[("valve", "id_00")])
    with pytest.raises(common.UserError, match="no machine ID in common"):
        evaluate.main([str(a), "--against", str(c)])


def test_against_must_be_one_other_folder(tmp_path):
    a, _ = (write_folder(tmp_path / "dev" / name, shift=1.0) for name in "ab")
    with pytest.raises(common.UserError, match="the same folder"):
        evaluate.main([str(a), "--against", str(a)])
    with pytest.raises(common.UserError, match="2 folders with score files"):
        evaluate.main([str(a), "--against", str(tmp_path / "dev")])


# ---- ranking ----


def test_ranking_by_hand():
    performances = {
        "first": {
            "fan": {"id_00": (0.9, 0.6), "id_02": (0.7, 0.6)},
            "pump": {"id_00": (0.5, 0.5)},
        },  # means .8/.6, .5/.5
        "second": {"fan": {"id_00": (0.7, 0.5)}, "pump": {"id_00": (0.9, 0.9)}},
        "third": {"fan": {"id_00": (0.8, 0.4)}, "pump": {"id_00": (0.4, 0.4)}},
    }
    ranking = rank(performances)
    assert [(r.place, r.name, r.mean_rank) for r in ranking] == [
        (1, "first", 1.5),
        (2, "second", 1.75),
        (3, "third", 2.5),
    ]
    assert ranking[0].ranks == {"fan": (1, 1), "pump": (2, 2)}
    assert ranking[1].ranks == {"fan": (3, 2), "pump": (1, 1)}
    assert ranking[2].ranks == {"fan": (1, 3), "pump": (3, 3)}  # an equal AUC shares the better rank
    assert ranking[0].mean == pytest.approx((0.65, 0.55))


def test_averages_that_differ_by_rounding_errors_share_a_rank():
    ids = {f"id_0{n}": (value, value) for n, value in enumerate((0.1, 0.2, 0.3))}
    one, other = {"fan": ids}, {"fan": dict(reversed(ids.items()))}
    assert IDS.average(one["fan"]) != IDS.average(other["fan"])
    for performances in ({"one": one, "other": other}, {"other": other, "one": one}):
        assert [ranked.ranks["fan"] for ranked in rank(performances)] == [(1, 1), (1, 1)]


def test_a_tie_goes_to_the_higher_pauc():
    low = {"fan": {"id_00": (0.9, 0.5)}, "pump": {"id_00": (0.9, 0.5)}}
    high = {"fan": {"id_00": (0.8, 0.6)}, "pump": {"id_00": (0.8, 0.6)}}
    for performances in ({"low": low, "high": high}, {"high": high, "low": low}):
        ranking = rank(performances)
        assert [r.name for r in ranking] == ["high", "low"]
        assert ranking[0].mean_rank == ranking[1].mean_rank == 1.5


def test_ranking_needs_two_systems(tmp_path):
    with pytest.raises(common.UserError, match="at least two"):
        evaluate.main([str(write_folder(tmp_path / "a", shift=1.0)), "--rank"])


# ---- published figures ----


def test_published_means_stand_in_their_columns():
    machine_types = published_figures()[0].machine_types
    performance = {name: {"id_00": (0.8, 0.6)} for name in machine_types}
    results = [Result("ours", Path(), {}, performance)]
    wanted = ("official baseline", "SECOM", "ASDKit")
    published = [entry for entry in published_figures() if entry.name in wanted and entry.dataset == "dev"]
    table = [line.split() for line in tables.as_text(tables.systems_table(results, published)).splitlines()]
    assert table[0][2:] == [*machine_types, "mean", "mean", "of", "both"]
    assert table[2] == ["ours", *["80.00/60.00"] * 7, "70.00"]
    assert table[3][-3:] == ["66.28/50.98", "73.51/59.66", "66.58"]
    assert table[4] == ["*", "SECOM", *"------", "87.06/74.03", "80.55"]
    assert table[5] == ["*", "ASDKit", *"-------", "91.65"]
    page = html_report.report_html(results, [], [], [], published, max_fpr=0.1)
    assert "<td>* ASDKit</td>" + "<td>–</td>" * 7 + "<td>91.65</td>" in page
    assert "<td>87.06/74.03</td><td>80.55</td>" in page


def test_published_figures_stand_beside_official_clips_alone(tmp_path, capsys):
    fan = read_year(2020).test_clips["dev"]["fan"]
    for machine_id, counts in fan.items():
        names = [
            f"{label}_{machine_id}_{k:08d}.wav"
            for label, n in zip(("normal", "anomaly"), counts, strict=True)
            for k in range(n)
        ]
        write_scores(score_files.score_path(tmp_path / "a", "fan", machine_id), names, range(sum(counts)))
    evaluate.main([str(tmp_path / "a")])
    printed = capsys.readouterr().out
    assert "54.41 / 49.37" in printed  # the official baseline's fan id_00
    assert "* Noisy-ArcMix" in printed
    evaluate.main([str(tmp_path / "a"), "--max-fpr", "0.2"])  # published pAUCs are of 0.1
    assert "Noisy-ArcMix" not in capsys.readouterr().out
    score_files.score_path(tmp_path / "a", "fan", "id_00").unlink()
    evaluate.main([str(tmp_path / "a")])
    assert "Noisy-ArcMix" not in capsys.readouterr().out
