"""Names in messages: lists with their tails counted, and names close to a misspelt one."""

from __future__ import annotations

import difflib
import html
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = [
    "close_matches",
    "escaped",
    "list_names",
    "one_line",
    "p_words",
    "percent",
    "plain",
    "printed",
    "shown",
    "with_unit",
]

# what moves a terminal's cursor, colours or hides text, ends a line, or turns the direction of what follows
_UNPRINTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def close_matches(name: str, known: Iterable[Any], most: int = 3) -> list[str]:
    """Names like the given one, best first: equal but for case and spaces, then similar spelling.

    Examples
    --------
    >>> close_matches("outcom", ["unit", "Outcome ", "income"])
    ['Outcome ']
    """
    names = [str(k) for k in known]
    folded = {n: "".join(n.split()).replace("_", "").casefold() for n in names}
    target = "".join(name.split()).replace("_", "").casefold()
    same = [n for n in names if folded[n] == target]
    similar = difflib.get_close_matches(target, list(folded.values()), n=most, cutoff=0.6)
    ranked = same + [n for value in similar for n in names if folded[n] == value and n not in same]
    return list(dict.fromkeys(ranked))[:most]


def list_names(names: Iterable[Any], most: int = 10) -> str:
    """Names joined by commas, the tail counted; long ones are cut, paths stay whole.

    Examples
    --------
    >>> list_names("abcd", 2)
    'a, b, ... (4 in all)'
    """
    texts = [str(n) if isinstance(n, os.PathLike) or len(str(n)) <= 80 else f"{str(n)[:80]}..." for n in names]
    listed = ["".join(c if c.isprintable() else "\ufffd" for c in text) for text in texts]
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "")


def printed(text: str) -> str:
    r"""Text for a terminal: what would move its cursor or hide other text becomes U+FFFD; lines and tabs stay.

    Examples
    --------
    >>> printed("a\x1b[2Jb\n")
    'a�[2Jb\n'
    """
    return _UNPRINTED.sub("\ufffd", text)


def escaped(text: str, quote: bool = True) -> str:
    """Text within HTML: no markup, and nothing that a browser does not show.

    Examples
    --------
    >>> escaped("<b>")
    '&lt;b&gt;'
    """
    return html.escape(printed(text), quote)


def one_line(text: Any) -> str:
    r"""A name within a line: line breaks and tabs become spaces, and what cannot be printed U+FFFD.

    Examples
    --------
    >>> one_line("years of\n schooling")
    'years of schooling'
    """
    return printed(" ".join(re.split(r"[\s\x1c-\x1f\x85\u2028\u2029]+", str(text)))).strip()


def shown(value: Any) -> str:
    """A value as a user writes it: 1, and not np.int64(1) or 1.0.

    Examples
    --------
    >>> shown(2.0), shown("cash")
    ('2', "'cash'")
    """
    number = plain(value)
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e15:
        number = int(number)
    return repr(number)


def plain(value: Any) -> Any:
    """A number of numpy's as one of Python's.

    Examples
    --------
    >>> plain(np.int64(1))
    1
    """
    return value.item() if isinstance(value, np.generic) else value


def p_words(p: float) -> str:
    """A p-value in words of three decimals, of which none is a zero.

    Examples
    --------
    >>> p_words(0.0213), p_words(2e-15)
    ('p = 0.021', 'p < 0.001')
    """
    return f"p = {p:.3f}" if p >= 5e-4 else "p < 0.001"


def percent(share: float) -> str:
    """A share in per cent.

    Examples
    --------
    >>> percent(0.0004), percent(0.25)
    ('under 0.1 %', '25.0 %')
    """
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def with_unit(label: str, unit: str) -> str:
    """A label followed by its unit in brackets.

    Examples
    --------
    >>> with_unit("income", "USD"), with_unit("income", "")
    ('income (USD)', 'income')
    """
    return f"{label} ({unit})" if unit else label
