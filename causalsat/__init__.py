"""causalsat: from a trial and satellite imagery to a validated, honestly uncertain map of treatment effects.

Public names load when first used, so that ``import causalsat`` brings in neither torch nor pymc, rasterio,
matplotlib or pandas.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

logging.getLogger("causalsat").addHandler(logging.NullHandler())  # silent unless the program asks for the log

# public name -> module that defines it; a new estimator is one new module plus its line here
_LAZY: dict[str, str] = {
    # data
    "Study": "causalsat.study",
    "load_study": "causalsat.catalog",
    "load_catalog": "causalsat.catalog",
    "open_imagery": "causalsat.imagery",
    "chips": "causalsat.imagery",
    # encoders
    "FineTunedEncoder": "causalsat.encoders",
    "ImageEncoder": "causalsat.encoders",
    "LearnedFilters": "causalsat.encoders",
    "ModuleEncoder": "causalsat.encoders",
    "PyramidFeatures": "causalsat.encoders",
    "RandomConvFeatures": "causalsat.encoders",
    "SelfSupervisedEncoder": "causalsat.encoders",
    "SequenceEncoder": "causalsat.encoders",
    "SupervisedEncoder": "causalsat.encoders",
    "TorchvisionEncoder": "causalsat.encoders",
    # estimators
    "BayesianForestEffect": "causalsat.estimators.bayesian_forest",
    "BayesianLinearEffect": "causalsat.estimators.bayesian_linear",
    "DRLearnerEffect": "causalsat.estimators.meta_learners",
    "RLearnerEffect": "causalsat.estimators.meta_learners",
    "TLearnerEffect": "causalsat.estimators.meta_learners",
    "XLearnerEffect": "causalsat.estimators.meta_learners",
    "DoublyRobustEffect": "causalsat.estimators.doubly_robust",
    "GaussianProcessEffect": "causalsat.estimators.gaussian_process",
    "CalibratedProbability": "causalsat.estimators.calibrated_probability",
    "ImageConfounding": "causalsat.estimators.image_confounding",
    "ImageEffectClusters": "causalsat.estimators.image_clusters",
    "StackedEffect": "causalsat.estimators.stacked",
    "RareOutcome": "causalsat.estimators.rare_outcome",
    "SelectiveLabelsOutcome": "causalsat.estimators.selective_outcome",
    "SelectiveLabelsRisk": "causalsat.estimators.selective_labels",
    "TransTEE": "causalsat.estimators.transtee",
    "TestedOnlyRisk": "causalsat.estimators.risk_baselines",
    "UntestedNegativeRisk": "causalsat.estimators.risk_baselines",
    "VLUCI": "causalsat.estimators.vluci",
    "EffectPosterior": "causalsat.posterior",
    "effect": "causalsat.base",
    "risk": "causalsat._risk_base",
    "support": "causalsat.base",
    "load": "causalsat.persistence",
    "save": "causalsat.persistence",
    # maps and the whole analysis
    "district_effects": "causalsat.mapping",
    "map_effects": "causalsat.mapping",
    "map_risk": "causalsat.mapping",
    "plan_map": "causalsat.mapping",
    "analyse": "causalsat.analysis",
    "compare": "causalsat.analysis",
    "image_model": "causalsat.analysis",
}
_MODULES = (
    "evaluation",
    "imagery",
    "mapping",
    "plots",
    "simulate",
    "exceptions",
    "encoders",
    "estimators",
    "catalog",
    "analysis",
    "report",
)

__all__ = ["__version__", *_LAZY, *_MODULES]  # noqa: PLE0604

if TYPE_CHECKING:
    from causalsat._risk_base import risk as risk
    from causalsat.analysis import analyse as analyse
    from causalsat.analysis import compare as compare
    from causalsat.analysis import image_model as image_model
    from causalsat.base import effect as effect
    from causalsat.base import support as support
    from causalsat.catalog import load_catalog as load_catalog
    from causalsat.catalog import load_study as load_study
    from causalsat.encoders import FineTunedEncoder as FineTunedEncoder
    from causalsat.encoders import ImageEncoder as ImageEncoder
    from causalsat.encoders import LearnedFilters as LearnedFilters
    from causalsat.encoders import ModuleEncoder as ModuleEncoder
    from causalsat.encoders import PyramidFeatures as PyramidFeatures
    from causalsat.encoders import RandomConvFeatures as RandomConvFeatures
    from causalsat.encoders import SelfSupervisedEncoder as SelfSupervisedEncoder
    from causalsat.encoders import SequenceEncoder as SequenceEncoder
    from causalsat.encoders import SupervisedEncoder as SupervisedEncoder
    from causalsat.encoders import TorchvisionEncoder as TorchvisionEncoder
    from causalsat.estimators.bayesian_forest import BayesianForestEffect as BayesianForestEffect
    from causalsat.estimators.bayesian_linear import BayesianLinearEffect as BayesianLinearEffect
    from causalsat.estimators.calibrated_probability import CalibratedProbability as CalibratedProbability
    from causalsat.estimators.doubly_robust import DoublyRobustEffect as DoublyRobustEffect
    from causalsat.estimators.gaussian_process import GaussianProcessEffect as GaussianProcessEffect
    from causalsat.estimators.image_clusters import ImageEffectClusters as ImageEffectClusters
    from causalsat.estimators.image_confounding import ImageConfounding as ImageConfounding
    from causalsat.estimators.meta_learners import DRLearnerEffect as DRLearnerEffect
    from causalsat.estimators.meta_learners import RLearnerEffect as RLearnerEffect
    from causalsat.estimators.meta_learners import TLearnerEffect as TLearnerEffect
    from causalsat.estimators.meta_learners import XLearnerEffect as XLearnerEffect
    from causalsat.estimators.rare_outcome import RareOutcome as RareOutcome
    from causalsat.estimators.risk_baselines import TestedOnlyRisk as TestedOnlyRisk
    from causalsat.estimators.risk_baselines import UntestedNegativeRisk as UntestedNegativeRisk
    from causalsat.estimators.selective_labels import SelectiveLabelsRisk as SelectiveLabelsRisk
    from causalsat.estimators.selective_outcome import SelectiveLabelsOutcome as SelectiveLabelsOutcome
    from causalsat.estimators.stacked import StackedEffect as StackedEffect
    from causalsat.estimators.transtee import TransTEE as TransTEE
    from causalsat.estimators.vluci import VLUCI as VLUCI
    from causalsat.imagery import chips as chips
    from causalsat.imagery import open_imagery as open_imagery
    from causalsat.mapping import district_effects as district_effects
    from causalsat.mapping import map_effects as map_effects
    from causalsat.mapping import map_risk as map_risk
    from causalsat.mapping import plan_map as plan_map
    from causalsat.persistence import load as load
    from causalsat.persistence import save as save
    from causalsat.posterior import EffectPosterior as EffectPosterior
    from causalsat.study import Study as Study


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    elif name in _MODULES:
        value = import_module(f"causalsat.{name}")
    else:
        raise AttributeError(f"module 'causalsat' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
