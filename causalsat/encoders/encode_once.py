"""Features of places encoded once for all fits within a block, by encoders that see no labels.

Cross-fitting fits an image encoder to the training places of each fold, so that the features of every place are
computed again for each of them, though filters drawn from the images of 80 % of the places are as good as those drawn
from all. Within ``with encode_once(X):`` an encoder is fitted to the images of all places of X when it is first
fitted, and encodes each of them once. What :class:`~causalsat.ImageEncoder` learns from features (means, scales,
components) it still learns from the places of its own call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.displacement import spread_rows
from causalsat.core.fingerprint import fingerprint
from causalsat.encoders.places import Encoded, Places, check_units, distinct_places, encode_places, looks_beyond
from causalsat.exceptions import ParameterError

__all__ = ["EncodedOnce", "encode_once", "encode_others", "is_known", "shared_fit"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EncodedOnce:
    """Encoders fitted to all places of a block, and their features.

    Attributes
    ----------
    encoders : list
        Fitted encoder of each source.
    encoded : list of Encoded
        Features of all places, by source.
    windows : list of dict
        Row of each window (row, column) in those, by source.
    """

    encoders: list[Any]
    encoded: list[Encoded]
    windows: list[dict[tuple[int, int], int]]

    def rows(self, source: int, windows: IntArray) -> IntArray:
        """Rows of windows (n, 2) of a source; -1 where a window is none of the block's."""
        known = self.windows[source]
        return np.array([known.get((int(r), int(c)), -1) for r, c in windows], dtype=np.int64)

    def rows_of(self, places: Places) -> list[IntArray] | None:
        """Rows of places, by source; None where one of them is not known."""
        rows = [self.rows(source, windows) for source, windows in enumerate(places.windows)]
        return None if any((own < 0).any() for own in rows) else rows


@dataclass(eq=False)
class _Block:
    """What is known within a block: all units, and what was fitted to their places."""

    X: Any
    fits: dict[str, EncodedOnce] = field(default_factory=dict)

    def places(self, sources: Sequence[tuple[str, Any, int]]) -> Places:
        """Distinct places of all units."""
        spread = spread_rows(self.X)
        geometry = check_units(self.X if spread is None else spread[0])
        return distinct_places(geometry, [(image, size) for _, image, size in sources])


_block: ContextVar[_Block | None] = ContextVar("encode_once", default=None)


@contextmanager
def encode_once(X: Any) -> Iterator[None]:
    """Let encoders without labels be fitted once, to all places of X, and encode each of them once.

    Parameters
    ----------
    X : GeoDataFrame or GeoSeries
        All units of which some are fitted or transformed within the block.
    """
    if _block.get() is not None:  # an analysis within one: of some of its units
        yield
        return
    token = _block.set(_Block(X))
    try:
        yield
    finally:
        _block.reset(token)


def shared_fit(
    sources: Sequence[tuple[str, Any, int]],
    encoders: Sequence[Any],
    places: Places,
    min_valid: float,
    fit: Callable[[Places], list[Encoded]],
) -> tuple[list[Any], list[Encoded]] | None:
    """Encoders that were fitted to all places of the block, and their features of some of them.

    None outside a block, for places that are not the block's, and for encoders that look beyond their chips or that
    cannot be told apart.

    Parameters
    ----------
    sources : sequence of (name, imagery, size in pixels)
    encoders : sequence
        One a source, not fitted: fitted in place where these are the first.
    places : Places
        Where features are wanted.
    min_valid : float
        Share of valid pixels of the chips that encoders are fitted to.
    fit : callable
        Fits the encoders to places and gives their features, by source.
    """
    block = _block.get()
    if block is None or any(map(looks_beyond, encoders)):
        return None
    try:
        own = [(id(image), size, encoder) for (_, image, size), encoder in zip(sources, encoders, strict=True)]
        key = fingerprint([own, min_valid])
    except ParameterError:  # an encoder that cannot be told apart from others
        return None
    if key not in block.fits:
        whole = block.places(sources)
        windows = [{(int(r), int(c)): i for i, (r, c) in enumerate(corners)} for corners in whole.windows]
        known = EncodedOnce(list(encoders), [], windows)
        if known.rows_of(places) is None:
            return None
        known.encoded.extend(fit(whole))
        block.fits[key] = known
    known = block.fits[key]
    rows = known.rows_of(places)
    if rows is None or any(map(looks_beyond, known.encoders)):
        return None
    return known.encoders, [_take(part, chosen) for part, chosen in zip(known.encoded, rows, strict=True)]


def encode_others(
    imagery: Any, encoder: Any, geometry: Any, windows: IntArray, size_px: int, *, bar: Any, **options: Any
) -> Encoded:
    """As :func:`causalsat.encoders.places.encode_places`, but for places whose features the block knows.

    Parameters are those of that function.
    """
    rows, known = _known(encoder, windows)
    seen, others = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    if known is None or not len(seen):
        return encode_places(imagery, encoder, geometry, windows, size_px, bar=bar, **options)
    bar.update(len(seen))
    if not len(others):
        return _take(known, rows)
    rest = encode_places(imagery, encoder, geometry.iloc[others], windows[others], size_px, bar=bar, **options)
    features, valid = np.empty((len(rows), rest.features.shape[1])), np.empty(len(rows))
    features[seen], features[others] = known.features[rows[seen]], rest.features
    valid[seen], valid[others] = known.valid[rows[seen]], rest.valid
    return Encoded(features, valid)


def is_known(encoder: Any) -> bool:
    """Whether a fitted encoder is one of the block's."""
    block = _block.get()
    fits = [] if block is None else block.fits.values()
    return any(own is encoder for known in fits for own in known.encoders)


def _known(encoder: Any, windows: IntArray) -> tuple[IntArray, Encoded | None]:
    """Features that a fitted encoder of the block has made, and the row in them of each window; -1 of others."""
    block = _block.get()
    for known in block.fits.values() if block is not None else ():
        for source, own in enumerate(known.encoders):
            if own is encoder and not looks_beyond(own):
                return known.rows(source, windows), known.encoded[source]
    return np.full(len(windows), -1), None


def _take(encoded: Encoded, rows: IntArray) -> Encoded:
    return Encoded(encoded.features[rows], encoded.valid[rows])
