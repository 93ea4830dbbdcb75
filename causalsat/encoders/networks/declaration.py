"""What a user's module takes: its bands, scale, wavelengths, place and date, as declared and checked against pixels.

A module may carry the declaration itself: a module with an attribute ``takes`` is read for the other names, too.
Arguments of the encoder come before attributes of the module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ImageryError, ParameterError

__all__ = [
    "IMAGES",
    "PLACE",
    "QUANTITIES",
    "Declaration",
    "check_standardisation",
    "check_wavelengths",
    "declare",
    "wavelengths_in",
]

FloatArray = NDArray[np.float64]

IMAGES = ("pixels", "frames")
PLACE = ("lonlat", "latlon", "latlon_waves")
DATES = ("dates", "time_waves")
QUANTITIES = (*IMAGES, "wavelengths", "gsd", *PLACE, *DATES)
POOLINGS = (None, "cls", "mean", "tokens")
UNITS = {"nm": 1e-3, "um": 1.0}  # in micrometres
_SPELLINGS = {
    "µm": "um",
    "μm": "um",
    "micrometres": "um",
    "micrometers": "um",
    "nanometres": "nm",
    "nanometers": "nm",
}
_OPTICAL = (0.2, 20.0)  # micrometres: what imagers see, up to the thermal infrared
KNOWN_BANDS = {
    "coastal": 0.443, "aerosol": 0.443, "blue": 0.48, "b02": 0.48, "green": 0.56, "b03": 0.56, "red": 0.66,
    "b04": 0.66, "rededge": 0.74, "nir": 0.84, "b8a": 0.865, "swir1": 1.61, "swir16": 1.61,
    "swir2": 2.2, "swir22": 2.2,
}  # fmt: skip
_NEAR = 0.15  # share by which a wavelength may be off that of its band's name
FAR, WIDE, NARROW = 20.0, 20.0, 1 / 200  # standard deviations away, and ratios of standard deviations: other units
_CLOSE = 5.0  # how far apart units may be that are proposed
_SCALES = (1e-4, 1e-3, 1 / 255, 1e-2, 1e2, 255.0, 1e3, 1e4)


@dataclass(frozen=True)
class Declaration:
    """What a module takes, and how.

    Attributes
    ----------
    takes : tuple of str or dict of str to str
        Quantities in the order of the module's arguments, or by their names in the one dictionary that it takes.
    bands : tuple of (str, str), or None
        Names of the bands in the module and in the imagery; None takes them as they come.
    scale : float
        What pixels are multiplied by.
    mean, sd : tuple of float, or None
        The module's own standardisation, after ``scale``.
    wavelengths : tuple of float, or None
        As the module wants them.
    units : {"nm", "um"} or None
        Of ``wavelengths``.
    time : tuple of str, or None
        Days of the images where the chips have none.
    gsd : float or None
        Metres of a pixel; None takes the imagery's.
    patch : int or None
        Pixels along the side of the patch of a token.
    pooling : {"cls", "mean", "tokens"} or None
        What is made of tokens.
    image_px : int or None
        Side that chips are resized to.
    """

    takes: tuple[str, ...] | dict[str, str]
    bands: tuple[tuple[str, str], ...] | None
    scale: float
    mean: tuple[float, ...] | None
    sd: tuple[float, ...] | None
    wavelengths: tuple[float, ...] | None
    units: str | None
    time: tuple[str, ...] | None
    gsd: float | None
    patch: int | None
    pooling: str | None
    image_px: int | None

    @property
    def quantities(self) -> tuple[str, ...]:
        """What the module takes, in order."""
        return tuple(self.takes.values()) if isinstance(self.takes, dict) else self.takes

    @property
    def reads_pixels(self) -> bool:
        """Whether the module looks at images at all."""
        return any(name in IMAGES for name in self.quantities)

    @property
    def reads_places(self) -> bool:
        """Whether the module takes longitude and latitude."""
        return any(name in PLACE for name in self.quantities)

    @property
    def reads_dates(self) -> bool:
        """Whether the module takes dates."""
        return any(name in DATES for name in self.quantities)

    @property
    def by_unit(self) -> bool:
        """Whether one call has all dates of a unit, and not an image of one date."""
        return "pixels" not in self.quantities


def declare(module: Any, given: Mapping[str, Any]) -> Declaration:
    """The declaration from arguments and, for a module with an attribute ``takes``, its own.

    Parameters
    ----------
    module : torch.nn.Module
    given : mapping
        Arguments of the encoder by name.

    Raises
    ------
    ParameterError
        If a quantity, a unit or a value is none that can be declared.

    Examples
    --------
    >>> given = dict.fromkeys(("takes", "bands", "mean", "sd", "wavelength_units", "patch", "pooling", "image_px"))
    >>> given |= {"scale": 1.0, "wavelengths": [0.66], "time": None, "lonlat": False, "gsd": None}
    >>> declare(object(), given).takes
    ('pixels', 'wavelengths')
    """
    own = {}
    if isinstance(getattr(module, "takes", None), list | tuple | Mapping):
        own = {name: getattr(module, name) for name in given if hasattr(module, name)}
    default = {"scale": 1.0, "lonlat": False}

    def get(name: str) -> Any:
        plain = default.get(name)
        value = given[name]
        unset = value is plain or (name in default and value == plain)
        return own.get(name, plain) if unset else value

    takes = _takes(get("takes"), get)
    scale, gsd, patch, pooling = float(get("scale")), get("gsd"), get("patch"), get("pooling")
    bad = {
        "scale": scale > 0,
        "gsd": gsd in (None, True, False) or float(gsd) > 0,
        "patch": patch is None or (int(patch) == patch and patch >= 1),
    }
    for name, good in bad.items():
        if not good:
            raise ParameterError(f"{name}={get(name)!r}", expected="a number above 0")
    if pooling not in POOLINGS:
        raise ParameterError(f"pooling={pooling!r}", expected="'cls', 'mean', 'tokens' or None")
    numbers = {name: _numbers(get(name), name) for name in ("mean", "sd", "wavelengths")}
    if numbers["sd"] is not None and min(numbers["sd"]) <= 0:
        raise ParameterError(f"sd={list(numbers['sd'])}", expected="numbers above 0")
    units, wanted = _unit(given["wavelength_units"]), _unit(own.get("wavelength_units"))
    waves, unit = wavelengths_in(numbers["wavelengths"], units, wanted, given["wavelengths"] is not None)
    time = get("time")
    return Declaration(
        takes=takes,
        bands=_bands(get("bands")),
        scale=scale,
        mean=numbers["mean"],
        sd=numbers["sd"],
        wavelengths=waves,
        units=unit,
        time=None if time in (None, True, False) else _days(time),
        gsd=None if gsd in (None, True, False) else float(gsd),
        patch=None if patch is None else int(patch),
        pooling=pooling,
        image_px=None if get("image_px") is None else int(get("image_px")),
    )


def _takes(takes: Any, get: Any) -> tuple[str, ...] | dict[str, str]:
    if takes is None:
        extra = {"wavelengths": get("wavelengths") is not None, "dates": bool(get("time")), "lonlat": get("lonlat")}
        extra["gsd"] = get("gsd") not in (None, False)
        return ("pixels", *(name for name, wanted in extra.items() if wanted))
    takes = (takes,) if isinstance(takes, str) else takes
    values = list(takes.values()) if isinstance(takes, Mapping) else list(takes)
    unknown = [name for name in values if name not in QUANTITIES]
    if unknown or not values or ("pixels" in values and "frames" in values):
        raise ParameterError(
            f"takes={takes!r}",
            expected=f"names among {', '.join(QUANTITIES)}, with pixels or frames and not both",
            todo="list them in the order of the module's arguments, or map the keys of its dictionary to them",
        )
    return {str(k): str(v) for k, v in takes.items()} if isinstance(takes, Mapping) else tuple(values)


def _bands(bands: Any) -> tuple[tuple[str, str], ...] | None:
    if bands is None:
        return None
    if isinstance(bands, str):
        raise ParameterError(f"bands={bands!r}", expected="a list of names", todo=f"bands=[{bands!r}]")
    pairs = bands.items() if isinstance(bands, Mapping) else [(name, name) for name in bands]
    return tuple((str(a), str(b)) for a, b in pairs)


def _numbers(values: Any, name: str) -> tuple[float, ...] | None:
    if values is None:
        return None
    found = tuple(float(v) for v in np.atleast_1d(np.asarray(values, dtype=float)).ravel())
    if not found or not np.isfinite(found).all():
        raise ParameterError(f"{name}={values!r}", expected="finite numbers, one a band")
    return found


def _days(time: Any) -> tuple[str, ...]:
    try:
        days = np.atleast_1d(np.asarray(time, dtype="datetime64[s]"))
    except (ValueError, TypeError):
        raise ParameterError(
            f"time={time!r}", expected="a date such as '2019-06-01', or one for each image"
        ) from None
    if np.isnat(days).any():
        raise ParameterError(f"time={time!r}", expected="dates without gaps")
    return tuple(str(day) for day in days)


def _unit(units: Any) -> str | None:
    if units is None:
        return None
    found = _SPELLINGS.get(str(units), str(units))
    if found not in UNITS:
        raise ParameterError(f"wavelength_units={units!r}", expected="'nm' or 'um' (micrometres)")
    return found


def wavelengths_in(
    values: Sequence[float] | None, units: str | None, wanted: str | None, by_argument: bool = True
) -> tuple[tuple[float, ...] | None, str | None]:
    """Wavelengths in the unit that the module declares, and the unit; where none is declared, as they came.

    Parameters
    ----------
    values : sequence of float or None
    units : str or None
        Unit of the values, where the user says so.
    wanted : str or None
        Unit that the module declares.
    by_argument : bool
        Whether the values are the user's; the module's own are in the module's unit.

    Examples
    --------
    >>> wavelengths_in([665.0], "nm", "um")
    ((0.665,), 'um')
    """
    if values is None:
        return None, None
    given = units or (wanted if not by_argument else None)
    fitting = [unit for unit, to_um in UNITS.items() if all(_OPTICAL[0] <= to_um * v <= _OPTICAL[1] for v in values)]
    shown = ", ".join(f"{v:g}" for v in values)
    if given is None and wanted is not None and wanted not in fitting:
        raise ParameterError(
            f"wavelengths {shown} for a module that takes {'nanometres' if wanted == 'nm' else 'micrometres'}",
            expected=f"numbers between {_OPTICAL[0] / UNITS[wanted]:g} and {_OPTICAL[1] / UNITS[wanted]:g}",
            todo=f"say their unit, wavelength_units={fitting[0]!r}: they are then converted" if fitting else "",
        )
    given = given or wanted
    if (given is None and not fitting) or (given is not None and given not in fitting):
        raise ParameterError(
            f"wavelengths {shown}{f' in {given}' if given else ''}",
            expected="one unit for all, 0.2 to 20 micrometres or 200 to 20,000 nanometres",
            todo="check them, and say their unit: wavelength_units='nm' or 'um'",
        )
    unit = given or fitting[0]
    factor = UNITS[unit] / UNITS[wanted or unit]
    return tuple(float(f"{factor * v:.12g}") for v in values), wanted or unit


def check_wavelengths(declared: Declaration, bands: Sequence[str]) -> None:
    """Refuse wavelengths that cannot be those of the imagery's bands, by their names.

    Raises
    ------
    ImageryError
        If a band with a name that says its colour has another wavelength.
    """
    if declared.wavelengths is None or declared.units is None:
        return
    for band, value in zip(bands, declared.wavelengths, strict=True):
        known = KNOWN_BANDS.get(band.lower().replace("_", "").replace(" ", "").replace("-", ""))
        found = value * UNITS[declared.units]
        if known is not None and abs(found / known - 1) > _NEAR:
            raise ImageryError(
                f"wavelength {value:g} {declared.units} for band {band!r}",
                expected=f"about {known / UNITS[declared.units]:g} {declared.units}",
                todo="list the wavelengths in the order of bands=, and check wavelength_units=",
            )


def check_standardisation(declared: Declaration, bands: Sequence[str], mean: FloatArray, sd: FloatArray) -> None:
    """Refuse a declared mean and standard deviation that cannot be of the pixels' units.

    Parameters
    ----------
    declared : Declaration
    bands : sequence of str
        Names of the module's bands.
    mean, sd : ndarray of shape (band,)
        Of the training pixels, before ``scale``.

    Raises
    ------
    ParameterError
        If in every band the pixels, times ``scale``, are many standard deviations away or spread by other powers.
    """
    if declared.mean is None and declared.sd is None:
        return
    scale = declared.scale
    own_mean, own_sd = (
        np.asarray(v, dtype=float) for v in (declared.mean or scale * mean, declared.sd or scale * sd)
    )
    away = np.abs(scale * mean - own_mean) / own_sd
    ratio = scale * sd / own_sd
    if not ((away > FAR) | (ratio > WIDE) | ((ratio < NARROW) & (sd > 0))).all():
        return
    better = min(_SCALES, key=lambda f: _apart(scale * f * mean, scale * f * sd, own_mean, own_sd))
    fits = _apart(scale * better * mean, scale * better * sd, own_mean, own_sd) < _CLOSE
    raise ParameterError(
        f"pixels of band {bands[0]!r} with mean {scale * mean[0]:.4g} and standard deviation {scale * sd[0]:.4g} "
        f"after scale={scale:g}, and a module that was trained on mean {own_mean[0]:.4g} and standard deviation "
        f"{own_sd[0]:.4g}; all bands are so far apart",
        expected="pixels in the units of the module's mean and sd",
        todo=f"pass scale={scale * better:.6g}" if fits else "pass scale=, or mean and sd in the pixels' units",
    )


def _apart(mean: FloatArray, sd: FloatArray, own_mean: FloatArray, own_sd: FloatArray) -> float:
    """Standard deviations between the means plus the log of the ratio of the spreads, of the average band."""
    ratio = np.abs(np.log(np.maximum(sd, 1e-300) / own_sd))
    return float((np.abs(mean - own_mean) / own_sd + ratio).mean())
