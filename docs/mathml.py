"""Equations as MathML, which browsers draw by themselves: no script, no font, no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def mathml(tex: str, *, block: bool = False) -> str:
    r"""Formula as MathML; an apostrophe is a prime, as in TeX.

    >>> "\N{PRIME}" in mathml("x'y")
    True
    """
    return tex2mathml(tex.replace("'", r"^{\prime}"), as_block=block)


def visit_inline(self: Any, node: nodes.math) -> None:
    """Inline formula."""
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    """Displayed formula, scrolled by itself where the page is narrow."""
    self.body.append(f'<div class="math" tabindex="0">{mathml(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Tell Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
