r"""The place's own effect: what it deviates by from the mean effect of places that look alike.

The outcome of unit i in village g is ``y = mu(x) + a_g + t (tau(x) + u_g) + e``, with noise of its own in each arm.
Given predicted effects, the standard deviation s_u of u follows in two ways:

* *within*: where villages hold several treatments, each has a contrast of its own, ``d_g``, whose variance beyond its
  sampling error is s_u^2;
* *between*: where whole villages are treated, the variance between treated villages is
  ``s_a^2 + s_u^2 + 2 rho s_a s_u`` and that between control villages s_a^2, so that s_u follows from the correlation
  rho of a village's level and its effect, which no data show.

In both, squared deviations from the predictions are compared with their variances as in a meta-analysis: with r_g the
deviations and v_g their sampling variances, ``Q(s^2) = sum r_g^2 / (s^2 + v_g)`` is chi-squared at the true s^2.
Inverting its distribution gives a confidence distribution of s_u (Q-profile; Viechtbauer 2007), which has mass at 0
where the data are consistent with none. Noise variances are drawn from theirs. Kurtosis lowers the degrees of
freedom.

Predictions that were fitted to the same outcomes lie too near to them. For a Bayesian smoother the variance of an
in-sample residual is the outcome's variance less the posterior variance of the fit, which is what is used here.

References
----------
Viechtbauer (2007), "Confidence intervals for the amount of heterogeneity in meta-analysis", Statistics in Medicine
26(1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData
from causalsat.exceptions import ParameterError
from causalsat.inference.folds import content_order
from causalsat.inference.nuisances import crossfit_ridge

__all__ = [
    "PlaceDeviation",
    "add_place_draws",
    "check_scope",
    "draw_units",
    "learn_place_deviation",
    "place_deviation",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MIN_VILLAGES = 10  # with several treatments, or in each arm
MIN_DF = 5.0  # of each arm's noise
MAX_RHO = 0.5
N_LEVELS = 200  # draws of the confidence distribution
MAX_LEVERAGE = 0.8  # of a village in its own prediction
MAX_UNITS = 5_000  # of whole villages, from which it is learned
SCOPES = ("mean", "place")
_STEPS = 42  # of the bisection


@dataclass(frozen=True, eq=False)
class PlaceDeviation:
    """Confidence distribution of the standard deviation of places' own effects.

    Attributes
    ----------
    by : str
        "within" (villages hold several treatments), "between" (whole villages are treated) or "" (not identified).
    sd : ndarray of shape (k,)
        Draws of s_u in ascending order; under rho = 0 where whole villages are treated. Empty if not identified.
    sd_low, sd_high : ndarray of shape (k,)
        Under rho = 0.5 and rho = -0.5, the least and the largest s_u; the same as ``sd`` if ``by`` is "within".
    n_villages : int
        Villages that say something of s_u.
    reason : str
        Why it is not identified, and what to do.
    """

    by: str
    sd: FloatArray
    sd_low: FloatArray
    sd_high: FloatArray
    n_villages: int
    reason: str = ""


def check_scope(scope: Any) -> None:
    """Refuse a scope that is neither "mean" nor "place"."""
    if not isinstance(scope, str) or scope not in SCOPES:
        raise ParameterError(f"scope={scope!r}", expected="'mean' (of places that look alike) or 'place' (its own)")


def learn_place_deviation(
    data: FitData, effect_draws: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
) -> PlaceDeviation:
    """What places' own effects deviate by from the effects of an estimator that was fitted to the same data.

    Parameters
    ----------
    data : FitData
        Of the fit; of many units the villages of some 5,000.
    effect_draws : callable
        Draws (draw, n) of the effects of checked features at two levels of treatment.
    """
    n, groups, rng = len(data.y), data.groups, np.random.default_rng(0)
    if groups is None or len(np.unique(groups)) == n:
        none = np.empty((0, n))
        return place_deviation(
            data.y,
            data.treatment,
            None,
            data.sample_weight,
            data.X,
            none,
            held_out=False,
            rng=np.random.default_rng(0),
        )
    order, codes = content_order((data.treatment, data.sample_weight, data.y, *data.X.T), groups)
    if n > MAX_UNITS:
        first = rng.permutation(int(codes.max()) + 1)
        total = np.cumsum(np.bincount(codes)[first])
        chosen = np.isin(codes, first[: max(int((total <= MAX_UNITS).sum()), 2 * MIN_VILLAGES)])
        order = order[chosen[order]]
    X, t = data.X[order], data.treatment[order]
    draws = effect_draws(X, t, np.zeros(len(t)))
    return place_deviation(
        data.y[order], t, codes[order], data.sample_weight[order], X, draws, held_out=False, rng=rng
    )


def place_deviation(
    y: FloatArray,
    treatment: FloatArray,
    groups: IntArray | None,
    weight: FloatArray,
    features: FloatArray,
    contribution: FloatArray,
    *,
    held_out: bool,
    rng: np.random.Generator,
) -> PlaceDeviation:
    """Standard deviation of places' own effects about predicted ones.

    Parameters
    ----------
    y, treatment, weight : ndarray of shape (n,)
        Outcomes, treatments (0 and 1, or doses) and weights.
    groups : ndarray of int of shape (n,), optional
        Codes of the villages.
    features : ndarray of shape (n, p)
        What may predict the outcome.
    contribution : ndarray of shape (draw, n)
        Draws of what the treatment received adds to each outcome; a single row where only a mean is known.
    held_out : bool
        Whether the predictions are of models that did not see the unit's village.
    rng : numpy.random.Generator

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> village, t = np.repeat(np.arange(200), 20), np.tile([0.0, 1.0], 2000)
    >>> own = 1 + 0.6 * rng.standard_normal(200)
    >>> y = t * own[village] + rng.standard_normal(4000)
    >>> one = np.ones(4000)
    >>> found = place_deviation(y, t, village, one, one[:, None], t[None] * 1.0, held_out=True, rng=rng)
    >>> found.by, bool(0.5 < np.median(found.sd) < 0.7)
    ('within', True)
    """
    if groups is None or len(np.unique(groups)) == len(groups):
        return _unidentified(
            "each unit is a village of its own, so that its own effect cannot be told from noise",
            "pass groups= of places with several units; bounds are in causalsat.evaluation.explained_heterogeneity",
        )
    binary = bool(np.isin(treatment, (0.0, 1.0)).all())
    code = np.unique(groups, return_inverse=True)[1]
    kernel = _contrasts(treatment, code, weight, binary=binary)
    mixed = np.bincount(code, kernel != 0) > 0
    if mixed.sum() >= MIN_VILLAGES:
        return _within(y, treatment, code, weight, features, contribution, kernel, mixed, binary, held_out, rng)
    if not binary:
        return _unidentified(
            "the dose hardly varies within villages", "a design in which villages hold several doses would show it"
        )
    return _between(y, treatment, code, weight, features, contribution, held_out, rng)


def _unidentified(reason: str, todo: str, n_villages: int = 0) -> PlaceDeviation:
    none = np.empty(0)
    return PlaceDeviation("", none, none, none, n_villages, f"{reason}; {todo}")


# ---------------------------------------------------------------------- several treatments in a village
def _contrasts(t: FloatArray, code: IntArray, weight: FloatArray, *, binary: bool) -> FloatArray:
    """Weights of each unit in its village's contrast (effect of one unit of treatment); 0 where there is none."""
    if binary:
        arm = 2 * code + t.astype(np.int64)
        mass = np.bincount(arm, weight, minlength=2 * (int(code.max()) + 1)).reshape(-1, 2)
        both = np.asarray((mass > 0).all(axis=1))[code]
        share = weight / np.maximum(mass[code, t.astype(np.int64)], 1e-300)
        return np.where(both, np.where(t > 0, share, -share), 0.0)
    mean = np.bincount(code, weight * t) / np.maximum(np.bincount(code, weight), 1e-300)
    deviation = t - mean[code]
    squares = np.bincount(code, weight * deviation**2)
    varies = squares > 1e-9 * max(float(np.average((t - t.mean()) ** 2)), 1e-300)
    return np.where(varies[code], weight * deviation / np.where(varies, squares, 1.0)[code], 0.0)


