"""Soft labels are quantised within a bound, packed without loss, and refused if damaged."""

import pytest
import torch

from raysweep import rng
from raysweep.distill.shards import decode_soft, encode_soft
from raysweep.distill.soft import pack_soft, quantise_soft, unpack_soft
from tests.reference import distill as reference


def draw(classes, *, batch=2, height=3, width=4, seed=0):
    generator = rng.generator(seed, "probabilities", classes)
    logits = 3 * torch.randn(batch, classes, height, width, generator=generator)
    return logits.double().softmax(1)


@pytest.mark.parametrize("classes", [1, 2, 5, 34])
@pytest.mark.parametrize("top", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (5, 2)])
def test_quantisation_is_the_largest_remainder(classes, top, size):
    exact = draw(classes, height=size[0], width=size[1])
    planes = quantise_soft(exact, top=top)
    assert planes.shape == (2, 2, min(top, classes), *size)
    assert (planes[:, 1].sum(1, dtype=torch.int64) == 255).all()
    for image, plane in zip(exact, planes, strict=True):
        for y in range(size[0]):
            for x in range(size[1]):
                expected = reference.quantised(image[:, y, x].tolist(), top)
                names, shares = plane[:, :, y, x].tolist()
                assert dict(zip(names, shares, strict=True)) == expected
                assert names == list(expected)


@pytest.mark.parametrize("classes", [1, 2, 5, 34])
@pytest.mark.parametrize("top", [1, 2, 4, 34])
def test_round_trip_stays_within_the_bound(classes, top):
    for exact in draw(classes, batch=3, height=7, width=6, seed=1):
        data = encode_soft(exact, top=top)
        back = decode_soft(data, num_classes=classes)
        assert back.shape == exact.shape
        torch.testing.assert_close(back.sum(0), torch.ones(7, 6))
        discarded = exact.sort(0, descending=True).values[top:].sum(0)
        assert ((back - exact).abs() <= 1 / 255 + discarded + 1e-6).all()
        best = exact.argmax(0, keepdim=True)
        assert torch.equal(unpack_soft(data)[0, :1].long(), best)
        assert torch.equal(back.gather(0, best), back.amax(0, keepdim=True))
        if top >= classes:
            assert ((back - exact).abs() < 1 / 255 + 1e-6).all()


def test_equal_probabilities_keep_the_order_of_classes():
    planes = quantise_soft(torch.full((1, 4, 1, 1), 0.25), top=4)[0, :, :, 0, 0]
    assert planes.tolist() == [[0, 1, 2, 3], [64, 64, 64, 63]]


def test_packing_is_lossless_and_small():
    planes = quantise_soft(draw(5, batch=1, height=64, width=64) * 0 + 0.2, top=2)[0]
    assert torch.equal(unpack_soft(pack_soft(planes)), planes)
    assert len(pack_soft(planes)) < planes.numel() / 20


@pytest.mark.parametrize(
    ("values", "top"),
    [
        (torch.randn(3, 2, 2), 2),  # logits
        (torch.full((3, 2, 2), 0.5), 2),
        (torch.full((3, 2, 2), float("nan")), 2),
        (torch.full((4, 2, 2), 0.25), 0),
        (torch.full((257, 1, 1), 1 / 257), 1),
    ],
)
def test_refuses_what_is_no_probability(values, top):
    with pytest.raises(ValueError, match=r"softmax\(logits, dim=1\)|at least 1 is kept"):
        encode_soft(values, top=top)


def test_refuses_damaged_soft_labels():
    good = encode_soft(draw(5)[0], top=3)
    wrong = pack_soft(torch.zeros(2, 3, 3, 4, dtype=torch.uint8))
    for data in (b"", good[:5], good[:-3], good[:12], good[:12] + b"x" * 30, b"\xff" * 40, wrong):
        with pytest.raises(ValueError, match="damaged soft labels"):
            unpack_soft(data)
    with pytest.raises(ValueError, match="known are 0 to 1"):
        decode_soft(encode_soft(torch.eye(3)[:, 2, None, None], top=1), num_classes=2)
