"""A store with a generator that was not trained, and samples of it."""

from __future__ import annotations

from jobs import generate as job
from raysweep.config import override
from raysweep.data.dataset import describe
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.presets import smoke
from raysweep.represent.gan import Gan
from raysweep.represent.generators import save_generator

GENERATIVE = override(
    smoke(),
    {"pretrain.method": "stylegan2", "pretrain.gan.kimg": 0.0, "data.shots": 2, "fit.steps": 10},
)
GENERATED = {"distilled": True, "label.source": "generated"}
KEY = "0" * 16


def stored_generator(folder):
    """A store whose stages a generator without training and one other representation are."""
    storage = Storage(str(folder))
    store, chain = StageStore(storage), chain_of(GENERATIVE, fingerprint())
    with store.claim(chain.pretrain) as workspace:
        generator = Gan(GENERATIVE.pretrain, device="cpu").average
        save_generator(generator, workspace.path / "generator.safetensors")
        workspace.commit({})
    with store.claim(chain_of(override(smoke(), {"pretrain.method": "rgb"}), KEY).pretrain) as rgb:
        rgb.commit({})
    return storage


def fingerprint():
    return describe("face", builtin=GENERATIVE.data.builtin).fingerprint


def generator_key():
    return chain_of(GENERATIVE, fingerprint()).pretrain.key


def directory_of(storage):
    return StageStore(storage).directory_of("pretrain", generator_key())


def make(storage, out, *flags, generator=None, count=20):
    name = generator or f"pretrain/{generator_key()}"
    arguments = ["--generator", name, "--count", str(count), "--out", str(out), *flags]
    return job.main([*arguments, "--storage", storage.uri])
