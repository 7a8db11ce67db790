"""The years' files: names of clips and of CSVs, counts, published figures; and what is said where years are mixed."""

import numpy as np
import pytest

import common
from audio import attributes
from evaluation.published import published_figures
from evaluation.rules import RULES
from years.year import KINDS, ClipName, every_year, in_words, known_years, of_files, read_year, that_read

NAMES = [  # year, name, what it says
    (2020, "normal_id_00_00000000.wav", ("id_00", 0, None, None)),
    (2020, "id_01_00000000.wav", ("id_01", None, None, None)),
    (
        2021,
        "section_00_source_train_normal_0000_strenght_1_ambient.wav",
        ("section_00", 0, "source", "strenght_1_ambient"),
    ),
    (2021, "section_02_target_test_anomaly_0099.wav", ("section_02", 1, "target", None)),
    (2021, "section_03_source_test_0000.wav", ("section_03", None, "source", None)),
    (2022, "section_00_source_train_normal_0000_m-n_W.wav", ("section_00", 0, "source", "m-n_W")),
    (2022, "section_00_target_train_normal_0009_volt_3.0.wav", ("section_00", 0, "target", "volt_3.0")),
    (
        2022,
        "section_01_target_test_anomaly_0000_car_G2_spd_34V_mic_1_noise_6.wav",
        ("section_01", 1, "target", "car_G2_spd_34V_mic_1_noise_6"),
    ),
    (2022, "section_03_0000.wav", ("section_03", None, None, None)),
    (2022, "section_03_test_0000.wav", ("section_03", None, None, None)),
    (2023, "section_00_source_test_normal_0000_vel_660_ac_0.09.wav", ("section_00", 0, "source", "vel_660_ac_0.09")),
    (2024, "section_00_source_train_normal_0000_noAttribute.wav", ("section_00", 0, "source", None)),
    (2024, "section_00_source_normal_0035_weight15_BckgF.wav", ("section_00", 0, "source", "weight15_BckgF")),
    (
        2025,
        "section_00_target_test_anomaly_0012_id_C1_spd_2_mic_2.wav",
        ("section_00", 1, "target", "id_C1_spd_2_mic_2"),
    ),
    (2026, "section_00_source_train_normal_0000_nzl_1_pow_1.wav", ("section_00", 0, "source", "nzl_1_pow_1")),
    (2026, "section_00_0199.wav", ("section_00", None, None, None)),
]


@pytest.mark.parametrize(("year", "name", "said"), NAMES)
def test_names(year, name, said):
    assert read_year(year).parse(name) == ClipName(*said)


@pytest.mark.parametrize(
    ("year", "name"),
    [
        (2020, "section_00_0000.wav"),
        (2021, "section_00_0000.wav"),  # without its domain
        (2021, "normal_id_00_00000000.wav"),
        (2022, "section_0_0000.wav"),
        (2022, "section_00_00.wav"),
        (2022, "section_00_middle_train_normal_0000.wav"),
        (2023, "section_00_source_train_normal_0000_vel_15.flac"),
    ],
)
def test_names_of_no_form(year, name):
    with pytest.raises(ValueError, match="not of the form"):
        read_year(year).parse(name)


@pytest.mark.parametrize(
    ("year", "name", "unit"),
    [
        (2020, "anomaly_score_ToyCar_id_01.csv", ("ToyCar", "id_01")),
        (2021, "anomaly_score_fan_section_03_target_test.csv", ("fan", "section_03_target")),
        (2021, "anomaly_score_fan_section_03_target.csv", ("fan", "section_03_target")),
        (2022, "anomaly_score_fan_section_03_test.csv", ("fan", "section_03")),
        (2022, "anomaly_score_fan_section_03.csv", ("fan", "section_03")),
        (2024, "anomaly_score_3DPrinter_section_00_test.csv", ("3DPrinter", "section_00")),
        (2023, "anomaly_score_DCASE2023T2bearing_section_00_test_seed13711_id(0_).csv", ("bearing", "section_00")),
        (2023, "anomaly_score_DCASE2023T2ToyTank_section_00_test_seed13711_id(0_)_Eval.csv", ("ToyTank", "section_00")),
        (2021, "anomaly_score_fan_section_03_test.csv", None),
        (2022, "anomaly_score_fan_section_03_source_test.csv", None),
        (2022, "decision_result_fan_section_03_test.csv", None),
        (2020, "anomaly_score_fan_section_00_test.csv", None),
    ],
)
def test_names_of_score_files(year, name, unit):
    assert read_year(year).parse_file(name, KINDS[0]) == unit


def test_what_is_written_is_read_as_the_same():
    for year in every_year():
        for machine_type, unit in year.eval_clips():
            for kind in KINDS:
                assert year.parse_file(year.file_name(kind, machine_type, unit), kind) == (machine_type, unit)


