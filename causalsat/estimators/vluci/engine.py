"""The two ways to L: exact integration over a linear link, and variational networks. Both give draws of L."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler
from causalsat.core.inputs import FloatArray
from causalsat.estimators.vluci.basis import Basis, learn_basis
from causalsat.estimators.vluci.fit import NO_LINK, Design, fit_mode, make_design, predictors
from causalsat.estimators.vluci.laws import law_nodes, normal_nodes
from causalsat.estimators.vluci.likelihood import Link
from causalsat.estimators.vluci.network import NetworkFit, NetworkSettings, sample_latents, train
from causalsat.estimators.vluci.posterior import (
    Grid,
    Prior,
    choose,
    draw_confounder,
    draw_parameters,
    evaluate_grid,
    no_grid,
)

__all__ = ["Marginal", "Scaling", "Variational", "fit_marginal", "fit_variational", "learn_scaling"]


@dataclass(frozen=True)
class Scaling:
    """Units of treatment and outcome: (value - mean) / sd; 0 and 1 where they are binary."""

    t_mean: float
    t_sd: float
    y_mean: float
    y_sd: float
    kinds: tuple[bool, bool]

    @property
    def effect_unit(self) -> float:
        """What an effect of 1 in the model's units is in the outcome's, by unit of treatment."""
        return self.y_sd / self.t_sd

    def treatment(self, t: FloatArray) -> FloatArray:
        """Treatment in the model's units."""
        return (t - self.t_mean) / self.t_sd

    def outcome(self, y: FloatArray) -> FloatArray:
        """Outcome in the model's units."""
        return (y - self.y_mean) / self.y_sd


def learn_scaling(
    basis: FloatArray, t: FloatArray, y: FloatArray, weight: FloatArray, kinds: tuple[bool, bool]
) -> Scaling:
    """A dose in units of its residual's standard deviation given the basis, an outcome in its own."""
    t_mean, t_sd, y_mean, y_sd = 0.0, 1.0, 0.0, 1.0
    if not kinds[1]:
        outcome = learn_scaler(y, weight)
        y_mean, y_sd = float(outcome.mean), float(outcome.scale_or_one)
    if not kinds[0]:
        t_mean = float(np.average(t, weights=weight))
        columns = np.column_stack([np.ones(len(t)), basis])
        gram = columns.T @ (weight[:, None] * columns) + np.diag(np.r_[0.0, np.full(basis.shape[1], 1.0)])
        residual = t - columns @ np.linalg.solve(gram, columns.T @ (weight * t))
        degrees = max(weight.sum() - basis.shape[1] - 1, 0.5 * weight.sum())
        t_sd = float(np.sqrt((weight * residual**2).sum() / degrees)) or 1.0
    return Scaling(t_mean, t_sd, y_mean, y_sd, kinds)


