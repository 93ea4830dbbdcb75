"""Power of a trial before it begins, by simulation on the candidate villages' own image features."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.progress import bar as progress_bar
from causalsat.core.tables import Tabular
from causalsat.decisions.place_features import image_features
from causalsat.evaluation.permutation import fold_ridge, permutation_test
from causalsat.evaluation.rate import rate
from causalsat.exceptions import ParameterError
from causalsat.plots.power import plot_power

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PowerResult", "power"]

FloatArray = NDArray[np.float64]

TESTS = ("average_effect", "heterogeneity", "autoc")
N_FOLDS = 5
MIN_VILLAGES = 10  # two in each of five folds


@dataclass(frozen=True, eq=False, repr=False)
class PowerResult(Tabular):
    """Power by number of villages and of people in a village.

    Attributes
    ----------
    table : DataFrame
        A row for each ``n_villages`` and ``people``: power of the ``average_effect``, of the permutation test of
        ``heterogeneity`` and of ``autoc``, each with its Monte Carlo standard error (``_se``), and ``seconds``.
    effect, heterogeneity, icc, share_explained, share, level : float
        What was assumed; effect and heterogeneity in standard deviations of the outcome.
    n_simulations : int
        Simulated trials in each row.
    """

    table: pd.DataFrame
    effect: float
    heterogeneity: float
    icc: float
    share_explained: float
    share: float
    level: float
    n_simulations: int

    def to_dataframe(self) -> pd.DataFrame:
        """The table."""
        return self.table

    def plot(self, ax: Any = None) -> Axes:
        """Power against villages, a line for each test and number of people; see ``causalsat.plots.plot_power``."""
        return plot_power(self, ax=ax)

    def _notes(self) -> list[str]:
        return [
            f"Assumed: effect {self.effect:g} sd of the outcome; sd of effects between villages "
            f"{self.heterogeneity:g}, "
            f"images show {self.share_explained:.0%} of their variance; intra-cluster correlation {self.icc:g}; "
            f"{self.share:.0%} treated; tests at {self.level:.0%}; {self.n_simulations} simulated trials a row."
        ]


def power(
    villages: Any,
    imagery: Any = None,
    *,
    n_villages: int | Iterable[int],
    people: int | Iterable[int],
    effect: float = 0.2,
    icc: float = 0.1,
    share_explained: float = 0.5,
    n_simulations: int = 200,
    heterogeneity: float | None = None,
    share: float = 0.5,
    level: float = 0.05,
    n_components: int = 10,
    size_m: float | None = None,
    n_permutations: int = 99,
    seed: int = 0,
    progress: bool = True,
) -> PowerResult:
    """Power of the average effect, of the test of heterogeneity and of AUTOC, on one's own candidate villages.

    In each simulated trial villages are drawn from the candidates, a share of them is treated, and the effect of a
    village varies along a random direction of its image features, with a part that images do not show. Outcomes
    without treatment have variance 1, of which ``icc`` lies between villages. Three two-sided tests follow: the
    difference in means with village-clustered standard errors; :func:`causalsat.evaluation.permutation_test`; and
    :func:`causalsat.evaluation.rate` (AUTOC) of cross-fitted priorities.

    Parameters
    ----------
    villages : DataFrame or GeoDataFrame of N rows
        Candidate places, one row a village; without imagery, their features.
    imagery : Imagery, dict of Imagery, array of shape (N, k) or None
        Images, encoded once by the default encoder; or features in the rows' order.
    n_villages : int or several
        Villages in the trial, at most N.
    people : int or several
        People with an outcome in each village.
    effect : float
        Average effect, in standard deviations of the outcome.
    icc : float
        Share of the outcome's variance that lies between villages.
    share_explained : float
        Share of the variance of villages' effects that image features show.
    n_simulations : int
        Simulated trials in each cell; the Monte Carlo standard error is at most ``0.5 / sqrt(n_simulations)``.
    heterogeneity : float, optional
        Standard deviation of effects between villages, in those of the outcome. Default: half of the effect's size.
    share : float
        Share of the villages that is treated.
    level : float
        Level of the tests.
    n_components : int
        Components of the image features that the tests use and that effects follow.
    size_m : float, optional
        Side of the chip around a village in metres; by default 32 pixels.
    n_permutations : int
        Assignments of each permutation test.
    seed : int
        Of encoder and simulations.
    progress : bool
        Show a progress bar.

    Returns
    -------
    PowerResult
        With ``table``, ``to_dataframe()`` and ``plot()``.

    Raises
    ------
    DataError, ParameterError
        If a number cannot be used, or more villages are asked for than there are.

    Notes
    -----
    A village's mean outcome is all that these tests use where villages have equally many people, so simulations draw
    means, with variance ``icc + (1 - icc) / people``. Covariates that predict the outcome raise power beyond this.
    The permutation test at level .05 needs ``n_permutations`` of 19, 39, ..., 99, ... to have that size exactly.

    Examples
    --------
    >>> features = np.random.default_rng(0).standard_normal((200, 4))
    >>> result = power(features, n_villages=[40, 160], people=20, effect=0.3, n_simulations=40, progress=False)
    >>> bool(result.table["average_effect"].is_monotonic_increasing)
    True
    """
    sizes, persons = _counts(n_villages, "n_villages"), _counts(people, "people")
    spread = abs(effect) / 2 if heterogeneity is None else heterogeneity
    _check(effect, spread, icc, share_explained, share, level)
    runs, draws = _counts(n_simulations, "n_simulations")[0], _counts(n_permutations, "n_permutations")[0]
    table = villages if isinstance(villages, pd.DataFrame) else np.asarray(villages)
    _check_sizes(sizes, len(table), share)
    features = image_features(table, imagery, size_m=size_m, n_components=n_components, seed=seed)
    world = World(float(effect), float(spread), float(icc), float(share_explained), float(share))
    rows = []
    cells = [(n, m) for n in sizes for m in persons]
    with progress_bar(total=len(cells) * runs, desc="power", unit="trial", show=progress) as ticker:
        for n, m in cells:
            start = time.perf_counter()
            rng = np.random.default_rng([seed, n, m])
            rejected = np.empty((runs, len(TESTS)), dtype=bool)
            for r in range(runs):
                rejected[r] = p_values(*simulate_trial(features, n, m, world, rng), draws, rng) <= level
                ticker.update(1)
            rows.append(_row(n, m, rejected, time.perf_counter() - start))
    assumed = (world.effect, world.heterogeneity, world.icc, world.share_explained, world.share)
    return PowerResult(pd.DataFrame(rows), *assumed, float(level), runs)


@dataclass(frozen=True)
class World:
    """What is assumed of outcomes and effects, in standard deviations of the outcome."""

    effect: float
    heterogeneity: float
    icc: float
    share_explained: float
    share: float


def simulate_trial(
    features: FloatArray, n: int, people: int, world: World, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Features (n, k), mean outcomes (n,) and treatment (n,) of a trial in n of the candidate villages.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> world = World(0.5, 0.0, 0.1, 0.5, 0.5)
    >>> _, y, t = simulate_trial(rng.standard_normal((5000, 3)), 5000, 10, world, rng)
    >>> bool(abs(y[t == 1].mean() - y[t == 0].mean() - 0.5) < 0.04), bool(abs(y[t == 0].var() - 0.19) < 0.02)
    (True, True)
    """
    along = features @ rng.standard_normal(features.shape[1])
    along = (along - along.mean()) / max(float(along.std()), 1e-300)
    chosen = rng.choice(len(features), n, replace=False)
    hidden = rng.standard_normal(n)
    shown = np.sqrt(world.share_explained) * along[chosen] + np.sqrt(1 - world.share_explained) * hidden
    tau = world.effect + world.heterogeneity * shown
    t = np.zeros(n)
    t[rng.permutation(n)[: _n_treated(n, world.share)]] = 1.0
    sd = np.sqrt(world.icc + (1 - world.icc) / people)
    return features[chosen], sd * rng.standard_normal(n) + t * tau, t


