"""Difference in differences of a panel of two waves, with unit and wave effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.inputs import check_magnitude
from causalsat.core.names import close_matches, list_names
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.exceptions import ColumnError, DataError, TreatmentError
from causalsat.inference.robust import least_squares, t_interval, t_p_value

__all__ = ["TwoWaveEffects", "two_wave_effects"]

FloatArray = NDArray[np.float64]

STAGGERED = (
    "for staggered adoption and more than two waves use pyfixest (event_study(..., estimator='did2s') or lpdid), R "
    "did, or Stata csdid: two-way fixed effects average effects with weights that can be negative there"
)


@dataclass(frozen=True, eq=False)
class TwoWaveEffects(Tabular):
    """A difference in differences.

    Attributes
    ----------
    estimate, se, lower, upper, p_value, df : float
        Effect, cluster-robust standard error (CR2), interval and p-value by a t reference with Satterthwaite degrees
        of freedom.
    level : float
        Level of the interval.
    means : DataFrame
        Mean outcome by arm (rows control, treated) and wave (columns), of the units that are used.
    n_units, clusters : int
        Units with both waves that are used, and their clusters (units, where there are none).
    left_out : int
        Units with one wave, or whose outcome, treatment or covariate is missing in one.
    """

    estimate: float
    se: float
    lower: float
    upper: float
    p_value: float
    df: float
    level: float
    means: pd.DataFrame
    n_units: int
    clusters: int
    left_out: int

    def to_dataframe(self) -> pd.DataFrame:
        """One row: estimate, se, lower, upper, p_value, df, n_units, clusters."""
        names = ("estimate", "se", "lower", "upper", "p_value", "df", "n_units", "clusters")
        index = pd.Index(["difference in differences"], name="estimator")
        return pd.DataFrame({name: [getattr(self, name)] for name in names}, index=index)


def two_wave_effects(
    table: pd.DataFrame,
    *,
    outcome: str,
    treatment: str,
    unit: str,
    wave: str,
    cluster: str | None = None,
    weights: str | None = None,
    covariates: Sequence[str] = (),
    level: float = 0.95,
) -> TwoWaveEffects:
    """Difference in differences of a two-wave panel in long form: unit and wave effects, cluster-robust.

    With two waves it is the regression of each unit's change of the outcome on its change of treatment. It is the
    average effect on the treated if the arms' outcomes would have changed alike without treatment.

    Parameters
    ----------
    table : DataFrame
        One row for each unit and wave.
    outcome, treatment : str
        Columns. The treatment is 0 in the first wave and 0 or 1 in the second; or the arm, the same in both waves, of
        units that were treated between them.
    unit, wave : str
        Columns with the unit's identity, which repeats, and with the wave, of two values in their order.
    cluster : str, optional
        Column with the unit of assignment; of a unit that moved, that of the first wave.
    weights : str, optional
        Column with survey weights; those of the first wave count.
    covariates : sequence of str
        Columns that vary over time and that treatment does not move.
    level : float
        Level of the interval.

    Returns
    -------
    TwoWaveEffects

    Raises
    ------
    ColumnError
        If a column is not in the table.
    DataError
        If there are other than two waves, or two rows of one unit and wave.
    TreatmentError
        If units are treated in the first wave (staggered adoption), or there is no comparison.

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "id": np.repeat(np.arange(6), 2), "year": [2010, 2012] * 6, "arm": np.repeat([0, 0, 0, 1, 1, 1], 2),
    ...     "income": [1.0, 2, 3, 4, 2, 3, 5, 8, 4, 7, 1, 4],
    ... })
    >>> found = two_wave_effects(table, outcome="income", treatment="arm", unit="id", wave="year")
    >>> round(found.estimate, 6)
    2.0
    """
    level = checks.level(level)
    roles = {"outcome": outcome, "treatment": treatment, "unit": unit, "wave": wave}
    roles |= {name: column for name, column in (("cluster", cluster), ("weights", weights)) if column is not None}
    covariates = [covariates] if isinstance(covariates, str) else list(covariates)
    _check_columns(table, [*roles.items(), *(("covariates", c) for c in covariates)])
    first, second, left_out = _paired(table, roles, covariates)
    treated = _switched(first[treatment], second[treatment], treatment)
    change = (second[outcome] - first[outcome]).to_numpy(dtype=float)
    moved = (second[covariates] - first[covariates]).to_numpy(dtype=float)
    groups = None if cluster is None else pd.factorize(first[cluster])[0]
    fit = least_squares(
        change,
        np.column_stack([treated, np.ones(len(treated)), moved]),
        weights=None if weights is None else first[weights].to_numpy(dtype=float),
        clusters=groups,
        contrast=np.eye(2 + len(covariates))[0],
        icc=None,
    )
    estimate, se, df = float(fit.estimate[0]), float(fit.se[0]), float(fit.df[0])
    lower, upper = t_interval(estimate, se, df, level)
    return TwoWaveEffects(
        estimate=estimate,
        se=se,
        lower=float(lower),
        upper=float(upper),
        p_value=float(t_p_value(estimate, se, df)),
        df=df,
        level=level,
        means=_means(first[outcome], second[outcome], treated, first[weights] if weights else None, table[wave]),
        n_units=fit.n,
        clusters=fit.clusters,
        left_out=left_out,
    )


def _check_columns(table: Any, wanted: list[tuple[str, str]]) -> None:
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"a table of type {type(table).__name__}", expected="a DataFrame, one row a unit and wave")
    for role, column in wanted:
        if column not in table.columns:
            near = close_matches(str(column), table.columns)
            raise ColumnError(
                f"{role}={column!r} is not a column of the table",
                expected=f"one of {list_names(table.columns)}",
                todo=f"did you mean {' or '.join(map(repr, near))}?" if near else "check the spelling",
            )


def _paired(table: pd.DataFrame, roles: dict[str, str], covariates: list[str]) -> tuple[Any, Any, int]:
    """Rows of the first and of the second wave, by unit, of units that are complete in both; and how many are not."""
    unit, wave = roles["unit"], roles["wave"]
    for role in ("unit", "wave"):
        lost = int(table[roles[role]].isna().sum())
        if lost:
            raise DataError(f"{role} {roles[role]!r} misses {lost} of {len(table)} values", todo="fill them in")
    waves = np.unique(table[wave].to_numpy())
    if len(waves) != 2:
        raise DataError(
            f"{len(waves)} waves in {wave!r} ({list_names(waves, 6)})",
            expected="two waves",
            todo=f"keep two of them; {STAGGERED}" if len(waves) > 2 else "check the column",
        )
    double = table.duplicated([unit, wave])
    if double.any():
        raise DataError(
            f"{int(double.sum())} rows repeat a unit and wave, such as {table.loc[double, unit].iloc[0]!r}",
            expected="one row for each unit and wave",
            todo="look for a merge that doubled rows",
        )
    needed = list(dict.fromkeys([roles["outcome"], roles["treatment"], *covariates]))
    needed += [roles[r] for r in ("cluster", "weights") if r in roles]
    parts = [table[table[wave] == w].set_index(unit)[needed] for w in waves]
    numbers = [roles["outcome"], roles["treatment"], *covariates]
    _check_numbers(table, numbers)
    whole = [part.index[part[numbers].notna().all(axis=1)] for part in parts]
    both = whole[0].intersection(whole[1])
    left_out = int(table[unit].nunique() - len(both))
    if len(both) < 3:
        raise DataError(
            f"{len(both)} units have both waves",
            expected="the same unit labels in both waves",
            todo=f"check that {unit!r} names the same units in both",
        )
    return parts[0].loc[both], parts[1].loc[both], left_out


def _check_numbers(table: pd.DataFrame, names: list[str]) -> None:
    for name in dict.fromkeys(names):
        try:
            values = table[name].to_numpy(dtype=float, na_value=np.nan)
        except (TypeError, ValueError):
            raise DataError(f"column {name!r} is no numbers", expected="numbers", todo="code it") from None
        check_magnitude(values, f"column {name!r}")


def _switched(before: Any, after: Any, name: str) -> FloatArray:
    """Who was treated between the waves, 0/1, (n,)."""
    d0, d1 = (values.to_numpy(dtype=float) for values in (before, after))
    if not np.isin([*d0, *d1], (0.0, 1.0)).all():
        raise TreatmentError(
            f"treatment {name!r} with other values than 0 and 1",
            expected="0 for control, 1 for treated",
            todo="for doses use pyfixest: feols('y ~ dose | unit + wave')",
        )
    treated = d1 if (d0 == d1).all() else d1 - d0
    if not (d0 == d1).all() and (d0 == 1).any():
        raise TreatmentError(
            f"{int((d0 == 1).sum())} units are treated in the first wave already, and others later",
            expected="no unit treated in the first wave",
            todo=f"leave them out, if they are few; {STAGGERED}",
        )
    if len(np.unique(treated)) < 2:
        raise TreatmentError(
            f"{'all' if treated.all() else 'no'} units were treated between the waves", expected="treated and control"
        )
    return treated


def _means(first: Any, second: Any, treated: FloatArray, weight: Any, waves: Any) -> pd.DataFrame:
    w = np.ones(len(treated)) if weight is None else weight.to_numpy(dtype=float)
    rows = {
        arm: [float(np.average(part.to_numpy(dtype=float)[treated == a], weights=w[treated == a])) for part in parts]
        for arm, a, parts in (("control", 0, (first, second)), ("treated", 1, (first, second)))
    }
    return pd.DataFrame(rows, index=pd.Index(np.unique(waves.to_numpy()), name=waves.name)).T
