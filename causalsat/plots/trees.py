"""Policy trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causalsat.core.names import one_line
from causalsat.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_policy_tree"]


def plot_policy_tree(tree: Any, *, title: str = "Whom to treat", ax: Any = None) -> Axes:
    """Draw a fitted policy tree: questions in boxes, arms in coloured leaves with the units that reach them.

    Parameters
    ----------
    tree : PolicyTree
        Fitted.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    leaves = len(tree.export_text().splitlines())
    ax = style.new_axes(ax, (max(4.5, 2.2 * leaves), 1.2 + 1.25 * _depth(tree.tree_)))
    _draw(ax, tree.tree_, tree, [0], 0)
    ax.set_xlim(-0.6, leaves - 0.4)
    ax.set_ylim(-_depth(tree.tree_) - 0.45, 0.45)
    ax.axis("off")
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=style.INK)
    return ax  # type: ignore[no-any-return]


def _depth(node: dict[str, Any]) -> int:
    return 0 if "arm" in node else 1 + max(_depth(node["left"]), _depth(node["right"]))


def _draw(ax: Any, node: dict[str, Any], tree: Any, used: list[int], level: int) -> float:
    """Draw a node and what is below it; returns its place across."""
    y = -float(level)
    if "arm" in node:
        x = float(used[0])
        used[0] += 1
        colour = style.COLOURS[node["arm"] % len(style.COLOURS)] if node["arm"] else style.GREY
        words = f"{style.plain(one_line(tree.arm_names_[node['arm']]))}\n{node['n']:,} units"
        _box(ax, x, y, words, colour, "white")
        return x
    left = _draw(ax, node["left"], tree, used, level + 1)
    right = _draw(ax, node["right"], tree, used, level + 1)
    x = (left + right) / 2
    for child, answer in ((left, "yes"), (right, "no")):
        ax.plot([x, child], [y, y - 1], color=style.INK, linewidth=1, zorder=1)
        ax.text((x + child) / 2, y - 0.5, answer, fontsize=9, ha="center", va="center", color=style.INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, zorder=2)  # fmt: skip
    name = style.plain(one_line(tree.feature_names_[node["feature"]]))
    _box(ax, x, y, f"{name}\nat most {node['threshold']:.4g}?", "white", style.INK)
    return x


def _box(ax: Any, x: float, y: float, words: str, face: str, ink: str) -> None:
    box = {"boxstyle": "round,pad=0.45", "facecolor": face, "edgecolor": style.INK, "linewidth": 0.8}
    ax.text(x, y, words, ha="center", va="center", fontsize=9.5, color=ink, bbox=box, zorder=3)
