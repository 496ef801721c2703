"""What both StyleGANs have: a mean latent to truncate towards, and noise maps."""

from __future__ import annotations

import torch
from torch import nn

W_AVG_BETA = 0.995
"""Decay of the running mean of w."""


class LatentMapping(nn.Module):
    """Base of a mapping network, which keeps the mean of w."""

    w_avg: torch.Tensor

    def __init__(self, w_dim: int) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(w_dim))

    @torch.no_grad()
    def track(self, w: torch.Tensor) -> None:
        """Move ``w_avg`` towards the mean of ``w`` ``(batch of all workers, w_dim)``."""
        self.w_avg.lerp_(w.mean(0), 1 - W_AVG_BETA)

    def truncate(
        self, ws: torch.Tensor, *, psi: float = 1.0, cutoff: int | None = None
    ) -> torch.Tensor:
        """Pull rows towards ``w_avg`` (1812.04948 appendix B).

        Args:
            ws: ``(batch, num_ws, w_dim)``.
            psi: distance kept: 1 changes nothing, 0 gives the mean.
            cutoff: rows pulled, from the coarsest; None: all. DatasetGAN takes 8, for cats 7.
        """
        if psi == 1:
            return ws
        rows = ws.shape[1] if cutoff is None else cutoff
        pulled = self.w_avg + psi * (ws[:, :rows] - self.w_avg)
        return torch.cat([pulled, ws[:, rows:]], dim=1)


class NoisySynthesis(nn.Module):
    """Base of a synthesis network, which adds noise to its maps."""

    @property
    def noise_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Shape ``(1, side, side)`` of one sample's noise, for each layer in order."""
        raise NotImplementedError

    def draw_noise(
        self, batch: int, *, generator: torch.Generator, device: torch.device | str
    ) -> list[torch.Tensor]:
        """Draw standard normal noise ``(batch, 1, side, side)`` for each layer."""
        return [
            torch.randn(batch, *shape, generator=generator, device=generator.device).to(device)
            for shape in self.noise_shapes
        ]
