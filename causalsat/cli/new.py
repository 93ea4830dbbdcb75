"""A study from a survey file: ask for what was not given, check it, write a catalogue entry and a pipeline."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from causalsat.catalog.extend import add_entry
from causalsat.core.files import whole_file, writing
from causalsat.core.names import close_matches, list_names
from causalsat.core.treatment import code_treatment
from causalsat.exceptions import OutputError, ParameterError, TreatmentError
from causalsat.study import Study
from causalsat.study.reading import read_units

__all__ = ["COLUMN_QUESTIONS", "ask_roles", "check_name", "entry_of", "write_study"]

Ask = Callable[[str, str], str]

#: Role, question, and words that name such columns; the first three must be answered.
COLUMN_QUESTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("outcome", "Column of the outcome", ()),
    ("treatment", "Column of the treatment", ("treatment", "treated", "treat", "arm", "group")),
    ("lon", "Column of the longitude", ("lon", "long", "longitude", "x")),
    ("lat", "Column of the latitude", ("lat", "latitude", "y")),
    ("cluster", "Column of the unit of assignment (village, group; empty for none)", ("cluster", "village", "site")),
    ("strata", "Column of the strata of the assignment (empty for none)", ("strata", "stratum", "block")),
    ("weights", "Column of survey weights (empty for none)", ("weights", "weight", "pweight")),
)
NEEDED = ("outcome", "treatment")
MAX_VALUES = 8

PIPELINE = '''"""{name}: check, average effects, tests of heterogeneity, report and map."""

from pathlib import Path

import typer

import causalsat


def main(out: Path = Path("outputs/{name}"), resolution: float | None = None, seed: int = 0) -> None:
    study = causalsat.load_study("{name}")
    analysis = causalsat.analyse(study, random_state=seed)
    written = analysis.write(out, resolution=resolution)
    typer.echo(f"{{analysis}}\\n\\nOutputs:")
    for path in written:
        typer.echo(f"  {{path}}")


if __name__ == "__main__":
    typer.run(main)
'''


def ask_roles(file: Path, given: dict[str, Any], ask: Ask | None) -> dict[str, Any]:
    """The roles of a survey file's columns: those given, and answers for the others.

    Parameters
    ----------
    file : Path
        The survey.
    given : dict
        Roles that options named; ``covariates`` is a list.
    ask : callable or None
        ``ask(question, proposal) -> answer``; None asks nothing.

    Raises
    ------
    ParameterError
        If a role that is needed was neither given nor answered.
    """
    frame, labels = read_units(file)
    columns = [str(c) for c in frame.columns if c != getattr(frame, "active_geometry_name", None)]
    roles = {key: value for key, value in given.items() if value not in (None, [], "")}
    located = getattr(frame, "active_geometry_name", None) is not None
    for role, question, words in COLUMN_QUESTIONS:
        if role in roles or (role in ("lon", "lat") and located):
            continue
        needed = role in NEEDED or role in ("lon", "lat")
        if ask is None:
            if role in NEEDED:
                raise ParameterError(
                    f"{file.name} without --{role}",
                    expected=f"--{role} COLUMN, one of {list_names(columns, 12)}",
                    todo="name it, or run the command in a terminal, where it asks",
                )
            continue
        taken = [v for v in roles.values() if isinstance(v, str)]
        free = [c for c in columns if c not in taken]
        answer = _column(ask, question, free, words, needed=needed)
        if answer:
            roles[role] = answer
    if ask is not None and "covariates" not in roles:
        roles["covariates"] = _covariates(ask, columns)
    if ask is not None and "treated" not in roles:
        roles |= _treated(ask, frame, labels, roles)
    return {key: value for key, value in roles.items() if value not in (None, [], "")}


def _column(ask: Ask, question: str, columns: Sequence[str], words: Sequence[str], *, needed: bool) -> str:
    proposal = next((c for word in words for c in columns if c.strip().casefold() == word), "")
    hint = ""
    while True:
        answer = ask(f"{hint}{question} [{list_names(columns, 12)}]", proposal).strip()
        if answer in columns or (not answer and not needed):
            return answer
        near = close_matches(answer, columns)
        hint = f"No column {answer!r}{'; did you mean ' + near[0] + '?' if near else '.'} "


def _covariates(ask: Ask, columns: Sequence[str]) -> list[str]:
    answer = ask("Covariates measured before treatment, with commas, such as age,x* (empty for none)", "")
    return [name.strip() for name in answer.split(",") if name.strip()]


def _treated(ask: Ask, frame: pd.DataFrame, labels: dict[str, Any], roles: dict[str, Any]) -> dict[str, Any]:
    """Which value means treated, where the values do not say it."""
    column = roles["treatment"]
    values = frame[column].dropna().unique()
    if len(values) != 2 or _codes_itself(frame, labels, roles):
        return {}
    shown = [labels.get(column, {}).get(value, value) for value in values]
    while True:
        answer = ask(f"Value of {column} that means treated [{', '.join(map(str, shown))}]", "").strip()
        match = next((value for value in shown if str(value) == answer), None)
        if match is not None:
            return {"treated": match.item() if hasattr(match, "item") else match}


def _codes_itself(frame: pd.DataFrame, labels: dict[str, Any], roles: dict[str, Any]) -> bool:
    column = roles["treatment"]
    try:
        code_treatment(frame[column], None, labels.get(column), roles.get("control"))
    except TreatmentError:
        return False
    return True


def entry_of(
    file: Path, roles: dict[str, Any], catalog: Path, *, imagery: str | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """The catalogue entry of a survey file with its roles; checks that they make a study.

    Parameters
    ----------
    file : Path
        The survey.
    roles : dict
        What its columns mean.
    catalog : Path
        The catalogue, to whose folder paths are relative.
    imagery : str or None
        File, folder or address of the imagery.
    settings : dict
        ``title, licence, citation, treatment_date, chip_size_m, randomised``; None is left out.
    """
    known = {key: settings[key] for key in ("treatment_date", "chip_size_m") if settings.get(key) is not None}
    Study.from_file(file, **roles, **known, randomised=settings.get("randomised") is not False)
    base = catalog.resolve().parent
    content: dict[str, Any] = {
        "kind": "trial",
        "licence": "not stated",
        "citation": "not stated",
        **{key: value for key, value in settings.items() if value is not None},
        "units": {"file": _relative(file, base)},
        "roles": roles,
    }
    if imagery is not None:
        address = re.match(r"^\w+://", imagery) is not None
        path = imagery if address else _relative(Path(imagery).expanduser(), base)
        content["imagery"] = {"imagery": {"kind": _kind(imagery), "path": path}}
    return content


def _kind(imagery: str) -> str:
    name = imagery.rstrip("/").lower()
    if name.endswith(".zarr"):
        return "zarr"
    if name.endswith(".json"):
        return "stac"
    return "sequence" if Path(imagery).is_dir() else "raster"


def _relative(path: Path, base: Path) -> str:
    """A path as seen from a folder where it lies below it, else in full."""
    full = path.expanduser().resolve()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else os.fspath(full)


def write_study(name: str, content: dict[str, Any], catalog: Path, pipeline: Path) -> list[Path]:
    """Write the entry and the pipeline; neither replaces anything.

    Raises
    ------
    ParameterError
        If the name cannot be one of a file and of an entry.
    OutputError
        If there is a pipeline of that name.
    """
    check_name(name)
    if pipeline.exists():
        raise OutputError(
            f"{pipeline} exists", expected="a name of no pipeline", todo="take another name, or move it"
        )
    add_entry(catalog, name, content)
    with writing(pipeline), whole_file(pipeline) as temporary:
        temporary.write_text(PIPELINE.format(name=name), encoding="utf-8")
    return [catalog, pipeline]


def check_name(name: str) -> None:
    """Refuse a name that cannot be one of a file and of a catalogue entry."""
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ParameterError(
            f"a study named {name!r}", expected="letters, digits and underscores, such as my_study", todo="rename it"
        )
