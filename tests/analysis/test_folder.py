"""Whose files lie in the folder of an analysis: nobody's are written over or removed."""

import sys
from types import SimpleNamespace

import pytest

from causalsat.analysis.folder import MANIFEST, NAMES, check_folder, claim, finish
from causalsat.exceptions import IgnoredWarning, OutputError

STUDY = SimpleNamespace(name="trial", roles={"outcome": "y", "treatment": "t"})
OTHER = SimpleNamespace(name="trial", roles={"outcome": "income", "treatment": "t"})
WITH, WITHOUT = ("report.md", "places.csv"), ("report.md",)


def run(folder, study, names, **options):
    earlier = claim(folder, study, names, **options)
    for name in names:
        (folder / name).write_text(f"{study.roles['outcome']} {name}")
    finish(folder, study, names, earlier)


def test_the_same_study_replaces_its_own_and_removes_what_is_no_longer_written(tmp_path):
    run(tmp_path, STUDY, WITH)
    run(tmp_path, STUDY, WITHOUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, "report.md"]


def test_another_study_is_refused_unless_it_may_replace(tmp_path):
    run(tmp_path, STUDY, WITH)
    with pytest.raises(
        OutputError, match=r"outputs of another analysis: outcome 'y' \(now 'income'\).*another folder"
    ):
        check_folder(tmp_path, OTHER)
    assert (tmp_path / "report.md").read_text() == "y report.md"
    run(tmp_path, OTHER, WITHOUT, overwrite=True)
    assert (tmp_path / "report.md").read_text() == "income report.md"
    assert not (tmp_path / "places.csv").exists()  # the first study's, as its manifest says


@pytest.mark.parametrize("name", [*NAMES, MANIFEST])
def test_a_users_own_file_is_refused_and_stays(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=rf"no analysis is known to have written: {name}"):
        claim(tmp_path, STUDY, NAMES)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_other_files_stay_beside_the_outputs(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run(tmp_path, STUDY, WITH)
    run(tmp_path, STUDY, WITHOUT)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_stale_file_that_was_changed_since_stays_with_a_warning(tmp_path):
    run(tmp_path, STUDY, WITH)
    (tmp_path / "places.csv").write_text("edited by hand")
    with pytest.warns(IgnoredWarning, match=r"places.csv is of an earlier run and was changed since"):
        run(tmp_path, STUDY, WITHOUT)
    assert (tmp_path / "places.csv").read_text() == "edited by hand"


def test_an_interrupted_run_goes_on(tmp_path):
    claim(tmp_path, STUDY, WITH)
    (tmp_path / "report.md").write_text("half of it")
    run(tmp_path, STUDY, WITH)
    assert (tmp_path / "report.md").read_text() == "y report.md"


def test_outputs_of_before_there_was_a_manifest_are_known_by_their_metrics(tmp_path):
    (tmp_path / "report.md").write_text("old")
    (tmp_path / "metrics.json").write_text('{"study.name": "trial"}')
    run(tmp_path, STUDY, WITHOUT)
    assert (tmp_path / "report.md").read_text() == "y report.md"


def test_a_manifest_names_no_file_outside(tmp_path):
    folder = tmp_path / "out"
    run(folder, STUDY, WITH)
    (tmp_path / "victim").write_text("mine")
    text = (folder / MANIFEST).read_text().replace('"report.md": ', '"../victim": null, "report.md": ')
    (folder / MANIFEST).write_text(text)
    run(folder, STUDY, WITHOUT)
    assert (tmp_path / "victim").read_text() == "mine"


def test_without_bokeh_the_page_is_left_out_before_the_work(monkeypatch):
    from causalsat.analysis.outputs import page_is_possible

    monkeypatch.setitem(sys.modules, "bokeh", None)  # as where it is not installed
    with pytest.warns(IgnoredWarning, match=r"map.html.*pip install 'causalsat\[maps\]'"):
        assert not page_is_possible()


def test_a_users_own_file_under_a_name_of_this_analysis_is_refused(tmp_path):
    """Names that only this analysis has, such as those of its arms, count as well."""
    (tmp_path / "effects_cash.tif").write_text("mine")
    with pytest.raises(OutputError, match=r"no analysis is known to have written: effects_cash\.tif"):
        claim(tmp_path, STUDY, ["report.md", "effects_cash.tif"])
    assert (tmp_path / "effects_cash.tif").read_text() == "mine"
    run(tmp_path, STUDY, ["report.md", "effects_cash.tif"], overwrite=True)
    run(tmp_path, STUDY, ["report.md", "effects_cash.tif"])
    assert (tmp_path / "effects_cash.tif").read_text() == "y effects_cash.tif"
