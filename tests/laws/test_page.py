"""docs/verification.md: its tables are those of the code, and the example that it names runs."""

import runpy
from pathlib import Path

import pytest

from funcprune.testing.table import page_with_tables

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "verification.md"


def test_the_tables_are_up_to_date() -> None:
    text = PAGE.read_text()
    assert page_with_tables(text) == text, "run: python -m funcprune.testing.table docs/verification.md"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- traits -->"):
        page_with_tables("no tables here")


def test_the_example_finds_the_bug(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "verify_custom_method.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "breaks the law 'method_counts_are_exact'" in printed
    assert "tensor([[1., 1.]])" in printed
    assert "ByRank, amount=0.5): every law holds" in printed
