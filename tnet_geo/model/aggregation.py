"""How the looks of a walk add up: weights over looks, one vector per site.

Every aggregation is additive: site = sum of weight x feature, so a class's logit is its bias plus
one share per look, and evidence is exact. That is a decomposition, not what would change if a look
were missing: the weights of the others would change too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.model.settings import Aggregation

__all__ = ["FeatureWeighting", "GatedAttention", "LearnToPayAttention", "MeanOfLooks", "aggregation_of"]


def _mean(features: Tensor, mask: Tensor) -> Tensor:
    """Mean [s, 1, F] of the looks that exist."""
    kept = mask.to(features).unsqueeze(-1)
    return (features * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True)


class MeanOfLooks(nn.Module):
    """Equal weights; what published TNet does on fMoW."""

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """features [s, n, F], mask bool [s, n] -> weights [s, n], zero where masked, summing to one."""
        kept = mask.to(features)
        return kept / kept.sum(dim=1, keepdim=True)


class _Attention(nn.Module):
    """Weights that are a softmax over the looks of a site."""

    def logits(self, features: Tensor, mask: Tensor) -> Tensor:
        """Attention before the softmax: [s, n, F] -> [s, n]."""
        raise NotImplementedError

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """features [s, n, F], mask bool [s, n] -> weights [s, n], zero where masked, summing to one."""
        return torch.softmax(self.logits(features, mask).masked_fill(~mask, -torch.inf), dim=1)


class GatedAttention(_Attention):
    """Learned weights over looks: softmax of w (tanh(V h) * sigmoid(U h)).

    Source: Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning" (ICML 2018).
    """

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.value = nn.Linear(features, hidden)
        self.gate = nn.Linear(features, hidden)
        self.weight = nn.Linear(hidden, 1)

    def logits(self, features: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 (an attention's)
        """See `_Attention`."""
        hidden = torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features))
        logits: Tensor = self.weight(hidden).squeeze(-1)
        return logits


class FeatureWeighting(_Attention):
    """Published TNet's weights on CUB and NABirds: channels gated by the mean of the looks, then scored.

    Source: TNet (NeurIPS 2021), reference code.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(features, features // 4)
        self.expand = nn.Linear(features // 4, features)
        self.score = nn.Linear(features, 1)

    def logits(self, features: Tensor, mask: Tensor) -> Tensor:
        """See `_Attention`."""
        gate = torch.sigmoid(self.expand(functional.silu(self.reduce(_mean(features, mask)))))
        logits: Tensor = self.score(gate * features).squeeze(-1)
        return logits


class LearnToPayAttention(_Attention):
    """Compatibility of each look with the mean of all: scaled dot product of linear maps of both.

    Source: Jetley et al., "Learn To Pay Attention" (ICLR 2018), with looks in place of positions. Its
    other score, a learned vector times the sum of both, does not depend on the mean: softmax cancels it.
    """

    def __init__(self, features: int, hidden: int = 256) -> None:
        super().__init__()
        self.local = nn.Linear(features, hidden, bias=False)
        self.whole = nn.Linear(features, hidden, bias=False)

    def logits(self, features: Tensor, mask: Tensor) -> Tensor:
        """See `_Attention`."""
        local, whole = self.local(features), self.whole(_mean(features, mask))
        logits: Tensor = (local * whole).sum(dim=-1) / float(local.shape[-1]) ** 0.5
        return logits


def aggregation_of(name: Aggregation, features: int) -> nn.Module:
    """The aggregation of that name, for feature vectors of length `features`."""
    if name == "mean":
        return MeanOfLooks()
    kinds: dict[str, type[FeatureWeighting | GatedAttention | LearnToPayAttention]] = {
        "gated_attention": GatedAttention,
        "feature_weighting": FeatureWeighting,
        "ltpa": LearnToPayAttention,
    }
    return kinds[name](features)
