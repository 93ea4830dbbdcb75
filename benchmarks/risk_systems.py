"""Four smaller systems for risks, each on its simulation against the named baselines, in one table.

CaPE (``CalibratedProbability``): images of 12 x 12 pixels whose two patterns together decide a probability from 0.05
to 0.55; squared error to the true probability and Brier score on new images of the same network trained for 30
epochs, the same with its temperature fitted on held-out images, stopped early, and calibrated; and how often no
epoch of the calibration had a better held-out loss than early stopping's, whose weights are then kept. Two regimes: a
small convolutional network, and a wide one of dense layers at a learning rate of 0.003, which overfits fast. PRESTO
(``RareOutcome``): the paper's design (2,500 units, 10 features, four classes; Faletto and Bien 2023), squared error
of the rare class's probability. DEUP (``DirectUncertainty``): 15 regions of a trial and 15 new ones further out;
Spearman correlation with the squared error in the new regions. Quantile aggregation (``aggregate_quantiles``) and the
conformal step (``conformal_outcome_intervals``), for the outcomes of each arm of cluster-randomised trials with
heteroscedastic, non-linear outcomes: pinball loss, and coverage of 80 % intervals, in new villages.

    python benchmarks/risk_systems.py [--seeds 4]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import spearmanr

FloatArray = NDArray[np.float64]


# ---------------------------------------------------------------------- CaPE
def images(seed: int, n: int = 1500, fresh: int = 2000, px: int = 12) -> tuple[Any, ...]:
    """Noisy images of two patterns, labels, and for new images the labels and probabilities."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n + fresh, 2))
    grid = np.linspace(-1, 1, px)
    down, across = np.meshgrid(grid, grid, indexing="ij")
    blob, wave = np.exp(-((across - 0.4) ** 2 + (down - 0.4) ** 2) / 0.1), np.sin(6 * across)
    X = np.stack([z[:, 0, None, None] * blob, z[:, 1, None, None] * wave], axis=1)
    X = (X + rng.standard_normal(X.shape)).astype(np.float32)
    p = 0.05 + 0.5 * expit(2 * z[:, 0] * z[:, 1])
    y = (rng.random(len(p)) < p).astype(int)
    return X[:n], y[:n], X[n:], y[n:], p[n:]


def network(seed: int) -> Any:
    """A small convolutional network."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    body = [nn.Conv2d(2, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 1))


def wide_network(seed: int) -> Any:
    """Two wide dense layers."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers = [nn.Linear(288, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1)]
    return nn.Sequential(nn.Flatten(), *layers)


REGIMES = {"small network": (network, 1e-3), "wide network, fast": (wide_network, 3e-3)}


