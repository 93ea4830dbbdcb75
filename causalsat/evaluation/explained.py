r"""How much of the heterogeneity of effects predictions explain, and by how much places deviate from them.

The effect of a place is ``tau(x) + u``: what features tell of it, and what none of them shows. The share
``var tau(x) / (var tau(x) + s_u^2)`` needs the standard deviation s_u of u, which
``causalsat.inference.place_effects`` learns from differences between villages. Where whole villages are treated it
needs the correlation rho of a village's level and its own effect, which no data show. Without villages of several
units s_u has bounds only: those of the two marginal distributions (Frechet and Hoeffding) of the residuals.

References
----------
Ding, Feller and Miratrix (2019), "Decomposing treatment effect variation", Journal of the American Statistical
Association 114.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import aligned
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.exceptions import DataError
from causalsat.inference.nuisances import crossfit_ridge
from causalsat.inference.place_effects import MAX_RHO, PlaceDeviation, place_deviation
from causalsat.posterior import EffectPosterior, draw_quantiles

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ExplainedHeterogeneity", "explained_heterogeneity"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_QUANTILES = 400
OF_WHAT = {
    "within": "villages hold both treatments: their own contrasts show it",
    "between": "whole villages are treated: a village's level and its own effect are taken as uncorrelated (rho = 0)",
    "": "not identified, bounds only",
}


@dataclass(frozen=True, eq=False)
class ExplainedHeterogeneity(Tabular):
    """Share of the heterogeneity of effects that predictions explain.

    Attributes
    ----------
    estimate, lower, upper : float
        Share ``var tau(x) / (var tau(x) + s_u^2)`` with its interval, under rho = 0. Where only bounds exist the
        estimate is NaN, and ``lower`` and ``upper`` are the bounds, without sampling error.
    sd, sd_lower, sd_upper : float
        s_u, the standard deviation of places' (or units') own effects about the predicted ones, likewise.
    explained_sd : float
        Standard deviation of the predicted effects.
    range_lower, range_upper : float
        The share's interval over every rho from -0.5 to 0.5; ``lower`` and ``upper`` where rho does not matter.
    sd_range_lower, sd_range_upper : float
        The same of s_u.
    bounds : (float, float)
        Bounds of s_u from the marginal distributions alone, of units or, where whole villages are treated, of village
        means; without sampling error.
    by : {"within", "between", ""}
        What shows s_u: contrasts of villages that hold both treatments, variances between treated and control
        villages, or nothing.
    n_villages : int
        Villages that say something of s_u.
    level : float
        Level of the intervals.
    reason : str
        Why there are only bounds.
    """

    estimate: float
    lower: float
    upper: float
    sd: float
    sd_lower: float
    sd_upper: float
    explained_sd: float
    range_lower: float
    range_upper: float
    sd_range_lower: float
    sd_range_upper: float
    bounds: tuple[float, float]
    by: str
    n_villages: int
    level: float
    reason: str = ""

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row a quantity: estimate, lower, upper."""
        import pandas as pd

        nan = float("nan")
        rows = {
            "share explained": (self.estimate, self.lower, self.upper),
            "sd of predicted effects": (self.explained_sd, nan, nan),
            "sd of places' own effects": (self.sd, self.sd_lower, self.sd_upper),
        }
        if self.by == "between":
            span = f"rho from -{MAX_RHO:g} to {MAX_RHO:g}"
            rows[f"share explained, {span}"] = nan, self.range_lower, self.range_upper
            rows[f"sd of places' own effects, {span}"] = nan, self.sd_range_lower, self.sd_range_upper
        if self.by:
            rows["sd of own effects, bounds without a model"] = nan, *self.bounds
        table = pd.DataFrame(rows, index=["estimate", "lower", "upper"]).T
        table.index.name = "quantity"
        return table

    @property
    def notes(self) -> tuple[str, ...]:
        """What the table rests on."""
        first = f"{self.level:.0%} intervals; {self.n_villages} villages; {OF_WHAT[self.by]}"
        if self.by:
            return (first,)
        return f"{OF_WHAT['']}: {self.reason}", "bounds of the two arms' distributions, without sampling error"

    def _notes(self) -> list[str]:
        return list(self.notes)