def _within(
    y: FloatArray,
    t: FloatArray,
    code: IntArray,
    weight: FloatArray,
    features: FloatArray,
    contribution: FloatArray,
    kernel: FloatArray,
    mixed: NDArray[np.bool_],
    binary: bool,
    held_out: bool,
    rng: np.random.Generator,
) -> PlaceDeviation:
    rest = y - contribution.mean(axis=0)
    rest = rest - _prognosis(features, rest, t, weight, code)
    arm = t.astype(np.int64) if binary else np.zeros(len(t), dtype=np.int64)
    if binary:
        noise = [_noise(rest, 2 * code + arm, weight, arm == a) for a in (0, 1)]
    else:
        slope = np.bincount(code, kernel * rest)[code]
        mean = np.bincount(code, weight * t) / np.bincount(code, weight)
        noise = [_noise(rest - slope * (t - mean[code]), code, weight, kernel != 0, lost=1)]
    if min(df for _, df in noise) < MIN_DF:
        return _unidentified(
            "hardly any village has two units of the same treatment, so that noise cannot be told from the place's "
            "own effect",
            "bounds are in causalsat.evaluation.explained_heterogeneity",
            int(mixed.sum()),
        )
    residual: FloatArray = np.bincount(code, kernel * rest)[mixed].astype(np.float64)
    loading = np.stack([np.bincount(code, kernel**2 * (arm == a))[mixed] for a in range(len(noise))])
    variance = _village_variance(contribution, kernel, code)[mixed]
    sampled = np.stack([_scaled(s2, df, rng) for s2, df in noise], axis=1) @ loading
    if held_out:
        residual = residual - np.average(residual, weights=1 / (sampled.mean(axis=0) + variance + _tiny(residual)))
        squared = _profile(residual, sampled + variance, 0.0 * variance, 1, rng)
    else:
        squared = _profile(residual, sampled, variance, 0, rng)
    sd = np.sort(np.sqrt(np.maximum(squared, 0.0)))
    return PlaceDeviation("within", sd, sd, sd, int(mixed.sum()))


