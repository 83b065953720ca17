"""The rooms of docs/design.md: what imports what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import funcprune

PACKAGE = Path(funcprune.__file__).parent
ROOMS = [
    "trees",
    "selectors",
    "masks",
    "compiling",
    "masking",
    "ranking",
    "allocation",
    "structures",
    "criteria",
    "schedules",
    "pruners",
    "report",
    "calibration",
    "training",
    "compat",
    "testing",
]
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imported_rooms(path: Path) -> set[str]:
    """The rooms of the package that a file imports, inside functions too."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "funcprune":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("funcprune."):
            rooms.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("funcprune.")}
    return rooms


def imported_packages(path: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            packages.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
    return packages


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_rooms_above_its_own(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    assert imported_rooms(path) <= allowed
    if room == "compat":
        assert "training" not in imported_rooms(path)


def test_optree_is_imported_in_one_file() -> None:
    assert [path.name for path in FILES if "optree" in imported_packages(path)] == ["trees.py"]


def loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_only_what_it_runs_on() -> None:
    found = loaded("import funcprune") - loaded("import torch, optree") - sys.stdlib_module_names
    assert found == {"funcprune"}


def test_every_public_name_exists_and_is_documented() -> None:
    for name in funcprune.__all__:
        assert getattr(funcprune, name).__doc__, name
