"""VLUCI with 500 units: what the prior probability of a confounder trades, real confounders found against false ones.

The worlds of ``benchmarks/vluci.py`` with 500 units. The model is fitted once with even odds; the posterior under
another prior follows from its weights. Errors are those of the average effect: that of the doubly robust estimator on
X alone, moved by the posterior median (or mean) over strengths less the effect without a confounder.

    python benchmarks/vluci_prior.py [--seeds 10] [--harmless 60]

Rows are kept (see benchmarks/kept_rows.py).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

import numpy as np
from kept_rows import Row, kept_row
from vluci import SEVERAL, SMALL, bases, make_world, seeds_of

import causalsat

EVEN, PRIORS = 0.5, (0.1, 0.3, 0.5, 0.7, 0.9)


def moves(cell: str, seed: int) -> Row:
    """Signed error of X alone and with the true L, and the moves by prior: of the median, and of the mean."""
    X, t, y, L, tau = make_world(cell, seed)
    base = bases()["DoublyRobustEffect"]
    model = causalsat.VLUCI(base, prior_confounding=EVEN, n_imputations=1, random_state=seed).fit(X, y, treatment=t)
    grid, scaling = model.engine_.grid, model.engine_.scaling
    unit = scaling.y_sd / scaling.t_sd
    row: Row = {"alone": float(base.fit(X, y, treatment=t).effect(X).ate()) - float(tau.mean())}
    joined = np.column_stack([X, L])
    row["true L"] = float(base.fit(joined, y, treatment=t).effect(joined).ate()) - float(tau.mean())
    for prior in PRIORS:
        weight = grid.weight * np.where(grid.none, 1.0, prior / (1 - prior))
        weight /= weight.sum()
        median = np.quantile(grid.ate, 0.5, weights=weight, method="inverted_cdf")
        row[f"median {prior}"] = float(median - grid.none_ate) * unit
        row[f"mean {prior}"] = float(weight @ (grid.ate - grid.none_ate)) * unit
    return row


def to_markdown(found: dict[str, list[Row]]) -> str:
    """Share of the gap closed in each cell, and where there is no confounder how much larger the error is."""
    kinds = [f"{how} {prior}" for how in ("median", "mean") for prior in PRIORS]
    lines = [
        "| cell | seeds | ATE error: X only | true L | " + " | ".join(kinds) + " |",
        "|---" * (4 + len(kinds)) + "|",
    ]
    for cell, rows in found.items():
        alone, best = (np.abs([row[name] for row in rows]) for name in ("alone", "true L"))
        cells = []
        for kind in kinds:
            error = np.abs([row["alone"] + row[kind] for row in rows])
            if cell == SMALL[2]:
                more = error - alone
                se = more.std(ddof=1) / np.sqrt(len(rows)) / alone.mean()
                cells.append(f"{100 * more.mean() / alone.mean():+.0f} % ({100 * se:.0f})")
            else:
                cells.append(f"{(alone.mean() - error.mean()) / (alone.mean() - best.mean()):.2f}")
        lines.append(f"| {cell} | {len(rows)} | {alone.mean():.3f} | {best.mean():.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--harmless", type=int, default=60, help="seeds without a confounder")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    found = {
        cell: [
            kept_row("vluci_prior", f"{cell}|{seed}", lambda cell=cell, seed=seed: moves(cell, seed))
            for seed in seeds_of(cell, options.harmless if cell == SMALL[2] else options.seeds)
        ]
        for cell in (*SMALL, *SEVERAL)
    }
    print("Share of the gap closed, by estimate and prior; without a confounder, the change of the error (s.e.).\n")
    print(to_markdown(found))


if __name__ == "__main__":
    main()