@pytest.mark.parametrize(
    ("year", "n_clips", "n_files"),
    [
        (2020, 7103, 18),
        (2021, 8635, 42),
        (2022, 4200, 21),
        (2023, 1400, 7),
        (2024, 1800, 9),
        (2025, 1600, 8),
        (2026, 1000, 5),
    ],
)
def test_evaluation_clips_are_as_many_as_the_evaluators_have(year, n_clips, n_files):
    clips = read_year(year).eval_clips()
    assert (len(clips), sum(map(len, clips.values()))) == (n_files, n_clips)
    for (_, unit), names in clips.items():
        said = [read_year(year).parse(name) for name in names]
        assert {read_year(year).unit_of(one.machine_id, one.domain) for one in said} == {unit}
        assert {one.label for one in said} == {None}


def test_counters_begin_where_they_do():
    clips = read_year(2024).eval_clips()
    assert clips["3DPrinter", "section_00"][0] == "section_00_0001.wav"
    assert clips["ToothBrush", "section_00"][0] == "section_00_0000.wav"


def test_official_scores_are_the_harmonic_means_of_their_tables():
    checked = 0
    for year in every_year():
        rule = RULES[year.rule]
        for entry in published_figures(year):
            assert {len(figures) for figures in entry.machine_types.values()} <= {len(rule.columns)}
            assert set(entry.machine_types) <= set(year.test_clips[entry.dataset])
            if entry.official_score and entry.machine_types:
                performance = {name: {"00": np.array(figures) / 100} for name, figures in entry.machine_types.items()}
                assert 100 * rule.official_score(performance) == pytest.approx(entry.official_score, abs=0.005001)
                checked += 1
    assert checked == 10  # both modes of the official baseline: evaluation sets since 2023, development set of 2025


def test_years_of_names():
    assert known_years() == list(range(2020, 2027))
    assert that_read("section_00_source_train_normal_0000_vel_21.wav", "bearing") == [2022, 2023, 2024, 2025]
    assert that_read("normal_id_00_00000000.wav") == [2020]
    assert of_files(["anomaly_score_bearing_section_04_test.csv"], KINDS[0]) == [2022]
    assert of_files(["anomaly_score_lathe_section_04_test.csv"], KINDS[0]) == list(range(2022, 2027))
    of_fan = [f"anomaly_score_fan_section_0{number}_test.csv" for number in range(3)]
    assert of_files(of_fan, KINDS[0]) == [2022] and of_files(of_fan[:1], KINDS[0]) == [2023, 2024, 2025, 2026]
    assert of_files(of_fan[:2], KINDS[0]) == [2022]
    assert of_files(["anomaly_score_fan_section_03_source_test.csv"], KINDS[0]) == [2021]
    assert in_words([2022, 2023, 2024]) == "2022 to 2024" and in_words([2021, 2023]) == "2021 or 2023"


def test_supplemental_clips_of_the_machine_alone():
    year = read_year(2025)
    assert year.parse_supplemental("section_00_noise_0001_.wav") is None
    assert year.parse_supplemental("section_00_machine_0001_vel_2.wav") == ClipName("section_00", 0, None, "vel_2")
    assert read_year(2024).parse_supplemental("section_00_machine_0001_.wav") is None


# ---- attributes beside the clips ----


@pytest.mark.parametrize(
    "text",
    [
        "file_name,d1p,d1v,d2p,d2v\r\nfan/train/a.wav,vel,1.5,mode,m-n\r\n",
        "file_name,d1p,d1v,d2p,d2v,file_name_with_full_attributes\nfan\\train\\a.wav,vel,1.5,mode,m-n,b.wav\n",
        "\ufeffsource_file_name,target_file_name\nsection_00_source_train_normal_0001_vel_1.5_mode_m-n.wav,a.wav\n",
        "source_file_name,target_file_name,\r\nx/section_00_source_train_normal_0001_vel_1.5_mode_m-n.wav,x/a.wav,\r\n",
        "name,full\na.wav,section_00_source_train_normal_0001_vel_1.5_mode_m-n.wav\n",
    ],
)
def test_attributes_files(tmp_path, text):
    path = tmp_path / "attributes_00.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert attributes._read_all([path], read_year(2023)) == {"a.wav": "vel_1.5_mode_m-n"}


def test_attributes_that_contradict_each_other(tmp_path):
    path = tmp_path / "attributes_00.csv"
    path.write_text("file_name,d1p,d1v\nfan/train/a.wav,vel,1\nfan/train/a.wav,vel,2\n")
    with pytest.raises(common.UserError, match="row 3: a.wav has vel_2, and vel_1 in another row"):
        attributes._read_all([path], read_year(2023))
