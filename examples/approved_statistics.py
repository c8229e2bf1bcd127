# %% [markdown]
# # Statistics, with approval
#
# Does a drug lower blood pressure? Two hospitals have patients; an analyst has the question. The analyst writes a
# program without seeing a single number and asks; each hospital reads what the program would do and what could be
# read from its results, and says yes or no. Only what all owners have approved runs.

# %%
import numpy as np

import tessera as ts

rng = np.random.default_rng(2)


def patients(count: int) -> dict[str, np.ndarray]:
    """Who took the drug (0 or 1), and the pressure afterwards; the drug lowers it by 8."""
    drug = rng.integers(0, 2, count)
    return {"drug": drug, "pressure": np.clip(rng.normal(145 - 8 * drug, 12), 60, 250)}


data = {"north": patients(300), "south": patients(200)}
cluster = ts.MemoryCluster(parties=2, clients=("north", "south", "analyst")).start()
north, south, analyst = (ts.Client(cluster, name=name).start() for name in ("north", "south", "analyst"))
for owner, name in ((north, "north"), (south, "south")):
    owner.upload(ts.DataSet(data[name], ranges={"drug": (0, 1), "pressure": (60, 250)}), "trial")
    owner.allow("trial", "analyst", schema=True)  # to know names, shapes and ranges, and to ask

# %% [markdown]
# ## The analyst asks
#
# How many took the drug, the sum of their pressures, and the sum of all: both means follow from that. And how many of
# those with the drug are still above 140: comparisons are exact.

# %%
drug = ts.concatenate([analyst.data(f"{name}/trial")["drug"] for name in data])
pressure = ts.concatenate([analyst.data(f"{name}/trial")["pressure"] for name in data])
wanted = [drug.sum(), (drug * pressure).sum(), pressure.sum(), (drug * (pressure > 140)).sum()]
question = analyst.request(wanted, why="Does the drug lower blood pressure?")

# %% [markdown]
# ## Both owners read it, and approve
#
# `show` is found out by the owner's own client, from the program's operations: nobody's word is taken. A line with
# `!!` says that data could be read from a result. A sum is LINEAR, one equation: with 500 unknowns it tells nothing
# of anybody; with one unknown it would be that patient. That is what owners look at, before they say yes: here, to
# one run.

# %%
for owner in (north, south):
    (request,) = owner.requests()
    print(request.client, "asks:", request.why, owner.show(request.program), sep="\n", end="\n\n")
    assert all("LINEAR" in line and "500 unknowns" in line for line in owner.show(request.program).warnings)
    owner.approve(request.program, runs=1)

assert analyst.approved(question, timeout=10)
treated, sum_treated, sum_all, high = map(float, analyst.reveal(wanted))
means = sum_treated / treated, (sum_all - sum_treated) / (drug.size - treated)
print(f"{treated:.0f} of {drug.size} took the drug: mean {means[0]:.1f}, and {means[1]:.1f} without it")
print(f"{high:.0f} of them are above 140")
try:
    analyst.reveal(wanted)
    raise AssertionError("it was approved once")
except ts.LimitReached as refusal:
    print("a second time:", refusal)

# %% [markdown]
# ## What is refused
#
# The sum of all patients less the sum of all but the first: that is one patient. The owner is told so, however it is
# written, and says no.

# %%
of_north = analyst.data("north/trial")["pressure"]
greedy = of_north.sum() - of_north[1:].sum()
question = analyst.request(greedy, why="a check of units")
print(north.show(question))
assert north.show(question).warnings
north.deny(question, why="that is one patient")
try:
    analyst.reveal(greedy)
    raise AssertionError("revealed what was denied")
except ts.NotPermitted as refusal:
    print("refused:", refusal)

# %%
for each in (north, south, analyst, cluster):
    each.close()
took = np.concatenate([d["drug"] for d in data.values()]) == 1
measured = np.concatenate([d["pressure"] for d in data.values()])
assert (treated, high) == (took.sum(), (measured[took] > 140).sum())
assert np.allclose(means, [measured[took].mean(), measured[~took].mean()], atol=1e-2)

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
# axes[0].hist([measured[took], measured[~took]], bins=25, label=["drug", "none"], color=["#26639e", "#bac4d0"])
# axes[0].set_title("what nobody but the hospitals sees")
# axes[0].legend()
# axes[1].bar(["drug", "none"], means, color=["#26639e", "#bac4d0"])
# axes[1].set_ylim(130, 150)
# axes[1].set_title("what the analyst learns: two means")
# plt.show()
