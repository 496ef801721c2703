"""raysweep: which few-shot part-segmentation recipe works on your data?

An image travels through the folders in this order::

    data         built-in renderer, image folders, Parquet datasets, n-shot splits, augmentations
    represent    contrastive (MoCo v2, SimSiam) and generative (StyleGAN) training, imported
                 weights, untrained baselines
    features     what a frozen representation says of an image, by named activations
    fewshot      projectors and ensembles on a handful of labelled images; images found in a
                 generator, and annotators of its images learnt by gradient matching
    distill      pseudo-labels as Parquet shards, and the student that learns from them
    evaluate     dataset-level IoU, protocols, Frechet distance, tables beside the papers'

Below them are the networks they share (``nets``); above them ``experiment``, ``presets`` and
the one folder that knows Ray and MLflow (``orchestration``). Imports point down this list, never
up.
"""
