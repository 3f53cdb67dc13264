"""Columns of the tables, rows before they are stored, and the record of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt

from tnet_geo.grid import Window
from tnet_geo.trail import Answer

__all__ = ["FAILED", "PREDICTIONS", "TABLES", "TRAILS", "PredictionRow", "RunRecord"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What ids of runs and names of parts look like: they become names of files."""

_WINDOW = [(name, pa.int64()) for name in ("row_off", "col_off", "height", "width")]
_PLACE = [
    ("lon", pa.float64()),
    ("lat", pa.float64()),
    ("bbox", pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])),
    ("geometry", pa.binary()),
]

PREDICTIONS = pa.schema(
    [
        pa.field("site_id", pa.string(), nullable=False),
        pa.field("scene_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        ("confidence", pa.float64()),
        ("expected", pa.string()),
        ("split", pa.string()),
        ("date", pa.string()),
        ("tiles", pa.int32()),
        ("bytes_decoded", pa.int64()),
        ("ended_by", pa.string()),
        ("logit", pa.float64()),
        ("bias", pa.float64()),
        ("probabilities", pa.list_(pa.float32())),
        *_WINDOW,
        *_PLACE,
    ]
)
"""One row per site that was answered."""

TRAILS = pa.schema(
    [
        pa.field("site_id", pa.string(), nullable=False),
        *((name, pa.int32()) for name in ("look", "depth", "level", "row", "col", "parent")),
        ("probability", pa.float64()),
        ("path_log_probability", pa.float64()),
        ("evidence", pa.float64()),
        *_WINDOW,
        *_PLACE,
    ]
)
"""One row per look."""

FAILED = pa.schema(
    [pa.field("site_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)
"""One row per site that was set aside."""

TABLES = {"predictions": PREDICTIONS, "trails": TRAILS, "failed": FAILED}
"""Schema of each table by its name, which is the name of its folder too."""


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One site's answer beside what the manifest and the archive know of it."""

    answer: Answer
    scene_id: str
    window: Window
    """The site, in native pixels of its scene."""
    half_px: int
    """Lattice step that the network looked with, in pixels of any level."""
    expected: str | None = None
    """The manifest's label."""
    split: str | None = None
    date: str | None = None
    """ISO 8601, as the manifest has it."""
    crs: str | None = None
    """Of the scene: WKT or authority code. None: no coordinates are written."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine a, b, c, d, e, f of the scene: x = a col + b row + c, y = d col + e row + f."""


class RunRecord(BaseModel):
    """What a finished run says of itself: `RESULTS/runs/<id>.json`, written when all parts are there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["tnet-geo results"] = "tnet-geo results"
    version: Literal[1] = 1
    id: Annotated[str, Field(pattern=NAME)]
    finished: str
    """ISO 8601, UTC. Of several runs the one that finished last is the latest."""
    classes: tuple[str, ...]
    """In the order of `predictions.probabilities`."""
    archive: str
    bundle: str
    manifest: str
    split: str | None = None
    """The manifest's split that was classified; None: all sites."""
    selected: NonNegativeInt
    answered: NonNegativeInt
    set_aside: NonNegativeInt
    seconds: float
    """Wall time of the run."""
    settings: dict[str, JsonValue] = {}
    """What else names the answers: keep, base_px, device, ..."""
    predicted: dict[str, JsonValue] = {}
    """What the walks of this run were expected to take, before they began: tiles, bytes, seconds, ..."""
    measured: dict[str, JsonValue] = {}
    """What they took; both without sites whose parts were there already."""
    versions: dict[str, str] = {}
    host: str = ""
    machine: str = ""
