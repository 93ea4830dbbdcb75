"""Where users wait: each piece of work beside a reference in the same process, and how costs grow.

Every row runs in a process of its own, in one thread; figures are CPU seconds. The reference is what the work
cannot do without, or what another library takes for the same. The last table says how CPU seconds grow with units.

    python benchmarks/waiting.py [--rows meta_t meta_x ...] [--no-growth]

The rows of Uganda need its data (``CAUSALSAT_DATA``) and are left out without.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds of this process for a piece of work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def alternating(work: Callable[[], Any], reference: Callable[[], Any], times: int = 3) -> dict[str, float]:
    """Both, in turn, after a first run of each; the least of each."""
    work(), reference()
    runs = [(cpu(work), cpu(reference)) for _ in range(times)]
    return {"work": min(w for w, _ in runs), "reference": min(r for _, r in runs)}


def trial(n: int, p: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, outcome and treatment of a trial with one modifier."""
    rng = np.random.default_rng(seed)
    X, t = rng.standard_normal((n, p)), rng.permutation(n) % 2
    return X, X[:, 1] + t * (1 + X[:, 0]) + rng.standard_normal(n), t


def fit(name: str, n: int, p: int = 10, **settings: Any) -> Callable[[], Any]:
    """A fit of an estimator to such a trial."""
    import causalsat

    X, y, t = trial(n, p)
    return lambda: getattr(causalsat, name)(random_state=0, **settings).fit(X, y, treatment=t)


# ---------------------------------------------------------------------- rows
def check() -> dict[str, float]:
    """The check of 100,000 units without clusters, beside their stratified folds."""
    from sklearn.model_selection import StratifiedKFold

    units, study = _study(100_000)
    t = units["treated"].to_numpy()
    return alternating(study.check, lambda: list(StratifiedKFold(5, shuffle=True, random_state=0).split(t, t)), 1)


def _study(n: int) -> tuple[Any, Any]:
    import geopandas as gpd

    import causalsat

    rng = np.random.default_rng(0)
    columns = {"treated": rng.permutation(n) % 2, "outcome": rng.standard_normal(n), "age": rng.integers(18, 60, n)}
    columns |= {f"x{j}": rng.standard_normal(n) for j in range(8)}
    points = gpd.points_from_xy(rng.uniform(30, 34, n), rng.uniform(0, 3, n))
    units = gpd.GeoDataFrame(columns, geometry=points, crs=4326)
    covariates = [c for c in units.columns if c not in ("treated", "outcome", "geometry")]
    return units, causalsat.Study(units, outcome="outcome", treatment="treated", covariates=covariates)


def analyse() -> dict[str, float]:
    """The analysis of Uganda with its defaults, beside chips read and encoded once and one fit of the estimator."""
    import causalsat
    from causalsat.analysis import image_model

    study = causalsat.load_study("uganda_yop")
    fit("BayesianLinearEffect", 300, n_draws=50, n_tune=50, n_chains=1)()  # imports
    work = cpu(lambda: causalsat.analyse(study, progress=False))
    model = image_model(study)
    images, estimator = model.named_steps["images"], model.named_steps["effect"]
    features: list[Any] = []
    reference = cpu(lambda: features.append(images.fit_transform(study.X)))
    reference += cpu(lambda: images.set_params(on_invalid="mask", keep=()).transform(study.places[["geometry"]]))
    once = cpu(lambda: estimator.fit(features[0], study.y, treatment=study.treatment, groups=study.groups))
    return {"work": work, "reference": reference + 6 * once}


