"""Names and shapes of foreign GAN checkpoints, translated to those of ``nets``.

Three layouts: NVIDIA's StyleGAN2-ADA (the names of ``nets.stylegan2``), rosinality's
stylegan2-pytorch, and the PyTorch port of StyleGAN that DatasetGAN and LAGM load (the names of
``nets.stylegan1``). Weights need no rescaling: all three store them with unit variance and scale at
run time. rosinality also scales in front of the demodulation, which cancels it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch

from raysweep.config import from_dict
from raysweep.nets.fir import fir_kernel
from raysweep.nets.stylegan1 import StyleGan1Config
from raysweep.nets.stylegan2 import StyleGan2Config

Tensors = dict[str, torch.Tensor]
Names = Iterator[tuple[str, str]]

PORT_EPS = 1e-5
"""Of the port's instance norm."""

FIR = "resample_filter"
"""Last part of the name of StyleGAN2's low-pass kernels, which are all the same."""


def stylegan2_config(
    generator: Tensors, *, mbstd_group: int = 4, half_blocks: int = 0
) -> StyleGan2Config:
    """Return the sizes of a generator in the official names, read off its tensors.

    Raises:
        ValueError: a tensor that tells is missing, or no channel rule gives these channels.
    """
    channels = {
        int(side): sum(tensor.shape[:1])
        for side, tensor in _matches(r"synthesis\.b(\d+)\.conv1\.weight", generator)
    }
    first = _tensor(generator, "mapping.fc0.weight")
    base, most = _channel_rule(channels, default=32768)
    sizes = {
        "resolution": max(channels),
        "z_dim": first.shape[1],
        "w_dim": first.shape[0],
        "mapping_layers": len(list(_matches(r"mapping\.fc(\d+)\.weight", generator))),
        "channel_base": base,
        "channel_max": most,
        "mbstd_group": mbstd_group,
        "half_blocks": half_blocks,
    }
    return from_dict(StyleGan2Config, sizes)


def stylegan1_config(generator: Tensors) -> StyleGan1Config:
    """Return the sizes of a generator of the port, read off its tensors.

    Raises:
        ValueError: a tensor that tells is missing, or no channel rule gives these channels.
    """
    channels = {
        int(side) // 2: sum(tensor.shape[:1])
        for side, tensor in _matches(
            r"g_synthesis\.blocks\.(\d+)x\d+\.epi2\.top_epi\.noise\.weight", generator
        )
    }
    first = _tensor(generator, "g_mapping.dense0.weight")
    base, most = _channel_rule(channels, default=8192)
    sizes = {
        "resolution": 2 * max(channels),
        "z_dim": first.shape[1],
        "w_dim": first.shape[0],
        "mapping_layers": len(list(_matches(r"g_mapping\.dense(\d+)\.weight", generator))),
        "channel_base": base,
        "channel_max": most,
        "instance_norm_eps": PORT_EPS,
        "blur": any(name.endswith("conv0_up.intermediate.kernel") for name in generator),
    }
    return from_dict(StyleGan1Config, sizes)


def from_rosinality(tensors: Tensors, *, network: str) -> Tensors:
    """Return a rosinality network in the official names; names it cannot place stay as they are.

    Args:
        tensors: state dict of ``g``, ``g_ema`` or ``d``.
        network: ``generator`` or ``discriminator``.

    Raises:
        ValueError: a low-pass kernel is missing or not [1, 3, 3, 1].
    """
    left, official = dict(tensors), {}
    names = _generator_names(left) if network == "generator" else _discriminator_names(left)
    for source, target in list(names):
        if source not in left and target:
            continue
        if source not in left:
            raise ValueError(f"the {network} lacks {source}")
        tensor = left.pop(source)
        if not target:
            _check_fir(source, tensor, gain=1 if network == "discriminator" else 4)
        else:
            # modulated weights carry an axis for the images of a batch
            official[target] = tensor[0] if tensor.ndim == 5 and len(tensor) == 1 else tensor
    return official | left


