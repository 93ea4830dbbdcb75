"""Checks of TransTEE's parameters and of the levels that it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.core import inputs
from causalsat.core.inputs import FitData, FloatArray
from causalsat.core.parameters import check_flags, check_whole_numbers
from causalsat.estimators.image_base import check_image_parameters
from causalsat.estimators.transtee.treatments import KINDS
from causalsat.exceptions import DataError, ParameterError, TreatmentError

if TYPE_CHECKING:
    from causalsat.estimators.transtee.estimator import TransTEE

__all__ = ["check_levels", "check_parameters", "check_scorable", "check_units"]

CHOICES = {
    "treatment_kind": KINDS,
    "norm": ("pre", "post", "none"),
    "regularizer": (None, "tr", "ptr"),
    "backbone": (None, "cnn"),
    "precision": ("auto", "float32", "bfloat16"),
}
LEAST = {"image_px": 8, "n_members": 1, "width": 2, "n_heads": 1, "n_blocks": 0, "n_features": 1}
LEAST |= {"max_epochs": 1, "patience": 1, "batch_size": 0, "n_draws": 2}
FEWEST = 8  # units


def check_parameters(est: TransTEE) -> None:
    """Raise ParameterError for a parameter outside its domain."""
    check_image_parameters(est.imagery, est.size_m, est.covariates, est.min_valid)
    check_whole_numbers(est, LEAST)
    check_flags(est, ("column_embedding", "propensity_weights", "compile_network", "progress"))
    for name, known in CHOICES.items():
        if getattr(est, name) not in known:
            raise ParameterError(f"{name}={getattr(est, name)!r}", expected=f"one of {known}")
    for name in ("alpha", "learning_rate"):
        if not getattr(est, name) >= 0:
            raise ParameterError(f"{name}={getattr(est, name)!r}", expected="a number of at least 0")
    if est.width % est.n_heads:
        raise ParameterError(
            f"width={est.width} with n_heads={est.n_heads}", expected="a width that the heads divide"
        )
    if est.backbone is None and (est.imagery is not None or len(est.covariates)):
        raise ParameterError(
            "imagery or covariates without a backbone",
            expected="backbone='cnn' for images; all columns of a table are covariates",
        )


def check_units(est: TransTEE, data: FitData, dosage: FloatArray | None, table: Any) -> None:
    """Refuse too few units, a dosage that does not fit, and a table of treatments without a module or the reverse."""
    if len(data.y) < FEWEST:
        raise DataError(f"{len(data.y)} units", expected=f"at least {FEWEST}", todo="collect more units")
    if (table is None) != (est.treatment_module is None):
        raise ParameterError(
            "treatments without treatment_module, or the module without the table", expected="both, or neither"
        )
    if dosage is not None and (dosage.shape != data.y.shape or not np.isfinite(dosage).all()):
        raise DataError(f"a dosage of shape {dosage.shape}", expected="one finite number for each unit")


def check_levels(
    est: TransTEE, value: Any, dosage: Any, n: int, name: str, table: Any
) -> tuple[FloatArray, FloatArray | None]:
    """Level and dosage of each of n units."""
    level = inputs.check_contrast_value(value, n, name)
    if (dosage is None) == (est.coding_.kind == "dosage"):
        given = "no" if dosage is None else "a"
        raise ParameterError(f"{name} with {given} dosage", expected="a dosage exactly where the fit had one")
    if table is not None:
        if est.coding_.kind != "structured":
            raise ParameterError("treatments for a model without structured treatments", expected="no table")
        if not np.isin(level, np.arange(len(np.asarray(table)))).all():
            raise ParameterError(f"{name}={value!r}", expected="positions in the table of treatments")
    elif est.coding_.kind != "dose":
        est.coding_.codes(level, name)
    return level, None if dosage is None else inputs.check_contrast_value(dosage, n, f"{name}'s dosage")


def check_scorable(est: TransTEE) -> None:
    """Refuse an R-score where the treatment's numbers are codes."""
    if est.coding_.kind not in ("binary", "dose"):
        raise TreatmentError(
            f"a score of a treatment of the kind {est.coding_.kind!r}",
            expected="a binary treatment or a dose",
            todo="compare predict_outcome with held-out outcomes",
        )
