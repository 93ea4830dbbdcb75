"""The documentation's own code: nothing public is left out, formulas without the network, faults of links found."""

import re
import sys
from pathlib import Path

import pytest

from causalsat.public_names import attributes, modules

NAMES = [name for names in attributes().values() for name in names]
ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("jupytext", reason="extra 'docs'")


@pytest.fixture(scope="module", autouse=True)
def docs_on_the_path():
    sys.path.insert(0, str(ROOT / "docs"))
    yield
    sys.path.remove(str(ROOT / "docs"))


def test_every_public_name_has_its_page():
    import pages

    import causalsat

    listed = re.findall(r"^   (causalsat\.[\w.]+)$", "\n".join(pages.api_pages().values()), flags=re.M)
    assert len(listed) == len(set(listed))
    wanted = {f"causalsat.{name}" for name in NAMES}
    for name in modules():
        for inner in getattr(getattr(causalsat, name), "__all__", ()):
            wanted.add(f"causalsat.{inner}" if inner in NAMES else f"causalsat.{name}.{inner}")
    assert set(listed) - set(pages.CONTRACT) == wanted
    assert {"causalsat.VLUCI", "causalsat.evaluation.rate", "causalsat.report.Page"} <= wanted


def test_every_public_name_says_what_it_is():
    import causalsat

    for name in NAMES:
        assert (getattr(causalsat, name).__doc__ or "").strip(), name


def test_a_page_for_each_example_with_its_code_and_words():
    import pages

    made = pages.example_pages()
    for script in pages.examples():
        page = made[f"examples/{script.stem}.md"]
        for line in script.read_text().splitlines():
            bare = line.removeprefix("# ").strip() if line.startswith("#") else line
            if bare and not line.startswith("# %%") and bare != "#":
                assert bare in page, (script.stem, line)
        assert f"({script.stem}.md)" in made["examples/index.md"]
        assert f"files/{script.stem}.ipynb" in page


def test_figures_quoted_in_the_concepts_are_those_of_the_benchmarks():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    quoted = {
        (path.name, number)
        for path in (ROOT / "docs" / "concepts").glob("*.md")
        for number in re.findall(r"(?<![\d.])\d\.\d{3}(?!\d)", path.read_text())
    }
    assert quoted
    assert {(name, number) for name, number in quoted if number not in results} == set()


def test_results_of_each_benchmark_can_be_included():
    import pages

    found = pages.results()
    included = {
        name
        for path in (ROOT / "docs" / "concepts").glob("*.md")
        for name in re.findall(r"results/(\w+)\.md", path.read_text())
    }
    assert {"simulated_trial", "districts"} <= included <= set(found)
    assert not any(text.startswith("#") for text in found.values())


def test_help_of_every_command_is_shown():
    import pages

    text = pages.command_line_page()
    for command in ("run", "check", "map", "catalog"):
        assert f"## causalsat {command}\n" in text
    assert "--imagery" in text
    assert "\x1b" not in text


def test_formulas_are_mathml():
    import mathml

    made = mathml.mathml(r"\tau(x) = m'\beta", block=True)
    assert made.startswith("<math")
    assert 'display="block"' in made
    assert "\N{PRIME}" in made
    assert "src=" not in made


@pytest.fixture
def site(tmp_path):
    (tmp_path / "index.html").write_text('<h1 id="top">a</h1><a href="sub/b.html#part">b</a><a href="#top">t</a>')
    (tmp_path / "sub").mkdir()
    page = '<p id="part">b</p><a href="../index.html">a</a><a href="https://example.org">out</a><img src="../p.png">'
    (tmp_path / "sub" / "b.html").write_text(page)
    (tmp_path / "p.png").write_bytes(b"png")
    (tmp_path / "s.css").write_text("p { color: red; background: url(data:image/png;base64,AA) }")
    return tmp_path


def test_a_good_site_has_no_faults(site, capsys):
    import check_links

    assert check_links.check(site) == []
    assert check_links.main([str(site)]) == 0
    assert "2 pages" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("index.html", '<a href="gone.html">x</a>', "index.html: no file for gone.html"),
        ("index.html", '<a href="sub/b.html#gone">x</a>', "index.html: no anchor for sub/b.html#gone"),
        ("index.html", '<img src="gone.png">', "index.html: no file for gone.png"),
        ("index.html", '<script src="https://cdn.example.org/x.js"></script>', "loads https://cdn.example.org/x.js"),
        ("index.html", '<link rel="stylesheet" href="//cdn.example.org/x.css">', "loads //cdn.example.org/x.css"),
        ("s.css", "@import url(https://fonts.example.org/f);", "s.css: loads https://fonts.example.org/f"),
    ],
)
def test_faults_of_a_site_are_found(site, file, text, fault):
    import check_links

    (site / file).write_text(text)
    assert any(fault in found for found in check_links.check(site))
    assert check_links.main([str(site)]) == 1


def test_no_site_is_an_error_of_its_own(tmp_path):
    import check_links

    assert check_links.main([str(tmp_path)]) == 2


def test_notebooks_are_those_of_the_scripts_with_outputs_and_small():
    """Nothing is executed: the hash of a script's cells says whether its notebook shows what they give."""
    import nbformat
    import notebooks

    for script in notebooks.scripts():
        path = notebooks.FOLDER / f"{script.stem}.ipynb"
        assert path.is_file(), f"python docs/notebooks.py {script.stem}"
        assert path.stat().st_size < notebooks.MAX_BYTES
        found, wanted = nbformat.read(path, as_version=4), notebooks.notebook_of(script)
        assert found.metadata[notebooks.KEY] == wanted.metadata[notebooks.KEY] == notebooks.digest(found), script.stem
        code = [cell for cell in found.cells if cell.cell_type == "code"]
        assert any(cell.outputs for cell in code), script.stem
        assert not [o for cell in code for o in cell.outputs if o.output_type == "error"], script.stem
        assert not re.search(r"/(home|root|tmp|work)/", path.read_text()), script.stem
    extra = {path.stem for path in notebooks.FOLDER.glob("*.ipynb")} - {s.stem for s in notebooks.scripts()}
    assert not extra


def test_a_cell_ends_with_the_object_that_its_script_prints():
    import notebooks

    assert notebooks.shown("x = 1\nprint(x)") == "x = 1\nx"
    assert notebooks.shown("print(f(\n    1))  # why") == "f(\n    1)"
    loop = "for a in b:\n    print(a)"
    for source in ("print(f'{x}')", "print('a')", "print(a, b)", "print(*a)", "x = print(a)", "", loop):
        assert notebooks.shown(source) == source


def test_every_error_and_warning_has_a_cause_a_remedy_and_its_messages():
    import messages

    from causalsat import exceptions

    page = messages.messages_page()
    for name in set(exceptions.__all__) - set(messages.BASES):
        cause, remedy = messages.cause_and_remedy(getattr(exceptions, name))
        assert cause, name
        assert remedy, name
        assert f"### {name}" in page
    assert "the study … has no imagery" in page
    assert "chains that disagree" in page
