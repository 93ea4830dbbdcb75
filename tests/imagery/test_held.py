"""A window that is kept: the same pixels, read once, of the very imagery it was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import open_imagery
from causalsat.imagery.held import held_window


@pytest.fixture
def scene(write, image):
    """A raster of 90 x 110 pixels."""
    return write("scene.tif", image)


@pytest.fixture
def counted(monkeypatch, scene):
    """Imagery, and the windows that were really read of it."""
    imagery, reads = open_imagery(scene), []
    plain = type(imagery)._read_window

    def read(self, *window):
        reads.append(window)
        return plain(self, *window)

    monkeypatch.setattr(type(imagery), "_read_window", read)
    return imagery, reads


def test_parts_of_the_first_window_are_not_read_again(counted):
    imagery, reads = counted
    wanted = [imagery.read_window(*window) for window in ((10, 12, 20, 30), (6, 8, 28, 38), (12, 14, 5, 6))]
    reads.clear()
    with held_window(imagery, 4):
        found = [imagery.read_window(*window) for window in ((10, 12, 20, 30), (6, 8, 28, 38), (12, 14, 5, 6))]
    assert reads == [(6, 8, 28, 38)]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not one.flags.writeable  # others see the same pixels


def test_what_lies_outside_is_read(counted):
    imagery, reads = counted
    with held_window(imagery):
        imagery.read_window(10, 12, 20, 30)
        beyond = imagery.read_window(9, 12, 20, 30)
    assert reads == [(10, 12, 20, 30), (9, 12, 20, 30)]
    np.testing.assert_array_equal(beyond, imagery.read_window(9, 12, 20, 30))


def test_over_the_border_there_is_nothing(counted):
    imagery, _ = counted
    wanted = imagery.read_window(-7, -5, 20, 30)
    with held_window(imagery, 9):
        np.testing.assert_array_equal(imagery.read_window(-7, -5, 20, 30), wanted)
    assert np.isnan(wanted[..., :7, :]).all()
    assert np.isnan(wanted[..., :5]).all()
    np.testing.assert_array_equal(wanted[..., 7:, 5:], imagery.read_window(0, 0, 13, 25))


def test_other_imagery_and_later_reads_are_as_ever(counted, scene):
    imagery, reads = counted
    other = open_imagery(scene)
    with held_window(imagery, 4):
        imagery.read_window(10, 12, 20, 30)
        other.read_window(10, 12, 20, 30)
    imagery.read_window(10, 12, 20, 30)
    assert reads == [(6, 8, 28, 38), (10, 12, 20, 30), (10, 12, 20, 30)]
