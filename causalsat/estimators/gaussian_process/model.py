"""The Gaussian-process effect model: a trial's distinct rows, terms, their priors, and where a search starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler
from causalsat.estimators.gaussian_process import kernels as gp_kernels
from causalsat.estimators.gaussian_process.kernels import FloatArray, Term, curve_features, dose_factor

__all__ = [
    "Model",
    "Observations",
    "Scaling",
    "binary_model",
    "collapse",
    "continuous_model",
    "inducing_rows",
    "learn_scaling",
    "observe",
    "random_rows",
    "relevance",
    "starting_points",
]


DECIMALS = 9  # of standardised numbers: what differs by rounding alone is the same


@dataclass(frozen=True)
class Scaling:
    """Centres and scales of features, outcome and treatment.

    Standardised numbers are rounded to nine decimals: rows that differ by rounding alone are the same place, and
    neither the unit in which something was measured nor the order in which a mean was summed sends the sampler
    another way.

    Attributes
    ----------
    x_mean, x_sd : ndarray of shape (p,)
        The standard deviation of a feature that does not vary is infinite.
    y_mean, y_sd, t_mean, t_sd : float
        Those of a binary treatment are 0 and 1.
    """

    x_mean: FloatArray
    x_sd: FloatArray
    y_mean: float
    y_sd: float
    t_mean: float
    t_sd: float

    def features(self, X: FloatArray) -> FloatArray:
        """Standardised features; those that did not vary are 0."""
        return np.asarray(np.round((X - self.x_mean) / self.x_sd, DECIMALS))

    def treatment(self, t: FloatArray) -> FloatArray:
        """Treatment as the kernels take it."""
        return np.asarray(np.round((t - self.t_mean) / self.t_sd, DECIMALS))

    def outcome(self, y: FloatArray) -> FloatArray:
        """Standardised outcome."""
        return np.asarray(np.round((y - self.y_mean) / self.y_sd, DECIMALS))


def learn_scaling(X: FloatArray, y: FloatArray, t: FloatArray, weight: FloatArray, *, binary: bool) -> Scaling:
    """Weighted means and standard deviations.

    Examples
    --------
    >>> X, one = np.array([[0.0, 5.0], [2.0, 5.0]]), np.ones(2)
    >>> s = learn_scaling(X, np.array([1.0, 3.0]), np.array([0.0, 1.0]), one, binary=True)
    >>> s.features(np.array([[2.0, 7.0]])), s.y_mean, s.y_sd
    (array([[1., 0.]]), 2.0, 1.0)
    """
    features, outcome, dose = (learn_scaler(v, weight) for v in (X, y, t))
    t_mean, t_sd = (0.0, 1.0) if binary else (float(dose.mean), float(dose.scale_or_one))
    return Scaling(features.mean, features.scale, float(outcome.mean), float(outcome.scale_or_one), t_mean, t_sd)


@dataclass(frozen=True)
class Observations:
    """Distinct rows of a trial, standardised: rows with equal features, treatment and village are one.

    Rows are sorted by arm.

    Attributes
    ----------
    Z : ndarray of shape (m, p)
        Features.
    t : ndarray of shape (m,)
        Treatment: 0 and 1, or standardised.
    y : ndarray of shape (m,)
        Weighted mean outcome of the row's units.
    weight : ndarray of shape (m,)
        Sum of their weights: the precision of y in units of one unit's.
    arm : ndarray of int of shape (m,)
        Which noise applies.
    group : ndarray of int of shape (m,) or None
        Village.
    extra : ndarray of shape (arm, 2)
        For each arm the units beyond the distinct rows, and their squared deviations from the rows' means.
    """

    Z: FloatArray
    t: FloatArray
    y: FloatArray
    weight: FloatArray
    arm: NDArray[np.int64]
    group: NDArray[np.int64] | None
    extra: FloatArray

    def take(self, rows: NDArray[np.int64]) -> Observations:
        """Some of the rows, with the extra squares in proportion."""
        rows = np.sort(rows)
        group = None if self.group is None else np.unique(self.group[rows], return_inverse=True)[1].astype(np.int64)
        share = len(rows) / len(self.y)
        return Observations(
            self.Z[rows], self.t[rows], self.y[rows], self.weight[rows], self.arm[rows], group, self.extra * share
        )


def observe(
    scaling: Scaling,
    X: FloatArray,
    y: FloatArray,
    t: FloatArray,
    weight: FloatArray,
    group: NDArray[np.int64] | None,
    *,
    binary: bool,
) -> Observations:
    """Distinct standardised rows of the units with a weight; noise is by arm where the treatment is binary."""
    live = weight > 0
    arm = t.astype(np.int64) if binary else np.zeros(len(y), dtype=np.int64)
    return collapse(
        scaling.features(X)[live],
        scaling.treatment(t)[live],
        scaling.outcome(y)[live],
        weight[live],
        arm[live],
        None if group is None else group[live],
    )


def collapse(
    Z: FloatArray,
    t: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    arm: NDArray[np.int64],
    group: NDArray[np.int64] | None,
) -> Observations:
    """Merge units that share features, treatment and village; the likelihood stays exact.

    Weighted means and sums of squares are sufficient: rows keep the order of their first units within an arm.

    Examples
    --------
    >>> one = np.ones(4)
    >>> data = collapse(np.array([[0.0], [0.0], [1.0], [1.0]]), one, np.arange(4.0), one, np.zeros(4, int), None)
    >>> data.y, data.weight, data.extra
    (array([0.5, 2.5]), array([2., 2.]), array([[2., 1.]]))
    """
    keys = np.column_stack([Z, t, arm, np.zeros(len(t)) if group is None else group])
    _, first, label = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.lexsort((first, arm[first]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    label, first = rank[np.ravel(label)], np.asarray(first[order])
    total = np.asarray(np.bincount(label, weight), dtype=float)
    mean = np.asarray(np.bincount(label, weight * y) / total)
    n_arms = int(arm.max()) + 1
    units = np.bincount(arm, minlength=n_arms) - np.bincount(arm[first], minlength=n_arms)
    squares = np.bincount(arm, weight * (y - mean[label]) ** 2, minlength=n_arms)
    extra = np.column_stack([units, squares]).astype(float)
    return Observations(Z[first], t[first], mean, total, arm[first], None if group is None else group[first], extra)


# ---------------------------------------------------------------------- choices of rows
def random_rows(data: Observations, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """About n random rows: whole villages, and both arms in proportion."""
    if data.group is None:
        shuffled = rng.permutation(len(data.y))
        order = shuffled[np.argsort(data.arm[shuffled], kind="stable")]
        return np.sort(order[np.linspace(0, len(order) - 1, n).astype(int)])
    rank = rng.permutation(int(data.group.max()) + 1)[data.group]
    order = np.argsort(rank, kind="stable")
    last = rank[order[min(n, len(order)) - 1]]
    return np.flatnonzero(rank <= last)


def inducing_rows(data: Observations, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random rows, both arms alike: where inducing points lie."""
    chosen = []
    for arm in range(int(data.arm.max()) + 1):
        rows = np.flatnonzero(data.arm == arm)
        share = min(len(rows), max(1, n // (int(data.arm.max()) + 1)))
        chosen.append(rng.choice(rows, share, replace=False))
    return np.sort(np.concatenate(chosen))


N_KNOTS = 11  # of a learned dose-response curve
MIN_NOISE = 1e-8  # variance that is added to each unit's noise, in variances of the outcome


@dataclass(frozen=True)
class Model:
    """Terms of the covariance, random effects, and normal priors of all (mostly logarithmic) parameters.

    Attributes
    ----------
    terms : list of Term
    n_arms : int
        Number of noise levels; their log standard deviations follow the terms' parameters.
    n_random : int
        0: no village effects; 1: intercepts; 2: also slopes in the treatment (log sds, last).
    prior_mean, prior_sd : ndarray of shape (k,)
        Normal priors.
    """

    terms: list[Term]
    n_arms: int
    n_random: int
    prior_mean: FloatArray
    prior_sd: FloatArray

    @property
    def noise_at(self) -> int:
        """Position of the first noise parameter."""
        return gp_kernels.n_parameters(self.terms)

    def noise_variance(self, theta: FloatArray, data: Observations) -> FloatArray:
        """Variance of each row's mean outcome."""
        return np.asarray(self.unit_noise(theta)[data.arm] / data.weight)

    def unit_noise(self, theta: FloatArray) -> FloatArray:
        """Variance of a unit of weight 1, for each arm."""
        return np.asarray(np.exp(2 * theta[self.noise_at : self.noise_at + self.n_arms]) + MIN_NOISE)

    def random_variance(self, theta: FloatArray) -> FloatArray:
        """Variances of village effects, shape (n_random,)."""
        return np.asarray(np.exp(2 * theta[self.noise_at + self.n_arms :]))


class _Builder:
    """Collects terms and the priors of their parameters; ``loose`` ones leave more to the data."""

    def __init__(self, *, loose: bool = False) -> None:
        self.loose = loose
        self.terms: list[Term] = []
        self.mean: list[float] = []
        self.sd: list[float] = []

    def add(
        self,
        name: str,
        x: str,
        t: str,
        columns: NDArray[np.int64],
        amplitude: float,
        sd: float = 1.0,
        *,
        matern: bool = False,
        knots: FloatArray | None = None,
    ) -> None:
        """Append a term; ``amplitude`` is its prior median in standard deviations of the outcome.

        Terms with a learned curve share it.
        """
        d = max(len(columns), 1)
        if x != "const" and not len(columns):
            return
        shared = next((term.curve.start for term in self.terms if term.t == t == "curve"), -1)
        own = np.zeros(0) if knots is None else knots
        self.terms.append(Term(name, x, t, columns, len(self.mean), matern, own, shared))
        self._prior(np.log(amplitude), sd)
        for _ in range(len(columns) if x != "const" else 0):
            if x == "linear":  # all features together give the amplitude
                self._prior(-0.5 * np.log(d), 2.0 if self.loose else 2.5)
            elif x == "rbf":  # squared inverse lengths sum to a half
                self._prior(0.5 * np.log(0.5 / d) - self.loose, 2.0 if self.loose else 1.0)
            else:  # the index has a standard deviation of about 1
                self._prior(0.0, 1.0 / np.sqrt(d))
        if t == "rbf":
            self._prior(0.0, 0.7)
        for _ in range(self.terms[-1].n_t if t == "curve" else 0):
            self._prior(0.0, 1.0)
        if t == "arms":
            self._prior(1.0, 0.5)
            self._prior(np.log(0.5), 1.0)

    def _prior(self, mean: float, sd: float) -> None:
        self.mean.append(float(mean))
        self.sd.append(float(sd))

    def finish(self, n_arms: int, n_random: int) -> Model:
        """Append noise and village parameters."""
        for _ in range(n_arms):
            self._prior(np.log(0.5), 1.0)
        for _ in range(n_random):
            self._prior(np.log(0.2), 1.0)
        return Model(self.terms, n_arms, n_random, np.array(self.mean), np.array(self.sd))


def binary_model(p: int, modifiers: NDArray[np.int64], n_random: int, *, ridge: bool = True) -> Model:
    """Two correlated arms over the modifiers, and a prognostic surface over the other features."""
    build, all_features = _Builder(), np.arange(p)
    none = np.zeros(0, dtype=np.int64)
    build.add("level", "const", "one", none, 1.0, 0.5)
    build.add("average effect", "const", "linear", none, 1.0, 0.7)
    if len(modifiers) < p:
        build.add("prognosis, linear", "linear", "one", all_features, 0.5)
        build.add("prognosis, smooth", "rbf", "one", all_features, 0.5)
    build.add("arms, linear", "linear", "arms", modifiers, 0.5)
    build.add("arms, smooth", "rbf", "arms", modifiers, 0.5)
    if ridge:
        build.add("arms, index", "index", "arms", modifiers, 0.5)
    return build.finish(2, n_random)


def continuous_model(
    p: int, modifiers: NDArray[np.int64], n_random: int, span: tuple[float, float] = (-2.0, 2.0)
) -> Model:
    """Prognostic surface, average dose response, and dose responses that change with the modifiers.

    Two terms are one learned curve times a size that depends on the modifiers: many dose responses differ in size,
    not in shape, and such terms need far fewer units than a surface over features and dose. The curve's knots reach
    beyond the ``span`` of the doses by a fifth of it.
    """
    build, all_features = _Builder(loose=True), np.arange(p)
    none = np.zeros(0, dtype=np.int64)
    build.add("level", "const", "one", none, 1.0, 0.5)
    build.add("prognosis, linear", "linear", "one", all_features, 0.3, 2.0)
    build.add("prognosis, smooth", "rbf", "one", all_features, 0.5, 2.0)
    build.add("dose, linear", "const", "linear", none, 0.5, 2.0)
    build.add("dose, smooth", "const", "rbf", none, 0.5, 2.0)
    build.add("dose x features, linear", "linear", "rbf", modifiers, 0.3, 2.0)
    build.add("dose x features, smooth", "rbf", "rbf", modifiers, 0.5, 2.0)
    reach = 0.2 * (span[1] - span[0])
    knots = np.linspace(span[0] - reach, span[1] + reach, N_KNOTS)
    build.add("curve x features, linear", "linear", "curve", modifiers, 0.3, 2.0, knots=knots)
    build.add("curve x features, smooth", "rbf", "curve", modifiers, 0.5, 2.0, knots=knots)
    return build.finish(1, n_random)


def starting_points(
    model: Model, Z: FloatArray, t: FloatArray, y: FloatArray, n: int, rng: np.random.Generator
) -> list[FloatArray]:
    """The prior's mean, with index and curves from a ridge regression on features and dose, and random ones."""
    starts = []
    slope = np.linalg.solve(Z.T @ Z + 0.1 * len(y) * np.eye(Z.shape[1]), Z.T @ y)
    for k in range(n):
        theta = model.prior_mean.copy()
        if k:
            theta += 0.5 * model.prior_sd * rng.standard_normal(len(theta))
        for term in model.terms:
            if term.x == "index":
                own = slope[term.columns]
                own = own / max(float(np.linalg.norm(Z[:, term.columns] @ own)) / np.sqrt(len(y)), 1e-6)
                if k:
                    own = own * 0.5 + 0.5 * rng.standard_normal(len(own)) / np.sqrt(len(own))
                theta[term.start + 1 : term.start + 1 + term.n_x] = 0.7 * own
            if term.t == "curve":
                theta[term.curve] = _curve_start(curve_features(term.knots, t), Z, y, k, rng)
        starts.append(theta)
    return starts


def _curve_start(phi: FloatArray, Z: FloatArray, y: FloatArray, k: int, rng: np.random.Generator) -> FloatArray:
    """Weights of a learned curve: a ridge regression of the outcome on dose and features; later starts are random."""
    H = np.column_stack([phi, Z])
    weights = np.linalg.solve(H.T @ H + np.eye(H.shape[1]), H.T @ y)[: phi.shape[1]]
    return np.asarray(weights + (0.5 * rng.standard_normal(len(weights)) if k else 0.0))


def relevance(model: Model, theta: FloatArray, p: int) -> FloatArray:
    """Share of each feature in the squared weights of the kernels, averaged over terms with their amplitudes."""
    total = np.zeros(p)
    for term in model.terms:
        scale, px, _ = term.split(theta)
        if term.x != "const":
            square = px**2 if term.x == "index" else np.exp(2 * px)
            if term.t == "curve":
                scale *= float(np.mean(dose_factor(term, theta, term.knots) ** 2))
            total[term.columns] += scale * square / max(float(square.sum()), 1e-300)
    return np.asarray(total / total.sum()) if total.sum() > 0 else total
