# %% [markdown]
# # Two companies' models, and who may use them
#
# Two companies have networks that estimate a patient's risk. Both lie on the same parties, as shares; a clinic asks
# both and sees where they disagree. Each company says who may use its model, for what and how often, and signs that;
# every party keeps these rules by itself, so one that is honest is enough.

# %%
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tessera as ts

table = load_breast_cancer()
names, rows, patients = table.feature_names, table.data[:450], table.data[450:]
columns = ts.TableInput(tuple(ts.Column(str(n), 0, 2 * float(m)) for n, m in zip(names, rows.max(0), strict=True)))
models = {
    "alpha": make_pipeline(StandardScaler(), LogisticRegression()),
    "beta": make_pipeline(StandardScaler(), MLPClassifier((8,), random_state=0, max_iter=800)),
}
for model in models.values():
    model.fit(rows, table.target[:450])

# %% [markdown]
# ## Both upload

# %%
cluster = ts.MemoryCluster(parties=3, clients=("alpha", "beta", "clinic", "rival")).start()
alpha, beta, clinic, rival = (ts.Client(cluster, name=name).start() for name in ("alpha", "beta", "clinic", "rival"))
for company, name in ((alpha, "alpha"), (beta, "beta")):
    company.upload(ts.from_sklearn(models[name], rows, interface=ts.Interface(columns)), "risk")

# %% [markdown]
# ## At first nobody may use them

# %%
refused = 0


def try_to(client: ts.Client, name: str) -> np.ndarray | None:
    """The answers for all patients; or None, and why not."""
    global refused
    try:
        return client.predict(client.model(name), patients)
    except (ts.NotPermitted, ts.LimitReached) as refusal:
        print(f"{type(refusal).__name__}: {refusal}")
        refused += 1
        return None


try_to(clinic, "alpha/risk")

# %% [markdown]
# ## Alpha lets the clinic predict twice, beta lets everybody, a hundred times a day

# %%
alpha.allow("risk", "clinic", runs=2)
beta.allow("risk", "*", per_day=100)
for entry in clinic.models():
    print(f"{entry.owner}/{entry.name}: {entry.parameters} numbers;", *map(str, entry.rules))

answers = {name: try_to(clinic, f"{name}/risk")[:, 1] for name in models}
disagree = np.flatnonzero((answers["alpha"] > 0.5) != (answers["beta"] > 0.5))
print(f"{len(patients)} patients; the models disagree on {len(disagree)}: look at these again")

# %% [markdown]
# ## Used up, not for the rival, and taken back

# %%
assert try_to(clinic, "alpha/risk") is not None  # the second of two
try_to(clinic, "alpha/risk")
try_to(rival, "alpha/risk")
beta.allow("risk", "*", [])
try_to(clinic, "beta/risk")

runs = [entry for entry in alpha.audit() if entry.kind == "run" and entry.server == "party0"]
print(*(entry.text for entry in runs), sep="\n")

# %%
for each in (alpha, beta, clinic, rival, cluster):
    each.close()
for name, model in models.items():
    assert np.abs(answers[name] - model.predict_proba(patients)[:, 1]).max() < 1e-2
assert refused == 4

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
# apart = np.isin(np.arange(len(patients)), disagree)
# axis.scatter(answers["alpha"][~apart], answers["beta"][~apart], s=14, color="#bac4d0", label="agree")
# axis.scatter(answers["alpha"][apart], answers["beta"][apart], s=24, color="#b3261e", label="disagree")
# axis.set(xlabel="alpha: benign", ylabel="beta: benign", title="what the clinic alone sees")
# axis.legend()
# plt.show()
