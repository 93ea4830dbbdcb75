"""The pages that are made from the code: API reference, examples, messages, the command line's help."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import jupytext
from messages import messages_page

from causalsat.public_names import attributes, modules

ROOT = Path(__file__).resolve().parents[1]

#: Top-level names by the module that defines them: the first prefix that fits.
SUBJECTS = (
    ("Data", ("causalsat.study", "causalsat.catalog", "causalsat.imagery")),
    ("Encoders", ("causalsat.encoders",)),
    ("Estimators", ("causalsat.estimators",)),
    (
        "Effects, support, saving",
        ("causalsat.posterior", "causalsat.base", "causalsat.risk_base", "causalsat.persistence"),
    ),
    ("Maps and the whole analysis", ("causalsat.mapping", "causalsat.analysis", "causalsat.evaluation")),
    ("Decisions", ("causalsat.decisions",)),
    ("More", ("causalsat",)),
)

#: What users meet without importing it: the contract of every estimator, the table that summary() returns.
CONTRACT = ("causalsat.base.EffectEstimator", "causalsat.base.Summary")


def write(folder: Path) -> None:
    """Write everything below ``folder``: ``api/``, ``examples/``, ``results/``, ``messages.md`` and the help."""
    for name, text in {**api_pages(), **example_pages()}.items():
        put(folder / name, text)
    for script in examples():
        made = ROOT / "docs" / "notebooks" / f"{script.stem}.ipynb"  # with what it shows
        put(folder / "examples" / "files" / made.name, made.read_text(encoding="utf-8"))
        shutil.copy(script, folder / "examples" / "files" / script.name)
    put(folder / "command_line_help.md", command_line_page())
    put(folder / "messages.md", messages_page())
    for name, text in results().items():
        put(folder / "results" / f"{name}.md", text)


def put(path: Path, text: str) -> None:
    """Write a file if it is new or has changed, so that Sphinx reads again only what changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


# ---------------------------------------------------------------------- API
def public_names() -> dict[str, list[str]]:
    """Every public name, fully qualified, by the heading it stands under; each once, at the top if it is there."""
    found: dict[str, list[str]] = {}
    top = {name: f"causalsat.{module}" for module, names in attributes().items() for name in names}
    for name, module in top.items():
        subject = next(title for title, prefixes in SUBJECTS if module.startswith(prefixes))
        found.setdefault(subject, []).append(f"causalsat.{name}")
    found = {title: found[title] for title, _ in SUBJECTS if title in found}
    found["The contract of every estimator"] = [*CONTRACT]
    for name in modules():
        module = import_module(f"causalsat.{name}")
        own = [n for n in getattr(module, "__all__", []) if n not in top]
        found[f"causalsat.{name}"] = [f"causalsat.{name}.{n}" for n in sorted(own, key=str.lower)]
    return {title: names for title, names in found.items() if names}


def api_pages() -> dict[str, str]:
    """An index of headings, and a page for each heading that lists its names."""
    groups = public_names()
    index = ["# API", "", "Every public name, from the package's own table of them.", ""]
    files = {}
    for title, names in groups.items():
        stem = title.lower().replace(",", "").replace(" ", "_").replace("causalsat.", "module_")
        lines = [f"# {title}", "", *_words_of(title), "```{eval-rst}", ".. autosummary::", "   :toctree: names", ""]
        files[f"api/{stem}.md"] = "\n".join([*lines, *(f"   {name}" for name in names), "```", ""])
        index.append(f"- [{title}]({stem}.md): " + ", ".join(f"`{name.rsplit('.', 1)[1]}`" for name in names))
    index += ["", "```{toctree}", ":hidden:", "", *(Path(name).stem for name in files), "```", ""]
    return {"api/index.md": "\n".join(index), **files}


def _words_of(title: str) -> list[str]:
    """What the module says of itself."""
    if not title.startswith("causalsat."):
        return []
    text = (import_module(title).__doc__ or "").strip()
    return ["```{eval-rst}", text, "```", ""]


# ---------------------------------------------------------------------- examples
def examples() -> list[Path]:
    """The scripts, the first map first."""
    return sorted((ROOT / "examples").glob("*.py"), key=lambda path: (path.stem != "first_effect_map", path.stem))


def example_pages() -> dict[str, str]:
    """A page for each script, and an index of their questions."""
    index = [
        "# Examples",
        "",
        "Each starts from a question, runs as it stands in under two minutes on two cores, and is run by the tests.",
        "The pages show what each printed when the [table of run times](../benchmarks.md) was made.",
        "",
    ]
    found = {}
    for script in examples():
        cells = jupytext.read(script, fmt="py:percent").cells
        title, _, rest = cells[0].source.partition("\n")
        summary = " ".join(rest.strip().split("\n\n")[0].split())
        index += [f"[{title.lstrip('# ')}]({script.stem}.md)", f": {summary}", ""]
        found[f"examples/{script.stem}.md"] = "\n\n".join(_example(script, cells))
    index += ["```{toctree}", ":hidden:", "", *(script.stem for script in examples()), "```", ""]
    return {"examples/index.md": "\n".join(index), **found}


def _example(script: Path, cells: list) -> Iterator[str]:
    files = f"[script](files/{script.name}), [notebook](files/{script.stem}.ipynb)"
    for number, cell in enumerate(cells):
        yield cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"
        if not number:
            yield f"Download: {files}."
    record = ROOT / "docs" / "recorded"
    if (record / f"{script.stem}.png").exists():
        alt = f"A figure that {script.name} draws"
        yield f"## What it draws\n\n![{alt}](../recorded/{script.stem}.png)"
    if (record / f"{script.stem}.txt").exists():
        yield f"## What it prints\n\n```text\n{(record / f'{script.stem}.txt').read_text().rstrip()}\n```"
    yield ""


# ---------------------------------------------------------------------- benchmarks
def results() -> dict[str, str]:
    """Each section of the benchmarks' results by its script, so that concepts can include the tables themselves."""
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    found = {}
    for section in re.split(r"^## .*\n", text, flags=re.M)[1:]:
        script = re.search(r"`python benchmarks/(\w+)\.py", section)
        if script:
            found[script.group(1)] = section.strip() + "\n"
    return found


# ---------------------------------------------------------------------- command line
def command_line_page() -> str:
    """The help of every command, as the terminal prints it."""
    import typer
    from typer.testing import CliRunner

    from causalsat.cli import commands as cli

    def help_of(*words: str) -> str:
        terminal = {"COLUMNS": "88", "TERMINAL_WIDTH": "88", "TERM": "dumb", "NO_COLOR": "1"}
        text = CliRunner().invoke(cli.app, [*words, "--help"], env=terminal).output
        lines = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
        return f"## {' '.join(('causalsat', *words))}\n\n```text\n{lines}\n```"

    names = typer.main.get_command(cli.app).commands
    return "\n\n".join(["# Help of every command", help_of(), *map(help_of, names)]) + "\n"
