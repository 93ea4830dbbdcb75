"""Quality masks: which pixels a scene-classification or QA band rules out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ImageryError, ParameterError

__all__ = ["PRESETS", "MaskRule", "mask_rule"]


@dataclass(frozen=True)
class MaskRule:
    """Rules pixels out by the values or the bits of a quality band.

    Attributes
    ----------
    band : str or int or None
        Name, or number from 1, of the quality band; None: the only band of the file found by ``replace``.
    invalid : tuple of int
        Values that rule a pixel out.
    valid : tuple of int
        If given, every other value rules a pixel out.
    bits : tuple of int
        A pixel is ruled out where any of these bits (0 is the lowest) is set.
    replace : tuple of two str or None
        The quality band lies in another file, whose name is the scene's with the first text replaced by the
        second (in the whole path, if there is no such file): ``("_SR.tif", "_QA.tif")``.

    Examples
    --------
    >>> MaskRule("QA_PIXEL", bits=(3, 4)).flags(np.array([0, 8, 16, 64])).tolist()
    [False, True, True, False]
    """

    band: str | int | None = None
    invalid: tuple[int, ...] = ()
    valid: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    replace: tuple[str, str] | None = None

    def flags(self, quality: NDArray[Any], unknown: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """True where a quality band rules a pixel out, or says nothing of it.

        Parameters
        ----------
        quality : ndarray of any shape
            The quality band. NaN rules a pixel out.
        unknown : ndarray of bool of that shape, optional
            Where the band itself is masked or nodata, which rules a pixel out unless its value is among ``valid``.
        """
        bad = np.zeros(quality.shape, dtype=bool) if unknown is None else unknown.copy()
        if self.valid:
            bad = ~np.isin(quality, self.valid)
        if self.invalid:
            bad |= np.isin(quality, self.invalid)
        if quality.dtype.kind == "f":
            finite = np.isfinite(quality)
            bad |= ~finite
            quality = np.where(finite, quality, 0)
        if self.bits:
            size = 8 * quality.dtype.itemsize
            if quality.dtype.kind in "iu" and max(self.bits) >= size:
                raise ParameterError(
                    f"mask has bits={list(self.bits)} for a quality band of type {quality.dtype}",
                    expected=f"bits from 0 to {size - 1}",
                )
            bad |= (quality.astype(np.int64) & sum(1 << bit for bit in self.bits)) != 0
        return bad


#: Common rules by name: no data, saturated, dark, shadow, cloud, cirrus and snow classes of Sentinel-2's scene
#: classification; fill, dilated cloud, cirrus, cloud, cloud shadow and snow bits of Landsat Collection 2's QA_PIXEL.
PRESETS: dict[str, MaskRule] = {
    "sentinel2-scl": MaskRule("SCL", invalid=(0, 1, 3, 8, 9, 10, 11)),
    "landsat-qa": MaskRule("QA_PIXEL", bits=(0, 1, 2, 3, 4, 5)),
}


def _whole_numbers(values: Any, key: str) -> tuple[int, ...]:
    try:
        given = [float(v) for v in np.atleast_1d(values)]
    except (TypeError, ValueError) as error:
        raise ParameterError(f"mask has {key}={values!r}", expected="whole numbers") from error
    if not all(v.is_integer() for v in given):
        raise ParameterError(f"mask has {key}={values!r}", expected="whole numbers, as quality bands hold")
    return tuple(int(v) for v in given)


def mask_rule(rule: Any) -> MaskRule | None:
    """A checked :class:`MaskRule` from a preset's name, a mapping or a rule.

    Raises
    ------
    ImageryError
        An unknown preset or key, or a rule that rules nothing out.
    ParameterError
        Values that are no whole numbers, or bits that no band has.

    Examples
    --------
    >>> mask_rule({"band": "SCL", "invalid": [0, 9]})
    MaskRule(band='SCL', invalid=(0, 9), valid=(), bits=(), replace=None)
    """
    if rule is None or isinstance(rule, MaskRule):
        return rule
    if isinstance(rule, str):
        if rule not in PRESETS:
            raise ImageryError(
                f"mask={rule!r} is not a known rule", expected=f"one of {sorted(PRESETS)} or a mapping"
            )
        return PRESETS[rule]
    example = 'for example mask={"band": "SCL", "invalid": [0, 1, 3, 8, 9, 10, 11]}'
    if not hasattr(rule, "keys"):
        raise ImageryError(f"mask is a {type(rule).__name__}", expected="a preset's name or a mapping", todo=example)
    unknown = set(rule) - {"band", "invalid", "valid", "bits", "replace"}
    if unknown:
        raise ImageryError(
            f"mask has unknown keys {sorted(unknown)}",
            expected="band, and one of invalid, valid or bits, perhaps replace",
            todo=example,
        )
    numbers = {key: _whole_numbers(rule[key], key) for key in ("invalid", "valid", "bits") if key in rule}
    outside = [bit for bit in numbers.get("bits", ()) if not 0 <= bit < 63]
    if outside:
        raise ParameterError(
            f"mask has bits={outside}", expected="bits from 0, the lowest, to the highest of the band"
        )
    if not any(numbers.values()):
        raise ImageryError("mask rules nothing out", expected="invalid, valid or bits", todo=example)
    replace = rule.get("replace")
    if replace is not None and (isinstance(replace, str) or len(replace) != 2):
        raise ImageryError(f"mask replace={replace!r}", expected='two texts, such as ["_SR.tif", "_QA.tif"]')
    if rule.get("band") is None and replace is None:
        raise ImageryError("mask names no band", todo=example)
    return MaskRule(
        rule.get("band"), **numbers, replace=None if replace is None else (str(replace[0]), str(replace[1]))
    )
