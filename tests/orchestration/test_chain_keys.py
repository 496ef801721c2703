"""Keys of stages that are stored out there: a chain without annotations has those it always had."""

from __future__ import annotations

import pytest

from raysweep.config import override
from raysweep.orchestration.compute.chain import chain_of
from raysweep.presets import demo, paper, smoke
from tests.orchestration.samples_cases import GENERATED, KEY

KEYS = {
    "smoke": (smoke, {}, "d09413b28a7314b8 24168cc6196d918a d64686e300b218e5"),
    "demo": (demo, {}, "0f5ee3c9d5c2aeed b021d269171e8000 39450a65c303bbe1"),
    "paper": (paper, {}, "3c2fbc324cfdad7d 0edfc8aee355e242 945217006d89f4c5"),
    "rgb": (
        smoke,
        {"pretrain.method": "rgb"},
        "57e7944174500548 f8ac47937e97aaa1 7057b7573e8efa7f",
    ),
    "generative": (
        smoke,
        {"pretrain.method": "stylegan2"},
        "24fe24a962a9ec1d 4495d8cdc633ed3d 1922381cf834ad35 "
        "7a077dfdd093e13d f9a8c702dbe4d8a8 f5af24167a4123b0",
    ),
    "folds": (
        smoke,
        {"pretrain.method": "stylegan2", "evaluate.protocol": "five_folds"},
        "24fe24a962a9ec1d 4495d8cdc633ed3d 7a077dfdd093e13d f9a8c702dbe4d8a8 38c63ca2a00da198",
    ),
    "student": (
        smoke,
        {"distilled": True},
        "d09413b28a7314b8 24168cc6196d918a e68e577d09b61e07 1ac6361bef908ab5 a4c0eea14a888d8c",
    ),
    "generated": (
        smoke,
        {"pretrain.method": "stylegan2", **GENERATED},
        "24fe24a962a9ec1d 4495d8cdc633ed3d f9a8c702dbe4d8a8 "
        "a57ac1b43525c641 6130ca4b82a0220e 8969d518998f060d",
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_chains_without_annotations_keep_their_keys(name):
    preset, changes, keys = KEYS[name]
    chain = chain_of(override(preset(), changes), KEY)
    assert " ".join(stage.key for stage in chain) == keys
