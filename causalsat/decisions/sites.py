"""Where the next trial belongs: the sites whose results narrow the map, the districts' means or the decision most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.base import effect, final_estimator
from causalsat.core.tables import Tabular
from causalsat.exceptions import ColumnError, DataError, ParameterError
from causalsat.posterior import EffectPosterior

__all__ = ["SitePlan", "next_sites"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

GOALS = ("map", "districts", "decision")
PEOPLE = 20
BLOCK = 2**24  # candidates times targets at once


@dataclass(frozen=True, eq=False, repr=False)
class SitePlan(Tabular):
    """The next trial's sites, the most useful first.

    Attributes
    ----------
    sites : DataFrame or GeoDataFrame of n rows
        The chosen candidates, in the order of choice.
    table : DataFrame
        A row for each of them: ``effect`` and ``sd`` today, ``gain``, what this site adds to the goal given those
        before it, and ``expected``, the goal with all sites down to this one.
    goal : str
        "map" and "districts": mean posterior variance; "decision": expected regret of deciding with what is known.
    before, after : float
        The goal today, and expected with all sites.
    positions : ndarray of int of shape (n,)
        Rows of the candidates.
    """

    sites: Any
    table: pd.DataFrame
    goal: str
    before: float
    after: float
    positions: IntArray

    def to_dataframe(self) -> pd.DataFrame:
        """The table."""
        return self.table

    def _notes(self) -> list[str]:
        what = "expected regret" if self.goal == "decision" else "mean posterior variance"
        return [f"Goal {self.goal}: {what} {self.before:.4g} today, {self.after:.4g} expected with these sites."]


def next_sites(
    model: Any,
    candidates: Any,
    n: int,
    *,
    goal: str = "map",
    places: Any = None,
    districts: Any = None,
    cost: ArrayLike = 0.0,
    people: int = PEOPLE,
    site_sd: float | None = None,
) -> SitePlan:
    r"""Choose the n candidate sites whose trial lowers the goal most in expectation.

    A trial of half-treated sites with n of them tells about the effect of each as one reading with variance
    ``4 site_sd^2``, since treated and control sites are compared. Given the posterior covariance C of the effects
    (of the linear and Gaussian-process heads, by their draws), a site's reading lowers the variance of target j by
    ``C_ij^2 / (C_ii + 4 site_sd^2)``, whatever it will be. Sites are chosen one by one, each the best given those
    before it.

    Parameters
    ----------
    model : estimator or Pipeline
        Fitted, such as ``analysis.model``.
    candidates : DataFrame, GeoDataFrame or array of N rows
        Sites where the trial could go, in the form that the model was fitted on.
    n : int
        Sites to choose, at most N.
    goal : {"map", "districts", "decision"}
        ``"map"``: mean posterior variance of the effect over places. ``"districts"``: of the districts' mean effects.
        ``"decision"``: expected regret of treating the places whose expected effect exceeds its cost.
    places : table, optional
        Where the effect is to be known, such as ``study.places``; by default the candidates themselves.
    districts : str or array, optional
        Column or labels of the districts of the places; needed for ``goal="districts"``.
    cost : float or array, optional
        Cost of treating a place in units of the outcome, for ``goal="decision"``.
    people : int
        People with an outcome at each new site.
    site_sd : float, optional
        Standard deviation of a new site's mean outcome around what the model expects. By default from the model's
        standard deviation between villages and noise, and ``people``.

    Returns
    -------
    SitePlan

    Raises
    ------
    DataError, ParameterError
        If there are fewer candidates than sites, no districts are given where they are the goal, or the model has
        neither noise of its own nor ``site_sd=``.

    Examples
    --------
    >>> import causalsat
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((200, 2)), np.arange(200) % 2
    >>> y = t * X[:, 0] + rng.standard_normal(200)
    >>> model = causalsat.BayesianLinearEffect(prior="normal", random_state=0).fit(X, y, treatment=t)
    >>> far = np.array([[0.1, 0.0], [4.0, 0.0], [0.0, -4.0], [0.2, 0.1]])
    >>> sorted(next_sites(model, far, 2).positions.tolist())
    [1, 2]
    """
    if goal not in GOALS:
        raise ParameterError(f"goal={goal!r}", expected="'map', 'districts' or 'decision'")
    total = len(candidates)
    if isinstance(n, bool) or int(n) != n or not 1 <= n <= total:
        raise ParameterError(f"n={n!r} sites of {total} candidates", expected=f"a whole number from 1 to {total}")
    at_sites = effect(model, candidates)
    at_places = at_sites if places is None else effect(model, places)
    noise = 4 * (_site_sd(model, people) if site_sd is None else _positive(site_sd, "site_sd")) ** 2
    targets, mean = _targets(at_places, candidates if places is None else places, goal, districts, cost)
    variance = targets.var(axis=0)
    score: Callable[[FloatArray], FloatArray]
    if goal == "decision":

        def score(left: FloatArray) -> FloatArray:
            return expected_gain(mean, np.sqrt(np.maximum(variance - left, 0.0)))

        before = float(expected_gain(mean, np.sqrt(variance)).mean())
    else:

        def score(left: FloatArray) -> FloatArray:
            return -left

        before = float(variance.mean())
    draws = np.asarray(at_sites.draws, dtype=float)
    chosen, path = greedy(draws, targets, noise, int(n), score)
    after = before - path if goal == "decision" else -path
    table = pd.DataFrame(
        {
            "site": np.asarray(at_sites.index)[chosen] if at_sites.index is not None else chosen,
            "effect": at_sites.mean()[chosen],
            "sd": at_sites.sd()[chosen],
            "gain": np.concatenate([[before], after[:-1]]) - after,
            "expected": after,
        },
        index=pd.RangeIndex(1, len(chosen) + 1, name="rank"),
    )
    rows = candidates.iloc[chosen] if hasattr(candidates, "iloc") else pd.DataFrame(np.asarray(candidates)[chosen])
    return SitePlan(rows, table, goal, before, float(after[-1]), chosen)


def greedy(
    sites: FloatArray,
    targets: FloatArray,
    noise: float,
    n: int,
    score: Callable[[FloatArray], FloatArray],
) -> tuple[IntArray, FloatArray]:
    """The sites, one by one, that raise the mean score of the targets' remaining variances most.

    Parameters
    ----------
    sites : ndarray of shape (draw, N)
        Posterior draws of the effects at the candidates.
    targets : ndarray of shape (draw, m)
        The same draws at the targets.
    noise : float
        Variance of a site's reading of its effect.
    n : int
        How many.
    score : callable
        From remaining variances, shape (..., m), to scores of the same shape.

    Returns
    -------
    chosen : ndarray of int of shape (n,)
    path : ndarray of shape (n,)
        Mean score after each.

    Examples
    --------
    >>> draws = np.random.default_rng(0).standard_normal((4000, 3)) * [1.0, 3.0, 2.0]
    >>> greedy(draws, draws, 1.0, 2, lambda left: -left)[0]
    array([1, 2])
    """
    a, b = sites - sites.mean(axis=0), targets - targets.mean(axis=0)
    cross, own = a.T @ b / len(a), (a**2).mean(axis=0)
    left = (b**2).mean(axis=0)
    among: list[FloatArray] = []  # rank-one updates of the candidates' covariance
    chosen: list[int] = []
    path = []
    step = max(1, BLOCK // max(1, len(left)))
    for _ in range(n):
        value = np.concatenate(
            [
                score(left - cross[k : k + step] ** 2 / (own[k : k + step, None] + noise)).mean(axis=1)
                for k in range(0, len(own), step)
            ]
        )
        value[chosen] = -np.inf
        best = int(value.argmax())
        with_best = a.T @ a[:, best] / len(a) - sum(u * u[best] for u in among)
        scale = np.sqrt(own[best] + noise)
        down, across = with_best / scale, cross[best] / scale
        cross = cross - np.outer(down, across)
        own, left = np.maximum(own - down**2, 0.0), np.maximum(left - across**2, 0.0)
        among.append(down)
        chosen.append(best)
        path.append(float(score(left).mean()))
    return np.array(chosen, dtype=np.int64), np.array(path)


def expected_gain(mean: FloatArray, sd: FloatArray) -> FloatArray:
    """What it is worth to learn a net effect before deciding: E max(m + s Z, 0) - max(m, 0).

    Examples
    --------
    >>> expected_gain(np.array([0.0, 5.0]), np.array([1.0, 1.0])).round(3)
    array([0.399, 0.   ])
    """
    from scipy.stats import norm

    safe = np.maximum(sd, 1e-300)
    u = np.abs(mean) / safe
    return np.asarray(np.where(sd > 0, safe * norm.pdf(u) - np.abs(mean) * norm.sf(u), 0.0), dtype=np.float64)


def _targets(
    posterior: EffectPosterior, table: Any, goal: str, districts: Any, cost: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Draws of what is to be known, shape (draw, m), and their means net of cost."""
    draws = np.asarray(posterior.draws, dtype=float)
    if goal == "districts":
        if districts is None:
            raise ParameterError("goal='districts' without districts", expected="districts=, a column or labels")
        if isinstance(districts, str):
            if districts not in getattr(table, "columns", ()):
                raise ColumnError(f"districts={districts!r}, which is no column", expected="a column of the places")
            districts = table[districts]
        labels = np.asarray(districts, dtype=object)
        if labels.shape != (draws.shape[1],) or pd.isna(labels).any():
            raise DataError(
                f"districts of shape {labels.shape}, {int(pd.isna(labels).sum())} missing",
                expected=f"one label for each of {draws.shape[1]} places",
            )
        code = pd.factorize(labels)[0]
        draws = np.stack([draws[:, code == k].mean(axis=1) for k in range(code.max() + 1)], axis=1)
        return draws, draws.mean(axis=0)
    price = np.asarray(cost, dtype=float)
    if price.shape not in ((), (draws.shape[1],)) or not np.isfinite(price).all():
        raise ParameterError(f"cost of shape {price.shape}", expected="a number, or one for each place")
    return draws, draws.mean(axis=0) - price


