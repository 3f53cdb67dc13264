"""Rasters behind https:// and s3:// addresses, on servers that run: opened, read, digested, and replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import obstore
import pytest
import rasterio
from obstore.store import S3Store

from tests.file_server import file_server
from tests.imagery.test_raster import whole, write_picture
from tests.object_store import BUCKET, ObjectServer, object_server
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SourceUnreadable
from tnet_geo.imagery.raster import open_raster, source_digest, source_files, source_state
from tnet_geo.imagery.remote import gdal_settings

PIXELS = random_pixels(1, (200, 300))


@dataclass(frozen=True)
class Web:
    folder: Path
    address: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A server of the files of a folder."""
    folder = tmp_path_factory.mktemp("files")
    with file_server(folder) as address:
        yield Web(folder, address)


@pytest.fixture
def web(server: Web, tmp_path: Path) -> Web:
    """A folder of its own on the server."""
    folder = server.folder / tmp_path.name
    folder.mkdir()
    return Web(folder, f"{server.address}/{tmp_path.name}")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with object_server(tmp_path_factory.mktemp("moto") / "log") as server:
        yield server


@pytest.fixture
def s3(bucket: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    """The server, and an environment that knows it."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


def put(server: ObjectServer, key: str, content: bytes) -> None:
    store = S3Store(
        BUCKET,
        endpoint=server.endpoint,
        region="us-east-1",
        access_key_id="testing",
        secret_access_key="testing",
        client_options={"allow_http": True},
    )
    obstore.put(store, key, content)


def check_same(address: str, path: Path) -> None:
    """That an address gives the pixels, header and digest of a local file."""
    with open_raster(address) as there, open_raster(str(path)) as here:
        for name in (
            "bands",
            "dtype",
            "shape",
            "crs",
            "transform",
            "all_valid",
            "tiled",
            "decoded_block_bytes",
        ):
            assert getattr(there.info, name) == getattr(here.info, name)
        found, expected = there.read(whole(there)), here.read(whole(here))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert source_digest(address) == source_digest(str(path))


def test_a_raster_of_a_web_server_is_that_of_its_file(web: Web) -> None:
    path = write_raster(web.folder / "one two" / "scene.tif", PIXELS)
    check_same(f"{web.address}/one%20two/scene.tif", path)


def test_a_sidecar_on_the_server_belongs_to_the_raster(web: Web, tmp_path: Path) -> None:
    mask = np.full((200, 300), 255, np.uint8)
    mask[:50] = 0
    path = write_raster(web.folder / "scene.tif", PIXELS)
    masked = write_raster(tmp_path / "scene.tif", PIXELS, mask, driver="GTiff")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    assert path.with_name("scene.tif.msk").exists()
    check_same(f"{web.address}/scene.tif", path)
    assert source_files(f"{web.address}/scene.tif") == [
        f"{web.address}/scene.tif",
        f"{web.address}/scene.tif.msk",
    ]
    with open_raster(str(masked)) as inside, open_raster(f"{web.address}/scene.tif") as beside:
        np.testing.assert_array_equal(inside.read(whole(inside))[1], beside.read(whole(beside))[1])


def test_a_signed_address_keeps_its_query(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", PIXELS)
    with file_server(tmp_path, "--key", "s%2Fcret") as address:
        signed = f"{address}/scene.tif?key=s%2Fcret&x=1"
        with open_raster(signed) as raster:
            np.testing.assert_array_equal(raster.read(whole(raster))[0], PIXELS)
        assert source_digest(signed) == source_digest(str(path))
        with pytest.raises(SourceUnreadable, match=r"403|not exist|not recognized"):
            open_raster(f"{address}/scene.tif?key=other")


def test_a_file_that_was_replaced_is_not_answered_from_memory(web: Web) -> None:
    source = f"{web.address}/scene.tif"
    path = write_raster(web.folder / "scene.tif", PIXELS)
    check_same(source, path)
    state, etag = source_state(source), source_digest(source, "etag")
    assert (source_state(source), source_digest(source, "etag")) == (state, etag)
    write_raster(path, PIXELS[:, ::-1])
    check_same(source, path)
    assert source_state(source) != state
    assert source_digest(source, "etag") != etag


def test_a_server_without_etags_cannot_be_asked_for_them(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", PIXELS)
    with file_server(tmp_path, "--no-etags") as address:
        assert source_state(f"{address}/scene.tif")[0].mark == "2026-11-21T10:00:00+00:00"
        with pytest.raises(SourceUnreadable, match="gives no ETag"):
            source_digest(f"{address}/scene.tif", "etag")


def test_the_etag_stands_for_remote_files_alone(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", PIXELS)
    assert source_digest(str(path), "etag") == source_digest(str(path))


def test_a_vrt_here_of_a_raster_there(web: Web, tmp_path: Path) -> None:
    path = write_raster(web.folder / "scene.tif", PIXELS[:1])
    vrt = tmp_path / "scene.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="300" rasterYSize="200"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>/vsicurl/{web.address}/scene.tif</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with open_raster(str(vrt)) as raster:
        np.testing.assert_array_equal(raster.read(whole(raster))[0], PIXELS[:1])
    before = source_digest(str(vrt))
    write_raster(path, PIXELS[1:2])
    assert source_digest(str(vrt)) != before


@pytest.mark.parametrize("what", ["half a TIFF", "half a PNG", "text", "nothing", "no server"])
def test_what_a_server_cannot_give_is_one_sentence(web: Web, what: str) -> None:
    source = f"{web.address}/scene"
    if what == "half a TIFF":
        content = write_raster(web.folder / "a.tif", PIXELS).read_bytes()
    elif what == "half a PNG":
        write_picture(web.folder / "a.png", PIXELS, driver="PNG")
        content = (web.folder / "a.png").read_bytes()
    elif what == "no server":
        source = "http://127.0.0.1:9/scene"
    if what.startswith("half"):
        (web.folder / "scene").write_bytes(content[: len(content) // 2])
    elif what == "text":
        (web.folder / "scene").write_text("no picture")
    with pytest.raises(SourceUnreadable) as caught:
        read_all(source)
    assert "\n" not in str(caught.value)
    assert caught.value.source == source


def read_all(source: str) -> None:
    with open_raster(source) as raster:
        raster.read(whole(raster))


def test_a_raster_in_a_bucket_is_that_of_its_file(s3: ObjectServer, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", PIXELS)
    put(s3, "some/scene.tif", path.read_bytes())
    source = f"s3://{BUCKET}/some/scene.tif"
    check_same(source, path)
    state, etag = source_state(source), source_digest(source, "etag")
    assert source_state(source) == state
    put(s3, "some/scene.tif", write_raster(path, PIXELS[:, ::-1]).read_bytes())
    check_same(source, path)
    assert source_state(source) != state
    assert source_digest(source, "etag") != etag


def test_what_is_not_in_a_bucket_is_named(s3: ObjectServer) -> None:
    for ask in (open_raster, source_digest, source_state):
        with pytest.raises(SourceUnreadable, match=r"s3://imagery/absent\.tif"):
            ask(f"s3://{BUCKET}/absent.tif")


def test_a_bucket_without_keys_is_refused_before_anybody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)
    for ask in (open_raster, source_digest, source_state):
        with pytest.raises(SourceUnreadable, match="AWS_ACCESS_KEY_ID"):
            ask(f"s3://{BUCKET}/scene.tif")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"AWS_REGION": "us-east-1"}),
        ({"AWS_DEFAULT_REGION": "eu-central-1"}, {"AWS_REGION": "eu-central-1"}),
        (
            {"AWS_ENDPOINT_URL": "http://host:9000/"},
            {"AWS_S3_ENDPOINT": "host:9000", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"},
        ),
        (
            {"AWS_ENDPOINT_URL": "http://other", "AWS_ENDPOINT_URL_S3": "https://host/minio"},
            {"AWS_S3_ENDPOINT": "host/minio", "AWS_HTTPS": "YES"},
        ),
        ({"AWS_SKIP_SIGNATURE": "true"}, {"AWS_NO_SIGN_REQUEST": "YES"}),
    ],
)
def test_the_usual_environment_in_the_words_of_gdal(
    environment: dict[str, str], expected: dict[str, str]
) -> None:
    settings = gdal_settings(environment)
    assert {name: settings.get(name) for name in expected} == expected
    assert ("AWS_S3_ENDPOINT" in settings) == any("ENDPOINT" in name for name in environment)
