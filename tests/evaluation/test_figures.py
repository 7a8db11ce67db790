"""figures.py and html_report.py: what is drawn, and a page that needs nothing but itself."""

import dataclasses
import importlib
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from conftest import write_scores

import common
from evaluation import figures, folders, html_report, metrics, score_files
from evaluation.published import Published
from evaluation.rules import IDS

evaluate = importlib.import_module("02_evaluate")

KEYS = (("fan", "id_00"), ("fan", "id_02"), ("pump", "id_00"))


def make_result(name, shift, tmp_path, keys=KEYS):
    """Evaluated synthetic scores; the anomalies are ``shift`` above the normal clips."""
    scores = {}
    for index, (machine_type, machine_id) in enumerate(keys):
        rng = np.random.default_rng(index)
        labels = np.repeat([0, 1], [30, 20])
        names = tuple(f"{('normal', 'anomaly')[label]}_{machine_id}_{k:08d}.wav" for k, label in enumerate(labels))
        scores[machine_type, machine_id] = metrics.LabelledScores(
            labels, rng.standard_normal(50) + shift * labels, names
        )
    return folders.Result(name, tmp_path / name, scores, metrics.evaluate(scores, max_fpr=0.1))


@pytest.fixture
def results(tmp_path):
    return [make_result(name, shift, tmp_path) for name, shift in (("baseline_ae", 0.5), ("tuned_ae", 2.0))]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The same as the script reports them, compared and ranked. Not to be changed."""
    folder = tmp_path_factory.mktemp("report")
    results = [make_result(name, shift, folder) for name, shift in (("baseline_ae", 0.5), ("tuned_ae", 2.0))]
    for result in results:
        for key, clips in result.scores.items():
            write_scores(score_files.score_path(result.directory, *key), clips.names, clips.scores)
    first, second = (str(result.directory) for result in results)
    evaluate.main([first, second, "--rank", "--against", first, "--report", str(folder / "out" / "r.html")])
    return folder / "out" / "r.html"


class Page(HTMLParser):
    """What a browser would see of a page: tags, images, texts of table rows."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.open_tags, self.rows, self.ids, self.links = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note the tag and what it fetches or links."""
        attributes = dict(attrs)
        self.sources += [attributes[key] for key in ("src", "href") if key in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in ("meta", "img", "br", "wbr"):
            self.open_tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        """Every tag is closed in turn."""
        assert self.open_tags.pop() == tag

    def handle_data(self, text):
        """Text of table cells."""
        if {"td", "th"} & set(self.open_tags):
            self.rows[-1][-1] += text


# ---- figures ----


def test_the_reports_figures_are_drawn_where_their_systems_were_run():
    base, tuned, metric = "baseline_ae", "tuned_ae", "l2_softmax"
    assert figures.bar_groups([base]) == [(base,)]
    assert figures.bar_groups([tuned, base]) == [(base, tuned)]
    assert figures.bar_groups([base, tuned, metric]) == [(base, tuned), (base, tuned, metric)]
    assert figures.bar_groups([base, metric, tuned, "vae"]) == [
        (base, metric, tuned, "vae"),
        (base, tuned),
        (base, tuned, metric),
    ]


@pytest.mark.parametrize("metric", [0, 1])
def test_bars_are_as_high_as_the_averages(results, metric):
    performances = {result.name: result.performance for result in results}
    published = Published("official", "dev", "", {"fan": (65.83, 52.45), "pump": (72.89, 59.99)}, {})
    figure = figures.bar_figure(performances, ("baseline_ae", "tuned_ae"), metric, published=published)
    (axes,) = figure.axes
    assert axes.get_ylabel() == ("AUC [%]", "pAUC [%]")[metric]  # as in the tables
    figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["0", "10"]
    assert axes.texts[0].get_text() == ("65.8", "52.5")[metric]
    assert axes.texts[0].get_path_effects()  # a halo, for the line of chance not to cross it out
    assert axes.get_ylim()[0] == 0  # bars that begin elsewhere exaggerate differences
    assert [label.get_text() for label in axes.get_xticklabels()] == ["fan", "pump"]
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}
    assert heights == {
        "official, published": [published.machine_types[t][metric] / 100 for t in ("fan", "pump")],
        **{r.name: [IDS.average(r.performance[t])[metric] for t in ("fan", "pump")] for r in results},
    }
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bars in axes.containers for bar in bars)
    assert all(right <= left for (_, right), (left, _) in zip(edges, edges[1:], strict=False))


def test_a_system_has_one_colour_in_all_figures(results, tmp_path):
    results = [results[0], make_result("conv_ae", 0.1, tmp_path), results[1]]
    performances = {result.name: result.performance for result in results}
    bars = figures.bar_figure(performances, ("baseline_ae", "tuned_ae"), 0, published=None).axes[0].containers[1]
    line = figures.roc_figure(results, "fan", max_fpr=0.1).axes[0].get_lines()[3]  # after the line of chance
    assert bars.get_label() == line.get_label() == "tuned_ae"
    assert matplotlib.colors.to_hex(bars[0].get_facecolor()) == line.get_color().lower()
    styles = [figures._style(n) for n in range(len(figures.COLOURS) * 3)]
    assert len(set(styles)) == len(styles)
    lines = figures.roc_figure(results, "fan", max_fpr=0.1).axes[0].get_lines()[1:]
    assert [line.get_linestyle() for line in lines] == ["-", "--", ":"]  # so that equal curves are seen
    five = [dataclasses.replace(results[0], name=str(number)) for number in range(5)]
    widths = [line.get_linewidth() for line in figures.roc_figure(five, "fan", max_fpr=0.1).axes[0].get_lines()[1:]]
    assert widths[0] > widths[4] == widths[1] == widths[3]  # of the first's style, above it


