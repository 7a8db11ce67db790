"""embedding_figure.py: the plane, and what is drawn in it."""

import numpy as np

from audio.clips import Clip
from evaluation import embedding_figure


def make_clip(machine_id, label):
    return Clip(None, "fan", machine_id, label, 16000, 16000, 32044, 0, 0)


def test_plane_shows_the_directions_of_most_variance():
    rng = np.random.default_rng(0)
    spread = np.array([0.1, 9, 0.1, 3, 0.1])
    train, test = rng.normal(size=(200, 5)) * spread, rng.normal(size=(50, 5)) * spread
    train_points, test_points, shares = embedding_figure.plane(train, test)
    assert train_points.shape == (200, 2) and test_points.shape == (50, 2)
    assert abs(np.corrcoef(train_points[:, 0], train[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(test_points[:, 1], test[:, 3])[0, 1]) > 0.99
    assert shares[0] > 0.8 and shares.sum() > 0.99


def test_every_clip_is_drawn_with_its_machine_id(tmp_path):
    rng = np.random.default_rng(0)
    train_ids = np.array(["id_00"] * 7 + ["id_02"] * 5)
    clips = [make_clip("id_00", 0), make_clip("id_00", 1), make_clip("id_00", 1), make_clip("id_02", None)]
    train, test = rng.normal(size=(12, 6)), rng.normal(size=(4, 6))
    figure = embedding_figure.embedding_figure("fan", train, train_ids, test, clips)
    drawn = {
        axes.get_title(): {kind.get_label(): len(kind.get_offsets()) for kind in axes.collections}
        for axes in figure.axes
    }
    assert drawn == {
        "id_00": {"training, all IDs": 12, "training, this ID": 7, "test, normal": 1, "test, anomalous": 2},
        "id_02": {"training, all IDs": 12, "training, this ID": 5, "test": 1},
    }
    embedding_figure.write_figure(tmp_path / "figure.png", "fan", train, train_ids, test, clips)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
