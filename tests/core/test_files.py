"""Files are written whole, under names that nobody can foresee, with the permissions of the umask."""

import errno
import os
import stat

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.core import files
from causalsat.core.files import is_temporary, temporary_file, whole_file
from causalsat.exceptions import OutputError


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_every_file_has_the_permissions_of_the_umask(umask, tmp_path):
    from sklearn.preprocessing import StandardScaler

    from causalsat.core.tables import write_csv
    from causalsat.mapping.tiles import write_tile
    from causalsat.report import Page

    causalsat.save(StandardScaler().fit(np.eye(2)), tmp_path / "m.safetensors")
    Page("A", ["b"], []).write(tmp_path / "r.html")
    write_tile(tmp_path / "t.npy", np.zeros((1, 2, 2), dtype=np.float32))
    write_csv(pd.DataFrame({"a": [1]}), tmp_path / "a.csv")
    assert {path.name: oct(mode(path)) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("m.safetensors", "r.html", "t.npy", "a.csv"), oct(0o666 & ~umask)
    )


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 16)  # an attacker who guesses the name
    (tmp_path / f"a.txt.{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(OutputError), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("written over")
    assert victim.read_text() == "mine"


def test_a_link_in_the_place_of_the_file_is_replaced_and_its_target_stays(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "a.txt").symlink_to(victim)
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (victim.read_text(), (tmp_path / "a.txt").read_text()) == ("mine", "new")
    assert not (tmp_path / "a.txt").is_symlink()


def test_long_names_leave_room_for_the_temporary_one(tmp_path):
    path = tmp_path / ("ü" * 120 + ".csv")  # 244 of 255 bytes
    with whole_file(path) as temporary:
        temporary.write_text("x")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_leftovers_of_this_and_of_earlier_versions_are_known_as_such(tmp_path):
    with temporary_file(tmp_path / "map") as temporary:
        assert is_temporary(temporary.name)
    assert is_temporary("r0000000_c0000000.npy.4711.7f00aa.tmp")
    assert is_temporary("cog.4711.tmp")
    assert not is_temporary("thesis.tmp")


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "free space"),
        (errno.EROFS, "may write to"),
        (errno.EACCES, "may write to"),
        (errno.ENOENT, "removed meanwhile"),
        (errno.ENOTDIR, "the other way round"),
        (errno.ENAMETOOLONG, "shorter"),
    ],
)
def test_the_advice_is_that_for_what_happened(tmp_path, code, advice):
    with pytest.raises(OutputError, match=advice), files.writing(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
