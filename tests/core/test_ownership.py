"""Files of the user where outputs go: refused and left as they are; earlier outputs are replaced."""

import re

import pytest

from causalsat.core.ownership import is_ours, refuse_strangers
from causalsat.exceptions import OutputError


def test_what_is_of_others_is_named_and_stays(tmp_path):
    tmp_path = tmp_path / "a folder whose name is longer than a line of a table" / "and within it another one"
    tmp_path.mkdir(parents=True)
    mine, empty, ours = tmp_path / "prec.tif", tmp_path / "q.png", tmp_path / "map.html"
    mine.write_bytes(b"II*\x00 rain of causalsat users")
    empty.touch()
    ours.write_text('<html><meta name="generator" content="causalsat 0.1.0">')
    assert (is_ours(mine), is_ours(empty), is_ours(ours)) == (False, True, True)
    refuse_strangers([empty, ours, tmp_path / "none.tif", tmp_path], "move it")
    with pytest.raises(OutputError, match=rf"{re.escape(str(mine))} would be written over and is not of .*move it"):
        refuse_strangers([ours, mine], "move it")
    assert mine.read_bytes() == b"II*\x00 rain of causalsat users"
