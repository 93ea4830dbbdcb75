"""Spectral indices by band name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.core.warn import warn
from causalsat.exceptions import ImageryError, ImageryWarning, ParameterError

if TYPE_CHECKING:
    import xarray

__all__ = ["INDICES", "SpectralIndex", "indices"]


@dataclass(frozen=True)
class SpectralIndex:
    """One index.

    Attributes
    ----------
    bands : tuple of str
        Bands that the formula takes, in its order.
    formula : callable
        Function of that many arrays.
    source : str
        Where it was published.
    reflectance : bool
        Whether its constants presume reflectances between 0 and 1.
    """

    bands: tuple[str, ...]
    formula: Callable[..., Any]
    source: str
    reflectance: bool = False


def _ratio(a: Any, b: Any) -> Any:
    """(a - b) / (a + b)."""
    return (a - b) / (a + b)


#: The indices by name; a new one is one more line.
INDICES: dict[str, SpectralIndex] = {
    "ndvi": SpectralIndex(("nir", "red"), _ratio, "Rouse et al. 1974"),
    "gndvi": SpectralIndex(("nir", "green"), _ratio, "Gitelson et al. 1996"),
    "evi": SpectralIndex(
        ("nir", "red", "blue"), lambda n, r, b: 2.5 * (n - r) / (n + 6 * r - 7.5 * b + 1), "Huete et al. 2002", True
    ),
    "evi2": SpectralIndex(("nir", "red"), lambda n, r: 2.5 * (n - r) / (n + 2.4 * r + 1), "Jiang et al. 2008", True),
    "savi": SpectralIndex(("nir", "red"), lambda n, r: 1.5 * (n - r) / (n + r + 0.5), "Huete 1988", True),
    "ndwi": SpectralIndex(("green", "nir"), _ratio, "McFeeters 1996"),
    "mndwi": SpectralIndex(("green", "swir1"), _ratio, "Xu 2006"),
    "ndmi": SpectralIndex(("nir", "swir1"), _ratio, "Wilson and Sader 2002"),
    "ndbi": SpectralIndex(("swir1", "nir"), _ratio, "Zha et al. 2003"),
    "nbr": SpectralIndex(("nir", "swir2"), _ratio, "Key and Benson 2006"),
    "bsi": SpectralIndex(
        ("swir1", "red", "nir", "blue"), lambda s, r, n, b: _ratio(s + r, n + b), "Rikimaru et al. 2002"
    ),
}

# names that STAC and vendors use for the same band; numbers are left out, as they differ between sensors
_SYNONYMS = {
    "nir08": "nir",
    "nir1": "nir",
    "swir16": "swir1",
    "swir22": "swir2",
    "swir_1": "swir1",
    "swir_2": "swir2",
}


def indices(
    chips: xarray.DataArray,
    names: str | Sequence[str],
    *,
    bands: Mapping[str, str] | None = None,
    append: bool = False,
) -> xarray.DataArray:
    """Spectral indices of chips or of any array with a ``band`` dimension.

    Parameters
    ----------
    chips : xarray.DataArray with dimension ``band`` and names on it
        Of any shape.
    names : str or sequence of str
        Of ``causalsat.imagery.spectral_indices.INDICES``: ndvi, gndvi, evi, evi2, savi, ndwi, mndwi, ndmi,
        ndbi, nbr, bsi.
    bands : mapping of str to str, optional
        From the names in formulas (blue, green, red, nir, swir1, swir2) to the chips' names: ``{"nir": "B08"}``.
    append : bool, default False
        Keep the chips' own bands and put the indices behind them.

    Returns
    -------
    xarray.DataArray
        Like chips, with the indices as bands; NaN where a band is invalid or the denominator is zero.

    Raises
    ------
    ImageryError
        A band that a formula needs is missing.
    ParameterError
        An unknown index.

    Examples
    --------
    >>> import numpy as np, xarray
    >>> values = np.array([[[0.1]], [[0.3]]])
    >>> chips = xarray.DataArray(values, dims=("band", "y", "x"), coords={"band": ["red", "nir"]})
    >>> indices(chips, "ndvi").values.round(3).tolist()
    [[[0.5]]]
    """
    import xarray

    wanted = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in wanted if name not in INDICES]
    if unknown or not wanted:
        raise ParameterError(f"unknown indices {unknown}", expected=f"names among {sorted(INDICES)}")
    own = _roles(chips, bands or {})
    _check_bands(wanted, own, chips)
    results = []
    for name in wanted:
        index = INDICES[name]
        arrays = [chips.sel(band=own[role]).drop_vars("band") for role in index.bands]
        if index.reflectance and any(float(array.max()) > 2 for array in arrays):
            warn(
                f"{name} presumes reflectances between 0 and 1, and the bands reach "
                f"{max(float(array.max()) for array in arrays):g}: open the imagery with scale=",
                ImageryWarning,
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            value = index.formula(*arrays)
        results.append(value.where(np.isfinite(value)))
    stacked = xarray.concat(results, dim="band").assign_coords(band=wanted).transpose(*chips.dims)
    stacked = stacked.astype(chips.dtype).assign_attrs(chips.attrs)
    return xarray.concat([chips, stacked], dim="band") if append else stacked


def _roles(chips: xarray.DataArray, given: Mapping[str, str]) -> dict[str, str]:
    """From the names in formulas to the chips' band names."""
    if "band" not in chips.coords:
        raise ImageryError(
            "the chips have no band names", todo='name them: chips.assign_coords(band=["red", "nir", ...])'
        )
    own = [str(name) for name in chips["band"].values]
    roles: dict[str, str] = {}
    for name in own:
        lower = name.lower()
        roles.setdefault(_SYNONYMS.get(lower, lower), name)
    roles.update({name.lower(): name for name in own})
    missing = [name for name in given.values() if name not in own]
    if missing:
        raise ImageryError(f"the chips have no band {missing}", expected=f"names among {own}")
    return {**roles, **given}


def _check_bands(wanted: list[str], own: dict[str, str], chips: xarray.DataArray) -> None:
    problems = []
    for name in wanted:
        missing = [role for role in INDICES[name].bands if role not in own]
        if missing:
            problems.append(f"{name} needs {', '.join(missing)}")
    if problems:
        raise ImageryError(
            f"bands are missing: {'; '.join(problems)}; the chips have {[str(v) for v in chips['band'].values]}",
            todo='say which band is which with bands={"nir": "B08", ...}, or leave these indices out',
        )
