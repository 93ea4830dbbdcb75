"""The data catalogue: which data sets there are, what their columns and bands mean, where they lie.

A catalogue is a YAML file (``data_catalog.yaml``) checked against a schema; it holds no code.
"""

from __future__ import annotations

from causalsat.catalog.load import Catalog, load_catalog, load_imagery, load_study
from causalsat.catalog.schema import Download, Entry, ImagerySpec, Roles, SimulateSpec, TableSpec

__all__ = [
    "Catalog",
    "Download",
    "Entry",
    "ImagerySpec",
    "Roles",
    "SimulateSpec",
    "TableSpec",
    "load_catalog",
    "load_imagery",
    "load_study",
]
