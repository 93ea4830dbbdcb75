"""The design of a study: who could have been assigned what, and what every estimator and test takes from it."""

from causalsat.design.adjustment import adjust_for_design, balancing_weights, stratum_levels
from causalsat.design.design import Design, make_design

__all__ = ["Design", "adjust_for_design", "balancing_weights", "make_design", "stratum_levels"]
