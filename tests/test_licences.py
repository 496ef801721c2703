import subprocess
import sys

import pytest

from raysweep.__main__ import main
from raysweep.data.published.kinds import PLANNERS
from raysweep.data.published.label_sets import (
    MERGE_SOURCES,
    PUBLISHED_MERGES,
    PUBLISHED_SETS,
)
from raysweep.licences import TERMS, UNKNOWN, notice


def test_every_published_kind_has_terms():
    assert set(PLANNERS) - {"folder", "images"} <= set(TERMS)


def test_the_command_lists_all_terms(capsys):
    assert main(["licences"]) == 0
    out = capsys.readouterr().out
    for terms in TERMS.values():
        for field in (terms.name, terms.licence, terms.place, terms.stated, terms.cite):
            assert field in out
    assert out.index("FFHQ") < out.index("MoCo v2")  # data before weights


def test_the_package_runs_as_a_command():
    command = [sys.executable, "-m", "raysweep", "licences"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "CelebAMask-HQ (data)" in done.stdout
    bad = subprocess.run(command[:-1], capture_output=True, text=True, check=False)
    assert bad.returncode == 2


@pytest.mark.parametrize("key", TERMS)
def test_what_no_source_states_is_unknown(key):
    terms = TERMS[key]
    if terms.licence == UNKNOWN:
        assert terms.non_commercial is None
    if terms.stated.startswith("none at hand"):
        assert terms.non_commercial is None


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("celebamask-hq", "not for commercial use"),
        ("ffhq", "CC BY-NC-SA 4.0"),
        ("cgpart", "licence unknown"),
    ],
)
def test_restrictions_are_said(key, words):
    assert words in (notice(key) or "")


@pytest.mark.parametrize("key", ["builtin", "images"])
def test_nothing_is_said_without_a_restriction(key):
    assert notice(key) is None


def test_published_merges_have_a_source_and_meet_their_sets():
    built_in = {"face17", "face12", "car16", "car8"}
    for name, rule in PUBLISHED_MERGES.items():
        assert rule.name == name
        assert PUBLISHED_SETS[rule.source.name] == rule.source
        assert PUBLISHED_SETS[rule.target.name] == rule.target
        if rule.source.name not in built_in:
            assert MERGE_SOURCES[name]
    assert set(MERGE_SOURCES) <= set(PUBLISHED_MERGES)
