"""What cells of a notebook show: it parses, has the numbers, and no name in it is read as markup."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from causalsat.base import Summary
from causalsat.core.cells import text_cells
from causalsat.core.notebook import frame_table, html_facts, html_table
from causalsat.core.svg import histogram_svg, intervals_svg, ticks
from causalsat.evaluation.calibration import BlpResult, GatesResult
from causalsat.evaluation.crossfit import CrossfitEffects
from causalsat.evaluation.overlap import OverlapResult
from causalsat.evaluation.permutation import PermutationResult
from causalsat.evaluation.rate import RateResult, TocCurve
from causalsat.inference.balance import Balance
from causalsat.mapping.plan import MapPlan
from causalsat.mapping.result import MapResult
from causalsat.posterior import EffectPosterior
from causalsat.study.report import Finding, StudyReport

HOSTILE = '<script>alert("x")</script>'
VOID = {"img", "br", "circle", "line", "rect", "polygon", "polyline"}


class Page(HTMLParser):
    """Tags that open and close in order, scripts, headings without a scope, tables without a caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []
        self.words: list[str] = []
        self.tables = self.captions = 0
        self.feed(text)
        self.close()
        if self.open:
            self.problems.append(f"never closed: {self.open}")
        if self.tables != self.captions:
            self.problems.append(f"{self.tables} tables with {self.captions} captions")

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag == "script" or any(name.startswith("on") for name in given):
            self.problems.append(f"runs: {tag}")
        if tag == "th" and given.get("scope") not in ("row", "col"):
            self.problems.append("a heading without scope")
        if tag == "svg" and not (given.get("role") == "img" and given.get("aria-label")):
            self.problems.append("a picture without words")
        if tag == "img" and not given.get("alt"):
            self.problems.append("a picture without words")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"closed out of order: {tag}")

    def handle_data(self, data):
        self.words.append(data)


def _curve():
    q = np.linspace(0.1, 1, 10)
    return TocCurve(q, 0.7312 * (1 - q) / 0.9, np.full(10, 0.1), 0.5, 200, 40, 99)


def _gates():
    two = np.array([0.1234, 0.8765])
    return GatesResult(
        two, np.array([0.1, 0.1]), two, np.array([10, 10]), np.eye(2), 0.7531, 0.2, 0.01, True, 0.01,
        np.array([20.0, 20.0]), 20.0, np.zeros(20, dtype=int),
    )  # fmt: skip


def _outcome_of_each_kind(tmp_path):
    noise = np.random.default_rng(0).standard_normal((400, 3))
    draws = 0.7312 + 0.1 * (noise - noise.mean(axis=0))
    posterior = EffectPosterior(draws, np.array([HOSTILE, "b", "c"]))
    table = pd.DataFrame({"mean": [0.7312]}, index=[HOSTILE])
    png = tmp_path / "map.png"
    from PIL import Image

    Image.new("RGB", (900, 400), "green").save(png)
    mapped = MapResult(tmp_path / "<b>.tif", png, None, 500.0, (731, 2), 1200, 0.9, HOSTILE, "job")
    names = (HOSTILE, "age")
    two = np.array([0.7312, 0.1])
    many = np.linspace(-1, 0.7312, 60)
    propensity = np.tile([0.1, 0.2, 0.7312, 0.8, 0.9], (2, 1))
    overlap = OverlapResult(propensity, 0.0, 0.05, two, np.array([3, 4]), names, two, two)
    finding = Finding("error", "outcome", f"{HOSTILE} misses 7312 of 9999 values", "drop it")
    rate = RateResult(0.7312, 0.1, 7.3, 0.001, "autoc", _curve(), np.zeros(9))
    return {
        "posterior": posterior,
        "ate": posterior.ate() - EffectPosterior(np.zeros((400, 1)), np.array(["ATE"])),
        "gate": posterior.gate([HOSTILE, "x", "x"]),
        "many": EffectPosterior(np.tile(draws[:, :1], (1, 50))),
        "summary": Summary(HOSTILE, table, {HOSTILE: 0.7312}, (HOSTILE,)),
        "toc": _curve(),
        "rate": rate,
        "gates": _gates(),
        "blp": BlpResult(0.7312, 0.1, 1.0, 0.2, 0.01, 0.9, 30.0, 100, 30),
        "permutation": PermutationResult(0.7312, 0.01, many, HOSTILE, 60, 20),
        "overlap": overlap,
        "balance": Balance(names, two, two / 2, two, two),
        "crossfit": CrossfitEffects(many, many, many, many, 0.9, np.zeros(60, int), np.array([HOSTILE] * 60)),
        "plan": MapPlan(7312, 1200, 20, 90.0, 10.0, 10, 40, 1e12, 100, price_per_hour=1.0),
        "map": mapped,
        "check": StudyReport(HOSTILE, (finding,), ("arms",)),
    }


