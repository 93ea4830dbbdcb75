"""Fit of TransTEE to checked data: code the treatment, order the units, train the members, condition their heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from causalsat.core.inputs import FitData, FloatArray
from causalsat.encoders.device import resolve_device, use_half
from causalsat.encoders.networks.training import TrainSettings
from causalsat.estimators.transtee import head as transtee_head
from causalsat.estimators.transtee.data import ImageShape, NetworkShape, Scaling, Units, learn_scaling, make_units
from causalsat.estimators.transtee.draws import evaluate, rebuild, short_calls
from causalsat.estimators.transtee.families import MIN_DISPERSION, Family, check_outcome, resolve
from causalsat.estimators.transtee.network import member_modules
from causalsat.estimators.transtee.training import (
    Adversary,
    Speed,
    TrainedMembers,
    TrainingData,
    train_members,
)
from causalsat.estimators.transtee.treatments import TreatmentCoding, learn_coding
from causalsat.exceptions import ParameterError
from causalsat.inference.folds import assign_folds

__all__ = ["Fitted", "Options", "fit_ensemble", "training_units"]

N_FOLDS = 5  # member m trains without fold m, modulo 5
WIDEST_CROSSED = 16  # width up to which embeddings of treatments also enter multiplied with each covariate


@dataclass(frozen=True)
class Options:
    """Parameters of :class:`TransTEE` that a fit needs, under their names there."""

    family: str
    treatment_kind: str
    treatment_module: Any
    n_members: int
    width: int
    n_heads: int
    n_blocks: int
    n_features: int
    column_embedding: bool
    norm: str
    regularizer: str | None
    alpha: float
    propensity_weights: bool
    max_epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    n_draws: int
    device: str
    precision: str
    compile_network: bool
    progress: bool

    def training(self, seed: int) -> TrainSettings:
        """How the networks are trained."""
        return TrainSettings(
            max_epochs=self.max_epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            device=self.device,
            seed=seed,
            progress=self.progress,
        )

    def adversary(self, coding: TreatmentCoding) -> Adversary | None:
        """The adversarial regulariser, if there is one."""
        if self.regularizer is None:
            return None
        return Adversary(self.regularizer, 0 if coding.kind == "dose" else len(coding.levels), self.alpha)

    def speed(self, *, images: bool) -> Speed:
        """Precision and compilation."""
        half = use_half(self.precision, resolve_device(self.device), by_default=images)
        return Speed(half=half, compiled=self.compile_network)


@dataclass(frozen=True)
class Fitted:
    """A fitted ensemble; the estimator's attributes have these names with an underscore.

    Attributes
    ----------
    family : {"gaussian", "bernoulli", "negative_binomial"}
        Of the outcome.
    coding, scaling, shape : TreatmentCoding, Scaling, NetworkShape
        The treatment, units of covariates and outcome, sizes of the network.
    treatments : ndarray of shape (K, ...) or None
        Table of structured treatments.
    state : dict of ndarray
        The networks' weights.
    coefficients : ndarray of shape (M, F)
        Posterior mean of each member's coefficients.
    deviations : list of ndarray of shape (F, S_m)
        Draws of each member's coefficients less their mean.
    mixing : ndarray of shape (S, M)
        Weights of the members' distances from their mean in each draw.
    noise, village : float
        Standard deviations of held-out noise and of villages, in the outcome's unit (on the predictor, where that is
        not normal; the noise is then the dispersion of counts).
    history : list of tuple of float
        Training and held-out loss of each epoch.
    best_epoch : int
        The epoch whose weights are kept.
    held_out_r2 : float
        Share of the outcome's variance that members explain in units they did not see.
    """

    family: str
    coding: TreatmentCoding
    scaling: Scaling
    shape: NetworkShape
    treatments: NDArray[np.float32] | None
    state: dict[str, NDArray[Any]]
    coefficients: FloatArray
    deviations: list[FloatArray]
    mixing: FloatArray
    noise: float
    village: float
    history: list[tuple[float, float]]
    best_epoch: int
    held_out_r2: float


def fit_ensemble(
    data: FitData,
    options: Options,
    seed: int,
    *,
    dosage: FloatArray | None = None,
    table: NDArray[Any] | None = None,
    images: Any = None,
    image_shape: ImageShape | None = None,
) -> Fitted:
    """Fit the ensemble.

    Parameters
    ----------
    data : FitData
        Checked units.
    options : Options
        Parameters of the estimator.
    seed : int
        Of the order of the units, the networks and the draws.
    dosage : ndarray of shape (n,), optional
        Dosage of each unit's level.
    table : ndarray of shape (K, ...), optional
        Structured treatments, positions in which are the levels.
    images, image_shape : torch.Tensor and ImageShape, optional
        Distinct images, standardised, and their sizes.
    """
    coding = learn_coding(options.treatment_kind, data.treatment, dosage, table)
    treatments = None if table is None else np.asarray(table, dtype=np.float32)
    family = resolve(options.family, data.y)
    check_outcome(data.y, family)
    scaling = learn_scaling(data, family)
    units = make_units(
        data,
        coding,
        scaling,
        dosage,
        images,
        treatments,
        propensity_weights=options.propensity_weights,
        seed=seed,
        family=family,
    )
    module = member_modules(options.treatment_module, options.n_members, seed)
    shape = _network_shape(options, units, coding, module, image_shape)
    rng = np.random.default_rng(seed)
    used = training_units(len(units.y), options.n_members, units.groups, rng)
    with short_calls(len(units.y)):
        members = train_members(
            shape,
            _training_data(units, used, family, scaling.y_mean),
            options.training(seed),
            options.adversary(coding),
            module,
            options.speed(images=images is not None),
        )
        phi = _features(shape, units, members, module, options.device)
        shared = (phi, units.y, units.weight, used.T, units.groups, members.scale)
        if family == "gaussian":
            heads = transtee_head.fit_heads(*shared, members.noise)
        else:
            start = Family(family, max(float(members.noise.mean()), MIN_DISPERSION))
            heads = transtee_head.fit_logistic_heads(*shared, start, scaling.y_mean)
    return Fitted(
        family=family,
        coding=coding,
        scaling=scaling,
        shape=shape,
        treatments=treatments,
        state=members.state,
        coefficients=np.stack([head.mean for head in heads.heads]),
        deviations=transtee_head.draw_deviations(heads.heads, options.n_draws, rng),
        mixing=transtee_head.draw_mixing(shape.n_members, options.n_draws, rng),
        noise=scaling.y_sd * heads.noise,
        village=scaling.y_sd * heads.village,
        history=members.history,
        best_epoch=int(np.argmin([valid for _, valid in members.history])) + 1,
        held_out_r2=_held_out_r2(heads.residual, units, family),
    )


def _network_shape(
    options: Options, units: Units, coding: TreatmentCoding, module: Any, image: ImageShape | None
) -> NetworkShape:
    n_basis, crossed = coding.n_basis, coding.crossed
    if module is not None:
        with torch.no_grad():
            out = module[0](units.treatments[:1])
        if out.ndim != 2 or len(out) != 1:
            raise ParameterError(
                f"treatment_module returns shape {tuple(out.shape)} for one treatment", expected="(1, width)"
            )
        n_basis = int(out.shape[1])
        crossed = n_basis if n_basis <= WIDEST_CROSSED else 0
    return NetworkShape(
        n_members=options.n_members,
        n_columns=units.X.shape[1],
        n_basis=n_basis,
        width=options.width,
        n_heads=options.n_heads,
        n_blocks=options.n_blocks,
        n_features=options.n_features,
        column_embedding=options.column_embedding,
        norm=options.norm,
        crossed=crossed,
        image=image,
    )


def training_units(
    n: int, n_members: int, groups: NDArray[np.int64] | None, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Whether each member trains on each unit, shape (n, M): member m does without fold m, of whole villages.

    Fewer than five villages are as many folds; a single one is divided.

    Examples
    --------
    >>> used = training_units(6, 2, np.array([0, 0, 1, 1, 2, 2]), np.random.default_rng(0))
    >>> used.sum(axis=0).tolist(), bool((used[::2] == used[1::2]).all())
    ([4, 4], True)
    """
    n_groups = n if groups is None else len(np.unique(groups))
    whole = groups if n_groups > 1 else None
    n_folds = min(N_FOLDS, n_groups if whole is not None else n)
    fold = assign_folds(n_folds, rng, n=n, groups=whole)
    return np.asarray(fold[:, None] != np.arange(n_members) % n_folds)


