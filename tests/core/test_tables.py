"""Tables for papers: what is read back from the Markdown and the LaTeX is what was put in."""

import csv
import re

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat import evaluation
from causalsat.base import Summary
from causalsat.core.names import list_names
from causalsat.core.tables import (
    latex_table,
    latex_text,
    latex_verbatim,
    markdown_fence,
    markdown_table,
    markdown_text,
    text_cells,
    write_csv,
)

NASTY = "a_1 & b|c: 5 % of $x^2$ #3 {y} ~z \\w <0.1> [0.025"


def rows_of_markdown(text):
    """Cells of the only table in a text, headings first."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(re.fullmatch(r":?-+:?", c) for c in cells[1])
    return [[re.sub(r"\\(.)", r"\1", c) for c in row] for row in [cells[0], *cells[2:]]]


def rows_of_latex(text):
    """Cells of the only tabular in a text as they are printed, headings first."""
    columns, body = re.search(r"\\begin\{tabular\}\{([lrp]+|[^\n]*)\}\n(.*)\\end\{tabular\}", text, re.S).groups()
    lines = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r"\\")]
    words = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", "$-$": "-", "{[}": "["}
    words |= {r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|"}

    def printed(cell):
        for tex, letter in words.items():
            cell = cell.replace(tex, letter)
        return re.sub(r"\\([&%$#_{}])", r"\1", cell).strip()

    found = [[printed(cell) for cell in re.split(r"(?<!\\)&", line)] for line in lines]
    assert all(len(row) == len(re.sub(r"p\{[^}]*\}", "l", columns)) for row in found)
    return found


def test_letters_that_are_markup_come_through_both():
    columns, rows = ["", "effect"], [[NASTY.replace("\\w ", ""), "-0.25"], ["[second", ""]]
    assert rows_of_markdown(markdown_table(columns, rows)) == [columns, *rows]
    assert rows_of_latex(latex_table(columns, rows)) == [columns, *rows]
    assert latex_text("\\") == r"\textbackslash{}"
    assert markdown_text("*") == r"\*"


@pytest.mark.parametrize(
    ("text", "printed"), [("-0.2", "$-$0.2"), ("(-.3, -1)", "($-$.3, $-$1)"), ("2008-01", "2008-01")]
)
def test_a_hyphen_before_a_number_is_a_minus(text, printed):
    assert latex_text(text) == printed


def test_numbers_to_the_right_words_to_the_left_long_words_broken():
    rows = [["a", "1.5", "yes", "w " * 40], ["b", "", "no", "short"]]
    table = latex_table(["unit", "n", "kind", "what"], rows)
    assert r"\begin{tabular}{lrlp{0.70\linewidth}}" in table
    assert "|:---|---:|:---|:---|" in markdown_table(["unit", "n", "kind", "what"], rows)


def test_cells_are_rounded_as_asked_and_missing_ones_are_empty():
    frame = pd.DataFrame({"x": [1234.5678, np.nan], "n": [1200, 3], "ok": [True, False]}, index=["a", "b"])
    assert text_cells(frame, digits=1) == (
        ["", "x", "n", "ok"],
        [["a", "1,234.6", "1,200", "True"], ["b", "", "3", "False"]],
    )


def test_a_summary_says_the_same_in_print_markdown_and_latex():
    y = np.arange(40.0) % 7 + np.repeat([0.0, 2.0], 20)
    X = np.column_stack([np.arange(40.0) % 5])
    found = causalsat.DoublyRobustEffect(random_state=0).fit(X, y, treatment=np.repeat([0, 1], 20)).summary()
    assert isinstance(found, Summary)
    printed = [line.split() for line in str(found).splitlines()]
    for rows in (
        rows_of_markdown(found.to_markdown(digits=4)),
        rows_of_latex(found.to_latex(digits=4, label="tab:dr")),
    ):
        assert [row[0] for row in rows[1:]] == list(found.table.index)
        for row in rows[1:]:
            assert [row[0], *[cell for cell in row[1:] if cell]] in [
                [word for word in line if word != "NaN"] for line in printed
            ]
    assert all(f"- {note}" in re.sub(r"\\(.)", r"\1", found.to_markdown()) for note in found.notes)
    assert r"\label{tab:dr}" in found.to_latex(label="tab:dr")
    assert rf"\caption{{{found.title}}}" in found.to_latex()
    assert r"\caption{Ours}" in found.to_latex(caption="Ours")
    assert f"units: {found.diagnostics['units']}" in found.to_latex()


def test_results_give_the_tables_of_their_data_frames():
    rng = np.random.default_rng(0)
    tau = rng.normal(size=200)
    scores = tau + rng.normal(size=200)
    draws = causalsat.EffectPosterior(rng.normal(size=(50, 3)), index=np.array(["a", "b", "c"]))
    results = [
        evaluation.rate(tau, scores, n_bootstrap=20),
        evaluation.gates(tau, scores),
        evaluation.blp(tau, scores),
        draws,
        draws.ate(),
    ]
    for result in results:
        frame = result.to_dataframe()
        for rows in (rows_of_markdown(result.to_markdown()), rows_of_latex(result.to_latex())):
            assert rows[0][-frame.shape[1] :] == list(frame.columns)
            number = frame.iloc[0, list(frame.columns).index("lower")]
            assert f"{number:,.3f}" in rows[1]
    wide = draws.to_dataframe(level=0.5)["lower"].iloc[0]
    assert f"{wide:.2f}" in rows_of_markdown(draws.to_markdown(level=0.5, digits=2))[1]
    assert draws.to_markdown(caption="Units").startswith("Units\n\n|")


def test_numbers_of_rows_are_no_column():
    curve = evaluation.rate(np.arange(50.0), np.arange(50.0), n_bootstrap=10).toc
    assert rows_of_markdown(curve.to_markdown())[0][0] == "q"


HOSTILE = [
    "a\n\nb",
    "\\end{verbatim}\\input{/etc/passwd}",
    "\\write18{rm -rf x}",
    "x\x00\x08\x0c\x85y",
    "}\\begin{document}",
    "^^5cinput{a}",
    "% comment",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_is_a_command_or_a_line_of_latex(text):
    found = latex_text(text)
    assert "\n" not in found
    assert re.fullmatch(r"[\x20-\x7e]*", found)
    plain = re.sub(r"\\text(backslash|asciicircum|asciitilde|less|greater|bar)\{\}|\\[&%$#_{}]", "", found)
    assert not set(plain) & set("\\{}%^~#$_&")


def test_nothing_ends_a_verbatim_environment_or_a_fence():
    text = "table\n\\end{verbatim}\\input{x}\n```\n# heading\n"
    assert latex_verbatim(text).count(r"\end{verbatim}") == 0
    fenced = markdown_fence(text)
    opening, *body, closing = fenced.splitlines()
    assert opening.removesuffix("text") == closing
    assert "\n".join(body) == text.rstrip("\n") or "\n".join(body) == text
    assert all(closing not in line for line in body)


@pytest.mark.parametrize("text", ["- item", "# heading", "1. first", "a\n===", "> quoted", "+ item", "2) second"])
def test_no_name_begins_a_block_of_markdown(text):
    found = markdown_text(text)
    assert "\n" not in found
    assert not re.match(r"([-+*>#]|\d+[.)])(\s|$)", found)


def test_csv_has_no_formula_and_every_number(tmp_path):
    names = ["=cmd|'/c calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "north", "-1.5", "-"]
    frame = pd.DataFrame(
        {
            "name": names,
            "=heading": np.arange(8.0) - 4,
            "kind": pd.Categorical(names),
            "mixed": [*names[:4], -1, 0.5, 2, 3],
        },
        index=pd.Index(names, name="@unit"),
    )
    write_csv(frame, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.reader(file))
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+@\t" and cell]
    assert {cell for cell in cells if cell.startswith("-")} == {"-4.0", "-3.0", "-2.0", "-1.0", "-1.5", "-", "-1"}
    assert rows[0] == ["'@unit", "name", "'=heading", "kind", "mixed"]
    back = pd.read_csv(tmp_path / "a.csv")
    np.testing.assert_array_equal(back["'=heading"], frame["=heading"])
    assert list(back["name"].str.removeprefix("'")) == names
    assert list(frame["name"]) == names  # the frame itself stays


def test_names_in_messages_are_printable_and_short():
    assert list_names(["a\x00\nb", "x" * 500]) == f"a\ufffd\ufffdb, {'x' * 80}..."
