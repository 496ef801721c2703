"""raysweep: which few-shot part-segmentation recipe works on your data?

An image travels through the folders in this order::

    data         built-in renderer, image folders, Parquet datasets, n-shot splits, augmentations
    represent    contrastive pretraining (MoCo v2, SimSiam), imported weights, untrained baselines
    features     hypercolumns of a frozen representation, never materialised
    fewshot      fit a projector on a handful of labelled images
    evaluate     dataset-level IoU, protocols, tables beside the papers'

Below them are the networks they share (``nets``); above them ``presets`` and the one folder that
knows Ray and MLflow (``orchestration``). Imports point down this list, never up.
"""