def p_values(
    features: FloatArray, y: FloatArray, t: FloatArray, n_permutations: int, rng: np.random.Generator
) -> FloatArray:
    """P-values of the average effect, of the permutation test and of AUTOC from villages' means, shape (3,)."""
    fold = rng.permutation(len(y)) % N_FOLDS
    test = permutation_test(
        features, y, t, folds=fold, n_permutations=n_permutations, random_state=rng, progress=False
    )
    e = float(t.mean())
    ridge = fold_ridge(features, fold, np.ones(len(y)))
    estimate, p_average = difference(y, t)
    residual = y - ridge.predictions(y - (t - e) * estimate)
    priority = ridge.priorities(residual, t - e)
    scores = (t - e) * residual / (e * (1 - e))
    ranked = rate(priority, scores, folds=fold, n_bootstrap=50, random_state=rng)
    return np.array([p_average, test.p_value, ranked.p_value])


def difference(y: FloatArray, t: FloatArray) -> tuple[float, float]:
    """Difference in means of villages and its two-sided p-value with unequal variances.

    With equally many people in the villages this is least squares of people with bias-reduced (CR2) standard errors
    and Satterthwaite degrees of freedom.

    Examples
    --------
    >>> estimate, p = difference(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1]))
    >>> estimate, round(p, 3)
    (2.0, 0.106)
    """
    from scipy.stats import t as student

    treated, control = y[t == 1], y[t == 0]
    parts = np.array([treated.var(ddof=1) / len(treated), control.var(ddof=1) / len(control)])
    estimate = float(treated.mean() - control.mean())
    inverse = 1 / np.array([len(treated), len(control)])
    df = inverse.sum() ** 2 / (inverse**2 / np.array([len(treated) - 1, len(control) - 1])).sum()
    return estimate, float(2 * student.sf(abs(estimate) / np.sqrt(parts.sum()), df))


