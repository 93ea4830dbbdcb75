"""Our estimators beside EconML, stochtree, CATENets and CausalML: accuracy, coverage and CPU seconds in one table.

    python benchmarks/peers.py [--environments FOLDER] [--only causalsat econml ...] [--methods NAME ...] [--trials 4]

Data: replications 1 to 5 of IHDP (672/75 units, as in benchmarks/ihdp.py) and simulated cluster-randomised trials (60
villages of 8 units, four village-level and four unit-level features, an effect that bends: ``cluster`` of
benchmarks/meta_and_forest.py), judged at 200 units of new villages. nPEHE is the root mean squared error of the
effects over the standard deviation of the true effects; coverage that of 95 % intervals of single units' effects.

Each peer runs in a virtual environment of its own with the versions of ``peers/NAME.txt``, made on first use below
FOLDER (environment variable CAUSALSAT_PEERS, else a folder ``causalsat-peers`` for temporary files); ``peers/NAME_
adapter.py`` reads the trials from one .npz file and writes its answers to another. Answers are kept there and used
again while data, adapter and versions (for ours, the package's source) are the same. What cannot be built or fails
is a row that says why.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ihdp import load_replication
from meta_and_forest import cluster

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "peers"
OURS = "causalsat"
PEERS = (OURS, "econml", "stochtree", "catenets", "causalml")
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
TIMEOUT_S = 3600

Trial = dict[str, Any]


def ihdp_trial(number: int) -> Trial:
    """Training and test units of a replication of IHDP."""
    train, test = load_replication(number)
    names = [f"x{j}" for j in range(1, 26)]
    return {
        "X": train[names].to_numpy(float),
        "y": train["y_factual"].to_numpy(float),
        "t": train["treatment"].to_numpy(float),
        "new": test[names].to_numpy(float),
        "groups": np.empty(0),
        "observational": True,
        "seed": number,
        "truth": (test["mu1"] - test["mu0"]).to_numpy(float),
    }


def simulated_trial(number: int) -> Trial:
    """A cluster-randomised trial with known effects."""
    made = cluster(np.random.default_rng(1000 + number))
    more = {"observational": False, "seed": number, "truth": made["tau_new"]}
    return {**{name: made[name] for name in ("X", "y", "t", "new", "groups")}, **more}


def python_of(peer: str, environments: Path) -> str:
    """Python of a peer's environment, which is made where it is not there."""
    if peer == OURS:
        return sys.executable
    folder, wanted = environments / peer, FOLDER / f"{peer}.txt"
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    if not mark.exists() or mark.read_text() != wanted.read_text():
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        mark.write_text(wanted.read_text())
    return str(python)


def digest(peer: str, inputs: Path, methods: Sequence[str] = ()) -> str:
    """Fingerprint of what decides a peer's answers."""
    files = [FOLDER / "common.py", FOLDER / f"{peer}_adapter.py"]
    if peer == OURS:
        files += sorted((HERE.parent / "causalsat").rglob("*.py"))
    else:
        files.append(FOLDER / f"{peer}.txt")
    sha = hashlib.sha256()
    with np.load(inputs) as file:
        for key in sorted(file.files):
            sha.update(key.encode() + file[key].tobytes())
    for path in files:
        sha.update(path.read_bytes())
    sha.update(" ".join(methods).encode())
    return sha.hexdigest()[:16]


def answers(peer: str, inputs: Path, environments: Path, methods: Sequence[str] = ()) -> dict[str, Any] | str:
    """What a peer's adapter answers, with all its methods or some, or why there is no answer."""
    kept = environments / "results" / f"{peer}-{digest(peer, inputs, methods)}.npz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            python = python_of(peer, environments)
            part = kept.with_name(f"part-{kept.name}")
            command = [python, str(FOLDER / f"{peer}_adapter.py"), str(inputs), str(part), *methods]
            env = {k: v for k, v in os.environ.items() if peer == OURS or k != "PYTHONPATH"} | THREADS
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                env=env,
                timeout=TIMEOUT_S,
            )
            part.replace(kept)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or str(error)).strip().splitlines()
            return next((text for text in said if text.startswith("ERROR")), said[-1])
        except subprocess.TimeoutExpired:
            return f"no answer in {TIMEOUT_S} s"
    with np.load(kept) as file:
        return {key: file[key] for key in file.files}


