"""The main job: from a study to effects, tests of heterogeneity, a report and a map."""

from causalsat.analysis.arms import ArmsAnalysis
from causalsat.analysis.comparison import Comparison, compare
from causalsat.analysis.describe import describe_effects
from causalsat.analysis.main import Analysis, analyse, image_model
from causalsat.analysis.outcome_family import OutcomeFamily, analyse_outcomes
from causalsat.analysis.segments import SegmentImportance, segment_importance
from causalsat.evaluation.average_effects import average_effects

__all__ = [
    "Analysis",
    "ArmsAnalysis",
    "Comparison",
    "OutcomeFamily",
    "SegmentImportance",
    "analyse",
    "analyse_outcomes",
    "average_effects",
    "compare",
    "describe_effects",
    "image_model",
    "segment_importance",
]
