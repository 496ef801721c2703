"""The papers' printed numbers, to be shown beside a sweep's and never compared one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from raysweep.evaluate.tables import Table, to_markdown


@dataclass(frozen=True)
class PaperTable:
    """One printed table.

    Attributes:
        id: short name, used in tracking tags.
        paper: title of the paper.
        where: table or section.
        metric: what the numbers are, and on which data.
        unit: ``fraction`` (0 to 1) or ``percent`` (0 to 100).
        varies: the swept axes.
        claim: what the paper concludes.
        claim_check: whether the printed numbers support the conclusion.
        row_axis: name of the axis that runs down.
        column_axis: name of the axis that runs across.
        rows: row labels; numbers are ascending.
        columns: column labels; numbers are ascending.
        values: ``values[i][j]`` belongs to row ``i`` and column ``j``; None is not printed.
    """

    id: str
    paper: str
    where: str
    metric: str
    unit: str
    varies: str
    claim: str
    claim_check: str
    row_axis: str
    column_axis: str
    rows: tuple[int | str, ...]
    columns: tuple[int | str, ...]
    values: tuple[tuple[float | None, ...], ...]


GANORCON_APPENDIX_E = PaperTable(
    id="ganorcon_appE",
    paper="GanOrCon: Are Generative Models Useful for Few-shot Segmentation?",
    where="Appendix E",
    metric="mIoU on Face34; MoCo pretrained on FFHQ, MLP projector, output upsampled to 512 px",
    unit="fraction",
    varies="MoCo resolution x segmentor resolution",
    claim="512 px throughout gains almost nothing over 256 px; MoCo at 96 px is always worse",
    claim_check=(
        "the first half holds; the second fails at segmentor 96 px, where MoCo at 96 px (0.4047) "
        "beats MoCo at 512 px (0.3984)"
    ),
    row_axis="segmentor",
    column_axis="moco",
    rows=(96, 256, 512),
    columns=(96, 256, 512),
    values=(
        (0.4047, 0.4081, 0.3984),
        (0.4687, 0.5022, 0.4876),
        (0.4389, 0.4958, 0.5023),
    ),
)

GANORCON_TABLE_2 = PaperTable(
    id="ganorcon_t2",
    paper="GanOrCon: Are Generative Models Useful for Few-shot Segmentation?",
    where="Table 2",
    metric="mIoU on Face34, 16 labelled images of 512 px; Face10 for ReGAN's projectors",
    unit="fraction",
    varies="pretraining x projector x direct or distilled",
    claim=(
        "GAN features evaluated directly by latent optimisation are far worse than after "
        "distillation; contrastive features need distillation little"
    ),
    claim_check=(
        "holds on Face34; distillation hurts MoCo + CONV there (0.5414 to 0.5406), and ReGAN on "
        "Face10 is better direct than distilled"
    ),
    row_axis="pretraining + projector",
    column_axis="evaluated",
    rows=("StyleGAN + MLP ensemble", "MoCo + MLP", "MoCo + CONV"),
    columns=("direct", "distilled"),
    values=((0.4301, 0.5365), (0.5162, 0.5341), (0.5414, 0.5406)),
)

GANORCON_TABLE_3 = PaperTable(
    id="ganorcon_t3",
    paper="GanOrCon: Are Generative Models Useful for Few-shot Segmentation?",
    where="Table 3",
    metric="mIoU on Face34, StyleGAN features and DatasetGAN's ensemble, latent optimisation",
    unit="fraction",
    varies="iterations of the latent optimisation",
    claim="it saturates near 10,000 iterations, far below the distilled 0.5365",
    claim_check="supported; table 2 prints 0.4301 for the value of 10,000",
    row_axis="features",
    column_axis="iterations",
    rows=("StyleGAN + MLP ensemble",),
    columns=(1000, 5000, 10_000, 20_000),
    values=((0.4178, 0.4270, 0.4302, 0.4283),),
)

PAPER_TABLES = {
    table.id: table for table in (GANORCON_APPENDIX_E, GANORCON_TABLE_2, GANORCON_TABLE_3)
}


def transpose(paper: PaperTable) -> PaperTable:
    """Return the table with rows and columns exchanged."""
    return replace(
        paper,
        row_axis=paper.column_axis,
        column_axis=paper.row_axis,
        rows=paper.columns,
        columns=paper.rows,
        values=tuple(zip(*paper.values, strict=True)),
    )


def caveat(paper: PaperTable) -> str:
    """Return the sentences that must stand wherever the paper's numbers are shown."""
    return (
        f"The paper's numbers are {paper.metric}. They are on other data, at other resolutions "
        "and with other budgets: compare the trend along each axis, never number by number."
    )


def beside(table: Table, paper: PaperTable) -> str:
    """Return Markdown with our table and the paper's below it, the latter marked as not comparable.

    The paper's table is shown as it is stored; :func:`transpose` it first to line up the axes.
    """
    lines = [
        to_markdown(table),
        f"**For orientation: {paper.paper} {paper.where}**",
        "",
        caveat(paper),
        "",
        f"| {paper.row_axis} \\ {paper.column_axis} | {' | '.join(map(str, paper.columns))} |",
        "|---" + "|---:" * len(paper.columns) + "|",
    ]
    for row, values in zip(paper.rows, paper.values, strict=True):
        shown = ["-" if value is None else f"{value:.4f}" for value in values]
        lines.append(f"| {row} | {' | '.join(shown)} |")
    lines += ["", f"Claim: {paper.claim}.", f"Their numbers: {paper.claim_check}."]
    return "\n".join(lines) + "\n"


def paper_cell(paper: PaperTable, ranks: Mapping[str, int]) -> str | None:
    """Name the paper's cell that plays the part of one of ours.

    Resolutions are matched by rank, since ours are smaller: the lowest of a sweep stands for the
    lowest of the paper.

    Args:
        paper: the printed table.
        ranks: position of our cell on each of the paper's axes, 0 = lowest, e.g.
            ``{"moco": 0, "segmentor": 1}``.

    Returns:
        E.g. ``ganorcon_appE[segmentor=256, moco=96]``; None where the paper's axis is shorter.

    Raises:
        ValueError: ``ranks`` does not name exactly the paper's two axes.
    """
    axes = {paper.row_axis: paper.rows, paper.column_axis: paper.columns}
    if set(ranks) != set(axes):
        raise ValueError(f"ranks name {sorted(ranks)}; {paper.id} has the axes {sorted(axes)}")
    if any(not 0 <= ranks[axis] < len(values) for axis, values in axes.items()):
        return None
    place = ", ".join(f"{axis}={values[ranks[axis]]}" for axis, values in axes.items())
    return f"{paper.id}[{place}]"
