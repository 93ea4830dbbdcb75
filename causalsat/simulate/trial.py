"""Lays a trial with a known effect upon a landscape: places, people, assignment, outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ParameterError
from causalsat.simulate import moderators
from causalsat.simulate.fields import stream
from causalsat.simulate.files import make_study, write_trial
from causalsat.simulate.landscape import Landscape, render_landscape
from causalsat.simulate.moderators import COVARIATES

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from causalsat.study import Study

Variant = Literal["smooth", "scene_types", "none", "change", "confounded", "kernel"]
_MISSING = {"schooling": 0.06, "assets": 0.10}
_EAST_END = 0.62  # share of the landscape's width that the trial region covers, on average


@dataclass(frozen=True)
class Settings:
    """Numbers that make outcomes, in units of the outcome; see :func:`satellite_trial`."""

    variant: Variant
    chip_px: int
    tau_mean: float
    tau_sd: float
    noise_sd: tuple[float, float]
    site_sd: float


@dataclass(frozen=True)
class SimulatedTrial:
    """A trial, its imagery and the truth.

    Attributes
    ----------
    units : geopandas.GeoDataFrame
        One row a person, index ``unit``; geometry is the site's point (a pixel centre). Columns ``outcome``,
        ``treatment`` (0/1), ``site``, ``district`` (the strata), ``propensity``, the covariates ``age``, ``female``,
        ``schooling``, ``household_size``, ``assets``, ``road_km`` (schooling and assets with missing values), and the
        truth: ``tau``, ``mu0`` (expected outcome without treatment), ``baseline`` (mu0 without the village effect)
        and ``scene``.
    places : geopandas.GeoDataFrame
        Settlements outside the trial region, index ``place``: geometry, ``tau``, ``scene``.
    tau_map : xarray.DataArray
        True effect of a chip centred at each pixel, (y, x) on the image's grid.
    region : shapely.Polygon
        Where the trial took place, in the image's CRS.
    truth : dict
        ``ate`` (mean effect of the units), ``ate_places``, ``tau_sd`` (of the units), ``naive_bias`` (expected
        difference in means minus ``ate``, given the sites and people), ``chip_px``, ``chip_m``, ``moderator``.
    landscape : Landscape
        What the image was rendered from.
    settings : Settings
        The numbers of the outcome model.
    clouds : {None, "qa", "nodata"}
        How clouds enter ``imagery``.
    """

    units: gpd.GeoDataFrame = field(repr=False)
    places: gpd.GeoDataFrame = field(repr=False)
    tau_map: xr.DataArray = field(repr=False)
    region: Any = field(repr=False)
    truth: dict[str, Any]
    landscape: Landscape = field(repr=False)
    settings: Settings
    clouds: str | None = None

    @cached_property
    def imagery(self) -> xr.DataArray:
        """Image, uint16 (band, y, x), or (time, band, y, x) with several dates; see :meth:`Landscape.imagery`."""
        return self.landscape.imagery(self.clouds)

    def draw_outcomes(self, seed: int) -> SimulatedTrial:
        """Same places and people; assignment, village effects and noise drawn anew.

        Takes milliseconds, for replications.
        """
        units = _assign_and_draw(self.units.drop(columns=["outcome", "treatment"]), self.settings, seed)
        return replace(self, units=units)

    def study(self) -> Study:
        """The trial as a :class:`causalsat.Study`, without the truth."""
        return make_study(self)

    def write(self, folder: str | Path) -> dict[str, Path]:
        """Write imagery (one Cloud-Optimised GeoTIFF a date), tables and truth to a folder.

        Returns
        -------
        dict of str to pathlib.Path
            ``imagery_<date>`` (Cloud-Optimised GeoTIFF, uint16), ``units`` and ``places`` (CSV with lon and lat in
            degrees, without the truth), ``units_truth`` and ``places_truth`` (CSV), ``tau`` (GeoTIFF), ``region``
            (GeoPackage), ``truth`` (JSON).
        """
        return write_trial(self, Path(folder))


def satellite_trial(
    variant: Variant = "smooth",
    *,
    n_units: int = 2000,
    n_sites: int = 250,
    size_px: int = 768,
    resolution_m: float = 30.0,
    n_dates: int | None = None,
    chip_px: int | None = None,
    tau_mean: float = 0.4,
    tau_sd: float = 0.5,
    noise_sd: tuple[float, float] = (0.9, 1.0),
    site_sd: float = 0.15,
    clouds: str | None = None,
    cloud_cover: float = 0.15,
    landscape: Landscape | None = None,
    seed: int = 0,
) -> SimulatedTrial:
    """Simulate a cluster-randomised trial in a part of a rendered landscape.

    The effect of a unit is ``tau_mean + tau_sd * m``, where m is a function of the pixels of the chip of ``chip_px``
    pixels centred at the unit's site, standardised over all settlements. The outcome is
    ``mu0 + treatment * tau + noise``, mu0 linear in the covariates and in the chip's greenness and the altitude,
    plus a village effect.

    Parameters
    ----------
    variant : str
        ``"smooth"``: m is built-up density less dense vegetation, in equal parts (see
        ``causalsat.simulate.moderators``).
        ``"scene_types"``: two scene types, smallholdings and estates, with effects ``tau_mean - tau_sd`` and
        ``tau_mean + tau_sd``.
        ``"none"``: the same effect everywhere.
        ``"change"``: m is the gain of NDVI between the first and the last date, small beside its variation within a
        date.
        ``"confounded"``: as smooth, but a site is treated with a probability that rises with its greenness, which
        also raises the outcome.
        ``"kernel"``: m is the maximum over the chip of the image convolved with a 32 x 32 kernel, centre -1 and
        surround +1.
    n_units, n_sites : int
        People, and the villages that they live in.
    size_px, resolution_m, n_dates, cloud_cover
        See :func:`render_landscape`; ignored if ``landscape`` is given. ``n_dates`` is 1 unless the variant is
        ``"change"`` (2).
    chip_px : int, optional
        Side of the chip that decides the effect; 32, for ``"kernel"`` 64. Pixel (r, c) is the centre of rows
        ``r - chip_px // 2`` to ``r - chip_px // 2 + chip_px - 1``; beyond the border only what lies inside counts.
    tau_mean, tau_sd : float
        Mean and standard deviation of the effect over all settlements.
    noise_sd : tuple of float
        Standard deviation of individual outcomes in the control and in the treated arm.
    site_sd : float
        Standard deviation of village effects.
    clouds : {None, "qa", "nodata"}
        See :meth:`Landscape.imagery`.
    landscape : Landscape, optional
        Use this one (``trial.landscape``) and do not render.
    seed : int
        Same seed, same trial to the bit. Landscape, places, people and outcomes have streams of their own, so
        ``n_units`` and ``n_sites`` leave the landscape as it is.

    Returns
    -------
    SimulatedTrial

    Raises
    ------
    ParameterError
        An argument outside its domain; more sites than the trial region has settlements.

    Examples
    --------
    >>> trial = satellite_trial(n_units=120, n_sites=12, size_px=192, seed=3)
    >>> trial.imagery.dims, len(trial.units), trial.units.site.nunique()
    (('band', 'y', 'x'), 120, 12)
    >>> bool(np.isclose(trial.truth["ate"], trial.units.tau.mean()))
    True
    """
    if variant not in get_args(Variant):
        raise ParameterError(f"variant={variant!r}", expected=f"one of {', '.join(get_args(Variant))}")
    chip_px = chip_px or (64 if variant == "kernel" else 32)
    settings = Settings(variant, chip_px, tau_mean, tau_sd, noise_sd, site_sd)
    _check(settings, n_units, n_sites)
    if clouds not in (None, "qa", "nodata"):
        raise ParameterError(f"clouds={clouds!r}", expected='None, "qa" or "nodata"')
    if landscape is None:
        landscape = render_landscape(
            size_px, n_dates=n_dates or (2 if variant == "change" else 1), resolution_m=resolution_m,
            scenes=variant == "scene_types", change=variant == "change",
            cloud_cover=cloud_cover if clouds else 0.0, seed=seed,
        )  # fmt: skip
    tau = true_effects(landscape, settings)
    sites, outside = _choose_places(landscape, n_sites, chip_px, stream(seed, "sites"))
    people = _people(landscape, settings, tau, sites, n_units, seed)
    units = _assign_and_draw(people, settings, seed)
    places = _places(landscape, tau, outside)
    return SimulatedTrial(
        units, places, landscape.grid(tau, "tau"), region_polygon(landscape),
        _truth(units, places, landscape, settings), landscape, settings, clouds,
    )  # fmt: skip


def _check(settings: Settings, n_units: int, n_sites: int) -> None:
    if n_sites < 4 or n_units < n_sites:
        raise ParameterError(
            f"n_sites={n_sites}, n_units={n_units}", expected="n_sites at least 4, n_units at least n_sites"
        )
    if settings.chip_px < 2:
        raise ParameterError(f"chip_px={settings.chip_px}", expected="at least 2 pixels")
    if min(*settings.noise_sd, settings.site_sd, settings.tau_sd) < 0:
        raise ParameterError(
            f"noise_sd={settings.noise_sd}, site_sd={settings.site_sd}, tau_sd={settings.tau_sd}",
            expected="none below 0",
        )


def true_effects(landscape: Landscape, settings: Settings) -> NDArray[np.float64]:
    """Effect of the chip centred at every pixel, shape (size, size)."""
    at = (landscape.settlements[:, 0], landscape.settlements[:, 1])
    if settings.variant == "none":
        return np.full((landscape.size_px, landscape.size_px), float(settings.tau_mean))
    if settings.variant == "scene_types":
        return settings.tau_mean + settings.tau_sd * (2 * moderators.estate_majority(landscape, settings.chip_px) - 1)
    if settings.variant == "change":
        raw = moderators.greening(landscape, settings.chip_px)
    elif settings.variant == "kernel":
        raw = moderators.bright_ring(landscape, settings.chip_px)
    else:
        raw = moderators.smooth(landscape, settings.chip_px, at)
    return settings.tau_mean + settings.tau_sd * moderators.standardise(raw, at)


def region_polygon(landscape: Landscape) -> Any:
    """Polygon of the trial region: the west of the landscape, up to a winding line."""
    from shapely import Polygon

    size = landscape.size_px
    rows = np.linspace(0, size, 60)
    phase = stream(landscape.seed, "region").uniform(0, 2 * np.pi, 2)
    bend = 0.035 * np.sin(2 * np.pi * rows / size * 1.3 + phase[0]) + 0.02 * np.sin(
        2 * np.pi * rows / size * 3 + phase[1]
    )
    east, north = landscape.xy(rows - 0.5, (_EAST_END + bend) * size - 0.5)
    west = landscape.xy(np.array([0]), np.array([0]))[0][0] - landscape.resolution_m / 2
    return Polygon([(west, north[0]), *zip(east, north, strict=True), (west, north[-1])])


def _choose_places(
    landscape: Landscape, n_sites: int, chip_px: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Settlements that are trial sites, and those outside the region (indices); all with chips inside the image."""
    import shapely

    rows, cols = landscape.settlements.T
    inside = shapely.contains_xy(region_polygon(landscape), *landscape.xy(rows, cols))
    low, high = chip_px // 2, landscape.size_px - (chip_px - chip_px // 2)
    whole = ((landscape.settlements >= low) & (landscape.settlements <= high)).all(axis=1)
    eligible = np.flatnonzero(inside & whole)
    if len(eligible) < n_sites:
        raise ParameterError(
            f"n_sites={n_sites} with size_px={landscape.size_px}",
            expected=f"at most {len(eligible)}, the settlements of the trial region whose chips lie in the image",
            todo="lower n_sites or raise size_px (settlements are about 30 pixels apart)",
        )
    return np.sort(rng.choice(eligible, n_sites, replace=False)), np.flatnonzero(~inside & whole)


