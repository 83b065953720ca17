"""Pruned modules in the rest of PyTorch: files, copies, recurrent and attention layers, processes, compilers."""

import copy
import io
import operator
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.optim.swa_utils import AveragedModel

import funcprune as fp
from funcprune.compat import prune


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"pickle": lambda model: pickle.loads(pickle.dumps(model)), "torch.save": saved, "deepcopy": copy.deepcopy}


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), torch.randn(2, 1, 4, 4)


def lstm():
    return nn.LSTM(4, 3, num_layers=2, bidirectional=True), torch.randn(5, 2, 4)


def encoder():
    return nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), torch.randn(2, 3, 4)


def stack():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 3, 4)


MODELS = {"net": net, "lstm": lstm, "encoder": encoder, "stack": stack}


def output(model, x):
    out = model(x)
    return out[0] if isinstance(out, tuple) else out


def pruned(kind):
    torch.manual_seed(0)
    model, x = MODELS[kind]()
    masks = fp.l1_unstructured(0.5, scope="global", where="*")(dict(model.named_parameters()))
    return fp.compat.install(model, masks), x


@pytest.mark.parametrize("copier", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("moment", ["before", "forward", "backward"])
def test_copies_live_on_their_own(kind, copier, moment):
    model, x = pruned(kind)
    if moment != "before":
        out = output(model, x)
        if moment == "backward":
            out.square().sum().backward()
    copied = copier(model)
    assert prune.is_pruned(copied)
    assert list(copied.state_dict()) == list(model.state_dict())
    assert torch.equal(output(copied, x), output(model, x))
    before = fp.compat.extract(model)
    values = {name: parameter.detach().clone() for name, parameter in before[0].items()}

    optimizer = torch.optim.SGD(copied.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        output(copied, x).square().sum().backward()
        optimizer.step()
    params, masks = fp.compat.extract(copied)
    assert not any(torch.equal(params[name], values[name]) for name in params if masks[name].any())
    assert all(parameter.grad[~masks[name]].eq(0).all() for name, parameter in params.items())
    out = output(copied, x)
    assert torch.equal(output(fp.compat.bake(copied), x), out)
    assert all(torch.equal(parameter, values[name]) for name, parameter in fp.compat.extract(model)[0].items())
    assert fp.masks.equal(fp.compat.extract(model)[1], before[1])


@pytest.mark.parametrize("kind", MODELS)
def test_averaged_models(kind):
    model, x = pruned(kind)
    averaged = AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        output(model, x).square().sum().backward()
        optimizer.step()
        averaged.update_parameters(model)
    params, masks = fp.compat.extract(averaged)
    assert fp.masks.equal({f"module.{name}": mask for name, mask in fp.compat.extract(model)[1].items()}, masks)
    out = output(averaged, x)
    expected = fp.masked_call(fp.compat.clean(averaged), params, masks, x)
    assert torch.equal(out, expected[0] if isinstance(expected, tuple) else expected)
    assert not torch.equal(out, output(model, x))
    assert torch.equal(output(fp.compat.bake(averaged), x), out)


@pytest.mark.parametrize("kind", ["lstm", "encoder"])
@pytest.mark.parametrize("module", [prune, torch_prune])
def test_the_functions_prune_recurrent_and_attention_layers(kind, module):
    torch.manual_seed(0)
    model, x = MODELS[kind]()
    if kind == "lstm":
        entries = [(model, "weight_ih_l0"), (model, "weight_hh_l1"), (model, "bias_ih_l0_reverse")]
    else:
        entries = [(model.self_attn, "in_proj_weight"), (model.linear1, "weight"), (model.linear2, "bias")]
    expected = copy.deepcopy(model)
    module.global_unstructured(entries, module.L1Unstructured, amount=0.5)
    params, masks = fp.compat.extract(model)
    params = {name: params[name] for name, _ in expected.named_parameters()}
    masks = {name: masks[name] for name in params}
    for training in (True, False):
        model.train(training)
        expected.train(training)
        wanted = fp.masked_call(expected, params, masks, x)
        assert torch.allclose(output(model, x), wanted[0] if isinstance(wanted, tuple) else wanted, atol=1e-6)
    with torch.no_grad():  # where the encoder would take its fused path, which reads weights uncalled
        wanted = fp.masked_call(expected, params, masks, x)
        assert torch.allclose(output(model, x), wanted[0] if isinstance(wanted, tuple) else wanted, atol=1e-6)
    if kind == "lstm":
        assert all(map(operator.is_, flat(model), model._flat_weights))
        out = output(model, x)
        fp.compat.bake(model)
        assert all(map(operator.is_, flat(model), model._flat_weights))
        assert torch.equal(output(model, x), out)


def test_a_class_that_copies_itself_still_does():
    class Own(nn.Linear):
        def __deepcopy__(self, memo):
            made = type(self)(self.in_features, self.out_features)
            made.own = True
            return made

    model = Own(2, 2)
    prune.l1_unstructured(model, "weight", 1)
    assert copy.deepcopy(model).own


def test_a_model_without_data_takes_a_pruned_checkpoint():
    pruned, x = prune.l1_unstructured(nn.Linear(3, 2), "weight", 2), torch.randn(4, 3)
    for module in (torch_prune, prune):
        with torch.device("meta"):
            layer = module.identity(nn.Linear(3, 2), "weight")
        layer.load_state_dict(pruned.state_dict(), assign=True)
        assert torch.equal(layer(x), pruned(x))


def test_moving_and_converting_takes_masks_along():
    model, x = pruned("net")
    expected = fp.masked_call(fp.compat.clean(model).double(), *double(model), x.double())
    model.double()
    assert model[0].weight_mask.dtype == torch.float64
    assert torch.equal(model(x.double()), expected)
    prune.l1_unstructured(model[0], "weight", 2)
    assert model[0].weight_mask.dtype == torch.float64


def flat(model):
    return [getattr(model, name) for name in model._flat_weights_names]


def double(model):
    params, masks = fp.compat.extract(copy.deepcopy(model))
    return {name: parameter.double() for name, parameter in params.items()}, masks


@pytest.mark.parametrize("kind", ["net", "encoder"])
def test_compiled(kind):
    model, x = pruned(kind)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(output(compiled, x), output(model, x), atol=1e-6)
    gradients = torch.autograd.grad(output(compiled, x).square().sum(), list(model.parameters()))
    expected = torch.autograd.grad(output(model, x).square().sum(), list(model.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients, expected, strict=True))


@pytest.mark.filterwarnings("ignore:.*side effects happened", "ignore:The tensor attribute")  # what a hook does
@pytest.mark.parametrize("strict", [False, True])
def test_exported(strict):
    model, x = pruned("net")
    model.eval()
    program = torch.export.export(model, (x,), strict=strict)
    assert torch.allclose(program.module()(x), model(x), atol=1e-6)


WORKER = """
import datetime, sys, torch
import torch.distributed as dist
from torch import nn
import funcprune as fp
from funcprune.compat import prune

rank, path = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=60))

def same(tensor):
    both = [torch.empty_like(tensor) for _ in range(2)]
    dist.all_gather(both, tensor)
    return torch.equal(*both)

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
prune.ln_structured(model[0], "weight", 2, 2, 0)
fp.compat.install(model, fp.l1_unstructured(0.5, scope="global")(*fp.compat.extract(model)))
ddp = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(ddp.parameters(), 0.1)
torch.manual_seed(rank)  # other data, and another global generator, on each rank
for _ in range(3):
    optimizer.zero_grad()
    ddp(torch.randn(4, 6)).square().sum().backward()
    optimizer.step()
params, masks = fp.compat.extract(ddp.module)
for name, parameter in params.items():
    assert same(parameter.detach()), name
    if masks[name] is not None:
        assert not parameter.grad[~masks[name]].any(), name

theirs = nn.Linear(64, 64)
torch.nn.utils.prune.random_unstructured(theirs, "weight", 0.5)
assert not same(theirs.weight_mask)
seeded = fp.random_unstructured(0.5, seed=0)(*fp.compat.extract(nn.Linear(64, 64)))
assert same(seeded["weight"].float())
fp.compat.bake(ddp.module)
assert not prune.is_pruned(ddp)
dist.destroy_process_group()
print("done", rank)
"""


def test_a20_two_processes_train_one_pruned_model_and_draw_one_mask(tmp_path):
    # sparseml#429, nni#5205: pruning at random after wrapping gives each rank a mask of its own.
    (tmp_path / "worker.py").write_text(textwrap.dedent(WORKER))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = str(Path(fp.__file__).parents[1])
    command = [sys.executable, "-W", "error", str(tmp_path / "worker.py")]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)
