"""The shape of the code: who may import whom, and how long things may get."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("raysweep", "search_spaces", "jobs", "benchmarks")
LINES_PER_FUNCTION = 80
COLUMNS = 100


def sources(*folders):
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, f"no Python files under {folders}"
    return found


def functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


def test_import_contract():
    check = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_functions_are_short_enough_to_read():
    long = [
        f"{path.relative_to(ROOT)}: {name} has {lines} lines"
        for path in sources(*PACKAGES)
        for name, lines in functions(path)
        if lines > LINES_PER_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_lines_fit_the_page():
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources(*PACKAGES, "tests")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > COLUMNS
    ]
    assert not wide, "\n".join(wide)


def test_package_text_is_ascii():
    strange = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES)
        if not path.read_text(encoding="utf-8").isascii()
    ]
    assert not strange, "\n".join(strange)


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, "\n".join(silent)