def _training_data(units: Units, used: NDArray[np.bool_], family: str, offset: float) -> TrainingData:
    inputs: dict[str, Any] = {
        "columns": torch.from_numpy(units.X.astype(np.float32)),
        "basis": torch.from_numpy(units.basis.astype(np.float32)),
        "treatment": torch.from_numpy(units.target.astype(np.float32)),
    }
    if units.unit_image is not None:
        inputs["unit_image"] = torch.from_numpy(units.unit_image)
    y, weight = (torch.from_numpy(v.astype(np.float32)) for v in (units.y, units.weight))
    return TrainingData(inputs, y, weight, used, units.images, units.treatments, family, offset)


def _features(shape: NetworkShape, units: Units, members: TrainedMembers, module: Any, device: str) -> FloatArray:
    """Features (M, n, F) of the units in double precision."""
    network = rebuild(shape, members.state, module, device)
    images = None if units.images is None else units.images.double()
    return evaluate(network, units.X, units.basis, unit_image=units.unit_image, images=images, table=units.treatments)


def _held_out_r2(residual: FloatArray, units: Units, family: str) -> float:
    seen = np.isfinite(residual)
    weight = units.weight[seen] + 1e-12
    middle = 0.0 if family == "gaussian" else np.average(units.y[seen], weights=weight)
    error = np.average(residual[seen] ** 2, weights=weight)
    spread = np.average((units.y[seen] - middle) ** 2, weights=weight)
    return float(1 - error / spread) if spread > 0 else 0.0
