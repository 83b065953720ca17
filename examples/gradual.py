"""Gradual pruning on real MNIST digits: four schedules, the same number of training steps, the same sparsity.

``python examples/gradual.py`` takes about a minute on two cores. A 784-300-100-10 network is pruned
globally by magnitude while it trains: at once in the middle of the training, or little by little along a schedule.
It prints the accuracies and writes ``gradual.png`` and ``gradual.json`` into ``--out``.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from digits import Digits, LeNet300100, accuracy, load_digits
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import funcprune as fp

SPARSITIES = (0.95, 0.98, 0.99)
BATCH = 100


class History(NamedTuple):
    """What a run looked like, every so many steps; the last entry is its result."""

    steps: list[int]
    sparsity: list[float]
    accuracy: list[float]


def methods(sparsity: float, steps: int) -> dict[str, fp.training.Gradual]:
    """All end at the same sparsity, at three quarters of the training or before."""
    pruner = fp.l1_unstructured(sparsity=sparsity, scope="global")
    begin, end = steps // 4, 3 * steps // 4
    ramps = {
        "linear": fp.schedules.linear(0.0, sparsity, begin=begin, end=end),
        "cubic": fp.schedules.polynomial(0.0, sparsity, begin=begin, end=end),
        "one-cycle": fp.schedules.one_cycle(0.0, sparsity, begin=begin, end=end),
    }
    at_once = fp.training.gradual(pruner, fp.schedules.constant(sparsity), begin=steps // 2, end=steps // 2, every=1)
    gradual = {name: fp.training.gradual(pruner, ramp, begin=begin, end=end, every=20) for name, ramp in ramps.items()}
    return {"at once": at_once, **gradual}


def train(method: fp.training.Gradual, digits: Digits, epochs: int, seed: int, bar: tqdm) -> History:
    torch.manual_seed(seed)
    model = LeNet300100()
    net, params = fp.functional(model), dict(model.named_parameters())
    optimizer = torch.optim.Adam(params.values(), lr=1.2e-3)
    state, history = method.init(params), History([], [], [])
    for step, batch in enumerate(batches(len(digits.train_y), epochs, seed)):
        loss = cross_entropy(net(params, state.masks, digits.train_x[batch]), digits.train_y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruned = method.due(state)
        state = method.update(state, params)
        if pruned:  # zeros in the weights and in the moments of Adam: what was pruned does not move again
            fp.project_(params, state.masks)
            fp.training.project_optimizer_(optimizer, params, state.masks)
        bar.update()
        if step % 50 == 0:
            note(history, step, net, params, state.masks, digits)
    note(history, step + 1, net, params, state.masks, digits)
    return history


def note(history: History, step: int, net, params, masks, digits: Digits) -> None:
    with torch.no_grad():
        logits = net(params, masks, digits.test_x)
    history.steps.append(step)
    history.sparsity.append(fp.masks.sparsity(params, masks, where="*.weight"))
    history.accuracy.append(accuracy(logits, digits.test_y))


def batches(size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(size, generator=order).split(BATCH)


def main(out: Path, epochs: int, seeds: int) -> None:
    torch.set_num_threads(1)  # a network this small gains nothing from more threads, and loses where cores are shared
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits(flat=True)
    steps = epochs * len(digits.train_y) // BATCH
    names = list(methods(0.5, steps))
    runs: dict[str, dict[float, list[History]]] = {name: {sparsity: [] for sparsity in SPARSITIES} for name in names}
    with tqdm(total=len(names) * len(SPARSITIES) * seeds * steps, unit="step") as bar:
        for sparsity, seed in product(SPARSITIES, range(seeds)):
            for name, method in methods(sparsity, steps).items():
                bar.set_description(f"{name}, {sparsity:.0%}")
                runs[name][sparsity].append(train(method, digits, epochs, seed, bar))

    print(f"\nTest accuracy of LeNet-300-100 after {steps:,} steps, mean of {seeds} seeds:\n")
    print("pruned     " + "".join(f"{sparsity:>8.0%}" for sparsity in SPARSITIES))
    final = {name: [mean(run.accuracy[-1] for run in of[s]) for s in SPARSITIES] for name, of in runs.items()}
    for name, values in final.items():
        print(f"{name:11}" + "".join(f"{value:8.1%}" for value in values))
    (out / "gradual.json").write_text(json.dumps({"sparsities": SPARSITIES, "accuracy": final}, indent=2) + "\n")
    draw({name: of[SPARSITIES[-1]][0] for name, of in runs.items()}, out / "gradual.png")
    print(f"\nSee {out / 'gradual.png'}")


def draw(histories: dict[str, History], path: Path) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, run), color in zip(histories.items(), ("0.5", "#009e73", "#0072b2", "#d55e00"), strict=True):
        left.plot(run.steps, [100 * value for value in run.sparsity], color=color, label=name)
        right.plot(run.steps, [100 * value for value in run.accuracy], color=color, label=name)
    left.set(xlabel="step", ylabel="weights pruned (%)", title="Sparsity along the schedule")
    right.set(xlabel="step", ylabel="test accuracy (%)", title=f"LeNet-300-100 pruned to {SPARSITIES[-1]:.0%}")
    right.set_ylim(bottom=60)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    left.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (default: out)")
    parser.add_argument("--epochs", type=int, default=15, help="of each run (default: 15)")
    parser.add_argument("--seeds", type=int, default=2, help="how many runs each (default: 2)")
    main(**vars(parser.parse_args()))
