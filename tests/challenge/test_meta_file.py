"""Fields of the meta file and the authors file; every fault with its line."""

import re
from pathlib import Path

import pytest

import common
from challenge import meta_file
from years.year import read_year

FOLDER = "Doe_EXU_task2_1"
META = """\
submission:
  label: Doe_EXU_task2_1
  name: A name
  abbreviation: EXU_1
  authors:
    - lastname: Doe
      firstname: Jane
      email: jane@example.org   # where to write to
      corresponding: true
      affiliation:
        institution: Example University
        department: Acoustics
        location: Exampletown
    - lastname: Roe
      firstname: Richard
      email: richard@example.org
      affiliation:
        institution: Example Machines Ltd.
        location: Exampletown
system:
  description:
    input_sampling_rate: 16kHz
    data_augmentation: !!null
    front_end: !!null
    acoustic_features: log-mel energies
    embeddings: !!null
    machine_learning_method: AE
    aggregation_method: average
    ensemble_method_subsystem_count: !!null
    decision_making: !!null
    external_data_usage: !!null
    development_data_usage: development
  complexity:
    total_parameters: 269992
  source_code: https://example.org/source#readme
results:
  development_dataset:
    fan:
      averaged_auc: 66.30
      averaged_pauc: 53
    pump:
      averaged_auc: 73.65
      averaged_pauc: 60.18
"""


def findings_of(text, folder=FOLDER):
    content = text if isinstance(text, bytes) else text.encode()
    return list(meta_file.check_meta("m.yaml", content, folder, ["fan", "pump"], read_year(2020)))


def test_a_good_meta_file_has_no_findings():
    assert findings_of(META) == []
    assert findings_of(META.replace("\n", "\r\n")) == []


def test_nought_is_a_percentage():
    assert findings_of(META.replace("66.30", "0.0")) == []


def test_missing_results_are_allowed_and_said():
    text = META.replace("averaged_auc: 66.30", "averaged_auc: !!null")
    text = text[: text.index("    pump:")]
    (note,) = findings_of(text)
    assert not note.is_fault
    assert "no figure for fan.averaged_auc, pump.averaged_auc, pump.averaged_pauc" in note.text


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("label: Doe_EXU_task2_1", "label: Doe_EXU_task2_2", 2, "expected Doe_EXU_task2_1, as the folder is called"),
        (
            "abbreviation: EXU_1",
            "abbreviation: EXAMPLE_U_1",
            4,
            "'EXAMPLE_U_1'; expected text of at most 10 characters",
        ),
        ("name: A name", "name: !!null", 3, "submission.name: None; expected text"),
        ("name: A name", "naem: A name", 1, "submission.name: missing; expected text"),
        ("      corresponding: true\n", "", 5, "0 corresponding authors"),
        (
            "richard@example.org",
            "richard@example.org\n      corresponding: no one",
            17,
            "'no one'; expected true or false",
        ),
        ("richard@example.org", "richard@example.org\n      corresponding: true", 17, "2 corresponding authors"),
        ("jane@example.org", "jane at example.org", 8, r"authors.1.email: .* expected an e-mail address"),
        (
            "  location: Exampletown\nsystem",
            "  where: Exampletown\nsystem",
            17,
            r"authors.2.affiliation.location: missing",
        ),
        ("lastname: Doe", "lastname: Smith", 2, "begins with Doe, but the corresponding author is Smith"),
        ("input_sampling_rate: 16kHz", "input_sampling_rate: 16000", 22, "16000; expected text such as 16kHz"),
        ("    front_end: !!null\n", "", 21, "system.description.front_end: missing"),
        ("count: !!null", "count: two", 29, "'two'; expected a whole number or !!null"),
        ("total_parameters: 269992", "total_parameters: 269,992", 34, "'269,992'; expected a whole number"),
        ("total_parameters: 269992", "total_parameters: true", 34, "True; expected a whole number"),
        ("66.30", "0.6630", 39, "0.663; expected a percentage such as 66.30 \\(not the fraction"),
        ("66.30", "166.30", 39, "166.3; expected a percentage"),
        ("66.30", ".nan", 39, "nan; expected a percentage"),
        ("66.30", "66.30%", 39, "'66.30%'; expected a percentage"),
        ("    pump:", "    pumps:", 41, "pumps: unknown machine type; expected fan, pump"),
        ("  development_dataset:", "  evaluation_dataset:", 36, "results.development_dataset: missing"),
        ("name: A name", "name:\tA name", 3, r"not valid YAML: found character '\\t'"),
        ("name: A name", "name: [A name", 4, "not valid YAML"),
        ("name: A name", "name: 2020-02-31", 3, "not valid YAML: '2020-02-31'"),
        ("name: A name", "name: A\n  name: B", 4, "name stands there twice"),
        ("name: A name", "name: !!python/name:os.system", 3, "could not determine a constructor"),
        ("name: A name", "name: &a A name\n  abbr: *a", 4, "alias"),
        ("name: A name", 'name: !!int ""', 3, "not valid YAML"),
        ("name: A name", "name: A name\n  ? [a, b]\n  : c", 4, "unhashable key"),
        ("name: A name", "name: A name\n  more: !!timestamp {=: no}", 4, "not valid YAML"),
    ],
)
def test_fault_with_its_line(old, new, line, message):
    assert META.count(old) == 1
    (finding,) = [finding for finding in findings_of(META.replace(old, new)) if finding.is_fault]
    assert finding.line == line
    assert re.search(message, finding.text), finding.text


