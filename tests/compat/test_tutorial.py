"""The tutorial runs, and both of its forms agree, whatever the weights."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "tutorial.py"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_forms_of_the_tutorial_agree(seed, capsys):
    runpy.run_path(str(EXAMPLE))["main"](["--seed", str(seed)])
    assert "both forms agree at every step" in capsys.readouterr().out
