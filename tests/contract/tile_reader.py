"""What every TileReader must do, whatever it reads: subclass and give a fixture `reader`."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from tnet_geo.grid import Tile
from tnet_geo.pyramid.tiles import TileReader


def lattice(reader: TileReader) -> list[Tile]:
    """Every tile of every level that holds a pixel of the scene."""
    half = reader.spec.half_px
    return [
        Tile(level, row, col)
        for level, (rows, cols) in enumerate(reader.spec.shapes)
        for row in range(-(-rows // half))
        for col in range(-(-cols // half))
    ]


class TileReaderContract:
    """Tests of the protocol; the fixture `reader` gives one whose scene is larger than a tile."""

    def test_a_batch_has_the_shape_and_type_that_the_spec_says(self, reader: TileReader) -> None:
        spec = reader.spec
        batch = reader.read([Tile(0, 0, 0), Tile(spec.levels - 1, 0, 0)])
        assert batch.pixels.shape == (2, spec.bands, spec.base_px, spec.base_px)
        assert batch.pixels.dtype == np.dtype(spec.dtype)
        assert batch.validity.shape == (2, spec.base_px, spec.base_px)
        assert batch.validity.dtype == np.uint8

    def test_a_batch_equals_its_tiles_read_one_by_one(self, reader: TileReader) -> None:
        asked = [Tile(0, 1, 1), Tile(1, 0, 0), Tile(0, 0, 0), Tile(0, 1, 1)]
        alone = [reader.read([tile]) for tile in asked]
        batch = reader.read(asked)
        np.testing.assert_array_equal(batch.pixels, np.concatenate([one.pixels for one in alone]))
        np.testing.assert_array_equal(batch.validity, np.concatenate([one.validity for one in alone]))

    def test_tiles_agree_where_they_overlap(self, reader: TileReader) -> None:
        half = reader.spec.half_px
        left, right = reader.read([Tile(0, 0, 0), Tile(0, 0, 1)]).pixels
        np.testing.assert_array_equal(left[:, :, half:], right[:, :, :half])

    def test_no_tiles_are_an_empty_batch(self, reader: TileReader) -> None:
        batch = reader.read([])
        assert batch.pixels.shape == (0, reader.spec.bands, reader.spec.base_px, reader.spec.base_px)
        assert batch.validity.shape == (0, reader.spec.base_px, reader.spec.base_px)

    def test_ground_beyond_the_scene_is_zero_and_invalid(self, reader: TileReader) -> None:
        beyond = reader.read([Tile(0, 9_999, 9_999), Tile(0, 0, 9_999), Tile(60, 0, 0)])
        assert not beyond.pixels.any()
        assert not beyond.validity.any()

    def test_the_part_of_a_tile_beyond_the_edge_is_zero_and_invalid(self, reader: TileReader) -> None:
        rows, cols = reader.spec.shape
        half = reader.spec.half_px
        corner = Tile(0, (rows - 1) // half, (cols - 1) // half)
        batch = reader.read([corner])
        inside_rows, inside_cols = rows - corner.row * half, cols - corner.col * half
        assert not batch.pixels[0, :, inside_rows:].any()
        assert not batch.pixels[0, :, :, inside_cols:].any()
        assert not batch.validity[0, inside_rows:].any()
        assert not batch.validity[0, :, inside_cols:].any()

    def test_a_batch_over_many_chunks_and_levels_comes_in_the_order_asked(self, reader: TileReader) -> None:
        tiles = lattice(reader)
        forward, backward = reader.read(tiles), reader.read(tiles[::-1])
        np.testing.assert_array_equal(forward.pixels, backward.pixels[::-1])
        np.testing.assert_array_equal(forward.validity, backward.validity[::-1])

    def test_submitted_batches_equal_those_that_are_read(self, reader: TileReader) -> None:
        batches = [[tile] for tile in lattice(reader)[:20]]
        futures = [reader.submit(batch) for batch in batches]
        assert not wait(futures, timeout=60).not_done
        for batch, future in zip(batches, futures, strict=True):
            np.testing.assert_array_equal(future.result().pixels, reader.read(batch).pixels)

    def test_batches_submitted_at_once_equal_those_read_one_after_another(self, reader: TileReader) -> None:
        tiles = lattice(reader)[:24]
        batches = [tiles[n % 5 :: 2] for n in range(12)]
        futures = [reader.submit(batch) for batch in batches]
        for batch, future in zip(batches, futures, strict=True):
            found, alone = future.result(timeout=60), reader.read(batch)
            np.testing.assert_array_equal(found.pixels, alone.pixels)
            np.testing.assert_array_equal(found.validity, alone.validity)

    def test_what_does_not_count_is_zero(self, reader: TileReader) -> None:
        batch = reader.read(lattice(reader))
        assert not batch.pixels[np.broadcast_to((batch.validity == 0)[:, None], batch.pixels.shape)].any()
        assert np.isfinite(batch.pixels).all()
        if reader.spec.nodata is not None:
            assert not (batch.pixels == reader.spec.nodata).any() or reader.spec.nodata == 0

    def test_the_meter_counts_a_tile_once_per_call_with_its_chunks(self, reader: TileReader) -> None:
        tile, spec = Tile(0, 0, 0), reader.spec
        reader.meter.reset()
        reader.read([tile, tile])
        assert reader.meter.tiles == 1
        assert reader.meter.chunks == spec.tile_chunks(tile)
        assert reader.meter.bytes_decoded == spec.tile_bytes(tile)
        reader.submit([tile]).result()
        assert reader.meter.tiles == 2
        assert reader.meter.reset().bytes_decoded == 2 * spec.tile_bytes(tile)
        assert reader.meter.bytes_decoded == 0

    def test_ground_beyond_the_scene_costs_no_bytes(self, reader: TileReader) -> None:
        reader.meter.reset()
        reader.read([Tile(0, 9_999, 9_999)])
        assert reader.meter.bytes_decoded == reader.meter.chunks == 0

    def test_many_threads_read_what_one_reads_and_are_all_counted(self, reader: TileReader) -> None:
        tiles = lattice(reader)[:40]
        expected = reader.read(tiles)
        reader.meter.reset()
        with ThreadPoolExecutor(8) as threads:
            batches = list(threads.map(lambda tile: reader.read([tile]), tiles))
        np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in batches]), expected.pixels)
        assert reader.meter.tiles == len(tiles)
        assert reader.meter.bytes_decoded == sum(map(reader.spec.tile_bytes, tiles))

    def test_a_pickled_reader_reads_the_same_and_has_its_meter_at_zero(self, reader: TileReader) -> None:
        before = reader.read([Tile(0, 0, 0)])
        twin = pickle.loads(pickle.dumps(reader))
        assert twin.spec == reader.spec
        assert twin.meter.tiles == 0
        np.testing.assert_array_equal(twin.read([Tile(0, 0, 0)]).pixels, before.pixels)
        assert reader.meter.tiles >= 1
