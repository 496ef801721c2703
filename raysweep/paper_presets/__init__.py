"""The published settings, one module per paper: for GPUs and for the published data.

Numbers are those that a paper prints; what it leaves open is taken from its released code. Where
the two disagree, ``released=True`` gives the code's. Every function names its sources, and what
raysweep does not offer.

``data.source`` of these experiments names a data set in
:data:`raysweep.data.published.wanted.WANTED`: a job that is given no ``--data`` says what to
download, under which terms, and how to import it.
"""

from __future__ import annotations

from raysweep.experiment import Experiment
from raysweep.paper_presets.datasetgan import datasetgan
from raysweep.paper_presets.ganorcon import ganorcon
from raysweep.paper_presets.lagm import lagm, lagm_generator
from raysweep.paper_presets.regan import regan
from raysweep.paper_presets.stylegan import stylegan1, stylegan2_ada

__all__ = [
    "datasetgan",
    "ganorcon",
    "lagm",
    "lagm_generator",
    "paper",
    "regan",
    "stylegan1",
    "stylegan2_ada",
]


def paper() -> Experiment:
    """What ``--preset paper`` starts from: GanOrCon's MoCo v2 with an MLP projector on Face34.

    The paper reports seven days and ten hours on four 1080 Ti for its largest pretraining, 70,000
    images of 512 px. Expected on Face34, scored directly: 0.516 mIoU (table 2).
    """
    return ganorcon()
