"""The small networks on top of the trunk that exist only during contrastive pretraining."""

from __future__ import annotations

from torch import nn


def moco_head(inputs: int, *, hidden: int, dim: int, batch_norm: bool) -> nn.Sequential:
    """Return MoCo v2's head (2003.04297): Linear, ReLU, Linear; input ``(batch, inputs)``.

    Deviation on request: ``batch_norm`` puts one before the ReLU, which helps thin trunks.
    """
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=not batch_norm),
        *norm,
        nn.ReLU(inplace=True),
        nn.Linear(hidden, dim),
    )


def simsiam_projector(inputs: int, *, dim: int) -> nn.Sequential:
    """Return SimSiam's projector (2011.10566 section 4 and official code): three layers.

    The hidden layers keep the trunk's width. The last bias is frozen: the batch norm behind it,
    which has no scale and shift, takes it away again.
    """
    last = nn.Linear(inputs, dim)
    last.bias.requires_grad_(False)
    return nn.Sequential(
        nn.Linear(inputs, inputs, bias=False),
        nn.BatchNorm1d(inputs),
        nn.ReLU(inplace=True),
        nn.Linear(inputs, inputs, bias=False),
        nn.BatchNorm1d(inputs),
        nn.ReLU(inplace=True),
        last,
        nn.BatchNorm1d(dim, affine=False),
    )


def simsiam_predictor(dim: int, *, hidden: int) -> nn.Sequential:
    """Return SimSiam's predictor (2011.10566 section 4): a bottleneck ``dim -> hidden -> dim``."""
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, dim),
    )
