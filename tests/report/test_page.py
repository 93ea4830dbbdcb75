"""The report page: accessible HTML, and the same words, tables and pictures as Markdown and LaTeX."""

import itertools
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from causalsat.exceptions import ParameterError
from causalsat.report import Figure, Page, Section, Table


class Reader(HTMLParser):
    """Tags in order, with their attributes and the text inside."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append([tag, dict(attrs), ""])
        self.open.append(self.tags[-1])

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for tag in self.open:
            tag[2] += data

    def all(self, *names):
        return [tag for tag in self.tags if tag[0] in names]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    folder = tmp_path_factory.mktemp("page")
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    figure.savefig(folder / "line.png")
    plt.close(figure)
    frame = pd.DataFrame({"effect": [0.5, -0.25], "n": [1200, 80]}, index=["north & east", "south_west"])
    return folder, Page(
        "Effects: 5 % & more",
        ["First.", "Second <b>."],
        [
            Section("Average", ["Words."], [Table.of(frame, "By region"), Table(["a", "b"], [["x", "y"]])]),
            Section("Average", figures=[Figure(folder / "line.png", "A line that rises", "It rises.")]),
            Section("Model", text="===\ncoef 0.5\n==="),
        ],
        ["Made today."],
    )


def test_html_is_accessible_and_loads_nothing(page):
    folder, made = page
    text = made.write(folder / "report.html").read_text()
    found = Reader(text)
    assert found.all("html")[0][1]["lang"] == "en"
    assert found.all("title")[0][2] == made.title
    levels = [int(tag[0][1]) for tag in found.all("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert all(tag[1]["alt"] for tag in found.all("img"))
    assert all(tag[1]["src"].startswith("data:image/png;base64,") for tag in found.all("img"))
    assert not found.all("script", "link", "iframe")
    assert not re.search(r"url\(|@import|https?://", text)
    assert all(tag[1]["scope"] in ("row", "col") and tag[2] for tag in found.all("th"))
    tables, captions = found.all("table"), found.all("caption")
    assert len(captions) == len(tables) == 2
    assert all(caption[2] for caption in captions)
    identifiers = [tag[1]["id"] for tag in found.tags if "id" in tag[1]]
    assert len(set(identifiers)) == len(identifiers)
    assert {tag[1]["href"][1:] for tag in found.all("a")} <= set(identifiers)
    assert {tag[1]["aria-labelledby"] for tag in found.all("section")} <= set(identifiers)
    scrolled = [tag for tag in found.tags if "tabindex" in tag[1]]
    assert all(tag[1]["role"] == "region" and tag[1]["aria-label"] for tag in scrolled)


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_colours_of_text_have_the_contrast_of_wcag_aa(page):
    folder, made = page
    text = made.write(folder / "report.html").read_text()
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", text))
    for ink in ("ink", "soft", "accent"):
        for paper in ("#ffffff", colours["box"]):
            low, high = sorted([luminance(colours[ink]), luminance(paper)])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, paper)


def test_print_has_its_own_rules(page):
    folder, made = page
    text = made.write(folder / "report.html").read_text()
    rules = text[text.index("@media print") :]
    assert "@page" in text
    assert re.search(r"nav[^{]*\{ display: none", rules)
    assert "table-header-group" in rules
    assert re.search(r"figure, tr[^{]*\{ break-inside: avoid", rules)


def test_markdown_has_the_same_content(page):
    folder, made = page
    text = made.write(folder / "report.md").read_text()
    plain = re.sub(r"\\(.)", r"\1", text)
    assert [line for line in plain.splitlines() if line.startswith("#")] == [
        "# Effects: 5 % & more",
        "## Average",
        "## Average",
        "## Model",
    ]
    assert "> First.\n>\n> Second <b>." in plain
    assert "| north & east | 0.500 | 1,200 |" in plain
    assert "![A line that rises](<line.png>)" in plain
    assert "```text\n===\ncoef 0.5\n===\n```" in plain
    assert plain.rstrip().endswith("Made today.")


def test_latex_has_the_same_content(page):
    folder, made = page
    text = made.write(folder / "report.tex").read_text()
    assert r"\title{Effects: 5 \% \& more}" in text
    assert re.findall(r"\\section\{(\w+)\}\\label\{([^}]*)\}", text) == [
        ("Average", "sec:average"),
        ("Average", "sec:average-2"),
        ("Model", "sec:model"),
    ]
    assert r"north \& east & 0.500 & 1,200 \\" in text
    assert r"south\_west & $-$0.250 & 80 \\" in text
    assert r"{line.png}" in text
    assert r"\caption{It rises.}" in text
    assert text.count(r"\begin{") == text.count(r"\end{")
    labels = re.findall(r"\\label\{([^}]*)\}", text)
    assert len(set(labels)) == len(labels)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(page):
    folder, made = page
    made.write(folder / "report.tex")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "report.pdf").stat().st_size > 1000


def test_another_ending_is_refused(page):
    folder, made = page
    with pytest.raises(ParameterError, match=r"\.html, \.md or \.tex"):
        made.write(folder / "report.docx")
    assert not (folder / "report.docx").exists()


def test_names_that_are_code_stay_words_on_every_page(tmp_path):
    nasty = "N\n\n\\end{verbatim}\\input{x} <script>alert(1)</script> ```"
    page = Page(nasty, [nasty], [Section("Model", [nasty], text=nasty)], [nasty])
    tex = page.write(tmp_path / "r.tex").read_text()
    assert tex.count(r"\end{verbatim}") == 1
    assert r"\input" not in tex.split(r"\begin{verbatim}")[0] + tex.split(r"\end{verbatim}")[1]
    title = re.search(r"\\title\{(.*)\}$", tex, re.M)[1]
    assert title.startswith(r"N \textbackslash{}end")
    html = page.write(tmp_path / "r.html").read_text()
    assert "<script>" not in html
    markdown = page.write(tmp_path / "r.md").read_text()
    assert markdown.splitlines()[0].startswith("# N \\\\end")
    assert "````text\n" in markdown
    with pytest.raises(ParameterError, match=r"letters and digits"):
        Page("A", [], [Section("F", figures=[Figure(tmp_path / "a}\\input{b.png", "x")])]).to_latex(tmp_path)
