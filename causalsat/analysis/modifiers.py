"""Which features beside the images' the effects of a fitted model follow, and the words for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from causalsat.base import final_estimator
from causalsat.encoders.places import PLACE


@dataclass(frozen=True)
class BesideImages:
    """Names of the coordinates and of the covariates among the modifiers of the effect.

    Attributes
    ----------
    coordinates, covariates : tuple of str
        Empty where the effect follows image features only.
    """

    coordinates: tuple[str, ...]
    covariates: tuple[str, ...]

    def joined(self, images: str, word: str) -> str:
        """The images' words and those for what stands beside them.

        Examples
        --------
        >>> BesideImages(("east", "north"), ()).joined("what the images show", "or")
        "what the images show or the place's coordinates"
        """
        parts = [images, *(["the place's coordinates"] if self.coordinates else [])]
        parts += ["the covariates"] if self.covariates else []
        return f" {word} ".join(parts)


def beside_images(model: Any, covariates: Sequence[str]) -> BesideImages:
    """Modifiers of a fitted model that are no image features; all features where it does not name its modifiers."""
    transformers, estimator = final_estimator(model)
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    for attribute in ("modifiers_", "modifier_positions_"):
        if hasattr(estimator, attribute):
            names = [names[int(j)] for j in getattr(estimator, attribute) if int(j) < len(names)]
            break
    known = set(covariates)
    placed = transformers is not None
    return BesideImages(
        tuple(name for name in PLACE if placed and name in names and name not in known),
        tuple(name for name in names if name in known),
    )
