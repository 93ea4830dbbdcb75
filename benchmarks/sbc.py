"""Simulation-based calibration of BayesianLinearEffect (Talts, Betancourt, Simpson, Vehtari and Gelman 2018).

Parameters are drawn from the documented priors, data from the model, the model is fitted, and the rank of each true
parameter among its posterior draws is noted. If priors, likelihood and sampler are those documented, ranks are
uniform. Uniformity is judged by chi-square and by the largest departure of the empirical distribution function from
its simultaneous band (Sailynoja, Burkner and Vehtari 2022, with the band's coverage simulated).

The priors are written down here once more, from the documentation and not from the package's code, so that a
mistake in either shows. They are priors of an outcome in standard deviations; the estimator learns that scale from
the data, which would make the prior depend on them, so Gaussian fits here are told that the outcome is standardised.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

RANKS = 64  # a true value has one of 64 ranks among 63 draws
LOGISTIC_SD = np.pi / np.sqrt(3)


@dataclass(frozen=True)
class Model:
    """A version of the model: prior of the interactions, family, villages and how they are treated.

    ``villages`` is 0 for none; with ``mixed`` units are treated one by one and villages have slopes as well,
    otherwise whole villages are treated.
    """

    prior: str = "horseshoe"
    family: str = "gaussian"
    villages: int = 0
    mixed: bool = True
    n: int = 60
    n_features: int = 3
    n_modifiers: int = 2

    @property
    def name(self) -> str:
        """A few words."""
        how = "" if not self.villages else ", villages and slopes" if self.mixed else ", treated villages"
        return f"{self.family}, {self.prior}{how}"

    @property
    def slopes(self) -> bool:
        """Whether villages differ in their effect."""
        return self.villages > 0 and self.mixed


# ---------------------------------------------------------------------- truth
def half_t(rng: np.random.Generator, scale: float, size: int | None = None) -> Any:
    """Half-t with 3 degrees of freedom."""
    return scale * np.abs(rng.standard_t(3, size))


def draw_interactions(model: Model, t: FloatArray, unit: float, rng: np.random.Generator) -> FloatArray:
    """Interactions from their documented prior; t is the centred treatment."""
    j = model.n_modifiers
    z = rng.standard_normal(j)
    if model.prior == "normal":
        return z * half_t(rng, 0.5 * unit) / np.sqrt(j)
    if model.prior == "r2d2":
        odds = rng.beta(0.5, 0.5)
        total = (0.5 * unit) ** 2 * odds / (1 - odds)
        return z * np.sqrt(rng.exponential(2.0, j) * rng.dirichlet(np.full(j, 0.5)) * total / 2)
    clustering = model.villages / model.n if model.villages else 1.0
    h0 = unit / np.sqrt(clustering * np.sum(t**2))  # half of the modifiers expected to matter
    wide = np.abs(rng.standard_cauchy(j)) * h0 * np.abs(rng.standard_cauchy())
    slab = 2 * (0.5 * unit) ** 2 / rng.gamma(2.0)
    return z * wide * np.sqrt(slab / (slab + wide**2))


def simulate(model: Model, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data for ``fit`` and the true parameters, in the names of ``draws_``."""
    n, unit = model.n, LOGISTIC_SD if model.family == "bernoulli" else 1.0
    X = rng.standard_normal((n, model.n_features))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    groups = np.arange(n) % model.villages if model.villages else None
    treated_one_by_one = groups is None or model.mixed
    arm = rng.permutation(n) % 2 if treated_one_by_one else rng.permutation(model.villages)[groups] % 2
    t = arm - arm.mean()
    truth: dict[str, Any] = {
        "intercept": 2.5 * unit * rng.standard_normal(),
        "treatment": 2.5 * unit * rng.standard_normal(),
        "main": half_t(rng, unit) * rng.standard_normal(model.n_features),
        "interaction": draw_interactions(model, t, unit, rng),
    }
    eta = truth["intercept"] + X @ truth["main"]
    eta = eta + t * (truth["treatment"] + X[:, : model.n_modifiers] @ truth["interaction"])
    if model.villages:
        truth["group_sd"] = half_t(rng, unit)
        eta = eta + truth["group_sd"] * rng.standard_normal(model.villages)[groups]
    if model.slopes:
        truth["slope_sd"] = half_t(rng, unit)
        eta = eta + t * truth["slope_sd"] * rng.standard_normal(model.villages)[groups]
    if model.family == "bernoulli":
        y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    else:
        truth["noise"] = half_t(rng, 1.0, 2)
        y = eta + truth["noise"][arm] * rng.standard_normal(n)
    return {"X": X, "y": y, "treatment": arm, "groups": groups}, truth


