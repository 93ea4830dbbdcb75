"""Layers of a map: the posterior's numbers, the error learned from held-out places, the disagreement of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat import base
from causalsat.exceptions import DataError, ParameterError
from causalsat.mapping.draw_kernels import moments
from causalsat.posterior import draw_quantiles

__all__ = [
    "DISAGREEMENT",
    "LEARNED_ERROR",
    "check_layers",
    "learned_error",
    "own_layers",
    "posterior_bands",
    "spread",
]

FloatArray = NDArray[np.float64]

LEARNED_ERROR, DISAGREEMENT = "learned_error", "disagreement"


def check_layers(model: Any, others: Sequence[Any], trust: Any) -> tuple[Any, ...]:
    """Check the models and the learned error that a map is asked to show besides; returns the models as a tuple.

    Raises
    ------
    ParameterError
        If something is no fitted model, or no fitted DirectUncertainty.
    DataError
        If the learned error is of other features than the model's.
    """
    models = (others,) if hasattr(others, "fit") else tuple(others)
    for other in models:
        _, estimator = base.final_estimator(other)
        if not hasattr(estimator, "effect"):
            raise ParameterError(
                f"others with a {type(estimator).__name__}, which has no effect()",
                expected="fitted effect models, such as other estimators on the same encoder",
            )
    if trust is None:
        return models
    if not hasattr(trust, "points_") or not hasattr(trust, "predict"):
        raise ParameterError(
            f"learned_error={type(trust).__name__}",
            expected="a fitted causalsat.evaluation.DirectUncertainty",
            todo="fit it on the model's features and held-out losses",
        )
    _, estimator = base.final_estimator(model)
    sizes = {int(getattr(estimator, "n_features_in_", len(trust.centre_))), _n_modifiers(estimator)}
    if len(trust.centre_) not in sizes:
        raise DataError(
            f"learned_error of {len(trust.centre_)} features for a model of {min(sizes)} to {max(sizes)}",
            expected="the features that the estimator is fitted on, or those that may modify the effect",
            todo="fit it on model[:-1].transform(units)",
        )
    return models


def own_layers(estimator: Any) -> tuple[str, ...]:
    """Names of the bands that an estimator adds to its map, in the order of its ``map_layers(X)``, shape (n, k)."""
    return tuple(getattr(estimator, "map_layer_names_", ()))


def _n_modifiers(estimator: Any) -> int:
    columns = _modifiers(estimator)
    return -1 if columns is None else len(columns)


def _modifiers(estimator: Any) -> NDArray[np.int64] | None:
    columns = estimator._support_columns() if hasattr(estimator, "_support_columns") else None
    if columns is None or isinstance(columns, slice):
        return None
    return np.asarray(columns)


def learned_error(trust: Any, estimator: Any, features: Any, sd: FloatArray) -> FloatArray:
    """Expected excess loss of each row of the estimator's features, shape (n,)."""
    table = np.asarray(features, dtype=float)
    columns = _modifiers(estimator)
    if table.shape[1] != len(trust.centre_) and columns is not None:
        table = table[:, columns]
    return np.asarray(trust.predict(table, sd if trust.has_sd_ else None))


def spread(means: Sequence[FloatArray]) -> FloatArray:
    """Standard deviation across models of the posterior mean effect, shape (n,); NaN where one of them has none.

    Examples
    --------
    >>> spread([np.array([1.0, 2.0]), np.array([1.0, 4.0])])
    array([0.        , 1.41421356])
    """
    return np.asarray(np.std(np.stack(means), axis=0, ddof=1))


def posterior_bands(
    estimator: Any,
    features: Any,
    support: NDArray[Any],
    level: float,
    quantity: str = "effect",
    given: str | None = None,
    contrast: Mapping[str, Any] = MappingProxyType({}),
) -> NDArray[np.float32]:
    """Mean, sd, interval, P(effect > 0) or P(tested), and the support (n,) of rows of features, shape (6, n)."""
    posterior = (
        estimator.risk(features, given=given) if quantity == "risk" else estimator.effect(features, **contrast)
    )
    mean, sd, positive, draws = moments(posterior.draws)
    # sorted in single precision, as the map's own numbers are: it takes half as long
    lower, upper = draw_quantiles(draws, [(1 - level) / 2, (1 + level) / 2], axis=-1)
    fifth = estimator.predict_decision(features) if quantity == "risk" else positive
    return np.stack((mean, sd, lower, upper, fifth, support)).astype(np.float32)
