"""What the adapters share: read trials, fit each method, write effects, intervals and CPU seconds.

An adapter is run with the Python of its environment: ``python ADAPTER.py IN.npz OUT.npz [METHOD ...]``, with all its
methods unless some are named. IN holds, for each trial k, ``k/X``, ``k/y``, ``k/t``, ``k/new`` (units whose effects
are wanted), ``k/groups`` (empty without clusters), ``k/observational`` and ``k/seed``. OUT gets ``k/METHOD/tau``,
``.../cpu`` and, where a method has 95 % intervals, ``.../lower`` and ``.../upper``; ``k/METHOD/error`` where it
failed.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

Found = tuple  # (tau,) or (tau, lower, upper), each of shape (n_new,)
Method = Callable[[dict], Found]


def run(methods: dict[str, Method], packages: list[str]) -> None:
    """Fit every method to every trial of the file named first; write the file named second."""
    warnings.simplefilter("ignore")
    methods = {name: method for name, method in methods.items() if name in (sys.argv[3:] or methods)}
    with np.load(sys.argv[1]) as file:
        trials: dict[str, dict] = {}
        for key in file.files:
            number, name = key.split("/")
            trials.setdefault(number, {})[name] = file[key]
    out = {"version": np.array(", ".join(f"{name} {version(name)}" for name in packages))}
    for number, trial in trials.items():
        trial["groups"] = trial["groups"] if trial["groups"].size else None
        trial["seed"], trial["observational"] = int(trial["seed"]), bool(trial["observational"])
        for name, method in methods.items():
            key = f"{number}/{name}"
            start = time.process_time()
            try:
                found = method(trial)
            except Exception as error:  # reported in the table, with its words
                out[f"{key}/error"] = np.array(f"{type(error).__name__}: {error}")
                continue
            out[f"{key}/cpu"] = np.array(time.process_time() - start)
            for part, values in zip(("tau", "lower", "upper"), found, strict=False):
                out[f"{key}/{part}"] = np.asarray(values, dtype=float).ravel()
            print(number, name, f"{float(out[f'{key}/cpu']):.1f} s", file=sys.stderr, flush=True)
    np.savez(sys.argv[2], **out)


def from_draws(draws: np.ndarray) -> Found:
    """Mean and equal-tailed 95 % interval of draws (draw, unit)."""
    return draws.mean(axis=0), *np.quantile(draws, [0.025, 0.975], axis=0)
