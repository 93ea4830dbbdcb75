"""The two distributions of the unobservable behind one interface: density, parameters, probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.selective_labels import density as uniform
from causalsat.estimators.selective_labels import normal
from causalsat.estimators.selective_labels.density import Coefficients, SelectiveData
from causalsat.estimators.selective_labels.model import build_model, build_normal_model

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class UniformForm:
    """Z uniform on (0, sigma), sigma learned, alpha 1."""

    def density(self) -> Callable[..., Any]:
        """Return the log density with gradient."""
        return uniform.log_density  # type: ignore[no-any-return]

    def arguments(self, data: SelectiveData) -> tuple[Any, ...]:
        """Return what follows the coordinates in the density."""
        return data.as_tuple()

    def start(self, data: SelectiveData) -> FloatArray:
        """Return coordinates from which the mode is sought."""
        return uniform.starting_point(data)

    def to_pymc(self, data: SelectiveData) -> Any:
        """Return the model in PyMC, in the parameters of the paper."""
        return build_model(data, raw=True)

    def coefficients(self, coordinates: FloatArray, data: SelectiveData) -> Coefficients:
        """Return the parameters of coordinates (draw, d)."""
        return uniform.coefficients(coordinates, data.X.shape[1], data.free)

    def positive(self, draws: Coefficients, risk: FloatArray) -> FloatArray:
        """P(Y = 1), shape (draw, unit), of the risk's logits at Z = 0."""
        return uniform.positive_probability(risk, draws.sigma)  # type: ignore[no-any-return]

    def tested(self, draws: Coefficients, risk: FloatArray, shift: FloatArray) -> FloatArray:
        """P(T = 1), shape (draw, unit)."""
        return uniform.positive_probability(risk + shift, draws.sigma)  # type: ignore[no-any-return]

    def both(self, draws: Coefficients, risk: FloatArray, shift: FloatArray) -> FloatArray:
        """P(T = 1, Y = 1), shape (draw, unit)."""
        return uniform.both_probability(risk, shift, draws.sigma)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class NormalForm:
    """Z normal with standard deviation sigma; one of alpha and sigma is given, NaN marks the one to learn."""

    alpha: float
    sigma: float

    def density(self) -> Callable[..., Any]:
        """Return the log density with gradient."""
        return normal.log_density  # type: ignore[no-any-return]

    def arguments(self, data: SelectiveData) -> tuple[Any, ...]:
        """Return what follows the coordinates in the density."""
        return (*data.as_tuple(), self.alpha, self.sigma)

    def start(self, data: SelectiveData) -> FloatArray:
        """Return coordinates from which the mode is sought."""
        return uniform.starting_point(data)

    def to_pymc(self, data: SelectiveData) -> Any:
        """Return the model in PyMC, in the parameters of the paper."""
        return build_normal_model(data, self.alpha, self.sigma)

    def coefficients(self, coordinates: FloatArray, data: SelectiveData) -> Coefficients:
        """Return the parameters of coordinates (draw, d)."""
        return normal.coefficients(coordinates, data.X.shape[1], data.free, self.alpha, self.sigma)

    def positive(self, draws: Coefficients, risk: FloatArray) -> FloatArray:
        """P(Y = 1), shape (draw, unit), of the risk's logits at Z = 0."""
        return normal.positive_probability(risk, np.ones(len(risk)), draws.sigma)  # type: ignore[no-any-return]

    def tested(self, draws: Coefficients, risk: FloatArray, shift: FloatArray) -> FloatArray:
        """P(T = 1), shape (draw, unit)."""
        logit = draws.alpha[:, None] * risk + shift
        return normal.positive_probability(logit, draws.alpha, draws.sigma)  # type: ignore[no-any-return]

    def both(self, draws: Coefficients, risk: FloatArray, shift: FloatArray) -> FloatArray:
        """P(T = 1, Y = 1), shape (draw, unit)."""
        logit = draws.alpha[:, None] * risk + shift
        return normal.both_probability(risk, logit, draws.alpha, draws.sigma)  # type: ignore[no-any-return]


def form_of(unobservables: str, alpha: float, sigma: float | None) -> UniformForm | NormalForm:
    """Form that checked parameters of the estimator mean."""
    if unobservables == "uniform":
        return UniformForm()
    return NormalForm(float(alpha), np.nan) if sigma is None else NormalForm(np.nan, float(sigma))
