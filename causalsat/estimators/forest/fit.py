"""The sampling of a Bayesian causal forest: arrays in, a frozen result out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler
from causalsat.core.inputs import FitData
from causalsat.estimators.forest.trees import compress, forest_draws, sample_chain
from causalsat.estimators.levels import is_binary
from causalsat.exceptions import ParameterError
from causalsat.inference import nuisances
from causalsat.inference.bootstrap import default_regressor
from causalsat.inference.chains import chain_summary
from causalsat.inference.folds import assign_folds
from causalsat.inference.projection import inverse_of_gram

__all__ = [
    "Fitted",
    "Settings",
    "Units",
    "centre_outcome",
    "chain_diagnostics",
    "constant_outcome",
    "draw_intercept",
    "fit_forests",
    "generator",
    "preliminary_effect",
    "propensity_at",
    "propensity_surface",
    "propensity_values",
    "scale_units",
    "village_variance",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CENTRED = 1e-12  # mean outcome, in standard deviations, that the sampler takes for zero
NEVER_SPLIT = 1e-30  # prior probability of a split where nothing modifies the effect: trees of one leaf
N_FOLDS = 5  # of the propensity


@dataclass(frozen=True)
class Settings:
    """How long and with what priors the forests are sampled.

    Attributes
    ----------
    n_chains, n_draws, n_tune, n_warm_start : int
        Chains; draws, iterations before them and grow-from-root iterations before those, of each.
    n_prognostic_trees, n_effect_trees : int
        Trees of the two forests.
    effect_scale : float
        Prior standard deviation of the effect forest at a place, in standard deviations of the outcome.
    n_threads : int
        Threads of stochtree.
    """

    n_chains: int
    n_draws: int
    n_tune: int
    n_warm_start: int
    n_prognostic_trees: int
    n_effect_trees: int
    effect_scale: float
    n_threads: int


@dataclass(frozen=True, eq=False)
class Units:
    """Units on the sampler's scale.

    Attributes
    ----------
    features : ndarray of shape (n, p)
    outcome : ndarray of shape (n,)
        Standardised; all zeros where the outcome is constant.
    dose : ndarray of shape (n,)
        Treatment less its mean; a dose also over twice its standard deviation. That neither arm is the reference
        makes the prior the same for both: with their labels swapped, effects change their sign and nothing else.
    weight : ndarray of shape (n,)
    groups : ndarray of int of shape (n,) or None
        Villages.
    group_effects : bool
        Whether villages have an effect of their own.
    propensity : ndarray of shape (n,) or None
        As a covariate of the prognostic forest.
    y_mean, y_scale, t_centre, t_scale : float
        What outcome and treatment were standardised by.
    binary, weighted : bool
        Whether the treatment is 0/1, and whether weights vary.
    """

    features: FloatArray
    outcome: FloatArray
    dose: FloatArray
    weight: FloatArray
    groups: IntArray | None
    group_effects: bool
    propensity: FloatArray | None
    y_mean: float
    y_scale: float
    t_centre: float
    t_scale: float
    binary: bool
    weighted: bool

    @property
    def table(self) -> FloatArray:
        """What the forests split on: the features and, where there is one, the propensity."""
        return self.features if self.propensity is None else np.column_stack([self.features, self.propensity])

    @property
    def constant(self) -> bool:
        """Whether the outcome has one value only."""
        return not self.outcome.any()


@dataclass(frozen=True, eq=False)
class Fitted:
    """Sampled forests.

    Attributes
    ----------
    containers, prognostic_containers : list
        Stochtree's effect and prognostic forest of each chain.
    forests, prognostic_forests : list of ndarray of uint8
        The same as compressed JSON.
    shift : ndarray of shape (chain,)
        What was taken from the outcome's level, on the sampler's scale.
    intercept : ndarray of shape (chain, draw)
        Draws of the effect's intercept, in units of the outcome.
    ate_draws, effect_sd_draws, noise_draws : ndarray of shape (chain, draw)
        Average effect over the weighted units, standard deviation of the units' effects, that of the noise.
    split_share : ndarray of shape (p,)
        Share of the effect forest's splits that use each feature.
    diagnostics : dict
        R-hat and effective sample sizes.
    """

    containers: list[Any]
    prognostic_containers: list[Any]
    forests: list[NDArray[np.uint8]]
    prognostic_forests: list[NDArray[np.uint8]]
    shift: FloatArray
    intercept: FloatArray
    ate_draws: FloatArray
    effect_sd_draws: FloatArray
    noise_draws: FloatArray
    split_share: FloatArray
    diagnostics: dict[str, Any]


# ---------------------------------------------------------------------- data
def scale_units(data: FitData, propensity: FloatArray | None, *, group_effects: bool) -> Units:
    """Units on the sampler's scale, from checked data."""
    weight, binary = data.sample_weight, is_binary(data.treatment)
    outcome, treatment = learn_scaler(data.y, weight), learn_scaler(data.treatment, weight)
    t_centre, t_scale = float(treatment.mean), 1.0 if binary else 2 * float(treatment.scale_or_one)
    return Units(
        features=data.X,
        outcome=outcome.transform(data.y),
        dose=(data.treatment - t_centre) / t_scale,
        weight=weight,
        groups=data.groups,
        group_effects=group_effects and data.groups is not None,
        propensity=propensity,
        y_mean=float(outcome.mean),
        y_scale=float(outcome.scale_or_one),
        t_centre=t_centre,
        t_scale=t_scale,
        binary=binary,
        weighted=data.weighted,
    )


