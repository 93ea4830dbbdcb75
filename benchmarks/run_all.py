"""Run the benchmarks and write their tables, with date, machine and command, to benchmarks/RESULTS.md.

    python benchmarks/run_all.py [NAME ...]

Each script is run on its own, in one thread, and its section replaced; the sections of other scripts stay.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
ORDER = [
    ("simulated_trial", "The simulated default: accuracy, coverage, error rate"),
    ("uganda", "Uganda: ranking of unseen sites"),
    ("uganda_design", "Uganda's design, simulated: ranking and accuracy"),
    ("uganda_seeds", "Uganda's ten fold seeds: what they can tell"),
    ("uganda_covariates", "Uganda's design, simulated: covariates among the modifiers"),
    ("uganda_places", "Uganda's places, simulated outcomes: effects that follow the place"),
    ("decisions", "Decisions: values of rules, gain of a budget, exact trees"),
    ("missing_features", "Missing features: means and multiple imputation"),
    ("chips", "Reading chips"),
    ("dense_features", "Dense features"),
    ("encoders", "Encoders that users bring"),
    ("mapping", "Mapping a large raster"),
    ("country", "Maps at the scale of a country"),
    ("rate", "RATE of a million units"),
    ("waiting", "Where users wait: work beside its reference, growth"),
    ("bayesian_linear", "BayesianLinearEffect"),
    ("large_linear", "BayesianLinearEffect on 100,000 units"),
    ("image_confounding", "Confounders in the image"),
    ("image_confounding_filters", "Confounders in the image: learned filters"),
    ("image_clusters", "Image effect clusters: simulated truth"),
    ("image_clusters_uganda", "Image effect clusters: Uganda"),
    ("training_speed", "Training on images"),
    ("selective_labels", "Selective labels: what constraints buy, coverage, calibration of the untested"),
    ("selective_speed", "Selective labels: effective samples a second, cost by size"),
    ("transtee", "TransTEE: doses, beside a Gaussian process and plain networks"),
    ("gp_doses", "Doses: the Gaussian process beside a plain one"),
    ("transtee_more", "TransTEE: ablations, shifted doses, images, size"),
    ("transtee_treatments", "TransTEE: dosages and graphs"),
    ("risk_systems", "Calibrated and rare probabilities, trust"),
    ("ihdp", "IHDP, replications 1 to 5"),
    ("gp_surfaces", "The Gaussian process on surfaces of our own over IHDP's covariates"),
    ("peers", "Side by side with peers"),
    ("calibration", "Calibration: simulation-based, and coverage over 200 trials"),
    ("samplers", "Samplers side by side"),
    ("meta_and_forest", "Coverage of intervals: forest, doubly robust, meta-learners, stack"),
    ("place_intervals", "Effects that are linear, curved, steps, sparse, interactions: intervals at new places"),
    ("designs", "Designs: coverage of every row of the average effect"),
    ("experiments_outcomes", "Experiments: missing, predicted and several outcomes, neighbours, panels"),
    ("uganda_estimators", "Uganda: every estimator"),
    ("sequences", "Image sequences: a moderator in the change between dates"),
    ("finetuning", "Fine-tuning a network against its frozen features"),
    ("compare", "Comparing data and models: does the RATE rank them as the truth does?"),
    ("compare_nulls", "Comparisons: do p-values reject at their level?"),
    ("districts", "District means: coverage"),
    ("faults", "Faults: damaged files, full disks, kill -9, hostile input"),
    ("stacking_and_conformal", "Stacks, conformal intervals, aggregated quantiles"),
    ("vluci", "VLUCI: an unobserved confounder, inferred"),
    ("vluci_prior", "VLUCI: what the prior of a confounder trades"),
    ("examples", "The examples: run times, and from a clean machine to the first map"),
]
HEAD = """# Benchmarks

CPU seconds and ratios from runs on small shared machines; seconds on yours will differ, ratios should not. Each
section says when, on what kind of machine and with which command it was made; `python benchmarks/run_all.py NAME`
makes it again.
"""


def machine() -> str:
    """Kind of the machine in a few words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{os.cpu_count()} shared {platform.machine()} cores"
    return f"{cores}, {memory:.0f} GiB, Python {platform.python_version()}, no GPU"


def section(name: str, title: str, options: Sequence[str] = ()) -> str:
    """Run one script and lay out its section."""
    command = [sys.executable, str(HERE / f"{name}.py"), *options]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads}, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise SystemExit(f"{name} failed")
    words = " ".join(["python", f"benchmarks/{name}.py", *options])
    found = done.stdout.strip() if "|---" in done.stdout else f"```\n{done.stdout.strip()}\n```"
    return f"## {title}\n\n{date.today():%Y-%m-%d}, {machine()}: `{words}`\n\n{found}\n"


def update(text: str, title: str, new: str) -> str:
    """Replace the section of that title, or append it."""
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.S | re.M)
    if pattern.search(text):
        return pattern.sub(lambda _: new + "\n", text)
    return text.rstrip("\n") + "\n\n" + new


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    known = [name for name, _ in ORDER]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without any")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name, title in ORDER:
        if not options.names or name in options.names:
            new = section(name, title)
            text = RESULTS.read_text() if RESULTS.exists() else HEAD
            RESULTS.write_text(update(text, title, new).rstrip("\n") + "\n")
            print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main()
