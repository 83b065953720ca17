"""What was pruned, as a value and as a table."""

from dataclasses import dataclass
from typing import NamedTuple

from funcprune import masks as algebra
from funcprune import trees
from funcprune.trees import Masks, Params

__all__ = ["Row", "Summary", "summary"]


class Row(NamedTuple):
    """One leaf, or a total: entries kept of how many. ``shape`` is None in totals."""

    path: str
    shape: tuple[int, ...] | None
    kept: int
    total: int

    @property
    def sparsity(self) -> float:
        """The pruned fraction; 0.0 of nothing."""
        return (self.total - self.kept) / self.total if self.total else 0.0


@dataclass(frozen=True)
class Summary:
    """The rows of `summary`: one a leaf, in natural order of the paths; ``str`` is an aligned table.

    ``pruned`` totals the leaves that have a mask, ``all`` every leaf.
    """

    rows: tuple[Row, ...]
    pruned: Row
    all: Row

    def __str__(self) -> str:
        head = ("path", "shape", "kept", "total", "sparsity")
        lines = [head, *map(_cells, self.rows), _cells(self.pruned), _cells(self.all)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(_justify(cells, widths)).rstrip() for cells in lines]
        rule = "-" * max(map(len, text))
        return "\n".join([text[0], rule, *text[1:-2], rule, *text[-2:]])


def summary(params: Params, masks: Masks, /) -> Summary:
    """How much of each leaf is kept, with totals. Raises as `masks.check`.

    >>> print(fp.summary({"w": torch.zeros(2, 2), "b": torch.zeros(2)}, {"w": torch.eye(2).bool(), "b": None}))
    path           shape   kept  total  sparsity
    --------------------------------------------
    b              (2,)       2      2     0.00%
    w              (2, 2)     2      4    50.00%
    --------------------------------------------
    pruned leaves             2      4    50.00%
    all leaves                4      6    33.33%
    """
    named = trees.named(params)
    leaves, spec = trees.flatten(masks)
    counts = algebra.counts(params, masks)
    rows = tuple(Row(path, tuple(named[path].shape), *counts[path]) for path in counts)
    with_mask = {path for path, leaf in zip(trees.spec_paths(spec), leaves, strict=True) if leaf is not None}
    return Summary(
        rows, _total("pruned leaves", [row for row in rows if row.path in with_mask]), _total("all leaves", rows)
    )


def _total(name: str, rows: "tuple[Row, ...] | list[Row]") -> Row:
    return Row(name, None, sum(row.kept for row in rows), sum(row.total for row in rows))


def _cells(row: Row) -> tuple[str, ...]:
    shape = "" if row.shape is None else str(row.shape)
    return row.path, shape, f"{row.kept:,}", f"{row.total:,}", f"{row.sparsity:.2%}"


def _justify(cells: tuple[str, ...], widths: list[int]) -> list[str]:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths, strict=False)]
    return left + [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
