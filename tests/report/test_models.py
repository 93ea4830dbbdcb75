"""Models side by side: values, stars, and each kind of file."""

import zipfile
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from causalsat import DoublyRobustEffect, EffectPosterior
from causalsat.evaluation import blp, rate
from causalsat.exceptions import DataError, ParameterError
from causalsat.report import compare_models

HOSTILE = '<script>&"_$%\\input{x}'


@pytest.fixture(scope="module")
def trial():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2))
    t = np.tile([0.0, 1.0], 100)
    return X, t * (0.5 + X[:, 0]) + 0.5 * rng.standard_normal(200), t


def table(p=0.001):
    return pd.DataFrame({"estimate": [0.5], "se": [0.1], "p_value": [p]}, index=["treatment"])


def test_stars_follow_the_p_values():
    found = compare_models({p: table(p) for p in (0.2, 0.09, 0.049, 0.009)}).to_dataframe()
    assert [cell.split(" ")[0] for cell in found.loc["treatment"]] == ["0.500", "0.500*", "0.500**", "0.500***"]
    bare = compare_models([table()], stars=())
    assert bare.to_dataframe().loc["treatment"].tolist() == ["0.500 (0.100)"]
    assert not any("p <" in note for note in bare.notes)


def test_a_regression_stands_beside_ours_with_the_numbers_of_statsmodels(trial):
    X, y, t = trial
    ols = sm.OLS(y, sm.add_constant(pd.DataFrame({"treatment": t}))).fit()
    ours = DoublyRobustEffect(random_state=0).fit(X, y, treatment=t)
    found = compare_models({"OLS": ols, "ours": ours})
    assert f"{ols.params['treatment']:.3f}" in found.to_dataframe().loc["treatment", "OLS"]
    values = found.values.set_index(["model", "row"])
    assert values.loc[("OLS", "treatment"), "se"] == pytest.approx(ols.bse["treatment"])
    assert values.loc[("ours", "ATE"), "estimate"] == pytest.approx(float(ours.effect(X).ate()), abs=0.2)
    assert dict(found.facts)["Units"][0] == "200"
    assert dict(found.facts)["Estimator"] == ("", "DoublyRobustEffect")


def test_posteriors_have_no_stars_and_results_keep_theirs(trial):
    X, y, t = trial
    posterior = EffectPosterior(0.5 + 0.01 * np.random.default_rng(1).standard_normal((500, 200))).ate()
    scores = 4 * y * (t - 0.5)
    line, ranked = blp(X[:, 0], scores), rate(X[:, 0], scores)
    found = compare_models({"posterior": posterior, "blp": line, "rate": ranked}).to_dataframe()
    assert "*" not in found.loc["ATE", "posterior"]
    assert found.loc["heterogeneity loading", "blp"].startswith(f"{line.slope:.3f}***")
    assert found.loc["autoc", "rate"].startswith(f"{ranked.estimate:.3f}")


def test_rows_are_chosen_and_renamed():
    two = pd.concat([table(), table().rename(index={"treatment": "age"})])
    found = compare_models([two], rows={"treatment": "Cash grant"}, errors="interval")
    assert found.to_dataframe().to_dict() == {"(1)": {"Cash grant": "0.500*** (0.304, 0.696)"}}
    with pytest.raises(DataError, match="nothing"):
        compare_models([two], rows=["nothing"])


def test_every_file_holds_the_table_and_runs_nothing(tmp_path):
    found = compare_models(
        {HOSTILE: table().rename(index={"treatment": HOSTILE})}, caption=HOSTILE, notes=[HOSTILE, "Own note."]
    )
    texts = {end: found.write(tmp_path / f"t.{end}").read_text() for end in ("tex", "md", "html")}
    assert all("0.500" in text for text in texts.values())
    assert all("Own note." in text for text in texts.values())
    assert "<script" not in texts["html"]
    assert "<script" not in texts["md"].replace("\\<script", "")
    assert "\\input" not in texts["tex"]
    assert "0.500$^{***}$" in texts["tex"]
    with zipfile.ZipFile(found.write(tmp_path / "t.docx")) as file:
        document = ElementTree.fromstring(file.read("word/document.xml"))
    words = [node.text for node in document.iter() if node.tag.endswith("}t")]
    assert words.count(HOSTILE) == 4  # caption, heading, row, note
    assert {"0.500***", "(0.100)", "Own note."} <= set(words)


def test_what_has_no_estimates_is_refused(tmp_path):
    for models, kind in (([], ParameterError), ([3], DataError), ({"a": DoublyRobustEffect}, DataError)):
        with pytest.raises(kind):
            compare_models(models)
    with pytest.raises(ParameterError, match="docx"):
        compare_models([table()]).write(tmp_path / "t.pdf")
    with pytest.raises(ParameterError, match="errors"):
        compare_models([table()], errors="sd")
