# %% [markdown]
# # A cheating party, caught
#
# A bank scores applicants on shares. What if one of the parties wants somebody to get the loan, and sends what it
# should not? With *semi-honest* security, parties are trusted to follow the protocol, and nobody would notice. With
# *malicious* security every value carries a MAC, a tag that no party can make up, and the result is right or there is
# none.

# %%
import numpy as np

import tessera as ts

weights = np.array([0.5, -0.3, 0.2])
applicant = np.array([0.4, 0.9, 0.1])
exact = float(weights @ applicant)
print(f"the right score is {exact:.3f}; a loan takes 0.2")


def score(client: ts.Client) -> float:
    """Computed on shares of both, by three parties."""
    x = client.share(applicant, low=-1, high=1)
    w = client.share(weights, low=-1, high=1)
    return float(client.reveal(w @ x))


# %% [markdown]
# ## Semi-honest: a wrong score, and nobody knows
#
# `cheating` makes a party of this cluster in memory, which is all in one hand, add 0.5 to each result that it sends
# its share of. One party of three is enough.

# %%
with ts.MemoryCluster(parties=3) as cluster, ts.Client(cluster) as bank:
    honest = score(bank)
    with cluster.cheating("party1", by=0.5):
        forged = score(bank)
print(f"semi-honest: {honest:.3f} from honest parties, {forged:.3f} when party1 cheats: a loan, and no error")
assert abs(honest - exact) < 1e-3
assert abs(forged - honest - 0.5) < 1e-3

# %% [markdown]
# ## Malicious: no score
#
# The same cheat. The MAC of the result is not what it should be, and the bank is given an error instead of a number.
# Nothing says who it was: the party's share of a result is signed by nobody. Where messages do show it, the error is
# `ts.CaughtCheating`, and names the party.

# %%
with ts.MemoryCluster(parties=3, security="malicious") as cluster, ts.Client(cluster) as bank:
    checked = score(bank)
    rounds = bank.last_run.online.rounds
    with cluster.cheating("party1", by=0.5):
        try:
            caught = None
            print("the bank has got", score(bank))
        except ts.MacCheckError as error:
            caught = error
            print("malicious:", error)
    again = score(bank)
print(f"honest again, the score is {again:.3f}, in {rounds} rounds")
assert caught is not None
assert abs(checked - exact) < 1e-3
assert abs(again - exact) < 1e-3

# %% [markdown]
# What it costs: a few rounds more, the same bytes between parties, and about twice as many from the dealer (`tessera
# bench security`). A party can always stop a run; it cannot change a result.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
# names = ["honest", "semi-honest,\nparty1 cheats", "malicious,\nparty1 cheats", "malicious,\nhonest"]
# axis.bar(names, [honest, forged, 0, again], color=["#bac4d0", "#b3261e", "#26639e", "#bac4d0"])
# axis.axhline(0.2, color="#202226", lw=1)
# axis.text(2, 0.02, "no score:\nMacCheckError", ha="center")
# axis.set_title("the score that the bank gets (a loan takes 0.2)")
# plt.show()