def long_training(
    regime: str, X: Any, y: Any, held: NDArray[np.bool_], fresh: Any, seed: int, epochs: int = 30
) -> tuple[Any, Any]:
    """Probabilities of new images after many epochs, and the same at the best temperature on held-out images."""
    import torch
    from scipy.optimize import minimize_scalar

    make, rate = REGIMES[regime]
    net = make(seed)
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-4)
    rows, labels = torch.from_numpy(X[~held]), torch.from_numpy(y[~held]).float()
    for _ in range(epochs):
        for part in torch.randperm(len(rows)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(net(rows[part])[:, 0], labels[part]).backward()
            optimiser.step()
    with torch.inference_mode():
        out, test = (net(torch.from_numpy(part))[:, 0].double().numpy() for part in (X[held], fresh))

    def loss(scale: float) -> float:
        return float(np.mean(np.logaddexp(0.0, np.where(y[held] == 1, -1, 1) * np.exp(scale) * out)))

    return expit(test), expit(np.exp(minimize_scalar(loss, bounds=(-5, 2), method="bounded").x) * test)


def cape(seed: int, regime: str) -> dict[str, list[float]]:
    """Squared error to the probability (times 10^4), Brier score, and whether early stopping's weights were kept."""
    from causalsat import CalibratedProbability

    X, y, fresh, outcome, p = images(seed)
    held = np.arange(len(y)) % 5 == 0
    make, rate = REGIMES[regime]
    shared = {"learning_rate": rate, "random_state": seed}
    trained = long_training(regime, X, y, held, fresh, seed)
    found = {name: (q, 0.0) for name, q in zip(("30 epochs", "30 epochs, temperature"), trained, strict=True)}
    for name, more in (("early stopping", {"cycles": 0}), ("CaPE", {}), ("CaPE, kernel", {"smoothing": "kernel"})):
        model = CalibratedProbability(make(seed), **shared, **more).fit(X, y)
        found[name] = (model.predict_proba(fresh)[:, 1], float(model.log_loss_ == model.log_loss_early_))
    return {
        name: [1e4 * float(np.mean((q - p) ** 2)), float(np.mean((q - outcome) ** 2)), same]
        for name, (q, same) in found.items()
    }


# ---------------------------------------------------------------------- PRESTO
def presto(seed: int, cuts: tuple[float, ...]) -> dict[str, list[float]]:
    """Squared error of the rare class's probability, times 10^4."""
    from sklearn.linear_model import LogisticRegression
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    from causalsat import RareOutcome

    rng = np.random.default_rng(100 + seed)
    X = rng.uniform(-1, 1, (7500, 10))
    slopes = np.ones((3, 10))
    for k in (1, 2):
        slopes[k] = slopes[k - 1] + 0.5 * (rng.random(10) < 1 / 3) * rng.choice([-1, 1], 10)
    below = np.maximum.accumulate(expit(np.array(cuts) + X @ slopes.T), axis=1)
    y = (rng.random(len(X))[:, None] > below).sum(axis=1)
    X, y, fresh, truth = X[:2500], y[:2500], X[2500:], 1 - below[2500:, -1]
    shared = OrderedModel(y, X, distr="logit")
    found = {
        "PRESTO": RareOutcome(random_state=0).fit(X, y).predict_proba(fresh)[:, 3],
        "logistic, rare class": LogisticRegression(C=np.inf, max_iter=1000).fit(X, y == 3).predict_proba(fresh)[:, 1],
        "proportional odds": np.asarray(shared.predict(shared.fit(method="bfgs", disp=0).params, exog=fresh))[:, 3],
    }
    return {name: [1e4 * float(np.mean((q - truth) ** 2))] for name, q in found.items()}


# ---------------------------------------------------------------------- DEUP
def linear(train: FloatArray, y: FloatArray, new: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Bayesian linear regression."""
    from sklearn.linear_model import BayesianRidge

    return BayesianRidge().fit(train, y).predict(new, return_std=True)  # type: ignore[no-any-return]


def forest(train: FloatArray, y: FloatArray, new: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Random forest, sd over its trees."""
    from sklearn.ensemble import RandomForestRegressor

    trees = RandomForestRegressor(30, min_samples_leaf=3, random_state=0).fit(train, y).estimators_
    found = np.array([tree.predict(new) for tree in trees])
    return found.mean(axis=0), found.std(axis=0)


def deup(seed: int, predict: Callable[..., Any]) -> dict[str, list[float]]:
    """Spearman correlation with the squared error in new regions."""
    from causalsat.evaluation import DirectUncertainty

    rng = np.random.default_rng(200 + seed)
    centres = np.vstack([rng.standard_normal((15, 4)), 2.5 * rng.standard_normal((15, 4))])
    region = np.repeat(np.arange(30), 40)
    X = centres[region] + 0.5 * rng.standard_normal((1200, 4))
    truth = X[:, 0] + np.sin(1.5 * X[:, 1]) + 0.5 * X[:, 2] ** 2
    y, inside = truth + 0.5 * rng.standard_normal(1200), region < 15
    A, a, block = X[inside], y[inside], region[inside]
    loss, spread = np.empty(len(a)), np.empty(len(a))
    for k in np.unique(block):
        held = block == k
        mean, spread[held] = predict(A[~held], a[~held], A[held])
        loss[held] = (a[held] - mean) ** 2
    trust = DirectUncertainty(aleatoric=0.25).fit(A, loss, folds=block, sd=spread)
    mean, sd = predict(A, a, X[~inside])
    error = (truth[~inside] - mean) ** 2
    excess = trust.expected_loss(X[~inside], sd)
    return {"DEUP": [float(spearmanr(excess, error)[0])], "posterior sd": [float(spearmanr(sd, error)[0])]}


# ---------------------------------------------------------------------- quantiles
def heteroscedastic(seed: int) -> dict[str, Any]:
    """A cluster-randomised trial whose outcomes bend and spread with a feature."""
    from stacking_and_conformal import trial

    d = trial(np.random.default_rng(300 + seed), "two latents")
    bend = 0.8 * np.sin(3 * d["X"][:, 1]) * np.abs(d["X"][:, 1])
    return d | {"y0": d["y0"] + bend, "y1": d["y1"] + bend}


def aggregation(seed: int, arm: int) -> dict[str, list[float]]:
    """Pinball loss in new villages of an arm's outcome, by single models, their mean, and aggregates."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import QuantileRegressor
    from stacking_and_conformal import out_of_fold_new

    from causalsat.evaluation import aggregate_quantiles, out_of_fold_quantiles, pinball_loss

    d, levels = heteroscedastic(seed), np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    models = {"linear": QuantileRegressor(alpha=0.0), "linear, penalised": QuantileRegressor(alpha=0.1)}
    models["trees"] = HistGradientBoostingRegressor(loss="quantile", quantile=0.5, max_iter=40, max_leaf_nodes=7)
    y, fresh = d[f"y{arm}"], ~d["old"]
    seen = d["old"] & (d["t"] == arm)
    q = out_of_fold_quantiles(list(models.values()), d["X"][seen], y[seen], levels, groups=d["groups"][seen])
    new = out_of_fold_new(list(models.values()), d["X"][seen], y[seen], d["X"][fresh], levels)
    found = {
        f"aggregate, {by}": aggregate_quantiles(q, y[seen], levels, weighting=by).predict(new)
        for by in ("medium", "coarse")
    }
    found["aggregate, medium, unsorted"] = aggregate_quantiles(q, y[seen], levels, monotone=None).predict(new)
    found["mean of the models"] = new.mean(axis=0)
    found |= {name: np.sort(one, axis=1) for name, one in zip(models, new, strict=True)}
    found["trees, unsorted"] = new[-1]
    return {name: [pinball_loss(y[fresh], one, levels)] for name, one in found.items()}


def arms(seed: int) -> dict[str, list[float]]:
    """Share of new villages' outcomes in 80 % intervals of each arm, with and without the conformal step."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    from causalsat.evaluation import conformal_outcome_intervals

    d = heteroscedastic(seed)
    old, y = d["old"], np.where(d["t"], d["y1"], d["y0"])
    args = d["X"][old], y[old], d["t"][old], d["X"][~old]
    both = conformal_outcome_intervals(*args, groups=d["groups"][old], level=0.8, random_state=seed)
    found = {}
    for arm, name, interval in ((1, "treated", both.treated), (0, "control", both.control)):
        truth, seen = d[f"y{arm}"][~old], old & (d["t"] == arm)
        low, high = (
            HistGradientBoostingRegressor(loss="quantile", quantile=q)
            .fit(d["X"][seen], y[seen])
            .predict(d["X"][~old])
            for q in (0.1, 0.9)
        )
        found[f"conformal, {name}"] = [float(interval.covers(truth).mean())]
        found[f"quantile trees alone, {name}"] = [float(np.mean((low <= truth) & (truth <= high)))]
    return found


# ---------------------------------------------------------------------- table
def rows(title: str, score: str, replicates: Sequence[dict[str, list[float]]], ours: str, least: bool) -> list[str]:
    """One row a method: means, standard errors, and in how many data sets ours is better (equal ones apart)."""
    lines = []
    mine = np.array([r[ours][0] for r in replicates]) if ours else np.array([])
    for name in replicates[0]:
        values = np.array([r[name] for r in replicates])
        cells = [f"{v.mean():.4g} ({v.std(ddof=1) / np.sqrt(len(v)):.2g})" for v in values.T]
        versus = ""
        if ours and name != ours:
            wins = (mine < values[:, 0]) if least else (mine > values[:, 0])
            equal = int((mine == values[:, 0]).sum())
            versus = f"{int(wins.sum())} of {len(wins)}" + (f", {equal} equal" if equal else "")
        if values.shape[1] > 2 and values[:, 2].any() and name != "early stopping":
            versus += f" (early stopping's weights kept: {int(values[:, 2].sum())})"
        lines.append(f"| {title} | {name} | {score} | {', Brier '.join(cells[:2])} | {versus} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    seeds = range(options.seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = ["| system | method | score | mean (s.e.) | ours better |", "|---|---|---|---|---|"]
        score = "squared error of the probability, 1e-4"
        for regime in REGIMES:
            lines += rows(f"CaPE, {regime}", score, [cape(s, regime) for s in seeds], "CaPE", least=True)
        for cuts in ((0.0, 3.0, 5.0), (0.0, 3.5, 5.5), (0.0, 4.0, 6.0)):
            title = f"PRESTO, intercepts {', '.join(f'{c:g}' for c in cuts)}"
            lines += rows(title, score, [presto(s, cuts) for s in seeds], "PRESTO", least=True)
        for name, predict in (("a forest", forest), ("a linear model", linear)):
            found = [deup(s, predict) for s in seeds]
            lines += rows(f"DEUP of {name}", "Spearman with the error, new regions", found, "DEUP", least=False)
        for arm, name in enumerate(("control", "treated")):
            single = [aggregation(s, arm) for s in seeds]
            title = f"quantile aggregation, {name}"
            lines += rows(title, "pinball loss, new villages", single, "aggregate, medium", least=True)
        lines += rows("conformal step", "coverage of 80 %, new villages", [arms(s) for s in seeds], "", least=True)
    print(f"{options.seeds} data sets each; standard errors over them.\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
