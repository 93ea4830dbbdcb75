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
from causalsat.estimators.transtee.data import NetworkShape, Scaling, table_tensor
from causalsat.estimators.transtee.families import mean_outcome
from causalsat.estimators.transtee.network import TokenNetwork
from causalsat.estimators.transtee.treatments import TreatmentCoding

__all__ = ["Ensemble", "Predictor", "evaluate", "outcome_draws", "rebuild", "short_calls", "unit_features"]

IntArray = NDArray[np.int64]
Level = tuple[FloatArray, FloatArray | None]  # level and dosage of each unit

CHUNK = 4096  # units that are evaluated at a time
FEW_UNITS = 5000
N_DOSES = 9  # within the range, at which a curve's second derivative is taken
BEND_SEED = 1
LAG = 0.1  # of the range: the slope at its end may be that of a dose so much further inside
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
class Ensemble:
    """Posterior of the members' heads.

    Attributes
    ----------
    mean : ndarray of shape (M, F)
        Posterior mean of the coefficients.
    deviations : list of ndarray of shape (F, S_m)
        Draws of each member's coefficients less their mean.
    mixing : ndarray of shape (S, M)
        Weights of the members' distances from their mean in each draw.
    family : {"gaussian", "bernoulli", "negative_binomial"}
        Of the outcome.
    village : float
        Standard deviation of villages on the predictor of an outcome that is not normal.
    """

    mean: FloatArray
    deviations: list[FloatArray]
    mixing: FloatArray
    family: str = "gaussian"
    village: float = 0.0


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
    dose = coding.dose_of(*level)
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
    predictor: Predictor, ensemble: Ensemble, design: FloatArray, level: Level, baseline: Level | None = None
) -> FloatArray:
    """Draws (draw, n) of the outcome at a level, or of its difference from the outcome at a baseline.

    A draw is the members' mean, the difference from it that :func:`causalsat.estimators.transtee.head.draw_mixing`
    makes of their spread, and the deviation of one member's coefficients; beyond the doses of the fit also how far
    the curve may bend away from its straight line. Of an outcome that is not normal, that is its predictor.

    Parameters
    ----------
    predictor, ensemble : Predictor, Ensemble
        Of a fit.
    design : ndarray of shape (n, n_cells + p)
        Units.
    level, baseline : tuple
        Level and dosage (or None) of each unit.
    """
    out = np.empty((len(ensemble.mixing), len(design)))
    for start in range(0, len(design), CHUNK):
        rows = slice(start, start + CHUNK)
        levels = [_rows(level, rows)] if baseline is None else [_rows(level, rows), _rows(baseline, rows)]
        out[:, rows] = _chunk_draws(predictor, ensemble, design[rows], levels)
    return out


def _chunk_draws(predictor: Predictor, ensemble: Ensemble, design: FloatArray, levels: list[Level]) -> FloatArray:
    """Draws of the outcome at the first level, less that at the second where there is one."""
    scaling = predictor.scaling
    phi = [unit_features(predictor, design, level) for level in levels]
    bends = [_bend(predictor, ensemble, design, level) for level in levels]
    if ensemble.family == "gaussian":
        draws = _combine(ensemble, phi[0] if len(phi) == 1 else phi[0] - phi[1])
        draws = draws + (bends[0] if len(bends) == 1 else bends[0] - bends[1])
        return scaling.y_sd * draws + (scaling.y_mean if len(phi) == 1 else 0.0)
    means = [
        mean_outcome(scaling.y_mean + _combine(ensemble, features) + bend, ensemble.village, ensemble.family)
        for features, bend in zip(phi, bends, strict=True)
    ]
    return means[0] if len(means) == 1 else means[0] - means[1]


def _combine(ensemble: Ensemble, phi: FloatArray) -> FloatArray:
    """Draws (S, n) of the predictor from features (M, n, F)."""
    means = np.einsum("mnf,mf->mn", phi, ensemble.mean)
    centre = means.mean(axis=0)
    deviations = [(features @ draws).T for features, draws in zip(phi, ensemble.deviations, strict=True)]
    spread = np.einsum("sm,mn->sn", ensemble.mixing, means - centre)
    return np.asarray(centre + spread + np.concatenate(deviations))


def _bend(predictor: Predictor, ensemble: Ensemble, design: FloatArray, level: Level) -> FloatArray:
    r"""How far curves may bend away from their straight line beyond the doses of the fit, draws (S, n).

    :math:`z_s \kappa_i (h_i^2 / 2 + \delta h_i)` at a distance h from the nearest dose of the fit, with z standard
    normal, the same for all units of a draw: as if the curve went on with a second derivative of unknown sign and of
    the size that it has within the doses of the fit, and had begun to by :math:`\delta`, a tenth of their range,
    before its end. That size, :math:`\kappa`, is the root mean square of the unit's second derivative over those
    doses, with that of a bend which takes their whole range to undo its slope.
    """
    coding = predictor.coding
    dose = coding.dose_of(*level)
    out = np.zeros((len(ensemble.mixing), len(design)))
    if dose is None:
        return out
    over = dose - np.clip(dose, coding.least, coding.most)
    beyond = np.flatnonzero(over)
    if len(beyond):
        dosage = None if level[1] is None else dose[beyond]
        size = _curvature(predictor, ensemble, design[beyond], (level[0][beyond], dosage))
        z = bend_draws(len(out))[:, np.where(over[beyond] > 0, 1, 0)]
        far = np.abs(over[beyond])
        out[:, beyond] = z * size * (0.5 * far**2 + LAG * (coding.most - coding.least) * far)
    return out


def bend_draws(n_draws: int) -> FloatArray:
    """Standard normal numbers (S, 2) below and above the doses, in antithetic pairs: the same for every call."""
    half = np.random.default_rng(BEND_SEED).standard_normal(((n_draws + 1) // 2, 2))
    return np.concatenate([half, -half])[:n_draws]


def _curvature(predictor: Predictor, ensemble: Ensemble, design: FloatArray, level: Level) -> FloatArray:
    """Size (n,) of the second derivative of units' mean curves within the doses of the fit, on the predictor."""
    coding = predictor.coding
    doses = np.linspace(coding.least, coding.most, N_DOSES)
    step = doses[1] - doses[0]
    curves = []
    for dose in doses:
        at = np.full(len(design), dose)
        phi = _features_at(predictor, design, (at, None) if coding.kind == "dose" else (level[0], at))
        curves.append(np.einsum("mnf,mf->n", phi, ensemble.mean) / len(phi))
    bends = np.diff(np.array(curves), n=2, axis=0) / step**2
    slopes = np.diff(np.array(curves), axis=0) / step
    least = np.sqrt(np.mean(slopes**2, axis=0)) / (coding.most - coding.least)
    return np.asarray(np.sqrt(np.mean(bends**2, axis=0) + least**2))


def _rows(level: Level, rows: slice) -> Level:
    return level[0][rows], None if level[1] is None else level[1][rows]
