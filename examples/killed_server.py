# %% [markdown]
# # A server killed in the middle
#
# Servers die: power fails, a kernel panics, somebody pulls a plug. Here a party is killed while it computes. The
# client gets an error that names it, within seconds; no part of a result has come out; and what lies on the parties
# is there again when the server is.

# %%
import threading
import time

import numpy as np

import tessera as ts

rng = np.random.default_rng(0)
images = rng.uniform(-1, 1, (64, 1, 28, 28))
layers = {
    "conv": ts.nn.Conv2d(1, 8, 3, padding=1),
    "sigmoid": ts.nn.Sigmoid(),
    "pool": ts.nn.AvgPool2d(2),
    "flat": ts.nn.Flatten(),
    "out": ts.nn.Linear(8 * 14 * 14, 10),
}
shapes = {"conv.weight": (8, 1, 3, 3), "conv.bias": (8,), "out.weight": (10, 1568), "out.bias": (10,)}
model = ts.Model(ts.Sequential(layers), {name: rng.normal(0, 0.1, shape) for name, shape in shapes.items()})

# %% [markdown]
# ## A run, and a run that is not to be
#
# The parties are processes of this machine. One is killed, with the signal that no process can catch, while the run
# is on its way.

# %%
cluster = ts.LocalCluster(parties=2).start()
client = ts.Client(cluster).start()
remote = client.upload(model, "network")
client.keep({"scores": remote(client.share(images[:4], low=-1, high=1))}, "kept")
before = client.predict(remote, images)
print("all is well:", client.last_run, sep="\n")

run = client.prepare(remote(client.share(images, low=-1, high=1)))
threading.Timer(0.01, cluster.processes["party1"].kill).start()
started = time.monotonic()
try:
    client.finish(run)
    failure = None
except ts.PeerError as error:
    failure = error
print(f"\nafter {time.monotonic() - started:.1f} s, {type(failure).__name__}: {failure}")
assert failure is not None and failure.peer == "party1"

# %% [markdown]
# ## While it is away, there is an error; nothing hangs

# %%
try:
    client.predict(remote, images)
    raise AssertionError("one of two parties cannot compute")
except ts.PeerError as error:
    print(f"{type(error).__name__}: {error}")
    print("what to do:", error.advice)
    assert error.peer == "party1"

# %% [markdown]
# ## It starts again, and all is there
#
# The model, and the result that the parties keep and nobody has seen, were on its disk, encrypted. The client
# connects again by itself.

# %%
cluster.start_process("party1")
for attempt in range(20):
    try:
        after = client.predict(remote, images)
        break
    except ts.PeerError as error:
        print(f"attempt {attempt + 1}: {error}")
        time.sleep(0.5)
kept = client.reveal(client.data("kept")["scores"])
client.close()
cluster.close()
print(f"runs again; largest difference to before {np.abs(after - before).max():.1e}")
assert np.abs(after - before).max() < 1e-3
assert np.abs(kept - before[:4]).max() < 1e-3

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
# axis.scatter(before.ravel(), after.ravel(), s=8, color="#26639e")
# axis.set(xlabel="before party1 was killed", ylabel="after it was back", title="the same model, the same answers")
# plt.show()
