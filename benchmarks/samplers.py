"""Samplers of BayesianLinearEffect's model side by side: effective sample size a CPU second.

    python benchmarks/samplers.py [--sizes 2000 20000] [--environments FOLDER] [--limit 120]

The same Gaussian model with the horseshoe prior (10 modifiers, 6 more covariates, 327 villages), sampled by the
estimator's default (``sampler="auto"``: only scales are sampled, coefficients and villages integrated out), and as
written in PyMC by nutpie (``sampler="pymc"``), PyMC's own NUTS and NumPyro. Each runs in a process of its own in one
thread. NumPyro and JAX live in a virtual environment on top of this one, made on first use below FOLDER (environment
variable CAUSALSAT_SAMPLERS, else a folder ``causalsat-samplers`` for temporary files). A sampler that needs more than
the limit of CPU seconds for its draws is stopped, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

N_GROUPS, N_MODIFIERS, N_COVARIATES, N_CHAINS = 327, 10, 6, 2
RUNS = {2000: 200, 20000: 100}  # draws a chain, after as many tuning draws
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
XLA = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "JAX_PLATFORMS": "cpu"}


def simulate(n: int) -> dict[str, Any]:
    """A cluster-randomised trial in which one of ten modifiers matters."""
    rng = np.random.default_rng(0)
    groups = np.r_[np.arange(N_GROUPS), rng.integers(0, N_GROUPS, n - N_GROUPS)]
    t = rng.permutation(N_GROUPS)[groups] % 2
    latents, covariates = rng.standard_normal((N_GROUPS, N_MODIFIERS))[groups], rng.standard_normal((n, N_COVARIATES))
    y = 0.3 * (latents[:, 1] + covariates[:, 0]) + t * (0.5 + 0.2 * latents[:, 0])
    y += 0.3 * rng.standard_normal(N_GROUPS)[groups] + rng.standard_normal(n)
    return {"X": np.column_stack([latents, covariates]), "y": y, "treatment": t, "groups": groups}


def fit(data: dict[str, Any], **options: Any) -> Any:
    """A fitted estimator."""
    from causalsat import BayesianLinearEffect

    estimator = BayesianLinearEffect(modifiers=list(range(N_MODIFIERS)), n_chains=N_CHAINS, random_state=0, **options)
    return estimator.fit(data["X"], data["y"], treatment=data["treatment"], groups=data["groups"])


def pymc_model(data: dict[str, Any]) -> Any:
    """The model in PyMC, with its data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(data, n_draws=1, n_tune=50).to_pymc()


# ---------------------------------------------------------------------- samplers
def clock() -> float:
    """CPU seconds of this process and of the compilers that it started."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def by_auto(data: dict[str, Any], draws: int) -> tuple[dict[str, Any], float, float]:
    began = clock()
    fit(data, n_draws=1, n_tune=50)  # compiles; its 102 draws are counted as compiling
    compiled = clock()
    estimator = fit(data, n_draws=draws, n_tune=draws)
    found = {name: estimator.draws_[name] for name in ("treatment", "interaction", "noise", "group_sd")}
    found = {name: values.reshape(N_CHAINS, draws, -1) for name, values in found.items()}
    return found, compiled - began, clock() - compiled


NAMES = {"treatment": "treatment", "interaction": "interaction_effects", "noise": "noise", "group_sd": "random_sd"}


def _from_trace(trace: Any) -> dict[str, Any]:
    found = {ours: np.asarray(trace.posterior[theirs]) for ours, theirs in NAMES.items()}
    return found | {"treatment": found["treatment"][:, :, None]}


def by_nutpie(data: dict[str, Any], draws: int) -> tuple[dict[str, Any], float, float]:
    import nutpie

    model = pymc_model(data)
    began = clock()
    compiled_model = nutpie.compile_pymc_model(model)
    compiled = clock()
    trace = nutpie.sample(
        compiled_model, draws=draws, tune=draws, chains=N_CHAINS, cores=1, seed=0, progress_bar=False
    )
    return _from_trace(trace), compiled - began, clock() - compiled


def by_pymc(data: dict[str, Any], draws: int) -> tuple[dict[str, Any], float, float]:
    import pymc as pm

    options: dict[str, Any] = {"chains": N_CHAINS, "random_seed": 0, "progressbar": False}
    with pymc_model(data):
        began = clock()
        _, step = pm.init_nuts(**options)
        compiled = clock()
        trace = pm.sample(draws=draws, tune=draws, step=step, cores=1, compute_convergence_checks=False, **options)
    return _from_trace(trace), compiled - began, clock() - compiled


def by_numpyro(data: dict[str, Any], draws: int) -> tuple[dict[str, Any], float, float]:
    """As ``pm.sample(nuts_sampler="numpyro")``, run twice: the second run has nothing to compile."""
    import jax
    from numpyro.infer import MCMC, NUTS
    from pymc.sampling.jax import get_jaxified_graph, get_jaxified_logp

    jax.config.update("jax_enable_x64", True)
    model = pymc_model(data)
    began = clock()
    negative = get_jaxified_logp(model, negative_logp=False)  # as PyMC itself calls it: the name says the opposite
    kernel = NUTS(potential_fn=negative, target_accept_prob=0.8)
    sampler = MCMC(
        kernel,
        num_warmup=draws,
        num_samples=draws,
        num_chains=N_CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    rng, point = np.random.default_rng(0), model.initial_point()
    start = [
        np.stack([point[v.name] + rng.uniform(-1, 1, np.shape(point[v.name])) for _ in range(N_CHAINS)])
        for v in model.value_vars
    ]
    marks = [began]
    for seed in (0, 1):
        sampler.run(jax.random.PRNGKey(seed), init_params=start)
        raw = sampler.get_samples(group_by_chain=True)
        jax.block_until_ready(raw)
        marks.append(clock())
    names = list(NAMES.values())
    outputs = get_jaxified_graph(model.value_vars, model.replace_rvs_by_values([model[name] for name in names]))
    values = jax.vmap(jax.vmap(outputs))(*raw)
    found = dict(zip(NAMES, (np.asarray(v) for v in values), strict=True))
    sampling = marks[2] - marks[1]
    return found | {"treatment": found["treatment"][:, :, None]}, marks[1] - marks[0] - sampling, sampling


SAMPLERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "auto": ('`sampler="auto"`', by_auto),
    "nutpie": ("PyMC model, nutpie", by_nutpie),
    "pymc": ("PyMC model, PyMC's NUTS", by_pymc),
    "numpyro": ("PyMC model, NumPyro", by_numpyro),
}


def one(name: str, n: int) -> dict[str, float]:
    """Run one sampler in this process."""
    import arviz

    warnings.simplefilter("ignore")
    found, compiling, sampling = SAMPLERS[name][1](simulate(n), RUNS.get(n, 100))
    columns = [values[:, :, j] for values in found.values() for j in range(values.shape[2])]
    effects = [
        values[:, :, j] for k in ("treatment", "interaction") for values in [found[k]] for j in range(values.shape[2])
    ]
    return {
        "compiling": compiling,
        "sampling": sampling,
        "ess": min(float(arviz.ess(c)) for c in columns),
        "ess_effects": min(float(arviz.ess(c)) for c in effects),
        "r_hat": max(float(arviz.rhat(c)) for c in columns),
        "treatment": float(found["treatment"].mean()),
    }


# ---------------------------------------------------------------------- processes
def numpyro_python(environments: Path) -> str:
    """Python of the environment with NumPyro and JAX, which sees this one's packages; made where it is not there."""
    folder = environments / "numpyro"
    python, mark = folder / "bin" / "python", folder / "installed"
    if not mark.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
        inside = next((folder / "lib").glob("python3*")) / "site-packages"
        below = sysconfig.get_paths()["purelib"]
        (inside / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")  # editable installs too
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "numpyro"], check=True, capture_output=True)
        mark.touch()
    return str(python)


