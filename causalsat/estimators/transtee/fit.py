"""What TransTEE does with checked data: scale, order, train, keep; and evaluate its draws."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.core.inputs import FitData, FloatArray
from causalsat.encoders.device import resolve_device, use_half
from causalsat.encoders.networks.training import TrainSettings
from causalsat.estimators.image_base import ImageFitData
from causalsat.estimators.transtee import model as transtee_model
from causalsat.estimators.transtee.images import CellTokens
from causalsat.estimators.transtee.model import Units
from causalsat.estimators.transtee.shapes import NetworkShape
from causalsat.estimators.transtee.training import Adversary, Speed
from causalsat.estimators.transtee.treatments import TreatmentCoding, learn_coding
from causalsat.estimators.transtee.weights import inverse_propensity
from causalsat.exceptions import ParameterError

if TYPE_CHECKING:
    from causalsat.estimators.transtee.estimator import TransTEE

__all__ = ["fit_estimator", "member_features", "outcome_draws"]

PREDICT_CHUNK = 4096
FEW_UNITS = 5000
WIDEST_CROSSED = 16  # width up to which embeddings of treatments also enter multiplied with each covariate
EDGE = 0.01  # of the doses' range: inside of its ends, over which a curve's slope beyond them is taken


@contextmanager
def short_calls(n_units: int) -> Iterator[None]:
    """One thread of torch where there are few units: its calls are so short then that threads wait for each other."""
    import torch

    before = torch.get_num_threads()
    try:
        if n_units <= FEW_UNITS:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def fit_estimator(est: TransTEE, data: FitData, dosage: FloatArray | None, table: Any, seed: int) -> None:
    """Fit and set the estimator's attributes."""
    coding = learn_coding(est.treatment_kind, data.treatment, dosage, table)
    est.coding_ = coding
    est.treatments_ = None if table is None else np.asarray(table, dtype=np.float32)
    est.scaling_ = transtee_model.learn_scaling(data.X, data.y, data.sample_weight)
    images = None
    if isinstance(data, ImageFitData):
        est.encoder_ = CellTokens(est.image_px, est.device)
        images = est.encoder_.prepare_training(data.images.chips)
    units = _units(est, data, coding, dosage, images, seed)
    module = _member_modules(est, seed)
    est.shape_ = _shape(est, units, coding, module)
    settings = TrainSettings(
        max_epochs=est.max_epochs,
        patience=est.patience,
        batch_size=est.batch_size,
        learning_rate=est.learning_rate,
        device=est.device,
        seed=seed,
        progress=est.progress,
    )
    adversary = None
    if est.regularizer is not None:
        adversary = Adversary(est.regularizer, 0 if coding.kind == "dose" else len(coding.levels), est.alpha)
    half = use_half(est.precision, resolve_device(est.device), by_default=images is not None)
    speed = Speed(half=half, compiled=est.compile_network)
    with short_calls(len(data.y)):
        found = transtee_model.fit_members(est.shape_, units, settings, est.n_draws, adversary, module, speed)
    _keep(est, found, units)
    if isinstance(data, ImageFitData):
        est.encoder_.set_state(est.shape_, est.state_)
    _average_effect(est, data)


def _units(
    est: TransTEE, data: FitData, coding: TreatmentCoding, dosage: FloatArray | None, images: Any, seed: int
) -> Units:
    """Standardised units, shuffled by the seed from the order of their content."""
    image = data.images.unit_image if isinstance(data, ImageFitData) else None
    order = transtee_model.canonical_order(data.X, data.y, data.treatment, dosage, data.sample_weight, image)
    order = order[np.random.default_rng([seed, 1]).permutation(len(order))]
    X, level = est.scaling_.features(data.X)[order], data.treatment[order]
    dose = None if dosage is None else dosage[order]
    weight = data.sample_weight[order]
    groups = None if data.groups is None or data.n_groups == len(data.y) else _recode(data.groups[order])
    if est.propensity_weights:
        known = None if data.propensity is None else data.propensity[order]
        weight = weight * inverse_propensity(X, level, dose, coding, groups, weight, known)
    weight = weight / weight.mean()
    y = (data.y[order] - est.scaling_.y_mean) / est.scaling_.y_sd
    return Units(
        X=np.ascontiguousarray(X),
        basis=coding.basis(level, dose),
        target=coding.target(level, dose),
        y=y,
        weight=weight,
        groups=groups,
        unit_image=None if image is None else image[order],
        images=images,
        treatments=_table(est, None),
    )


