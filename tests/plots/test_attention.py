"""Pictures of attention show the numbers they are given."""

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from causalsat.estimators.transtee.report import Attention
from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import plot_attention, show_attention


@pytest.fixture
def attention():
    covariates = np.array([[0.1, 0.3], [0.2, 0.4]])
    cells = np.full((2, 1, 2, 2), 0.0)
    cells[:, 0, 0, 1] = 1 - covariates.sum(axis=1)
    return Attention(covariates, ("age", "size"), cells, np.arange(2))


def test_bars_are_means_in_order(attention):
    ax = plot_attention(attention)
    bars = {label.get_text(): bar.get_width() for label, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)}
    assert bars == pytest.approx({"age": 0.15, "size": 0.35, "image": 0.5})
    assert list(bars) == ["age", "size", "image"]
    assert len(plot_attention(attention, most=2).patches) == 2
    with pytest.raises(ParameterError):
        plot_attention(attention, most=0)


def test_the_axis_says_how_far_networks_agree(attention):
    assert "networks" not in plot_attention(attention).get_xlabel()
    assert "correlation of networks 0.38" in plot_attention(replace(attention, agreement=0.38)).get_xlabel()


def test_heat_map_lies_over_the_chip(attention):
    chip = np.random.default_rng(0).random((3, 8, 8))
    ax = show_attention(attention, 0, chip=chip)
    heat = ax.images[-1]
    np.testing.assert_allclose(np.asarray(heat.get_array()), [[0, 4 * 0.6], [0, 0]])
    assert heat.get_extent() == [-0.5, 7.5, 7.5, -0.5]
    assert len(ax.images) == 2
    with pytest.raises(DataError, match="without images"):
        show_attention(Attention(attention.covariates, attention.names, None, attention.index), 0)
