"""Simulated doses, dosages and structured treatments with known outcomes, as the papers on networks use them.

Every function takes a :class:`numpy.random.Generator`, and returns units in random order with the noiseless outcome
of any unit under any treatment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ParameterError

__all__ = [
    "DosageTrial",
    "DoseTrial",
    "GraphTrial",
    "continuous_ihdp",
    "dosage_trial",
    "graph_trial",
    "low_rank_covariates",
    "simu1",
]

FloatArray = NDArray[np.float64]
NOISE = 0.5
FIRST = (3, *range(6, 15))  # columns of IHDP in the outcome's tanh
SECOND = tuple(range(15, 25))  # columns of IHDP in the assignment's tanh
GRID = 65  # dosages at which the best one is looked for


@dataclass(frozen=True)
class DoseTrial:
    """Units with a continuous treatment.

    Attributes
    ----------
    X : ndarray of shape (n, p)
        Covariates.
    dose, y : ndarrays of shape (n,)
        Treatment and outcome.
    response : callable
        ``response(X, dose)`` is the noiseless outcome, a row a unit.
    """

    X: FloatArray
    dose: FloatArray
    y: FloatArray
    response: Callable[[FloatArray, FloatArray], FloatArray]

    def __len__(self) -> int:
        """Number of units."""
        return len(self.y)

    def take(self, rows: Any) -> DoseTrial:
        """Some of the units."""
        return replace(self, X=self.X[rows], dose=self.dose[rows], y=self.y[rows])

    def average(self, doses: FloatArray) -> FloatArray:
        """Noiseless outcome averaged over the units, at each dose."""
        return np.array([self.response(self.X, np.full(len(self), dose)).mean() for dose in np.atleast_1d(doses)])


def simu1(n: int, rng: np.random.Generator, *, scale: float = 1.0, reach: float = 1.0) -> DoseTrial:
    r"""Six uniform covariates, of which all but one decide the dose (Nie et al. 2021; Zhang et al. 2022).

    The dose is ``reach * scale * sigmoid(u)``, the outcome a function of dose / ``scale``.

    Parameters
    ----------
    n : int
        Units.
    rng : numpy.random.Generator
        Source of covariates and noise.
    scale : float
        h of the papers.
    reach : float
        Share of [0, scale] that doses reach: below 1 to train on a smaller support.

    Examples
    --------
    >>> trial = simu1(500, np.random.default_rng(0))
    >>> trial.X.shape, bool(trial.dose.max() < 1)
    ((500, 6), True)
    """
    X = rng.random((n, 6))
    x1, x2, x3, x4, x5, _ = X.T
    top = 10 * np.sin(np.maximum(np.maximum(x1, x2), x3)) + np.maximum(np.maximum(x3, x4), x5) ** 3
    u = top / (1 + (x1 + x5) ** 2) + np.sin(0.5 * x3) * (1 + np.exp(x4 - 0.5 * x3))
    u = u + x3**2 + 2 * np.sin(x4) + 2 * x5 - 6.5 + 0.5 * rng.standard_normal(n)

    def response(X: FloatArray, dose: FloatArray) -> FloatArray:
        x1, x3, x4, x6, s = X[:, 0], X[:, 2], X[:, 3], X[:, 5], dose / scale
        curve = s**2 + 4 * np.maximum(x1, x6) ** 3 * np.sin(x4) / (1 + 2 * x3**2)
        return np.asarray(np.cos(2 * np.pi * (s - 0.5)) * curve)

    dose = reach * scale / (1 + np.exp(-u))
    return DoseTrial(X, dose, response(X, dose) + NOISE * rng.standard_normal(n), response)


def continuous_ihdp(X: FloatArray, rng: np.random.Generator, *, scale: float = 1.0) -> DoseTrial:
    r"""A dose over the 25 covariates of IHDP, each (x - min) / max (Nie et al. 2021; Zhang et al. 2022).

    Parameters
    ----------
    X : ndarray of shape (n, 25)
        Covariates, scaled.
    rng : numpy.random.Generator
        Source of noise and of the order of the units.
    scale : float
        h of the papers: doses lie in [0, scale].

    Raises
    ------
    DataError
        If there are not 25 columns.
    """
    if X.ndim != 2 or X.shape[1] != 25:
        raise DataError(f"covariates of shape {X.shape}", expected="the 25 covariates of IHDP")
    m = X[:, FIRST].mean()

    def response(X: FloatArray, dose: FloatArray) -> FloatArray:
        s = dose / scale
        a, b, c, e, f = X[:, [0, 1, 2, 4, 5]].T
        level = np.tanh(5 * (X[:, FIRST].mean(axis=1) - m))
        level = level + np.exp(0.2 * (a - f)) / (0.1 + np.minimum(np.minimum(b, c), e))
        return np.asarray(np.sin(3 * np.pi * s) / (1.2 - s) * level)

    a, b, c, e, f = X[:, [0, 1, 2, 4, 5]].T
    u = a / (1 + b) + np.maximum(np.maximum(c, e), f) / (0.2 + np.minimum(np.minimum(c, e), f))
    u = u + np.tanh(5 * (X[:, SECOND].mean(axis=1) - m)) - 2 + 0.5 * rng.standard_normal(len(X))
    dose = scale / (1 + np.exp(-2 * u))
    order = rng.permutation(len(X))
    X, dose = X[order], dose[order]
    return DoseTrial(X, dose, response(X, dose) + NOISE * rng.standard_normal(len(X)), response)


# ---------------------------------------------------------------------- dosages
@dataclass(frozen=True)
class DosageTrial:
    """Units with one of three treatments and its dosage in [0, 1] (SCIGAN, Bica et al. 2020).

    Attributes
    ----------
    X : ndarray of shape (n, p)
        Covariates of unit length.
    treatment, dosage, y : ndarrays of shape (n,)
        Treatment 0, 1 or 2, dosage, outcome.
    vectors : ndarray of shape (3, 3, p)
        v_0, v_1, v_2 of each treatment.
    """

    X: FloatArray
    treatment: FloatArray
    dosage: FloatArray
    y: FloatArray
    vectors: FloatArray

    def response(self, X: FloatArray, treatment: int, dosage: FloatArray) -> FloatArray:
        """Noiseless outcome, one dosage a unit."""
        return dosage_response(self.vectors, X, treatment, dosage)


def dosage_response(vectors: FloatArray, X: FloatArray, treatment: int, dosage: FloatArray) -> FloatArray:
    """Noiseless outcome 10 (v_0 x + curve of the treatment at the dosage) of units under one treatment."""
    base, one, two = X @ vectors[treatment].T[:, 0], X @ vectors[treatment].T[:, 1], X @ vectors[treatment].T[:, 2]
    r, s = one / two, dosage
    curve = (12 * s * (s - 0.75 * r) ** 2, np.sin(np.pi * s * r), 12 * (one * s - two * s**2))[treatment]
    return np.asarray(10 * (base + curve))


def low_rank_covariates(n: int, p: int, rank: int, rng: np.random.Generator) -> FloatArray:
    """Non-negative covariates of unit length that vary in a few directions, (n, p)."""
    loading = rng.gamma(1.0, 1.0, (rank, p))
    X = rng.gamma(2.0, 1.0, (n, rank)) @ loading + 0.1 * rng.random((n, p))
    return np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True))


def dosage_trial(X: FloatArray, rng: np.random.Generator, *, noise: float = 0.2) -> DosageTrial:
    """Assign treatments by their best outcome and dosages around the best one, and draw outcomes.

    Treatment w has the weight exp(2 y_w / max_w y_w) at its best dosage s*, which is the mode of the dosage's
    Beta(2, 1 / s*) distribution.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Non-negative covariates of unit length.
    rng : numpy.random.Generator
        Source of vectors, assignment and noise.
    noise : float
        Standard deviation of the outcome's noise.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> trial = dosage_trial(low_rank_covariates(300, 20, 4, rng), rng)
    >>> np.unique(trial.treatment).tolist(), bool(0 <= trial.dosage.min())
    ([0.0, 1.0, 2.0], True)
    """
    vectors = rng.uniform(0, 10, (3, 3, X.shape[1]))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    grid = np.linspace(0, 1, GRID)
    best, top = np.empty((3, len(X))), np.empty((3, len(X)))
    for w in range(3):
        values = np.stack([dosage_response(vectors, X, w, np.full(len(X), s)) for s in grid])
        best[w], top[w] = grid[values.argmax(axis=0)], values.max(axis=0)
    logit = 2 * top / top.max(axis=0)
    chance = np.exp(logit - logit.max(axis=0))
    chance /= chance.sum(axis=0)
    treatment = (rng.random(len(X)) > np.cumsum(chance, axis=0)[:2]).sum(axis=0)
    mode = np.clip(best[treatment, np.arange(len(X))], 0.05, 1.0)
    dosage = rng.beta(2.0, 1 / mode)
    mean = np.choose(treatment, [dosage_response(vectors, X, w, dosage) for w in range(3)])
    y = mean + noise * rng.standard_normal(len(X))
    return DosageTrial(X, treatment.astype(float), dosage, y, vectors)


# ---------------------------------------------------------------------- graphs
@dataclass(frozen=True)
class GraphTrial:
    """Units whose treatments are graphs.

    Attributes
    ----------
    X : ndarray of shape (n, 20)
        Covariates.
    graphs : ndarray of shape (K, nodes, nodes)
        Adjacency matrices, padded with zeros.
    treatment, y : ndarrays of shape (n,)
        Position of the unit's graph, outcome.
    chance : ndarray of shape (n, K)
        Probability of each graph for each unit.
    mean : ndarray of shape (n, K)
        Noiseless outcome of each unit under each graph.
    """

    X: FloatArray
    graphs: FloatArray
    treatment: FloatArray
    y: FloatArray
    chance: FloatArray
    mean: FloatArray


def graph_trial(n: int, n_graphs: int, rng: np.random.Generator, *, nodes: tuple[int, int] = (10, 119)) -> GraphTrial:
    """Watts-Strogatz graphs as treatments (Kaddour et al. 2021).

    y = 100 w0.x + 0.2 g1^2 w1.x + g2 w2.x + N(0, 1) with g1 the average shortest path and g2 the node connectivity of
    the graph; graph k has the weight exp(10 W_k x^2).

    Parameters
    ----------
    n, n_graphs : int
        Units and graphs.
    rng : numpy.random.Generator
        Source of everything.
    nodes : tuple of int
        Fewest and most nodes.
    """
    if nodes[0] < 8 or nodes[1] < nodes[0]:
        raise ParameterError(f"nodes={nodes}", expected="(fewest, most), from 8 on")
    import networkx as nx

    made, statistics = np.zeros((n_graphs, nodes[1], nodes[1])), np.empty((n_graphs, 2))
    for k in range(n_graphs):
        size, near = int(rng.integers(nodes[0], nodes[1] + 1)), int(rng.integers(3, 8))
        graph = nx.connected_watts_strogatz_graph(size, near, rng.uniform(0.1, 1), seed=int(rng.integers(2**31)))
        made[k, :size, :size] = nx.to_numpy_array(graph)
        statistics[k] = nx.average_shortest_path_length(graph), nx.node_connectivity(graph)
    X = rng.uniform(-1, 1, (n, 20))
    w = rng.random((3, 20))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    taste = rng.random((n_graphs, 20))
    logit = 10 * (X**2) @ (taste / np.linalg.norm(taste, axis=1, keepdims=True)).T
    chance = np.exp(logit - logit.max(axis=1, keepdims=True))
    chance /= chance.sum(axis=1, keepdims=True)
    base, path, tied = (X @ w.T).T
    mean = 100 * base[:, None] + 0.2 * statistics[:, 0] ** 2 * path[:, None] + statistics[:, 1] * tied[:, None]
    treatment = (rng.random((n, 1)) > np.cumsum(chance, axis=1)[:, :-1]).sum(axis=1)
    y = mean[np.arange(n), treatment] + rng.standard_normal(n)
    return GraphTrial(X, made, treatment.astype(float), y, chance, mean)
