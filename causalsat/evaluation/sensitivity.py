"""Sensitivity of an observational estimate to a confounder that nobody measured."""

from causalsat.inference.sensitivity import Sensitivity, partial_r2, robustness_value, sensitivity

__all__ = ["Sensitivity", "partial_r2", "robustness_value", "sensitivity"]
