"""How far generated images are from real ones, as a Frechet distance of features.

The number called FID takes the features of one particular Inception network. Where its weights are
not at hand a small trunk with fixed random weights takes its place: good for following one
training, not comparable with any published number, and called by its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pickle import UnpicklingError

import torch

from raysweep.config import ConfigError
from raysweep.data.augment import normalise
from raysweep.evaluate.frechet import Moments, frechet_distance
from raysweep.nets.resnet import TrunkConfig
from raysweep.represent.untrained import untrained_trunk

Features = Callable[[torch.Tensor], torch.Tensor]
"""Images ``(batch, 3, height, width)`` uint8 to ``(batch, dim)``."""
BATCH = 64
SEED = 0


class FrechetDistance:
    """Distance to a fixed set of real images.

    Args:
        real: ``(count, 3, height, width)`` uint8.
        inception: file with the weights of the FID network, if there is one.
        device: where features are computed.

    Attributes:
        name: ``fid``, or ``frechet_random_trunk``.
    """

    def __init__(
        self, real: torch.Tensor, *, inception: str | None, device: torch.device | str
    ) -> None:
        self.device = torch.device(device)
        self.name = "frechet_random_trunk" if inception is None else "fid"
        self.features = (
            _random_trunk(real, self.device)
            if inception is None
            else _inception(inception, self.device)
        )
        self.real = self._moments(real.split(BATCH))

    def to(self, images: Iterable[torch.Tensor]) -> float:
        """Return the distance of generated images, given in batches of uint8."""
        found = self._moments(images)
        return frechet_distance(
            self.real.mean(), self.real.covariance(), found.mean(), found.covariance()
        )

    @torch.no_grad()
    def _moments(self, batches: Iterable[torch.Tensor]) -> Moments:
        moments: Moments | None = None
        for batch in batches:
            features = self.features(batch.to(self.device))
            moments = moments or Moments(features.shape[1])
            moments.update(features)
        if moments is None:
            raise ValueError("no images: the distance needs at least two")
        return moments


def _random_trunk(images: torch.Tensor, device: torch.device) -> Features:
    """Mean over pixels of all four stages of a thin trunk with calibrated random weights."""
    trunk = untrained_trunk(TrunkConfig(), images[:1024], seed=SEED, device=device)

    def features(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([stage.mean((2, 3)) for stage in trunk.stages(normalise(batch))], dim=1)

    return features


def _inception(path: str, device: torch.device) -> Features:
    """The 2048 pooled features of the FID network (extra ``fid``)."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise ConfigError(
            f"pretrain.gan.inception = {path!r}: needs torch-fidelity; pip install 'raysweep[fid]'"
        ) from None
    try:
        extractor = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=path
        ).to(device)
    except (OSError, EOFError, KeyError, RuntimeError, UnpicklingError) as error:
        raise ConfigError(
            f"pretrain.gan.inception = {path!r}: not the weights of the FID network ({error}); "
            "give weights-inception-2015-12-05-6726825d.pth of torch-fidelity"
        ) from None

    def features(batch: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = extractor(batch)[0]
        return found

    return features
