"""Posterior draws of effects (or outcomes) and everything that follows from draws.

Each estimator returns an :class:`EffectPosterior`; intervals, probabilities, group averages and tables are
written once, here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import align_rows, as_labels, labels_of
from causalsat.core.names import one_line
from causalsat.core.notebook import fragment, frame_table
from causalsat.core.svg import histogram_svg, intervals_svg
from causalsat.core.tables import Tabular
from causalsat.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["EffectPosterior", "coefficient_table", "draw_quantiles"]

FloatArray = NDArray[np.floating[Any]]
CHUNK_BYTES = 256 << 20  # of draws that are copied at a time
MAX_DENSE = 10_000_000  # entries of a table of units by groups
MAX_PRINTED = 6  # units whose effects are printed; more are summed up
MAX_SUMMED = 100_000_000  # draws whose means are taken to print them: a fraction of a second
MAX_DRAWN = 20  # units with an interval each in a notebook; more make a histogram
MAX_SUM = 1e150  # larger weights are taken as shares of the largest: their sums stay finite


def draw_quantiles(draws: ArrayLike, probs: ArrayLike, axis: int = 0) -> FloatArray:
    """Quantiles of draws, at the (number of draws + 1) p-th of them in order.

    A further draw lies below such a quantile with probability p exactly, however few the draws are. numpy's
    default quantile lies nearer to the median, so that its intervals cover too little with few draws.

    Parameters
    ----------
    draws : array with the draws along ``axis``
    probs : float or array of shape (q,)
        Probabilities.

    Returns
    -------
    ndarray
        The draws' shape without ``axis``, after a first axis (q,) where there are several probabilities.

    Examples
    --------
    >>> draw_quantiles(np.arange(1, 100), [0.05, 0.95])
    array([ 5., 95.])
    """
    values = np.sort(np.ascontiguousarray(np.moveaxis(np.asarray(draws), axis, -1)), axis=-1)
    at = np.clip(np.asarray(probs, dtype=float) * (values.shape[-1] + 1) - 1, 0, values.shape[-1] - 1)
    low = np.floor(at).astype(np.int64)
    below, above = (
        np.moveaxis(values[..., k], range(-at.ndim, 0), range(at.ndim)) for k in (low, np.ceil(at).astype(int))
    )
    weight = (at - low).reshape(at.shape + (1,) * (values.ndim - 1))
    result = below + weight * (above - below)
    return np.where(np.isnan(values[..., -1]), np.nan, result)  # missing draws come last in order


def coefficient_table(draws: FloatArray, labels: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """Mean, sd and interval of each column of draws (draw, k), as summaries print them.

    Examples
    --------
    >>> table = coefficient_table(np.arange(99.0)[:, None], ["age"])
    >>> list(table.columns), float(table.loc["age", "mean"])
    (['mean', 'sd', '[0.025', '0.975]'], 49.0)
    """
    import pandas as pd

    tails = (1 - level) / 2, (1 + level) / 2
    lower, upper = draw_quantiles(draws, tails)
    columns = {"mean": draws.mean(axis=0), "sd": draws.std(axis=0, ddof=1)}
    return pd.DataFrame(columns | {f"[{tails[0]:.3g}": lower, f"{tails[1]:.3g}]": upper}, index=list(labels))


@dataclass(frozen=True, eq=False)
class EffectPosterior(Tabular):
    """Posterior draws of a quantity for each unit: an effect, or a potential outcome.

    Parameters
    ----------
    draws : ndarray of shape (draw, unit)
        Draws; a row is one joint draw for all units, so averages over units keep their correlation.
        Draws of several chains lie one chain after the other.
    index : ndarray of shape (unit,), optional
        Labels of the units; 0, 1, ... unless given.
    kind : {"effect", "outcome"}
        What the draws are draws of.
    treatment, baseline : optional
        The contrast: outcome under ``treatment`` minus outcome under ``baseline``.
    scope : {"mean", "place"}
        Whether an effect is the mean effect of places that look alike, or that at the place itself.
    diagnostics : mapping, optional
        What the sampler says of itself: ``r_hat``, ``ess``, ``divergences``, ``source`` ...

    Raises
    ------
    DataError
        If the draws are not a finite two-dimensional array or the labels do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> post = EffectPosterior(np.array([1.0, 2.0, 3.0]) + 0.1 * rng.standard_normal((1000, 3)))
    >>> post.mean().round(1)
    array([1., 2., 3.])
    >>> post.interval(0.9).shape
    (3, 2)
    >>> round(float(post.ate()), 1)
    2.0
    >>> post.prob(lambda tau: tau > 1.5).round(2)
    array([0., 1., 1.])
    """

    draws: FloatArray
    index: Any = None
    kind: str = "effect"
    treatment: Any = 1.0
    baseline: Any = 0.0
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "mean"

    def __post_init__(self) -> None:
        draws = np.asarray(self.draws)
        if draws.ndim != 2 or draws.shape[0] < 1:
            raise DataError(f"draws of shape {draws.shape}", expected="an array of shape (draw, unit)")
        if not np.issubdtype(draws.dtype, np.floating):
            draws = draws.astype(float)
        if not np.isfinite(draws).all():
            raise DataError("draws that are not all finite", expected="finite draws")
        index = np.arange(draws.shape[1]) if self.index is None else np.asarray(self.index)
        if len(index) != draws.shape[1]:
            raise DataError(
                f"{len(index)} labels for {draws.shape[1]} units", expected="as many labels as columns of draws"
            )
        view = draws.view()
        view.flags.writeable = False
        object.__setattr__(self, "draws", view)
        object.__setattr__(self, "index", index)

    # ------------------------------------------------------------------ per unit
    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return int(self.draws.shape[0])

    def __len__(self) -> int:
        """Return the number of units."""
        return int(self.draws.shape[1])

    def __repr__(self) -> str:
        """Say what it holds in a line: mean and 90 % interval of few units, the spread of many."""
        kind = "effect at the place itself" if self.scope == "place" else self.kind
        what = f"EffectPosterior({kind}, {len(self)} unit{'s' if len(self) != 1 else ''}, {self.n_draws} draws"
        if not len(self) or self.draws.size > MAX_SUMMED:
            return f"{what})"
        if len(self) > MAX_PRINTED:
            mean = self.mean()
            return f"{what}: means {mean.min():.4g} to {mean.max():.4g}, average {mean.mean():.4g})"
        rows = zip(self.index, self.mean(), *self.interval(0.9).T, strict=True)
        shown = ", ".join(f"{label} {mid:.4g} [{low:.4g}, {high:.4g}]" for label, mid, low, high in rows)
        return one_line(f"{what}: {shown})")

    def _title(self) -> str:
        if self.kind == "effect":
            where = " at the place itself" if self.scope == "place" else ""
            contrast = f"effect{where} of treatment {self.treatment} against {self.baseline}"
        else:
            contrast = f"{self.kind} under treatment {self.treatment}"
        return f"Posterior of the {contrast}, {self.n_draws:,} draws, 90 % intervals"

    def _picture(self) -> str:
        if not len(self):
            return ""
        reference = 0.0 if self.kind == "effect" else None
        if len(self) > MAX_DRAWN:
            title = f"Posterior means of {len(self):,} units"
            return histogram_svg(self.mean(), title=title, axis=self.kind, mark=reference)
        lower, upper = self.interval(0.9).T
        title = "Posterior mean of each unit with its 90 % interval"
        drawn = ([str(label) for label in self.index], self.mean(), lower, upper)
        return intervals_svg(*drawn, title=title, axis=self.kind, reference=reference)

    def _repr_html_(self) -> str:
        """The table of the first and last units, and a picture of all."""
        if len(self) <= MAX_DRAWN:
            return fragment(frame_table(self.to_dataframe(), self._title(), max_rows=MAX_DRAWN), self._picture())
        ends = self[[*range(4), *range(len(self) - 4, len(self))]]
        title = f"{self._title()} (first and last 4 of {len(self):,} units)"
        return fragment(frame_table(ends.to_dataframe(), title), self._picture())

    def __getitem__(self, units: Any) -> EffectPosterior:
        """Select units by position: slice, integer, boolean mask or integer array."""
        take = np.atleast_1d(np.arange(len(self))[units])
        return replace(self, draws=self.draws[:, take], index=self.index[take])

    def mean(self) -> FloatArray:
        """Posterior mean of each unit, shape (unit,)."""
        return np.asarray(self.draws.mean(axis=0))

    def sd(self) -> FloatArray:
        """Posterior standard deviation of each unit, shape (unit,)."""
        ddof = 1 if self.n_draws > 1 else 0
        return np.concatenate([self.draws[:, rows].std(axis=0, ddof=ddof) for rows in self._chunks()])

    def quantile(self, q: ArrayLike) -> FloatArray:
        """Posterior quantiles, shape (unit,) for one q and (q, unit) for several.

        Raises
        ------
        ParameterError
            If a q lies outside [0, 1].
        """
        probs = np.asarray(q, dtype=float)
        if not ((probs >= 0) & (probs <= 1)).all():
            raise ParameterError(f"quantile {q!r}", expected="values between 0 and 1")
        parts = [draw_quantiles(self.draws[:, rows], probs) for rows in self._chunks()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _chunks(self) -> list[slice]:
        """Units at a time for what copies the draws: all of them where they are few."""
        size = max(1, CHUNK_BYTES // max(self.n_draws * self.draws.dtype.itemsize, 1))
        return [slice(start, start + size) for start in range(0, len(self), size)] or [slice(0, 0)]

    def interval(self, level: float = 0.9) -> FloatArray:
        """Equal-tailed credible interval of each unit, shape (unit, 2): lower, upper.

        Raises
        ------
        ParameterError
            If the level does not lie strictly between 0 and 1.
        """
        if not 0 < level < 1:
            raise ParameterError(f"interval level {level!r}", expected="a number between 0 and 1, such as 0.9")
        return self.quantile([(1 - level) / 2, (1 + level) / 2]).T

    def prob(self, event: Callable[[FloatArray], Any]) -> FloatArray:
        """Posterior probability of an event for each unit, shape (unit,): ``prob(lambda tau: tau > 0)``."""
        happened = np.asarray(event(self.draws))
        if happened.shape != self.draws.shape or happened.dtype != bool:
            raise ParameterError(
                f"an event that returns {happened.dtype} of shape {happened.shape}",
                expected=f"booleans of shape {self.draws.shape}",
                todo="use element-wise comparisons, such as lambda tau: tau > 0",
            )
        return np.asarray(happened.mean(axis=0))

    # ------------------------------------------------------------------ averages
    def ate(self, weights: ArrayLike | None = None) -> EffectPosterior:
        """Average over all units: a posterior of one unit labelled "ATE".

        Parameters
        ----------
        weights : array of shape (unit,), optional
            Weight of each unit (survey weights, population).
        """
        return self._average(np.ones(len(self)), weights, "ATE")

    def att(self, treated: ArrayLike, weights: ArrayLike | None = None) -> EffectPosterior:
        """Average over the treated units: a posterior of one unit labelled "ATT".

        Parameters
        ----------
        treated : array of bool of shape (unit,)
            Which units were treated. A Series is read by its labels, those of ``index``.
        weights : array of shape (unit,), optional
            Weight of each unit.
        """
        mask = np.asarray(self._aligned(treated, "treated"))
        if mask.shape != (len(self),):
            raise DataError(f"treated of shape {mask.shape}", expected=f"one value for each of {len(self)} units")
        received = mask.astype(float)
        if np.isnan(received).any():
            raise DataError(
                f"{int(np.isnan(received).sum())} units whose treatment is missing",
                expected="True or False for each unit",
            )
        if not (received > 0).any():
            raise DataError("no treated unit", expected="at least one", todo="pass the observed treatment")
        return self._average((received > 0).astype(float), weights, "ATT")

    def gate(self, groups: ArrayLike, weights: ArrayLike | None = None) -> EffectPosterior:
        """Group averages: a posterior with one unit a group, labelled by the sorted groups.

        Parameters
        ----------
        groups : array of shape (unit,)
            The group of each unit; missing groups are refused. A Series is read by its labels, those of ``index``.
        weights : array of shape (unit,), optional
            Weight of each unit.
        """
        import pandas as pd

        groups = self._aligned(groups, "groups")
        codes, labels = pd.factorize(np.asarray(groups), sort=True)
        if len(codes) != len(self):
            raise DataError(f"{len(codes)} groups", expected=f"one for each of {len(self)} units")
        missing = pd.isna(as_labels(groups))
        if missing.any():
            raise DataError(f"{int(missing.sum())} units without a group", todo="name a group for each unit")
        w = self._weights(weights)
        total = np.bincount(codes, w, minlength=len(labels))
        if (total <= 0).any():
            raise DataError("a group whose weights sum to zero", expected="positive weight in each group")
        membership: Any
        if len(self) * len(labels) <= MAX_DENSE:
            membership = np.zeros((len(self), len(labels)))
            membership[np.arange(len(self)), codes] = w / total[codes]
        else:
            from scipy.sparse import csr_array

            places = (np.arange(len(self)), codes)
            membership = csr_array((w / total[codes], places), shape=(len(self), len(labels)))
        return replace(self, draws=self.draws @ membership, index=np.asarray(labels))

    def _aligned(self, values: Any, role: str) -> Any:
        """Values in the order of the units, where they have labels."""
        if labels_of(values) is None:
            return values
        import pandas as pd

        return align_rows(pd.Index(self.index), values, role, "the posterior")

    def _weights(self, weights: ArrayLike | None) -> FloatArray:
        given = self._aligned(weights, "weights")
        w = np.ones(len(self)) if given is None else np.asarray(given, dtype=float)
        if w.shape != (len(self),) or not np.isfinite(w).all() or (w < 0).any():
            raise DataError("weights", expected=f"{len(self)} finite, non-negative numbers")
        return w / w.max() if w.max(initial=0.0) > MAX_SUM else w

    def _average(self, mask: FloatArray, weights: ArrayLike | None, label: str) -> EffectPosterior:
        if len(self) == 0:
            raise DataError("a posterior of no units", expected="at least one unit to average over")
        w = mask * self._weights(weights)
        if w.sum() <= 0:
            raise DataError("weights that sum to zero", expected="a positive sum")
        return replace(self, draws=(self.draws @ (w / w.sum()))[:, None], index=np.array([label]))

    # ------------------------------------------------------------------ arithmetic and exports
    def __sub__(self, other: EffectPosterior) -> EffectPosterior:
        """Difference draw by draw, of two posteriors over the same units from the same draws."""
        if not isinstance(other, EffectPosterior):
            return NotImplemented
        if self.draws.shape != other.draws.shape or not np.array_equal(self.index, other.index):
            raise DataError(
                f"posteriors of shapes {self.draws.shape} and {other.draws.shape}, or with other units",
                expected="the same units and the same number of draws",
                todo="compute both from one fitted estimator on the same X",
            )
        return replace(self, draws=self.draws - other.draws, kind="effect")

    def __float__(self) -> float:
        """Posterior mean of a posterior of one unit, such as ``float(post.ate())``."""
        if len(self) != 1:
            raise TypeError(f"a posterior of {len(self)} units is not one number; use mean() or ate()")
        return float(self.mean()[0])

    def to_dataframe(self, level: float = 0.9) -> pd.DataFrame:
        """Table with one row a unit: mean, sd, lower, upper, prob_positive."""
        import pandas as pd

        lower, upper = self.interval(level).T
        columns = {
            "mean": self.mean(),
            "sd": self.sd(),
            "lower": lower,
            "upper": upper,
            "prob_positive": self.prob(lambda tau: tau > 0),
        }
        return pd.DataFrame(columns, index=pd.Index(self.index, name="unit"))

    def to_xarray(self) -> xr.DataArray:
        """Draws as a DataArray with dimensions (draw, unit)."""
        import xarray as xr

        return xr.DataArray(
            np.asarray(self.draws),
            dims=("draw", "unit"),
            coords={"unit": self.index},
            name=self.kind,
            attrs={"treatment": str(self.treatment), "baseline": str(self.baseline), "scope": self.scope},
        )