def quantities(model: Model, data: dict[str, Any], values: dict[str, Any]) -> dict[str, FloatArray]:
    """What is ranked, one number a draw; ``values`` are draws, or the truth as a single draw."""
    v = {name: np.asarray(value, dtype=float) for name, value in values.items()}
    slope = v["treatment"] + v["interaction"] @ data["X"][0, : model.n_modifiers]
    out = {
        "intercept": v["intercept"],
        "main effect": v["main"][:, 0],
        "size of main effects": np.linalg.norm(v["main"], axis=1),
        "treatment": v["treatment"],
        "interaction": v["interaction"][:, 0],
        "size of interactions": np.linalg.norm(v["interaction"], axis=1),
        "effect on a unit": slope,
    }
    if "noise" in v and v["noise"].shape[1]:
        out |= {"noise, control": v["noise"][:, 0], "noise, treated": v["noise"][:, 1]}
    out |= {
        shown: v[name] for name, shown in (("group_sd", "sd of villages"), ("slope_sd", "sd of slopes")) if name in v
    }
    if not model.villages:
        out["log likelihood"] = log_likelihood(model, data, v)
    return out


def log_likelihood(model: Model, data: dict[str, Any], v: dict[str, FloatArray]) -> FloatArray:
    """Of all data, without villages: a quantity that reacts to faults which no single parameter shows."""
    t = data["treatment"] - data["treatment"].mean()
    slope = v["treatment"][:, None] + v["interaction"] @ data["X"][:, : model.n_modifiers].T
    eta = v["intercept"][:, None] + v["main"] @ data["X"].T + t * slope
    if model.family == "bernoulli":
        return np.asarray((data["y"] * eta - np.logaddexp(0, eta)).sum(axis=1))
    sd = v["noise"][:, data["treatment"]]
    return np.asarray((-np.log(sd) - 0.5 * ((data["y"] - eta) / sd) ** 2).sum(axis=1))


# ---------------------------------------------------------------------- fits
@contextmanager
def outcome_is_standardised() -> Iterator[None]:
    """Within this, a Gaussian fit takes the outcome for standardised."""
    from causalsat.estimators.linear import data as linear_data

    learn = linear_data.learn_scaling

    def learn_features_only(*args: Any, **options: Any) -> Any:
        return learn(*args, **{**options, "rescale_y": False})

    with mock.patch.object(linear_data, "learn_scaling", learn_features_only):
        yield


def posterior(model: Model, data: dict[str, Any], seed: int, **options: Any) -> dict[str, FloatArray]:
    """63 draws, thinned, in the names of ``draws_``."""
    from causalsat import BayesianLinearEffect

    settings = {"n_draws": 320, "n_tune": 250, "n_chains": 1} | options
    est = BayesianLinearEffect(
        modifiers=list(range(model.n_modifiers)),
        prior=model.prior,
        family=model.family,
        group_slopes=model.slopes,
        random_state=seed,
        **settings,
    )
    with warnings.catch_warnings(), outcome_is_standardised():
        warnings.simplefilter("ignore")
        est.fit(data["X"], data["y"], treatment=data["treatment"], groups=data["groups"])
    total = settings["n_draws"] * settings["n_chains"]
    keep = np.arange(1, RANKS) * total // RANKS
    return {name: draws[keep] for name, draws in est.draws_.items()}


def replicate(model: Model, replications: int, seed: int = 0, **options: Any) -> list[tuple[Any, Any, Any]]:
    """Data, true parameters and draws of each replication; options are those of the estimator."""
    out = []
    for r in range(replications):
        data, truth = simulate(model, np.random.default_rng([seed, r]))
        out.append((data, truth, posterior(model, data, r, **options)))
    return out


def ranks(model: Model, replications: Sequence[tuple[Any, Any, Any]]) -> dict[str, NDArray[np.int64]]:
    """Ranks 0 to 63 of the true values, one a replication, for each quantity."""
    found: dict[str, list[int]] = {}
    for data, truth, draws in replications:
        drawn = quantities(model, data, draws)
        true = quantities(model, data, {name: np.asarray(value)[None] for name, value in truth.items()})
        for name, value in true.items():
            found.setdefault(name, []).append(int((drawn[name] < value[0]).sum()))
    return {name: np.array(values) for name, values in found.items()}


# ---------------------------------------------------------------------- uniformity
def chi_square(values: NDArray[np.int64], bins: int = 16) -> float:
    """p-value of chi-square over bins of ranks."""
    from scipy.stats import chisquare

    return float(chisquare(np.bincount(values * bins // RANKS, minlength=bins)).pvalue)


def _departure(values: NDArray[np.int64]) -> FloatArray:
    """Smallest two-sided binomial probability over the points of the empirical distribution; samples in rows."""
    from scipy.stats import binom

    n = values.shape[1]
    at = np.arange(1, RANKS) / RANKS
    counts = np.array([np.bincount(row, minlength=RANKS).cumsum()[:-1] for row in values])
    tails = np.minimum(binom.cdf(counts, n, at), binom.sf(counts - 1, n, at))
    return np.asarray(2 * tails.min(axis=1))


@lru_cache(maxsize=8)
def _uniform_departures(n: int, samples: int = 4000) -> FloatArray:
    return np.sort(_departure(np.random.default_rng(n).integers(0, RANKS, (samples, n))))


def ecdf_p_value(values: NDArray[np.int64]) -> float:
    """p-value of uniformity: the coverage at which the simultaneous band of the distribution function just fails."""
    reference = _uniform_departures(len(values))
    return float((1 + np.searchsorted(reference, _departure(values[None])[0], "right")) / (1 + len(reference)))
