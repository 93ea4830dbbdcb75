"""Figures: effects with their uncertainty, targeting curves, overlap, maps. Axes live here and nowhere else.

Every function takes a result of the package (or plain arrays), draws on ``ax`` where one is given, and returns
the Axes. matplotlib loads with the first figure.
"""

from __future__ import annotations

from causalsat.plots.attention import plot_attention, show_attention
from causalsat.plots.clusters import plot_cluster_effects, plot_cluster_images, plot_cluster_map
from causalsat.plots.comparison import plot_comparison
from causalsat.plots.confounding import plot_balance, plot_propensity_salience, plot_sensitivity
from causalsat.plots.curves import plot_gain_curve, plot_gates, plot_overlap, plot_toc
from causalsat.plots.districts import plot_districts
from causalsat.plots.effects import plot_ate, plot_effects
from causalsat.plots.maps import plot_map, save_map
from causalsat.plots.places import plot_study
from causalsat.plots.plan import plot_plan, plot_policy
from causalsat.plots.power import plot_power
from causalsat.plots.predictive import plot_predictive
from causalsat.plots.risk import plot_decision_against_risk, plot_risk_calibration, plot_testing_policy
from causalsat.plots.salience import show_image, show_salience
from causalsat.plots.segments import plot_segments
from causalsat.plots.trees import plot_policy_tree
from causalsat.plots.unobserved import plot_strength, plot_unobserved

__all__ = [
    "plot_ate",
    "plot_attention",
    "plot_cluster_effects",
    "plot_cluster_images",
    "plot_cluster_map",
    "plot_balance",
    "plot_comparison",
    "plot_decision_against_risk",
    "plot_districts",
    "plot_effects",
    "plot_gain_curve",
    "plot_gates",
    "plot_map",
    "plot_overlap",
    "plot_plan",
    "plot_policy",
    "plot_policy_tree",
    "plot_propensity_salience",
    "plot_sensitivity",
    "plot_power",
    "plot_predictive",
    "plot_risk_calibration",
    "plot_segments",
    "plot_strength",
    "plot_study",
    "plot_testing_policy",
    "plot_toc",
    "plot_unobserved",
    "save_map",
    "show_attention",
    "show_image",
    "show_salience",
]
