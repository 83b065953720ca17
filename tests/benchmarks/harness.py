"""Timing and memory, and the rows that benchmarks report."""

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

_SHORTEST = 0.005  # seconds that a timing takes at least


class Row(NamedTuple):
    """One comparison: seconds of both sides, what the ratio should be, peak extra memory in bytes an entry."""

    case: str
    ours: float
    reference: str
    theirs: float
    target: str
    met: bool | None
    ours_bytes: float | None = None
    their_bytes: float | None = None

    @property
    def faster(self) -> float:
        """How many times faster than the reference."""
        return self.theirs / self.ours


def at_least(times: float, case: str, ours: float, reference: str, theirs: float, **memory: Any) -> Row:
    """A row that should be ``times`` faster than the reference."""
    return Row(case, ours, reference, theirs, f">= {times:g}x faster", theirs / ours >= times, **memory)


def at_most(times: float, case: str, ours: float, reference: str, theirs: float, **memory: Any) -> Row:
    """A row that should take at most ``times`` as long as the reference."""
    return Row(case, ours, reference, theirs, f"<= {times:g}x the time", ours / theirs <= times, **memory)


def reported(case: str, ours: float, reference: str, theirs: float, **memory: Any) -> Row:
    """A row without a target."""
    return Row(case, ours, reference, theirs, "", None, **memory)


def timed(function: Callable[[], object], calls: int = 1) -> float:
    """Seconds of one call, of so many in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def medians(sides: Mapping[str, Callable[[], object]], runs: int, *, warmup: int = 2) -> dict[str, float]:
    """The median seconds of each side, timed in rounds of random order: drift, and what ran before, hit all alike.

    A short call is repeated until it takes some milliseconds, as ``timeit`` does it.
    """
    for _ in range(warmup):
        for function in sides.values():
            function()
    calls = {name: math.ceil(_SHORTEST / timed(function)) for name, function in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = random.Random(0)
    for _ in range(runs):
        for name in order.sample(list(sides), len(sides)):
            times[name].append(timed(sides[name], calls[name]))
    return {name: median(values) for name, values in times.items()}


def resident(field: str) -> int:
    """``VmRSS`` or its peak ``VmHWM`` of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def alone(module: str, /, *, environment: Mapping[str, str] | None = None, **arguments: Any) -> dict[str, float]:
    """The JSON that ``python -m module`` prints in a fresh process, handed its arguments as JSON."""
    command = [sys.executable, "-m", module, json.dumps(arguments)]
    variables = os.environ | dict(environment or {})
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=variables)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def apart(module: str, sides: Mapping[str, dict[str, Any]], rounds: int) -> dict[str, dict[str, float]]:
    """What `alone` gives for the arguments of each side, medians over fresh processes, which run in rounds."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, arguments in sides.items():
            found[side].append(alone(module, **arguments))
    return {side: {key: median(run[key] for run in runs) for key in runs[0]} for side, runs in found.items()}


def with_memory(make: Callable[[], Callable[[], object]], runs: int, warmup: int) -> dict[str, float]:
    """Median seconds of calling what ``make`` makes, and peak extra bytes of one call; results are dropped after."""
    function = make()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    first = timed(function)
    peak = resident("VmHWM") - before
    for _ in range(max(0, warmup - 1)):
        function()
    times = [timed(function) for _ in range(runs)]
    return {"seconds": median(times) if times else first, "bytes": max(0, peak)}


def table(rows: list[Row]) -> str:
    """A Markdown table of rows."""
    head = ["case", "funcprune", "reference", "", "ratio", "target", "met", "extra bytes an entry"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        ratio = f"{row.faster:.1f}x faster" if row.faster >= 1.2 else f"{row.ours / row.theirs:.2f}x the time"
        memory = [f"{value:.2f}" for value in (row.ours_bytes, row.their_bytes) if value is not None]
        met = {True: "yes", False: "NO", None: ""}[row.met]
        lines.append(
            [row.case, _time(row.ours), row.reference, _time(row.theirs), ratio, row.target, met, " / ".join(memory)]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
