"""Dockerfile, as far as it can be checked without Docker: what it copies, and what it installs."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cluster.conftest import ROOT


def steps() -> list[tuple[str, str]]:
    """The instructions, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(re.split(r"\s+", line.strip(), maxsplit=1)) for line in lines]


def copied() -> list[str]:
    return [name for step, words in steps() if step == "COPY" for name in words.split()[:-1]]


def environment() -> dict[str, str]:
    return dict(
        pair.split("=") for step, words in steps() if step == "ENV" for pair in words.split()
    )


def test_what_is_copied_exists_and_is_let_in_and_nothing_else_is():
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert "*" in rules
    assert set(copied()) == let_in
    assert all((ROOT / name).exists() for name in let_in)


def test_every_package_that_is_shipped_is_copied():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    shipped = [name for name in packages for pattern in patterns if fnmatch.fnmatch(name, pattern)]
    assert shipped
    assert set(shipped) | {"jobs"} <= set(copied())


def test_versions_are_those_of_the_constraints():
    installs = re.findall(
        r"pip install[^&]*", (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    )
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in install for install in installs)


def test_extras_that_are_installed_exist():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (extras,) = re.findall(r"'\.\[(.*?)\]'", (ROOT / "Dockerfile").read_text())
    assert set(extras.split(",")) <= set(settings["project"]["optional-dependencies"])


def test_it_ends_as_a_user_whose_home_ray_finds():
    assert [words for step, words in steps() if step == "USER"][-1] == "ray"
    assert environment()["HOME"] == "/home/ray"
    assert environment()["RAY_AUTH_MODE"] == "token"


@pytest.mark.timeout(120)
def test_the_two_installations_leave_our_packages_whole(tmp_path):
    """The image installs dependencies before there is any code, and the code afterwards."""
    for name in ("pyproject.toml", "constraints.txt", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "README.md").touch()
    target = tmp_path / "site"
    assert install(tmp_path, target) == set()
    for name in ("raysweep", "search_spaces"):
        shutil.copytree(ROOT / name, tmp_path / name)
    found = install(tmp_path, target)
    wanted = [
        path for name in ("raysweep", "search_spaces") for path in (ROOT / name).rglob("*.py")
    ]
    assert {str(path.relative_to(ROOT)) for path in wanted} <= found
    assert "raysweep/evaluate/report.html.j2" in found


def install(place: Path, target: Path) -> set[str]:
    """Install what is in a folder, without its dependencies; return our files."""
    flags = ("--quiet", "--no-deps", "--no-build-isolation", "--upgrade", "--target", str(target))
    command = [sys.executable, "-m", "pip", "install", *flags, "."]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    return {name for name in files if not name.split("/")[0].endswith(".dist-info")}