def test_roc_curves_enclose_the_auc_and_the_pauc_range_is_marked(results):
    figure = figures.roc_figure(results, "fan", max_fpr=0.2)
    assert [axes.get_title() for axes in figure.axes] == ["id_00", "id_02"]
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.get_lines()}
        for result in results:
            fpr, tpr = lines[result.name].get_data()
            area = np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)
            assert area == pytest.approx(result.performance["fan"][axes.get_title()][0])
        assert axes.patches[0].get_width() == pytest.approx(0.2)
        assert axes.patches[0].get_label() == "pAUC range"


@pytest.mark.filterwarnings("error:Glyph")
def test_characters_that_the_font_lacks_are_written_as_code_points(tmp_path):
    result = make_result("装置", 1.0, tmp_path, keys=[("風扇fan", "id_00")])
    files = figures.write_figures(tmp_path / "figures", [result], max_fpr=0.1, published=None)
    assert [file.path.name for file in files][-1] == "scores_装置_風扇fan.png"
    assert "風扇fan" in files[-1].caption  # the browser may have a font
    assert figures.drawable("装 a") == "U+88C5  a"
    assert figures.drawable("fan ä α") == "fan ä α"


def test_names_that_matplotlib_would_take_for_formulas_or_leave_out(tmp_path):
    """A formula that is none would end the run; labels with an underscore in front are not shown in legends."""
    names = [r"a$\foo$b", "_hidden", "cost $5"]
    results = [make_result(name, 1.0 + n, tmp_path, keys=[("$x^$", "id_00")]) for n, name in enumerate(names)]
    figures.write_figures(tmp_path / "figures", results, max_fpr=0.1, published=None)
    performances = {result.name: result.performance for result in results}
    for figure in (
        figures.bar_figure(performances, names, 0, published=None),
        figures.roc_figure(results, "$x^$", max_fpr=0.1),
    ):
        shown = [text.get_text().strip() for text in figure.legends[0].get_texts()]
        assert shown[:3] == [name.replace("$", r"\$") for name in names]


def test_histograms_hold_every_clip_even_far_off(tmp_path):
    result = make_result("x", 1.0, tmp_path, keys=[("fan", "id_00")])
    result.scores["fan", "id_00"].scores[0] = 1e9
    (axes,) = figures.score_figure(result, "fan").axes
    assert axes.get_xlim()[1] < 1e9
    filled = axes.patches[:40], axes.patches[41:81]  # 40 bars and an outline per label
    for bars in filled:
        assert sum(bar.get_height() for bar in bars) == pytest.approx(1)


def test_every_figure_is_a_png_of_its_own(report):
    pngs = list(html_report.figure_folder(report).iterdir())
    kinds = [sum(path.name.startswith(kind) for path in pngs) for kind in ("AUC_", "pAUC_", "ROC_", "scores_")]
    assert kinds == [1, 1, 2, 4]
    for path in pngs:
        assert np.ptp(matplotlib.image.imread(path)[..., :3]) == 1  # not blank


def test_labels_lie_inside_the_figure_and_do_not_overlap(results, tmp_path):
    results += [make_result(f"a_system_with_a_long_name_{n}", n / 3, tmp_path) for n in range(5)]
    performances = {result.name: result.performance for result in results}
    for figure in (
        figures.bar_figure(performances, tuple(performances), 0, published=None),
        figures.roc_figure(results, "fan", max_fpr=0.1),
        figures.score_figure(results[0], "fan"),
    ):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        boxes = [legend.get_window_extent()] + [axes.get_tightbbox() for axes in figure.axes]
        for box in boxes:
            assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1
            assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1
        assert not any(boxes[0].overlaps(box) for box in boxes[1:])
        texts = [text.get_window_extent() for text in figure.axes[0].texts]
        assert not any(a.overlaps(b) for i, a in enumerate(texts) for b in texts[:i])


# ---- the page ----


def test_page_is_whole_and_needs_no_network(report):
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open_tags == []
    images = [source for source in page.sources if source.startswith("data:image/png;base64,")]
    anchors = [source for source in page.sources if source.startswith("#")]
    assert len(images) == 8
    assert sorted(images + anchors) == sorted(page.sources)  # nothing is fetched, nothing is linked outside
    assert [anchor[1:] for anchor in anchors] == page.ids
    assert not re.search(r"url\(|@import|<script|<link", text)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().replace("nance", "")
    for number in (1, 2):
        assert f"as Figure {number} of Wei and Liu, 2020" in text


def test_page_has_the_figures_of_every_machine_id(results, report):
    text = report.read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in Page(text).rows[::-1]}
    for machine_type, ids in results[0].performance.items():
        for machine_id in ids:
            pairs = (result.performance[machine_type][machine_id] for result in results)
            expected = ["{:.2f} / {:.2f}".format(*(100 * np.array(pair))) for pair in pairs]
            assert rows[f"{machine_type} {machine_id}"] == expected
    best = "{:.2f}".format(100 * results[1].performance["fan"]["id_00"][0])
    assert f"<b>{best}</b>" in text
    assert "not those of the official test clips" in text
    assert "Published" not in text
    assert "[]" not in text


def test_names_are_escaped(tmp_path):
    result = make_result("a<b>&c", 1.0, tmp_path, keys=[("<i>fan", "id_00")])
    html = html_report.report_html([result], [], [], [], [], max_fpr=0.1)
    assert "<i>" not in html
    assert "&lt;i&gt;fan id_00" in html
    assert "Evaluation of a&lt;b&gt;&amp;c" in html
    assert "Ranking" not in html


def test_a_report_that_cannot_be_written(results, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(common.UserError, match="cannot be written"):
        html_report.write_report(tmp_path / "file" / "r.html", results, max_fpr=0.1)
