"""LAGM: tables and figures of the appendix."""

from __future__ import annotations

from raysweep.evaluate.paper_tables.lagm import PAPER
from raysweep.evaluate.papers import PaperTable

DATA = ("Cat-16", "Face-34", "Car-20")

LAGM_TABLE_C2 = PaperTable(
    id="lagm_c2_states",
    paper=PAPER,
    where="Section C.2",
    metric="mIoU of the annotator against steps",
    unit="percent",
    digits=2,
    varies="state of the segmentor",
    claim=(
        "a fixed segmentor is inferior, worse with random weights than pre-trained; random weights "
        "anew in every step do not work well; pre-training accelerates, a trunk from scratch slows"
    ),
    claim_check="cannot be checked: only curves are printed",
    row_axis="state",
    column_axis="steps",
    rows=(),
    columns=(),
    values=(),
)

LAGM_TABLE_C5 = PaperTable(
    id="lagm_c5",
    paper=PAPER,
    where="Table C.5",
    metric="mIoU, StyleGAN2",
    unit="percent",
    digits=2,
    varies="matching or an annotator fitted on codes found for the labelled images, x segmentor",
    claim="inversion is clearly worse in spite of good reconstructions",
    claim_check="supported",
    row_axis="method",
    column_axis="data",
    rows=("LAGM, DeepLabV3", "LAGM, U-Net", "Inversion, DeepLabV3", "Inversion, U-Net"),
    columns=DATA,
    values=(
        ((33.56, 0.17), (55.10, 0.39), (61.21, 2.07)),
        ((31.90, 0.75), (53.58, 0.45), (58.30, 2.64)),
        ((15.14, 0.27), (47.87, 0.86), (52.18, 2.31)),
        ((12.78, 0.42), (48.57, 0.38), (52.41, 1.69)),
    ),
)

LAGM_TABLE_C6 = PaperTable(
    id="lagm_c6",
    paper=PAPER,
    where="Table C.6",
    metric="mIoU, StyleGAN2",
    unit="percent",
    digits=2,
    varies="matching or pseudo-labels x segmentor",
    claim="pseudo-labels are clearly worse, by most on Car-20",
    claim_check="supported",
    row_axis="method",
    column_axis="data",
    rows=(
        "LAGM, DeepLabV3",
        "LAGM, U-Net",
        "Pseudo-labelling, DeepLabV3",
        "Pseudo-labelling, U-Net",
    ),
    columns=DATA,
    values=(
        ((33.56, 0.17), (55.10, 0.39), (61.21, 2.07)),
        ((31.90, 0.75), (53.58, 0.45), (58.30, 2.64)),
        ((20.21, 0.65), (42.15, 0.68), (12.37, 0.91)),
        ((16.72, 0.79), (43.26, 1.20), (13.48, 0.48)),
    ),
)

LAGM_TABLE_C7 = PaperTable(
    id="lagm_c7",
    paper=PAPER,
    where="Table C.7",
    metric="mIoU",
    unit="percent",
    digits=2,
    varies="matching or MAML x generator x segmentor",
    claim=(
        "matching beats MAML with one and with two steps and is more consistent; MAML with a U-Net "
        "is unstable"
    ),
    claim_check="supported; MAML has not been released, and two steps are without a U-Net",
    row_axis="method",
    column_axis="data",
    rows=(
        "LAGM, StyleGAN, DeepLabV3",
        "LAGM, StyleGAN, U-Net",
        "LAGM, StyleGAN2, DeepLabV3",
        "LAGM, StyleGAN2, U-Net",
        "MAML-1, StyleGAN, DeepLabV3",
        "MAML-1, StyleGAN, U-Net",
        "MAML-1, StyleGAN2, DeepLabV3",
        "MAML-1, StyleGAN2, U-Net",
        "MAML-2, StyleGAN, DeepLabV3",
        "MAML-2, StyleGAN2, DeepLabV3",
    ),
    columns=DATA,
    values=(
        ((33.89, 0.43), (52.58, 0.61), (63.55, 2.25)),
        ((32.64, 0.74), (53.69, 0.54), (60.45, 2.42)),
        ((33.56, 0.17), (55.10, 0.39), (61.21, 2.07)),
        ((31.90, 0.75), (53.58, 0.45), (58.30, 2.64)),
        ((32.49, 0.43), (35.24, 0.20), (54.74, 2.67)),
        ((16.70, 0.43), (23.21, 0.07), (29.26, 0.72)),
        ((30.30, 0.53), (33.82, 0.24), (54.42, 3.11)),
        ((22.78, 0.65), (32.64, 0.18), (26.59, 0.60)),
        ((32.98, 0.50), (39.73, 0.13), (58.22, 2.17)),
        ((29.66, 0.69), (39.04, 0.23), (56.47, 2.32)),
    ),
)