def judge(found: dict[str, Any], trials: dict[str, Trial]) -> dict[str, list[dict[str, float]] | str]:
    """Errors, coverage and seconds of each method on each trial; the reason where a method failed."""
    rows: dict[str, Any] = {}
    for number, trial in trials.items():
        for method in dict.fromkeys(key.split("/")[1] for key in found if key.startswith(f"{number}/")):
            at = f"{number}/{method}"
            if f"{at}/error" in found:
                rows[method] = str(found[f"{at}/error"])
            elif not isinstance(rows.get(method), str):
                truth = trial["truth"]
                error = float(np.sqrt(np.mean((found[f"{at}/tau"] - truth) ** 2)))
                row = {"nPEHE": error / float(truth.std()), "sqrt-PEHE": error, "CPU s": float(found[f"{at}/cpu"])}
                if f"{at}/lower" in found:
                    row["coverage"] = float(
                        np.mean((found[f"{at}/lower"] <= truth) & (truth <= found[f"{at}/upper"]))
                    )
                rows.setdefault(method, []).append(row)
    return rows


def to_markdown(title: str, rows: dict[str, Any]) -> str:
    """One line a method."""
    lines = [f"| {title} | nPEHE (s.e.) | sqrt-PEHE | 95 % coverage | CPU s |", "|---|---|---|---|---|"]
    for method, found in rows.items():
        if isinstance(found, str):
            lines.append(f"| {method} | not run: {found} | | | |")
            continue
        value = {key: np.array([row[key] for row in found]) for key in found[0]}
        error = value["nPEHE"].std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
        covered = f"{value['coverage'].mean():.3f}" if "coverage" in value else "no intervals"
        lines.append(
            f"| {method} | {value['nPEHE'].mean():.3f} ({error:.3f}) | {value['sqrt-PEHE'].mean():.3f} | {covered} | "
            f"{value['CPU s'].mean():.1f} |"
        )
    return "\n".join(lines)


def run(
    peers: Sequence[str],
    environments: Path,
    replications: Sequence[int],
    n_trials: int,
    methods: Sequence[str] = (),
) -> list[str]:
    """Tables of the two kinds of data, and the versions."""
    worlds = {
        f"IHDP, replications {', '.join(map(str, replications))}": {f"i{k}": ihdp_trial(k) for k in replications},
        f"{n_trials} simulated cluster trials": {f"s{k}": simulated_trial(k) for k in range(n_trials)},
    }
    worlds = {title: trials for title, trials in worlds.items() if trials}
    tables: dict[str, dict[str, Any]] = {title: {} for title in worlds}
    versions: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for peer in peers:
            for number, (title, trials) in enumerate(worlds.items()):
                inputs = Path(folder) / f"{number}.npz"
                given = {f"{k}/{name}": v for k, d in trials.items() for name, v in d.items() if name != "truth"}
                np.savez(inputs, **given)
                found = answers(peer, inputs, environments, methods)
                if isinstance(found, str):
                    tables[title][peer] = found
                else:
                    versions[str(found["version"])] = None
                    tables[title] |= judge(found, trials)
    return [*(to_markdown(title, rows) for title, rows in tables.items()), f"Versions: {', '.join(versions)}."]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    default = os.environ.get("CAUSALSAT_PEERS", str(Path(tempfile.gettempdir()) / "causalsat-peers"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, default=Path(default))
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--methods", nargs="*", default=[], help="methods of the adapters; all without it")
    parser.add_argument("--replications", nargs="*", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--trials", type=int, default=4)
    options = parser.parse_args(argv)
    chosen = options.only, options.environments, options.replications, options.trials, options.methods
    print("\n\n".join(run(*chosen)))


if __name__ == "__main__":
    main()