def _districts(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Strata of about 25 neighbouring sites: bands of rows, each cut by columns into equal shares."""
    n = max(1, round(len(places) / 25))
    n_bands = max(1, round(np.sqrt(n)))
    code = np.empty(len(places), dtype=np.int64)
    next_code = 0
    for band in np.array_split(np.argsort(places[:, 0], kind="stable"), n_bands):
        for part in np.array_split(band[np.argsort(places[band, 1], kind="stable")], max(1, round(n / n_bands))):
            code[part] = next_code
            next_code += 1
    return code


def _people(
    landscape: Landscape,
    settings: Settings,
    tau: NDArray[np.float64],
    sites: NDArray[np.int64],
    n_units: int,
    seed: int,
) -> gpd.GeoDataFrame:
    """Units with covariates, expected outcome without village effect (``baseline``) and propensity."""
    import geopandas as gpd

    rng = stream(seed, "people")
    place = landscape.settlements[sites]
    at = (landscape.settlements[:, 0], landscape.settlements[:, 1])
    built, green, height = (
        moderators.standardise(surface, at)[place[:, 0], place[:, 1]]
        for surface in (
            moderators.built_up(landscape, settings.chip_px),
            moderators.greenness(landscape, settings.chip_px),
            landscape.elevation.astype(np.float64),
        )
    )
    share = rng.dirichlet(np.full(len(sites), 12.0))
    site = np.repeat(np.arange(len(sites)), 1 + rng.multinomial(n_units - len(sites), share))
    age = np.clip(np.rint(rng.gamma(6.0, 3.2, n_units) + 15), 16, 75)
    female = (rng.random(n_units) < 0.48).astype(np.int64)
    schooling = np.clip(
        np.rint(6.5 + 0.9 * built[site] - 0.04 * (age - 34) - 0.6 * female + rng.normal(0, 2.8, n_units)), 0, 16
    )
    assets = 0.4 * built[site] + 0.12 * (schooling - 6.5) + rng.normal(0, 0.8, n_units)
    size = 1 + rng.poisson(4.4, n_units)
    road_km = landscape.road_distance[place[:, 0], place[:, 1]].astype(np.float64)[site] / 1000
    fixed = 0.09 * (schooling - 6.5) + 0.25 * assets - 0.15 * female + 0.01 * (age - 34) - 0.03 * (size - 5.4)
    confounding = 0.7 if settings.variant == "confounded" else 0.25
    fixed = fixed + confounding * green[site] + 0.1 * height[site]
    chance = 1 / (1 + np.exp(-1.1 * green)) if settings.variant == "confounded" else np.full(len(sites), 0.5)
    chance = np.clip(chance, 0.05, 0.95)
    remote = np.argsort(np.argsort(built))[site] / max(1, len(sites) - 1)  # 0 the most remote
    columns = {
        "site": np.array([f"site_{k:03d}" for k in range(len(sites))])[site],
        "district": np.array([f"district_{k:02d}" for k in _districts(place)])[site],
        "age": age, "female": female,
        "schooling": np.where(rng.random(n_units) < _MISSING["schooling"], np.nan, schooling),
        "household_size": size,
        "assets": np.where(rng.random(n_units) < _MISSING["assets"] * (1.5 - remote), np.nan, assets),
        "road_km": road_km, "propensity": chance[site],
        "tau": tau[place[:, 0], place[:, 1]][site],
        "scene": landscape.scene[place[:, 0], place[:, 1]].astype(np.int64)[site] if settings.variant != "scene_types"
        else moderators.estate_majority(landscape, settings.chip_px)[place[:, 0], place[:, 1]].astype(np.int64)[site],
        "baseline": fixed,
    }  # fmt: skip
    points = landscape.points(place[:, 0], place[:, 1]).values[site]
    units = gpd.GeoDataFrame(columns, geometry=points, crs=landscape.crs)
    units.index.name = "unit"
    return units


def _assign_and_draw(people: gpd.GeoDataFrame, settings: Settings, seed: int) -> gpd.GeoDataFrame:
    """Add treatment (constant in a site) and outcome."""
    first = ~people["site"].duplicated().to_numpy()
    site = np.cumsum(first) - 1  # people are sorted by site
    if settings.variant == "confounded":
        treated = stream(seed, "assignment").random(first.sum()) < people["propensity"].to_numpy()[first]
    else:
        treated = _balanced(people["district"].to_numpy()[first], stream(seed, "assignment"))
    treatment = treated[site].astype(np.int64)
    village = stream(seed, "village").normal(0, settings.site_sd, first.sum())[site]
    noise = stream(seed, "noise").standard_normal(len(people)) * np.array(settings.noise_sd)[treatment]
    mu0 = people["baseline"].to_numpy() + village
    out = people.assign(outcome=mu0 + treatment * people["tau"].to_numpy() + noise, treatment=treatment, mu0=mu0)
    front = ["outcome", "treatment", "site", "district", "propensity", *COVARIATES, "tau", "mu0", "baseline", "scene"]
    return out[[*front, "geometry"]]


def _balanced(strata: NDArray[Any], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Half of each stratum at random; the odd one by a coin."""
    treated = np.zeros(len(strata), bool)
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        treated[members[: (len(members) + int(rng.integers(2))) // 2]] = True
    return treated


def _places(landscape: Landscape, tau: NDArray[np.float64], chosen: NDArray[np.int64]) -> gpd.GeoDataFrame:
    import geopandas as gpd

    rows, cols = landscape.settlements[chosen].T
    columns = {"tau": tau[rows, cols], "scene": landscape.scene[rows, cols].astype(np.int64)}
    places = gpd.GeoDataFrame(columns, geometry=landscape.points(rows, cols).values, crs=landscape.crs)
    places.index.name = "place"
    return places


def _truth(
    units: gpd.GeoDataFrame, places: gpd.GeoDataFrame, landscape: Landscape, settings: Settings
) -> dict[str, Any]:
    tau, fixed, chance = (units[c].to_numpy() for c in ("tau", "baseline", "propensity"))
    treated = np.average(fixed + tau, weights=chance)
    control = np.average(fixed, weights=1 - chance)
    return {
        "ate": float(tau.mean()),
        "ate_places": float(places["tau"].mean()) if len(places) else float("nan"),
        "tau_sd": float(tau.std()),
        "naive_bias": float(treated - control - tau.mean()),
        "chip_px": settings.chip_px,
        "chip_m": settings.chip_px * landscape.resolution_m,
        "moderator": settings.variant,
    }
