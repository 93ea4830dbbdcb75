"""What drives a metric: regression on sources, models and studies with statsmodels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from causalsat.exceptions import ParameterError

__all__ = ["regress"]

_ENOUGH_STUDIES = 5


def regress(rows: pd.DataFrame, attributes: Mapping[str, Any]) -> pd.DataFrame:
    """Ordinary least squares of ``value`` on sources, models and studies.

    Parameters
    ----------
    rows : DataFrame
        ``study, source, model, seed, value`` of one metric.
    attributes : mapping
        Numbers in the place of the names of "source" or "model".

    Returns
    -------
    DataFrame
        ``estimate, se, lower, upper, p_value`` of every column.
    """
    import statsmodels.api as sm

    unknown = set(attributes) - {"source", "model"}
    if unknown:
        raise ParameterError(f"attributes of {sorted(unknown)}", expected="of 'source' and 'model'")
    design = pd.DataFrame({"constant": np.ones(len(rows))}, index=rows.index)
    for factor in ("source", "model", "study"):
        design = design.join(_columns(rows[factor], factor, attributes.get(factor)))
    studies = rows["study"].nunique()
    labels = rows["study"] if studies >= _ENOUGH_STUDIES else rows["source"] + "\n" + rows["model"]
    codes = pd.factorize(labels)[0]
    fit = sm.OLS(rows["value"].to_numpy(), design).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    lower, upper = fit.conf_int(0.05).to_numpy().T
    table = pd.DataFrame(
        {"estimate": fit.params, "se": fit.bse, "lower": lower, "upper": upper, "p_value": fit.pvalues}
    )
    table.attrs = {"r2": float(fit.rsquared), "n": len(rows), "clusters": int(codes.max()) + 1}
    return table


def _columns(values: pd.Series, factor: str, numbers: Any) -> pd.DataFrame:
    """Indicators against the first level, or the attributes of each level."""
    levels = list(values.unique())
    if numbers is None:
        return pd.DataFrame({f"{factor}={x}": (values == x).astype(float) for x in levels[1:]}, index=values.index)
    table = pd.DataFrame(numbers).T if isinstance(numbers, Mapping) else pd.DataFrame(numbers)
    missing = [level for level in levels if level not in table.index]
    if missing:
        raise ParameterError(f"no attributes of {factor} {missing[0]!r}", expected=f"a row for each {factor}")
    found = table.loc[values].astype(float)
    return found.set_axis(values.index).add_prefix(f"{factor} ")
