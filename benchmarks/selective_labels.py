"""Selective labels: what the domain constraints buy, against the truth and beside the paper's figures.

Data sets of the paper's design (Balachandar, Garg and Pierson 2024, section 5.1): N = 5,000, an intercept and four
standard normal features, beta_Y0 ~ N(-2, 0.1), beta_Delta0 ~ N(2, 0.1), the other coefficients N(0, 1), sigma ~
N(2, 0.1), beta_Delta nonzero on the intercept and the first feature only. Each is fitted without constraints, with
the prevalence (the true one, standard error 0.005), with the expertise constraint, and with both. Errors are those of
posterior medians. In the first 60 data sets the two baselines stand beside them; Brier score and calibration error
(ten equal-count bins) are those of P(Y = 1 | x, untested) of the untested, whose outcomes no model saw. In the first
20 there are also fits whose prevalence is 0.8 and 1.2 times the true one; whether such a fit warns is known from the
sweep alone, in all data sets. Rows are kept (see benchmarks/kept_rows.py): a later run adds what it lacks.

    python benchmarks/selective_labels.py [--data-sets 200]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from kept_rows import keep, kept, kept_row
from scipy.special import expit

import causalsat
from causalsat.exceptions import CausalsatWarning

N, FEATURES, DRAWS = 5000, 4, 300
SCORED, MISLED = 60, 20  # data sets with scores and baselines, and with fits to a wrong prevalence
FREE = 0  # the feature on which the decision depends beyond risk
MODES = {"none": (0.0, False), "prevalence": (1.0, False), "expertise": (0.0, True), "both": (1.0, True)}
WRONG = {"prevalence x 0.8": (0.8, False), "prevalence x 1.2": (1.2, False)}
BASELINES = ("TestedOnlyRisk", "UntestedNegativeRisk")
PAPER = {
    "prevalence": ("-44 / -44 / -45 %", "-38 / -46 / -32 %"),
    "expertise": ("-12 / -11 / +2 %", "-24 / -20 / -15 %"),
}
NAMES = ("risk", "decision", "sigma")


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
    p = model.predict_proba(data["X"][untested], given="untested")[:, 1]
    y = data["y"][untested]
    return {"Brier": float(np.mean((p - y) ** 2)), "calibration error": calibration_error(p, y)}


def fitted(data: dict[str, Any], share: float, expertise: bool, seed: int) -> Any:
    """A model told ``share`` times the true prevalence (0 for none)."""
    model = causalsat.SelectiveLabelsRisk(
        prevalence=(share * data["prevalence"], 0.005) if share else None,
        expertise=[FREE] if expertise else None,
        n_draws=DRAWS,
        random_state=seed,
    )
    seen = np.where(data["tested"] == 1, data["y"], np.nan)
    return model.fit(data["X"], seen, treatment=data["tested"])


def parameters(model: Any, data: dict[str, Any]) -> dict[str, float]:
    """Error, width of the 95 % interval and its coverage, of beta_Y, of beta_Delta where it is free, and of sigma."""
    row = {}
    for name in NAMES:
        draws, truth = getattr(model.draws_, name).reshape(len(model.draws_.sigma), -1), np.atleast_1d(data[name])
        if name == "decision":
            draws, truth = draws[:, : 2 + FREE], truth[: 2 + FREE]
        lower, middle, upper = np.quantile(draws, [0.025, 0.5, 0.975], axis=0)
        inside = (lower < truth) & (truth < upper)
        row |= {f"{name} error": np.abs(middle - truth).mean(), f"{name} width": (upper - lower).mean()}
        row |= {f"{name} covered": inside.mean()}
    return row


def one(seed: int, mode: str) -> dict[str, Any]:
    """Row of one data set and one mode, wrong prevalence or baseline."""
    data, row = data_set(seed), {"seed": seed, "mode": mode}
    if mode in BASELINES:
        seen = np.where(data["tested"] == 1, data["y"], np.nan)
        model = getattr(causalsat, mode)(n_draws=DRAWS, random_state=seed)
        return row | untested_scores(model.fit(data["X"], seen, treatment=data["tested"]), data)
    share, expertise = {**MODES, **WRONG}[mode]
    start = time.process_time()
    model = fitted(data, share, expertise, seed)
    row |= {"CPU s": time.process_time() - start, "ESS": model.sampler_diagnostics_["ess"]}
    row |= {"R-hat": model.sampler_diagnostics_["r_hat"], **parameters(model, data)}
    return row | (untested_scores(model, data) if seed < SCORED else {})


def p_values(seed: int) -> dict[str, Any]:
    """Consistency of a data set with 0.8, 1 and 1.2 times its prevalence: the p-values of the sweep of every fit."""
    from causalsat.estimators.selective_labels.density import SelectiveData
    from causalsat.estimators.selective_labels.forms import UniformForm
    from causalsat.estimators.selective_labels.sweep import by_prevalence

    data = data_set(seed)
    X = (data["X"] - data["X"].mean(axis=0)) / data["X"].std(axis=0)
    cell = np.where(data["tested"] == 0, 0, 1 + data["y"]).astype(np.int64)
    rows, told = np.column_stack([np.ones(N), X]), (data["prevalence"], 0.005)
    found = by_prevalence(UniformForm(), SelectiveData(rows, cell, np.ones(N), np.arange(FEATURES + 1), told))
    shares = np.array(found.columns["prevalence"]) / data["prevalence"]
    return {f"{share:.1f}": p for share, p in zip(shares, found.columns["p_value"], strict=True)}


def collect(data_sets: int) -> pd.DataFrame:
    """Rows of data sets 0 to ``data_sets`` - 1, read where they are kept and made where they are not."""
    there = kept("selective_labels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        for seed in range(data_sets):
            modes = [*MODES, *(BASELINES if seed < SCORED else ()), *(WRONG if seed < MISLED else ())]
            for mode in modes:
                if f"{seed}|{mode}" not in there:
                    keep("selective_labels", f"{seed}|{mode}", one(seed, mode))
    return pd.DataFrame([row for row in kept("selective_labels").values() if row["seed"] < data_sets])


def paired_change(rows: pd.DataFrame, base: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Median over data sets of the change against no constraint, its bootstrap s.e., change of the mean; per cent."""
    new, old = (part.sort_values("seed")[column].to_numpy() for part in (rows, base))
    change = 100 * (new / old - 1)
    picks = np.random.default_rng(0).integers(0, len(change), (2000, len(change)))
    se = float(np.median(change[picks], axis=1).std())
    return float(np.median(change)), se, float(100 * (new.mean() / old.mean() - 1))


