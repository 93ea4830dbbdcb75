"""Encoders: from images to named features, as scikit-learn transformers; each loads when first used."""

import lazy_loader

from causalsat.public_names import attributes

_BESIDE = {"networks.self_supervised": ["SelfSupervisedEncoder", "pretrain"], "scale": ["allow_other_scale"]}

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={**attributes(__name__), **_BESIDE})