def _row(n: int, people: int, rejected: NDArray[np.bool_], seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {"n_villages": n, "people": people}
    for j, name in enumerate(TESTS):
        found = float(rejected[:, j].mean())
        row |= {name: found, f"{name}_se": float(np.sqrt(found * (1 - found) / len(rejected)))}
    return row | {"seconds": round(seconds, 1)}


def _n_treated(n: int, share: float) -> int:
    return round(n * share)


def _counts(values: Any, name: str) -> list[int]:
    """Whole positive numbers, one or several."""
    given = np.atleast_1d(np.asarray(list(values) if not np.isscalar(values) else values))
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iuf" or (given != np.round(given)).any():
        raise ParameterError(f"{name}={values!r}", expected="a whole number, or a list of them")
    if (given < 1).any():
        raise ParameterError(f"{name}={values!r}", expected="numbers of at least 1")
    return [int(v) for v in given]


def _check(effect: float, spread: float, icc: float, explained: float, share: float, level: float) -> None:
    if not np.isfinite(effect):
        raise ParameterError(f"effect={effect!r}", expected="a number of standard deviations of the outcome")
    if not (np.isfinite(spread) and spread >= 0):
        raise ParameterError(f"heterogeneity={spread!r}", expected="a standard deviation, at least 0")
    for name, value in (("icc", icc), ("share_explained", explained)):
        if not 0 <= value <= 1:
            raise ParameterError(f"{name}={value!r}", expected="a share between 0 and 1")
    for name, value in (("share", share), ("level", level)):
        if not 0 < value < 1:
            raise ParameterError(f"{name}={value!r}", expected="a number between 0 and 1")


def _check_sizes(sizes: list[int], n: int, share: float) -> None:
    if max(sizes) > n:
        raise ParameterError(
            f"n_villages={max(sizes)} out of {n} candidate villages",
            expected=f"at most {n}",
            todo="add candidates, or ask for fewer villages",
        )
    for size in sizes:
        if size < MIN_VILLAGES or min(_n_treated(size, share), size - _n_treated(size, share)) < 2:
            raise ParameterError(
                f"n_villages={size} with share={share:g}",
                expected=f"at least {MIN_VILLAGES} villages, two or more in each arm",
            )
