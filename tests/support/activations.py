"""Activations and losses by PyTorch, and rows for which every activation has a result."""

from __future__ import annotations

import numpy as np

from batchmax.activations import ACTIVATIONS
from tests.support.requirements import optional

torch = optional("torch")

PAIRS = [(name, kind) for name, one in ACTIVATIONS.items() for kind in one.losses]


def torch_probs(x, z, activation):
    """Return probabilities by their definition, for autograd."""
    if activation == "softmax":
        return torch.softmax(x, -1)
    if activation == "sigmoid":
        return torch.sigmoid(x)
    if activation == "argmax":
        return torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).double()
    numerators = {"sum": z, "taylor": 1 + x + x * x / 2, "spherical": x * x}[activation]
    return numerators / numerators.sum(-1, keepdim=True)


def torch_loss(z, targets, activation, kind, temperature):
    x = z / temperature
    probs = torch_probs(x, z, activation)
    if kind in {"mse", "brier"}:
        return ((probs - targets) ** 2).sum(-1)
    if kind == "cross_entropy":
        logs = torch.log_softmax(x, -1) if activation == "softmax" else probs.log()
        return -(targets * logs).sum(-1)
    if kind == "binary_cross_entropy":
        return torch.nn.functional.binary_cross_entropy_with_logits(x, targets, reduction="none").sum(-1)
    labels = targets.argmax(-1)
    own = x.gather(-1, labels[:, None])[:, 0]
    others = x.masked_fill(targets.bool(), -torch.inf).max(-1).values if x.shape[-1] > 1 else own - 1
    margin = torch.relu(1 + others - own)
    return margin**2 if kind == "squared_hinge" else margin


def some_rows(k, activation, n=40):
    random = np.random.default_rng(k)
    z = random.normal(size=(n, k)) * 2
    return np.abs(z) + 0.1 if activation == "sum" else z
