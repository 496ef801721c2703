"""Who may use what: published data sets and weights, their terms, and where they come from.

Terms that no source at hand states are given as unknown; they are for the user to find out.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

UNKNOWN = "unknown"


class Terms(NamedTuple):
    """The terms of a data set or of weights.

    Attributes:
        name: what users call it.
        kind: ``data`` or ``weights``.
        licence: short name, recorded in ``dataset.json`` or ``card.json``.
        non_commercial: whether commercial use is excluded; None if unknown.
        place: where to get it.
        stated: which document states the terms.
        cite: the publication to cite.
    """

    name: str
    kind: Literal["data", "weights"]
    licence: str
    non_commercial: bool | None
    place: str
    stated: str
    cite: str


TERMS: dict[str, Terms] = {
    "builtin": Terms(
        "face and car (rendered here)",
        "data",
        "Apache-2.0",
        False,
        "rendered by raysweep",
        "this project",
        "this project",
    ),
    "celebamask-hq": Terms(
        "CelebAMask-HQ",
        "data",
        "non-commercial research and education only; no redistribution",
        True,
        "github.com/switchablenorms/CelebAMask-HQ",
        "its README, Dataset Agreement",
        "Lee et al., MaskGAN, CVPR 2020",
    ),
    "datasetgan": Terms(
        "DatasetGAN annotations",
        "data",
        "CC BY-NC 4.0",
        True,
        "github.com/nv-tlabs/datasetGAN_release",
        "its README, License",
        "Zhang et al., DatasetGAN, CVPR 2021",
    ),
    "pascal-part": Terms(
        "PASCAL-Part on VOC 2010",
        "data",
        UNKNOWN,
        None,
        "roozbehm.info/pascal-parts (annotations), host.robots.ox.ac.uk/pascal/VOC (images)",
        "none at hand; the photographs are under Flickr's terms",
        "Chen et al., Detect What You Can, CVPR 2014",
    ),
    "cgpart": Terms(
        "CGPart",
        "data",
        UNKNOWN,
        None,
        "qliu24.github.io/cgpart",
        "none at hand; models are from ShapeNet, real images from PASCAL3D+",
        "Liu et al., CGPart, arXiv:2103.14098",
    ),
    "lsun": Terms(
        "LSUN",
        "data",
        UNKNOWN,
        None,
        "github.com/fyu/lsun",
        "none at hand",
        "Yu et al., LSUN, arXiv:1506.03365",
    ),
    "ffhq": Terms(
        "FFHQ",
        "data",
        "CC BY-NC-SA 4.0 (data set); each photograph has its own terms",
        True,
        "github.com/NVlabs/ffhq-dataset",
        "its README, Licenses",
        "Karras et al., StyleGAN, CVPR 2019",
    ),
    "stylegan": Terms(
        "StyleGAN checkpoints (NVIDIA)",
        "weights",
        "CC BY-NC 4.0",
        True,
        "github.com/NVlabs/stylegan",
        "DatasetGAN's README, License",
        "Karras et al., StyleGAN, CVPR 2019",
    ),
    "stylegan2": Terms(
        "StyleGAN2, -ADA, StyleGAN3 checkpoints (NVIDIA)",
        "weights",
        "NVIDIA Source Code License (non-commercial)",
        True,
        "github.com/NVlabs/stylegan2-ada-pytorch",
        "its LICENSE",
        "Karras et al., StyleGAN2-ADA, NeurIPS 2020",
    ),
    "stylegan2-pytorch": Terms(
        "checkpoints in rosinality's format",
        "weights",
        "those of the checkpoint that was converted",
        None,
        "github.com/rosinality/stylegan2-pytorch",
        "none at hand",
        "the checkpoint's own publication",
    ),
    "moco": Terms(
        "MoCo v2 on ImageNet",
        "weights",
        "CC BY-NC 4.0",
        True,
        "github.com/facebookresearch/moco",
        "its README, License",
        "Chen et al., MoCo v2, arXiv:2003.04297",
    ),
    "ganorcon": Terms(
        "GanOrCon checkpoints",
        "weights",
        "MIT (code); trained on CelebAMask-HQ, whose terms may reach further",
        None,
        "github.com/oindrilasaha/GANorCON",
        "its LICENSE",
        "Saha et al., GanOrCon, CVPR 2022",
    ),
    "torchvision": Terms(
        "ResNet on ImageNet (torchvision)",
        "weights",
        UNKNOWN,
        None,
        "pytorch.org/vision",
        "none at hand; the code is BSD-3-Clause",
        "He et al., ResNet, CVPR 2016",
    ),
}


def non_commercial(licence: str) -> bool | None:
    """Return whether a licence excludes commercial use, None if that is unknown.

    Args:
        licence: as ``dataset.json`` or ``card.json`` has it; other words than those of
            :data:`TERMS` count as a restriction only if they say so.
    """
    known = {terms.non_commercial for terms in TERMS.values() if terms.licence == licence}
    if len(known) == 1:
        return known.pop()
    if licence.strip().lower() in ("", UNKNOWN):
        return None
    return bool(re.search(r"non-?\s?commercial|\bnc\b", licence, re.IGNORECASE))


def citations(name: str) -> list[str]:
    """Return what to cite for a data set, going by its name (``celebamask-hq-face8``)."""
    return [terms.cite for key, terms in TERMS.items() if name.startswith(key)]


def notice(key: str) -> str | None:
    """Return the sentence to say once when ``key`` is imported; None if use is not restricted."""
    terms = TERMS.get(key)
    if terms is None or terms.non_commercial is False:
        return None
    if terms.non_commercial is None:
        return f"{terms.name}: licence unknown to raysweep; see {terms.place} before you use it"
    return f"{terms.name} is not for commercial use: {terms.licence}; cite {terms.cite}"


def listing() -> str:
    """Return all terms as text, data sets first."""
    use = {True: "no", False: "yes", None: UNKNOWN}
    blocks = [
        f"{terms.name} ({terms.kind})\n"
        f"    licence     {terms.licence}\n"
        f"    commercial  {use[terms.non_commercial]}\n"
        f"    stated in   {terms.stated}\n"
        f"    from        {terms.place}\n"
        f"    cite        {terms.cite}"
        for terms in sorted(TERMS.values(), key=lambda terms: terms.kind)
    ]
    return "\n\n".join(blocks)