def map_cells(cells_px: int) -> dict[str, float]:
    """A map of 5,000 x 5,000 pixels with the default encoder, beside reading the raster and its products."""
    import mapping
    import torch

    import causalsat

    size = 5000
    with tempfile.TemporaryDirectory() as folder:
        raster = Path(folder) / "scene.tif"
        mapping.write_raster(raster, size)
        imagery = causalsat.open_imagery(raster)
        model = mapping.fit_model(imagery, causalsat.RandomConvFeatures())
        side = cells_px * mapping.PIXEL_M
        plain = {"progress": False, "png": False, "html": False}
        out = Path(folder) / "map.tif"
        work = cpu(lambda: causalsat.map_effects(model, imagery, None, side, out, **plain))

        def products() -> None:
            """Decode the raster; each pixel's patch times each filter, in blocks that stay in the cache."""
            imagery.read_window(0, 0, size, size)
            weight, patches = torch.randn(128, 48), torch.randn(48, 2048)
            for _ in range(size * size // 2048):
                torch.mm(weight, patches)

        return {"work": work, "reference": cpu(products)}


def meta(name: str) -> Callable[[], dict[str, float]]:
    """200 replicates on 10,000 units, beside closed-form ridge regressions of as many replicates and arms."""

    def row() -> dict[str, float]:
        from causalsat.inference.ridge import ridge_fit

        X, y, t = trial(10_000)
        weight, penalties = np.random.default_rng(0).exponential(size=5000), np.logspace(-2, 4, 13)

        def reference() -> None:
            for _ in range(200):
                for arm in (0, 1):
                    ridge_fit(X[t == arm], y[t == arm], weight, penalties)

        return alternating(fit(name, 10_000), reference, 1)

    return row


def doubly_robust(n: int) -> Callable[[], dict[str, float]]:
    """Beside EconML's LinearDRLearner with the same learners and folds."""

    def row() -> dict[str, float]:
        from econml.dr import LinearDRLearner
        from sklearn.dummy import DummyClassifier
        from sklearn.linear_model import RidgeCV

        X, y, t = trial(n)
        theirs = {"model_regression": RidgeCV(np.logspace(-2, 5, 15)), "cv": 5, "random_state": 0}
        share = DummyClassifier(strategy="prior")
        return alternating(
            fit("DoublyRobustEffect", n),
            lambda: LinearDRLearner(model_propensity=share, **theirs).fit(y, t, X=X),
        )

    return row


def gaussian_process(n: int) -> Callable[[], dict[str, float]]:
    """Beside the Cholesky factors and inverses of as many evaluations of the likelihood."""

    def row() -> dict[str, float]:
        from scipy.linalg import lapack

        found: list[Any] = []
        work = cpu(lambda: found.append(fit("GaussianProcessEffect", n, 5)()))
        rows = min(found[0].n_distinct_, found[0].n_max_hyper)
        A = np.random.default_rng(0).standard_normal((rows, rows))
        K = np.asfortranarray(A @ A.T / rows + np.eye(rows))

        def reference() -> None:
            for _ in range(found[0].evaluations_):
                lapack.dpotri(lapack.dpotrf(K, lower=1)[0], lower=1)

        return {"work": work, "reference": cpu(reference)}

    return row


def first_fit() -> dict[str, float]:
    """The first Bayesian fit of a process, ArviZ's import included, beside the second."""
    work = fit("BayesianLinearEffect", 1000, 5)
    return {"work": cpu(work), "reference": cpu(work)}


def stacked() -> dict[str, float]:
    """1,000 units and 80 features, beside its members fitted once each."""
    X, y, t = trial(1000, 80)
    found: list[Any] = []
    fit("BayesianLinearEffect", 300, n_draws=50, n_tune=50, n_chains=1)()
    work = cpu(lambda: found.append(fit("StackedEffect", 1000, 80)()))
    members = list(found[0].members_.values())
    return {"work": work, "reference": cpu(lambda: [m.fit(X, y, treatment=t) for m in members])}


def transtee() -> dict[str, float]:
    """50,000 units, beside 100 times the cost of 500."""
    fit("TransTEE", 200, n_members=1)()
    small = cpu(fit("TransTEE", 500))
    return {"work": cpu(fit("TransTEE", 50_000)), "reference": 100 * small}


def from_file(kind: str) -> Callable[[], dict[str, float]]:
    """A study of a million rows, beside pandas' reading and the points."""

    def row() -> dict[str, float]:
        import geopandas as gpd
        import pandas as pd

        import causalsat

        rng, n = np.random.default_rng(0), 1_000_000
        table = pd.DataFrame({"lon": rng.uniform(30, 34, n), "lat": rng.uniform(0, 3, n)})
        table = table.assign(treated=rng.permutation(n) % 2, y=rng.standard_normal(n), age=rng.integers(18, 60, n))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"units.{kind}"
            if kind == "parquet":
                table.to_parquet(path)
            else:
                table.to_stata(path, write_index=False)
            read = pd.read_parquet if kind == "parquet" else pd.read_stata

            def reference() -> None:
                units = read(path)
                gpd.GeoSeries(gpd.points_from_xy(units["lon"], units["lat"]), crs=4326)

            roles = {"outcome": "y", "treatment": "treated", "covariates": ["age"], "lon": "lon", "lat": "lat"}
            return alternating(lambda: causalsat.Study.from_file(path, **roles), reference)

    return row


@dataclass(frozen=True)
class Row:
    """A piece of work: what it is, what it is measured by and against, and what was asked for."""

    label: str
    measure: Callable[[], dict[str, float]]
    reference: str
    target: str


ROWS = {
    "check": Row("`Study.check()`, 100,000 units, no clusters", check, "stratified folds", "1.5 s"),
    "analyse": Row("`analyse`, Uganda, defaults", analyse, "places encoded once and six fits", "18 s"),
    "map_32": Row("map, 5,000 x 5,000 pixels, 24,000 cells", lambda: map_cells(32), "reading and products", "1.5 x"),
    "map_10": Row("the same, 250,000 cells", lambda: map_cells(10), "reading and products", "2 x"),
    "meta_t": Row("`TLearnerEffect`, 10,000 units", meta("TLearnerEffect"), "400 closed-form ridges", "1.0 s"),
    "meta_x": Row("`XLearnerEffect`, 10,000 units", meta("XLearnerEffect"), "400 closed-form ridges", "2.0 s"),
    "dr_4": Row("`DoublyRobustEffect`, 10,000 units", doubly_robust(10_000), "EconML, same learners", "1 x"),
    "dr_5": Row("`DoublyRobustEffect`, 100,000 units", doubly_robust(100_000), "EconML, same learners", "1 x"),
    "gp_3": Row("`GaussianProcessEffect`, 1,000 units", gaussian_process(1000), "its factorisations", "3 s"),
    "gp_4": Row("`GaussianProcessEffect`, 20,000 units", gaussian_process(20_000), "its factorisations", "30 s"),
    "first_fit": Row("first `BayesianLinearEffect` of a process", first_fit, "second", "2.2 s"),
    "stacked": Row("`StackedEffect`, 1,000 units, 80 features", stacked, "its members once", "15 s"),
    "transtee": Row("`TransTEE`, 50,000 units", transtee, "100 times 500 units", "20 s, 1 x"),
    "parquet": Row("`Study.from_file`, 1,000,000 rows, Parquet", from_file("parquet"), "pandas and points", "1.5 s"),
    "stata": Row("`Study.from_file`, 1,000,000 rows, Stata", from_file("dta"), "pandas and points", "1.5 s"),
}
NEEDS_DATA = ("analyse",)
GROWTH = {
    "`Study.check()`": (1000, 10_000, 100_000, 1_000_000),
    "`TLearnerEffect`": (1000, 10_000, 100_000),
    "`DoublyRobustEffect`": (1000, 10_000, 100_000, 1_000_000),
    "`BayesianLinearEffect`": (1000, 10_000, 100_000, 1_000_000),
    "`GaussianProcessEffect`": (100, 1000, 10_000),
}


def growth(name: str, n: int) -> dict[str, float]:
    """CPU seconds of a work at a size, after one at the least size."""
    short = name.strip("`").removesuffix("()")
    if short == "Study.check":
        warm, work = _study(1000)[1].check, _study(n)[1].check
    else:
        p = 5 if short.startswith("Gaussian") else 10
        warm, work = fit(short, 100, p), fit(short, n, p)
    warm()
    return {"work": cpu(work)}


def child(*words: str) -> dict[str, float]:
    """Figures of this script in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **dict.fromkeys(THREADS, "1")}
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def in_child(kind: str, name: str, size: str = "") -> None:
    """Measure in this process and print the figures."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    measure = {"row": lambda: ROWS[name].measure(), "growth": lambda: growth(name, int(size))}
    print(json.dumps(measure[kind]()))


def has_data() -> bool:
    """Whether Uganda's data are here."""
    return (Path(os.environ.get("CAUSALSAT_DATA", "data")) / "uganda_yop").exists()


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--no-growth", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        in_child(*options.child)
        return
    print("| work | CPU s | reference | CPU s | ratio | asked for |\n|---|---|---|---|---|---|")
    for name in options.rows:
        if name in NEEDS_DATA and not has_data():
            continue
        row, found = ROWS[name], child("row", name)
        ratio = found["work"] / found["reference"]
        print(
            f"| {row.label} | {found['work']:.2f} | {row.reference} | {found['reference']:.2f} | {ratio:.1f} "
            f"| {row.target} |",
            flush=True,
        )
    if options.no_growth:
        return
    print("\n| growth: CPU s at units | 100 | 1,000 | 10,000 | 100,000 | 1,000,000 | exponent, last decade |")
    print("|---|---|---|---|---|---|---|")
    for name, sizes in GROWTH.items():
        found = {n: child("growth", name, str(n))["work"] for n in sizes}
        cells = [f"{found[n]:.2f}" if n in found else "" for n in (100, 1000, 10_000, 100_000, 1_000_000)]
        exponent = np.log10(found[sizes[-1]] / found[sizes[-2]])
        print(f"| {name} | {' | '.join(cells)} | {exponent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