LAGM_TABLE_C8 = PaperTable(
    id="lagm_c8",
    paper=PAPER,
    where="Table C.8",
    metric="time of a step, that of all parameters being 1; U-Net",
    unit="percent",
    digits=2,
    varies="parameters whose gradients are matched",
    claim="matching layers near the output does more than matching layers near the input",
    claim_check="cannot be checked: of the copy at hand only the times can be read",
    row_axis="blocks",
    column_axis="measured",
    rows=("All (default)", "Up", "Down", "Input", "Output", "U1", "U2"),
    columns=("time", "mIoU"),
    values=(
        (1.00, None),
        (0.65, None),
        (0.73, None),
        (0.73, None),
        (0.34, None),
        (0.71, None),
        (0.63, None),
    ),
)

LAGM_TABLE_C9 = PaperTable(
    id="lagm_c9",
    paper=PAPER,
    where="Table C.9",
    metric="time of a step, the highest resolution's being 1, and mIoU",
    unit="percent",
    digits=2,
    varies="resolution of the segmentor's images, in pixels (labels not readable, but descending)",
    claim="a lower resolution is faster and less accurate",
    claim_check="supported",
    row_axis="resolution",
    column_axis="measured",
    rows=("default, probably 512", "second, probably 256", "third, probably 128"),
    columns=("time", "mIoU"),
    values=((1.00, (51.93, 0.28)), (0.45, (50.71, 0.39)), (0.37, (45.53, 0.31))),
)

LAGM_TABLE_C10 = PaperTable(
    id="lagm_c10",
    paper=PAPER,
    where="Table C.10",
    metric="Frechet distance of the generator's snapshot and foreground mIoU",
    unit="percent",
    digits=2,
    varies="dataset x snapshot of the generator, from early to late",
    claim="worse generators, of a larger distance, segment worse",
    claim_check="supported; monotone on both data sets",
    row_axis="data, snapshot",
    column_axis="measured",
    rows=(
        "CelebA, 1",
        "CelebA, 2",
        "CelebA, 3",
        "CelebA, 4",
        "Pascal-Aeroplane, 1",
        "Pascal-Aeroplane, 2",
        "Pascal-Aeroplane, 3",
        "Pascal-Aeroplane, 4",
    ),
    columns=("FID", "foreground mIoU"),
    values=(
        (10.21, 73.92),
        (6.80, 76.61),
        (5.12, 77.48),
        (4.29, 78.07),
        (11.74, 21.69),
        (7.78, 36.01),
        (6.25, 38.81),
        (5.04, 41.21),
    ),
)

LAGM_TABLE_C11 = PaperTable(
    id="lagm_c11",
    paper=PAPER,
    where="Table C.11",
    metric="foreground mIoU on CelebA",
    unit="percent",
    digits=2,
    varies="method, unlabelled images and labelled images",
    claim="more data does not help the method, and supervised learning wins at scale",
    claim_check="supported",
    row_axis="method, unlabelled, labelled",
    column_axis="measured",
    rows=(
        "supervised, none, 29,000",
        "LAGM, CelebA 29,000, 1,500",
        "LAGM, CelebA 29,000, 29,000",
        "LAGM, CelebA and FFHQ 99,000, 29,000",
    ),
    columns=("foreground mIoU",),
    values=((84.32,), (77.90,), (76.03,), (75.00,)),
)

LAGM_TABLE_C13 = PaperTable(
    id="lagm_c13",
    paper=PAPER,
    where="Table C.13",
    metric="mIoU on Car-20, StyleGAN",
    unit="percent",
    digits=2,
    varies="segmentor x labelled images",
    claim="more labelled images narrow the distance to DatasetGAN",
    claim_check="supported",
    row_axis="segmentor",
    column_axis="method, labelled images",
    rows=("DeepLabV3", "U-Net"),
    columns=("DatasetGAN, 16", "LAGM, 16", "LAGM, 25", "LAGM, 33"),
    values=(
        ((67.53, 2.58), (63.55, 2.25), (64.68, 2.53), (64.88, 2.52)),
        ((66.27, 2.75), (60.45, 2.42), (63.09, 3.49), (65.37, 2.78)),
    ),
)
