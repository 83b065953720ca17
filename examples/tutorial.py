"""The PyTorch pruning tutorial, in its own order, twice: with hooks and as data.

The stateful half is the tutorial's code with one import changed. Beside each step stands the same step on values:
params in, masks out, the model untouched. Each step ends by checking that both agree.

Run it with ``python examples/tutorial.py``; it takes seconds and needs no data.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional

import funcprune as fp
from funcprune.compat import prune  # the tutorial has: import torch.nn.utils.prune as prune


class LeNet(nn.Module):
    """Two convolutions and three linear layers, for images of 28 by 28."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        """The logits of a batch of images."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc3(functional.relu(self.fc2(x)))


class FooBarPruningMethod(prune.BasePruningMethod):
    """Prune every other entry in a tensor."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t, default_mask):
        """The mask so far without every other entry."""
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


def foobar_unstructured(module, name):
    FooBarPruningMethod.apply(module, name)
    return module


def section(title):
    print(f"\n{title}\n{'-' * len(title)}")


def assert_agree(model, params, masks):
    """The hook-pruned model holds these params and masks, and computes what the pure call computes."""
    found, found_masks = fp.compat.extract(model)
    assert found.keys() == params.keys()
    assert all(torch.equal(found[name], params[name]) for name in params)
    assert fp.masks.equal(found_masks, masks)
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(model(x), fp.masked_call(LeNet(), params, masks, x))


def values(model):
    """The parameters of a model as plain tensors of their own."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def one_module():
    model = LeNet()
    params = values(model)

    section("Inspect a module")
    module = model.conv1
    print([name for name, _ in module.named_parameters()], [name for name, _ in module.named_buffers()])
    masks = dict.fromkeys(params)  # nothing is pruned yet
    assert_agree(model, params, masks)

    section("Prune a module: 30 % of the weights at random")
    torch.manual_seed(1)
    prune.random_unstructured(module, name="weight", amount=0.3)
    print([name for name, _ in module.named_parameters()], [name for name, _ in module.named_buffers()])
    print(module.weight[0])
    print(list(module._forward_pre_hooks.values()))
    assert [name for name, _ in module.named_parameters()] == ["bias", "weight_orig"]
    assert [name for name, _ in module.named_buffers()] == ["weight_mask"]

    # `fp.random_unstructured(0.3, seed=1)` draws from a seed of its own; this one, like the line above, from torch's
    torch.manual_seed(1)
    masks = fp.compat.as_pruner(prune.RandomUnstructured, 0.3, where="conv1.weight")(params, masks)
    print(fp.masks.counts(params, masks)["conv1.weight"])
    assert_agree(model, params, masks)

    section("The 3 smallest biases")
    prune.l1_unstructured(module, name="bias", amount=3)
    print(module.bias)
    assert [name for name, _ in module.named_buffers()] == ["weight_mask", "bias_mask"]

    masks = fp.l1_unstructured(3, where="conv1.bias")(params, masks)
    print(masks["conv1.bias"])
    assert_agree(model, params, masks)

    section("Prune again: half of the channels by their L2 norm")
    prune.ln_structured(module, name="weight", amount=0.5, n=2, dim=0)
    for hook in module._forward_pre_hooks.values():
        if hook._tensor_name == "weight":
            break
    print([type(method).__name__ for method in hook])  # the history
    assert [type(method).__name__ for method in hook] == ["RandomUnstructured", "LnStructured"]

    before = masks
    masks = fp.ln_structured(0.5, n=2, dim=0, where="conv1.weight")(params, masks)
    print(masks["conv1.weight"].flatten(1).any(1))
    assert fp.masks.is_subset(masks, before)  # `before` is still there: history is whatever one keeps
    assert_agree(model, params, masks)

    section("Serialize a pruned model")
    print(list(model.state_dict()))
    dense, split = fp.compat.split_state_dict(model.state_dict())
    assert dense.keys() == params.keys()  # the names of an unpruned LeNet
    assert fp.masks.equal({name: split[name] for name in params}, masks)

    section("Remove the re-parametrization")
    prune.remove(module, "weight")
    print([name for name, _ in module.named_parameters()], [name for name, _ in module.named_buffers()])
    assert isinstance(module.weight, nn.Parameter)

    params |= fp.bake({"conv1.weight": params["conv1.weight"]}, {"conv1.weight": masks["conv1.weight"]})
    masks |= {"conv1.weight": None}
    assert_agree(model, params, masks)


def several_tensors():
    section("Prune several tensors: 20 % of each convolution, 40 % of each linear layer")
    model = LeNet()
    params = values(model)
    for _, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, name="weight", amount=0.2)
        elif isinstance(module, nn.Linear):
            prune.l1_unstructured(module, name="weight", amount=0.4)
    print([name for name, _ in model.named_buffers()])

    pruner = fp.chain(
        fp.l1_unstructured(0.2, where=fp.of_type(LeNet(), nn.Conv2d, "weight")),
        fp.l1_unstructured(0.4, where=fp.of_type(LeNet(), nn.Linear, "weight")),
    )
    assert_agree(model, params, pruner(params))


def global_pruning():
    section("Prune globally: 20 % of all weights together")
    model = LeNet()
    params = values(model)
    parameters_to_prune = (
        (model.conv1, "weight"),
        (model.conv2, "weight"),
        (model.fc1, "weight"),
        (model.fc2, "weight"),
        (model.fc3, "weight"),
    )
    prune.global_unstructured(parameters_to_prune, pruning_method=prune.L1Unstructured, amount=0.2)
    for module, name in parameters_to_prune:
        weight = getattr(module, name)
        print(f"sparsity of {type(module).__name__:6} {float((weight == 0).float().mean()):7.2%}")
    zeros = sum(int((module.weight == 0).sum()) for module, _ in parameters_to_prune)
    total = sum(module.weight.nelement() for module, _ in parameters_to_prune)
    print(f"global sparsity    {zeros / total:7.2%}")

    masks = fp.l1_unstructured(0.2, scope="global", where="*.weight")(params)
    print(fp.summary(params, masks))
    assert fp.summary(params, masks).pruned.sparsity == zeros / total == round(0.2 * total) / total
    assert_agree(model, params, masks)


def custom_method():
    section("A method of one's own: every other entry")
    model = LeNet()
    params = values(model)
    foobar_unstructured(model.fc3, name="bias")
    print(model.fc3.bias_mask)

    def every_other(params, masks=None):
        bias = torch.ones(params["fc3.bias"].shape, dtype=torch.bool)
        bias[::2] = False
        mine = dict.fromkeys(params) | {"fc3.bias": bias}
        return mine if masks is None else fp.masks.intersect(masks, mine)

    assert_agree(model, params, every_other(params))
    assert_agree(model, params, fp.chain(every_other)(params))  # any function (params, masks) -> masks is a pruner
    assert_agree(model, params, fp.compat.as_pruner(FooBarPruningMethod, where="fc3.bias")(params))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    torch.manual_seed(parser.parse_args(arguments).seed)
    one_module()
    several_tensors()
    global_pruning()
    custom_method()
    print("\nboth forms agree at every step")


if __name__ == "__main__":
    main()
