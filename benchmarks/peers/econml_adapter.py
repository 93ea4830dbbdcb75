"""EconML with its default nuisance learners; in a trial the propensity is constant, and clusters split its folds."""

from common import run
from econml.dml import CausalForestDML
from econml.dr import ForestDRLearner, LinearDRLearner
from sklearn.dummy import DummyClassifier


def fitted(kind, name, trial, **options):
    """Effects and 95 % intervals of the new units; ``name`` is the parameter of the propensity's learner."""
    if not trial["observational"]:
        options[name] = DummyClassifier(strategy="prior")
    model = kind(random_state=trial["seed"], **options)
    groups = {} if trial["groups"] is None else {"groups": trial["groups"]}
    model.fit(trial["y"], trial["t"].astype(int), X=trial["X"], **groups)
    return model.effect(trial["new"]), *model.effect_interval(trial["new"], alpha=0.05)


FOREST = {"n_estimators": 1000, "n_jobs": 1}
run(
    {
        "EconML CausalForestDML (1000 trees)": lambda d: fitted(
            CausalForestDML, "model_t", d, discrete_treatment=True, **FOREST
        ),
        "EconML LinearDRLearner": lambda d: fitted(LinearDRLearner, "model_propensity", d),
        "EconML ForestDRLearner (1000 trees)": lambda d: fitted(ForestDRLearner, "model_propensity", d, **FOREST),
    },
    ["econml"],
)
