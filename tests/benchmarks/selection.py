"""Choosing what to prune: global and local, unstructured and structured, ordinary and adversarial inputs."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as incumbent

import funcprune as fp
from tests.benchmarks.harness import Row, alone, apart, at_least, at_most, medians, reported, with_memory
from tests.benchmarks.nets import LeNet

AMOUNT = 0.8


def inputs(kind: str, size: int) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Eight tensors of ``size`` entries in all, and masks."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = 1000, size // 8000
    params, masks = {}, None
    for index in range(8):
        weight = torch.randn(rows, columns, generator=generator)
        if kind == "all equal":
            weight = torch.ones_like(weight)
        elif kind == "two values":
            weight = (weight > 0).float()
        elif kind == "sorted":
            weight = weight.flatten().sort().values.view(rows, columns)
        elif kind == "bfloat16":
            weight = weight.bfloat16()
        params[f"{index}.weight"] = weight
    if kind == "99 % pruned":
        masks = {path: torch.rand(rows, columns, generator=generator) < 0.01 for path in params}
    return params, masks


def ours(kind: str, size: int) -> Callable[[], object]:
    """The whole call of funcprune, masks out."""
    params, masks = inputs(kind, size)
    pruner = fp.l1_unstructured(AMOUNT, scope="global")
    return lambda: pruner(params, masks)


def theirs(kind: str, size: int) -> Callable[[], object]:
    """The whole call of torch.nn.utils.prune, on fresh modules."""
    params, _ = inputs(kind, size)
    return lambda: incumbent.global_unstructured(modules(params), incumbent.L1Unstructured, amount=AMOUNT)


def drop_in(kind: str, size: int) -> Callable[[], object]:
    """The whole call of the drop-in, on fresh modules."""
    from funcprune.compat import prune

    params, _ = inputs(kind, size)
    return lambda: prune.global_unstructured(modules(params), prune.L1Unstructured, amount=AMOUNT)


def limit(kind: str, size: int) -> Callable[[], object]:
    """One bare pass over all tensors."""
    params, _ = inputs(kind, size)
    return lambda: [weight.abs() > 1.28 for weight in params.values()]


def modules(params: dict[str, Tensor]) -> list[tuple[nn.Module, str]]:
    """Fresh modules that hold the params, as pairs for the incumbent."""
    pairs = []
    for weight in params.values():
        module = nn.Module()
        module.weight = nn.Parameter(weight)
        pairs.append((module, "weight"))
    return pairs


SIDES = {"ours": ours, "theirs": theirs, "drop_in": drop_in, "limit": limit}


def global_l1(small: bool) -> Iterator[Row]:
    """Global L1 at 80 %, 8 float32 tensors."""
    for size, times, runs, rounds in ((10**5, 40, 3, 1),) if small else ((10**7, 40, 7, 5), (10**8, 15, 3, 1)):
        sides = {"ours": runs, "theirs": 1, "limit": runs}
        found = apart(
            __name__,
            {side: {"side": side, "kind": "normal", "size": size, "runs": n} for side, n in sides.items()},
            rounds,
        )
        memory = {f"{key}_bytes": found[side]["bytes"] / size for key, side in (("ours", "ours"), ("their", "theirs"))}
        seconds = {side: values["seconds"] for side, values in found.items()}
        name = f"global L1, {size:.0e} float32"
        yield at_least(times, name, seconds["ours"], "torch.nn.utils.prune", seconds["theirs"], **memory)
        yield at_most(5, name, seconds["ours"], "abs(p) > t", seconds["limit"])


def growth(small: bool) -> Iterator[Row]:
    """How the cost of global L1 grows with the number of entries, beside one bare pass over them."""
    for size in (10**4, 10**5) if small else (10**4, 10**5, 10**6, 10**7, 10**8):
        found = {side: alone(__name__, side=side, kind="normal", size=size, runs=5) for side in ("ours", "limit")}
        memory = found["ours"]["bytes"] / size if size >= 10**6 else None
        seconds = [found[side]["seconds"] for side in ("ours", "limit")]
        yield reported(f"global L1, {size:.0e} float32", seconds[0], "abs(p) > t", seconds[1], ours_bytes=memory)


def hard_inputs(small: bool) -> Iterator[Row]:
    """The same on bfloat16 and adversarial inputs, against normally distributed float32."""
    size, runs = (10**5, 3) if small else (10**8, 3)
    normal = alone(__name__, side="ours", kind="normal", size=size, runs=runs)["seconds"]
    for kind in ("bfloat16", "all equal", "two values", "sorted", "99 % pruned"):
        found = alone(__name__, side="ours", kind=kind, size=size, runs=runs)
        case = f"global L1, {size:.0e} {kind}"
        yield at_most(3, case, found["seconds"], "normal float32", normal, ours_bytes=found["bytes"] / size)


def drop_in_global(small: bool) -> Iterator[Row]:
    """The drop-in's global_unstructured against the incumbent's."""
    size = 10**5 if small else 10**7
    found = {side: alone(__name__, side=side, kind="normal", size=size, runs=3) for side in ("drop_in", "theirs")}
    seconds = [found[side]["seconds"] for side in ("drop_in", "theirs")]
    yield at_least(10, f"drop-in global_unstructured, {size:.0e}", seconds[0], "torch.nn.utils.prune", seconds[1])


def local(small: bool) -> Iterator[Row]:
    """One square matrix, 80 %: L1, random, Ln and random structured, against ``compute_mask``."""
    side, runs = (64, 3) if small else (4096, 5)
    weight = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    params, ones = {"weight": weight}, torch.ones_like(weight)
    cases: list[tuple[str, float, Any, Any]] = [
        ("L1", 20, fp.l1_unstructured(AMOUNT), incumbent.L1Unstructured(AMOUNT)),
        ("random", 10, fp.random_unstructured(AMOUNT, seed=0), incumbent.RandomUnstructured(AMOUNT)),
        ("L2, rows", 1.5, fp.ln_structured(AMOUNT, n=2, dim=0), incumbent.LnStructured(AMOUNT, 2, 0)),
        ("L2, columns", 1.5, fp.ln_structured(AMOUNT, n=2, dim=1), incumbent.LnStructured(AMOUNT, 2, 1)),
        ("L1, rows", 1.5, fp.ln_structured(AMOUNT, n=1, dim=0), incumbent.LnStructured(AMOUNT, 1, 0)),
        ("random rows", 1.5, fp.random_structured(AMOUNT, dim=0, seed=0), incumbent.RandomStructured(AMOUNT, 0)),
    ]
    for name, times, pruner, method in cases:
        found = medians(
            {
                "ours": lambda pruner=pruner: pruner(params),
                "theirs": lambda method=method: method.compute_mask(weight, ones),
            },
            runs,
            warmup=1,
        )
        yield at_least(times, f"local {name}, {side} x {side}", found["ours"], "compute_mask", found["theirs"])


def lenet(small: bool) -> Iterator[Row]:
    """LeNet's five weights, global and local; the incumbent's copy of the module is not counted."""
    model = LeNet()
    params = dict(model.named_parameters())
    weights = {path: leaf.detach() for path, leaf in params.items() if path.endswith("weight")}

    def one_by_one() -> None:
        for module, name in modules(weights):
            incumbent.l1_unstructured(module, name, AMOUNT)

    sides: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "global": (
            lambda: fp.l1_unstructured(AMOUNT, scope="global")(params),
            lambda: incumbent.global_unstructured(modules(weights), incumbent.L1Unstructured, amount=AMOUNT),
        ),
        "local": (lambda: fp.l1_unstructured(AMOUNT)(params), one_by_one),
    }
    for scope, (mine, other) in sides.items():
        found = medians({"ours": mine, "theirs": other}, 5 if small else 101)
        yield at_most(1, f"LeNet, {scope} L1", found["ours"], "torch.nn.utils.prune", found["theirs"])


def main(arguments: dict[str, Any]) -> dict[str, float]:
    """One side in this process."""
    make = SIDES[arguments["side"]]
    once = arguments["runs"] == 1
    runs, warmup = (0, 0) if once else (arguments["runs"], 2)
    return with_memory(lambda: make(arguments["kind"], arguments["size"]), runs, warmup)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
