"""Judging effects without ground truth: functions on arrays that return frozen results."""

from causalsat.estimators._nuisances import Nuisances, crossfit_nuisances, dr_scores
from causalsat.evaluation.crossfit import CrossfitEffects, crossfit_effects
from causalsat.evaluation.rate import RateResult, TocCurve, rate, toc

__all__ = [
    "CrossfitEffects",
    "Nuisances",
    "RateResult",
    "TocCurve",
    "crossfit_effects",
    "crossfit_nuisances",
    "dr_scores",
    "rate",
    "toc",
]
