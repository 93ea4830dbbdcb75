"""Command line of a benchmark that consists of sections: which to run, and how many replications."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch

from causalsat.exceptions import CausalsatWarning

Section = Callable[[argparse.Namespace], None]


def run_sections(
    document: str | None,
    sections: Mapping[str, Section],
    numbers: Mapping[str, tuple[int, str]],
    argv: Sequence[str] | None,
) -> None:
    """Run the chosen sections in one thread, each printing its table.

    ``numbers`` are the options that are whole numbers: default and help by name.
    """
    parser = argparse.ArgumentParser(description=(document or "").splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=list(sections), choices=list(sections))
    for name, (default, words) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=words)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CausalsatWarning)
    for name in args.sections:
        sections[name](args)
