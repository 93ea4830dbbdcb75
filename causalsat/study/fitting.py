"""A study's roles handed to a model's fit, each where it belongs."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from causalsat.core.inputs import align_rows
from causalsat.core.names import shown
from causalsat.core.treatment import FOR_ARMS
from causalsat.exceptions import DataWarning, ParameterError, TreatmentError

__all__ = ["fit_study", "given_roles"]


def fit_study(study: Any, model: Any, X: Any = None) -> Any:
    """Fit an estimator, or the Pipeline that ends in one, to the study's X (or another) and roles."""
    from sklearn import config_context

    features = study.X if X is None else align_rows(study.units.index, X, "X", "the study")
    steps = getattr(model, "steps", None)
    final = steps[-1][1] if steps else model
    arguments = _arguments(study, final)
    _refuse_labelled_arms(study, final)
    if not steps:
        return model.fit(features, study.y, **arguments)
    prefix = steps[-1][0]
    routed = {f"{prefix}__{k}": v for k, v in arguments.items()}
    for name, step in steps[:-1]:
        if getattr(step, "requests_roles", False):  # an encoder that is trained on outcomes
            routed |= {f"{name}__{k}": v for k, v in arguments.items() if k in ("treatment", "groups")}
    with config_context(enable_metadata_routing=False):  # the step's name routes, so no step need ask for it
        return model.fit(features, study.y, **routed)


def _refuse_labelled_arms(study: Any, estimator: Any) -> None:
    """Refuse arms that value labels name where an estimator would take their codes for amounts."""
    arms = study.arms
    if len(arms) < 3 or getattr(estimator, "treatment_kind", None) == "levels":
        return
    column = study.roles["treatment"]
    listed = ", ".join(f"{shown(code)} = {name}" for code, name in arms.items())
    raise TreatmentError(
        f"the treatment {column!r} has {len(arms)} arms by its value labels ({listed}), whose codes "
        f"{type(estimator).__name__} takes for amounts",
        expected="two arms, or an estimator of arms",
        todo=f"keep one arm and control, study.subset(study.units[{column!r}].isin([control, arm])), and name it by "
        f"replace(treated=arm); or take all arms with {FOR_ARMS}. If the codes are amounts: "
        "study.replace(value_labels=None)",
    )


def given_roles(study: Any) -> dict[str, Any]:
    """The roles that the study has, by the names under which ``fit`` takes them."""
    roles = {
        "treatment": study.treatment,
        "groups": study.groups,
        "strata": study.strata if study.randomised else None,
        "sample_weight": study.weights,
        "propensity": study.propensity,
    }
    if roles["strata"] is not None:  # of all units: a part of them may leave a stratum one arm
        roles["propensity"] = study.design.probability
    return {k: v for k, v in roles.items() if v is not None}


def _arguments(study: Any, estimator: Any) -> dict[str, Any]:
    known = inspect.signature(estimator.fit).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    if "treatment" not in known and not takes_any:
        raise ParameterError(
            f"{type(estimator).__name__}.fit takes no treatment",
            expected="an effect estimator, or a Pipeline that ends in one",
            todo="end the pipeline with one of causalsat's estimators, such as DoublyRobustEffect()",
        )
    given = given_roles(study)
    unused = [k for k in given if k not in known and not takes_any]
    if unused:
        warnings.warn(
            f"{type(estimator).__name__}.fit takes no {', '.join(unused)}: the study's are not used",
            DataWarning,
            stacklevel=4,
        )
    return {k: v for k, v in given.items() if k not in unused}
