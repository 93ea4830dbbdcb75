"""causalsat: from a trial and satellite imagery to a validated, honestly uncertain map of treatment effects.

Public names load when first used, so that ``import causalsat`` brings in neither torch nor pymc, rasterio,
matplotlib or pandas. ``__init__.pyi`` is their table.
"""

import logging

import lazy_loader

from causalsat.public_names import attributes, modules
from causalsat.version import __version__

logging.getLogger("causalsat").addHandler(logging.NullHandler())  # silent unless the program asks for the log

__getattr__, __dir__, _names = lazy_loader.attach(__name__, modules(), attributes())
__all__ = ["__version__", *_names]  # noqa: PLE0604
