"""One draw of augmentation per site, replayed on every tile, so that all tiles of a walk agree."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it calls home at import otherwise

import albumentations
import numpy as np
from numpy.typing import NDArray

from tnet_geo.learning.settings import AugmentationSettings

__all__ = ["Augmentation", "SiteAugmentation"]

# OpenCV 5 flips at most 128 channels at once; tiles of one site are stacked as channels.
_MOST_CHANNELS = 120


class SiteAugmentation:
    """What was drawn for one site.

    order: int64 [9]; child a of a turned tile shows what child order[a] of the original shows.
    matrix: float32 [2, 2]; turns (row, column) offsets from the centre along with the pixels.
    """

    def __init__(self, drawn: list[tuple[Any, dict[str, Any]]]) -> None:
        self._drawn = drawn
        grid = np.arange(9, dtype=np.uint8).reshape(3, 3)
        self.order = self._turn(grid[:, :, None]).reshape(9).astype(np.int64)
        steps = np.stack([self._place(k) for k in (1, 3)])  # where "one up" and "one left" have gone
        self.matrix: NDArray[np.float32] = -steps.T.astype(np.float32)

    def _place(self, child: int) -> NDArray[np.int64]:
        """Offset from the centre of the place to which `child` has been turned."""
        at = int(np.flatnonzero(self.order == child)[0])
        return np.array([at // 3 - 1, at % 3 - 1])

    @property
    def inverse(self) -> NDArray[np.int64]:
        """Puts nine numbers of a turned tile back into the order of the original's children."""
        return np.argsort(self.order)

    def pixels(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Tiles [n, bands, B, B] with turns and colours applied."""
        return self._by_channels(pixels, self._all)

    def validity(self, validity: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Validity [n, B, B], turned."""
        return self._by_channels(validity[:, None], self._turn)[:, 0]

    def _all(self, image: NDArray[Any]) -> NDArray[Any]:
        for transform, params in self._drawn:
            image = transform.apply(image, **params)
        return image

    def _turn(self, image: NDArray[Any]) -> NDArray[Any]:
        for transform, params in self._drawn:
            if isinstance(transform, albumentations.DualTransform):
                image = transform.apply(image, **params)
        return image

    @staticmethod
    def _by_channels(tiles: NDArray[Any], function: Any) -> NDArray[Any]:
        n, bands, height, width = tiles.shape
        image = np.ascontiguousarray(tiles.reshape(n * bands, height, width).transpose(1, 2, 0))
        parts = [
            function(np.ascontiguousarray(image[:, :, start : start + _MOST_CHANNELS])).reshape(
                height, width, -1
            )
            for start in range(0, n * bands, _MOST_CHANNELS)
        ]
        return np.concatenate(parts, axis=2).transpose(2, 0, 1).reshape(n, bands, height, width)


class Augmentation:
    """Draws one `SiteAugmentation` per site.

    Colours change only for uint8: albumentations scales brightness by the dtype's range, which is not
    that of 16-bit or float sensors.
    """

    def __init__(self, settings: AugmentationSettings, dtype: str) -> None:
        transforms: list[Any] = []
        if settings.turns:
            transforms.append(albumentations.D4(p=1))
        if dtype == "uint8" and (settings.brightness or settings.contrast):
            transforms.append(
                albumentations.RandomBrightnessContrast(
                    brightness_limit=settings.brightness, contrast_limit=settings.contrast, p=1
                )
            )
        self._compose = albumentations.ReplayCompose(transforms)

    def draw(self, seed: int) -> SiteAugmentation:
        """What site and epoch that own `seed` get; the same seed gives the same draw."""
        self._compose.set_random_seed(seed)
        record = self._compose(image=np.zeros((4, 4, 3), np.uint8))["replay"]
        recorded = zip(self._compose.transforms, record["transforms"], strict=True)
        return SiteAugmentation([(transform, entry["params"]) for transform, entry in recorded])
