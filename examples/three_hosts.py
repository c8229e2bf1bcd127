# %% [markdown]
# # Lesion photographs, on three hosts
#
# A company has a network that tells kinds of skin lesions apart, a clinic has photographs, and a hospital, a
# university and an institute each run a party; a dealer hands out randomness. Everybody works in a folder that stands
# for a host of its own, with the commands that one would type there. Photographs: HAM10000 and ISIC 2018, CC BY-NC
# 4.0; the network is for research, not for diagnosis.

# %%
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

PARTIES = ("hospital", "university", "institute")
MEMBERS = ("dealer", *PARTIES, "company", "clinic")
site = Path(tempfile.mkdtemp())
for name in MEMBERS:
    (site / name).mkdir()


def tessera(host: str, *words: str) -> str:
    """Types a command at that host; what it prints."""
    print(f"{host}$ tessera", *words)
    command = [sys.executable, "-m", "tessera", *words]
    done = subprocess.run(command, cwd=site / host, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


# %% [markdown]
# ## Keys, and one file for all
#
# Each member makes its key pair on its own host; the private half never leaves it. Whoever writes the cluster file is
# told the public halves. The file has no secret, and everybody gets the same one.

# %%
public = {name: tessera(name, "keygen", name).split()[-1] for name in MEMBERS}

sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("dealer", *PARTIES)}
address = {name: f"127.0.0.1:{s.getsockname()[1]}" for name, s in sockets.items()}
for s in sockets.values():
    s.close()
words = ["init", "--name", "skin", "--dealer", address["dealer"], "--client", "company", "--client", "clinic"]
words += [word for name in PARTIES for word in ("--party", f"{name}={address[name]}")]
words += [word for name in MEMBERS for word in ("--public-key", f"{name}={public[name]}")]
tessera("company", *words, "--out", "skin")
for name in MEMBERS:
    shutil.copy(site / "company" / "skin" / "cluster.toml", site / name)
assert [p.name for p in (site / "hospital").iterdir() if p.suffix == ".key"] == ["hospital.key"]

# %% [markdown]
# ## Servers start, and a client looks whether all is well

# %%
servers = []
for name, role in {"dealer": "dealer", **{p: f"party {i}" for i, p in enumerate(PARTIES)}}.items():
    print(f"{name}$ tessera {role} &")
    command = [sys.executable, "-m", "tessera", *role.split(), "--until-stdin-closes"]
    servers.append(subprocess.Popen(command, cwd=site / name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
assert all(server.stdout.readline() == "ready\n" for server in servers)
print(tessera("clinic", "check", "--no-bandwidth").splitlines()[-1])

# %% [markdown]
# ## The company uploads and allows; the clinic asks

# %%
tessera("company", "upload", "derm")
tessera("company", "allow", "derm", "clinic")
tessera("clinic", "demo", "--model", "small", "--save-images", "photographs")
photographs = sorted((site / "clinic" / "photographs").glob("*.png"))[:4]
answered = json.loads(
    tessera("clinic", "predict", "--model", "derm", "--json", *(f"photographs/{p.name}" for p in photographs))
)
for prediction in answered["predictions"]:
    print(f"{prediction['input']}: {prediction['class']} ({max(prediction['probabilities']):.0%})")
print(answered["notice"])

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
# import numpy as np
#
# import tessera as ts
#
# # The same from Python, at the clinic: what it sees, and what it sends to every party.
# with ts.Client(site / "clinic" / "cluster.toml", site / "clinic" / "clinic.key") as clinic:
#     model = clinic.model("derm")
#     seen = [model.image_input.load(path) for path in photographs]
#     runs = [clinic.prepare(model(clinic.share(image[None], low=-1, high=1))) for image in seen]
#     sent = [run.masked_inputs()[0][0] for run in runs]
#     answers = [clinic.finish(run)[0] for run in runs]
# figure, axes = plt.subplots(2, 4, figsize=(9, 5), layout="constrained")
# for column, (image, noise, prediction) in enumerate(zip(seen, sent, answered["predictions"])):
#     axes[0, column].imshow(model.image_input.visible(image))
#     axes[0, column].set_title(f"{prediction['class'][:24]}\n{max(prediction['probabilities']):.0%}", fontsize=9)
#     axes[1, column].imshow((noise >> np.uint64(53)).astype(np.uint8).transpose(1, 2, 0))
# for axis in axes.flat:
#     axis.axis("off")
# figure.suptitle("what the clinic sees, and what it sends")
# plt.show()

# %%
for server in servers:
    server.stdin.close()
    server.wait()
shutil.rmtree(site)
assert len(answered["predictions"]) == 4
assert answered["run"]["parties"] == 3
