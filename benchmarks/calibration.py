"""Are the posteriors calibrated? Simulation-based calibration, and coverage of 50, 90 and 95 % intervals.

    python benchmarks/calibration.py [--replications 200] [--pymc 200] [--trials 200] [--estimators NAME ...]

Rows are kept (see benchmarks/kept_rows.py): a run that was stopped goes on; delete them to measure changed code.
The first table ranks the true parameters of BayesianLinearEffect's model among its draws (``sbc.py`` says how); the
second counts how often intervals contain the true effects of new places and the true average effect of the trial's
units, in worlds that match an estimator's model and in one that matches none. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
import kept_rows
import sbc

LEVELS = (0.5, 0.9, 0.95)
N_GROUPS, GROUP_SIZE, N_NEW = 40, 5, 50

MODELS = (
    sbc.Model(),
    sbc.Model(prior="r2d2"),
    sbc.Model(villages=12),
    sbc.Model(prior="normal", villages=12, mixed=False),
    sbc.Model(family="bernoulli"),
    sbc.Model(prior="normal", family="bernoulli", villages=12),
)
REFERENCES = (sbc.Model(villages=12), sbc.Model(prior="normal", family="bernoulli", villages=12))


# ---------------------------------------------------------------------- worlds
def world(name: str, rng: np.random.Generator) -> dict[str, Any]:
    """One trial: X, y, t, groups, the effects of its units and of 50 new places.

    "prior": 20 villages of 5, treated as a whole; all parameters from the documented priors of BayesianLinearEffect
    with ``prior="normal"``, the first two of three features modify the effect.
    "units": 200 units treated one by one; three features with slopes of sd 0.3 in the effect; noise of sd 0.7, 1.2.
    "linear": the same slopes and noise in 40 villages of 5, treated as a whole; features of the village, village
    effects of sd 0.3.
    "smooth": 100 units treated one by one; two features, curved prognosis, an effect with a line and a sine of
    random size; noise of sd 0.6 and 1.
    "steps": villages as in "linear"; the effect jumps by 1 where the first feature is above 0, noise is skewed
    (a centred exponential) and its sd grows with the second feature.
    """
    if name == "prior":
        return _prior_world(rng)
    if name == "smooth":
        return _smooth_world(rng)
    n = N_GROUPS * GROUP_SIZE
    groups = None if name == "units" else np.repeat(np.arange(N_GROUPS), GROUP_SIZE)
    at = np.arange(n) if groups is None else groups
    t = rng.permutation(at.max() + 1)[at] % 2
    X, new = rng.standard_normal((at.max() + 1, 3))[at], rng.standard_normal((N_NEW, 3))
    slopes, average = 0.3 * rng.standard_normal(3), rng.standard_normal()
    noise = (0.7 + 0.5 * t) * rng.standard_normal(n)
    if name == "steps":
        noise = (0.7 + 0.3 * np.abs(X[:, 1])) * (rng.exponential(size=n) - 1)
    tau, places = (average + (1.0 * (x[:, 0] > 0) if name == "steps" else x @ slopes) for x in (X, new))
    y = 0.3 * X[:, 0] + t * tau + noise
    if groups is not None:
        y += 0.3 * rng.standard_normal(N_GROUPS)[groups]
    return {"X": X, "y": y, "t": t, "groups": groups, "tau_units": tau, "new": new, "tau": places}


def _smooth_world(rng: np.random.Generator) -> dict[str, Any]:
    X, new = rng.standard_normal((100, 2)), rng.standard_normal((N_NEW, 2))
    t, size = rng.permutation(100) % 2, rng.standard_normal(2)
    tau, places = (1 + size[0] * x[:, 0] + size[1] * np.sin(1.5 * x[:, 1]) for x in (X, new))
    y = np.cos(X[:, 0]) + X[:, 1] + t * tau + np.where(t, 1.0, 0.6) * rng.standard_normal(100)
    return {"X": X, "y": y, "t": t, "groups": None, "tau_units": tau, "new": new, "tau": places}


def _prior_world(rng: np.random.Generator) -> dict[str, Any]:
    data, truth = sbc.simulate(sbc.Model(prior="normal", villages=20, mixed=False, n=100), rng)
    new = rng.standard_normal((N_NEW, data["X"].shape[1]))
    tau, places = (truth["treatment"] + x[:, :2] @ truth["interaction"] for x in (data["X"], new))
    roles = {"X": data["X"], "y": data["y"], "t": data["treatment"], "groups": data["groups"]}
    return roles | {"tau_units": tau, "new": new, "tau": places}


WORLDS = ("prior", "smooth", "steps", "linear", "units")


def linear(seed: int) -> Any:
    from causalsat import BayesianLinearEffect

    return BayesianLinearEffect(n_draws=250, n_tune=150, n_chains=1, random_state=seed)


def linear_of_the_prior(seed: int) -> Any:
    return linear(seed).set_params(prior="normal", modifiers=[0, 1], group_slopes=False)


def doubly_robust(seed: int) -> Any:
    """Without lack of fit, as all linear estimators here: the question is the coverage of the intervals."""
    from sklearn.linear_model import LinearRegression

    from causalsat import DoublyRobustEffect

    return DoublyRobustEffect(outcome_model=LinearRegression(), lack_of_fit=0, n_draws=400, random_state=seed)


def unshrunk(seed: int) -> Any:
    return doubly_robust(seed).set_params(regularisation=None)


def gaussian_process(seed: int) -> Any:
    from causalsat import GaussianProcessEffect

    return GaussianProcessEffect(n_draws=200, n_hyper=10, max_iter=25, random_state=seed)


def learner(kind: str) -> Callable[[int], Any]:
    """A meta-learner over least squares, without lack of fit."""
    from sklearn.linear_model import LinearRegression

    models = ("outcome_model",) if kind == "TLearnerEffect" else ("outcome_model", "final_model")

    def make(seed: int) -> Any:
        import causalsat

        return getattr(causalsat, kind)(
            **{name: LinearRegression() for name in models}, n_bootstrap=100, lack_of_fit=0, random_state=seed
        )

    return make


def forest(seed: int) -> Any:
    from causalsat import BayesianForestEffect

    return BayesianForestEffect(
        n_chains=1, n_draws=150, n_tune=60, n_prognostic_trees=50, n_effect_trees=20, random_state=seed
    )


def stack(seed: int) -> Any:
    from causalsat import StackedEffect

    members = [("linear", linear(seed)), ("robust", doubly_robust(seed))]
    return StackedEffect(members, cv=2, n_bootstrap=100, n_draws=400, random_state=seed)


LEARNERS = ("TLearnerEffect", "XLearnerEffect", "RLearnerEffect", "DRLearnerEffect")
FACTORIES: dict[str, Callable[[int], Any]] = {
    "BayesianLinearEffect": linear,
    "BayesianLinearEffect, normal prior": linear_of_the_prior,
    "DoublyRobustEffect": doubly_robust,
    "DoublyRobustEffect, unshrunk": unshrunk,
    "GaussianProcessEffect": gaussian_process,
    **{kind: learner(kind) for kind in LEARNERS},
    "BayesianForestEffect": forest,
    "StackedEffect": stack,
}
# (estimator, world, whether the world is one that the estimator's model or theory describes)
CASES = (
    ("BayesianLinearEffect, normal prior", "prior", "matches"),
    ("BayesianLinearEffect", "linear", "matches, save for the law of the slopes"),
    ("BayesianLinearEffect", "steps", "does not"),
    ("DoublyRobustEffect, unshrunk", "units", "matches"),
    ("DoublyRobustEffect, unshrunk", "linear", "matches with many villages"),
    ("DoublyRobustEffect", "linear", "matches with many villages"),
    ("DoublyRobustEffect", "steps", "does not"),
    ("GaussianProcessEffect", "smooth", "matches, save for the law of the curves"),
    ("GaussianProcessEffect", "steps", "does not"),
    *((kind, "units", "matches") for kind in LEARNERS),
    ("RLearnerEffect", "linear", "matches with many villages"),
    ("BayesianForestEffect", "units", "does not: smooth effects"),
    ("BayesianForestEffect", "steps", "matches but for the noise"),
    ("StackedEffect", "units", "matches"),
)


# ---------------------------------------------------------------------- coverage
def covered(
    factory: Callable[[int], Any], place: str, n_trials: int, size: int | None = None
) -> tuple[NDArray[np.float64], float]:
    """Coverage of intervals in each trial of a world, fitted to its first ``size`` units.

    Returns the shares of new places inside the 50, 90 and 95 % intervals and whether the average effect is, shape
    (trial, 6), and CPU seconds a fit.
    """
    rows = [trial_row(factory, place, trial, size) for trial in range(n_trials)]
    return np.array([row[:6] for row in rows]), float(np.mean([row[6] for row in rows]))


def trial_row(factory: Callable[[int], Any], place: str, trial: int, size: int | None = None) -> list[float]:
    """Coverage in one trial, as :func:`covered` says, and CPU seconds of the fit."""
    data = world(place, np.random.default_rng([trial, WORLDS.index(place)]))
    X, y, t, tau = (data[name][:size] for name in ("X", "y", "t", "tau_units"))
    groups = None if data["groups"] is None else data["groups"][:size]
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = factory(trial).fit(X, y, treatment=t, groups=groups)
    seconds = time.process_time() - began
    effects, average = model.effect(data["new"]), model.effect(X).ate()
    row = []
    for level in LEVELS:
        lower, upper = effects.interval(level).T
        row.append(float(((lower < data["tau"]) & (data["tau"] < upper)).mean()))
    for level in LEVELS:
        lower, upper = average.interval(level)[0]
        row.append(float(lower < tau.mean() < upper))
    return [*row, seconds]


def standard_errors(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the six mean coverages: trials are independent, places within a trial are not."""
    units = rows[:, :3].std(axis=0, ddof=1) / np.sqrt(len(rows))
    hits = [np.sqrt(level * (1 - level) / len(rows)) for level in LEVELS]
    return np.concatenate([units, hits])


