"""What ``import funcprune`` costs beyond ``import torch``."""

import json
import sys
import time
from collections.abc import Iterator
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks.harness import Row, alone


def import_time(small: bool) -> Iterator[Row]:
    """Seconds of ``import funcprune`` after ``import torch``, in fresh processes, from bytecode as pip leaves it."""
    with TemporaryDirectory() as cache:
        bytecode = {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        found = [alone(__name__, environment=bytecode) for _ in range(2 if small else 12)][1:]  # the first writes it
    ours, torch = (median(run[name] for run in found) for name in ("funcprune", "torch"))
    yield Row("import funcprune, after torch", ours, "import torch", torch, "< 50 ms", ours < 0.05)


def main() -> dict[str, float]:
    """Both imports, in this process."""
    start = time.perf_counter()
    import torch  # noqa: F401 - the import is what is measured

    middle = time.perf_counter()
    import funcprune  # noqa: F401

    return {"torch": middle - start, "funcprune": time.perf_counter() - middle}


if __name__ == "__main__":
    assert "torch" not in sys.modules
    print(json.dumps(main()))
