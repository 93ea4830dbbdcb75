"""Judging effects without ground truth: functions on arrays that return frozen results."""

from causalsat.evaluation.arms import ArmComparison, arm_effects
from causalsat.evaluation.attrition import LeeBounds, lee_bounds
from causalsat.evaluation.average_effects import average_effects
from causalsat.evaluation.best_arm import BestArm
from causalsat.evaluation.calibration import BlpResult, GatesResult, blp, gates
from causalsat.evaluation.compliance import AndersonRubin, Compliance, ComplianceEstimate, compliance
from causalsat.evaluation.conformal import (
    ConformalCalibration,
    ConformalIntervals,
    ConformalOutcomes,
    conformal_calibrate,
    conformal_individual_effects,
    conformal_outcome_intervals,
)
from causalsat.evaluation.crossfit import CrossfitEffects, crossfit_effects
from causalsat.evaluation.explained import ExplainedHeterogeneity, explained_heterogeneity
from causalsat.evaluation.exposure import ExposureEffects, exposure_effects
from causalsat.evaluation.overlap import OverlapResult, effective_sample_size, overlap
from causalsat.evaluation.panel import TwoWaveEffects, two_wave_effects
from causalsat.evaluation.permutation import PermutationResult, permutation_test, priority_test
from causalsat.evaluation.policy import GainCurve, PolicyValue, gain_curve, policy_difference, policy_value
from causalsat.evaluation.posterior_scale import PosteriorScale, out_of_fold_draws, posterior_scale
from causalsat.evaluation.predicted_outcomes import (
    LinearCalibration,
    PredictionPowered,
    linear_calibration,
    prediction_powered,
)
from causalsat.evaluation.quantile_aggregation import (
    QuantileAggregation,
    aggregate_quantiles,
    monotone_quantiles,
    out_of_fold_quantiles,
    pinball_loss,
    quantile_effects,
)
from causalsat.evaluation.rate import RateResult, TocCurve, rate, toc
from causalsat.evaluation.risk_calibration import RiskCalibration, follow_up_calibration, risk_calibration
from causalsat.evaluation.spatial_cv import BlockSize, SpatialBlockCV, suggest_block_size
from causalsat.evaluation.trust import DirectUncertainty
from causalsat.inference.balance import Balance, balance
from causalsat.inference.displacement import LocationErrorCost, location_error_cost
from causalsat.inference.nuisances import Nuisances, crossfit_nuisances, dr_scores
from causalsat.inference.sensitivity import Sensitivity, partial_r2, robustness_value, sensitivity

__all__ = [
    "ExposureEffects",
    "LinearCalibration",
    "LocationErrorCost",
    "PredictionPowered",
    "TwoWaveEffects",
    "AndersonRubin",
    "ArmComparison",
    "Compliance",
    "ComplianceEstimate",
    "compliance",
    "BestArm",
    "LeeBounds",
    "Balance",
    "BlockSize",
    "BlpResult",
    "ConformalCalibration",
    "ConformalIntervals",
    "ConformalOutcomes",
    "CrossfitEffects",
    "DirectUncertainty",
    "ExplainedHeterogeneity",
    "GainCurve",
    "GatesResult",
    "Nuisances",
    "OverlapResult",
    "PermutationResult",
    "PolicyValue",
    "PosteriorScale",
    "QuantileAggregation",
    "RateResult",
    "RiskCalibration",
    "Sensitivity",
    "SpatialBlockCV",
    "TocCurve",
    "aggregate_quantiles",
    "average_effects",
    "exposure_effects",
    "arm_effects",
    "lee_bounds",
    "linear_calibration",
    "location_error_cost",
    "prediction_powered",
    "two_wave_effects",
    "balance",
    "blp",
    "conformal_calibrate",
    "conformal_individual_effects",
    "conformal_outcome_intervals",
    "crossfit_effects",
    "crossfit_nuisances",
    "dr_scores",
    "effective_sample_size",
    "explained_heterogeneity",
    "follow_up_calibration",
    "gain_curve",
    "gates",
    "monotone_quantiles",
    "out_of_fold_draws",
    "out_of_fold_quantiles",
    "overlap",
    "partial_r2",
    "permutation_test",
    "pinball_loss",
    "policy_difference",
    "policy_value",
    "posterior_scale",
    "priority_test",
    "quantile_effects",
    "rate",
    "risk_calibration",
    "robustness_value",
    "sensitivity",
    "suggest_block_size",
    "toc",
]
