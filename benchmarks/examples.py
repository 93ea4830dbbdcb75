"""Run time of every example, and of the way from a clean machine to the first map.

    python benchmarks/examples.py [--record]

Each example runs as a newcomer runs it, in an empty folder; CPU seconds include those of its own child processes.
The way to the first map: a virtual environment, the install without any cache, the first example. Rows are kept (see
benchmarks/kept_rows.py). --record also keeps what each example prints, and one figure, for the documentation.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import kept_rows

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "docs" / "recorded"
LIMIT = 120  # seconds of wall time, on two cores
#: The figure of each example that its page shows, below its folder of outputs.
FIGURES = {
    "coming_from_other_packages": "ate.png",
    "displaced_places": "maps.png",
    "dose_response": "curve.png",
    "first_effect_map": "effects.png",
    "foundation_model_embeddings": "map/effects.png",
    "image_confounding": "salience.png",
    "image_sequences": "compare.png",
    "is_it_real": "toc.png",
    "laptop_to_cluster": "effects.png",
    "missing_outcomes": "averages.png",
    "plan_a_trial": "power.png",
    "predicted_outcomes": "averages.png",
    "selective_labels": "villages.png",
    "several_arms": "cash_against_training.png",
    "take_up": "maps.png",
    "unobserved_confounding": "strength.png",
    "which_images_respond": "images.png",
    "whom_to_treat": "gain_curve.png",
}


def timed(command: Sequence[str], folder: Path) -> tuple[float, float, str]:
    """Wall and CPU seconds of a command, and what it printed; raises with its errors if it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "Agg"}, check=False
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def example(script: Path, *, record: bool) -> kept_rows.Row:
    """Run one example in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu, printed = timed([sys.executable, str(script)], Path(folder))
        if record:
            keep_for_the_page(script.stem, printed, Path(folder) / "outputs" / script.stem)
    return {"wall": wall, "cpu": cpu}


def keep_for_the_page(name: str, printed: str, outputs: Path) -> None:
    """Text and figure for the example's page; the figure is made small."""
    from PIL import Image

    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{name}.txt").write_text("\n".join(line.rstrip() for line in printed.splitlines()).strip() + "\n")
    picture = outputs / FIGURES.get(name, "")
    if picture.is_file():
        image = Image.open(picture).convert("RGB")
        image.thumbnail((720, 720))
        palette = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=5)  # rare colours of a scale stay
        palette.save(RECORDED / f"{name}.png", optimize=True)


def first_time() -> kept_rows.Row:
    """Seconds from a clean machine to the first map, by step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = str(folder / "venv" / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
        steps = {
            "venv": [sys.executable, "-m", "venv", "venv"],
            "pip": [*install, "--constraint", str(ROOT / "constraints.txt"), f"causalsat[maps] @ file://{ROOT}"],
            "map": [python, str(ROOT / "examples" / "first_effect_map.py")],
        }
        row = {}
        for step, command in steps.items():
            row[step], row[f"{step} cpu"], _ = timed(command, folder)
        row["bytes"] = sum(path.stat().st_size for path in (folder / "venv").rglob("*") if path.is_file())
        assert (folder / "outputs" / "first_effect_map" / "effects.tif").exists()
    return row


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="keep text and figures for the documentation")
    parser.add_argument("--only", nargs="*", help="names of examples; the table has the kept rows of all")
    options = parser.parse_args(argv)
    scripts = sorted((ROOT / "examples").glob("*.py"))
    rows = {}
    for script in scripts:
        if options.only is None or script.stem in options.only:
            make = partial(example, script, record=options.record)
            rows[script.stem] = kept_rows.kept_row("examples", script.stem, make)
        elif script.stem in kept_rows.kept("examples"):
            rows[script.stem] = kept_rows.kept("examples")[script.stem]
    print("| example | wall s | CPU s |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| `{name}.py` | {row['wall']:.0f} | {row['cpu']:.0f} |")
    slow = [name for name, row in rows.items() if row["wall"] > LIMIT]
    words = f"slower: {', '.join(slow)}" if slow else f"each under {LIMIT} s"
    print(f"\n{len(rows)} examples at their default size, one thread, beside other work on the machine; {words}.\n")
    row = kept_rows.kept_row("examples", "first time", first_time)
    print("| from a clean machine to the first map | wall s | CPU s |\n|---|---|---|")
    labels = {"venv": "`python -m venv`", "pip": "`pip install`, nothing cached", "map": "`first_effect_map.py`"}
    for step, label in labels.items():
        print(f"| {label} | {row[step]:.0f} | {row[f'{step} cpu']:.0f} |")
    total = sum(row[step] for step in labels)
    print(
        f"\n{total / 60:.1f} minutes in all; {row['bytes'] / 1e9:.1f} GB on disk, most of it PyTorch's GPU libraries."
    )


if __name__ == "__main__":
    main()