def _site_sd(model: Any, people: int) -> float:
    """Standard deviation of a new site's mean outcome, from what the model says of villages and noise."""
    final = final_estimator(model)[1]
    draws, modes = getattr(final, "draws_", {}), getattr(final, "hyperparameters_", {})
    size = _positive(people, "people")
    if "noise" in draws:
        village = float((np.asarray(draws["group_sd"]) ** 2).mean()) if "group_sd" in draws else 0.0
        return float(np.sqrt(village + (np.asarray(draws["noise"]) ** 2).mean() / size))
    noise = [float(value) for name, value in modes.items() if "noise" in name]
    if noise:
        village = sum(
            float(value) ** 2 for name, value in modes.items() if "village" in name and "effect" not in name
        )
        return float(np.sqrt(village + np.mean(np.square(noise)) / size))
    raise ParameterError(
        f"{type(final).__name__}, which says nothing of the noise of a site",
        expected="site_sd=, the standard deviation of a site's mean outcome",
        todo="site_sd=sqrt(icc + (1 - icc) / people) times the outcome's standard deviation",
    )


def _positive(value: Any, name: str) -> float:
    number = float(value)
    if not (np.isfinite(number) and number > 0):
        raise ParameterError(f"{name}={value!r}", expected="a positive number")
    return number
