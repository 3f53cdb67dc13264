"""How the network gets good: stages, estimators, losses, augmentation, rivals."""

from tnet_geo.learning.estimators import leave_one_out, policy_loss
from tnet_geo.learning.losses import list_loss
from tnet_geo.learning.settings import RunSettings, read_run

__all__ = ["RunSettings", "leave_one_out", "list_loss", "policy_loss", "read_run"]
