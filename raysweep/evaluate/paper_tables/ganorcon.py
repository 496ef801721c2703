"""GanOrCon (CVPR 2022): contrastive or generative features."""

from __future__ import annotations

from raysweep.evaluate.papers import PaperTable

PAPER = "GanOrCon: Are Generative Models Useful for Few-shot Segmentation?"

GANORCON_APPENDIX_E = PaperTable(
    id="ganorcon_appE",
    paper=PAPER,
    where="Appendix E",
    metric="mIoU on Face34; MoCo pretrained on FFHQ, MLP projector, output upsampled to 512 px",
    unit="fraction",
    digits=4,
    varies="MoCo resolution x segmentor resolution",
    claim="512 px throughout gains almost nothing over 256 px; MoCo at 96 px is always worse",
    claim_check=(
        "supported in part: the first half holds; the second fails at segmentor 96 px, where MoCo "
        "at 96 px (0.4047) beats MoCo at 512 px (0.3984)"
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
    paper=PAPER,
    where="Table 2",
    metric="mIoU on Face34, 16 labelled images of 512 px; Face10 for ReGAN's projectors",
    unit="fraction",
    digits=4,
    varies="pretraining x projector x direct or distilled",
    claim=(
        "GAN features evaluated directly by latent optimisation are far worse than after "
        "distillation; contrastive features need distillation little"
    ),
    claim_check=(
        "supported in part: it holds on Face34, where distillation even hurts MoCo + CONV (0.5414 "
        "to 0.5406); ReGAN on Face10 is better direct (0.7624) than distilled (0.7505)"
    ),
    row_axis="pretraining + projector",
    column_axis="evaluated",
    rows=("StyleGAN + MLP ensemble", "MoCo + MLP", "MoCo + CONV"),
    columns=("direct", "distilled"),
    values=((0.4301, 0.5365), (0.5162, 0.5341), (0.5414, 0.5406)),
)

GANORCON_TABLE_3 = PaperTable(
    id="ganorcon_t3",
    paper=PAPER,
    where="Table 3",
    metric="mIoU on Face34, StyleGAN features and DatasetGAN's ensemble, latent optimisation",
    unit="fraction",
    digits=4,
    varies="iterations of the latent optimisation",
    claim="it saturates near 10,000 iterations, far below the distilled 0.5365",
    claim_check="supported; table 2 prints 0.4301 for the value of 10,000",
    row_axis="features",
    column_axis="iterations",
    rows=("StyleGAN + MLP ensemble",),
    columns=(1000, 5000, 10_000, 20_000),
    values=((0.4178, 0.4270, 0.4302, 0.4283),),
)