@aligned("y", "treatment", "effects", "groups", "weights", "X")
def explained_heterogeneity(
    y: ArrayLike,
    treatment: ArrayLike,
    effects: Any,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    X: Any = None,
    held_out: bool = True,
    level: float = 0.9,
    random_state: int = 0,
) -> ExplainedHeterogeneity:
    """Share of the heterogeneity of effects that predicted effects explain.

    Parameters
    ----------
    y : array of shape (n,)
        Outcome.
    treatment : array of shape (n,)
        0 or 1.
    effects : EffectPosterior, array of shape (draw, n) or (n,)
        Predicted effects of the units, as draws or as one number each. Of a single number the variance is taken as it
        is: noise in it counts as explained and as unexplained. Draws know their own error.
    groups : array of shape (n,), optional
        Villages (places). Without them, or with one unit in each, only bounds exist.
    weights : array of shape (n,), optional
        Survey weights.
    X : array or DataFrame of shape (n, p), optional
        Features that predict the outcome, complete; they sharpen what is left.
    held_out : bool
        Whether the effects were predicted by models that did not see the unit's village, such as those of
        :func:`crossfit_effects`; False for ``model.effect(X)`` of a model that was fitted to these units, whose
        nearness to its own data is then taken into account by the draws.
    level : float
        Level of the intervals.
    random_state : int
        Seed.

    Returns
    -------
    ExplainedHeterogeneity

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If an input cannot be used.

    Notes
    -----
    Where whole villages are treated, the variance between treated villages is ``s_a^2 + s_u^2 + 2 rho s_a s_u`` and
    that between control villages ``s_a^2``. Intervals are of the confidence distribution of s_u, and of the draws'
    variances over villages.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> village, x, u = np.repeat(np.arange(200), 10), rng.standard_normal(200), rng.standard_normal(200)
    >>> t = np.tile([0, 1], 1000)
    >>> y = t * (1 + x + u)[village] + rng.standard_normal(2000)
    >>> found = explained_heterogeneity(y, t, 1 + x[village], groups=village)
    >>> found.by, bool(found.lower < 0.5 < found.upper), bool(found.sd_lower < 1 < found.sd_upper)
    ('within', True, True)
    """
    level = checks.level(level)
    outcome = checks.numbers(y, "outcomes")
    n = len(outcome)
    t = inputs.check_treatment(treatment, n, binary=True)
    w = inputs.check_weights(weights, n)
    draws = _draws(effects, n)
    code = None if groups is None else checks.codes(groups, n)
    features = _features(X, n)
    rng = np.random.default_rng(random_state)
    contribution = draws * t
    found = place_deviation(outcome, t, code, w, features, contribution, held_out=held_out, rng=rng)
    explained = _variance_over_places(draws, w, code)
    bounds = _bounds(outcome - contribution.mean(axis=0), t, w, features, code if found.by == "between" else None)
    return _result(found, explained, bounds, level, rng)


def _draws(effects: Any, n: int) -> FloatArray:
    values = effects.draws if isinstance(effects, EffectPosterior) else effects
    try:
        draws = np.atleast_2d(np.asarray(values, dtype=float))
    except (TypeError, ValueError):
        raise DataError("effects that are not numbers", expected="draws (draw, unit), or one effect a unit") from None
    if draws.ndim != 2 or draws.shape[1] != n or not np.isfinite(draws).all():
        raise DataError(
            f"effects of shape {np.shape(values)} for {n} units, or not finite",
            expected=f"finite draws of shape (draw, {n}), or one effect a unit",
        )
    return draws


def _features(X: Any, n: int) -> FloatArray:
    if X is None:
        return np.empty((n, 0))
    table = np.asarray(inputs.features_only(X, set()), dtype=float)
    if table.ndim != 2 or len(table) != n or not np.isfinite(table).all():
        raise DataError(
            f"X of shape {table.shape} for {n} units, or with missing values", expected="complete numbers (unit, p)"
        )
    return table