def kept(name: str, place: str, n_trials: int) -> tuple[NDArray[np.float64], float]:
    """As :func:`covered`, with rows kept on disk (see kept_rows.py)."""
    columns = [*(f"places {level:.0%}" for level in LEVELS), *(f"average {level:.0%}" for level in LEVELS), "CPU s"]

    def make(trial: int) -> kept_rows.Row:
        return dict(zip(columns, trial_row(FACTORIES[name], place, trial), strict=True))

    found = [kept_rows.kept_row("coverage", f"{name}|{place}|{t}", partial(make, t)) for t in range(n_trials)]
    rows = np.array([[row[column] for column in columns] for row in found])
    return rows[:, :6], float(rows[:, 6].mean())


def coverage_table(n_trials: int, names: Sequence[str] = tuple(FACTORIES)) -> str:
    """One row for each estimator and world; standard errors in thousandths in brackets."""
    lines = [
        "| estimator | world | its model | places 50 % | 90 % | 95 % | average 50 % | 90 % | 95 % | CPU s a fit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, place, fits in CASES:
        if name not in names:
            continue
        rows, seconds = kept(name, place, n_trials)
        cells = [f"{m:.3f} ({1000 * s:.0f})" for m, s in zip(rows.mean(axis=0), standard_errors(rows), strict=True)]
        lines.append(f"| {name} | {place} | {fits} | {' | '.join(cells)} | {seconds:.2f} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------- calibration
def kept_ranks(model: sbc.Model, replications: int, **options: Any) -> tuple[dict[str, NDArray[np.int64]], float]:
    """Ranks of the true values, for each quantity, and CPU seconds a fit; rows are kept on disk."""

    def make(r: int) -> kept_rows.Row:
        began = time.process_time()
        data, truth = sbc.simulate(model, np.random.default_rng([0, r]))
        one = sbc.ranks(model, [(data, truth, sbc.posterior(model, data, r, **options))])
        return {name: float(values[0]) for name, values in one.items()} | {"CPU s": time.process_time() - began}

    name = f"{model.name}{options or ''}"
    rows = [kept_rows.kept_row("calibration", f"{name}|{r}", partial(make, r)) for r in range(replications)]
    table = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    seconds = float(table.pop("CPU s").mean())
    return {key: values.astype(np.int64) for key, values in table.items()}, seconds


def calibration_table(models: Sequence[sbc.Model], replications: int, **options: Any) -> str:
    """p-values of uniform ranks (band of the distribution function / chi-square), a row for each quantity."""
    columns, seconds = [], []
    for model in models:
        found, cost = kept_ranks(model, replications, **options)
        columns.append(found)
        seconds.append(cost)
    names = list(dict.fromkeys(name for column in columns for name in column))
    lines = [f"| quantity | {' | '.join(m.name for m in models)} |", f"|---|{'---|' * len(models)}"]
    smallest, tests = 1.0, 0
    for name in names:
        cells = []
        for column in columns:
            if name not in column:
                cells.append("")
                continue
            band, chi = sbc.ecdf_p_value(column[name]), sbc.chi_square(column[name])
            smallest, tests = min(smallest, band), tests + 1
            cells.append(f"{band:.2f} / {chi:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(f"| CPU s a fit | {' | '.join(f'{s:.2f}' for s in seconds)} |")
    by_number = min(1.0, smallest * tests)
    word = f"Smallest of the {tests} p-values of the band: {smallest:.4f}, by Bonferroni {by_number:.2f}."
    return "\n".join([*lines, "", word])


def run(replications: int, pymc: int, trials: int, names: Sequence[str]) -> str:
    """All tables, as Markdown."""
    parts = [
        f"Simulation-based calibration of BayesianLinearEffect's model: {replications} replications of "
        f"{MODELS[0].n} units, p-values of uniform ranks, band of the distribution function / chi-square.",
        "",
        calibration_table(MODELS, replications),
    ]
    if pymc:
        parts += [
            "",
            f'The same of the reference, `sampler="pymc"`, {pymc} replications.',
            "",
            calibration_table(REFERENCES, pymc, sampler="pymc"),
        ]
    if trials:
        parts += [
            "",
            f"Coverage over {trials} trials; standard errors in thousandths in brackets (of trials, not places). "
            "Doubly robust and meta-learners have `lack_of_fit=0`.",
            "",
            coverage_table(trials, names),
            "",
            *(f'"{" ".join(line.split())}' for line in (world.__doc__ or "").split('\n    "')[1:]),
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--pymc", type=int, default=200, help="replications of the PyMC reference; 0 for none")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--estimators", nargs="*", default=list(FACTORIES), choices=list(FACTORIES))
    chosen = parser.parse_args()
    print(run(chosen.replications, chosen.pymc, chosen.trials, chosen.estimators))
