"""Before and after the trial: power against brute force, sites of the next trial against random and spread ones.

python benchmarks/decisions_trials.py [--simulations 400] [--worlds 10]
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd

import causalsat


def brute_force(features, n, people, effect, icc, n_simulations, seed=1):
    """Share of trials, household by household, whose average effect is significant in statsmodels' clustered OLS."""
    import statsmodels.api as sm

    rng, rejected = np.random.default_rng(seed), 0
    for _ in range(n_simulations):
        z = features[rng.choice(len(features), n, replace=False)]
        along = z @ rng.standard_normal(z.shape[1])
        along = (along - along.mean()) / along.std()
        tau = effect + abs(effect) / 2 * (np.sqrt(0.5) * along + np.sqrt(0.5) * rng.standard_normal(n))
        t = np.zeros(n)
        t[rng.permutation(n)[: n // 2]] = 1
        village = np.repeat(np.arange(n), people)
        y = (np.sqrt(icc) * rng.standard_normal(n) + t * tau)[village]
        y = y + np.sqrt(1 - icc) * rng.standard_normal(len(village))
        fit = sm.OLS(y, sm.add_constant(t[village])).fit(cov_type="cluster", cov_kwds={"groups": village}, use_t=True)
        rejected += fit.pvalues[1] < 0.05
    return rejected / n_simulations


def power_table(n_simulations):
    """Power of the average effect beside brute force, and size without an effect."""
    features, rows = np.random.default_rng(0).standard_normal((300, 6)), []
    for n, people, effect, icc in ((40, 10, 0.4, 0.1), (80, 20, 0.25, 0.1), (120, 5, 0.3, 0.2), (60, 10, 0.0, 0.1)):
        result = causalsat.power(
            features, n_villages=n, people=people, effect=effect, icc=icc, n_simulations=n_simulations,
            n_permutations=39, progress=False,
        )  # fmt: skip
        row = result.table.iloc[0]
        direct = brute_force(features, n, people, effect, icc, n_simulations)
        rows.append(
            {
                "villages": n, "people": people, "effect": effect, "icc": icc,
                "average effect": row["average_effect"], "brute force": direct,
                "Monte Carlo error of the difference": np.hypot(
                    row["average_effect_se"], np.sqrt(direct * (1 - direct) / n_simulations)
                ),
                "heterogeneity": row["heterogeneity"], "AUTOC": row["autoc"], "seconds": row["seconds"],
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def spread(Z, n):
    """Sites far from each other: each the farthest from those before it."""
    chosen = [int(np.linalg.norm(Z - Z.mean(axis=0), axis=1).argmin())]
    while len(chosen) < n:
        chosen.append(int(np.linalg.norm(Z[:, None] - Z[chosen], axis=2).min(axis=1).argmax()))
    return np.array(chosen)


def trial_at(Z, rows, beta, people, rng):
    """Households of a trial at sites whose effect is 0.3 + z'beta, half of the sites treated."""
    site = np.repeat(np.arange(len(rows)), people)
    t = (rng.permutation(len(rows)) % 2).astype(float)[site]
    y = t * (0.3 + Z[rows][site] @ beta) + 0.2 * rng.standard_normal(len(rows))[site] + rng.standard_normal(len(site))
    return Z[rows][site], y, t, site


def site_table(n_worlds):
    """True error of the map after a pilot of 30 sites and a second trial of 20, by how these were chosen."""
    errors = {"next_sites": [], "random": [], "spread": []}
    for world in range(n_worlds):
        rng = np.random.default_rng(world)
        Z = rng.standard_normal((400, 6))
        Z[:, 3:] = Z[:, 3:] ** 3 / 3
        beta = 0.3 * rng.standard_normal(6)
        names = [f"img{j}" for j in range(6)]
        near = np.argsort(np.abs(Z[:, 3:]).sum(axis=1))[:200]
        pilot = rng.choice(near, 30, replace=False)
        first = trial_at(Z, pilot, beta, 20, rng)
        model = causalsat.BayesianLinearEffect(prior="normal", random_state=0)
        fitted = model.fit(pd.DataFrame(first[0], columns=names), first[1], treatment=first[2], groups=first[3])
        open_sites = np.setdiff1d(np.arange(400), pilot)
        frame = pd.DataFrame(Z, columns=names)
        chosen = causalsat.next_sites(fitted, frame.iloc[open_sites], 20, places=frame).positions
        picked = {
            "next_sites": open_sites[chosen],
            "random": rng.choice(open_sites, 20, replace=False),
            "spread": open_sites[spread(Z[open_sites], 20)],
        }
        for name, rows in picked.items():
            second = trial_at(Z, rows, beta, 20, np.random.default_rng(1000 + world))
            X = pd.DataFrame(np.vstack([first[0], second[0]]), columns=names)
            y, t = np.r_[first[1], second[1]], np.r_[first[2], second[2]]
            again = causalsat.BayesianLinearEffect(prior="normal", random_state=0)
            again.fit(X, y, treatment=t, groups=np.r_[first[3], 30 + second[3]])
            errors[name].append(np.mean((again.predict(frame) - 0.3 - Z @ beta) ** 2))
    table = pd.DataFrame({name: np.sqrt(values) for name, values in errors.items()})
    ratio = table.div(table["random"], axis=0)
    return pd.DataFrame(
        {
            "map RMSE": np.sqrt((table**2).mean()),
            "ratio to random": np.sqrt((table**2).mean() / (table["random"] ** 2).mean()),
            "worlds where lower": (ratio < 1).mean(),
        }
    ).rename_axis("sites")


def tables(n_simulations=400, n_worlds=10):
    """All tables by heading."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"Power": power_table(n_simulations), "Sites of the next trial": site_table(n_worlds).reset_index()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--worlds", type=int, default=10)
    given = parser.parse_args()
    for title, table in tables(given.simulations, given.worlds).items():
        print(f"\n{title}\n\n{table.round(3).to_markdown(index=False)}")
