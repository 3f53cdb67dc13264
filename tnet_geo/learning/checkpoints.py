"""A run's folder: what it was asked, what it has learned so far, and where it stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import tomli_w
import torch

from tnet_geo.errors import OutputExists
from tnet_geo.grid import Tile
from tnet_geo.learning.settings import RunSettings
from tnet_geo.learning.targets import ScoreTree

__all__ = ["EpochRow", "RunFolder"]


@dataclass(frozen=True)
class EpochRow:
    """One line of a run's log: what an epoch did and what validation said after it."""

    stage: str
    epoch: int
    """Counted from 1."""
    epochs: int
    train_loss: float
    accuracy: float
    """On the validation sites."""
    loss: float
    tiles: float
    """Tiles per site that the validation accuracy took."""
    seconds: float

    def line(self) -> str:
        """The row as one line for people."""
        return (
            f"{self.stage} {self.epoch}/{self.epochs}: training loss {self.train_loss:.3f}, validation "
            f"{self.accuracy:.3f} with {self.tiles:.1f} tiles a site, {self.seconds:.1f} s"
        )


class RunFolder:
    """`OUT/`: run.toml, epochs.jsonl, checkpoint.pt, scores.npz, bundle/, rivals/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle = path / "bundle"

    def rival(self, name: str) -> Path:
        """Where the bundle of a rival lies."""
        return self.path / "rivals" / name

    def bundles(self) -> list[Path]:
        """What the run has made: the walk's bundle, and those of its finished rivals."""
        return [self.bundle, *sorted((self.path / "rivals").glob("[!.]*"))]

    def open(self, settings: RunSettings, *, fresh: bool) -> None:
        """Create the folder, or go on in it if it holds this very run.

        Raises:
            OutputExists: it holds something else.
        """
        text = tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True, exclude={"threads"}))
        known = self.path / "run.toml"
        ours = known.is_file()
        if ours and fresh:
            shutil.rmtree(self.path)
        elif ours and known.read_text() != text:
            raise OutputExists(
                str(self.path), "it holds a run with other settings; name another folder or pass --fresh"
            )
        elif not ours and self.path.exists() and any(self.path.iterdir()):
            raise OutputExists(str(self.path), "it is not empty and holds no run; name another folder")
        self.path.mkdir(parents=True, exist_ok=True)
        known.write_text(text)

    def log(self, row: EpochRow) -> None:
        """Append one line to the log."""
        with (self.path / "epochs.jsonl").open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def rows(self) -> list[EpochRow]:
        """The log; an epoch that was interrupted and done again counts with its last line."""
        path = self.path / "epochs.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        rows = [EpochRow(**json.loads(line)) for line in lines]
        return list({(row.stage, row.epoch): row for row in rows}.values())

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint atomically."""
        temporary = self.path / f".checkpoint.{uuid4().hex}"
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / "checkpoint.pt")

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, tensors on the CPU; None before the first."""
        path = self.path / "checkpoint.pt"
        if not path.is_file():
            return None
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def save_trees(self, trees: dict[int, ScoreTree]) -> None:
        """Keep the scores that stage B teaches."""
        arrays = {
            f"{n}/{t.root.level}/{t.root.row}/{t.root.col}/{d}": m
            for n, t in trees.items()
            for d, m in enumerate(t.maps)
        }
        temporary = self.path / f".scores.{uuid4().hex}.npz"
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        temporary.rename(self.path / "scores.npz")

    def load_trees(self) -> dict[int, ScoreTree] | None:
        """The scores, by site number; None before they are made."""
        path = self.path / "scores.npz"
        if not path.is_file():
            return None
        with np.load(path) as stored:
            return {n: ScoreTree(root, tuple(maps)) for n, root, maps in _grouped(stored)}


def _grouped(stored: Any) -> Iterator[tuple[int, Tile, list[Any]]]:
    maps: dict[tuple[int, Tile], list[Any]] = {}
    for key in stored.files:  # depths were written in order
        n, level, row, col, _ = (int(part) for part in key.split("/"))
        maps.setdefault((n, Tile(level, row, col)), []).append(stored[key])
    return ((n, root, found) for (n, root), found in maps.items())
