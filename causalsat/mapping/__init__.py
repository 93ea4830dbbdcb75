"""Maps of treatment effects: from a fitted model and imagery to a Cloud-Optimised GeoTIFF, a picture and a page."""

from __future__ import annotations

from causalsat.mapping.districts import DistrictEffects, district_effects
from causalsat.mapping.effects_map import BANDS, MapResult, map_effects
from causalsat.mapping.plan import MapPlan, plan_map
from causalsat.mapping.risk_map import map_risk

__all__ = [
    "BANDS",
    "DistrictEffects",
    "MapPlan",
    "MapResult",
    "district_effects",
    "map_effects",
    "map_risk",
    "plan_map",
]
