"""The networks behind one number and what an image costs in each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from raysweep.experiment import Experiment
from raysweep.nets.gans import NetworkConfig
from raysweep.nets.pixel_mlps import pixel_widths
from raysweep.orchestration.planning.shapes import (
    Cost,
    Levels,
    annotator_cost,
    generator_cost,
    generator_levels,
    pixel_mlp_cost,
    projector_cost,
    segmentor_cost,
    size_of,
    student_cost,
    trunk_cost,
    trunk_levels,
)
from raysweep.represent.config import RepresentConfig
from raysweep.represent.gan_weights import imported_config

CLASSES = 12
"""Of which the estimate is made: their number hardly matters to the time."""


@dataclass(frozen=True)
class Networks:
    """What one image costs in each network of an experiment; nothing in one that it lacks.

    Attributes:
        classes: number of classes that was assumed.
        levels: the maps that the annotator stands on.
        features: of the representation.
        generator: of the representation.
        annotator: projector, ensemble or pyramid.
        segmentor: of gradient matching.
        student: if one is distilled.
        scored: of what an evaluation scores, the representation included.
        pixel_widths: hidden channels of an ensemble's member.
    """

    classes: int
    levels: Levels
    features: Cost
    generator: Cost
    annotator: Cost
    segmentor: Cost
    student: Cost
    scored: Cost
    pixel_widths: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Channels of all maps together."""
        return sum(channels for channels, _ in self.levels)

    @property
    def map_numbers(self) -> int:
        """Numbers of all maps of one image."""
        return size_of(self.levels)


def networks_of(experiment: Experiment, classes: int = CLASSES) -> Networks:
    """Return the networks of an experiment."""
    fit, represent = experiment.fit, experiment.pretrain
    features, generator = Cost(), Cost()
    levels: Levels = ((3, fit.resolution),)
    if represent.generative:
        sizes = network_of(represent)
        features = generator = generator_cost(sizes)
        levels = generator_levels(sizes, fit.layers)
    elif represent.method != "rgb":
        features = trunk_cost(represent.trunk, fit.resolution, 1)
        levels = trunk_levels(represent.trunk, fit.resolution)
    widths = fit.pixel.widths or pixel_widths(classes)
    segmentor = Cost()
    if fit.method == "matching":
        matching = fit.matching
        levels = levels[::2]  # one map per resolution
        annotator = annotator_cost(matching.annotator, levels, classes)
        segmentor = segmentor_cost(matching.segmentor, matching.resolution or levels[0][1], classes)
    elif fit.method == "pixel_ensemble":
        annotator = _times(
            pixel_mlp_cost(widths, levels, fit.resolution, classes), fit.pixel.members
        )
    else:
        annotator = projector_cost(fit.projector, levels, fit.resolution, classes)
    student = student_cost(experiment.student, classes) if experiment.distilled else Cost()
    scored = replace(annotator, gflop=features.gflop + annotator.gflop)
    if fit.method == "matching" and not experiment.evaluate.annotator:
        scored = segmentor
    if experiment.distilled:
        scored = student
    return Networks(
        classes, levels, features, generator, annotator, segmentor, student, scored, widths
    )


def network_of(represent: RepresentConfig) -> NetworkConfig:
    """Return the sizes of the generator of a generative representation."""
    if represent.method == "generator":
        return imported_config(str(represent.weights))
    return represent.network


def _times(cost: Cost, members: int) -> Cost:
    """Return the cost of so many members one after the other; their scores lie side by side."""
    return replace(cost, gflop=cost.gflop * members, kept=cost.kept * members)
