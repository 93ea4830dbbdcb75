"""How far a posterior of conditional effects is over- or underconfident, from held-out group averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.base import effect
from causalsat.core.inputs import aligned
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.evaluation.crossfit import CrossfitEffects
from causalsat.exceptions import DataError
from causalsat.posterior import EffectPosterior

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PosteriorScale", "out_of_fold_draws", "posterior_scale"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LARGEST = 50.0  # factors are looked for up to here


@dataclass(frozen=True, eq=False)
class PosteriorScale(Tabular):
    """A diagnostic, not a guarantee: the factor by which posterior sds should be multiplied, with its uncertainty.

    Attributes
    ----------
    factor : float
        Maximum-likelihood factor; above 1 the posterior is too narrow. 0 where sampling noise alone explains all
        differences between held-out scores and predictions.
    lower, upper : float
        Profile-likelihood interval of the factor; ``upper`` is inf where the data do not bound it.
    level : float
        Its level.
    p_value : float
        Likelihood-ratio test of factor 1.
    estimate, predicted : ndarray of shape (fold, group)
        Mean held-out score and posterior mean of each group's average effect.
    se, sd : ndarray of shape (fold, group)
        Cluster-robust standard error of the group's mean difference of score and predicted effect (the noise of the
        scores, not the effects' differences within the group); posterior standard deviation of its average.
    z : ndarray of shape (fold, group)
        ``(estimate - predicted) / sqrt(se^2 + sd^2)``: about standard normal where the posterior is calibrated.
    """

    factor: float
    lower: float
    upper: float
    level: float
    p_value: float
    estimate: FloatArray
    predicted: FloatArray
    se: FloatArray
    sd: FloatArray
    z: FloatArray

    def stretch(self, posterior: EffectPosterior, factor: float | None = None) -> EffectPosterior:
        """Posterior with its draws spread about their means by a factor (the estimated one): for sensitivity."""
        from dataclasses import replace

        scale = self.factor if factor is None else float(factor)
        mean = posterior.mean()
        about = {**posterior.diagnostics, "spread multiplied by": scale}
        return replace(posterior, draws=mean + scale * (posterior.draws - mean), diagnostics=about)

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row a fold and group: estimate, se, predicted, sd, z."""
        import pandas as pd

        folds, k = self.z.shape
        index = pd.MultiIndex.from_product([range(folds), range(1, k + 1)], names=["fold", "group"])
        names = ("estimate", "se", "predicted", "sd", "z")
        return pd.DataFrame({name: getattr(self, name).ravel() for name in names}, index=index)


def out_of_fold_draws(effects: CrossfitEffects, X: Any) -> FloatArray:
    """Draws (draw, n) of each unit's effect by the model that did not see its fold.

    Parameters
    ----------
    effects : CrossfitEffects
        From :func:`causalsat.evaluation.crossfit_effects` with ``return_models=True``.
    X : array, DataFrame, GeoDataFrame or DataArray of shape (n, ...)
        The same units.

    Raises
    ------
    DataError
        If the models were not kept or the units are not as many.
    """
    if not effects.models:
        raise DataError("cross-fitted effects without models", todo="call crossfit_effects(..., return_models=True)")
    if len(X) != len(effects):
        raise DataError(f"{len(X)} units", expected=f"the {len(effects)} units of the cross-fitting")
    take = (lambda rows: X.iloc[rows]) if hasattr(X, "iloc") else (lambda rows: X[rows])
    held = [np.flatnonzero(effects.fold == k) for k in np.unique(effects.fold)]
    parts = [effect(model, take(rows)).draws for model, rows in zip(effects.models, held, strict=True)]
    n_draws = min(len(part) for part in parts)
    out = np.empty((n_draws, len(effects)))
    for rows, part in zip(held, parts, strict=True):
        out[:, rows] = part[:n_draws]
    return out


