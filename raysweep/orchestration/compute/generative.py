"""The pretrain stage of a generator: training, sample grids, distances, snapshots."""

from __future__ import annotations

from pathlib import Path

import torch

from raysweep import collective
from raysweep.config import ConfigError
from raysweep.data.sampling import batch_indices
from raysweep.evaluate.distance import FrechetDistance
from raysweep.evaluate.images import mosaic
from raysweep.orchestration.compute.models import GENERATOR
from raysweep.orchestration.compute.worker import LOG_EVERY, Checkpoints, Curve, Report, run
from raysweep.orchestration.store.stages import Workspace
from raysweep.represent.config import RepresentConfig
from raysweep.represent.gan import Gan
from raysweep.represent.generators import sample, save_generator

FEWEST_IMAGES = 32
SHOWN = 64
MOST_REAL = 50_000  # as FID is usually taken
SAMPLE_SEED = 0


def learn_generator(
    config: RepresentConfig,
    images: torch.Tensor,
    workspace: Workspace,
    *,
    device: torch.device,
    report: Report,
    checkpoints: Checkpoints,
) -> Curve:
    """Train StyleGAN2 as one of ``collective.size()`` workers; return its curve.

    Rank 0 leaves ``generator.safetensors`` (the moving average), ``generator-<kimg>.safetensors``
    per snapshot and ``samples-<kimg>.png`` per tick.

    Args:
        config: settings of method ``stylegan2``.
        images: ``(count, 3, resolution, resolution)`` uint8.
        workspace: where files go.
        device: where the networks live.
        report: receives the progress.
        checkpoints: where state is kept.

    Raises:
        ConfigError: too few images, or no distance can be taken.
    """
    check_images(config, len(images))
    gan, learner = config.gan, Gan(config, device=device)
    ticks = Ticks(learner, images, workspace.path)

    def batch_at(step: int) -> dict[str, torch.Tensor]:
        count = len(images) * (2 if gan.mirror else 1)
        share = batch_indices(
            step,
            count=count,
            batch=gan.batch,
            seed=config.seed,
            rank=collective.rank(),
            workers=collective.size(),
        )
        chosen = images[share % len(images)]
        mirrored = (share >= len(images))[:, None, None, None]
        return {"image": torch.where(mirrored, chosen.flip(-1), chosen)}

    curve = run(
        learner,
        batch_at,
        name="pretrain",
        steps=gan.steps,
        checkpoints=checkpoints,
        report=report,
        after_step=ticks.keep_snapshot,
        measure=ticks.measure,
    )
    if collective.rank() == 0:
        save_generator(learner.average, workspace.path / GENERATOR)
    return curve


def check_images(config: RepresentConfig, count: int) -> None:
    """Check that there are enough images to train a generator on.

    Raises:
        ConfigError: there are fewer than a batch, or than 32.
    """
    fewest = max(FEWEST_IMAGES, config.gan.batch)
    if count < fewest:
        raise ConfigError(
            f"pretrain.method = {config.method!r}: {count} images are too few to train a generator "
            f"on; give {fewest} or more unlabelled ones, or use a contrastive method"
        )


def check_workers(config: RepresentConfig, workers: int) -> None:
    """Check that each worker gets as many images as any other, in whole groups.

    Raises:
        ConfigError: some batch cannot be shared like that.
    """
    gan = config.gan
    if gan.path_weight and gan.batch // gan.path_shrink % workers:
        raise ConfigError(
            f"--workers {workers}: must divide the path length batch, pretrain.gan.batch / "
            f"path_shrink = {gan.batch // gan.path_shrink}"
        )
    share, group = gan.batch // workers, config.network.mbstd_group
    if share % min(group, share):
        raise ConfigError(
            f"--workers {workers}: each worker's {share} images of pretrain.gan.batch are not a "
            f"multiple of pretrain.gan.network.mbstd_group = {group}"
        )


class Ticks:
    """What is recorded while a generator is trained; on rank 0 only.

    Args:
        learner: what is trained.
        images: those that it is trained on, ``(count, 3, resolution, resolution)`` uint8.
        folder: where files go.

    Raises:
        ConfigError: FID is asked for and its network cannot be had.
    """

    def __init__(self, learner: Gan, images: torch.Tensor, folder: Path) -> None:
        self.learner, self.folder = learner, folder
        self.distance: FrechetDistance | None = None
        if collective.rank() == 0 and learner.gan.steps:  # before hours of training
            self.distance = FrechetDistance(
                images[:MOST_REAL], inception=learner.gan.inception, device=learner.device
            )

    def keep_snapshot(self, done: int) -> None:
        """Keep a generator after some of the steps."""
        if done in self.learner.gan.snapshot_steps and collective.rank() == 0:
            name = f"generator-{self.learner.kimg:.3f}.safetensors"
            save_generator(self.learner.average, self.folder / name)

    def measure(self, done: int) -> dict[str, float]:
        """Return the distance at the first window's end in each tick; leave a sample grid."""
        gan = self.learner.gan
        tick = gan.tick_kimg * 1000 / gan.batch
        is_due = done // tick > (done - LOG_EVERY) // tick or done == gan.steps
        if self.distance is None or not is_due:
            return {}
        generator = self.learner.average
        shown = torch.cat(list(sample(generator, SHOWN, seed=SAMPLE_SEED))).cpu()
        picture = mosaic(shown.permute(0, 2, 3, 1).numpy())
        picture.save(self.folder / f"samples-{self.learner.kimg:.3f}.png")
        value = self.distance.to(sample(generator, gan.measured, seed=SAMPLE_SEED))
        return {self.distance.name: value}