def with_fir(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> Tensors:
    """Add the low-pass kernels that ``expected`` names, as rosinality stores only those it uses."""
    kernels = {name: fir_kernel() for name in expected if name.endswith(FIR)}
    return kernels | tensors


def check_kernels(tensors: Tensors) -> None:
    """Refuse low-pass kernels other than those that ``nets`` computes with.

    Raises:
        ValueError: a kernel is not [1, 3, 3, 1] (StyleGAN2) or [1, 2, 1] (StyleGAN).
    """
    taps = torch.tensor([1.0, 2.0, 1.0])
    for name, tensor in tensors.items():
        if name.endswith(FIR):
            _check_fir(name, tensor, gain=1)
        elif name.endswith("intermediate.kernel"):
            _check_kernel(name, tensor, torch.outer(taps, taps) / 16)


def from_port(tensors: Tensors) -> Tensors:
    """Return the port's tensors with the prefixes of its two parts and its mean latent renamed.

    Raises:
        ValueError: the stored mean latents differ from layer to layer.
    """
    named = {}
    prefix = next((n.partition("g_synthesis.")[0] for n in tensors if "g_synthesis." in n), "")
    for name, tensor in tensors.items():
        name = name.removeprefix(prefix)
        if name.startswith("dense"):
            name = f"g_mapping.{name}"
        elif name.startswith(("blocks.", "torgb.")):
            name = f"g_synthesis.{name}"
        elif name == "truncation.avg_latent":
            name, tensor = "g_mapping.w_avg", _one_row(tensor)
        named[name] = tensor
    return named


def is_port(tensors: Mapping[str, object]) -> bool:
    """Return whether these are names of the port."""
    return any(name.endswith("blocks.4x4.const") for name in map(str, tensors))


def shaped_like(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors with axes of length 1 dropped or added where ``expected`` has them so."""

    def fit(name: str, tensor: torch.Tensor) -> torch.Tensor:
        shape = expected[name].shape if name in expected else tensor.shape
        same = [n for n in shape if n != 1] == [n for n in tensor.shape if n != 1]
        return tensor.reshape(shape) if same else tensor

    return {name: fit(name, tensor) for name, tensor in tensors.items()}


def _generator_names(tensors: Tensors) -> Names:
    """Pairs of rosinality's and the official name; the official one is empty for FIR kernels."""
    for i in range(len(list(_matches(r"style\.(\d+)\.weight", tensors)))):
        for kind in ("weight", "bias"):
            yield f"style.{i + 1}.{kind}", f"mapping.fc{i}.{kind}"
    yield "input.input", "synthesis.b4.const"
    layers = [("conv1", "synthesis.b4.conv1")]
    colours = [("to_rgb1", "synthesis.b4.torgb")]
    for i in range(len(list(_matches(r"to_rgbs\.(\d+)\.bias", tensors)))):
        block = f"synthesis.b{2 ** (i + 3)}"
        layers += [(f"convs.{2 * i}", f"{block}.conv0"), (f"convs.{2 * i + 1}", f"{block}.conv1")]
        colours.append((f"to_rgbs.{i}", f"{block}.torgb"))
        yield f"convs.{2 * i}.conv.blur.kernel", ""
        yield f"to_rgbs.{i}.upsample.kernel", ""
    for i, (source, target) in enumerate(layers):
        yield f"noises.noise_{i}", f"{target}.noise_const"
        yield f"{source}.noise.weight", f"{target}.noise_strength"
        yield f"{source}.activate.bias", f"{target}.bias"
    for source, target in colours:
        yield f"{source}.bias", f"{target}.bias"
    for source, target in layers + colours:
        yield f"{source}.conv.weight", f"{target}.weight"
        for kind in ("weight", "bias"):
            yield f"{source}.conv.modulation.{kind}", f"{target}.affine.{kind}"


def _discriminator_names(tensors: Tensors) -> Names:
    """Pairs of rosinality's and the official name; the official one is empty for FIR kernels."""
    blocks = len(list(_matches(r"convs\.(\d+)\.skip\.1\.weight", tensors)))
    top = f"b{2 ** (blocks + 2)}"
    yield "convs.0.0.weight", f"{top}.fromrgb.weight"
    yield "convs.0.1.bias", f"{top}.fromrgb.bias"
    for i in range(1, blocks + 1):
        target = f"b{2 ** (blocks + 3 - i)}"
        yield f"convs.{i}.conv1.0.weight", f"{target}.conv0.weight"
        yield f"convs.{i}.conv1.1.bias", f"{target}.conv0.bias"
        yield f"convs.{i}.conv2.0.kernel", ""
        yield f"convs.{i}.conv2.1.weight", f"{target}.conv1.weight"
        yield f"convs.{i}.conv2.2.bias", f"{target}.conv1.bias"
        yield f"convs.{i}.skip.0.kernel", ""
        yield f"convs.{i}.skip.1.weight", f"{target}.skip.weight"
    yield "final_conv.0.weight", "b4.conv.weight"
    yield "final_conv.1.bias", "b4.conv.bias"
    for kind in ("weight", "bias"):
        yield f"final_linear.0.{kind}", f"b4.fc.{kind}"
        yield f"final_linear.1.{kind}", f"b4.out.{kind}"


def _matches(pattern: str, tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors.items():
        found = re.fullmatch(pattern, name)
        if found:
            yield found[1], tensor


def _tensor(tensors: Tensors, name: str) -> torch.Tensor:
    if name not in tensors or tensors[name].ndim != 2:
        raise ValueError(f"lacks the matrix {name}, which tells the sizes of the generator")
    return tensors[name]


def _channel_rule(channels: dict[int, int], *, default: int) -> tuple[int, int]:
    """Return base and maximum with ``channels[r] = min(base // r, maximum)``."""
    if not channels or min(channels) < 1:
        raise ValueError("lacks the convolutions that tell the channels of the generator")
    top, most = max(channels), max(channels.values())
    for base in (default, channels[top] * top):
        if all(min(base // r, most) == count for r, count in channels.items()):
            return base, most
    raise ValueError(
        f"channels {dict(sorted(channels.items()))} do not follow min(base / resolution, maximum)"
    )


def _one_row(latent: torch.Tensor) -> torch.Tensor:
    if not latent.numel() or not latent.ndim:
        raise ValueError(f"truncation.avg_latent has shape {tuple(latent.shape)}")
    rows = latent.reshape(-1, latent.shape[-1])
    if not all(torch.equal(row, rows[0]) for row in rows):
        raise ValueError("truncation.avg_latent differs between layers; expected one mean latent")
    return rows[0]


def _check_fir(name: str, tensor: torch.Tensor, *, gain: int) -> None:
    _check_kernel(name, tensor, gain * fir_kernel())


def _check_kernel(name: str, tensor: torch.Tensor, expected: torch.Tensor) -> None:
    kernel = tensor.float().squeeze()
    if kernel.shape != expected.shape or not torch.allclose(kernel, expected, atol=1e-5):
        raise ValueError(
            f"{name} = {kernel.flatten().tolist()[:4]}...: another low-pass kernel than "
            f"{expected.flatten().tolist()[:4]}..., which this project computes with"
        )
