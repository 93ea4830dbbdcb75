"""Selective labels: what the domain constraints buy, against the truth, and what the sampler costs.

Data sets of the paper's design (Balachandar, Garg and Pierson 2024, section 5.1): N = 5,000, an intercept and four
standard normal features, beta_Y0 ~ N(-2, 0.1), beta_Delta0 ~ N(2, 0.1), the other coefficients N(0, 1), sigma ~
N(2, 0.1), beta_Delta nonzero on the intercept and the first feature only. Each is fitted without constraints, with
the prevalence (the true one, standard error 0.005), with the expertise constraint, and with both; the two baselines
stand beside them. Errors are those of posterior medians; the Brier score and the calibration error (ten equal-count
bins) are those of P(Y = 1 | x, untested) among the untested, whose outcomes no model saw.

    python benchmarks/selective_labels.py [--data-sets 20]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

import causalsat
from causalsat.exceptions import CausalsatWarning

N, FEATURES = 5000, 4
FREE = 0  # the feature on which the decision depends beyond risk
MODES = {"none": (False, False), "prevalence": (True, False), "expertise": (False, True), "both": (True, True)}


def data_set(seed: int) -> dict[str, Any]:
    """One data set of the paper's design with its truth; coefficients are per standard deviation of the features."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, FEATURES))
    risk = np.r_[rng.normal(-2, 0.1), rng.standard_normal(FEATURES)]
    decision = np.zeros(FEATURES + 1)
    decision[0], decision[1 + FREE] = rng.normal(2, 0.1), rng.standard_normal()
    sigma = rng.normal(2, 0.1)
    rows = np.column_stack([np.ones(N), X])
    z = rng.uniform(0, sigma, N)
    y = (rng.random(N) < expit(rows @ risk + z)).astype(float)
    tested = (rng.random(N) < expit(rows @ (risk + decision) + z)).astype(int)
    u = (np.arange(200) + 0.5) / 200 * sigma
    prevalence = float(expit((rows @ risk)[:, None] + u).mean())
    mean, sd = X.mean(axis=0), X.std(axis=0)  # the estimator standardises

    def per_sd(beta: np.ndarray) -> np.ndarray:
        return np.r_[beta[0] + beta[1:] @ mean, beta[1:] * sd]

    truth = {"risk": per_sd(risk), "decision": per_sd(decision), "sigma": sigma}
    return {"X": X, "y": y, "tested": tested, "prevalence": prevalence, **truth}


def calibration_error(p: np.ndarray, y: np.ndarray, bins: int = 10) -> float:
    """Mean absolute gap between predicted and observed share over bins of equal counts."""
    order = np.array_split(np.argsort(p, kind="stable"), bins)
    return float(np.mean([abs(p[part].mean() - y[part].mean()) for part in order]))


def untested_scores(model: Any, data: dict[str, Any]) -> dict[str, float]:
    """Brier score and calibration error among the untested."""
    untested = data["tested"] == 0
    p = model.predict_proba(data["X"], given="untested")[untested, 1]
    y = data["y"][untested]
    return {"Brier": float(np.mean((p - y) ** 2)), "calibration error": calibration_error(p, y)}


def one(seed: int) -> list[dict[str, Any]]:
    """Rows of one data set: a row a mode or baseline."""
    data = data_set(seed)
    seen = np.where(data["tested"] == 1, data["y"], np.nan)
    rows = []
    for mode, (prevalence, expertise) in MODES.items():
        model = causalsat.SelectiveLabelsRisk(
            prevalence=(data["prevalence"], 0.005) if prevalence else None,
            expertise=[FREE] if expertise else None,
            random_state=seed,
        )
        start = time.process_time()
        model.fit(data["X"], seen, treatment=data["tested"])
        cpu = time.process_time() - start
        row = {"seed": seed, "mode": mode, "CPU s": cpu, "ESS": model.sampler_diagnostics_["ess"]}
        row |= {"R-hat": model.sampler_diagnostics_["r_hat"], **untested_scores(model, data)}
        for name in ("risk", "decision", "sigma"):
            draws, truth = np.atleast_2d(getattr(model.draws_, name).T).T, np.atleast_1d(data[name])
            if name == "decision":
                draws, truth = draws[:, : 2 + FREE], truth[: 2 + FREE]
            lower, middle, upper = np.quantile(draws, [0.025, 0.5, 0.975], axis=0)
            row |= {f"{name} error": np.abs(middle - truth).mean(), f"{name} width": (upper - lower).mean()}
            row |= {f"{name} covered": ((lower < truth) & (truth < upper)).mean()}
        rows.append(row)
    for name in ("TestedOnlyRisk", "UntestedNegativeRisk"):
        model = getattr(causalsat, name)(random_state=seed).fit(data["X"], seen, treatment=data["tested"])
        rows.append({"seed": seed, "mode": name, **untested_scores(model, data)})
    return rows


def table_of_errors(found: pd.DataFrame) -> str:
    """Median change against no constraint, as the paper reports it, and coverage with its standard error."""
    lines = [
        "| constraint | error of beta_Y / beta_Delta / sigma | width of their 95 % intervals | coverage (s.e.) |"
    ]
    lines.append("|---|---|---|---|")
    base = found[found["mode"] == "none"].set_index("seed")
    for mode in MODES:
        rows = found[found["mode"] == mode].set_index("seed")
        cells = []
        for what in ("error", "width"):
            if mode == "none":
                values = [f"{rows[f'{n} {what}'].median():.3f}" for n in ("risk", "decision", "sigma")]
            else:
                values = [
                    f"{100 * (rows[f'{n} {what}'].median() / base[f'{n} {what}'].median() - 1):+.0f} %"
                    for n in ("risk", "decision", "sigma")
                ]
            cells.append(" / ".join(values))
        covered = [
            f"{rows[f'{n} covered'].mean():.3f} ({rows[f'{n} covered'].sem():.3f})"
            for n in ("risk", "decision", "sigma")
        ]
        lines.append(f"| {mode} | {cells[0]} | {cells[1]} | {' / '.join(covered)} |")
    return "\n".join(lines)


def table_of_scores(found: pd.DataFrame) -> str:
    """Scores among the untested, effective samples a CPU second and R-hat, by mode."""
    lines = [
        "| model | Brier score, untested | calibration error, untested | CPU s | least ESS a CPU s | worst R-hat |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for mode in dict.fromkeys(found["mode"]):
        rows = found[found["mode"] == mode]
        speed = (rows["ESS"] / rows["CPU s"]).median()
        cost = ["", "", ""] if np.isnan(speed) else [
            f"{rows['CPU s'].median():.1f}", f"{speed:.0f}", f"{rows['R-hat'].max():.3f}"
        ]  # fmt: skip
        scores = [f"{rows[c].mean():.4f} ({rows[c].sem():.4f})" for c in ("Brier", "calibration error")]
        lines.append(f"| {mode} | {' | '.join([*scores, *cost])} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=20)
    options = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        found = pd.DataFrame([row for seed in range(options.data_sets) for row in one(seed)])
    print(f"{options.data_sets} data sets; first row absolute, the others as changes of the median against it.")
    print(table_of_errors(found), table_of_scores(found), sep="\n\n")


if __name__ == "__main__":
    main()
