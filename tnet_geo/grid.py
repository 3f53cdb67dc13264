"""Tiles and their laws: which squares exist, which lie inside which, where they lie on the ground.

Pure and exact: integers only, no I/O. With h = half_px, B = 2 h and level l, one pixel covers
2^l x 2^l native pixels, and tile (l, r, c) covers rows [r h, r h + B) and columns [c h, c h + B)
of the pixels of its level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tnet_geo.errors import NoFinerLevel

__all__ = [
    "Tile",
    "Window",
    "child",
    "child_index",
    "children",
    "disjoint_tiles",
    "footprint",
    "last_level",
    "level_shape",
    "parents_of",
    "root_of",
]


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A square of two halves a side on the lattice of one level.

    `level` counts halvings of resolution (0 is native); `row` and `col` count halves, not
    pixels. Sorts by level, row, column: the order in which ties are broken.
    """

    level: int
    row: int
    col: int


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of native pixels: first row and column, height and width.

    >>> Window(row=10, col=0, height=5, width=7).bottom
    15
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below the window, in native pixels."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """First column right of the window, in native pixels."""
        return self.col + self.width

    def touches(self, other: Window) -> bool:
        """Whether the two rectangles share at least one pixel."""
        rows = self.row < other.bottom and other.row < self.bottom
        return rows and self.col < other.right and other.col < self.right

    def contains(self, other: Window) -> bool:
        """Whether every pixel of `other` is one of ours."""
        rows = self.row <= other.row and other.bottom <= self.bottom
        return rows and self.col <= other.col and other.right <= self.right


def level_shape(shape: tuple[int, int], level: int) -> tuple[int, int]:
    """Rows and columns of a raster at `level`, where `shape` is that of level 0.

    Half a pixel at the edge counts as one: sides are divided by 2^level and rounded up.

    >>> level_shape((5, 8), 1)
    (3, 4)
    """
    return -(-shape[0] >> level), -(-shape[1] >> level)


def last_level(shape: tuple[int, int], half_px: int) -> int:
    """The first level at which a raster of `shape` fits into tile (0, 0).

    >>> last_level((512, 512), half_px=32)
    3
    """
    level = 0
    while max(level_shape(shape, level)) > 2 * half_px:
        level += 1
    return level


def footprint(tile: Tile, half_px: int) -> Window:
    """The native pixels that `tile` covers, beyond the scene's border too.

    >>> footprint(Tile(level=1, row=2, col=0), half_px=32)
    Window(row=128, col=0, height=128, width=128)
    """
    step = half_px << tile.level
    return Window(tile.row * step, tile.col * step, 2 * step, 2 * step)


def children(tile: Tile) -> tuple[Tile, ...]:
    """The nine tiles one level finer inside `tile`, half overlapping, in row-major order.

    Index k = 3 i + j is the child i halves down and j halves right: the order of the location
    head's nine logits. Knows nothing of scene borders; candidates are filtered elsewhere.

    >>> children(Tile(level=1, row=2, col=0))[5]
    Tile(level=0, row=5, col=2)

    Raises:
        NoFinerLevel: `tile` is native.
    Source: the 3 x 3 windows of TNet (NeurIPS 2021) on a lattice of halves.
    """
    if tile.level == 0:
        raise NoFinerLevel(tile.level, tile.row, tile.col)
    finer, row, col = tile.level - 1, 2 * tile.row, 2 * tile.col
    return tuple(Tile(finer, row + i, col + j) for i in range(3) for j in range(3))


def child(parent: Tile, k: int) -> Tile:
    """Child `k` of the nine, without the others.

    >>> child(Tile(level=1, row=2, col=0), 5)
    Tile(level=0, row=5, col=2)

    Raises:
        NoFinerLevel: `parent` is native.
    """
    if parent.level == 0:
        raise NoFinerLevel(parent.level, parent.row, parent.col)
    return Tile(parent.level - 1, 2 * parent.row + k // 3, 2 * parent.col + k % 3)


def child_index(parent: Tile, child: Tile) -> int:
    """Which of the parent's nine children `child` is.

    >>> child_index(Tile(1, 2, 0), Tile(0, 5, 2))
    5

    Raises:
        ValueError: `child` is none of them.
    """
    return children(parent).index(child)


def parents_of(tile: Tile) -> tuple[Tile, ...]:
    """The tiles one level coarser that have `tile` among their children: one, two or four.

    >>> parents_of(Tile(0, 1, 2))
    (Tile(level=1, row=0, col=0), Tile(level=1, row=0, col=1))
    """
    rows, cols = _parent_steps(tile.row), _parent_steps(tile.col)
    return tuple(Tile(tile.level + 1, row, col) for row in rows for col in cols)


def _parent_steps(step: int) -> range:
    """Parents along one axis: 2 p <= step <= 2 p + 2, p not negative."""
    return range(max(0, (step - 1) // 2), step // 2 + 1)


def root_of(window: Window, half_px: int) -> Tile:
    """The finest tile that contains the whole window.

    Of several, the one whose centre is nearest to the window's, then the lowest row, then the
    lowest column.

    >>> root_of(Window(row=0, col=0, height=512, width=512), half_px=32)
    Tile(level=3, row=0, col=0)

    Raises:
        ValueError: the window is empty or begins at a negative pixel.
    """
    if min(window.height, window.width) < 1 or min(window.row, window.col) < 0:
        raise ValueError(f"a window needs pixels and a place on the raster, not {window}")
    level = 0
    while True:
        row = _containing_step(window.row, window.height, half_px << level)
        col = _containing_step(window.col, window.width, half_px << level)
        if row is not None and col is not None:
            return Tile(level, row, col)
        level += 1


def _containing_step(start: int, length: int, step: int) -> int | None:
    """Along one axis, the lattice step whose two halves contain the span and are centred best."""
    first = max(0, -(-(start + length) // step) - 2)
    last = start // step
    if first > last:
        return None
    # Twice the distance of centres, so that halves of pixels stay integers; min keeps the first.
    return min(range(first, last + 1), key=lambda k: abs(2 * (k + 1) * step - 2 * start - length))


def disjoint_tiles(
    window: Window, level: int, half_px: int, offset: tuple[int, int] = (0, 0)
) -> Iterator[Tile]:
    """Tiles of one level that together cover `window` without overlap, row by row.

    `offset` (0 or 1 half, down and right) shifts the lattice of tiles; what the shift uncovers at
    the upper and left side stays uncovered, so cover everything with (0, 0).

    >>> [tile.col for tile in disjoint_tiles(Window(0, 0, 64, 128), level=0, half_px=32)]
    [0, 2]
    """
    step = half_px << level
    for row in range(window.row // step // 2 * 2 + offset[0], -(-window.bottom // step), 2):
        for col in range(window.col // step // 2 * 2 + offset[1], -(-window.right // step), 2):
            yield Tile(level, row, col)
