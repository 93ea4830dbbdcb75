"""Balance of features between the arms of an observational study."""

from causalsat.estimators.confounding.estimates import Balance, balance

__all__ = ["Balance", "balance"]