def propensity_values(data: FitData, model: Any, rng: np.random.Generator) -> FloatArray | None:
    """The propensity as a covariate, shape (n,), or None where it is the same for all units.

    Parameters
    ----------
    data : FitData
    model : None, "constant", "logistic" or scikit-learn estimator
        Learner of the treatment where ``data`` has no propensity.
    rng : numpy.random.Generator
        Deals the folds.

    Raises
    ------
    ParameterError
        If the model is another word, or "logistic" for a dose.
    """
    if data.propensity is not None:
        return data.propensity if np.ptp(data.propensity) > 1e-9 else None
    weight = data.sample_weight if data.weighted else None
    binary = is_binary(data.treatment)
    if model is None or (isinstance(model, str) and model == "constant"):
        if binary:
            nuisances.warn_predictable(data.X, data.treatment, data.groups, weight)
        return None
    if isinstance(model, str) and (model != "logistic" or not binary):
        raise ParameterError(
            f"propensity_model={model!r}" + ("" if binary else " for a treatment that is not 0/1"),
            expected="None, 'constant', 'logistic' (binary treatment) or a scikit-learn estimator",
        )
    learner = nuisances.default_propensity_model() if isinstance(model, str) else model
    keys = (data.y, data.treatment, *data.X.T)
    arms = data.treatment if binary else None
    fold = assign_folds(N_FOLDS, rng, n=len(data.y), groups=data.groups, treatment=arms, keys=keys)
    with sklearn.config_context(enable_metadata_routing=False):  # weights go to our own learner by name
        return nuisances.crossfit_predictions(learner, data.X, data.treatment, fold, weight)


# ---------------------------------------------------------------------- sampling
def fit_forests(units: Units, modifiers: IntArray, settings: Settings, rng: np.random.Generator) -> Fitted:
    """Sample the chains, each from a start of its own around a linear regression's average effect.

    Parameters
    ----------
    units : Units
    modifiers : ndarray of int
        Features on which the effect may depend; none for a constant effect.
    settings : Settings
    rng : numpy.random.Generator
    """
    options = sampler_options(units, modifiers, settings)
    mean_dose = float(np.average(units.dose, weights=units.weight))
    centred = units.dose - mean_dose
    estimate, error = preliminary_effect(units.features, units.outcome, centred, units.weight, units.groups)
    models, shifts, intercepts = [], [], []  # one a chain
    for _ in range(settings.n_chains):
        start = estimate if units.weighted else estimate + error * rng.standard_normal()
        y, level = centre_outcome(units.outcome - start * centred)
        model = sample_chain(options, rng, X_train=units.table, Z_train=units.dose, y_train=y)
        intercept = np.zeros(settings.n_draws) if units.weighted else model.tau_0_samples[0]
        if units.group_effects:
            intercept = _redraw_intercept(model, units, y, rng)
        models.append(model)
        shifts.append(level - start * mean_dose)
        intercepts.append(start + intercept)
    return _collect(models, np.array(shifts), np.array(intercepts), units)


def constant_outcome(n_features: int, settings: Settings) -> Fitted:
    """No forests and effects of 0, where the outcome has one value only."""
    zeros = np.zeros((settings.n_chains, settings.n_draws))
    diagnostics = {"source": "no sampling: constant outcome"}
    shift = np.zeros(settings.n_chains)
    return Fitted([], [], [], [], shift, zeros, zeros, zeros, zeros, np.zeros(n_features), diagnostics)


