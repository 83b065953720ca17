"""Many masks of one network at once: an ensemble trained on real MNIST digits by a single vmap.

``python examples/ensemble.py`` takes less than a minute on two cores. K random masks of a 784-300-100-10 network are
stacked, and one call computes the gradients of all K masked networks. It checks that call against a loop over the
masks, prints the accuracy of the members and of their average, and writes ``ensemble.png`` and ``ensemble.json`` into
``--out``.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import torch
from digits import LeNet300100, load_digits
from matplotlib.figure import Figure
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import funcprune as fp

BATCH = 100
Params = dict[str, Tensor]
Masks = dict[str, Tensor | None]


def batches(size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(size, generator=order).split(BATCH)


def main(out: Path, members: int, sparsity: float, epochs: int, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits(flat=True)
    torch.manual_seed(seed)
    model = LeNet300100()
    net = fp.functional(model)
    start = {name: value.detach() for name, value in model.named_parameters()}

    # K mask trees as one: each tensor has a leading dimension of K, leaves without a mask stay None.
    masks = [fp.random_unstructured(sparsity=sparsity, seed=seed + k)(start) for k in range(members)]
    stacked = fp.masks.stack(masks)
    over_masks = fp.in_dims(stacked)

    def loss(params: Params, masks: Masks, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(net(params, masks, x), y)

    x, y = digits.train_x[:BATCH], digits.train_y[:BATCH]
    every_gradient = vmap(grad(loss), in_dims=(None, over_masks, None, None))  # one start, K masks
    began = time.perf_counter()
    at_once = every_gradient(start, stacked, x, y)
    middle = time.perf_counter()
    one_by_one = [grad(loss)(start, mask, x, y) for mask in masks]
    ended = time.perf_counter()
    difference = max(float((at_once[n][k] - g[n]).abs().max()) for k, g in enumerate(one_by_one) for n in g)
    print(f"Gradients of {members} masked networks: {1e3 * (middle - began):.1f} ms at once, ", end="")
    print(f"{1e3 * (ended - middle):.1f} ms in a loop; they differ by {difference:.0e} at most\n")

    params = {name: value.expand(members, *value.shape).clone() for name, value in start.items()}
    momentum = {name: torch.zeros_like(value) for name, value in params.items()}
    gradients = vmap(grad(loss), in_dims=(0, over_masks, None, None))  # K starts, K masks
    total = epochs * len(digits.train_y) // BATCH
    for batch in tqdm(batches(len(digits.train_y), epochs, seed), total=total, unit="step"):
        grads = gradients(params, stacked, digits.train_x[batch], digits.train_y[batch])
        for name in params:
            momentum[name].mul_(0.9).add_(grads[name])
            params[name].sub_(momentum[name], alpha=0.1)

    logits = vmap(net, in_dims=(0, over_masks, None))(params, stacked, digits.test_x)
    probabilities = logits.softmax(-1)
    alone = [correct(probabilities[k], digits.test_y) for k in range(members)]
    together = [correct(probabilities[: k + 1].mean(0), digits.test_y) for k in range(members)]
    kept = fp.summary(start, masks[0]).pruned
    print(f"\n{members} networks with {kept.kept:,} of {kept.total:,} weights each, from one start, {epochs} epochs:\n")
    print("member  kept by all before and it  alone   average of all so far")
    for k in range(members):
        shared = fp.masks.sparsity(start, fp.masks.intersect(*masks[: k + 1]), where="*.weight")
        print(f"{k + 1:6}  {1 - shared:25.2%}  {alone[k]:6.1%}  {together[k]:21.1%}")
    print(f"\nmean of the members {mean(alone):.1%}, their average {together[-1]:.1%}")
    results = {"alone": alone, "together": together, "largest_difference": difference}
    (out / "ensemble.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(alone, together, out / "ensemble.png")
    print(f"See {out / 'ensemble.png'}")


def correct(probabilities: Tensor, labels: Tensor) -> float:
    return (probabilities.argmax(-1) == labels).double().mean().item()


def draw(alone: list[float], together: list[float], path: Path) -> None:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    members = range(1, len(alone) + 1)
    axes.bar(members, [100 * value for value in alone], color="0.8", label="the member alone")
    axes.plot(members, [100 * value for value in together], "o-", color="#0072b2", label="average of all so far")
    axes.set(xlabel="member", ylabel="test accuracy (%)", title="Random masks of one network, trained at once")
    axes.set_ylim(100 * min(alone) - 3, 100 * max(alone + together) + 2)
    axes.set_xticks(list(members))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (default: out)")
    parser.add_argument("--members", type=int, default=6, help="how many masks (default: 6)")
    parser.add_argument("--sparsity", type=float, default=0.8, help="of each member (default: 0.8)")
    parser.add_argument("--epochs", type=int, default=6, help="of the training (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, masks and batches (default: 0)")
    main(**vars(parser.parse_args()))
