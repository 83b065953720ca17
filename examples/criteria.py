"""Every criterion on real MNIST digits, and the collapse of layers that SynFlow was made against.

``python examples/criteria.py`` takes about three minutes on two cores, ``--quick`` far less. A LeNet is trained
for each seed and pruned by every criterion to 50, 80, 90, 95 and 98 % of its weights; then a deep network is pruned
at initialization, and layers without a single weight left are counted. It prints its tables and writes, into
``--out``, ``criteria.png``, ``collapse.png`` and ``criteria.json``.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import torch
from digits import Digits, LeNet, accuracy, load_digits
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import funcprune as fp

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
COMPRESSIONS = (10, 100, 1000, 2000)
SAMPLES = 512  # digits that the criteria see

Params = dict[str, Tensor]
Masks = dict[str, Tensor | None]
Prune = Callable[[float], tuple[Params, Masks]]


def methods(
    model: nn.Module, params: Params, digits: Digits, movement: fp.criteria.Movement, seed: int
) -> dict[str, Prune]:
    """From a sparsity to params and masks, for every criterion.

    Where scores compare across layers all weights are ranked together; elsewhere ERK says how many a layer keeps.
    """
    lenet, nothing = fp.functional(model), dict.fromkeys(params)
    x, y = digits.train_x[:SAMPLES], digits.train_y[:SAMPLES]

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(lenet(params, nothing, x), y)

    def tempered(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(lenet(params, nothing, x) / 200, y)

    def scored_once(criterion: fp.criteria.Criterion, scope: fp.allocation.Scope = "global") -> Prune:
        scores = criterion(params, nothing)
        return lambda s: (params, fp.Pruner(criterion, sparsity=s, scope=scope)(params, scores=scores))

    magnitude, wanda = fp.criteria.magnitude(), fp.criteria.wanda(model, [x])
    synflow = fp.criteria.synflow(model, (1, 28, 28))

    def rounds(sparsity: float) -> tuple[Params, Masks]:
        return params, fp.iterate(fp.Pruner(synflow, sparsity=sparsity, scope="global"), rounds=100)(params)

    def layers(sparsity: float) -> tuple[Params, Masks]:
        return params, fp.layerwise(fp.Pruner(wanda, sparsity=sparsity, scope=fp.erk()), model, x)(params)

    return {
        "random": scored_once(fp.criteria.random(seed), fp.erk()),
        "magnitude": scored_once(magnitude),
        "magnitude, erk": scored_once(magnitude, fp.erk()),
        "lamp": scored_once(fp.criteria.lamp()),
        "saliency": scored_once(fp.criteria.saliency(loss, x, y)),
        "taylor": scored_once(fp.criteria.taylor(loss, x, y)),
        "fisher": scored_once(fp.criteria.fisher(loss, x, y)),
        "grasp": scored_once(fp.criteria.grasp(tempered, x, y)),
        "movement": scored_once(movement),
        "synflow": rounds,
        "wanda": layers,
        "sparsegpt": lambda s: fp.sparsegpt(model, params, [x], sparsity=s, scope=fp.erk()),
    }


def trained(
    lenet: Callable[..., Tensor],
    params: Params,
    masks: Masks,
    digits: Digits,
    epochs: int,
    seed: int,
    watch: Callable[[Params, Params], None] | None = None,
) -> Params:
    """Trained copies of ``params``; ``watch`` is shown the params and gradients of every step."""
    params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=2e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(digits.train_y), generator=order).split(64):
            optimizer.zero_grad()
            cross_entropy(lenet(params, masks, digits.train_x[batch]), digits.train_y[batch]).backward()
            if watch is not None:
                watch(params, {name: value.grad for name, value in params.items()})
            optimizer.step()
    return {name: value.detach() for name, value in params.items()}


def compare(seeds: int, epochs: int, sparsities: tuple[float, ...]) -> list[dict]:
    """Accuracy of every criterion, sparsity and seed, before and after one epoch of fine-tuning."""
    digits, runs = load_digits(), []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = LeNet()
        lenet = fp.functional(model)
        params = dict(model.named_parameters())
        movement = fp.criteria.movement(params)

        def watch(params: Params, grads: Params) -> None:
            nonlocal movement
            movement = movement.update(params, grads)

        dense = trained(lenet, params, dict.fromkeys(params), digits, epochs, seed, watch)
        base = accuracy(lenet(dense, dict.fromkeys(params), digits.test_x), digits.test_y)
        todo = list(itertools.product(methods(model, dense, digits, movement, seed).items(), sparsities))
        for (name, prune), sparsity in tqdm(todo, desc=f"seed {seed}", leave=False):
            pruned, masks = prune(sparsity)
            tuned = trained(lenet, pruned, masks, digits, 1, seed)
            runs.append(
                {
                    "criterion": name,
                    "seed": seed,
                    "sparsity": sparsity,
                    "measured_sparsity": fp.masks.sparsity(pruned, masks, where=fp.selectors.default),
                    "dense_accuracy": base,
                    "one_shot_accuracy": accuracy(lenet(pruned, masks, digits.test_x), digits.test_y),
                    "accuracy": accuracy(lenet(tuned, masks, digits.test_x), digits.test_y),
                }
            )
    return runs


def collapse() -> list[dict]:
    """How many weights each layer of a deep network keeps, by criterion and compression, at initialization."""
    torch.manual_seed(0)
    digits = load_digits(flat=True)
    widths = [784, 300, 100, 100, 300, 100, 100, 100, 10]
    stack = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*stack[:-1])
    net, params = fp.functional(model), {name: leaf.detach() for name, leaf in model.named_parameters()}
    nothing, x, y = dict.fromkeys(params), digits.train_x[:SAMPLES], digits.train_y[:SAMPLES]

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(net(params, nothing, x), y)

    synflow = fp.criteria.synflow(model, (784,))
    weights = sum(leaf.numel() for leaf in params.values() if leaf.ndim > 1)
    runs = []
    for compression in COMPRESSIONS:

        def single(criterion: fp.criteria.Criterion, compression: int = compression) -> fp.Pruner:
            return fp.Pruner(criterion, weights - weights // compression, scope="global")

        pruners = {
            "magnitude": single(fp.criteria.magnitude()),
            "saliency": single(fp.criteria.saliency(loss, x, y)),
            "grasp": single(fp.criteria.grasp(loss, x, y)),
            "synflow, one shot": single(synflow),
            "synflow, 100 rounds": fp.iterate(single(synflow), rounds=100),
        }
        for name, pruner in pruners.items():
            kept = [row.kept for path, row in fp.masks.counts(params, pruner(params)).items() if params[path].ndim > 1]
            runs.append({"criterion": name, "compression": compression, "kept": kept, "dead_layers": kept.count(0)})
    return runs


def print_comparison(runs: list[dict], sparsities: tuple[float, ...]) -> None:
    names = list(dict.fromkeys(run["criterion"] for run in runs))
    for key, title in (("one_shot_accuracy", "one-shot"), ("accuracy", "after one epoch of fine-tuning")):
        print(f"\nTest accuracy {title}, mean and standard deviation over seeds (%)\n")
        print(f"{'criterion':16}" + "".join(f"{sparsity:>14.0%}" for sparsity in sparsities))
        for name in names:
            cells = []
            for sparsity in sparsities:
                found = [100 * run[key] for run in runs if (run["criterion"], run["sparsity"]) == (name, sparsity)]
                cells.append(f"{mean(found):.1f} ± {stdev(found) if len(found) > 1 else 0:4.1f}")
            print(f"{name:16}" + "".join(f"{cell:>14}" for cell in cells))


def print_collapse(runs: list[dict]) -> None:
    print("\nA network of 8 layers, pruned at initialization: layers without a weight left, by compression\n")
    print(f"{'criterion':20}" + "".join(f"{compression:>7}x" for compression in COMPRESSIONS))
    for name in dict.fromkeys(run["criterion"] for run in runs):
        dead = [run["dead_layers"] for run in runs if run["criterion"] == name]
        print(f"{name:20}" + "".join(f"{count:>8}" for count in dead))


def draw_comparison(runs: list[dict], sparsities: tuple[float, ...], path: Path) -> None:
    """Accuracy against sparsity, one line a criterion, one-shot and fine-tuned."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(run["criterion"] for run in runs))
    styles = list(itertools.product(("-", "--"), ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#000000")))
    for axes, key, title in zip(panels, ("one_shot_accuracy", "accuracy"), ("one-shot", "fine-tuned"), strict=True):
        for name, (line, color) in zip(names, styles, strict=False):
            found = [
                mean(100 * run[key] for run in runs if (run["criterion"], run["sparsity"]) == (name, sparsity))
                for sparsity in sparsities
            ]
            axes.plot(range(len(sparsities)), found, line, color=color, marker=".", label=name)
        axes.set(xlabel="weights pruned (%)", title=f"LeNet on MNIST digits, {title}")
        axes.set_xticks(range(len(sparsities)), [f"{100 * sparsity:.0f}" for sparsity in sparsities])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    panels[0].set_ylabel("test accuracy (%)")
    panels[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)


def draw_collapse(runs: list[dict], path: Path) -> None:
    """Weights kept in each layer at the highest compression."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        if run["compression"] == COMPRESSIONS[-1]:
            axes.plot(range(1, len(run["kept"]) + 1), run["kept"], "o-", label=run["criterion"])
    axes.set_yscale("symlog", linthresh=1)
    axes.set(
        xlabel="layer", ylabel="weights kept", title=f"Layers at {COMPRESSIONS[-1]}x compression: 0 is a dead layer"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def main(out: Path, seeds: int, epochs: int, quick: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    seeds, epochs, sparsities = (1, 1, SPARSITIES[2:3]) if quick else (seeds, epochs, SPARSITIES)
    layers = collapse()
    print_collapse(layers)
    draw_collapse(layers, out / "collapse.png")
    runs = compare(seeds, epochs, sparsities)
    print(f"\nDense LeNet, {epochs} epochs: {mean(run['dense_accuracy'] for run in runs):.1%}")
    print_comparison(runs, sparsities)
    draw_comparison(runs, sparsities, out / "criteria.png")
    (out / "criteria.json").write_text(json.dumps({"runs": runs, "collapse": layers}, indent=2) + "\n")
    print(f"\nSee {out}/")
    # What the page on criteria promises is checked here too.
    dead = {run["criterion"]: run["dead_layers"] for run in layers if run["compression"] == COMPRESSIONS[-1]}
    if dead["synflow, 100 rounds"] or not max(dead.values()):
        raise SystemExit(f"expected SynFlow in rounds to keep all layers and another criterion not to, found {dead}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (default: out)")
    parser.add_argument("--seeds", type=int, default=3, help="how many networks are trained (default: 3)")
    parser.add_argument("--epochs", type=int, default=6, help="of dense training (default: 6)")
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch, one sparsity")
    main(**vars(parser.parse_args()))
