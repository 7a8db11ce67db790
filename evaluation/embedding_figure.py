"""Picture of a machine type's embeddings, to see whether anomalies lie apart from normal clips."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audio.clips import Clip
from evaluation.figures import COLOURS, drawable, id_axes, legend, save

KINDS = {  # label of a clip -> name, colour, marker
    0: ("test, normal", COLOURS[0], "o"),
    1: ("test, anomalous", COLOURS[5], "x"),
    None: ("test", COLOURS[2], "o"),
}


def plane(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both sets of embeddings on the two principal components of all, (n, 2) each, and these components' shares."""
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="randomized", random_state=0).fit(np.concatenate([train, test]))
    return pca.transform(train), pca.transform(test), pca.explained_variance_ratio_


def embedding_figure(title: str, train: np.ndarray, train_ids: np.ndarray, test: np.ndarray, clips: Sequence[Clip]):
    """Embeddings of a machine type in a plane, one axes per machine ID of the test clips.

    Parameters
    ----------
    train : ndarray, shape (n_train, n_features)
    train_ids : ndarray, shape (n_train,), machine IDs
    test : ndarray, shape (n_clips, n_features), embeddings of ``clips``
    """
    train_points, test_points, shares = plane(train, test)
    test_ids = np.array([clip.machine_id for clip in clips])
    labels = np.array([clip.label for clip in clips], object)
    machine_ids = np.unique(test_ids)
    figure, all_axes = id_axes(machine_ids, row_height=3.1, sharex=True, sharey=True)
    for axes, machine_id in zip(all_axes, machine_ids, strict=True):
        axes.scatter(*train_points.T, s=4, color="0.85", label="training, all IDs", rasterized=True)
        own = train_ids == machine_id
        axes.scatter(*train_points[own].T, s=6, color="0.45", label="training, this ID", rasterized=True)
        for label, (name, colour, marker) in KINDS.items():
            chosen = (test_ids == machine_id) & (labels == label)
            if chosen.any():
                axes.scatter(
                    *test_points[chosen].T, s=14, color=colour, marker=marker, alpha=0.7, linewidths=1, label=name
                )
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(f"component 1 ({shares[0]:.0%} of the variance)", fontsize=8)
        axes.set_ylabel(f"component 2 ({shares[1]:.0%})", fontsize=8)
    figure.suptitle(title)
    legend(figure, all_axes)
    return figure


def write_figure(
    path: Path, title: str, train: np.ndarray, train_ids: np.ndarray, test: np.ndarray, clips: Sequence[Clip]
) -> None:
    """Draw :func:`embedding_figure` and write it as PNG."""
    save(embedding_figure(drawable(title), train, train_ids, test, clips), path)
