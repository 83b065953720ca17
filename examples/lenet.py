"""LeNet on real MNIST digits: train it, prune it, fine-tune it, save it, load it.

``python examples/lenet.py`` takes about a minute on two cores. It prints its tables and writes, into ``--out``,
``curve.png``, ``results.json`` and one ``lenet-*.pt`` for each pruned network. Sparsity is counted over the weights,
which is what pruners select by default; the 236 biases stay.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from digits import Digits, LeNet, accuracy, load_digits
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import funcprune as fp

SPARSITIES = (0.5, 0.8, 0.9, 0.95)

Params = dict[str, Tensor]
Masks = dict[str, Tensor | None]


def main(out: Path, epochs: int, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    torch.manual_seed(seed)
    model = LeNet()
    lenet = fp.functional(model)  # lenet(params, masks, images): the model itself stays as it is

    train = partial(trained, lenet, digits=digits, epochs=epochs, seed=seed)

    def test(params: Params, masks: Masks) -> float:
        return accuracy(lenet(params, masks, digits.test_x), digits.test_y)

    params = dict(model.named_parameters())
    nothing = dict.fromkeys(params)  # the masks that prune nothing: None at every leaf
    dense = train(params, nothing, "dense")
    results = {"dense_accuracy": test(dense, nothing), "runs": []}
    print(f"LeNet on {len(digits.train_y):,} digits, tested on {len(digits.test_y):,} others; epochs: {epochs}")
    print(f"dense accuracy {results['dense_accuracy']:.1%}\n")

    print("The smallest weights of the whole network pruned, then as many epochs of fine-tuning:\n")
    print("sparsity      kept     total  one-shot  fine-tuned")
    for sparsity in SPARSITIES:
        masks = fp.l1_unstructured(sparsity=sparsity, scope="global")(dense)
        tuned = train(dense, masks, f"sparsity {sparsity}")
        weights = fp.summary(dense, masks).pruned
        run = {
            "sparsity": sparsity,
            "measured_sparsity": weights.sparsity,
            "one_shot_accuracy": test(dense, masks),
            "accuracy": test(tuned, masks),
            "kept": weights.kept,
            "total": weights.total,
        }
        results["runs"].append(run)
        print(
            f"{run['measured_sparsity']:8.2%}  {run['kept']:8,}  {run['total']:8,}  "
            f"{run['one_shot_accuracy']:8.1%}  {run['accuracy']:10.1%}"
        )
        save_and_check(out / f"lenet-{sparsity}.pt", tuned, masks, lenet, digits.test_x)

    masks = fp.ln_structured(0.5, n=2, dim=0, where="conv2.weight")(dense)
    tuned = train(dense, masks, "structured")
    print("\nHalf of the output channels of conv2 pruned, those of smallest L2 norm:\n")
    print(fp.summary(tuned, masks))
    print(f"\none-shot {test(dense, masks):.1%}, fine-tuned {test(tuned, masks):.1%}")
    save_and_check(out / "lenet-structured.pt", tuned, masks, lenet, digits.test_x)

    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(results, out / "curve.png")
    print(f"\nEvery pruned network was saved, loaded and gave identical logits. See {out}/")


def trained(
    lenet: Callable[..., Tensor], params: Params, masks: Masks, title: str, *, digits: Digits, epochs: int, seed: int
) -> Params:
    """Trained copies of ``params``. The gradient is zero at pruned entries: only kept ones learn."""
    params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=2e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(epochs), desc=title, unit="epoch", leave=False):
        for batch in torch.randperm(len(digits.train_y), generator=order).split(64):
            loss = cross_entropy(lenet(params, masks, digits.train_x[batch]), digits.train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: value.detach() for name, value in params.items()}


def save_and_check(path: Path, params: Params, masks: Masks, lenet: Callable[..., Tensor], images: Tensor) -> None:
    """Save a pruned network, load it into a plain LeNet, and see that it computes what the masked one does."""
    torch.save({"params": fp.bake(params, masks), "masks": masks}, path)
    loaded = LeNet()
    loaded.load_state_dict(torch.load(path, weights_only=True)["params"])
    if not torch.equal(loaded(images), lenet(params, masks, images)):
        raise SystemExit(f"{path}: the loaded network gives other logits than the one that was saved")


def draw(results: dict, path: Path) -> None:
    """Accuracy against sparsity, before and after fine-tuning."""
    runs = results["runs"]
    sparsity = [100 * run["measured_sparsity"] for run in runs]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(100 * results["dense_accuracy"], color="0.6", linestyle="--", label="dense")
    for key, label, color in (("accuracy", "fine-tuned", "#0072b2"), ("one_shot_accuracy", "one-shot", "#d55e00")):
        axes.plot(sparsity, [100 * run[key] for run in runs], "o-", color=color, label=label)
    axes.set(xlabel="weights pruned (%)", ylabel="test accuracy (%)", title="LeNet on 1,000 held-out MNIST digits")
    axes.set_xticks(sparsity, [f"{value:.0f}" for value in sparsity])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (default: out)")
    parser.add_argument("--epochs", type=int, default=20, help="of the training and of each fine-tuning (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the batches (default: 0)")
    main(**vars(parser.parse_args()))