@aligned("draws", "scores", "groups", "weights", "folds")
def posterior_scale(
    draws: ArrayLike | EffectPosterior,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    n_groups: int = 3,
    level: float = 0.9,
) -> PosteriorScale:
    r"""Compare the posterior of held-out group average effects with doubly robust estimates of them.

    In each fold the units are grouped by their predicted effects. The difference r of the groups' mean scores and
    predicted averages has two sources: the scores' sampling error, of cluster-robust covariance S, and the
    posterior's error, of covariance V if it is honest. The factor maximises the likelihood of
    :math:`r \sim N(0, \lambda^2 V + S)`.

    Conformal inference cannot calibrate intervals of conditional average effects, which are never observed; this is
    what held-out data do say, at the level of groups, and the interval of the factor is often wide because S is much
    larger than V. Nothing follows from it for places whose errors differ from their group's. An honest posterior
    passes whatever its own means pick as groups; estimates without shrinkage, whose largest are so partly by error
    (winner's curse), are found overconfident even if each interval by itself covers.

    Parameters
    ----------
    draws : EffectPosterior or array of shape (draw, n)
        Posterior effects of units in clusters that the model did not see (see :func:`out_of_fold_draws`).
    scores : array of shape (n,)
        Doubly robust scores, cross-fitted or from a known propensity.
    groups : array of shape (n,), optional
        Clusters.
    folds : array of shape (n,), optional
        The fold in which each unit was held out; one held-out sample if None.
    weights : array of shape (n,), optional
        Positive survey weights.
    n_groups : int
        Groups by predicted effect in each fold.
    level : float
        Level of the factor's interval.

    Returns
    -------
    PosteriorScale
        Factor, interval, z-scores.

    Raises
    ------
    DataError, ParameterError
        If an input cannot be used or a fold has no more clusters than groups.

    Notes
    -----
    Errors of models that share training clusters are correlated, and the differences r of F folds sum to nearly zero
    in the direction of the average effect: the log-likelihood is multiplied by (F - 1) / F. With one held-out sample
    there is no such approximation. S is estimated from all folds together, scaled by their numbers of clusters.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = np.repeat(rng.standard_normal(20), 500)  # each of 20 folds has an error of its own, sd 1
    >>> fold, draws = np.repeat(np.arange(20), 500), 0.5 * rng.standard_normal((400, 20)).repeat(500, axis=1)
    >>> found = posterior_scale(draws, truth + 0.1 * rng.standard_normal(10_000), folds=fold, n_groups=1)
    >>> found.lower < 2 < found.upper, found.lower > 1
    (True, True)
    """
    values = np.asarray(draws.draws if isinstance(draws, EffectPosterior) else draws, dtype=float)
    if values.ndim != 2 or len(values) < 10 or not np.isfinite(values).all():
        raise DataError(f"draws of shape {values.shape}", expected="at least 10 finite draws, (draw, unit)")
    n = values.shape[1]
    gamma = checks.numbers(scores, "scores", n, any_unit=True)
    cluster = checks.codes(groups, n)
    fold = np.zeros(n, dtype=np.int64) if folds is None else checks.codes(folds, n, "folds")
    given = checks.weights(weights, n)
    w = np.ones(n) if given is None else given
    k = checks.count(n_groups, "n_groups", 1)
    rank = checks.within_fold_rank(values.mean(axis=0), fold, w)
    group = np.minimum((rank * k).astype(np.int64), k - 1)
    unit = max(float(np.abs(gamma).max()), float(np.abs(values).max())) or 1.0  # squares stay within the doubles
    estimate, predicted, V, S = _moments(values / unit, gamma / unit, cluster, fold, group, w, k)
    residual, n_folds = estimate - predicted, len(V)
    share = (n_folds - 1) / n_folds if n_folds > 1 else 1.0
    factor, lower, upper, p_value = _profile(residual, V, S, share, checks.level(level))
    se, sd = np.sqrt(np.einsum("fgg->fg", S)), np.sqrt(np.einsum("fgg->fg", V))
    z = residual / np.sqrt(se**2 + sd**2)
    estimate, predicted, se, sd = (unit * v for v in (estimate, predicted, se, sd))
    return PosteriorScale(factor, lower, upper, float(level), p_value, estimate, predicted, se, sd, z)


def _moments(
    draws: FloatArray, gamma: FloatArray, cluster: IntArray, fold: IntArray, group: IntArray, w: FloatArray, k: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Group averages of scores and predictions, shape (fold, group); covariances V and S, (fold, group, group)."""
    n_folds = int(fold.max()) + 1
    estimate, predicted = np.empty((n_folds, k)), np.empty((n_folds, k))
    V, pooled, clusters = np.empty((n_folds, k, k)), np.zeros((k, k)), np.empty(n_folds)
    for f in range(n_folds):
        units = np.flatnonzero(fold == f)
        member = (group[units, None] == np.arange(k)) * w[units, None]
        if (member.sum(axis=0) == 0).any():
            raise DataError(
                "a group without units: too many of equal prediction", todo="take fewer groups (n_groups)"
            )
        share = member / member.sum(axis=0)
        estimate[f] = gamma[units] @ share
        averages = draws[:, units] @ share
        predicted[f] = averages.mean(axis=0)
        V[f] = np.atleast_2d(np.cov(averages, rowvar=False))
        _, code = np.unique(cluster[units], return_inverse=True)
        clusters[f] = c = int(code.max()) + 1
        if c <= k + 1:
            raise DataError(f"{c} clusters in a fold for {k} groups", todo="take fewer groups or fewer folds")
        difference = gamma[units] - draws[:, units].mean(axis=0)
        influence = share * (difference[:, None] - difference @ share)
        parts = np.stack([np.bincount(code, influence[:, g]) for g in range(k)], axis=1)
        pooled += c * (parts.T @ parts) * c / (c - 1) / n_folds
    return estimate, predicted, V, pooled / clusters[:, None, None]


def _profile(
    residual: FloatArray, V: FloatArray, S: FloatArray, share: float, level: float
) -> tuple[float, float, float, float]:
    """Factor, its interval and the p-value of 1, by the profile of the Gaussian likelihood."""
    from scipy.stats import chi2

    floor = 1e-12 * max(float(np.einsum("fgg->fg", V + S).max()), 1e-300) * np.eye(V.shape[1])
    grid = np.concatenate([[0.0], np.geomspace(0.02, LARGEST, 800), [1.0]])
    log_p = np.array([_log_likelihood(residual, lam**2 * V + S + floor) for lam in grid]) * share
    best = int(log_p.argmax())
    inside = np.sort(grid[2 * (log_p[best] - log_p) <= chi2.ppf(level, 1)])
    p_value = float(chi2.sf(max(2 * (log_p[best] - log_p[-1]), 0.0), 1))
    upper = float(inside[-1]) if inside[-1] < LARGEST else float("inf")
    return float(grid[best]), float(inside[0]), upper, p_value


def _log_likelihood(residual: FloatArray, cov: FloatArray) -> float:
    _, logdet = np.linalg.slogdet(cov)
    solved = np.linalg.solve(cov, residual[:, :, None])[:, :, 0]
    return float(-0.5 * (logdet + (residual * solved).sum(axis=1)).sum())
