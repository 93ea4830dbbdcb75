"""Maps of treatment effects: from a fitted model and imagery to a Cloud-Optimised GeoTIFF, a picture and a page."""

from __future__ import annotations

from causalsat.mapping.effects_map import BANDS, MapResult, map_effects

__all__ = ["BANDS", "MapResult", "map_effects"]