def table_of_errors(found: pd.DataFrame) -> str:
    """Changes against no constraint beside the paper's, of beta_Y / beta_Delta / sigma."""
    head = "| constraint | error (s.e.) | paper | mean error | width of 95 % intervals | paper | coverage (s.e.) |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    base = found[found["mode"] == "none"]
    for mode in MODES:
        rows = found[found["mode"] == mode]
        covered = [f"{rows[f'{n} covered'].mean():.3f} ({rows[f'{n} covered'].sem():.3f})" for n in NAMES]
        if mode == "none":
            error, mean, width = (
                " / ".join(f"{value:.3f}" for value in values)
                for values in (
                    [base[f"{n} error"].median() for n in NAMES],
                    [base[f"{n} error"].mean() for n in NAMES],
                    [base[f"{n} width"].median() for n in NAMES],
                )
            )
        else:
            errors = [paired_change(rows, base, f"{n} error") for n in NAMES]
            error = " / ".join(f"{median:+.0f} ({se:.0f})" for median, se, _ in errors) + " %"
            mean = " / ".join(f"{change:+.0f}" for *_, change in errors) + " %"
            width = " / ".join(f"{paired_change(rows, base, f'{n} width')[0]:+.0f}" for n in NAMES) + " %"
        paper = PAPER.get(mode, ("", ""))
        lines.append(f"| {mode} | {error} | {paper[0]} | {mean} | {width} | {paper[1]} | {' / '.join(covered)} |")
    return "\n".join(lines)


def table_of_scores(found: pd.DataFrame) -> str:
    """Scores among the untested, effective samples a CPU second and R-hat, by model."""
    scores = f"Brier score, untested ({SCORED}) | calibration error, untested ({SCORED})"
    lines = [f"| model | {scores} | CPU s | least ESS a CPU s | worst R-hat |", "|---|---|---|---|---|---|"]
    for mode in (*MODES, *BASELINES):
        rows = found[found["mode"] == mode]
        cost = ["", "", ""]
        if mode in MODES:
            speed = (rows["ESS"] / rows["CPU s"]).median()
            cost = [f"{rows['CPU s'].median():.1f}", f"{speed:.0f}", f"{rows['R-hat'].max():.3f}"]
        cells = [f"{rows[c].mean():.4f} ({rows[c].sem():.4f})" for c in ("Brier", "calibration error")]
        lines.append(f"| {mode} | {' | '.join([*cells, *cost])} |")
    return "\n".join(lines)


def table_of_wrong_prevalence(found: pd.DataFrame, p: pd.DataFrame) -> str:
    """What a wrong prevalence does, and how often the fit warns."""
    from causalsat.estimators.selective_labels.sweep import CONFLICT

    scores = f"coverage of beta_Y / sigma ({MISLED}) | calibration error, untested ({MISLED})"
    lines = [f"| prevalence | data sets that warn | {scores} |", "|---|---|---|---|"]
    for mode in ("prevalence", *WRONG):
        rows = found[(found["mode"] == mode) & (found["seed"] < MISLED)]
        warned = p["1.0" if mode == "prevalence" else mode.removeprefix("prevalence x ")] < CONFLICT
        covered = " / ".join(f"{rows[f'{n} covered'].mean():.2f}" for n in ("risk", "sigma"))
        label = "true" if mode == "prevalence" else mode.removeprefix("prevalence x ") + " times the true one"
        lines.append(f"| {label} | {warned.sum()} of {len(p)} | {covered} | {rows['calibration error'].mean():.4f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=200)
    options = parser.parse_args(argv)
    found = collect(options.data_sets)
    p = pd.DataFrame(
        [kept_row("selective_labels_p", str(k), lambda k=k: p_values(k)) for k in range(options.data_sets)]
    )
    print(
        f"{found['seed'].nunique()} data sets (the paper: 200). beta_Y / beta_Delta / sigma: the first row in their "
        "units, the others as medians over data sets of the change against it, with bootstrap standard errors. "
        "Numbers of data sets in brackets where there are fewer."
    )
    print(table_of_errors(found), table_of_scores(found), table_of_wrong_prevalence(found, p), sep="\n\n")


if __name__ == "__main__":
    main()