def _prognosis(features: FloatArray, rest: FloatArray, t: FloatArray, w: FloatArray, code: IntArray) -> FloatArray:
    """What features that vary within villages predict of the outcome, from other villages; zeros without any."""
    mass = np.bincount(code, w)
    if not features.shape[1]:
        return np.zeros(len(rest))
    centres = np.stack([np.bincount(code, w * column) / mass for column in features.T], axis=1)
    inner = features - centres[code]
    keep = inner.std(axis=0) > 1e-6 * np.maximum(features.std(axis=0), 1e-300)
    if not keep.any():
        return np.zeros(len(rest))

    middle = np.bincount(code, w * rest) / mass
    found = crossfit_ridge(inner[:, keep], rest - middle[code], w, code)
    return np.asarray(found - np.average(found, weights=w))


def _noise(
    rest: FloatArray, cell: IntArray, weight: FloatArray, units: NDArray[np.bool_], lost: int = 0
) -> tuple[float, float]:
    """Pooled variance within cells (of these units) and its effective degrees of freedom.

    ``lost`` is the degrees of freedom of a cell that went besides its mean.
    """
    code = np.unique(cell[units], return_inverse=True)[1]
    if not len(code):
        return 0.0, 0.0
    r, w = rest[units], weight[units]
    mass, size = np.bincount(code, w), np.bincount(code)
    deviation = r - (np.bincount(code, w * r) / mass)[code]
    free = np.maximum(size - 1 - lost, 0)
    share = mass - np.bincount(code, w**2) / mass
    share = np.where(size > 1, share * free / np.maximum(size - 1, 1), 0.0)
    if share.sum() <= 0:
        return 0.0, 0.0
    used = (free > 0)[code]
    value = float((w * deviation**2)[used].sum() / share.sum())
    scaled = deviation[used] ** 2 * (size / np.maximum(free, 1))[code][used]
    return value, _effective(float(free.sum()), scaled, value)


def _effective(df: float, squares: FloatArray, variance: float) -> float:
    """Degrees of freedom of a mean of squares whose kurtosis is that of the sample, at most ``df``."""
    mean = float(np.mean(squares)) if len(squares) else 0.0
    if variance <= 0 or len(squares) < 4 or mean <= 0:
        return df
    excess = max(float(np.mean((squares / mean) ** 2)) - 3.0, 0.0)
    return df * 2.0 / (2.0 + excess)


def _scaled(variance: float, df: float, rng: np.random.Generator) -> FloatArray:
    """Draws of a variance given its estimate."""
    return np.asarray(variance * df / rng.chisquare(df, N_LEVELS)) if df > 0 else np.full(N_LEVELS, variance)


