"""The laws as a table, written from the code into a page.

``python -m funcprune.testing.table docs/verification.md`` brings the page up to date.
"""

import sys
from pathlib import Path

from funcprune.testing import laws, traits

__all__ = ["law_table", "page_with_tables", "trait_table"]


def law_table() -> str:
    """A Markdown table of every law, group by group: what it judges, its sentence, the traits it needs.

    >>> print(law_table().splitlines()[2])
    | `commutative` | algebra | intersect and union do not depend on the order of the masks. |  |
    """
    head = ["| law | judges | statement | needs |", "|---|---|---|---|"]
    rows = [
        f"| `{law.name}` | {law.of} | {_cell(law.statement)} | {', '.join(sorted(law.needs))} |" for law in laws.ALL
    ]
    return "\n".join(head + rows)


def trait_table() -> str:
    """A Markdown table of every trait.

    >>> print(trait_table().splitlines()[3])
    | `nested` | works on nested trees as on flat dicts |
    """
    rows = [f"| `{name}` | {promise} |" for name, promise in traits.TRAITS.items()]
    return "\n".join(["| trait | what it promises |", "|---|---|", *rows])


def page_with_tables(text: str, /) -> str:
    r"""A page with the tables between ``<!-- laws -->`` and ``<!-- end -->``, and the traits likewise, made anew.

    Raises ValueError where the page lacks a marker.

    >>> page_with_tables("<!-- traits -->\n<!-- end -->\n<!-- laws -->\n<!-- end -->").count("| `nested` |")
    1
    """
    for name, table in (("traits", trait_table()), ("laws", law_table())):
        start, end = f"<!-- {name} -->", "<!-- end -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"the page has no {start} followed by {end}")
        text = f"{before}{start}\n{table}\n{end}{after}"
    return text


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(page_with_tables(page.read_text()))
