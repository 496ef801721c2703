"""What to download for the papers' settings, from where, and how to import it."""

from __future__ import annotations

from typing import NamedTuple

from raysweep.licences import TERMS

PUBLISHED = "published:"
"""Before the name of a data set in :data:`WANTED`: a ``data.source`` that is still to be got."""


class Wanted(NamedTuple):
    """A download that serves a paper's settings.

    Attributes:
        terms: key in :data:`TERMS`.
        download: the file or folder to get.
        flags: what the import is told besides kind, source and target.
        target: directory that the import makes.
        serves: what can be done with it.
    """

    terms: str
    download: str
    flags: str
    target: str
    serves: str

    @property
    def command(self) -> str:
        """The command that imports it."""
        words = ["python jobs/import_data.py", self.terms, self.download, self.target, self.flags]
        return " ".join(filter(None, words))


def _celebamask(merge: str) -> Wanted:
    return Wanted(
        "celebamask-hq",
        "CelebAMask-HQ.zip",
        f"--partition lagm --merge {merge}",
        "celeba/",
        "every job: 27,500 faces without labels, 1,500 + 500 + 500 with",
    )


def _datasetgan(category: str, counts: str) -> Wanted:
    serves = f"what takes no unlabelled images: {counts} labelled ones as in the papers, no other"
    return Wanted(
        "datasetgan", "annotation/", f"--category {category}", f"{category}_labelled/", serves
    )


_FFHQ = Wanted(
    "ffhq", "images1024x1024/", "", "ffhq/", "jobs/pretrain_*.py: 70,000 faces without labels"
)


def _lsun(category: str) -> Wanted:
    serves = f"jobs/pretrain_*.py: the 100,000 {category}s without labels that GanOrCon takes"
    return Wanted("lsun", f"{category}/", "", f"lsun_{category}/", serves)


def _pascal(category: str) -> Wanted:
    return Wanted(
        "pascal-part",
        "VOC2010/",
        f"--category {category}",
        f"{category}/",
        "labelled images in LAGM's crops",
    )


WANTED: dict[str, tuple[Wanted, ...]] = {
    "face34": (_celebamask("face8"), _FFHQ, _datasetgan("face", "16 + 20")),
    "car20": (_lsun("car"), _datasetgan("car", "16 (GanOrCon 33) + 10")),
    "cat16": (_lsun("cat"), _datasetgan("cat", "30 (GanOrCon 28) + 20")),
    "celebamask10": (_celebamask("celebamask10"), _FFHQ),
    "celeba": (_celebamask("face8_lagm"),),
    "pascal_horse": (_pascal("horse"),),
    "pascal_aeroplane": (_pascal("aeroplane"),),
    "cgpart": (Wanted("cgpart", "CGPart/", "--merge cgpart_car15", "cgpart15/", "labelled cars"),),
}
"""Data set of a paper's settings to what may be downloaded for it, the most useful first."""


def instructions(source: str) -> str | None:
    """Return how to get the data of a paper's settings; None if ``source`` is no such name."""
    wanted = WANTED.get(source.removeprefix(PUBLISHED)) if source.startswith(PUBLISHED) else None
    if wanted is None:
        return None
    lines = [
        f"data.source = {source!r}: the papers' data are not part of raysweep. Download what you "
        "need, import it, and give the directory with --data (or your own; face and car are "
        "built in):"
    ]
    for one in wanted:
        terms = TERMS[one.terms]
        lines += [
            f"\n  {terms.name}: {one.download} from {terms.place}",
            f"    terms   {terms.licence}",
            f"    import  {one.command}",
            f"    then    --data {one.target}   {one.serves}",
        ]
    return "\n".join(lines)
