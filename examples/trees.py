# %% [markdown]
# # Trees from scikit-learn
#
# A clinic has measurements of a tumour; somebody else has a random forest that tells benign from malignant. Each tree
# is evaluated whole, on shares: the parties do not learn which way a patient went, and the clinic does not learn the
# thresholds. Comparisons are exact, ties included: each patient ends in the same leaf as with scikit-learn.

# %%
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

import tessera as ts

data = load_breast_cancer()
train, test = data.data[:400], data.data[400:]
forest = RandomForestClassifier(n_estimators=10, max_depth=4, random_state=0).fit(train, data.target[:400])

# %% [markdown]
# ## Import it
#
# Its columns have names and ranges, in which values of patients to come have to lie: twice the largest seen. What a
# model says of itself is public, and so are number and depth of its trees; thresholds, features and leaves are
# secret.

# %%
columns = [ts.Column(str(n), 0, 2 * float(most)) for n, most in zip(data.feature_names, train.max(0), strict=True)]
labels = [ts.Label(str(name)) for name in data.target_names]
said = ts.Interface(ts.TableInput(tuple(columns)), ts.Classes(tuple(labels), activation="none"), notice="For research.")
model = ts.from_sklearn(forest, train, interface=said)
print(model, columns[0], sep="\n")

# %% [markdown]
# ## Ask it

# %%
with ts.MemoryCluster(parties=3) as cluster, ts.Client(cluster) as clinic:
    remote = clinic.upload(model, "tumours")
    encrypted = clinic.predict(remote, test)
    print(clinic.last_run)

plain = forest.predict_proba(test)
for patient in range(3):
    p = encrypted[patient]
    print(f"patient {patient}: {labels[int(p.argmax())].name} ({p.max():.1%}); in the clear {plain[patient].max():.1%}")
difference = np.abs(encrypted - plain).max()
print(f"{len(test)} patients; probabilities differ by {difference:.1e} at most")
assert difference < 1e-3
assert (encrypted.argmax(1) == plain.argmax(1)).all()

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
# axis.scatter(plain[:, 1], encrypted[:, 1], s=12, color="#26639e")
# axis.set(xlabel="scikit-learn", ylabel="on shares", title="probability of a benign tumour")
# plt.show()
