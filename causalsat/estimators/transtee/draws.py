"""Features of units under a treatment by a fitted network, and draws of their outcomes from the members' heads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.encoders.device import resolve_device
from causalsat.estimators.transtee.data import Scaling, table_tensor
from causalsat.estimators.transtee.network import TokenNetwork
from causalsat.estimators.transtee.shapes import NetworkShape
from causalsat.estimators.transtee.treatments import TreatmentCoding

__all__ = ["Heads", "Predictor", "evaluate", "outcome_draws", "rebuild", "short_calls", "unit_features"]

IntArray = NDArray[np.int64]
Level = tuple[FloatArray, FloatArray | None]  # level and dosage of each unit

CHUNK = 4096  # units that are evaluated at a time
FEW_UNITS = 5000
EDGE = 0.01  # of the doses' range: inside of its ends, over which a curve's slope beyond them is taken


@dataclass(frozen=True)
class Predictor:
    """What turns units into features: the network, and how its inputs are coded.

    Attributes
    ----------
    network : TokenNetwork
        In double precision.
    coding, scaling : TreatmentCoding, Scaling
        Of the fit.
    n_cells : int
        Leading columns of a design that are the tokens of its image.
    table : ndarray of shape (K, ...) or None
        Structured treatments.
    """

    network: TokenNetwork
    coding: TreatmentCoding
    scaling: Scaling
    n_cells: int = 0
    table: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Heads:
    """Posterior of the members' coefficients: mean (M, F), deviations (F, S_m) of each, mixing weights (S, M)."""

    mean: FloatArray
    deviations: list[FloatArray]
    mixing: FloatArray


@contextmanager
def short_calls(n_units: int) -> Iterator[None]:
    """One thread of torch where there are few units: its calls are so short then that threads wait for each other."""
    before = torch.get_num_threads()
    try:
        if n_units <= FEW_UNITS:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def rebuild(shape: NetworkShape, state: dict[str, Any], treatment_module: Any, device: str) -> TokenNetwork:
    """The network in double precision from its stored weights."""
    with torch.random.fork_rng(devices=[]):
        network = TokenNetwork(shape, treatment_module)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    return network.double().eval().to(resolve_device(device))


def evaluate(
    network: TokenNetwork,
    X: FloatArray,
    basis: FloatArray,
    *,
    cells: FloatArray | None = None,
    unit_image: IntArray | None = None,
    images: Any = None,
    table: Any = None,
    method: str = "forward",
) -> FloatArray:
    """Features (M, n, F) of units, or with ``method="attention"`` the attention to their tokens (M, n, tokens)."""
    device = next(network.parameters()).device
    if table is not None:
        network.set_treatments(table.double().to(device))
    if images is not None and unit_image is not None:
        with torch.inference_mode():
            network.images = images
            tokens = torch.cat([network.encode_images(part.to(device)).cpu() for part in images.split(256)], dim=1)
    results = []
    call = getattr(network, method)
    for start in range(0, len(X), CHUNK):
        rows = slice(start, start + CHUNK)
        image_tokens = None
        if unit_image is not None:
            image_tokens = tokens[:, torch.from_numpy(unit_image[rows])]
        elif cells is not None:
            m, d = network.shape.n_members, network.shape.width
            shape = (-1, m, cells.shape[1] // (m * d), d)
            image_tokens = torch.from_numpy(cells[rows].reshape(shape)).transpose(0, 1)
        with torch.inference_mode():
            columns, features = (torch.from_numpy(part[rows]).to(device) for part in (X, basis))
            out = call(columns, features, cells=None if image_tokens is None else image_tokens.to(device))
        results.append(out.cpu().numpy())
    return np.concatenate(results, axis=1)


def unit_features(predictor: Predictor, design: FloatArray, level: Level, method: str = "forward") -> FloatArray:
    """Features (M, n, F) of units under a treatment, or the attention (M, n, tokens) to their tokens.

    No dose of the fit says how a curve bends beyond the smallest and the largest of them, so features go on there as
    straight lines, as those of a natural spline do, with the slope at the end of the range.

    Parameters
    ----------
    predictor : Predictor
        Of a fit.
    design : ndarray of shape (n, n_cells + p)
        Tokens of the units' images, where there are any, and covariates.
    level : tuple
        Level and dosage (or None) of each unit.
    method : {"forward", "attention"}
        What of the network is called.
    """
    coding = predictor.coding
    dose = {"dose": level[0], "dosage": level[1]}.get(coding.kind)
    if dose is None or method != "forward":
        return _features_at(predictor, design, level, method)

    def at(rows: Any, doses: FloatArray) -> FloatArray:
        return _features_at(
            predictor, design[rows], (doses, None) if coding.kind == "dose" else (level[0][rows], doses)
        )

    inside = np.clip(dose, coding.least, coding.most)
    phi, beyond = at(slice(None), inside), np.flatnonzero(dose != inside)
    if len(beyond):
        over, step = (dose - inside)[beyond], EDGE * (coding.most - coding.least)
        slope = (phi[:, beyond] - at(beyond, inside[beyond] - np.sign(over) * step)) / step
        phi[:, beyond] += np.abs(over)[:, None] * slope
    return phi


def _features_at(predictor: Predictor, design: FloatArray, level: Level, method: str = "forward") -> FloatArray:
    k = predictor.n_cells
    with short_calls(len(design)):
        return evaluate(
            predictor.network,
            np.ascontiguousarray(predictor.scaling.features(design[:, k:])),
            predictor.coding.basis(*level),
            cells=np.ascontiguousarray(design[:, :k]) if k else None,
            table=table_tensor(predictor.table),
            method=method,
        )


def outcome_draws(
    predictor: Predictor, heads: Heads, design: FloatArray, level: Level, baseline: Level | None = None
) -> FloatArray:
    """Draws (draw, n) of the outcome at a level, or of its difference from the outcome at a baseline.

    A draw is the members' mean, the difference from it that :func:`causalsat.estimators.transtee.head.draw_mixing`
    makes of their spread, and the deviation of one member's coefficients.

    Parameters
    ----------
    predictor, heads : Predictor, Heads
        Of a fit.
    design : ndarray of shape (n, n_cells + p)
        Units.
    level, baseline : tuple
        Level and dosage (or None) of each unit.
    """
    scaling = predictor.scaling
    out = np.empty((len(heads.mixing), len(design)))
    for start in range(0, len(design), CHUNK):
        rows = slice(start, start + CHUNK)
        phi = unit_features(predictor, design[rows], _rows(level, rows))
        if baseline is not None:
            phi = phi - unit_features(predictor, design[rows], _rows(baseline, rows))
        means = np.einsum("mnf,mf->mn", phi, heads.mean)
        centre = means.mean(axis=0)
        deviations = [(features @ draws).T for features, draws in zip(phi, heads.deviations, strict=True)]
        spread = np.einsum("sm,mn->sn", heads.mixing, means - centre)
        out[:, rows] = scaling.y_sd * (centre + spread + np.concatenate(deviations))
    return out if baseline is not None else out + scaling.y_mean


def _rows(level: Level, rows: slice) -> Level:
    return level[0][rows], None if level[1] is None else level[1][rows]
