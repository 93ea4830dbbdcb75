"""Columns that a fitted model asks for, and those on which its effects depend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.names import list_names
from causalsat.exceptions import ColumnError

__all__ = ["modifier_columns", "modifies", "required_columns", "with_adjusting_columns"]


def modifier_columns(estimator: Any) -> NDArray[np.bool_] | None:
    """Mask over the features: those on which the effect may depend; None where the estimator does not say."""
    if not hasattr(estimator, "_support_columns") or not hasattr(estimator, "imputation_"):
        return None
    n_features = len(estimator.imputation_.means)
    mask = np.zeros(len(estimator.design_names_), dtype=bool)
    mask[estimator._support_columns()] = True
    indicators = mask[n_features:]
    mask = mask[:n_features]
    mask[estimator.imputation_.indicators[indicators]] = True
    return mask


def required_columns(model: Any) -> list[str]:
    """Columns, besides the geometry, that the model's first step asks for."""
    steps = getattr(model, "steps", None)
    first = steps[0][1] if steps else model
    names = [str(name) for name in getattr(first, "feature_names_in_", ())]
    if hasattr(first, "transformers_"):
        asked: list[str] = []
        for _, transformer, columns in first.transformers_:
            if isinstance(transformer, str) and transformer == "drop":
                continue
            chosen = np.asarray(names, dtype=object)
            listed = [columns] if isinstance(columns, str) else list(np.atleast_1d(np.asarray(columns, dtype=object)))
            asked += [str(c) if isinstance(c, str) else str(chosen[c]) for c in listed]
        names = list(dict.fromkeys(asked))
    elif hasattr(first, "imagery") and hasattr(first, "size_m"):
        names = [str(name) for name in getattr(first, "keep", ())]
    return [name for name in names if name != "geometry"]


def modifies(estimator: Any, column: str) -> bool:
    """Whether the effect may depend on a column; encoded names such as scaler__age and area_north count."""
    mask = modifier_columns(estimator)
    if mask is None:
        return True
    names = [str(name).rpartition("__")[2] for name in estimator.design_names_[: len(mask)]]
    return any(
        hit and (name == column or name.startswith(f"{column}_")) for name, hit in zip(names, mask, strict=True)
    )


def with_adjusting_columns(model: Any, X: Any) -> Any:
    """A table with all columns that the model asks for: those that only adjust are missing values where X lacks them.

    Parameters
    ----------
    model : Pipeline
        Fitted.
    X : anything
        Only data frames, and a GeoSeries as the geometry of one, are completed.

    Raises
    ------
    ColumnError
        If X lacks a column on which the effect depends.
    """
    import pandas as pd

    if isinstance(X, pd.Series) and hasattr(X, "geom_type"):
        X = X.rename("geometry").to_frame()
    if not isinstance(X, pd.DataFrame):
        return X
    absent = [name for name in required_columns(model) if name not in X.columns]
    estimator = model.steps[-1][1]
    needed = [name for name in absent if modifies(estimator, name)]
    if needed:
        raise ColumnError(
            f"the effects of this model depend on {list_names(map(repr, needed), 6)}, which X lacks",
            expected="a value for each unit",
            todo="add the columns, or fit with modifiers='img*' so that the effect depends on the imagery alone",
        )
    return X.assign(**dict.fromkeys(absent, float("nan"))) if absent else X
