"""Trains net.py on the digits sample and saves its state_dict.

python samples/own_model/train.py WEIGHTS.pt
"""

import sys
from pathlib import Path

import numpy as np
import torch
from net import make
from torch.nn import functional as F

torch.manual_seed(0)
data = np.load(Path(__file__).parent.parent / "digits" / "train.npz")
x, y = torch.from_numpy(data["x"].reshape(-1, 1, 8, 8).astype(np.float32)), torch.from_numpy(data["y"].astype(np.int64))
model = make()
optimizer = torch.optim.Adam(model.parameters(), 2e-3)
for _ in range(15):
    for batch in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
model.eval()
print(f"{100 * float((model(x).argmax(1) == y).float().mean()):.2f} % of the training images")
torch.save(model.state_dict(), sys.argv[1])
