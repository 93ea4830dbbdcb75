"""SelectiveLabelsRisk: effective samples a CPU second against the model as it is read, and CPU time by size.

Data of the paper's design with 7 features (Balachandar, Garg and Pierson 2024, section 5.1). The raw model is the one
of the paper with the unobservable integrated out in closed form, in its own parameters beta_Y, beta_Delta and sigma:
in PyMC with PyMC's sampler and, where PyStan is installed, in Stan: ``--stan``, or the environment's STAN_PYTHON,
names an interpreter that has it. Effective samples are the least over all coefficients and sigma, bulk and tail; CPU
seconds count mode search, tuning and sampling, not compilation. The raw models get fewer draws, because they are
slow: their effective samples a second are what is compared.

    python benchmarks/selective_speed.py [--stan PYTHON] [--raw-draws 100] [--sizes 1000 5000 20000 100000]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CHAINS, TUNE, FEATURES, N = 4, 150, 7, 5000
PLOT = Path("outputs/benchmarks/selective_speed.png")

STAN = """
functions {
  vector gain(vector b, real s) { return log1p_exp(b + s) - log1p_exp(b); }
}
data { int n; int p; matrix[n, p] X; array[n] int cell; int n0; int n1; int n2;
       array[n0] int i0; array[n1] int i1; array[n2] int i2; }
parameters { vector[p] risk; vector[p] decision; real<lower=0> sigma; }
model {
  vector[n] a = X * risk;
  vector[n] d = X * decision;
  vector[n] b = a + d;
  vector[n] q = inv_logit(-b) .* inv_logit(a + sigma) * (1 - exp(-sigma));
  vector[n] x = q .* expm1(d);
  vector[n] part;
  for (i in 1:n) part[i] = abs(x[i]) < 1e-4 ? q[i] * (1 - x[i] / 2 + square(x[i]) / 3) : q[i] * log1p(x[i]) / x[i];
  risk ~ normal(0, 3);
  decision ~ normal(0, 3);
  sigma ~ normal(0, 3);
  target += sum(log(gain(-(b[i0] + sigma), sigma))) - n * log(sigma);
  target += sum(d[i1] + log(part[i1]));
  target += sum(log(fmax(1e-300, gain(a[i2], sigma) - part[i2])));
}
"""


def prepared(n: int, seed: int = 0) -> Any:
    """Standardised data without constraints."""
    import selective_labels as design

    from causalsat.estimators.selective_labels.density import SelectiveData

    design.N, design.FEATURES = n, FEATURES
    data = design.data_set(seed)
    X = (data["X"] - data["X"].mean(axis=0)) / data["X"].std(axis=0)
    cell = np.where(data["tested"] == 0, 0, 1 + data["y"]).astype(np.int64)
    rows = np.column_stack([np.ones(n), X])
    return SelectiveData(rows, cell, np.ones(n), np.arange(FEATURES + 1))


# ---------------------------------------------------------------------- the contestants: (least ESS, CPU s)
def least_ess(chains: dict[str, np.ndarray]) -> float:
    """Least effective samples over all parameters, bulk and tail."""
    from causalsat.inference.chains import chain_summary

    return float(chain_summary(chains, 0)["ess"])


def ours(data: Any, form: Any, draws: int = 500) -> tuple[float, float]:
    """The estimator's sampler."""
    from causalsat.estimators.selective_labels import sample as sampling
    from causalsat.inference.chains import Settings

    start = time.process_time()
    found = sampling.sample(form.density(), form.arguments(data), form.start(data), Settings(draws, 300, CHAINS, 0))
    cpu = time.process_time() - start
    return float(found.diagnostics(vars(form.coefficients(found.flat, data)))["ess"]), cpu


def whitened_nuts(data: Any, form: Any, draws: int = 200) -> tuple[float, float]:
    """The No-U-Turn sampler on the same density in Laplace-whitened coordinates, which takes over with few units."""
    from causalsat.estimators.selective_labels import sample as sampling
    from causalsat.inference.chains import Settings

    start = time.process_time()
    mode = sampling.laplace(form.density(), form.arguments(data), form.start(data))
    settings = Settings(draws, TUNE, CHAINS, 0)
    chains, wrong = sampling.sample_whitened(form.density(), form.arguments(data), mode, settings)
    cpu = time.process_time() - start
    found = sampling.Sampled(chains, wrong, "NUTS", float("nan"))
    return float(found.diagnostics(vars(form.coefficients(found.flat, data)))["ess"]), cpu


def raw_pymc(data: Any, draws: int) -> tuple[float, float]:
    """The raw model with PyMC's sampler."""
    import pymc as pm

    from causalsat.estimators.selective_labels.model import build_model

    with build_model(data, raw=True) as model:
        step = pm.NUTS(compile_kwargs={})  # compiles
        start = time.process_time()
        trace = pm.sample(
            draws, tune=TUNE, chains=CHAINS, cores=1, step=step, random_seed=0, progressbar=False,
            compute_convergence_checks=False, model=model, initvals={"sigma": 1.0},
        )  # fmt: skip
        cpu = time.process_time() - start
    return least_ess({k: trace.posterior[k].to_numpy() for k in ("risk", "departures", "sigma")}), cpu


