"""Fitting and predicting with TransTEE's network: standardise, train, condition the heads, evaluate features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.encoders.device import resolve_device
from causalsat.encoders.networks.training import TrainSettings
from causalsat.estimators.transtee import head as transtee_head
from causalsat.estimators.transtee.network import TokenNetwork
from causalsat.estimators.transtee.shapes import NetworkShape
from causalsat.estimators.transtee.training import (
    Adversary,
    Speed,
    TrainedMembers,
    TrainingData,
    deal_folds,
    train_members,
)

__all__ = [
    "Fitted",
    "N_FOLDS",
    "Scaling",
    "Units",
    "canonical_order",
    "evaluate",
    "fit_members",
    "learn_scaling",
    "rebuild",
]

IntArray = NDArray[np.int64]
CHUNK = 4096  # units whose features are computed at a time
N_FOLDS = 5  # member m trains without fold m, modulo 5


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations of covariates and outcome."""

    x_mean: FloatArray
    x_sd: FloatArray
    y_mean: float
    y_sd: float

    def features(self, X: FloatArray) -> FloatArray:
        """Standardised covariates."""
        return (X - self.x_mean) / self.x_sd


@dataclass(frozen=True)
class Units:
    """Checked units of a fit, in the order of their content.

    Attributes
    ----------
    X, basis : ndarrays of shape (n, p) and (n, K)
        Standardised covariates, treatment features.
    target : ndarray of shape (n,)
        What an adversary is to predict.
    y, weight : ndarrays of shape (n,)
        Standardised outcome, weight.
    groups : ndarray of int of shape (n,) or None
        Villages.
    unit_image : ndarray of int of shape (n,) or None
        Image of each unit.
    images, treatments : torch.Tensor or None
        Distinct images; the table of treatments.
    """

    X: FloatArray
    basis: FloatArray
    target: FloatArray
    y: FloatArray
    weight: FloatArray
    groups: IntArray | None
    unit_image: IntArray | None = None
    images: Any = None
    treatments: Any = None


@dataclass(frozen=True)
class Fitted:
    """A fitted ensemble.

    Attributes
    ----------
    members : TrainedMembers
        The networks.
    mean : ndarray of shape (M, F)
        Posterior mean of each member's coefficients.
    deviations : list of ndarray of shape (F, S_m)
        Draws of each member's coefficients less their mean.
    mixing : ndarray of shape (S, M)
        Weights of the members' distances from their mean in each draw.
    noise, village : float
        Standard deviations of held-out noise and of villages, in standard deviations of the outcome.
    residual : ndarray of shape (n,)
        Held-out residuals in the same unit.
    """

    members: TrainedMembers
    mean: FloatArray
    deviations: list[FloatArray]
    mixing: FloatArray
    noise: float
    village: float
    residual: FloatArray


def learn_scaling(X: FloatArray, y: FloatArray, weight: FloatArray) -> Scaling:
    """Means and standard deviations; 1 where a column or the outcome is constant."""
    y_mean = float(np.average(y, weights=weight))
    y_sd = float(np.sqrt(np.average((y - y_mean) ** 2, weights=weight)))
    mean, sd = X.mean(axis=0), X.std(axis=0)
    tiny = sd <= 1e-9 * np.maximum(np.abs(mean), 1.0)
    flat = y_sd <= 1e-9 * max(abs(y_mean), 1e-300)
    return Scaling(mean, np.where(tiny, 1.0, sd), y_mean, 1.0 if flat else y_sd)


def canonical_order(X: FloatArray, y: FloatArray, *more: Any) -> IntArray:
    """Order of the units by their content, so that a fit does not depend on the order of the rows."""
    return np.lexsort([*X.T, *(key for key in more if key is not None), y]).astype(np.int64)


def fit_members(
    shape: NetworkShape,
    units: Units,
    settings: TrainSettings,
    n_draws: int,
    adversary: Adversary | None = None,
    treatment_module: Any = None,
    speed: Speed | None = None,
) -> Fitted:
    """Train the ensemble and condition its heads.

    The units are shuffled by the seed first; villages are coded by their place in the canonical order.
    """
    n = len(units.y)
    rng = np.random.default_rng(settings.seed)
    fold = deal_folds(n, N_FOLDS, units.groups, rng)
    inputs: dict[str, Any] = {
        "columns": torch.from_numpy(units.X.astype(np.float32)),
        "basis": torch.from_numpy(units.basis.astype(np.float32)),
        "treatment": torch.from_numpy(units.target.astype(np.float32)),
    }
    if units.unit_image is not None:
        inputs["unit_image"] = torch.from_numpy(units.unit_image)
    y, weight = (torch.from_numpy(v.astype(np.float32)) for v in (units.y, units.weight))
    data = TrainingData(inputs, y, weight, fold, units.images, units.treatments)
    members = train_members(shape, data, settings, adversary, treatment_module, speed)
    network = rebuild(shape, members.state, treatment_module, settings.device)
    images = None if units.images is None else units.images.double()
    phi = evaluate(network, units.X, units.basis, unit_image=units.unit_image, images=images, table=units.treatments)
    used = (fold[:, None] != np.arange(shape.n_members) % N_FOLDS).T
    heads, noise, village, residual = transtee_head.fit_heads(
        phi, units.y, units.weight, used, units.groups, members.scale, members.noise
    )
    mean = np.stack([head.mean for head in heads])
    deviations = transtee_head.draw_deviations(heads, n_draws, rng)
    mixing = transtee_head.draw_mixing(shape.n_members, n_draws, rng)
    return Fitted(members, mean, deviations, mixing, noise, village, residual)


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
            parts = [network.encode_images(part.to(device)).cpu() for part in images.split(256)]
        known = torch.cat(parts, dim=1)
    found = []
    call = getattr(network, method)
    for start in range(0, len(X), CHUNK):
        rows = slice(start, start + CHUNK)
        more = None
        if unit_image is not None:
            more = known[:, torch.from_numpy(unit_image[rows])]
        elif cells is not None:
            m, d = network.shape.n_members, network.shape.width
            more = torch.from_numpy(cells[rows].reshape(-1, m, cells.shape[1] // (m * d), d)).transpose(0, 1)
        with torch.inference_mode():
            columns, features = (torch.from_numpy(part[rows]).to(device) for part in (X, basis))
            out = call(columns, features, cells=None if more is None else more.to(device))
        found.append(out.cpu().numpy())
    return np.concatenate(found, axis=1)
