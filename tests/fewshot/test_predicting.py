"""Labels that a projector predicts, at the size asked for."""

import numpy as np
import pytest
import torch

from raysweep.data.augment import MEAN, STD, normalise
from raysweep.features.representation import RawColour
from raysweep.fewshot import inputs
from raysweep.fewshot.projector import PREDICT_BATCH, predict
from tests.fewshot.projector_cases import BASE, CLASSES, advance, learner_of, photos, thin_features
from tests.reference.projectors import enlarged
from tests.reference.resizing import antialiased


def fitted(config, features):
    learner = learner_of(config, representation=features)
    advance(learner, 3)
    return learner.projector.eval()


@pytest.mark.parametrize("out_px", [16, 1, 23, (11, 40), (40, 16)])
@pytest.mark.parametrize("size", [(16, 16), (20, 24), (9, 33)])
def test_predictions_have_the_size_asked_for(size, out_px):
    features = RawColour()
    labels = predict(
        features, fitted(BASE, features), photos(3, *size), resolution=16, out_px=out_px
    )
    expected = out_px if isinstance(out_px, tuple) else (out_px, out_px)
    assert labels.shape == (3, *expected)
    assert labels.dtype == torch.uint8
    assert labels.max() < CLASSES


def test_images_at_the_resolution_are_not_resized(monkeypatch):
    def refuse(*_):
        raise AssertionError("resized")

    features, images = RawColour(), photos(2, 16, 16)
    net = fitted(BASE, features)
    monkeypatch.setattr(inputs, "_squeeze", refuse)
    labels = predict(features, net, images, resolution=16, out_px=16)
    scores = net(features(normalise(images)), 16)
    assert torch.equal(labels, scores.argmax(1).byte())
    for other in (photos(1, 16, 17), photos(1, 17, 16)):
        with pytest.raises(AssertionError, match="resized"):
            predict(features, net, other, resolution=16, out_px=16)


@pytest.mark.parametrize(("size", "out_px"), [((20, 24), (20, 24)), ((10, 9), 7), ((33, 16), 16)])
@pytest.mark.parametrize("features", [RawColour(), thin_features()])
def test_prediction_equals_the_loops(features, size, out_px):
    net, images = fitted(BASE, features), photos(2, *size)
    found = predict(features, net, images, resolution=16, out_px=out_px)
    height, width = found.shape[1:]
    for image, labels in zip(images, found.tolist(), strict=True):
        small = np.rint(antialiased(image.permute(1, 2, 0).numpy(), 16)) / 255
        x = torch.tensor(((small - MEAN) / STD).transpose(2, 0, 1)[None], dtype=torch.float32)
        scores = [enlarged(plane.tolist(), height, width) for plane in net(features(x), 16)[0]]
        for y in range(height):
            for x_at in range(width):
                pixel = [plane[y][x_at] for plane in scores]
                assert pixel[labels[y][x_at]] == pytest.approx(max(pixel), abs=1e-4)


def test_more_images_than_a_batch_are_each_predicted_alone():
    features, images = RawColour(), photos(PREDICT_BATCH + 1, 16, 16)
    net = fitted(BASE, features)
    together = predict(features, net, images, resolution=16, out_px=8)
    alone = [predict(features, net, one[None], resolution=16, out_px=8) for one in images]
    assert torch.equal(together, torch.cat(alone))
