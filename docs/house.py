"""The house in numbers and in a picture, both from the code: ``python docs/house.py --runs --picture house.png``.

Packages stand in the layers of ``setup.cfg``; a package imports only from layers below its own. Numbers are of
modules, lines, functions and imports, and of the files that a fit, a map and an analysis run through.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "causalsat"


def modules() -> dict[str, Path]:
    """Dotted name to file of every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layers() -> list[list[str]]:
    """Layers of the import contract, the top first."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["importlinter:contract:flow"]["layers"].split("\n")
    return [[name.strip() for name in line.split("|")] for line in lines if line.strip()]


def own_imports(path: Path, known: dict[str, Path]) -> list[tuple[str, bool]]:
    """Own modules that a file imports, and whether inside a function."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "causalsat":
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    found.append((full if full in known else str(child.module), inside))
            visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def function_lengths(path: Path) -> list[tuple[int, str]]:
    """Lines of each function without its docstring."""
    rows = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            length = node.end_lineno - node.lineno + 1 - (text.count("\n") + 1 if text else 0)
            rows.append((length, f"{path.stem}.{node.name}"))
    return rows


def numbers() -> dict[str, str]:
    """The rows of the table."""
    known = modules()
    size = {name: path.read_text(encoding="utf-8").count("\n") for name, path in known.items()}
    imports = {name: own_imports(path, known) for name, path in known.items()}
    importers: Counter[str] = Counter()
    for name, targets in imports.items():
        importers.update({target for target, _ in targets if target != name})
    private = [name for name in known if name.rsplit(".", 1)[-1].startswith("_") and "__" not in name]
    functions = [row for path in known.values() for row in function_lengths(path)]
    longest = max(functions)
    top = max(size, key=lambda name: size[name])
    return {
        "modules": str(len(known)),
        "lines": f"{sum(size.values()):,}",
        "lines of a module: median, longest": f"{statistics.median(size.values()):.0f}, {size[top]} ({top})",
        "lines of a function: median, longest": f"{statistics.median(n for n, _ in functions):.0f}, "
        f"{longest[0]} ({longest[1]})",
        "private modules": str(len(private)),
        "private modules with one importer": str(sum(importers[name] == 1 for name in private)),
        "own imports inside functions": str(sum(inside for rows in imports.values() for _, inside in rows)),
        "imports of private names of another module": str(sum(_private_names(path) for path in known.values())),
    }


def _private_names(path: Path) -> int:
    """Names with an underscore that a file imports from another own module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("causalsat")]
    return sum(alias.name.startswith("_") and not alias.name.startswith("__") for n in nodes for alias in n.names)


def draw(target: Path) -> None:
    """Who imports whom, as a matrix: a package's row has its imports, all from packages below it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    known = modules()
    order = [name for layer in layers() for name in layer if f"causalsat.{name}" in known]
    lines: Counter[str] = Counter()
    count: Counter[str] = Counter()
    matrix = np.zeros((len(order), len(order)), dtype=int)
    for name, path in known.items():
        room = name.split(".")[1] if "." in name else ""
        lines[room] += path.read_text(encoding="utf-8").count("\n")
        count[room] += 1
        for imported, _ in own_imports(path, known):
            other = imported.split(".")[1] if "." in imported else ""
            if room in order and other in order and other != room:
                matrix[order.index(room), order.index(other)] += 1
    figure, axes = plt.subplots(figsize=(9.5, 8.0))
    axes.imshow(np.log1p(matrix), cmap="Blues", vmax=np.log1p(matrix.max()) * 1.4)
    for i, j in zip(*np.nonzero(matrix), strict=True):
        axes.text(j, i, str(matrix[i, j]), ha="center", va="center", fontsize=8)
    for i in range(len(order)):
        axes.text(i, i, "\u25a0", ha="center", va="center", color="0.6")
    plural = {name: "module" if count[name] == 1 else "modules" for name in order}
    axes.set_yticks(
        range(len(order)), [f"{n}  ({count[n]} {plural[n]}, {lines[n]:,} lines)" for n in order], fontsize=8
    )
    axes.set_xticks(range(len(order)), order, rotation=60, ha="left", fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(
        "imported package, with the number of imports; nothing stands below the diagonal: no package imports upwards"
    )
    figure.savefig(target, dpi=110, bbox_inches="tight")


# ---------------------------------------------------------------------- what a job runs through
def files_run(job: Callable[[], object]) -> int:
    """Files of the package with a function that a job calls."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if (
            event == "call"
            and frame.f_code.co_filename.startswith(str(PACKAGE))
            and frame.f_code.co_name != "<module>"
        ):
            seen.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            job()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return len(seen)


def runs() -> dict[str, str]:
    """Files that one fit and predict of five estimators, a map and an analysis run through."""
    import tempfile

    import numpy as np

    import causalsat

    rng = np.random.default_rng(0)
    X, village = rng.standard_normal((240, 3)), np.repeat(np.arange(40), 6)
    t = (rng.permutation(40) % 2)[village].astype(float)
    y = X[:, 0] + t * (1 + X[:, 1]) + rng.standard_normal(240)
    short = {"n_draws": 50, "n_tune": 50, "n_chains": 2, "random_state": 0}
    models = {
        "BayesianLinearEffect": short,
        "DoublyRobustEffect": {},
        "GaussianProcessEffect": {"random_state": 0},
        "TransTEE": {"random_state": 0, "max_epochs": 3},
        "VLUCI": {"random_state": 0},
    }
    table = {}
    for name, options in models.items():
        known = {k: v for k, v in options.items() if k in getattr(causalsat, name)().get_params()}
        model = getattr(causalsat, name)(**known)
        table[f"files run by {name}"] = str(
            files_run(lambda model=model: model.fit(X, y, treatment=t, groups=village).predict(X))
        )
    trial = causalsat.simulate.satellite_trial("smooth", n_units=240, n_sites=40, size_px=384, seed=0)
    study = trial.study()
    model = causalsat.image_model(study, causalsat.BayesianLinearEffect(modifiers="img*", **short), n_components=3)
    quick = {"n_permutations": 19, "n_bootstrap": 10, "progress": False, "n_folds": 2}
    table["files run by analyse"] = str(files_run(lambda: causalsat.analyse(study, model, **quick)))
    with tempfile.TemporaryDirectory() as folder:
        options = {"resolution": 960, "out": f"{folder}/effects.tif", "progress": False}
        table["files run by map_effects"] = str(
            files_run(lambda: causalsat.map_effects(model, study.imagery, **options))
        )
    return table


def main() -> None:
    """Print the table; draw the picture where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="file to draw the layers to")
    parser.add_argument("--runs", action="store_true", help="count the files that fits, a map and an analysis run")
    wanted = parser.parse_args()
    table = numbers() | (runs() if wanted.runs else {})
    width = max(map(len, table))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in table.items()))
    if wanted.picture:
        draw(wanted.picture)
        print(f"picture: {wanted.picture}")


if __name__ == "__main__":
    main()
