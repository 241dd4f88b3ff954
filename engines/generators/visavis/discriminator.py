"""What tells true mouths and eyes from drawn ones while `visavis` learns."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Discriminator(nn.Module):
    """Patches of a crop, real or made (paper 003's mouth discriminator; hinge loss). Gives its features as well."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.first = nn.Conv2d(3, width, 4, 2, 1)
        self.second = spectral(nn.Conv2d(width, width * 2, 4, 2, 1))
        self.third = spectral(nn.Conv2d(width * 2, width * 4, 3, 1, 1))
        self.last = nn.Conv2d(width * 4, 1, 3, 1, 1)

    def forward(self, crop: Tensor) -> tuple[Tensor, list[Tensor]]:
        a = F.leaky_relu(self.first(crop * 2 - 1), 0.2)
        b = F.leaky_relu(self.second(a), 0.2)
        c = F.leaky_relu(self.third(b), 0.2)
        return self.last(c), [a, b, c]
