"""Frechet distance between two sets of features (FID, Heusel et al. 2017, 1706.08500)."""

from __future__ import annotations

import torch


class Moments:
    """Mean and covariance of features that arrive in parts; kept in float64 on the CPU.

    Args:
        dim: length of a feature vector.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.sum = torch.zeros(dim, dtype=torch.float64)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, features: torch.Tensor) -> None:
        """Add features ``(count, dim)``.

        Raises:
            ValueError: the shape differs, or a value is not finite.
        """
        if features.dim() != 2 or features.shape[1] != len(self.sum):
            raise ValueError(
                f"features have shape {tuple(features.shape)}: expected (count, {len(self.sum)})"
            )
        values = features.detach().to("cpu", torch.float64)
        if not values.isfinite().all():
            raise ValueError("features hold NaN or infinity: the distance would be meaningless")
        self.count += len(values)
        self.sum += values.sum(0)
        self.outer += values.T @ values

    def mean(self) -> torch.Tensor:
        """Return the mean ``(dim,)`` float64.

        Raises:
            ValueError: nothing was seen.
        """
        if self.count < 1:
            raise ValueError("the mean needs at least one feature vector")
        return self.sum / self.count

    def covariance(self) -> torch.Tensor:
        """Return the unbiased covariance ``(dim, dim)`` float64, divided by ``count - 1``.

        Raises:
            ValueError: fewer than two feature vectors were seen.
        """
        if self.count < 2:
            raise ValueError(f"the covariance needs two feature vectors or more, saw {self.count}")
        mean = self.mean()
        return (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)


def frechet_distance(
    mean_a: torch.Tensor, cov_a: torch.Tensor, mean_b: torch.Tensor, cov_b: torch.Tensor
) -> float:
    """Return ``|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2))`` of two normal distributions.

    ``A B`` has the eigenvalues of the symmetric ``A^(1/2) B A^(1/2)``, so that its root's trace
    needs symmetric eigenvalues only. Negative ones are rounding and count as 0.

    Args:
        mean_a: ``(dim,)``.
        cov_a: ``(dim, dim)``, symmetric, without negative eigenvalues; may be singular.
        mean_b: as ``mean_a``.
        cov_b: as ``cov_a``.

    Raises:
        ValueError: shapes do not fit.
    """
    dim = len(mean_a)
    if mean_b.shape != (dim,) or cov_a.shape != (dim, dim) or cov_b.shape != (dim, dim):
        raise ValueError(
            f"means {tuple(mean_a.shape)}, {tuple(mean_b.shape)} and covariances "
            f"{tuple(cov_a.shape)}, {tuple(cov_b.shape)} do not belong together"
        )
    mean_a, cov_a, mean_b, cov_b = (x.double() for x in (mean_a, cov_a, mean_b, cov_b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ cov_b @ root
    overlap = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    shift = (mean_a - mean_b).square().sum()
    return float(shift + cov_a.trace() + cov_b.trace() - 2 * overlap)