@dataclass(frozen=True, eq=False)
class Marginal:
    """Imputations under a linear link: parameters (m, k), strengths, and the posterior of the strength."""

    basis: Basis
    scaling: Scaling
    grid: Grid
    links: list[Link]
    parameters: FloatArray

    @property
    def n_imputations(self) -> int:
        """Number of draws of the parameters."""
        return len(self.links)

    @property
    def expected_move(self) -> float:
        """Average effect, in the outcome's units, less that without confounding: the posterior mean."""
        return float(self.grid.weight @ (self.grid.ate - self.grid.none_ate)) * self.scaling.effect_unit

    def design(self, X: FloatArray, t: FloatArray, y: FloatArray) -> Design:
        """Columns for units."""
        B = self.basis.apply(X)
        s = self.scaling
        return make_design(B, self.basis.kinds, s.treatment(t), s.outcome(y), np.ones(len(t)), s.kinds)

    def draw(self, i: int, X: FloatArray, t: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
        """L of each unit, (n, 1), given its X, T and Y, under the i-th parameters."""
        return self.at(i, X, t, y, rng.random(len(t)))

    def at(self, i: int, X: FloatArray, t: FloatArray, y: FloatArray, uniform: FloatArray) -> FloatArray:
        """L of each unit, (n, 1), at the quantiles ``uniform`` (n,) of its posterior under the i-th parameters."""
        return draw_confounder(self.design(X, t, y), self.parameters[i], self.links[i], uniform)[:, None]

    def noise(self, i: int, X: FloatArray, t: FloatArray, y: FloatArray, latent: FloatArray) -> FloatArray:
        """Noise (n,) of each unit's outcome, in its unit: its residual given X, T and the drawn L (n, 1)."""
        design = self.design(X, t, y)
        _, mean, log_sd = predictors(design, self.parameters[i])
        rho = np.array(self.links[i].rho)[design.arm]
        return np.asarray((design.y - mean - rho * np.exp(log_sd) * latent[:, 0]) * self.scaling.y_sd)

    def draw_noise(self, i: int, level: FloatArray, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """New noise (draw, n) of outcomes at treatment levels (n,), in the outcome's unit."""
        link = self.links[i]
        arm = level.astype(np.int64) if self.scaling.kinds[0] else np.zeros(len(level), dtype=np.int64)
        sd = np.exp(self.parameters[i][-2:]) * np.sqrt(1 - np.array(link.rho) ** 2) * self.scaling.y_sd
        out = np.empty((n_draws, len(level)))
        for k, law in enumerate((link.noise, link.noise_treated or link.noise)):
            weight, mean, width = np.array(law).T
            chosen = rng.choice(len(law), (n_draws, len(level)), p=weight / weight.sum())
            values = mean[chosen] + width[chosen] * rng.standard_normal(chosen.shape)
            out = np.where(arm == k, sd[k] * values, out)
        return out

    def prior_nodes(self, i: int) -> tuple[FloatArray, FloatArray]:
        """Points (k, 1) and weights (k,) whose average is that over the prior of L under the i-th parameters."""
        return law_nodes(self.links[i].confounder)

    def training(self, X: FloatArray, t: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
        """L (m, n, 1) of the units of all imputations: antithetic in pairs, so that their chance averages out."""
        half = rng.random(((self.n_imputations + 1) // 2, len(t)))
        uniforms = [half[i // 2] if i % 2 == 0 else 1 - half[i // 2] for i in range(self.n_imputations)]
        return np.array([self.at(i, X, t, y, uniform) for i, uniform in enumerate(uniforms)])


@dataclass(frozen=True, eq=False)
class Variational:
    """An ensemble of variational networks."""

    mean: FloatArray
    sd: FloatArray
    scaling: Scaling
    networks: list[NetworkFit]
    settings: NetworkSettings
    n_imputations: int

    def draw(self, i: int, X: FloatArray, t: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
        """L of each unit, (n, d), from q(L | X, T, Y) of the i-th network (cycling)."""
        s = self.scaling
        noise = rng.standard_normal((len(t), self.settings.n_latents))
        network = self.networks[i % len(self.networks)]
        x = (X - self.mean) / self.sd
        return sample_latents(network, x, s.treatment(t), s.outcome(y), s.kinds, self.settings, noise)

    def prior_nodes(self, i: int) -> tuple[FloatArray, FloatArray]:
        """Points (k, d) and weights (k,) whose average is that over the prior of L."""
        return normal_nodes(self.settings.n_latents)

    def training(self, X: FloatArray, t: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
        """L (m, n, d) of the units of all imputations."""
        return np.array([self.draw(i, X, t, y, rng) for i in range(self.n_imputations)])


def fit_marginal(
    X: FloatArray,
    t: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    kinds: tuple[bool, bool],
    prior: Prior,
    n_grid: int,
    n_imputations: int,
    rng: np.random.Generator,
) -> Marginal:
    """Posterior of the strength of confounding and ``n_imputations`` draws of all parameters, spread over it."""
    basis = learn_basis(X)
    B = basis.apply(X)
    scaling = learn_scaling(B, t, y, weight, kinds)
    design = make_design(B, basis.kinds, scaling.treatment(t), scaling.outcome(y), weight, kinds)
    if prior.probability == 0:
        unknown = np.zeros((n_imputations, len(design.group) + 2))
        return Marginal(basis, scaling, no_grid(), [NO_LINK] * n_imputations, unknown)
    grid, begins = evaluate_grid(design, prior, n_grid)
    links, parameters, mode = [], [], begins[0]
    last: tuple[Link, int] | None = None
    noise = rng.standard_normal(((n_imputations + 1) // 2, len(design.group) + 2))
    for i, (link, _, laws) in enumerate(choose(grid, n_imputations)):
        if (link, laws) != last:
            mode = fit_mode(design, link, begins[laws], rounds=4) if link.beta else begins[laws]
        last = link, laws
        links.append(mode.link)
        parameters.append(draw_parameters(mode, noise[i // 2] if i % 2 == 0 else -noise[i // 2]))
    return Marginal(basis, scaling, grid, links, np.array(parameters))


def fit_variational(
    X: FloatArray,
    t: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    kinds: tuple[bool, bool],
    settings: NetworkSettings,
    n_networks: int,
    n_imputations: int,
    rng: np.random.Generator,
) -> Variational:
    """An ensemble of networks that differ in their initial weights and held-out units."""
    columns = learn_scaler(X)
    mean, sd = columns.mean, columns.scale_or_one
    scaling = learn_scaling(np.zeros((len(t), 0)), t, y, weight, kinds)
    x = (X - mean) / sd
    seeds: NDArray[Any] = rng.integers(2**31 - 1, size=n_networks)
    networks = [
        train(x, scaling.treatment(t), scaling.outcome(y), weight, kinds, settings, int(seed)) for seed in seeds
    ]
    return Variational(mean, sd, scaling, networks, settings, n_imputations)
