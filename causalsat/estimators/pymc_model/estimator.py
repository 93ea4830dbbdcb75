"""A user's own PyMC model under the contract of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from causalsat.base import OutcomeEstimator, Summary
from causalsat.core.inputs import FitData, FloatArray, check_whole_numbers
from causalsat.core.warn import warn
from causalsat.design import adjust_for_design, balancing_weights, make_design
from causalsat.estimators.levels import FittedLevels, check_coding, is_binary
from causalsat.estimators.pymc_model.build import SavedBuild, build_function, chosen_build, saved_build
from causalsat.estimators.pymc_model.data import ModelData
from causalsat.estimators.pymc_model.expression import LEVEL_INPUT, Expression, Graph, compiled, read, written
from causalsat.estimators.pymc_model.fit import MEAN_OUTCOME, Sampled, check_model, effect_graph, sample, values_at
from causalsat.exceptions import DataError, DataWarning, ModelFileError, ParameterError
from causalsat.inference.chains import Settings, chain_summary, seed_of, warn_of_chains
from causalsat.posterior import draw_quantiles

__all__ = ["PyMCEffect"]

MAX_SHOWN = 10  # elements of a variable in the summary
MAX_JUDGED = 50  # elements of a variable in the chains' diagnostics
ADVICE = "raise n_tune and n_draws, give scales stronger priors, or write group effects as a scale times N(0, 1)"


class PyMCEffect(FittedLevels, OutcomeEstimator):
    """A PyMC model of your own: fitted by nutpie, with posterior effects at new places, maps and files.

    ``build(data)`` returns the model of the fit's data. The model holds the features as ``pm.Data("X", data.X)`` and
    one of two deterministics, a number for each unit:

    * ``pm.Deterministic("mean_outcome", ...)``, the mean outcome at ``X`` and ``pm.Data("treatment",
      data.treatment)``. Effects are its differences between levels, and :meth:`predict_outcome` gives it.
    * ``pm.Deterministic("effect", ...)``, the effect at ``X`` of one unit of treatment; or, where it reads the data
      ``treatment``, of that level against 0.

    At new places ``X`` and ``treatment`` are replaced; every other number in the deterministic stays that of the fit.
    A village's own deviation is for the likelihood, and no part of the deterministic.

    Parameters
    ----------
    build : callable or str, optional
        Function of the data that returns a ``pymc.Model``, or where it is: ``"package.module:function"`` or
        ``"path/to/file.py:function"``. Default: a linear model with village effects and normal noise.
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws of each chain, and chains.
    target_accept : float, optional
        Share of accepted steps that the sampler aims at; nutpie's by default. Nearer to 1 where it diverges.
    random_state : int, RandomState or None
        Seed of the chains.
    progress : bool
        Show nutpie's progress bar.

    Attributes
    ----------
    draws_ : dict of str to ndarray of shape (draw, ...)
        Posterior draws of the model's unobserved variables and of deterministics that are single numbers, chains one
        after the other.
    ate_draws_ : ndarray of shape (draw,)
        Average effect on the units of the fit.
    quantity_ : str
        ``"mean_outcome"`` or ``"effect"``.
    reads_ : list of str
        What of clusters, strata, weights and probabilities the model reads.

    Notes
    -----
    ``data`` has ``X`` (n, p) in its own units with missing values replaced, ``y``, ``treatment``, ``features``
    (names), ``groups`` and ``n_groups``, ``strata`` and ``n_strata``, ``sample_weight`` (mean 1), ``propensity`` (or
    None), and ``is_clustered``, ``is_weighted``, ``is_stratified``; ``standardised()`` gives means and standard
    deviations. What the model reads of these is noted. Weights that it does not read are refused. Clusters that it
    does not read give a warning: intervals then take units as independent. Strata or probabilities that it does not
    read enter as for other estimators, in the outcome and in the weights.

    Effects have to be a function of the unit's own ``X``, which is checked before sampling: standardise by
    ``data.X``'s numbers and not by those of the variable. Unobserved variables must be continuous. A model whose
    numbers are all ``pm.Data`` is compiled once for all fits of one structure.

    A file holds the draws and the arithmetic of the deterministic, and of ``build`` the name and the digest of its
    source. A loaded model predicts without running ``build``, and needs it to fit again:
    ``causalsat.load(path, modules=build)``.

    Examples
    --------
    >>> import pymc as pm
    >>> def build(data):
    ...     with pm.Model() as model:
    ...         X, t = pm.Data("X", data.X), pm.Data("treatment", data.treatment)
    ...         level, slope = pm.Normal("level", sigma=5), pm.Normal("slope", sigma=5)
    ...         effect = pm.Normal("effect_at_0", sigma=5) + X[:, 0] * pm.Normal("moderation", sigma=5)
    ...         mean = pm.Deterministic("mean_outcome", level + X[:, 0] * slope + t * effect)
    ...         pm.StudentT("y", nu=4, mu=mean, sigma=pm.HalfNormal("noise", sigma=5), observed=data.y)
    ...     return model
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((300, 1)), np.arange(300) % 2
    >>> y = X[:, 0] + t * (1 + X[:, 0]) + 0.2 * rng.standard_t(4, 300)
    >>> est = PyMCEffect(build, n_draws=300, random_state=0).fit(X, y, treatment=t)
    >>> bool(np.abs(est.effect([[0.0], [1.0]]).mean() - [1, 2]).max() < 0.15)
    True
    """

    _learns_places: ClassVar[bool] = True
    _takes_design: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {"n_draws": 100, "n_tune": 150, "n_chains": 2, "random_state": 0}
    _transient: ClassVar[tuple[str, ...]] = ("_model_data", "_function", "_graph")

    def __init__(
        self,
        build: Any = None,
        *,
        n_draws: int = 500,
        n_tune: int = 500,
        n_chains: int = 4,
        target_accept: float | None = None,
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        self.build = build
        self.n_draws = n_draws
        self.n_tune = n_tune
        self.n_chains = n_chains
        self.target_accept = target_accept
        self.random_state = random_state
        self.progress = progress

    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_draws": 1, "n_tune": 50, "n_chains": 1})
        if self.target_accept is not None and not 0 < self.target_accept < 1:
            raise ParameterError(
                f"target_accept={self.target_accept!r}", expected="a number between 0 and 1, or None"
            )
        build_function(self.build)

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        check_coding(data.treatment)
        self.binary_ = is_binary(data.treatment)
        settings = Settings(
            self.n_draws, self.n_tune, self.n_chains, seed_of(self.random_state), self.progress, self.target_accept
        )
        model, handed = self._build(data)
        self.reads_ = sorted(handed.read)
        self.quantity_, graph = effect_graph(model)
        check_model(model, graph, handed.X, handed.treatment)
        self._model_data = model
        self._keep(graph)
        self._take(sample(model, settings), handed)

    def _build(self, data: FitData) -> tuple[Any, ModelData]:
        """The model, and what it was made of: of data adjusted for a design that it does not read."""
        build, handed = build_function(self.build), ModelData(data)
        model = build(handed)
        designed = data.strata is not None or (data.propensity is not None and np.ptp(data.propensity) > 0)
        if designed and not handed.read & {"strata", "propensity"}:
            handed = ModelData(_adjusted(data, shift=self._outcome_may_shift(data.y)))
            model = build(handed)
        if handed.is_weighted and "sample_weight" not in handed.read:
            design = " (those of the design, under which treatment is independent of the strata)" if designed else ""
            raise ParameterError(
                f"units that differ in weight{design}, and a model that does not read data.sample_weight",
                expected="a model that weighs its likelihood",
                todo="pm.Potential('y', (data.sample_weight * pm.logp(distribution, data.y)).sum()) in place of an "
                f"observed variable{', or a model that reads data.strata or data.propensity' if designed else ''}",
            )
        if handed.is_clustered and "groups" not in handed.read:
            warn(
                "the model does not read data.groups: it takes the units of a cluster as independent, and its "
                "intervals are too short where they are alike. What to do: give each cluster an effect of its own.",
                DataWarning,
            )
        return model, handed

    def _keep(self, graph: Graph) -> None:
        """Keep the arithmetic of the deterministic, written down where that can be."""
        self.reads_level_ = LEVEL_INPUT in graph.inputs
        try:
            self.expression_: Expression | None = written(graph)
            self.unwritten_ = ""
        except ModelFileError as error:
            self.expression_, self.unwritten_, self._graph = None, error.what, graph
        self._function = self._compiled()

    def _take(self, sampled: Sampled, data: ModelData) -> None:
        """Keep the draws, the average effect and what the chains say of themselves."""
        self.draws_ = {name: v.reshape(-1, *v.shape[2:]) for name, v in sampled.draws.items()}
        one = np.ones(len(data.y))
        weight = data.sample_weight / data.sample_weight.sum()
        self.ate_draws_ = np.array([row @ weight for row in self._contrasts(data.X, one, 0 * one)])
        shape = next(iter(sampled.draws.values())).shape[:2]
        judged = {"ate": self.ate_draws_.reshape(shape), **{k: _some(v) for k, v in sampled.draws.items()}}
        self.diagnostics_ = chain_summary(judged, sampled.divergences)
        warn_of_chains(self.diagnostics_, advice=ADVICE)

    def to_pymc(self) -> Any:
        """Return the model of the fit, with its data, for PyMC's own tools.

        Raises
        ------
        DataError
            If the estimator was loaded or copied, which leaves the training data out.
        """
        return self._fit_data()

    # ------------------------------------------------------------------ effects and outcomes
    def _compiled(self) -> Callable[..., FloatArray]:
        """The deterministic as a function of its inputs."""
        if self.expression_ is not None:
            return compiled(read(self.expression_))
        if not hasattr(self, "_graph"):
            raise DataError(
                f"a copy of a PyMCEffect whose effect cannot be copied: {self.unwritten_}",
                expected="the estimator on which fit ran",
                todo="fit it again",
            )
        return compiled(self._graph)

    def _values(self, X: FloatArray, level: FloatArray | None) -> Iterator[FloatArray]:
        """The deterministic at units and levels (n,), for one draw after another."""
        if not hasattr(self, "_function"):
            self._function = self._compiled()
        names = self.expression_.names if self.expression_ is not None else tuple(self._graph.inputs)
        draws = {name: self.draws_[name] for name in names if name in self.draws_}
        for s in range(len(next(iter(self.draws_.values())))):
            yield values_at(self._function, names, {name: v[s] for name, v in draws.items()}, X, level)

    def _contrasts(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> Iterator[FloatArray]:
        """Effects (n,), one draw after another."""
        if not self.reads_level_:
            yield from (row * (treatment - baseline) for row in self._values(X, None))
            return
        pairs = zip(self._values(X, treatment), self._values(X, baseline), strict=True)
        yield from (one - zero for one, zero in pairs)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        return np.array(list(self._contrasts(X, treatment, baseline)))

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        if self.quantity_ != MEAN_OUTCOME:
            raise ParameterError(
                "a PyMC model of effects only, which has no outcome under a treatment",
                expected=f"a model with pm.Deterministic({MEAN_OUTCOME!r}, ...)",
                todo="use effect(X)",
            )
        return np.array(list(self._values(X, level)))

    def _trial_draws(self, design: FloatArray) -> Iterator[FloatArray]:
        yield self._effect_draws(design, np.ones(len(design)), np.zeros(len(design)))

    # ------------------------------------------------------------------ reports and files
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.diagnostics_)

    def _summary(self) -> Summary:
        import pandas as pd

        rows = {"ATE": self.ate_draws_}
        for name, draws in self.draws_.items():
            flat = draws.reshape(len(draws), -1)
            if flat.shape[1] <= MAX_SHOWN:
                labels = [name] if draws.ndim == 1 else [f"{name}[{','.join(map(str, i))}]" for i in _places(draws)]
                rows |= dict(zip(labels, flat.T, strict=True))
        table = pd.DataFrame.from_dict({name: _row(draws) for name, draws in rows.items()}, orient="index")
        info = {
            "units": self.n_units_,
            "clusters": self.n_groups_,
            "read by the model": ", ".join(self.reads_) or "X, y and treatment only",
            **self._diagnostics(),
        }
        notes = ("The ATE is the mean effect of the units of the fit; other rows are the model's variables.",)
        return Summary(f"PyMCEffect ({self._build_name()})", table, info, notes)

    def _build_name(self) -> str:
        build = saved_build(build_function(None)) if self.build is None else self.build
        return (build if isinstance(build, SavedBuild) else saved_build(build)).name

    def _saved_state(self) -> Mapping[str, Any]:
        """Attributes for a file: the build function by its name and the digest of its source."""
        if getattr(self, "expression_", None) is None and hasattr(self, "unwritten_"):
            raise ModelFileError(
                self.unwritten_,
                expected="arithmetic of pytensor.tensor on X, treatment and the model's variables",
                todo="write the effect in those, or keep its draws: effect(X).to_xarray().to_netcdf(path)",
            )
        state = dict(vars(self))
        if self.build is not None and not isinstance(self.build, SavedBuild):
            state["build"] = saved_build(self.build)
        return state

    def _take_modules(self, modules: Any) -> None:
        """After loading: the build function that the user passes, if its source is that of the file."""
        if isinstance(self.build, SavedBuild):
            self.build = chosen_build(self.build, modules)


def _adjusted(data: FitData, *, shift: bool) -> FitData:
    """Data whose outcome and weights make treatment independent of the strata."""
    weights = data.sample_weight if data.weighted else None
    design = make_design(
        data.treatment, groups=data.groups, strata=data.strata, sample_weight=weights, propensity=data.propensity
    )
    y, weight = adjust_for_design(data.y, design, shift=shift)
    balanced = bool(np.ptp(balancing_weights(design)) > 0)
    return replace(data, y=y, sample_weight=weight, weighted=data.weighted or balanced, balanced=balanced)


def _some(draws: FloatArray) -> FloatArray:
    """At most fifty elements of a variable (chain, draw, ...), evenly spaced, as (chain, draw, k)."""
    flat = draws.reshape(*draws.shape[:2], -1)
    if flat.shape[2] <= MAX_JUDGED:
        return flat
    return flat[:, :, np.linspace(0, flat.shape[2] - 1, MAX_JUDGED).astype(int)]


def _places(draws: FloatArray) -> Iterator[tuple[int, ...]]:
    return np.ndindex(*draws.shape[1:])


def _row(draws: FloatArray) -> dict[str, float]:
    low, high = draw_quantiles(draws, [0.025, 0.975])
    return {"mean": float(draws.mean()), "sd": float(draws.std(ddof=1)), "[0.025": float(low), "0.975]": float(high)}
