import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from raysweep import rng
from raysweep.nets.fir import fir_kernel
from raysweep.nets.modulated import modulated_conv2d
from tests.reference import stylegan2 as reference

SIZES = [(1, 1, 1, 2), (2, 3, 2, 4), (3, 2, 5, 3)]
"""(batch, in, out, side) of small cases."""


def inputs(batch, wide, out, side, *, kernel=3, dtype=torch.float64):
    generator = rng.generator(0, "modulated")
    shapes = [(batch, wide, side, side + 1), (out, wide, kernel, kernel), (batch, wide)]
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def low_pass(up):
    return fir_kernel().double() if up else None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "up"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("method", ["scaled", "grouped"])
def test_is_the_reference(size, kernel, up, demodulate, method):
    x, weight, style = inputs(*size, kernel=kernel)
    ours = modulated_conv2d(
        x, weight, style, demodulate=demodulate, up=low_pass(up), gain=1.5, method=method
    )
    expected = [
        reference.modulated_conv(
            image.tolist(), weight.tolist(), s.tolist(), demodulate=demodulate, up=up, gain=1.5
        )
        for image, s in zip(x, style, strict=True)
    ]
    torch.testing.assert_close(ours, torch.tensor(expected).to(ours.dtype), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_methods_agree(up, demodulate, layout):
    x, weight, style = inputs(4, 16, 8, 8, dtype=torch.float32)
    x = x.contiguous(memory_format=layout)
    kernel = fir_kernel() if up else None
    ours, grouped = (
        modulated_conv2d(x, weight, style, demodulate=demodulate, up=kernel, method=method)
        for method in ("scaled", "grouped")
    )
    torch.testing.assert_close(ours, grouped, atol=1e-5 * float(grouped.abs().max()), rtol=0)


@pytest.mark.parametrize("up", [False, True])
def test_demodulation_removes_the_scale_of_weight_and_style(up):
    x, weight, style = inputs(2, 3, 4, 4)
    plain = modulated_conv2d(x, weight, style, up=low_pass(up))
    scaled = modulated_conv2d(x, 7 * weight, 3 * style, up=low_pass(up))
    torch.testing.assert_close(plain, scaled)


def test_demodulated_noise_has_unit_variance():
    x, weight, style = inputs(4, 32, 16, 32)
    out = modulated_conv2d(x, weight, style)[..., 1:-1, 1:-1]
    assert out.var().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("up", [False, True])
def test_half_precision_survives_large_weights_and_styles(up):
    x, weight, style = inputs(2, 8, 4, 6, dtype=torch.float32)
    kernel = fir_kernel() if up else None
    expected = modulated_conv2d(x, weight, style, up=kernel)
    ours = modulated_conv2d(x.half(), 1e4 * weight, 1e4 * style, up=kernel)
    assert ours.dtype == torch.float16
    torch.testing.assert_close(ours.float(), expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("method", ["scaled", "grouped"])
@pytest.mark.parametrize(("up", "demodulate"), [(False, True), (True, True), (False, False)])
def test_twice_differentiable(method, up, demodulate):
    tensors = [tensor.requires_grad_() for tensor in inputs(2, 2, 2, 2)]

    def convolution(x, weight, style):
        return modulated_conv2d(
            x, weight, style, demodulate=demodulate, up=low_pass(up), method=method
        )

    assert gradcheck(convolution, tensors)
    assert gradgradcheck(convolution, tensors)
