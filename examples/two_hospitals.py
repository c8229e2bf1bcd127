# %% [markdown]
# # The average of two hospitals
#
# How long do patients stay? Each hospital knows its own patients' days and may show them to nobody: not to the other
# hospital, and not to whoever computes. So both hand out *shares*, each of which is noise, and the average of all is
# computed on these.

# %%
import numpy as np

import tessera as ts

rng = np.random.default_rng(1)
north_days = rng.gamma(2.0, 2.5, 400).clip(0, 60)
south_days = rng.gamma(4.0, 2.5, 250).clip(0, 60)

# %% [markdown]
# ## What a share is
#
# A number is cut into a random one and what is missing to it, modulo a prime. Either half alone could belong to any
# number at all; the sum of both is the number. Sums can be computed half by half, without ever putting halves
# together.

# %%
PRIME = 2**61 - 1


def split(number: int) -> tuple[int, int]:
    first = int(rng.integers(PRIME))
    return first, (number - first) % PRIME


twelve, thirty = split(12), split(30)
print("12 is", twelve, "and 30 is", thirty)
total = [(a + b) % PRIME for a, b in zip(twelve, thirty, strict=True)]
print("party 0 adds its two halves, and so does party 1:", total, "which is", sum(total) % PRIME)
assert sum(total) % PRIME == 42

# %% [markdown]
# ## The average
#
# `MemoryCluster` is a dealer, two parties and the two hospitals' clients in this process, for learning: each hospital
# uploads its data, as shares. At first nobody else may so much as know that it is there. North lets south know what
# its data looks like (a name, a length, a range), and then allows one program: the average, and no other.

# %%
with (
    ts.MemoryCluster(parties=2, clients=("north", "south")) as cluster,
    ts.Client(cluster, name="north") as north,
    ts.Client(cluster, name="south") as south,
):
    north.upload(ts.DataSet({"days": north_days}, low=0, high=60), "stays")
    south.upload(ts.DataSet({"days": south_days}, low=0, high=60), "stays")
    north.allow("stays", "south", schema=True)

    all_days = ts.concatenate([south.data("north/stays")["days"], south.data("south/stays")["days"]])
    mean = all_days.mean()  # an expression: nothing has run
    try:
        south.reveal(mean)
    except ts.NotPermitted as refusal:
        print("\nnot yet:", refusal)

    north.allow("stays", "south", [south.digest(mean)])
    average = float(south.reveal(mean))
    print(f"\nthe average of all {all_days.size} stays: {average:.3f} days, which south alone has learnt")
    print(south.last_run)

exact = np.concatenate([north_days, south_days]).mean()
print(f"the same from everybody's plain data: {exact:.3f}")
assert abs(average - exact) < 1e-3

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# days = np.concatenate([north_days, south_days]).round().astype(int)
# halves = np.array([split(int(d)) for d in days], dtype=np.uint64)
# figure, axes = plt.subplots(1, 3, figsize=(11, 2.8), layout="constrained")
# for axis, values, title in zip(
#     axes, [halves[:, 0], halves[:, 1], halves.sum(1) % PRIME], ["party 0 holds", "party 1 holds", "the sum: days"]
# ):
#     axis.hist(values, bins=30, color="#26639e")
#     axis.set_title(title)
# plt.show()
