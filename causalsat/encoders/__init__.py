"""Encoders: from images to named features, as scikit-learn transformers."""

from __future__ import annotations

from causalsat.encoders.finetuned import FineTunedEncoder
from causalsat.encoders.image_encoder import ImageEncoder
from causalsat.encoders.learned_filters import LearnedFilters
from causalsat.encoders.module_encoder import ModuleEncoder
from causalsat.encoders.pyramid import PyramidFeatures
from causalsat.encoders.random_conv import RandomConvFeatures
from causalsat.encoders.self_supervised import SelfSupervisedEncoder, pretrain
from causalsat.encoders.sequence import SequenceEncoder
from causalsat.encoders.supervised import SupervisedEncoder
from causalsat.encoders.torchvision_encoder import TorchvisionEncoder

__all__ = [
    "FineTunedEncoder",
    "ImageEncoder",
    "LearnedFilters",
    "ModuleEncoder",
    "PyramidFeatures",
    "RandomConvFeatures",
    "SelfSupervisedEncoder",
    "SequenceEncoder",
    "SupervisedEncoder",
    "TorchvisionEncoder",
    "pretrain",
]