def _variance_over_places(draws: FloatArray, weight: FloatArray, code: IntArray | None) -> FloatArray:
    """Variance of the predicted effects over villages (units without them), by draw."""
    values, mass = draws, weight
    if code is not None:
        from scipy.sparse import csr_array

        mass = np.bincount(code, weight).astype(np.float64)
        table = csr_array((weight / mass[code], (code, np.arange(len(code)))), shape=(len(mass), len(code)))
        values = np.asarray((table @ draws.T).T)
    share = mass / mass.sum()
    free = 1 - float(share @ share)  # degrees of freedom that the mean took
    mean = values @ share
    return np.asarray(((values - mean[:, None]) ** 2) @ share / max(free, 1e-12))


def _bounds(
    rest: FloatArray, t: FloatArray, weight: FloatArray, features: FloatArray, code: IntArray | None
) -> tuple[float, float]:
    """Frechet-Hoeffding bounds of the standard deviation of own effects, of units or of village means."""
    if features.shape[1]:
        middle = np.where(t > 0, np.average(rest[t > 0], weights=weight[t > 0]), 0.0)
        middle = np.where(t > 0, middle, np.average(rest[t == 0], weights=weight[t == 0]))
        rest = rest - middle - crossfit_ridge(features, rest - middle, weight, code)
    if code is not None:
        mass = np.bincount(code, weight)
        rest, share = np.bincount(code, weight * rest) / mass, np.bincount(code, weight * t) / mass
        pure = (share == 0) | (share == 1)
        rest, t, weight = rest[pure], share[pure], mass[pure]
    level = (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
    control, treated = (_quantiles(rest[t == arm], weight[t == arm], level) for arm in (0.0, 1.0))
    return float(np.std(treated - control)), float(np.std(treated - control[::-1]))


def _quantiles(values: FloatArray, weight: FloatArray, level: FloatArray) -> FloatArray:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weight[order]) - 0.5 * weight[order]
    return np.asarray(np.interp(level, below / weight.sum(), values[order]))


def _result(
    found: PlaceDeviation, explained: FloatArray, bounds: tuple[float, float], level: float, rng: np.random.Generator
) -> ExplainedHeterogeneity:
    size, tails = float(np.mean(explained)), [(1 - level) / 2, (1 + level) / 2]

    def share(variance: Any, sd: Any) -> Any:
        total = variance + np.square(sd)
        return np.divide(variance, total, out=np.full(np.shape(total), np.nan), where=total > 0)

    general: dict[str, Any] = {
        "explained_sd": float(np.sqrt(size)),
        "bounds": bounds,
        "by": found.by,
        "n_villages": found.n_villages,
        "level": level,
        "reason": found.reason,
    }
    nan = float("nan")
    if not found.by:
        low, high = (float(share(np.array(size), np.array(sd))) for sd in bounds[::-1])
        return ExplainedHeterogeneity(nan, low, high, nan, *bounds, range_lower=low, range_upper=high,
            sd_range_lower=bounds[0], sd_range_upper=bounds[1], **general)  # fmt: skip
    variance = explained[rng.permutation(np.arange(len(found.sd)) % len(explained))]
    low, middle, high = draw_quantiles(share(variance, found.sd), [tails[0], 0.5, tails[1]])
    sd_low, sd_middle, sd_high = draw_quantiles(found.sd, [tails[0], 0.5, tails[1]])
    return ExplainedHeterogeneity(
        float(middle), float(low), float(high), float(sd_middle), float(sd_low), float(sd_high),
        range_lower=float(draw_quantiles(share(variance, found.sd_high), tails[0])),
        range_upper=float(draw_quantiles(share(variance, found.sd_low), tails[1])),
        sd_range_lower=float(draw_quantiles(found.sd_low, tails[0])),
        sd_range_upper=float(draw_quantiles(found.sd_high, tails[1])),
        **general,
    )  # fmt: skip