def _recode(groups: Any) -> Any:
    """Codes in the order of first appearance."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()].astype(np.int64)


def _shape(est: TransTEE, units: Units, coding: TreatmentCoding, module: Any) -> NetworkShape:
    n_basis, crossed = coding.n_basis, coding.crossed
    if module is not None:
        import torch

        with torch.no_grad():
            out = module[0](units.treatments[:1])
        if out.ndim != 2 or len(out) != 1:
            raise ParameterError(
                f"treatment_module returns shape {tuple(out.shape)} for one treatment", expected="(1, width)"
            )
        n_basis = int(out.shape[1])
        crossed = n_basis if n_basis <= WIDEST_CROSSED else 0
    return NetworkShape(
        n_members=est.n_members,
        n_columns=units.X.shape[1],
        n_basis=n_basis,
        width=est.width,
        n_heads=est.n_heads,
        n_blocks=est.n_blocks,
        n_features=est.n_features,
        column_embedding=est.column_embedding,
        norm=est.norm,
        crossed=crossed,
        image=est.encoder_.image_shape_ if units.images is not None else None,
    )


def _member_modules(est: TransTEE, seed: int) -> Any:
    """A copy of the user's module for each member, with weights of its own."""
    if est.treatment_module is None:
        return None
    import torch

    copies = [copy.deepcopy(est.treatment_module).float() for _ in range(est.n_members)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in copies[1:]:
            for part in module.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()
    return torch.nn.ModuleList(copies)


def _table(est: TransTEE, table: Any) -> Any:
    """Table of structured treatments as a tensor, or None."""
    chosen = est.treatments_ if table is None else np.asarray(table, dtype=np.float32)
    if chosen is None:
        return None
    import torch

    return torch.from_numpy(np.array(chosen))


def _keep(est: TransTEE, found: transtee_model.Fitted, units: Units) -> None:
    sd, seen = est.scaling_.y_sd, np.isfinite(found.residual)
    est.state_, est.coefficients_, est.deviations_ = found.members.state, found.mean, found.deviations
    est.mixing_ = found.mixing
    est.noise_, est.village_ = sd * found.noise, sd * found.village
    est.history_ = found.members.history
    est.best_epoch_ = int(np.argmin([valid for _, valid in est.history_])) + 1
    error = np.average(found.residual[seen] ** 2, weights=units.weight[seen] + 1e-12)
    spread = np.average(units.y[seen] ** 2, weights=units.weight[seen] + 1e-12)
    est.held_out_r2_ = float(1 - error / spread) if spread > 0 else 0.0
    est._network = None


def _network(est: TransTEE) -> Any:
    network = getattr(est, "_network", None)
    if network is None:
        module = None
        if est.coding_.kind == "structured":
            if est.treatment_module is None:
                raise ParameterError(
                    "a model of structured treatments without its treatment_module",
                    expected="the module with which it was fitted; it is not saved with the model",
                    todo="model.set_params(treatment_module=module)",
                )
            module = _member_modules(est, 0)
        network = transtee_model.rebuild(est.shape_, est.state_, module, est.device)
        est._network = network
    return network


def member_features(
    est: TransTEE, design: FloatArray, level: tuple[FloatArray, Any], table: Any = None, method: str = "forward"
) -> FloatArray:
    """Features (M, n, F) of units under a treatment, or the attention (M, n, tokens) to their tokens.

    No dose of the fit says how a curve bends beyond the smallest and the largest of them, so features go on there as
    straight lines, as those of a natural spline do, with the slope at the end of the range.
    """
    kind = est.coding_.kind
    dose = {"dose": level[0], "dosage": level[1]}.get(kind)
    if dose is None or method != "forward":
        return _features_at(est, design, level, table, method)

    def at(rows: Any, doses: FloatArray) -> FloatArray:
        return _features_at(est, design[rows], (doses, None) if kind == "dose" else (level[0][rows], doses))

    inside = np.clip(dose, est.coding_.least, est.coding_.most)
    phi, beyond = at(slice(None), inside), np.flatnonzero(dose != inside)
    if len(beyond):
        over, step = (dose - inside)[beyond], EDGE * (est.coding_.most - est.coding_.least)
        slope = (phi[:, beyond] - at(beyond, inside[beyond] - np.sign(over) * step)) / step
        phi[:, beyond] += np.abs(over)[:, None] * slope
    return phi


def _features_at(
    est: TransTEE, design: FloatArray, level: tuple[FloatArray, Any], table: Any = None, method: str = "forward"
) -> FloatArray:
    k = getattr(est, "n_image_features_", 0) if est.shape_.image is not None else 0
    with short_calls(len(design)):
        return transtee_model.evaluate(
            _network(est),
            np.ascontiguousarray(est.scaling_.features(design[:, k:])),
            est.coding_.basis(*level),
            cells=np.ascontiguousarray(design[:, :k]) if k else None,
            table=_table(est, table),
            method=method,
        )


def outcome_draws(
    est: TransTEE,
    design: FloatArray,
    level: tuple[FloatArray, Any],
    baseline: tuple[FloatArray, Any] | None = None,
    table: Any = None,
) -> FloatArray:
    """Draws (draw, n) of the outcome at a level, or of its difference from the outcome at a baseline.

    A draw is the members' mean, the difference from it that :func:`_transtee_head.draw_mixing` makes of their spread,
    and the deviation of one member's coefficients.
    """
    out = np.empty((len(est.mixing_), len(design)))
    for start in range(0, len(design), PREDICT_CHUNK):
        rows = slice(start, start + PREDICT_CHUNK)

        def part(at: tuple[FloatArray, Any], rows: slice = rows) -> FloatArray:
            chosen = (at[0][rows], None if at[1] is None else at[1][rows])
            return member_features(est, design[rows], chosen, table)

        phi = part(level) - (0.0 if baseline is None else part(baseline))
        means = np.einsum("mnf,mf->mn", phi, est.coefficients_)
        centre = means.mean(axis=0)
        found = [(features @ draws).T for features, draws in zip(phi, est.deviations_, strict=True)]
        spread = np.einsum("sm,mn->sn", est.mixing_, means - centre)
        out[:, rows] = est.scaling_.y_sd * (centre + spread + np.concatenate(found))
    return out if baseline is not None else out + est.scaling_.y_mean


def _average_effect(est: TransTEE, data: FitData) -> None:
    """Draws of the average contrast over the training units: 1 against 0, or upper against lower quartile."""
    coding, n = est.coding_, len(data.y)
    est.contrast_ = (0.0, 1.0)
    if coding.kind == "dose":
        low, high = np.quantile(data.treatment, [0.25, 0.75])
        est.contrast_ = (float(low), float(high))
    elif coding.levels:
        est.contrast_ = (coding.levels[0], coding.levels[1])
    dose = np.full(n, coding.mean) if coding.kind == "dosage" else None
    design = data.X
    if isinstance(data, ImageFitData):
        cells = est._encode_images(data.images)
        est.n_image_features_ = cells.shape[1]
        design = np.hstack([cells[data.images.unit_image], data.X])
    low_level, high_level = ((np.full(n, v), dose) for v in est.contrast_)
    weight = data.sample_weight / data.sample_weight.sum()
    est.ate_draws_ = outcome_draws(est, design, high_level, low_level) @ weight