def _village_variance(contribution: FloatArray, kernel: FloatArray, code: IntArray) -> FloatArray:
    """Posterior variance of each village's predicted contrast, shape (village,); 0 where only a mean is known."""
    n_villages = int(code.max()) + 1
    if len(contribution) < 2:
        return np.zeros(n_villages)
    from scipy.sparse import csr_array

    table = csr_array((kernel, (code, np.arange(len(code)))), shape=(n_villages, len(code)))
    return np.asarray((table @ (contribution - contribution.mean(axis=0)).T).var(axis=1, ddof=1))


def _tiny(residual: FloatArray) -> float:
    return 1e-12 * max(float(np.mean(residual**2)), 1e-300)


def _profile(
    residual: FloatArray,
    sampling: FloatArray,
    fitted: FloatArray,
    lost: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Draws (k,) of the variance beyond the sampling variances (k, village), possibly negative.

    ``fitted`` are the posterior variances of predictions that saw the outcomes; ``lost`` degrees of freedom went.
    """
    from scipy.special import ndtri

    square = residual**2
    k, floor = len(sampling), _tiny(residual)
    level = rng.permutation((np.arange(k) + 0.5) / k)
    low = -0.98 * sampling.min(axis=1) - (sampling.min(axis=1) <= floor) * floor
    high = np.full(k, 1e3 * (float(square.max()) + float(sampling.max()) + floor))

    def excess(extra: FloatArray, sampled: FloatArray, z: FloatArray | float, shrink: float) -> FloatArray:
        total = np.maximum(extra[:, None] + sampled, floor)
        df = (1 - np.minimum(fitted / total, MAX_LEVERAGE)).sum(axis=1) - lost
        part = 2 / (9 * np.maximum(df * shrink, 1.0))
        ratio = np.maximum(1 - part + z * np.sqrt(part), 0.02) ** 3  # Wilson and Hilferty's chi-squared over its df
        return np.asarray((square / total).sum(axis=1) - df * ratio)

    def solve(sampled: FloatArray, z: FloatArray | float, shrink: float) -> FloatArray:
        a, b = low[: len(sampled)].copy(), high[: len(sampled)].copy()
        for _ in range(_STEPS):
            middle = 0.5 * (a + b)
            above = excess(middle, sampled, z, shrink) > 0
            a, b = np.where(above, middle, a), np.where(above, b, middle)
        return 0.5 * (a + b)

    average = sampling.mean(axis=0, keepdims=True)
    total = np.maximum(max(float(solve(average, 0.0, 1.0)[0]), -0.9 * float(average.min())) + average[0], floor)
    return solve(sampling, ndtri(level), _effective(1.0, square / total, 1.0))


# ---------------------------------------------------------------------- one treatment a village
def _between(
    y: FloatArray,
    t: FloatArray,
    code: IntArray,
    weight: FloatArray,
    features: FloatArray,
    contribution: FloatArray,
    held_out: bool,
    rng: np.random.Generator,
) -> PlaceDeviation:
    rest, mass = y - contribution.mean(axis=0), np.bincount(code, weight)
    share = np.bincount(code, weight * t) / mass
    pure = (share == 0) | (share == 1)
    counts = int((share[pure] == 0).sum()), int((share[pure] == 1).sum())
    if min(counts) < MIN_VILLAGES:
        return _unidentified(
            f"{counts[0]} control and {counts[1]} treated villages",
            f"at least {MIN_VILLAGES} of each, or {MIN_VILLAGES} villages that hold both, are needed",
            sum(counts),
        )
    arm = t.astype(np.int64)
    noise = [_noise(rest, code, weight, (arm == a) & pure[code]) for a in (0, 1)]
    if min(df for _, df in noise) < MIN_DF:
        return _unidentified("hardly any village has two units", "groups= of places with several units", sum(counts))
    mean = np.stack([np.bincount(code, weight * c) / mass for c in (rest, *features.T)], axis=1)[pure]
    loading, treated = (np.bincount(code, weight**2) / mass**2)[pure], share[pure] > 0
    residual = _village_residuals(mean[:, 0], mean[:, 1:], treated)
    variance = _village_variance(contribution, weight / mass[code], code)[pure]
    values = []
    for a, (s2, df) in enumerate(noise):
        rows = treated == bool(a)
        sampled = _scaled(s2, df, rng)[:, None] * loading[rows]
        fitted = 0.25 * variance[rows]  # a half comes from each arm, and half of that is in the leverages already
        if held_out:
            values.append(_profile(residual[rows], sampled + variance[rows] * a, 0.0 * fitted, 1, rng))
        else:
            values.append(_profile(residual[rows], sampled, fitted, 0, rng))
    control, both = values
    sd, low, high = (np.sort(_root(both - control, np.maximum(control, 0.0), r)) for r in (0.0, MAX_RHO, -MAX_RHO))
    return PlaceDeviation("between", sd, low, high, sum(counts))


def _root(difference: FloatArray, level: FloatArray, rho: float) -> FloatArray:
    """The largest s >= 0 with ``s^2 + 2 rho s s_a = difference``; 0 where there is none. ``level`` is s_a^2."""
    inner = difference + rho**2 * level
    return np.maximum(np.sqrt(np.maximum(inner, 0.0)) - rho * np.sqrt(level), 0.0) * (inner >= 0)


def _village_residuals(mean: FloatArray, features: FloatArray, treated: NDArray[np.bool_]) -> FloatArray:
    """Means of villages less what arm and features predict, by ridge regression, scaled to the means' variance."""
    base = np.column_stack([~treated, treated]).astype(float)
    residual = mean - base @ np.linalg.lstsq(base, mean, rcond=None)[0]
    arms = base @ (1 / base.sum(axis=0))
    spread = features.std(axis=0) if features.size else np.zeros(0)
    keep = spread > 1e-9 * np.maximum(np.abs(features).max(axis=0, initial=0.0), 1e-300)
    if not keep.any():
        return np.asarray(residual / np.sqrt(np.maximum(1 - arms, 0.2)))
    Z = (features[:, keep] - features[:, keep].mean(axis=0)) / spread[keep]
    Z = Z - base @ np.linalg.lstsq(base, Z, rcond=None)[0]
    left, values, _ = np.linalg.svd(Z, full_matrices=False)
    projected, best = left.T @ residual, (np.inf, residual, np.zeros(len(mean)))
    for penalty in np.logspace(-3, 4, 22):
        gain = values**2 / (values**2 + penalty)
        leverage = (left**2) @ gain
        rest = residual - left @ (gain * projected)
        score = float(np.mean(rest**2)) / max(1 - (gain.sum() + 2) / len(mean), 0.05) ** 2
        if score < best[0]:
            best = score, rest, leverage
    return np.asarray(best[1] / np.sqrt(np.maximum(1 - best[2] - arms, 0.2)))


# ---------------------------------------------------------------------- draws for new places
def draw_units(design: FloatArray, n_draws: int, seed: int) -> FloatArray:
    """Standard normal draws (n_draws, n), the same for the same features, whichever other units are asked for.

    Examples
    --------
    >>> z = draw_units(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]), 2000, 0)
    >>> bool((z[:, 0] == z[:, 2]).all()), bool(abs(np.corrcoef(z[:, 0], z[:, 1])[0, 1]) < 0.1)
    (True, True)
    """
    from scipy.special import ndtri

    single = np.ascontiguousarray(design, dtype=np.float32) + np.float32(0.0)  # -0 is 0
    key = np.full(len(single), np.uint64(seed & (2**63 - 1)), dtype=np.uint64)
    for column in single.view(np.uint32).reshape(len(single), -1).T:
        key = _mix(key ^ column.astype(np.uint64))
    out = np.empty((n_draws, len(single)))
    for k in range(n_draws):
        bits = _mix(key + np.uint64((k + 1) * 0x9E3779B97F4A7C15 % 2**64))
        out[k] = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(ndtri(out))


def _mix(x: Any) -> Any:
    """Steele, Lea and Flood's (2014) finaliser of 64 bits."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def add_place_draws(
    draws: FloatArray, design: FloatArray, factor: FloatArray, deviation: PlaceDeviation, seed: int = 0
) -> FloatArray:
    """Draws (draw, n) of mean effects with each place's own deviation added.

    The deviations are independent between places, of mean 0 over the draws, and uncorrelated with the draws of the
    mean effects, so that means stay and standard deviations grow. ``factor`` is the contrast of doses, (n,).
    """
    n_draws = len(draws)
    order = np.random.default_rng([seed, n_draws]).permutation(n_draws)
    size = np.quantile(deviation.sd, (order + 0.5) / n_draws)
    own = size[:, None] * draw_units(design, n_draws, seed)
    own -= own.mean(axis=0)
    centred = draws - draws.mean(axis=0)
    squares = (centred**2).sum(axis=0)
    if n_draws > 2:
        own -= centred * ((centred * own).sum(axis=0) / np.where(squares > 0, squares, 1.0))
    return np.asarray(draws + factor * own)
