# %% [markdown]
# # Plan a trial
#
# How many villages does a trial need, who is treated, and where does the next trial belong? Before a trial all that
# is known of the candidates are their places and their images. Here they are the villages of a simulated landscape.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

import causalsat
from causalsat.report import Figure, Page, Section

trial = causalsat.simulate.satellite_trial("smooth", n_units=600, n_sites=100, size_px=512, seed=3)
study = trial.study().replace(covariates=[])
villages = study.units.assign(village=study.groups).drop_duplicates("village").set_index("village")[["geometry"]]
print(len(villages), "candidate villages")

# %% [markdown]
# ## How large
# Effects are in standard deviations of the outcome. The image features are those of the candidates.

# %%
result = causalsat.power(
    villages, study.imagery, n_villages=[40, 80], people=[5, 20], effect=0.4, icc=0.1, share_explained=0.8,
    n_simulations=40, n_permutations=19, size_m=study.chip_size_m, progress=False,
)  # fmt: skip
print(result.table.drop(columns="seconds").round(2).to_string(index=False))
result.plot()

# %% [markdown]
# ## Who is treated
# Of many assignments those with the best balanced images are kept; one of them is drawn, and every village keeps its
# probability of one half.

# %%
plan = causalsat.assign(villages, study.imagery, share=0.5, size_m=study.chip_size_m, seed=2026)
print(plan.balance.round(2))

# %% [markdown]
# ## Where next
# After a first trial, the sites that narrow the map of effects most.

# %%
model = study.fit(causalsat.image_model(study, n_components=8))
sites = causalsat.next_sites(model, study.places if study.places is not None else trial.places, 5)
print(sites)

# %% [markdown]
# ## On one page

# %%
out = Path("outputs") / "plan_a_trial"
out.mkdir(parents=True, exist_ok=True)
plan.write(out / "assignment.csv")
result.plot().figure.savefig(out / "power.png", dpi=150)
plt.close("all")
page = Page(
    "Plan of a trial",
    ["How large, who is treated, and where next."],
    [
        Section("Power", figures=[Figure(out / "power.png", "Power by number of villages and of people in each")]),
        Section("Assignment", text=str(plan.balance.round(2))),
        Section("Next sites", text=str(sites)),
    ],
)
print(f"wrote {page.write(out / 'report.html')}")
