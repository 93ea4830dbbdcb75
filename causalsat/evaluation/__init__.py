"""Judging effects without ground truth: functions on arrays that return frozen results."""

from causalsat.estimators._nuisances import Nuisances, crossfit_nuisances, dr_scores
from causalsat.evaluation.calibration import BlpResult, GatesResult, blp, gates
from causalsat.evaluation.crossfit import CrossfitEffects, crossfit_effects
from causalsat.evaluation.overlap import OverlapResult, effective_sample_size, overlap
from causalsat.evaluation.permutation import PermutationResult, permutation_test, priority_test
from causalsat.evaluation.rate import RateResult, TocCurve, rate, toc
from causalsat.evaluation.spatial_cv import BlockSize, SpatialBlockCV, suggest_block_size

__all__ = [
    "BlockSize",
    "BlpResult",
    "CrossfitEffects",
    "GatesResult",
    "Nuisances",
    "OverlapResult",
    "PermutationResult",
    "RateResult",
    "SpatialBlockCV",
    "TocCurve",
    "blp",
    "crossfit_effects",
    "crossfit_nuisances",
    "dr_scores",
    "effective_sample_size",
    "gates",
    "overlap",
    "permutation_test",
    "priority_test",
    "rate",
    "suggest_block_size",
    "toc",
]