def sampler_options(units: Units, modifiers: IntArray, settings: Settings) -> dict[str, Any]:
    """Arguments of stochtree's ``BCFModel.sample`` but for the data."""
    used = [int(j) for j in modifiers]
    leaf = max(1, min(5, len(units.outcome) // 8))  # stochtree stops where a tree can neither grow nor be pruned
    options: dict[str, Any] = {
        "num_gfr": settings.n_warm_start,
        "num_burnin": settings.n_tune,
        "num_mcmc": settings.n_draws,
        "general_params": {
            "standardize": False,
            "propensity_covariate": "none",
            "sigma2_global_init": 1.0,
            "sigma2_global_shape": 1.5,  # a weak prior, without which a perfect fit has no noise variance
            "sigma2_global_scale": 0.005,
            "num_threads": settings.n_threads,
        },
        "prognostic_forest_params": {"num_trees": settings.n_prognostic_trees, "min_samples_leaf": leaf},
        "treatment_effect_forest_params": {
            "min_samples_leaf": leaf,
            "num_trees": settings.n_effect_trees,
            "alpha": 0.95 if used else NEVER_SPLIT,
            "beta": 2.0,
            "sigma2_leaf_init": settings.effect_scale**2 / settings.n_effect_trees,
            "keep_vars": used or [0],
        },
    }
    if units.weighted:
        # stochtree 0.4.5 multiplies the noise variance by these, though its documentation says that it divides
        options["observation_weights"] = 1.0 / units.weight
        # stochtree 0.4.5 draws the intercept without the weights: the forest alone carries it
        options["treatment_effect_forest_params"]["sample_intercept"] = False
    else:
        options["treatment_effect_forest_params"]["tau_0_prior_var"] = 1.0
    if units.group_effects:
        options["rfx_group_ids_train"] = units.groups
        options["random_effects_params"] = {"model_spec": "intercept_only"}
    return options


def _redraw_intercept(model: Any, units: Units, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draws of the intercept with the villages' effects integrated out, shape (draw,).

    Stochtree updates the intercept given the villages' effects and those given the intercept: where villages
    were treated as a whole, the two hardly move together, and short chains understate the uncertainty.
    """
    assert units.groups is not None  # only called with village effects
    mean = forest_draws(model.forest_container_mu, units.table)
    residual = y - mean - units.dose * forest_draws(model.forest_container_tau, units.table)
    samples = model.rfx_container.extract_parameter_samples()
    effects = np.asarray(samples["beta_samples"], dtype=float).reshape(-1, len(residual))
    noise = np.asarray(model.global_var_samples, dtype=float)
    between = village_variance(effects, rng)
    return draw_intercept(residual, units.dose, units.weight, units.groups, noise, between, rng)


def _collect(models: list[Any], shift: FloatArray, intercepts: FloatArray, units: Units) -> Fitted:
    """The chains' forests, in units of the outcome where they are numbers, and what they say."""
    up, table = units.y_scale / units.t_scale, units.table
    containers = [model.forest_container_tau for model in models]
    prognostic = [model.forest_container_mu for model in models]
    noise = units.y_scale * np.sqrt([np.asarray(model.global_var_samples, dtype=float) for model in models])
    splits = np.sum([c.get_overall_split_counts(table.shape[1]) for c in containers], axis=0)
    forests = np.array([forest_draws(container, table) for container in containers])
    tau, share = up * (intercepts[:, :, None] + forests), units.weight / units.weight.sum()
    ate = np.asarray(tau @ share)
    return Fitted(
        containers=containers,
        prognostic_containers=prognostic,
        forests=[compress(container) for container in containers],
        prognostic_forests=[compress(container) for container in prognostic],
        shift=shift,
        intercept=up * intercepts,
        ate_draws=ate,
        effect_sd_draws=np.sqrt(np.maximum(tau**2 @ share - ate**2, 0.0)),
        noise_draws=noise,
        split_share=splits[: units.features.shape[1]] / max(float(splits.sum()), 1.0),
        diagnostics=chain_diagnostics({"ATE": ate, "noise": noise}),
    )


def chain_diagnostics(draws: dict[str, FloatArray]) -> dict[str, Any]:
    """R-hat and bulk effective sample size of named draws of shape (chain, draw), and their worst.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> summary = chain_diagnostics({"ATE": rng.standard_normal((4, 200))})
    >>> summary["r_hat"] < 1.02, summary["ess"] > 500
    (True, True)
    """
    each = {name: chain_summary({name: values}, 0, methods=lambda _: ("bulk",)) for name, values in draws.items()}
    worst = chain_summary(draws, 0, methods=lambda _: ("bulk",))
    return {
        "r_hat": worst["r_hat"],
        "ess": worst["ess"],
        **{f"{key} {name}": summary[key] for key in ("r_hat", "ess") for name, summary in each.items()},
        "n_chains": worst["n_chains"],
        "n_draws": worst["n_draws"],
        "source": "stochtree",
    }


# ---------------------------------------------------------------------- equations
def centre_outcome(y: FloatArray) -> tuple[FloatArray, float]:
    """The outcome less its mean, and that mean; the outcome as it is, and 0, where the mean is rounding.

    Chains of stochtree 0.4.5 that start at single leaves diverge from an outcome with another unweighted mean: its
    noise variance then grows to the mean times 1e6. A weighted mean of 0 does not do.

    Examples
    --------
    >>> y, level = centre_outcome(np.array([1.0, 2.0]))
    >>> y, level
    (array([-0.5,  0.5]), 1.5)
    """
    level = float(y.mean())
    return (y - level, level) if abs(level) > CENTRED else (y, 0.0)


def preliminary_effect(
    X: FloatArray, y: FloatArray, t: FloatArray, weight: FloatArray, groups: NDArray[np.int64] | None
) -> tuple[float, float]:
    """Linear regression's coefficient of the treatment and its cluster-robust error: where the chains start.

    Features are adjusted for where there are at least five units for each.

    Examples
    --------
    >>> t = np.array([-0.5, 0.5, -0.5, 0.5])
    >>> round(preliminary_effect(np.zeros((4, 1)), 2 * t, t, np.ones(4), None)[0], 6)
    2.0
    """
    design = np.column_stack([np.ones_like(t), t])
    if 5 * (X.shape[1] + 2) <= len(y):
        design = np.column_stack([design, X - X.mean(axis=0)])
    inverse = inverse_of_gram(design.T @ (weight[:, None] * design))
    coef = inverse @ (design.T @ (weight * y))
    codes = np.arange(len(y)) if groups is None else groups
    scores = np.zeros((int(codes.max()) + 1, design.shape[1]))
    np.add.at(scores, codes, design * (weight * (y - design @ coef))[:, None])
    variance = inverse[1] @ (scores.T @ scores) @ inverse[1]
    return float(coef[1]), float(np.sqrt(max(variance, 0.0)))


def village_variance(effects: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draws (draw,) of the villages' variance given draws (village, draw) of their effects.

    From its conditional inverse gamma with a weak prior, IG(1, 0.005) in units of the outcome's variance.
    """
    n_villages = effects.shape[0]
    return (0.005 + 0.5 * (effects**2).sum(axis=0)) / rng.gamma(1 + 0.5 * n_villages, size=effects.shape[1])


def draw_intercept(
    residual: FloatArray,
    dose: FloatArray,
    weight: FloatArray,
    groups: NDArray[np.int64],
    noise: FloatArray,
    between: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    r"""Draws (draw,) of a coefficient b in ``r = b t + u_g + e`` with the village effects integrated out.

    Generalised least squares with the variances of each draw and prior b ~ N(0, 1).

    Parameters
    ----------
    residual : ndarray of shape (draw, n)
        Outcome less the forests.
    dose, weight, groups : ndarray of shape (n,)
        Treatment, weights, village codes.
    noise, between : ndarray of shape (draw,)
        Variances of noise and of village effects.

    Examples
    --------
    >>> groups, t = np.repeat(np.arange(100), 4), np.repeat(np.arange(100) % 2, 4).astype(float)
    >>> one = np.ones(2000)
    >>> b = draw_intercept(np.tile(t, (2000, 1)), t, np.ones(400), groups, one, one, np.random.default_rng(0))
    >>> round(float(b.mean()), 1), round(float(b.std()), 2)  # sqrt(1.25 / 50)
    (1.0, 0.16)
    """
    member = np.zeros((len(dose), int(groups.max()) + 1))
    member[np.arange(len(dose)), groups] = weight
    precision = 1.0 / np.maximum(noise, 1e-12)
    share = precision[:, None] / (1.0 / np.maximum(between, 1e-12)[:, None] + precision[:, None] * member.sum(axis=0))
    by_dose = dose @ member
    information = 1.0 + precision * ((weight * dose) @ dose - share @ by_dose**2)
    score = precision * (residual @ (weight * dose) - ((residual @ member) * share) @ by_dose)
    return np.asarray(score / information + rng.standard_normal(len(noise)) / np.sqrt(information))


def propensity_surface(X: FloatArray, pi: FloatArray, *, binary: bool) -> Any:
    """Ridge regression of the training units' propensities, as logits where binary, on the features."""
    clipped = np.clip(pi, 1e-6, 1 - 1e-6)
    return default_regressor().fit(X, np.log(clipped / (1 - clipped)) if binary else pi)


def propensity_at(surface: Any, X: FloatArray, *, binary: bool) -> FloatArray:
    """Propensity of new units, shape (n,), from :func:`propensity_surface`.

    Examples
    --------
    >>> X = np.linspace(-2, 2, 50)[:, None]
    >>> surface = propensity_surface(X, 1 / (1 + np.exp(-X[:, 0])), binary=True)
    >>> propensity_at(surface, np.array([[0.0], [1.0]]), binary=True).round(2)
    array([0.5 , 0.73])
    """
    linear = np.asarray(surface.predict(X), dtype=float)
    return 1 / (1 + np.exp(-linear)) if binary else linear


def generator(random_state: Any) -> np.random.Generator:
    """A Generator from an int, a Generator, a RandomState or None."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(int(random_state.randint(2**31 - 1)))
    return np.random.default_rng(random_state)
