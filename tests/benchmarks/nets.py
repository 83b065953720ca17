"""The nets that are timed."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses


def mlp(*widths: int) -> nn.Sequential:
    """A multilayer perceptron with ReLU between the layers."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class LeNet(nn.Module):
    """The LeNet of the PyTorch pruning tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images of shape (batch, 1, 28, 28)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        out: Tensor = self.fc3(x)
        return out


def cases() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """Model, inputs and labels of every training benchmark."""
    torch.manual_seed(0)
    return {
        "4x Linear(1024), batch 64": (mlp(*[1024] * 5), torch.randn(64, 1024), torch.randint(1024, (64,))),
        "LeNet-300-100, batch 60": (mlp(784, 300, 100, 10), torch.randn(60, 784), torch.randint(10, (60,))),
        "LeNet, batch 64": (LeNet(), torch.randn(64, 1, 28, 28), torch.randint(10, (64,))),
        "50 layers of 16, batch 8": (mlp(*[16] * 51), torch.randn(8, 16), torch.randint(16, (8,))),
    }
