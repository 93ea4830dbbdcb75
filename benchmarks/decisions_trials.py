"""Before and after the trial: power against brute force, sites of the next trial against random and spread ones.

python benchmarks/decisions_trials.py [--sections power sites] [--simulations 4000] [--worlds 20] [--first 500]
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.stats import norm
from sklearn.linear_model import RidgeCV

import causalsat
from causalsat.encoders.image_encoder import ImageEncoder
from causalsat.encoders.random_conv.features import RandomConvFeatures


def brute_force(features, n, people, effect, icc, n_simulations, n_permutations=39, seed=1):
    """Shares of trials, household by household, that reject: clustered OLS, a permutation test, AUTOC.

    Nothing of ``power`` is used. OLS is that of statsmodels. The permutation test shuffles the villages' treatment
    and computes the ridged score statistic of the effect's scores along the features. AUTOC ranks villages by
    scikit-learn's ridge of the scores on the features of four fifths of them.
    """
    rng, rejected = np.random.default_rng(seed), np.zeros((n_simulations, 3), dtype=bool)
    for r in range(n_simulations):
        z, y, t, village = households(features, n, people, effect, icc, rng)
        ols = sm.OLS(y, sm.add_constant(t[village]))
        found = ols.fit(cov_type="cluster", cov_kwds={"groups": village}, use_t=True)
        means = np.bincount(village, y) / people
        null = means - found.params[1] * t
        drawn = np.array([rng.permutation(t) for _ in range(n_permutations)])
        larger = sum(score_form(z, null + found.params[1] * d, d) >= score_form(z, means, t) for d in drawn)
        rejected[r] = (
            found.pvalues[1] < 0.05,
            (1 + larger) / (1 + n_permutations) <= 0.05,
            autoc(z, means, t, rng) < 0.05,
        )
    return rejected.mean(axis=0)


def households(features, n, people, effect, icc, rng):
    """Features and treatment of the villages, outcomes of their households, and each household's village."""
    along = features @ rng.standard_normal(features.shape[1])
    along = (along - along.mean()) / along.std()
    rows = rng.choice(len(features), n, replace=False)
    tau = effect + abs(effect) / 2 * (np.sqrt(0.5) * along[rows] + np.sqrt(0.5) * rng.standard_normal(n))
    t = np.zeros(n)
    t[rng.permutation(n)[: n // 2]] = 1
    village = np.repeat(np.arange(n), people)
    y = (np.sqrt(icc) * rng.standard_normal(n) + t * tau)[village]
    return features[rows], y + np.sqrt(1 - icc) * rng.standard_normal(len(village)), t, village


def score_form(z, y, t):
    """Quadratic form of the features' covariances with the effect's scores."""
    e = t.mean()
    scores = (t - e) * (y - y.mean() - (t - e) * (y[t == 1].mean() - y[t == 0].mean())) / (e * (1 - e))
    parts = (z - z.mean(axis=0)) * (scores - scores.mean())[:, None]
    variance = parts.T @ parts
    ridged = variance + 0.5 * np.trace(variance) / z.shape[1] * np.eye(z.shape[1])
    return parts.sum(axis=0) @ np.linalg.solve(ridged, parts.sum(axis=0))


def autoc(z, y, t, rng):
    """P-value of AUTOC of ranks within folds, its variance doubled for folds that rank each other."""
    e, fold = t.mean(), rng.permutation(len(y)) % 5
    scores = (t - e) * (y - y.mean() - (t - e) * (y[t == 1].mean() - y[t == 0].mean())) / (e * (1 - e))
    rank = np.empty(len(y))
    for k in range(5):
        out = fold == k
        ridge = RidgeCV(alphas=np.logspace(-1, 4, 12)).fit(z[~out], scores[~out])
        predicted = ridge.predict(z[out])
        rank[out] = (predicted[:, None] >= predicted).mean(axis=1)
    order = np.argsort(-rank, kind="stable")
    weight = np.empty(len(y))
    weight[order] = np.cumsum((1 / np.arange(1, len(y) + 1))[::-1])[::-1]
    parts = (weight - weight.mean()) * (scores - scores.mean())
    ratio = parts.sum() / np.sqrt(2 * (parts**2).sum())
    return 2 * norm.sf(abs(ratio))


def power_table(n_simulations):
    """Power of the three tests beside brute force, and size without an effect."""
    features, rows = np.random.default_rng(0).standard_normal((300, 6)), []
    for n, people, effect, icc in ((40, 10, 0.4, 0.1), (80, 20, 0.25, 0.1), (120, 5, 0.9, 0.2), (60, 10, 0.0, 0.1)):
        result = causalsat.power(
            features, n_villages=n, people=people, effect=effect, icc=icc, n_simulations=n_simulations,
            n_permutations=39, progress=False,
        )  # fmt: skip
        found = result.table.iloc[0]
        direct = brute_force(features, n, people, effect, icc, n_simulations)
        row = {"villages": n, "people": people, "effect": effect, "icc": icc}
        for name, other in zip(("average_effect", "heterogeneity", "autoc"), direct, strict=True):
            error = np.hypot(found[f"{name}_se"], np.sqrt(other * (1 - other) / n_simulations))
            row[name] = f"{found[name]:.3f} / {other:.3f} ({error:.3f})"
        rows.append(row | {"seconds": found["seconds"]})
    return pd.DataFrame(rows)


def spread(Z, n):
    """Sites far from each other: each the farthest from those before it."""
    chosen = [int(np.linalg.norm(Z - Z.mean(axis=0), axis=1).argmin())]
    while len(chosen) < n:
        chosen.append(int(np.linalg.norm(Z[:, None] - Z[chosen], axis=2).min(axis=1).argmax()))
    return np.array(chosen)


def skewed_features(seed):
    """Effects linear in six features of 400 places, three of them heavy-tailed; the pilot is where they are small."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((400, 6))
    Z[:, 3:] = Z[:, 3:] ** 3 / 3
    return Z, 0.3 + Z @ (0.3 * rng.standard_normal(6)), np.argsort(np.abs(Z[:, 3:]).sum(axis=1))[:200]


def normal_features(seed):
    """Effects linear in six normal features of 400 places; the pilot is anywhere."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((400, 6))
    return Z, 0.3 + Z @ (0.3 * rng.standard_normal(6)), np.arange(400)


def images(seed):
    """All settlements of a simulated satellite trial, 20 components of their images; the pilot is anywhere."""
    trial = causalsat.simulate.satellite_trial(seed=seed)
    imagery = causalsat.open_imagery(trial.imagery, scale=1e-4)
    sites = trial.units.drop_duplicates("site")[["tau", "geometry"]]
    places = pd.concat([sites, trial.places[["tau", "geometry"]].to_crs(sites.crs)], ignore_index=True)
    encoder = RandomConvFeatures(statistics=True, random_state=0)
    Z = ImageEncoder(imagery, size_m=960, encoder=encoder, n_components=20).fit_transform(places)
    return np.asarray(Z, dtype=float), places["tau"].to_numpy(), np.arange(len(places))


WORLDS = {"skewed features": skewed_features, "normal features": normal_features, "images": images}
PILOT, NEXT, PEOPLE = 30, 20, 20


def trial_at(Z, tau, rows, people, rng):
    """Households of a trial at sites, half of them treated."""
    site = np.repeat(np.arange(len(rows)), people)
    t = (rng.permutation(len(rows)) % 2).astype(float)[site]
    y = t * tau[rows][site] + 0.2 * rng.standard_normal(len(rows))[site] + rng.standard_normal(len(site))
    return Z[rows][site], y, t, site


def refitted(parts, names):
    """The model on the households of one trial or of two."""
    X, y, t, site = zip(*parts, strict=True)
    groups = np.concatenate([1000 * k + s for k, s in enumerate(site)])
    model = causalsat.BayesianLinearEffect(prior="normal", ordered="img*", random_state=0)
    X = pd.DataFrame(np.vstack(X), columns=names)
    return model.fit(X, np.concatenate(y), treatment=np.concatenate(t), groups=groups)


def errors_of(seed, world):
    """Root mean squared error of the map before and after a second trial, by how its sites were chosen."""
    Z, tau, near = world(seed)
    rng = np.random.default_rng([seed, 1])
    pilot = rng.choice(near, PILOT, replace=False)
    frame = pd.DataFrame(Z, columns=[f"img{j:02d}" for j in range(Z.shape[1])])
    first = trial_at(Z, tau, pilot, PEOPLE, rng)
    fitted = refitted([first], list(frame.columns))
    others = np.setdiff1d(np.arange(len(Z)), pilot)
    chosen = causalsat.next_sites(fitted, frame.iloc[others], NEXT, places=frame, people=PEOPLE).positions
    picked = {
        "next_sites": others[chosen],
        "random": rng.choice(others, NEXT, replace=False),
        "spread": others[spread(Z[others], NEXT)],
    }
    out = {"pilot alone": np.sqrt(np.mean((fitted.predict(frame) - tau) ** 2))}
    for name, rows in picked.items():
        second = trial_at(Z, tau, rows, PEOPLE, np.random.default_rng([seed, 2]))
        again = refitted([first, second], list(frame.columns))
        out[name] = np.sqrt(np.mean((again.predict(frame) - tau) ** 2))
    return out


def site_table(n_worlds, first):
    """True error of the map after a pilot of 30 sites and a second trial of 20, by how these were chosen."""
    rows = []
    for label, world in WORLDS.items():
        table = pd.DataFrame([errors_of(seed, world) for seed in range(first, first + n_worlds)])
        for name in table:
            ratio = np.log(table[name] / table["random"])
            rows.append(
                {
                    "world": label,
                    "sites": name,
                    "map RMSE": np.sqrt((table[name] ** 2).mean()),
                    "ratio to random": np.sqrt((table[name] ** 2).mean() / (table["random"] ** 2).mean()),
                    "median ratio": np.exp(ratio.median()),
                    "worlds where lower": (ratio < 0).mean(),
                }
            )
    return pd.DataFrame(rows)


def tables(sections, n_simulations, n_worlds, first):
    """The tables that were asked for, by heading."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "power" in sections:
            yield "Power / brute force (Monte Carlo error of the difference)", power_table(n_simulations)
        if "sites" in sections:
            yield "Sites of the next trial", site_table(n_worlds, first)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=["power", "sites"], choices=["power", "sites"])
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--first", type=int, default=500, help="seed of the first world")
    given = parser.parse_args()
    for title, table in tables(given.sections, given.simulations, given.worlds, given.first):
        print(f"\n{title}\n\n{table.round(3).to_markdown(index=False)}", flush=True)
