"""Names that would move a terminal's cursor, end a line or be markup: one place for each, and results that use it."""

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.core.names import escaped, one_line, printed
from causalsat.decisions import PolicyTree
from causalsat.evaluation import arm_effects
from causalsat.report import compare_models

UNSEEN = "\x00\x1b[2J\u202e\u2028\x85"


def test_what_a_terminal_obeys_is_not_printed_and_scripts_stay():
    assert printed("a\x1b[2Jb\u202ec\nd\te") == "a\ufffd[2Jb\ufffdc\nd\te"
    persian = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u5317\u4eac\u00a0\u00e9"
    assert printed(persian) == persian
    assert one_line("a\n\tb\u2028c\x1c d") == "a b c d"
    assert escaped("<b>\x00'") == "&lt;b&gt;\ufffd&#x27;"


@pytest.mark.parametrize(
    "name", [f"x{UNSEEN}y", "x\n# heading\n```", "<script>alert(1)</script>", "cost $x$ in \\frac{"]
)
def test_results_print_and_draw_whatever_names_are(name):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((90, 2)), rng.standard_normal(90)
    arm = np.array(["control", name, "z"], dtype=object)[np.arange(90) % 3]
    table = pd.DataFrame({"estimate": [0.5], "se": [0.1], "p_value": [0.01]}, index=[name])
    tree = PolicyTree(depth=1, arms=["no", name]).fit(pd.DataFrame(X[:, :1], columns=[name]), X[:, 0])
    found = causalsat.DoublyRobustEffect(random_state=0).fit(X, y, treatment=np.arange(90) % 2)
    posterior = found.effect(pd.DataFrame(X[:2], index=[name, "b"]).to_numpy())
    texts = [repr(compare_models({name: table}, caption=name)), repr(arm_effects(y, arm, control="control"))]
    texts += [tree.export_text(), repr(posterior)]
    assert all(printed(text) == text for text in texts)
    assert len(tree.export_text().splitlines()) == 2
    page = compare_models({name: table}, caption=name, notes=[name])._repr_html_()
    assert printed(page) == page
    assert "<script" not in page
    tree.plot().figure.canvas.draw()
