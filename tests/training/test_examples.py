"""The examples of training run as scripts, small, and what they write is what they say."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mlxtend", "matplotlib", "tqdm")),
    reason='needs what the examples need: pip install -e ".[examples]"',
)


def run(name: str, out: Path, *arguments: str) -> tuple[str, Any]:
    """What an example prints, and what is in its results."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--out", str(out), "--epochs", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / f"{name}.png").stat().st_size > 10_000
    return done.stdout, json.loads((out / f"{name}.json").read_text())


def test_gradual(tmp_path: Path) -> None:
    printed, results = run("gradual", tmp_path, "--seeds", "1")
    assert list(results["accuracy"]) == ["at once", "linear", "cubic", "one-cycle"]
    for values in results["accuracy"].values():
        assert all(f"{value:.1%}" in printed for value in values)


def test_rigl(tmp_path: Path) -> None:
    printed, results = run("rigl", tmp_path, "--seeds", "1")
    assert list(results["accuracy"]) == ["static", "SET", "RigL"]
    assert all(f"{by['0.95'][0]:.1%}" in printed for by in results["accuracy"].values())


def test_lottery_goes_on_from_its_rounds(tmp_path: Path) -> None:
    printed, results = run("lottery", tmp_path, "--seeds", "1", "--rounds", "3")
    assert list(results["ticket"]) == ["100.0", "80.04", "64.06", "51.28"]
    assert list(results["re-initialised"]) == list(results["random masks"]) == ["51.28"]
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again, same = run("lottery", tmp_path, "--seeds", "1", "--rounds", "3")
    assert (again, same) == (printed, results)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_ensemble(tmp_path: Path) -> None:
    printed, results = run("ensemble", tmp_path, "--members", "2")
    assert results["largest_difference"] < 1e-5
    assert len(results["alone"]) == 2
    assert f"{results['together'][-1]:.1%}" in printed
