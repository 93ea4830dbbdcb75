"""Members of a stack: their checks, how they are fitted, and moments of their draws."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.base import EffectEstimator, effect, final_estimator
from causalsat.core.inputs import FitData
from causalsat.exceptions import CausalsatError, DataError, ParameterError, TreatmentError, TreatmentWarning
from causalsat.posterior import EffectPosterior

__all__ = [
    "check_doses",
    "check_members",
    "chunks",
    "fit_member",
    "has_outcomes",
    "moments",
    "outcome",
    "slopes",
    "take",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CHUNK = 4096  # units whose draws are in memory at once while fitting


def has_outcomes(model: Any) -> bool:
    """Whether a model, or the last step of a Pipeline, has potential outcomes."""
    return hasattr(final_estimator(model)[1], "predict_outcome")


def check_members(estimators: Any, parameters: dict[str, Any]) -> None:
    """Refuse what is no list of distinctly named effect estimators.

    Raises
    ------
    ParameterError
        If the list is empty, a name is used twice, is a parameter of the stack or holds ``__``, or a member is no
        effect estimator.
    """
    expected = "a list of (name, estimator) pairs"
    try:
        pairs = [(name, model) for name, model in estimators]
    except (TypeError, ValueError):
        raise ParameterError(f"estimators={estimators!r}", expected=expected) from None
    if not pairs:
        raise ParameterError("estimators=[]", expected=expected, todo="name at least one member")
    names = [name for name, _ in pairs]
    for name, model in pairs:
        if not isinstance(name, str) or not name or "__" in name or name in parameters:
            todo = "take another name, without '__', that is no parameter of StackedEffect"
            raise ParameterError(f"a member named {name!r}", expected="a string", todo=todo)
        if names.count(name) > 1:
            raise ParameterError(f"two members named {name!r}", expected="distinct names")
        if isinstance(model, type) or not isinstance(final_estimator(model)[1], EffectEstimator):
            kind = model.__name__ if isinstance(model, type) else type(model).__name__
            raise ParameterError(
                f"the member {name!r} is a {kind}",
                expected="an instance of an effect estimator, or a Pipeline that ends in one",
            )


def check_doses(named: list[tuple[str, Any]]) -> None:
    """Refuse members that know binary treatments only.

    Raises
    ------
    TreatmentError
        If there is one; names them all.
    """
    names = [name for name, model in named if final_estimator(model)[1]._binary_treatment]
    if names:
        raise TreatmentError(
            f"the treatment is a dose, and the members {', '.join(map(repr, names))} take binary treatments only",
            expected="members for doses, such as BayesianLinearEffect, RLearnerEffect or GaussianProcessEffect",
            todo="leave them out; where the numbers are codes of arms, fit to the units of two arms at a time",
        )


def fit_member(name: str, model: Any, X: Any, data: FitData, rows: IntArray) -> Any:
    """Fit an estimator or a Pipeline to some units, X being theirs, with all roles that the stack was given.

    Raises
    ------
    CausalsatError
        What the member raises, with its name.
    """
    from sklearn import get_config

    roles: dict[str, Any] = {"treatment": data.treatment, "groups": data.groups, "strata": data.strata}
    roles["propensity"] = data.propensity
    roles["sample_weight"] = data.sample_weight if data.weighted else None
    steps = getattr(model, "steps", None)
    prefix = "" if steps is None or get_config()["enable_metadata_routing"] else f"{steps[-1][0]}__"
    options = {f"{prefix}{role}": values[rows] for role, values in roles.items() if values is not None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TreatmentWarning)  # given already, of the whole
            return model.fit(X, data.y[rows], **options)
    except (CausalsatError, np.linalg.LinAlgError) as error:
        where = "" if len(rows) == len(data.y) else f" to {len(rows)} of {len(data.y)} units in cross-validation"
        said = error if isinstance(error, CausalsatError) else DataError(str(error))
        raise type(said)(
            f"the member {name!r} could not be fitted{where}: {said.what}",
            expected=said.expected,
            todo=said.todo or "leave the member out, or take other folds (cv)",
        ) from error


def outcome(model: Any, X: Any, level: FloatArray) -> EffectPosterior:
    """Posterior of the mean outcome at a treatment level, from an estimator or a Pipeline."""
    transformers, last = final_estimator(model)
    latents = X if transformers is None else transformers.transform(X)
    return last.predict_outcome(latents, treatment=level)  # type: ignore[no-any-return]


def chunks(n: int) -> list[slice]:
    """Slices that cover n units."""
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def take(X: Any, rows: slice) -> Any:
    """Rows of an array or a data frame."""
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def slopes(model: Any, X: Any, level: FloatArray, baseline: FloatArray) -> FloatArray:
    """Posterior mean of the effect of a level against a baseline, by unit of treatment, shape (n,)."""
    parts = [effect(model, take(X, c), treatment=level[c], baseline=baseline[c]).mean() for c in chunks(len(X))]
    return np.asarray(np.concatenate(parts) / (level - baseline))


def moments(
    model: Any, X: Any, level: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, tuple[float, float]]:
    """Posterior mean and variance of the effect (or of the outcome at a level), and the range of the draws."""
    means, variances, low, high = [], [], np.inf, -np.inf
    for rows in chunks(len(X)):
        chunk = take(X, rows)
        post = effect(model, chunk) if level is None else outcome(model, chunk, level[rows])
        means.append(post.mean())
        variances.append(post.sd() ** 2)
        low, high = min(low, float(post.draws.min())), max(high, float(post.draws.max()))
    return np.concatenate(means), np.concatenate(variances), (low, high)
