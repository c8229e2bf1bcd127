# %% [markdown]
# # Your own network, encrypted
#
# A convolutional network of PyTorch with ReLU and max pooling, trained here in a few seconds to read handwritten
# digits, comes over as it is. Then it runs on shares: the parties see neither the digits nor the weights. At the end
# we compare each answer with that of the network it was made from.

# %%
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import tessera as ts

digits = load_digits()
images = (digits.images[:, None] / 16).astype(np.float32)  # (1797, 1, 8, 8) in [0, 1]
train, test = images[:1500], images[1500:1600]

# %% [markdown]
# ## Train it, as always

# %%
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(64, 10),
)
optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
x, target = torch.tensor(train), torch.tensor(digits.target[:1500])
for step in range(120):
    batch = slice(step * 50 % 1500, step * 50 % 1500 + 50)
    optimiser.zero_grad()
    nn.functional.cross_entropy(net(x[batch]), target[batch]).backward()
    optimiser.step()
net.eval()

# %% [markdown]
# ## Import it
#
# `from_torch` evaluates the network and what it has made of it on samples, layer by layer. It returns no model that
# differs from its source. Inputs are in [0, 1] here, which the model says of itself.

# %%
model = ts.from_torch(net, train[:200], interface=ts.Interface(ts.ArrayInput((1, 8, 8), 0, 1)))
print(model)

# %% [markdown]
# ## Run it on shares
#
# `LocalCluster` starts a dealer and two parties as processes of this machine, with encrypted connections.

# %%
with ts.LocalCluster(parties=2) as cluster, ts.Client(cluster) as client:
    remote = client.upload(model, name="digits")
    encrypted = client.predict(remote, test)
    print(client.last_run)

with torch.no_grad():
    plain = net(torch.tensor(test)).numpy()
agree = (encrypted.argmax(1) == plain.argmax(1)).sum()
difference = np.abs(encrypted - plain).max()
right = (encrypted.argmax(1) == digits.target[1500:1600]).mean()
print(f"{agree} of {len(test)} answers are the network's own, and {right:.0%} are right")
print(f"logits differ by {difference:.1e} at most")
assert agree == len(test)
assert difference < 0.01

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axes = plt.subplots(1, 8, figsize=(11, 1.8), layout="constrained")
# for axis, image, answer in zip(axes, test, encrypted.argmax(1)):
#     axis.imshow(image[0], cmap="gray_r")
#     axis.set_title(f"read as {answer}")
#     axis.axis("off")
# plt.show()