def in_a_process(name: str, n: int, environments: Path, limit: int) -> dict[str, Any] | str:
    """Run one sampler in a fresh process with an empty compilation cache; a sentence where it was stopped."""
    python = numpyro_python(environments) if name == "numpyro" else sys.executable
    with tempfile.TemporaryDirectory() as cache:
        compilation = {"NUMBA_CACHE_DIR": cache, "PYTENSOR_FLAGS": f"base_compiledir={cache}"}
        done = subprocess.run(
            [python, "-W", "ignore", __file__, "--one", name, "--sizes", str(n)],
            env={**os.environ, **THREADS, **XLA, **compilation},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5)),
        )
    if done.returncode < 0:
        return f"stopped after {limit} CPU s"
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(sizes: Sequence[int], environments: Path, limit: int, names: Sequence[str]) -> str:
    """The table, as Markdown."""
    lines = [
        f"BayesianLinearEffect's Gaussian model: {N_MODIFIERS} modifiers, horseshoe, {N_COVARIATES} covariates, "
        f"{N_GROUPS} villages;",
        f"{N_CHAINS} chains, as many draws as tuning draws, one thread, fresh processes without a compilation cache.",
        "Least bulk effective sample size of treatment, interactions, noise and village scale; CPU seconds.",
        "",
        "| units | sampler | draws a chain | compiling | sampling | least ESS | a CPU s | effects alone | R-hat |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for n in sizes:
        for name in names:
            found = in_a_process(name, n, environments, limit)
            print(name, n, found, file=sys.stderr, flush=True)
            start = f"| {n:,} | {SAMPLERS[name][0]} | {RUNS.get(n, 100)} |"
            if isinstance(found, str):
                lines.append(f"{start} {found} | | | | | |")
                continue
            rates = [found[k] / found["sampling"] for k in ("ess", "ess_effects")]
            lines.append(
                f"{start} {found['compiling']:.1f} | {found['sampling']:.1f} | {found['ess']:.0f} | {rates[0]:.1f} | "
                f"{rates[1]:.1f} | {found['r_hat']:.3f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    default = os.environ.get("CAUSALSAT_SAMPLERS", str(Path(tempfile.gettempdir()) / "causalsat-samplers"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(RUNS))
    parser.add_argument("--environments", type=Path, default=Path(default))
    parser.add_argument("--limit", type=int, default=120, help="CPU seconds for one sampler at one size")
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--one", choices=list(SAMPLERS), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(one(chosen.one, chosen.sizes[0])))
    else:
        print(run(chosen.sizes, chosen.environments, chosen.limit, chosen.samplers))
