# %% [markdown]
# # Whom to treat with a budget, and how sure are we?
#
# A ministry can pay for a part of the villages. Which ones, what will it bring, and does the trial show that choosing
# by images beats choosing at random? The data are simulated, so that the plan can be compared with the best one.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import causalsat
from causalsat.imagery import indices
from causalsat.report import Figure, Page, Section, Table

study = causalsat.load_study("simulated_trial")
model = causalsat.image_model(study, causalsat.DoublyRobustEffect(modifiers="img*"), n_components=8)
analysis = causalsat.analyse(study, model, n_permutations=199, progress=False)

# %% [markdown]
# Treating a village costs more the farther it lies from the middle of the region. The budget pays for about a third
# of the villages without a trial. Places are ranked by predicted effect for cost.


# %%
def cost(places):
    points = places.geometry.representative_point().to_crs(study.imagery.crs)
    kilometres = np.hypot(points.x - points.x.mean(), points.y - points.y.mean()) / 1000
    return 10 + kilometres


budget = float(cost(study.places).sum() / 3)
plan = causalsat.target(analysis, budget=budget, cost=cost)
print(plan.paragraph())
print(plan.table.head())

# %% [markdown]
# The gain of every budget: people of the trial, ranked by models that did not see them, valued by their doubly
# robust scores, beside the same money spent at random.

# %%
print(plan.gain_curve.to_dataframe().iloc[::10].round(3))

# %% [markdown]
# A rule that can be read aloud: two questions about what a satellite sees. The search over all such rules is exact,
# and the rule's value comes from rules that were chosen on other villages.


# %%
def seen(places):
    chips = study.imagery.chips(places, size_m=study.chip_size_m)
    return indices(chips, ["ndvi", "ndbi"]).mean(("y", "x")).to_pandas().set_axis(["ndvi", "ndbi"], axis=1)


rule = causalsat.target(
    analysis, budget=budget, cost=cost, rule="tree", features=seen(study.units), place_features=seen(study.places)
)
print(rule.tree.export_text())
print(f"ranking {plan.value.estimate:.3f} (se {plan.value.se:.3f}), tree {rule.value.estimate:.3f}", end=" ")
print(f"(se {rule.value.se:.3f}) a head")

# %% [markdown]
# What no ministry can do: compare with the best plan for the true effects, which the simulation knows.

# %%
truth = causalsat.simulate.satellite_trial("smooth").places["tau"].to_numpy()
prices = cost(study.places).to_numpy()
best = np.argsort(-truth / prices)
best = best[np.cumsum(prices[best]) <= budget]
share = plan.table["treat"].reindex(study.places.index) @ truth / truth[best].sum()
print(f"the plan has {share:.2f} of the gain of the best one")

# %% [markdown]
# Everything for the ministry in one folder.

# %%
folder = Path("outputs/whom_to_treat")
for path in plan.write(folder):
    print(f"wrote {path}")
rule.tree.plot().figure.savefig(folder / "tree.png", dpi=120)
plt.close("all")
page = Page(
    "Whom to treat",
    [plan.paragraph()],
    [
        Section(
            "What a budget brings",
            tables=[Table.of(plan.value.to_dataframe(), "Value a head over treating nobody")],
            figures=[
                Figure(folder / "gain_curve.png", "Gain by budget"),
                Figure(folder / "targeting.png", "The places of the plan"),
                Figure(folder / "tree.png", "A rule of two questions"),
            ],
        )
    ],
)
print(f"wrote {page.write(folder / 'report.html')}")