def test_every_result_is_html_that_parses_escapes_and_has_its_numbers(tmp_path):
    for name, result in _outcome_of_each_kind(tmp_path).items():
        html = result._repr_html_()
        page = Page(html)
        assert page.problems == [], name
        words = " ".join(page.words).replace(",", "")
        numbers = ("0.123" if name == "gates" else "731" if name in ("map", "plan", "check") else "0.73",)
        assert any(number in words for number in numbers), (name, words[-400:])
        assert "<script" not in html, name


def test_representations_are_short_and_have_the_numbers(tmp_path):
    for name, result in _outcome_of_each_kind(tmp_path).items():
        text = repr(result)
        assert len(text.splitlines()) < 20, name
        assert any(n in text for n in ("0.73", "0.1234", "7,312", "7312", "731")), (name, text)
        assert "array(" not in text, name


def test_an_average_effect_prints_its_number():
    draws = np.full((10, 3), 2.0)
    assert "ATE 2 [2, 2]" in repr(EffectPosterior(draws).ate())


def test_a_result_of_a_new_class_prints_as_its_table():
    from dataclasses import dataclass

    from causalsat.core.tables import Tabular

    @dataclass(frozen=True)
    class Power(Tabular):
        """Power of a trial.

        More of it.
        """

        power: float

        def to_dataframe(self):
            return pd.DataFrame({"power": [self.power]}, index=["all"])

    assert repr(Power(0.8)).splitlines()[0] == "Power of a trial"
    assert "<caption>Power of a trial</caption>" in Power(0.8)._repr_html_()


def test_a_long_table_shows_its_ends():
    html = frame_table(pd.DataFrame({"x": np.arange(1000.0)}, index=[f"u{i}" for i in range(1000)]), "Units")
    assert [f">u{i}<" in html for i in (0, 999, 500)] == [True, True, False]
    assert "(12 of 1,000 rows)" in html
    assert Page(html).problems == []


def test_numbers_keep_their_figures_at_every_scale():
    for scale in (1e-9, 1e-4, 1.0, 1e4, 1e9, 1e15):
        cell = text_cells(pd.DataFrame({"x": [1.234 * scale]}), digits=None)[1][0][1]
        assert float(cell.replace(",", "")) == pytest.approx(1.234 * scale, rel=0.01), cell


def test_columns_of_like_size_are_written_alike():
    frame = pd.DataFrame({"estimate": [1.26], "se": [0.0812], "income": [120512.2]})
    assert text_cells(frame, digits=None)[1][0][1:] == ["1.260", "0.081", "120,512"]


def test_pictures_of_what_is_missing_or_constant():
    nothing = intervals_svg(["a"], [np.nan], [np.nan], [np.nan], title="t", reference=None)
    constant = histogram_svg(np.zeros(5), title="t", axis="x", mark=0.0)
    empty = histogram_svg([], title="t", axis="x")
    for svg in (nothing, constant, empty):
        assert Page(svg).problems == []
        assert not {"nan", "inf"} & set(svg.replace('"', " ").split())
    assert ticks(0.0, 0.0) == [0.0]


def test_facts_and_tables_escape_what_they_are_given():
    for html in (html_facts({HOSTILE: HOSTILE}, HOSTILE), html_table(["", HOSTILE], [[HOSTILE, HOSTILE]], HOSTILE)):
        assert Page(html).problems == []
        assert "<script" not in html


def test_posteriors_of_no_units_of_one_draw_and_of_outcomes_show_something():
    nothing = EffectPosterior(np.zeros((5, 3)))[[]]
    one = EffectPosterior(np.full((1, 2), 3.0))
    outcome = EffectPosterior(np.full((9, 2), 3.0), kind="outcome", treatment=HOSTILE)
    for posterior in (nothing, one, outcome):
        assert Page(posterior._repr_html_()).problems == []
        assert "EffectPosterior(" in repr(posterior)
    assert "0 units" in repr(nothing)
    assert "<script" not in outcome._repr_html_()
