# %% [markdown]
# # What it costs between two cities
#
# The parties' hosts may be far apart. Then a run takes rounds, each of which waits for the way between them, and
# bytes, which have to get through. Both are known before anything runs, to the byte. Here we ask what a network with
# ReLU costs on a fast and on a slow line, and have it planned for either.

# %%
import numpy as np
import torch
from torch import nn

import tessera as ts

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))
images = np.random.default_rng(0).uniform(-1, 1, (4, 1, 28, 28))
model = ts.from_torch(net, images)

# %% [markdown]
# ## Rounds and bytes
#
# A comparison can take few rounds, or few bytes: the *objective* decides. (`tessera cost --torch net.py:net --shape
# 1,28,28 --rtt 20 --bandwidth 100 --objective both` prints the same, layer by layer, in a terminal.)

# %%
one = (1, 1, 28, 28)
costs = {objective: model.cost(one, parties=2, objective=objective) for objective in ("latency", "traffic")}
for objective, cost in costs.items():
    print(f"{objective}: {cost}")
    for name, layer in cost.layers.items():
        print(f"    {name or 'input'}: {layer.rounds} rounds, {layer.opened_bytes:,} bytes opened")
assert costs["latency"].online_rounds < costs["traffic"].online_rounds
assert costs["latency"].offline_bytes > costs["traffic"].offline_bytes

# %% [markdown]
# ## Seconds, on lines that one knows
#
# A `Link` is a round trip in seconds and bits per second. What computing takes comes on top: milliseconds here.

# %%
lines = {
    "next room": ts.Link(0.2e-3, 10e9),
    "Hamburg - Munich": ts.Link(15e-3, 1e9),
    "Europe - Japan": ts.Link(230e-3, 100e6),
    "a poor line": ts.Link(30e-3, 2e6),
}


def whole(cost: ts.Cost, line: ts.Link) -> float:
    """Seconds of a run of which nothing was dealt ahead of time."""
    return cost.latency(line).offline + cost.latency(line).online


best = {}
for place, line in lines.items():
    seconds = {objective: whole(cost, line) for objective, cost in costs.items()}
    best[place] = min(seconds, key=seconds.get)
    online = costs["latency"].latency(line).online
    print(f"{place}: " + ", ".join(f"{o} {s * 1e3:,.1f} ms" for o, s in seconds.items()), end="; ")
    print(f"dealt ahead of time {online * 1e3:,.1f} ms; take {best[place]}")
assert (best["Europe - Japan"], best["a poor line"]) == ("latency", "traffic")

# %% [markdown]
# ## What is predicted is what is measured

# %%
measured = {}
for objective in costs:
    with ts.MemoryCluster(parties=2) as cluster, ts.Client(cluster, objective=objective) as client:
        remote = client.upload(model, "net")
        client.reveal(remote(client.share(images[:1], low=-1, high=1)))
        run = client.last_run
    measured[objective] = run.online.rounds, run.online.bytes, run.offline.bytes
    print(f"{objective}: {run.online.rounds} rounds, {run.online.bytes:,} bytes, dealt {run.offline.bytes:,}")
predicted = {o: (c.online_rounds, c.online_bytes_per_party, c.offline_bytes) for o, c in costs.items()}
assert measured == predicted

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# trips = np.geomspace(0.1e-3, 0.5, 60)
# figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
# for objective, style in (("latency", "-"), ("traffic", "--")):
#     for speed, colour in ((1e9, "#26639e"), (10e6, "#b3261e")):
#         seconds = [whole(costs[objective], ts.Link(trip, speed)) for trip in trips]
#         axis.loglog(trips * 1e3, seconds, style, color=colour, label=f"{objective}, {speed / 1e6:.0f} Mbit/s")
# axis.set(xlabel="round trip, ms", ylabel="seconds", title="one image, nothing dealt ahead")
# axis.legend()
# plt.show()
