"""Figures of unobserved confounding say what the tables say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from causalsat.exceptions import DataError
from causalsat.plots import plot_strength, plot_unobserved


def curve():
    rows = [
        (link, share, 2 - share * link, 1.8 - share * link, 2.2 - share * link, 3 * share)
        for link in (1.0, 2.0)
        for share in (0.5, -0.5, 0.0)
    ]
    return pd.DataFrame(rows, columns=["link", "share", "ate", "lower", "upper", "evidence"])


def test_strength_has_a_line_a_link_in_order_of_the_share_and_larger_dots_where_likelier():
    ax = plot_strength(curve(), units="points")
    lines = [line for line in ax.lines if line.get_label() in ("1", "2")]
    assert len(lines) == 2
    np.testing.assert_allclose(lines[1].get_xdata(), [-50, 0, 50])
    np.testing.assert_allclose(lines[1].get_ydata(), [3, 2, 1])
    sizes = ax.collections[1].get_sizes()
    assert (np.diff(sizes) > 0).all()
    assert ax.get_ylabel() == "average effect (points)"
    plt.close(ax.figure)


def test_settings_have_an_interval_each_from_top_to_bottom():
    table = pd.DataFrame(
        {"ate": [1.0, 2.0], "lower": [0.5, 1.0], "upper": [1.5, 3.0]}, index=["as fitted", "networks, 2 latent(s)"]
    )
    ax = plot_unobserved(table)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["as fitted", "networks, 2 latent(s)"]
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() > 2]
    np.testing.assert_allclose([bar.get_xdata() for bar in bars], [[0.5, 1.5], [1.0, 3.0]])
    assert bars[0].get_ydata()[0] > bars[1].get_ydata()[0]
    plt.close(ax.figure)


@pytest.mark.parametrize("plot", [plot_strength, plot_unobserved])
def test_other_tables_are_refused(plot):
    with pytest.raises(DataError, match="ate"):
        plot(pd.DataFrame({"estimate": [1.0]}))