def test_a_missing_block_is_one_fault():
    text = META[: META.index("system:")] + META[META.index("results:") :]
    assert [str(finding) for finding in findings_of(text)] == ["m.yaml, line 1: system: missing; expected a block"]
    text = META[: META.index("  complexity:")] + META[META.index("results:") :]
    (finding,) = findings_of(text)
    assert str(finding) == "m.yaml, line 20: system.complexity: missing; expected a block"


def test_all_faults_in_one_go():
    text = META.replace("EXU_1\n", "EXAMPLE_U_1\n").replace("66.30", "0.663")
    assert [finding.line for finding in findings_of(text)] == [4, 39]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "submission: missing"),
        (b"- a\n- list", "submission: missing"),
        (b"a: 1\nb: \xff", "not UTF-8"),
        (b"a: \x00", "not valid YAML"),
        (b"[" * 1000, "hundreds of nested blocks"),
    ],
)
def test_what_is_no_meta_file_is_a_fault_and_no_crash(content, message):
    assert message in findings_of(content)[0].text


@pytest.mark.parametrize(
    ("label_name", "lastname", "fits"),
    [
        ("Doe", "Doe", True),
        ("doe", "Doe", True),
        ("Doe", "Doel", False),
        ("Mueller", "Müller", True),
        ("Muller", "Müller", True),
        ("Miller", "Möllers", False),
        ("Grossmann", "Großmann", True),
        ("vanderBerg", "van der Berg", True),
        ("Garcia-Lopez", "García López", True),
    ],
)
def test_label_and_last_name(label_name, lastname, fits):
    text = META.replace("lastname: Doe", f"lastname: {lastname}").replace("Doe_", f"{label_name}_")
    assert (findings_of(text, f"{label_name}_EXU_task2_1") == []) == fits


# ---- authors file ----

AUTHORS = """\
institute: EXU
authors:
  - lastname: Doe
    firstname: Jane
    email: jane@example.org
    corresponding: true
    affiliation: {institution: Example University, location: Exampletown}
  - lastname: Roe
    firstname: Richard
    email: richard@example.org
    affiliation: {institution: Example Machines Ltd., department: Sound, location: Exampletown}
submissions:
  2: {name: A name, abbreviation: EXU_two}
"""


def authors_of(tmp_path, text):
    path = tmp_path / "authors.yaml"
    path.write_text(text, encoding="utf-8")
    return meta_file.read_authors(path)


def test_authors_in_their_order(tmp_path):
    authors = authors_of(tmp_path, AUTHORS)
    assert authors.team == "Doe_EXU_task2"
    assert [author["lastname"] for author in authors.authors] == ["Doe", "Roe"]
    assert [author.get("corresponding") for author in authors.authors] == [True, None]
    assert authors.authors[1]["affiliation"]["department"] == "Sound"
    assert authors.names == {2: ("A name", "EXU_two")}
    assert authors.source_code is None


def test_the_example_is_valid():
    authors = meta_file.read_authors(Path(common.__file__).parent / "examples/authors.yaml")
    assert authors.team == "Doe_EXU_task2"


def test_label_of_a_name_with_accents(tmp_path):
    assert authors_of(tmp_path, AUTHORS.replace(" Doe", " Núñez Großmann")).team == "NunezGrossmann_EXU_task2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("institute: EXU\n", "", "line 1: institute: missing"),
        ("institute: EXU", "institute: Example University", "line 1: institute: .*letters and digits"),
        ("    email: jane@example.org\n", "", "line 3: authors.1.email: missing"),
        ("    corresponding: true\n", "", "line 2: authors: 0 corresponding authors"),
        (
            "richard@example.org",
            "richard@example.org\n    corresponding: true",
            "line 11: .*2 corresponding authors",
        ),
        (", location: Exampletown}\n  -", "}\n  -", "line 7: authors.1.affiliation.location: missing"),
        ("EXU_two", "EXU_number_two", "line 13: submissions.2.abbreviation: .* at most 10"),
        ("  2: {", "  5: {", "line 13: submissions.5: unknown key; there is 1, 2, 3, 4"),
        ("institute: EXU", "institut: EXU", "line 1: institut: unknown key"),
        (" Doe", " 李", "letters of A to Z"),
        (
            "{institution: Example University,",
            "{institution: Example, departement: A,",
            "line 7: .*departement: unknown key",
        ),
        ("    firstname: Jane", "\tfirstname: Jane", "line 4: not valid YAML"),
    ],
)
def test_fault_of_the_authors_file(tmp_path, old, new, message):
    assert AUTHORS.count(old) == 1
    with pytest.raises(common.UserError, match=message):
        authors_of(tmp_path, AUTHORS.replace(old, new))


def test_an_authors_file_that_is_a_list(tmp_path):
    with pytest.raises(common.UserError, match="institute: missing"):
        authors_of(tmp_path, "- a")


def test_no_authors_file(tmp_path):
    with pytest.raises(common.UserError, match="copy examples/authors.yaml"):
        meta_file.read_authors(tmp_path / "authors.yaml")
