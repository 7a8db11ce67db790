"""Vectors of normal clips in, outlier scores of other clips out: local outlier factor, neighbours, local density.

Whatever the vectors are, a classifier's embeddings or descriptors of the sound. Higher = more anomalous.
"""

from collections.abc import Callable, Iterator

import numpy as np

from common import UserError

Scorer = Callable[[np.ndarray], np.ndarray]  # vectors (n, n_dimensions) -> (n,), float64

DUPLICATE_DECIMALS = 5  # of a vector of norm one: vectors equal in these are of the same recording
BLOCK_NUMBERS = 2**22  # distances that are held at a time: 32 MB
FLAT = 1e-3  # a dimension with less of the root mean square deviation than this is one that never changes


# ---- before the detectors ----


def standardisation(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each dimension over the training vectors, (n_dimensions,) each, float64.

    The deviation of a dimension that never changes is infinite: divided by it, rounding noise does not grow into a
    distance.
    """
    train = train.astype(np.float64)
    deviation = train.std(axis=0)
    varying = deviation > FLAT * np.sqrt(np.mean(deviation**2))
    return train.mean(axis=0), np.where(varying, deviation, np.inf)


def decorrelation(standardised: np.ndarray, *, power: float) -> np.ndarray:
    """Matrix (n_dimensions, n_dimensions) by which vectors are multiplied: what many dimensions tell counts for less.

    ``C ** (-power / 2)`` of the covariance C, which leaves each dimension where it was: 0 changes nothing, 1 whitens.

    Parameters
    ----------
    standardised : ndarray, shape (n_train, n_dimensions), training vectors of mean 0

    Notes
    -----
    C is shrunk towards equal variances in all directions, by ``n_dimensions / (n_train + n_dimensions)``: in directions
    in which few training vectors happen not to vary, others do.
    """
    n_train, n_dimensions = standardised.shape
    if n_train < n_dimensions:  # C has few directions that vary, and these are found sooner
        _, singular, rows = np.linalg.svd(standardised, full_matrices=False)
        variances, directions = singular**2 / n_train, rows.T
    else:
        variances, directions = np.linalg.eigh(standardised.T @ standardised / n_train)
    mean = variances.sum() / n_dimensions or 1.0
    shrinkage = n_dimensions / (n_train + n_dimensions)
    others = (shrinkage * mean) ** (-power / 2)  # in directions that do not vary
    along = ((1 - shrinkage) * np.maximum(variances, 0) + shrinkage * mean) ** (-power / 2)
    return others * np.eye(n_dimensions) + (directions * (along - others)) @ directions.T


def distinct(vectors: np.ndarray) -> np.ndarray:
    """The vectors without those that occur before: of one recording, in files that differ elsewhere.

    Where a training vector has more copies than there are neighbours, its local density is infinite, and the local
    outlier factor of all clips near it grows beyond bounds.
    """
    norm = np.median(np.linalg.norm(vectors, axis=1)) or 1.0
    _, first = np.unique(np.round(vectors / norm, DUPLICATE_DECIMALS), axis=0, return_index=True)
    return vectors[np.sort(first)]  # np.unique sorts by value; here the order of the clips stays


# ---- scores ----


def outlier_scores(train: np.ndarray, test: np.ndarray, **settings) -> np.ndarray:
    """How far each test vector lies from the training vectors, see :func:`fitted`."""
    return fitted(train, **settings)(test)


def fitted(train: np.ndarray, *, score: str, n_neighbors: int, metric: str, n_nearest: int = 5) -> Scorer:
    """Detector that says how far vectors lie from the training vectors; higher = more anomalous.

    Parameters
    ----------
    train : ndarray, shape (n_train, n_dimensions)
    score : ``lof``: the local outlier factor (Breunig et al. 2000), inliers near 1; ``knn``: the mean distance to the
        ``n_neighbors`` nearest training vectors; ``density``: see :func:`fitted_density`
    metric : a name that scikit-learn knows: ``euclidean``, ``manhattan``, ``cosine``
    n_nearest : of ``density`` alone

    Returns
    -------
    function : vectors (n, n_dimensions) -> (n,), float64

    Raises
    ------
    UserError : where there are not more different training vectors than neighbours

    Notes
    -----
    Copies of a training vector count as one.
    """
    from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

    train = distinct(train)
    if len(train) <= n_neighbors:
        raise UserError(
            f"model.n_neighbors: {n_neighbors}; there are {len(train)} training clips with different embeddings. "
            "Lower it, or train on more clips"
        )
    if score == "density":
        return fitted_density(train, n_neighbors=n_neighbors, n_nearest=n_nearest, metric=metric)
    if score == "knn":
        nearest = NearestNeighbors(n_neighbors=n_neighbors, metric=metric).fit(train)
        return lambda test: nearest.kneighbors(test)[0].mean(axis=1).astype(np.float64)
    lof = LocalOutlierFactor(n_neighbors=n_neighbors, metric=metric, novelty=True).fit(train)
    return lambda test: -lof.score_samples(test).astype(np.float64)  # scikit-learn's sign is the opposite


def fitted_density(train: np.ndarray, *, n_neighbors: int, n_nearest: int, metric: str) -> Scorer:
    """Distance to the training vectors in units of how far these lie from each other.

    ``r_i`` is the mean distance of training vector i to its ``n_neighbors`` nearest other training vectors; the score
    of x is the mean of the ``n_nearest`` smallest ``d(x, i) / r_i`` (after Wilkinghoff et al. 2025, local
    density-based anomaly score normalization).

    Parameters
    ----------
    train : ndarray, shape (n_train, n_dimensions), all different
    """
    from sklearn.metrics import pairwise_distances

    radii = _neighbors(train, n_neighbors, metric)[0].mean(axis=1)

    def scores(test: np.ndarray) -> np.ndarray:
        parts = [pairwise_distances(test[rows], train, metric) / radii for rows in _blocks(len(test), len(train))]
        return np.concatenate([_mean_of_smallest(part, min(n_nearest, len(train))) for part in parts])

    return scores


def contributions(
    train: np.ndarray, test: np.ndarray | None, *, score: str, n_neighbors: int, metric: str, n_nearest: int
) -> np.ndarray:
    """What each dimension adds to a score, shape (n_test, n_dimensions): their sum is that of :func:`outlier_scores`.

    Of ``lof``, which is a ratio, to the mean distance in its place.

    Parameters
    ----------
    test : None: each of the training vectors, by the others
    """
    train = distinct(train)
    others = min(n_neighbors, len(train) - 1)
    radii = _neighbors(train, others, metric)[0].mean(axis=1) if score == "density" else np.ones(len(train))
    nearest = min(n_nearest, len(train) - 1) if score == "density" else others
    found = []
    for number, vector in enumerate(train if test is None else test):
        terms = _terms(train, vector, metric) / radii[:, np.newaxis]
        distances = terms.sum(axis=1)
        if test is None:
            distances[number] = np.inf
        found.append(terms[np.argsort(distances)[:nearest]].mean(axis=0))
    return np.stack(found)


def _terms(train: np.ndarray, vector: np.ndarray, metric: str) -> np.ndarray:  # (n_train, n_dimensions)
    """What each dimension adds to the distance of a vector from each training vector."""
    if metric == "manhattan":
        return np.abs(train - vector)
    if metric == "cosine":  # half the squared distance of the vectors at norm one
        units = train / np.linalg.norm(train, axis=1, keepdims=True)
        return np.square(units - vector / np.linalg.norm(vector)) / 2
    squares = np.square(train - vector)
    return squares / np.sqrt(np.maximum(squares.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))


def _neighbors(train: np.ndarray, n_neighbors: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices of each training vector's nearest others, nearest first, (n_train, n_neighbors) each."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=n_neighbors, metric=metric).fit(train).kneighbors()


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Rows of a matrix of distances, some at a time: all of them might not fit into the memory."""
    step = max(1, BLOCK_NUMBERS // n_columns)
    return (slice(start, start + step) for start in range(0, n_rows, step))


def _mean_of_smallest(values: np.ndarray, number: int) -> np.ndarray:
    """Mean of the smallest of each row."""
    return np.partition(values, number - 1, axis=1)[:, :number].mean(axis=1)
