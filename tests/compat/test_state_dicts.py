"""Checkpoints: pruned ones into dense ones and masks, and back."""

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

import funcprune as fp
from funcprune.compat import prune

from . import strategies


@given(strategies.worlds, st.sampled_from([prune, torch_prune]), st.lists(strategies.calls, max_size=3))
def test_nothing_is_lost_either_way(world, module, calls):
    model = world.model()
    for call in calls:
        try:
            call(prune, world.model())
        except Exception:
            continue  # a bad call
        try:
            call(module, model)
        except ValueError:
            return  # more than what is left: torch's functions leave a broken module
    state = model.state_dict()
    dense, masks = fp.compat.split_state_dict(state)
    assert dense.keys() == masks.keys() == world.model().state_dict().keys()
    fresh = world.model()
    fresh.load_state_dict(dense)
    assert fp.masks.equal({name: masks[name] for name in dict(fresh.named_parameters())}, fp.compat.extract(model)[1])

    joined = fp.compat.join_state_dict(dense, masks)
    assert joined.keys() == state.keys()
    assert all(torch.equal(joined[name], state[name]) for name in state)
    assert joined._metadata == state._metadata
    model.load_state_dict(joined)

    installed = fp.compat.install(fresh, masks)
    assert torch.equal(installed(world.inputs()), model(world.inputs()))
    installed.load_state_dict(state)


class Masked(nn.Module):
    """A module whose own buffers and parameters have the names pruning uses."""

    def __init__(self):
        super().__init__()
        self.attn = nn.Parameter(torch.ones(2, 2))
        self.register_buffer("attn_mask", torch.ones(2, 2))
        self.register_parameter("first_orig", nn.Parameter(torch.ones(2)))
        self.register_buffer("first_mask", torch.ones(3))
        self.linear = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)


def test_names_that_merely_end_alike_are_untouched():
    model = Masked()
    prune.l1_unstructured(model.linear, "weight", 2)
    state = model.state_dict()
    dense, masks = fp.compat.split_state_dict(state)
    assert [name for name, mask in masks.items() if mask is not None] == ["linear.weight"]
    for name in ("attn", "attn_mask", "first_orig", "first_mask", "norm.num_batches_tracked"):
        assert dense[name] is state[name]
    Masked().load_state_dict(dense)


def test_masks_of_parameters_alone_join_a_whole_state():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    masks = fp.l1_unstructured(0.5, where="0.weight")(dict(model.named_parameters()))
    joined = fp.compat.join_state_dict(model.state_dict(), masks)
    installed = fp.compat.install(model, masks)
    assert joined.keys() == installed.state_dict().keys()
    installed.load_state_dict(joined)


def test_masks_of_a_checkpoint_fit_a_model_whose_layer_has_two_names():
    def make():
        layer = nn.Linear(3, 3)
        return nn.Sequential(layer, nn.Tanh(), layer)

    model = make()
    prune.l1_unstructured(model[0], "weight", 4)
    dense, masks = fp.compat.split_state_dict(model.state_dict())
    restored = make()
    restored.load_state_dict(dense)
    fp.compat.install(restored, masks)
    x = torch.randn(2, 3)
    assert torch.equal(restored(x), model(x))
    with pytest.raises(ValueError, match=r"'2\.weight' is tied"):
        fp.compat.install(make(), masks | {"2.weight": None})


def test_files_load_safely():
    model = prune.l1_unstructured(nn.Linear(3, 2), "weight", 2)
    file = io.BytesIO()
    torch.save(fp.compat.split_state_dict(model.state_dict()), file)
    file.seek(0)
    dense, masks = torch.load(file, weights_only=True)
    assert int(masks["weight"].sum()) == 4
    nn.Linear(3, 2).load_state_dict(dense)


WEIGHT = {"weight": torch.ones(2, 2)}
KEPT = torch.ones(2, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (
            ValueError,
            "other than 0 and 1",
            lambda: fp.compat.split_state_dict({"w_orig": torch.ones(1), "w_mask": torch.tensor([0.5])}),
        ),
        (ValueError, "did you mean 'weight'", lambda: fp.compat.join_state_dict(WEIGHT, {"wait": None, "weigh": None})),
        (ValueError, "'weight'.*shape", lambda: fp.compat.join_state_dict(WEIGHT, {"weight": torch.ones(2).bool()})),
        (
            ValueError,
            "entry 'weight_mask' of its own",
            lambda: fp.compat.join_state_dict(WEIGHT | {"weight_mask": torch.ones(2)}, {"weight": KEPT}),
        ),
        (TypeError, "expected a tensor", lambda: fp.compat.join_state_dict({"weight": 3}, {"weight": KEPT})),
        (TypeError, "'weight'.*dtype", lambda: fp.compat.join_state_dict(WEIGHT, {"weight": torch.ones(2, 2)})),
    ],
)
def test_what_does_not_fit_is_refused(error, words, call):
    with pytest.raises(error, match=words):
        call()
