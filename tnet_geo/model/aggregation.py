"""How the looks of a walk add up: weights over looks, one vector per site.

Every aggregation is additive: site = sum of weight x feature, so a class's logit is its bias plus
one share per look, and evidence is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tnet_geo.model.settings import Aggregation

__all__ = ["GatedAttention", "MeanOfLooks", "aggregation_of"]


class MeanOfLooks(nn.Module):
    """Equal weights; what published TNet does."""

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """features [s, n, F], mask bool [s, n] -> weights [s, n], zero where masked, summing to one."""
        kept = mask.to(features)
        return kept / kept.sum(dim=1, keepdim=True)


class GatedAttention(nn.Module):
    """Learned weights over looks: softmax of w (tanh(V h) * sigmoid(U h)).

    Source: Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning" (ICML 2018).
    """

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.value = nn.Linear(features, hidden)
        self.gate = nn.Linear(features, hidden)
        self.weight = nn.Linear(hidden, 1)

    def logits(self, features: Tensor) -> Tensor:
        """Attention before the softmax: [..., F] -> [...]."""
        hidden = torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features))
        logits: Tensor = self.weight(hidden).squeeze(-1)
        return logits

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """features [s, n, F], mask bool [s, n] -> weights [s, n], zero where masked, summing to one."""
        return torch.softmax(self.logits(features).masked_fill(~mask, -torch.inf), dim=1)


def aggregation_of(name: Aggregation, features: int) -> nn.Module:
    """The aggregation of that name, for feature vectors of length `features`."""
    return MeanOfLooks() if name == "mean" else GatedAttention(features)
