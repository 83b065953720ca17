"""Lottery tickets on real MNIST digits: the ticket against its two controls, from dense to 2 % of the weights.

``python examples/lottery.py`` takes about two minutes on two cores. A 784-300-100-10 network is trained, pruned (20 %
of the smallest weights of the hidden layers, 10 % of the output layer), put back to its initial weights and trained
again, round after round. The controls train the same masks from another initialisation, and the same initialisation
with as many weights in random places. It prints the accuracies, mean and range over seeds, and writes ``lottery.png``
and ``lottery.json`` into ``--out``. The rounds are kept there, too, 150 MB of them: start it again after a kill, and
it goes on.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from digits import Digits, LeNet300100, accuracy, load_digits
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import funcprune as fp

BATCH = 100
LEVELS = 3  # the controls are trained at every third round
PRUNER = fp.chain(
    fp.l1_unstructured(0.2, where=["fc1.weight", "fc2.weight"]), fp.l1_unstructured(0.1, where="fc3.weight")
)
ARMS = ("ticket", "re-initialised", "random masks")

Params = dict[str, Tensor]
Masks = dict[str, Tensor | None]
Found = dict[str, dict[float, list[float]]]


def step(
    params: Params, momentum: Params, masks: Masks, number: int, *, net, digits: Digits, seed: int
) -> tuple[Params, Params]:
    """One step of SGD with momentum, a function of its arguments alone: so a run can go on after a kill."""
    epoch, place = divmod(number, len(digits.train_y) // BATCH)
    order = torch.randperm(len(digits.train_y), generator=torch.Generator().manual_seed(1000 * seed + epoch))
    batch = order[place * BATCH : (place + 1) * BATCH]
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    loss = cross_entropy(net(leaves, masks, digits.train_x[batch]), digits.train_y[batch])
    grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    momentum = {name: 0.9 * momentum[name] + grads[name] for name in grads}
    return {name: params[name].detach() - 0.1 * momentum[name] for name in grads}, momentum


def run(digits: Digits, out: Path, rounds: int, epochs: int, seed: int, found: Found) -> None:
    """One seed: the rounds, then the controls at every third of them."""
    torch.manual_seed(seed)
    model = LeNet300100()
    net = fp.functional(model)
    start = {name: value.detach() for name, value in model.named_parameters()}
    still = {name: torch.zeros_like(value) for name, value in start.items()}
    steps = epochs * len(digits.train_y) // BATCH
    one = partial(step, net=net, digits=digits, seed=seed)

    def note(arm: str, params: Params, masks: Masks) -> None:
        kept = 100 * (1 - fp.masks.sparsity(params, masks, where="*.weight"))
        result = accuracy(net(params, masks, digits.test_x), digits.test_y)
        found[arm].setdefault(round(kept, 2), []).append(result)

    method = fp.training.lottery(PRUNER, rounds=rounds, steps=steps)
    bar = partial(tqdm, desc=f"seed {seed}, tickets", unit="step", leave=False)
    folder = out / f"tickets-{rounds}x{epochs}-seed{seed}"
    tickets = fp.training.find_tickets(method, one, start, still, directory=folder, progress=bar)
    for ticket in tickets:
        note("ticket", ticket.params, ticket.masks)

    controls = [
        ("re-initialised", fp.training.reinitialized(start, seed=seed), t.masks) for t in tickets[LEVELS::LEVELS]
    ]
    for ticket in tickets[LEVELS::LEVELS]:
        masks = fp.training.shuffled(start, ticket.masks, seed=seed)
        controls.append(("random masks", start, masks))
    for arm, params, masks in tqdm(controls, desc=f"seed {seed}, controls", unit="run", leave=False):
        momentum = still
        for number in range(steps):
            params, momentum = one(params, momentum, masks, number)
        note(arm, params, masks)


def main(out: Path, rounds: int, epochs: int, seeds: int) -> None:
    torch.set_num_threads(1)  # a network this small gains nothing from more threads, and loses where cores are shared
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits(flat=True)
    found: Found = {arm: {} for arm in ARMS}
    for seed in range(seeds):
        run(digits, out, rounds, epochs, seed, found)

    print(f"Test accuracy of LeNet-300-100 after {epochs} epochs, mean of {seeds} seeds (lowest to highest):\n")
    print("weights kept" + "".join(f"{arm:>24}" for arm in ARMS))
    for number, kept in enumerate(found["ticket"]):
        if number % LEVELS == 0:
            cells = [found[arm].get(kept) for arm in ARMS]
            words = [f"{mean(c):.1%} ({min(c):.1%}-{max(c):.1%})" if c else "" for c in cells]
            print(f"{kept:11.2f}%" + "".join(f"{word:>24}" for word in words))
    (out / "lottery.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(found, out / "lottery.png")
    print(f"\nSee {out / 'lottery.png'}")


def draw(found: Found, path: Path) -> None:
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    for (arm, by), color in zip(found.items(), ("#0072b2", "#d55e00", "0.5"), strict=True):
        kept, percent = list(by), [[100 * value for value in values] for values in by.values()]
        axes.plot(kept, list(map(mean, percent)), "o-", ms=4, color=color, label=arm)
        axes.fill_between(kept, list(map(min, percent)), list(map(max, percent)), color=color, alpha=0.15, lw=0)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks([100, 50, 20, 10, 5, 2], ["100", "50", "20", "10", "5", "2"], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="weights kept (%)", ylabel="test accuracy (%)", title="LeNet-300-100 on 1,000 held-out digits")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (default: out)")
    parser.add_argument("--rounds", type=int, default=18, help="how often to prune (default: 18)")
    parser.add_argument("--epochs", type=int, default=6, help="of each run (default: 6)")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs each (default: 3)")
    main(**vars(parser.parse_args()))
