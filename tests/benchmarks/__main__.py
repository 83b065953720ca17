"""Runs the benchmarks: all, or those named."""

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

import optree
import torch

from tests.benchmarks import imports, selection, training
from tests.benchmarks.harness import Row, table

BENCHMARKS = {
    function.__name__: function
    for function in (
        selection.global_l1,
        selection.growth,
        selection.hard_inputs,
        selection.drop_in_global,
        selection.local,
        selection.lenet,
        training.step,
        training.projected,
        training.compiled,
        training.ensemble,
        imports.import_time,
    )
}
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def machine() -> str:
    """Where and with what this was measured."""
    return (
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, optree {optree.__version__}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run? The figures mean nothing")
    parser.add_argument("--json", type=Path, help="save the rows there")
    parser.add_argument("--page", type=Path, help="put the tables between the markers of this Markdown page")
    options = parser.parse_args()
    found: dict[str, list[Row]] = {}
    pages = [f"Measured {machine()}."]
    print(pages[0])
    for name in options.names or BENCHMARKS:
        function = BENCHMARKS[name]
        found[name] = list(function(options.small))
        pages.append(f"### {name}\n\n{function.__doc__}\n\n{table(found[name])}")
        print(f"\n{pages[-1]}", flush=True)
    if options.json:
        rows = {name: [row._asdict() for row in rows] for name, rows in found.items()}
        options.json.write_text(json.dumps({"machine": machine(), "benchmarks": rows}, indent=1))
    if options.page:
        before, rest = options.page.read_text().split(BEGIN)
        after = rest.split(END)[1]
        options.page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(pages) + f"\n\n{END}{after}")


if __name__ == "__main__":
    main()