def raw_stan(data: Any, draws: int, python: str) -> tuple[float, float] | None:
    """The raw model in Stan, in a process of its own; None where PyStan is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "data.npz", Path(folder) / "draws.npz"
        np.savez(given, X=data.X, cell=data.cell)
        command = [python, str(Path(__file__).resolve()), "--stan-child", str(given), str(taken), str(draws)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(done.stderr[-2000:])
            return None
        with np.load(taken) as found:
            chains = {name: found[name] for name in ("risk", "decision", "sigma")}
            return least_ess(chains), float(found["cpu"])


def cpu_of_family() -> float:
    """CPU seconds of this process and its descendants, living and ended: PyStan samples in worker processes."""
    times: dict[int, tuple[int, float]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        times[int(stat.parent.name)] = (int(fields[1]), sum(map(float, fields[11:15])) / os.sysconf("SC_CLK_TCK"))
    family, new = {os.getpid()}, {os.getpid()}
    while new:
        new = {pid for pid, (parent, _) in times.items() if parent in new} - family
        family |= new
    return sum(times[pid][1] for pid in family)


def stan_child(given: str, taken: str, draws: str) -> None:
    """Sample the raw model with PyStan; runs in an interpreter that has it."""
    import nest_asyncio
    import stan

    nest_asyncio.apply()
    with np.load(given) as found:
        X, cell = found["X"], found["cell"]
    rows = {f"i{k}": (np.flatnonzero(cell == k) + 1).tolist() for k in range(3)}
    data = {"n": len(X), "p": X.shape[1], "X": X.tolist(), "cell": cell.tolist(), **rows}
    data |= {f"n{k}": len(rows[f"i{k}"]) for k in range(3)}
    model = stan.build(STAN, data=data, random_seed=1)

    begin = cpu_of_family()
    fit = model.sample(num_chains=CHAINS, num_samples=int(draws), num_warmup=TUNE)
    spent = cpu_of_family() - begin
    p = X.shape[1]
    out = {
        name: np.moveaxis(fit[name].reshape(size, int(draws), CHAINS), (0, 1, 2), (2, 1, 0))
        for name, size in (("risk", p), ("decision", p), ("sigma", 1))
    }
    np.savez(taken, cpu=spent, **out)


# ---------------------------------------------------------------------- tables
def by_method(stan: str, raw_draws: int) -> str:
    """Effective samples a CPU second of each contestant."""
    from causalsat.estimators.selective_labels.forms import NormalForm, UniformForm

    data, uniform, normal = prepared(N), UniformForm(), NormalForm(1.0, np.nan)
    for form in (uniform, normal):  # compile
        ours(prepared(200), form, 20)
    found: dict[str, tuple[float, float] | None] = {
        "SelectiveLabelsRisk": ours(data, uniform),
        "SelectiveLabelsRisk, normal unobservables": ours(data, normal),
        "NUTS on its density, whitened": whitened_nuts(data, uniform),
        "raw model in PyMC": raw_pymc(data, raw_draws),
        "raw model in Stan": raw_stan(data, raw_draws, stan),
    }
    raw = [r[0] / r[1] for name, r in found.items() if r is not None and name.startswith("raw")]
    lines = ["| sampler | least effective samples | CPU s | a CPU s | times the better raw model |"]
    lines.append("|---|---|---|---|---|")
    for name, result in found.items():
        if result is None:
            lines.append(f"| {name} | not installed | | | |")
            continue
        speed = result[0] / result[1]
        lines.append(f"| {name} | {result[0]:.0f} | {result[1]:.1f} | {speed:.2f} | {speed / max(raw):.0f} |")
    return "\n".join(lines)


def by_size(sizes: Sequence[int]) -> str:
    """CPU seconds and effective samples by number of units, and a plot."""
    from causalsat.estimators.selective_labels.forms import UniformForm

    found = [(n, *ours(prepared(n, seed=3), UniformForm())) for n in sizes]
    slope = np.polyfit(np.log([f[0] for f in found]), np.log([f[2] for f in found]), 1)[0]
    lines = ["| units | least effective samples of 2,000 | CPU s | CPU s per 1,000 units |", "|---|---|---|---|"]
    lines += [f"| {n:,} | {ess:.0f} | {cpu:.1f} | {1000 * cpu / n:.2f} |" for n, ess, cpu in found]
    draw([f[0] for f in found], [f[2] for f in found], slope)
    return "\n".join([*lines, "", f"CPU seconds grow with units to the power {slope:.2f}; plot: `{PLOT}`."])


def draw(sizes: Sequence[int], seconds: Sequence[float], slope: float) -> None:
    """CPU seconds against units, both on log scales."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure, ax = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    ax.loglog(sizes, seconds, "o-", label=f"SelectiveLabelsRisk, slope {slope:.2f}")
    ax.loglog(sizes, seconds[-1] * np.array(sizes) / sizes[-1], "--", color="0.5", label="linear")
    ax.set(xlabel="units", ylabel="CPU seconds, 4 chains of 500 draws", title="Cost by size, 7 features")
    ax.legend(frameon=False)
    figure.savefig(PLOT, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stan", default=os.environ.get("STAN_PYTHON", sys.executable), help="as above")
    parser.add_argument("--raw-draws", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20000, 100000])
    parser.add_argument("--stan-child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.stan_child:
        stan_child(*options.stan_child)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(f"N = {N:,}, {FEATURES} features, {CHAINS} chains.\n")
        print(by_method(options.stan, options.raw_draws), by_size(options.sizes), sep="\n\n")


if __name__ == "__main__":
    main()
