"""Dynamic sparsity on real MNIST digits: static sparse training, SET and RigL at equal numbers of weights.

``python examples/rigl.py`` takes about two minutes on two cores. A 784-300-100-10 network starts sparse, at random, and
stays as sparse; the three methods differ in where its weights are. It prints accuracies, mean and range over seeds,
and writes ``rigl.png`` and ``rigl.json`` into ``--out``.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from digits import Digits, LeNet300100, accuracy, load_digits
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import funcprune as fp

SPARSITIES = (0.95, 0.98, 0.99)
BATCH = 100
EVERY = 25  # steps from one change of the masks to the next


def methods(sparsity: float, steps: int, seed: int) -> dict[str, fp.training.Dynamic]:
    """Three methods that start from the same random masks, shared out by ERK: small layers keep more."""
    pruner = fp.random_unstructured(sparsity=sparsity, seed=seed, scope=fp.erk())
    end = 3 * steps // 4
    return {
        "static": fp.training.static(pruner),
        "SET": fp.training.sparse_evolution(pruner, drop=0.3, every=EVERY, end=end, seed=seed),
        "RigL": fp.training.rigl(pruner, drop=0.3, every=EVERY, end=end),
    }


def train(method: fp.training.Dynamic, digits: Digits, epochs: int, seed: int, bar: tqdm) -> float:
    torch.manual_seed(seed)
    model = LeNet300100()
    params = dict(model.named_parameters())
    optimizer = torch.optim.SGD(params.values(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(digits.train_y) // BATCH)
    state = method.init(params)
    fp.project_(params, state.masks)
    for batch in batches(len(digits.train_y), epochs, seed):
        # The weights are projected, so the model runs as it is, and its gradients are dense: what RigL grows by.
        loss = cross_entropy(model(digits.train_x[batch]), digits.train_y[batch])
        optimizer.zero_grad()
        loss.backward()
        grads = {name: value.grad for name, value in params.items()}
        dense = {name: grad.clone() for name, grad in grads.items()} if method.due(state) else None
        fp.project_(grads, state.masks)
        optimizer.step()
        rate.step()
        state = method.update_(state, params, optimizer, grads=dense)
        bar.update()
    with torch.no_grad():
        return accuracy(model(digits.test_x), digits.test_y)


def batches(size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(size, generator=order).split(BATCH)


def main(out: Path, epochs: int, seeds: int) -> None:
    torch.set_num_threads(1)  # a network this small gains nothing from more threads, and loses where cores are shared
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits(flat=True)
    steps = epochs * len(digits.train_y) // BATCH
    found: dict[str, dict[float, list[float]]] = {}
    with tqdm(total=3 * len(SPARSITIES) * seeds * steps, unit="step") as bar:
        for sparsity, seed in product(SPARSITIES, range(seeds)):
            for name, method in methods(sparsity, steps, seed).items():
                bar.set_description(f"{name}, {sparsity:.0%}")
                result = train(method, digits, epochs, seed, bar)
                found.setdefault(name, {}).setdefault(sparsity, []).append(result)

    print(f"\nTest accuracy of LeNet-300-100 after {steps:,} steps, mean of {seeds} seeds (lowest to highest):\n")
    print("sparsity  " + "".join(f"{sparsity:>22.0%}" for sparsity in SPARSITIES))
    for name, by in found.items():
        cells = [f"{mean(values):.1%} ({min(values):.1%}-{max(values):.1%})" for values in by.values()]
        print(f"{name:10}" + "".join(f"{cell:>22}" for cell in cells))
    (out / "rigl.json").write_text(json.dumps({"sparsities": SPARSITIES, "accuracy": found}, indent=2) + "\n")
    draw(found, out / "rigl.png")
    print(f"\nSee {out / 'rigl.png'}")


def draw(found: dict[str, dict[float, list[float]]], path: Path) -> None:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(SPARSITIES))
    for (name, by), color in zip(found.items(), ("0.5", "#d55e00", "#0072b2"), strict=True):
        percent = [[100 * value for value in by[sparsity]] for sparsity in SPARSITIES]
        axes.plot(places, list(map(mean, percent)), "o-", color=color, label=name)
        axes.fill_between(places, list(map(min, percent)), list(map(max, percent)), color=color, alpha=0.15, lw=0)
    axes.set_xticks(places, [f"{sparsity:.0%}" for sparsity in SPARSITIES])
    axes.set(xlabel="sparsity", ylabel="test accuracy (%)", title="Equal numbers of weights")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (default: out)")
    parser.add_argument("--epochs", type=int, default=20, help="of each run (default: 20)")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs each (default: 3)")
    main(**vars(parser.parse_args()))
