"""Sensitivity of an observational estimate to a confounder that nobody measured."""

from causalsat.estimators._confounding_sensitivity import (
    Sensitivity,
    partial_r2,
    robustness_value,
    sensitivity,
)

__all__ = ["Sensitivity", "partial_r2", "robustness_value", "sensitivity"]
