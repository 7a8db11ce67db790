"""Vectors of normal clips in, outlier scores of other clips out: local outlier factor, neighbours, local density.

Whatever the vectors are, a classifier's embeddings or descriptors of the sound. Higher = more anomalous.
"""

from collections.abc import Iterator

import numpy as np

from common import UserError

DUPLICATE_DECIMALS = 5  # of a vector of norm one: vectors equal in these are of the same recording
BLOCK_NUMBERS = 2**22  # distances that are held at a time: 32 MB
FLAT = 1e-3  # a dimension with less of the median deviation than this is one that never changes
LOF_EPSILON = 1e-10  # scikit-learn's, added to a mean reachability distance


# ---- before the detectors ----


def standardisation(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each dimension over the training vectors, (n_dimensions,) each, float64.

    The deviation of a dimension that never changes is infinite: divided by it, rounding noise does not grow into a
    distance.
    """
    train = train.astype(np.float64)
    deviation = train.std(axis=0)
    varying = deviation > FLAT * np.median(deviation)
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
    variances, directions = np.linalg.eigh(standardised.T @ standardised / n_train)
    mean = variances.mean() or 1.0
    shrinkage = n_dimensions / (n_train + n_dimensions)
    variances = (1 - shrinkage) * np.maximum(variances, 0) + shrinkage * mean
    return (directions * variances ** (-power / 2)) @ directions.T


def distinct(vectors: np.ndarray) -> np.ndarray:
    """The vectors without those that occur before.

    Where a training vector has more copies than there are neighbours, its local density is infinite, and the local
    outlier factor of all clips near it grows beyond bounds.
    """
    first, _ = _copies(vectors)
    return vectors[first]


def _copies(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the distinct vectors, and for each vector, which of them it equals."""
    norm = np.median(np.linalg.norm(vectors, axis=1)) or 1.0
    rounded = np.round(vectors / norm, DUPLICATE_DECIMALS)
    _, first, equals = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # np.unique sorts by value; here the order of the clips stays
    return first[order], np.argsort(order)[equals.reshape(-1)]


def _check_number(n_vectors: int, *, n_neighbors: int, left_out: int) -> None:
    """Raise UserError where there are too few different training vectors for that many neighbours."""
    if n_vectors <= n_neighbors or n_vectors < 2 + left_out:
        raise UserError(
            f"model.n_neighbors: {n_neighbors}; there are {n_vectors} training clips with different embeddings. "
            "Lower it, or train on more clips"
        )


# ---- scores ----


def outlier_scores(
    train: np.ndarray, test: np.ndarray, *, score: str, n_neighbors: int, metric: str, n_nearest: int = 5
) -> np.ndarray:
    """How far each test vector lies from the training vectors, shape (n_test,), float64; higher = more anomalous.

    Parameters
    ----------
    train, test : ndarray, shape (n, n_dimensions)
    score : ``lof``: the local outlier factor (Breunig et al. 2000), inliers near 1; ``knn``: the mean distance to the
        ``n_neighbors`` nearest training vectors; ``density``: see :func:`density_scores`
    metric : a name that scikit-learn knows: ``euclidean``, ``manhattan``, ``cosine``
    n_nearest : of ``density`` alone

    Raises
    ------
    UserError : where there are not more different training vectors than neighbours

    Notes
    -----
    Copies of a training vector count as one.
    """
    from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

    train = distinct(train)
    _check_number(len(train), n_neighbors=n_neighbors, left_out=0)
    if score == "density":
        return density_scores(train, test, n_neighbors=n_neighbors, n_nearest=n_nearest, metric=metric)
    if score == "knn":
        nearest = NearestNeighbors(n_neighbors=n_neighbors, metric=metric).fit(train)
        return nearest.kneighbors(test)[0].mean(axis=1).astype(np.float64)
    lof = LocalOutlierFactor(n_neighbors=n_neighbors, metric=metric, novelty=True).fit(train)
    return -lof.score_samples(test).astype(np.float64)  # scikit-learn's sign is the opposite


def density_scores(train: np.ndarray, test: np.ndarray, *, n_neighbors: int, n_nearest: int, metric: str) -> np.ndarray:
    """Distance to the training vectors in units of how far these lie from each other, shape (n_test,).

    ``r_i`` is the mean distance of training vector i to its ``n_neighbors`` nearest other training vectors; the score
    of x is the mean of the ``n_nearest`` smallest ``d(x, i) / r_i`` (after Wilkinghoff et al. 2025, local
    density-based anomaly score normalization).

    Parameters
    ----------
    train : ndarray, shape (n_train, n_dimensions), all different
    """
    from sklearn.metrics import pairwise_distances

    radii = _neighbors(train, n_neighbors, metric)[0].mean(axis=1)
    parts = [pairwise_distances(test[rows], train, metric) / radii for rows in _blocks(len(test), len(train))]
    return np.concatenate([_mean_of_smallest(part, min(n_nearest, len(train))) for part in parts])


def leave_one_out_scores(
    train: np.ndarray, *, score: str, n_neighbors: int, metric: str, n_nearest: int = 5
) -> np.ndarray:
    """What :func:`outlier_scores` gives each training vector where it is not among those trained on, (n_train,).

    Not an approximation: the densities of its neighbours are those without it, too. Its copies are left out with it.
    With one training vector more than neighbours, one neighbour less is taken.
    """
    first, equals = _copies(train)
    train = train[first]
    _check_number(len(train), n_neighbors=n_neighbors, left_out=1)
    k = min(n_neighbors, len(train) - 2)
    distances, neighbors = _neighbors(train, k + 1, metric)
    if score == "knn":
        return distances[:, :k].mean(axis=1)[equals].astype(np.float64)
    scores = []
    for rows in _blocks(len(train), len(train)):
        own = np.arange(len(train))[rows]
        near = _among(own, neighbors[:, :k])
        if score == "lof":
            scores.append(_lof_left_out(own, near, distances, neighbors))
        else:
            scores.append(_density_left_out(train, own, near, distances, n_nearest, metric))
    return np.concatenate(scores)[equals].astype(np.float64)


def _lof_left_out(own: np.ndarray, near: np.ndarray, distances: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """Local outlier factor of some training vectors, each among the others.

    Parameters
    ----------
    own : (n_own,), their indices
    near : (n_own, n_train), whether they are among the k nearest of a training vector
    distances, neighbors : (n_train, k + 1), of the nearest others of each training vector
    """
    k = distances.shape[1] - 1
    reach = np.where(near, distances[:, k], distances[:, k - 1])  # (n_own, n_train), from each to its k-th other
    rows = np.arange(len(own))[:, None]
    around = neighbors[own, :k]  # (n_own, k)
    own_reach = np.maximum(reach[rows, around], distances[own, :k]).mean(axis=-1)
    theirs = neighbors[around]  # (n_own, k, k + 1)
    gone = theirs == own[:, None, None]
    gone[..., -1] |= ~gone.any(axis=-1)  # of their k + 1 neighbours either the one left out goes or the last
    shape = (*around.shape, k)
    theirs, far = theirs[~gone].reshape(shape), distances[around][~gone].reshape(shape)
    their_reach = np.maximum(reach[rows[..., None], theirs], far).mean(axis=-1)  # (n_own, k)
    return (1 / (their_reach + LOF_EPSILON)).mean(axis=-1) * (own_reach + LOF_EPSILON)


def _density_left_out(
    train: np.ndarray, own: np.ndarray, near: np.ndarray, distances: np.ndarray, n_nearest: int, metric: str
) -> np.ndarray:
    """:func:`density_scores` of some training vectors, each among the others; parameters as above."""
    from sklearn.metrics import pairwise_distances

    k = distances.shape[1] - 1
    to_own = pairwise_distances(train[own], train, metric)
    # To the mean of a vector's k nearest, the next one comes in the place of the one left out.
    radii = np.where(near, (distances.sum(axis=1) - to_own) / k, distances[:, :k].mean(axis=1))
    ratios = to_own / radii
    ratios[np.arange(len(own)), own] = np.inf
    return _mean_of_smallest(ratios, min(n_nearest, len(train) - 1))


def _neighbors(train: np.ndarray, n_neighbors: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices of each training vector's nearest others, nearest first, (n_train, n_neighbors) each."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=n_neighbors, metric=metric).fit(train).kneighbors()


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Rows of a matrix of distances, some at a time: all of them might not fit into the memory."""
    step = max(1, BLOCK_NUMBERS // n_columns)
    return (slice(start, start + step) for start in range(0, n_rows, step))


def _among(own: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """Whether ``own[i]`` is among row j of the neighbours, bool, (n_own, n_train)."""
    near = np.zeros((len(own), len(neighbors)), bool)
    whose, place = np.nonzero((neighbors >= own[0]) & (neighbors <= own[-1]))
    near[neighbors[whose, place] - own[0], whose] = True
    return near


def _mean_of_smallest(values: np.ndarray, number: int) -> np.ndarray:
    """Mean of the smallest of each row."""
    return np.partition(values, number - 1, axis=1)[:, :number].mean(axis=1)
