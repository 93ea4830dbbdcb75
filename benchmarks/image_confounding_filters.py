"""ImageConfounding with filters learned from the outcome: bias, error and coverage on the three confounded worlds.

The worlds, images and draws are those of ``benchmarks/image_confounding.py``; for each fold LearnedFilters finds its
filters without the fold's units. They were designed on images of another seed (77). The 95 % interval is judged.
Rows are kept (see kept_rows.py): a run that was stopped goes on; delete them to measure changed code.

    python benchmarks/image_confounding_filters.py [--draws-b 10] [--draws-a 2] [--draws-c 1]
    python benchmarks/image_confounding_filters.py --picture learned_filters.png
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import kept_rows
import numpy as np
from image_confounding import COVARIATES, WIDTHS, Row, judge

import causalsat
from causalsat import ImageConfounding, LearnedFilters
from causalsat.simulate import colour_confounding, kernel_confounding, satellite_trial
from causalsat.simulate.confounded_images import natural_images, redraw

SETS = 2
LANDSCAPES = 5


@cache
def images(seed: int) -> Any:
    """One of benchmark B's sets of images."""
    return natural_images(500, seed=seed)


@cache
def base(width: int, seed: int) -> Any:
    """Images and their confounder."""
    return kernel_confounding(width, images=images(seed))


def streak(width: int, images_seed: int, draw: int) -> Row:
    """One draw of benchmark B."""
    data = redraw(base(width, images_seed), 1000 * images_seed + draw)
    start = time.process_time()
    est = ImageConfounding(LearnedFilters(n_folds=1)).fit(data.images, data.outcome, treatment=data.treatment)
    row = {**judge(est, data.effect), "se": est.ate_.se, "cpu": time.process_time() - start}
    sides = [one.filters_[0].shape[-1] << one.levels_[0] for one in est.encoder_.encoders_]
    return row | {"px": float(np.median(sides))}


def colour(draw: int) -> Row:
    """One draw of benchmark A."""
    data = colour_confounding(seed=draw)
    start = time.process_time()
    est = ImageConfounding(LearnedFilters(), covariates=["x1", "x2"])
    est.fit(data.chips(), data.outcome, treatment=data.treatment)
    return {**judge(est, data.effect), "se": est.ate_.se, "cpu": time.process_time() - start}


def village(seed: int, draw: int) -> Row:
    """One draw of benchmark C."""
    trial = satellite_trial("confounded", n_sites=200, seed=seed)
    imagery = causalsat.open_imagery(trial.imagery)
    units = trial.draw_outcomes(100 * seed + draw).units
    start = time.process_time()
    size = trial.truth["chip_m"]
    est = ImageConfounding(LearnedFilters(), imagery=imagery, size_m=size, covariates=COVARIATES)
    est.fit(units, units["outcome"], treatment="treatment", groups="site")
    row = judge(est, float(units["tau"].mean()))
    return {**row, "se": est.ate_.se, "cpu": time.process_time() - start}


def picture(path: str) -> None:
    """True kernels beside the filters that are found on one draw of 500 images of each width."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(WIDTHS), figsize=(2.2 * len(WIDTHS), 4.6), layout="constrained")
    for width, (above, below) in zip(WIDTHS, axes.T, strict=True):
        data = redraw(base(width, 0), 0)
        encoder = LearnedFilters(n_folds=1).fit(data.images, data.outcome, treatment=data.treatment)
        found, level = encoder.filters_[0][0], encoder.levels_[0]
        reach = float(np.abs(found).max())
        above.imshow(np.fliplr(np.eye(width)), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        below.imshow(found, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
        above.set_title(f"streak of {width} px", fontsize=9)
        below.set_title(
            f"found, {found.shape[0] << level} px" + (f", 1/{1 << level} as fine" if level else ""), fontsize=9
        )
        for ax in (above, below):
            ax.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("kernel")
    axes[1, 0].set_ylabel("learned filter")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def line(label: str, rows: list[Row]) -> str:
    """One row of the table."""

    def values(key: str) -> Any:
        return np.array([row[key] for row in rows])

    error, naive = values("aipw"), values("naive")
    share, n = values("covers").mean(), len(rows)
    cells = [label, str(n), f"{naive.mean():.3f}", f"{values('hajek').mean():.3f}"]
    cells += [f"{error.mean():.3f} ({error.std(ddof=1) / np.sqrt(n):.3f})", f"{values('se').mean():.3f}"]
    cells += [f"{np.sqrt(np.mean(error**2) / np.mean(naive**2)):.3f}"]
    cells += [f"{100 * share:.0f} ({100 * np.sqrt(share * (1 - share) / n):.1f}), n {n}"]
    cells += [f"{values('r2').mean():.3f}", f"{np.median(values('px')):.0f}" if "px" in rows[0] else ""]
    return "| " + " | ".join([*cells, f"{values('cpu').mean():.1f}"]) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws-b", type=int, default=10, help="of each width, on two sets of images")
    parser.add_argument("--draws-a", type=int, default=2)
    parser.add_argument("--draws-c", type=int, default=1, help="on each of five landscapes")
    parser.add_argument("--picture", help="only draw the filters, into this PNG file")
    options = parser.parse_args(argv)
    if options.picture:
        picture(options.picture)
        return

    def kept(key: str, make: Any) -> Row:
        return kept_rows.kept_row("image_confounding_filters", key, make)

    b: dict[int, list[Row]] = {width: [] for width in WIDTHS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clipped propensities
        for draw in range(options.draws_b):
            for width in WIDTHS:
                seed, nth = draw % SETS, draw // SETS
                b[width].append(kept(f"b|{width}|{seed}|{nth}", partial(streak, width, seed, nth)))
        a = [kept(f"a|{draw}", partial(colour, draw)) for draw in range(options.draws_a)]
        pairs = [(seed, draw) for draw in range(options.draws_c) for seed in range(LANDSCAPES)]
        c = [kept(f"c|{seed}|{draw}", partial(village, seed, draw)) for seed, draw in pairs]
    names = ["", "draws", "naive bias", "Hajek bias", "AIPW bias (s.e.)", "mean std err", "AIPW RMSE / naive"]
    names += ["covers, % (s.e.)", "outcome R2, held out", "median side of the filter, px", "CPU s a fit"]
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    print("\n".join(line(f"B, streak of {width} px", rows) for width, rows in b.items()))
    every = [row for rows in b.values() for row in rows]
    print(line("B, all widths", every))
    if a:
        print(line("A, red level", a))
    if c:
        print(line("C, 200 villages", c))


if __name__ == "__main__":
    main()
