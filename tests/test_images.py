"""Image files: which may be read, what is known of them, and the pixels that a model gets."""

from __future__ import annotations

import hashlib
import io
import os
import random
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weitiao.errors import DataError
from weitiao.images import EXTENSIONS, MOST_BYTES, ORIENTATION, TURNS, allowed_path, image_facts, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def picture(height: int = 6, width: int = 9) -> Image.Image:
    """A red corner at the top left, green at the top right, blue at the bottom left."""
    image = Image.new("RGB", (width, height), "white")
    for at, colour in (((0, 0), RED), ((width - 1, 0), GREEN), ((0, height - 1), BLUE)):
        image.putpixel(at, colour)
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    image.save(buffer := io.BytesIO(), form, **options)
    return buffer.getvalue()


def saved(path: Path, image: Image.Image, form: str = "PNG", **options: Any) -> str:
    path.write_bytes(encoded(image, form, **options))
    return str(path)


def png_of(height: int, width: int, rows: int = 0) -> bytes:
    """A grey PNG that claims its size and holds as many rows."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes((width + 1) * rows))),
        (b"IEND", b""),
    ]
    whole = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + whole


def error_of(call: Callable[..., Any], *arguments: Any) -> str:
    """The one line that a call is refused with; it has ten seconds."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call(*arguments)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "hangs"
    assert [isinstance(error, DataError) for error in caught] == [True], caught
    message = str(caught[0])
    assert "\n" not in message
    assert len(message) < 1000
    return message


def refused(name: str, root: Path) -> str:
    message = error_of(allowed_path, name, str(root))
    assert message.startswith("image '"), message
    return message


# -- which may be read


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with 1.png and in/2.png, beside secret.png."""
    (tmp_path / "photos" / "in").mkdir(parents=True)
    for name in ("secret.png", "photos/1.png", "photos/in/2.png"):
        saved(tmp_path / name, picture())
    return tmp_path / "photos"


@pytest.mark.parametrize("name", ["1.png", "./1.png", "in/../1.png", "in//2.png"])
def test_what_lies_below_the_root_is_given_as_an_absolute_path(photos: Path, name: str) -> None:
    assert allowed_path(name, str(photos)) == str((photos / name).resolve())
    assert allowed_path(str(photos / name), str(photos)) == str((photos / name).resolve())


def test_a_relative_root(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    assert allowed_path("1.png", "photos") == str(photos / "1.png")
    assert allowed_path("photos/1.png", ".") == str(photos / "1.png")


@pytest.mark.parametrize("name", ["../secret.png", "in/../../secret.png", "/etc/hostname", "in/../../photos2/1.png"])
def test_what_lies_elsewhere_is_refused(photos: Path, name: str) -> None:
    (photos.parent / "photos2").mkdir()
    saved(photos.parent / "photos2" / "1.png", picture())
    assert f"is not in {photos}; move it there, or set data.images" in refused(name, photos)


def test_no_link_leads_out(photos: Path) -> None:
    (photos / "link.png").symlink_to(photos.parent / "secret.png")
    (photos / "up").symlink_to(photos.parent)
    (photos / "inside.png").symlink_to("in/2.png")
    assert "is not in" in refused("link.png", photos)
    assert "is not in" in refused("up/secret.png", photos)
    assert allowed_path("inside.png", str(photos)) == str(photos / "in" / "2.png")


def test_the_root_may_be_a_link(photos: Path) -> None:
    (photos.parent / "album").symlink_to(photos)
    assert allowed_path("1.png", str(photos.parent / "album")) == str(photos / "1.png")


def test_links_in_a_circle_are_refused(photos: Path) -> None:
    (photos / "a.png").symlink_to("b.png")
    (photos / "b.png").symlink_to("a.png")
    refused("a.png", photos)


def test_the_home_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photos.parent))
    assert allowed_path("~/photos/1.png", str(photos)) == str(photos / "1.png")
    assert allowed_path("1.png", "~/photos") == str(photos / "1.png")
    assert "is not in" in refused("~/secret.png", photos)
    saved(photos / "~1.png", picture())
    assert allowed_path("~1.png", str(photos)) == str(photos / "~1.png")


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1/1.png", "file:///etc/hostname", "data:image/png;base64,iVBORw0KGgo="]
)
def test_addresses_are_refused(photos: Path, name: str) -> None:
    assert "is an address; wanted a file, so download it first" in refused(name, photos)


@pytest.mark.parametrize("name", ["no.png", "no/1.png", "1.png/2.png", "in", ".", "", "1.png\n"])
def test_what_is_no_file_is_refused(photos: Path, name: str) -> None:
    assert "no such file" in refused(name, photos)


@pytest.mark.parametrize("name", ["a\0.png", "长" * 5000 + ".png", "d/" * 5000 + "1.png"])
def test_impossible_names_are_refused(photos: Path, name: str) -> None:
    assert "is no path that can be read" in refused(name, photos)


def test_a_pipe_or_a_device_is_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "pipe.png")
    assert "no such file" in refused("pipe.png", photos)
    assert "is a folder, a pipe or a device; wanted a file" in error_of(image_facts, str(photos / "pipe.png"))
    assert "is a folder, a pipe or a device; wanted a file" in error_of(image_facts, "/dev/zero")
    assert "is a folder, a pipe or a device; wanted a file" in error_of(image_facts, str(photos))


# -- what is wrong with a file


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="6"></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\nshowpage\n"
BROKEN = {
    "empty": (b"", "is none that can be read; wanted JPEG, PNG, WEBP, BMP, GIF, TIFF"),
    "text": ("这不是图片\n".encode() * 20, "is none that can be read"),
    "SVG": (SVG, "is none that can be read"),
    "EPS": (EPS, "is none that can be read"),
    "ICO": (encoded(picture(16, 16), "ICO"), "is none that can be read"),
    "PPM": (encoded(picture(), "PPM"), "is none that can be read"),
    "PNG's mark alone": (b"\x89PNG\r\n\x1a\n", "is none that can be read"),
    "truncated JPEG": (truncated(encoded(NOISE, "JPEG")), "is broken (image file is truncated"),
    "truncated PNG": (truncated(encoded(NOISE)), "is broken (image file is truncated"),
    "truncated WebP": (truncated(encoded(NOISE, "WEBP")), "is"),
    "truncated GIF": (truncated(encoded(NOISE.quantize(16), "GIF")), "is broken (image file is truncated"),
    "truncated TIFF": (truncated(encoded(NOISE, "TIFF")), "is"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_explained(case: str, tmp_path: Path) -> None:
    content, wanted = BROKEN[case]
    (tmp_path / "a.png").write_bytes(content)
    message = error_of(read_image, str(tmp_path / "a.png"))
    assert message.startswith(f"image {tmp_path / 'a.png'}: {wanted}"), message


def test_a_file_that_has_vanished(tmp_path: Path) -> None:
    for call in (image_facts, read_image):
        assert "a.png: cannot be read (No such file" in error_of(call, str(tmp_path / "a.png"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(photos: Path) -> None:
    (photos / "1.png").chmod(0)
    for call in (image_facts, read_image):
        assert "1.png: cannot be read (Permission denied)" in error_of(call, str(photos / "1.png"))
    (photos / "in").chmod(0)
    assert "Permission denied" in refused("in/2.png", photos)
    (photos / "in").chmod(0o755)


@pytest.mark.parametrize(("height", "width"), [(60_000, 60_000), (12_000, 12_000), (8_000, 8_000)])
def test_a_small_file_of_a_huge_image_is_refused_before_it_is_unpacked(height: int, width: int, tmp_path: Path) -> None:
    """Pillow refuses the first by itself, warns of the second and reads the third."""
    (tmp_path / "a.png").write_bytes(png_of(height, width, rows=height if height == 8_000 else 0))
    for call in (image_facts, read_image):
        message = error_of(call, str(tmp_path / "a.png"))
        assert "a.png: " in message
        assert "wanted at most 50,000,000: reduce it first" in message
        assert "is broken" not in message


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.write(encoded(picture()))
        file.truncate(MOST_BYTES + 1)
    assert "a.png: 100 MiB; wanted at most 100" in error_of(image_facts, str(tmp_path / "a.png"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damage_anywhere_is_one_line(form: str, tmp_path: Path) -> None:
    rng = random.Random(form)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    whole = encoded(NOISE.quantize(16) if form == "GIF" else NOISE, form, exif=exif)
    path = tmp_path / "a.png"
    for _ in range(150):
        changed = bytearray(whole)
        for _ in range(rng.choice((1, 2, 5))):
            at = rng.randrange(rng.choice((60, 300, len(changed))))
            changed[at : at + rng.choice((0, 1, 4))] = rng.randbytes(rng.choice((0, 1, 4)))
        path.write_bytes(changed)
        try:
            assert image_facts(str(path)).height > 0
            assert read_image(str(path)).mode == "RGB"
            message = f"image {path}: "
        except DataError as error:
            message = str(error)
        assert message.startswith(f"image {path}: ")
        assert "\n" not in message


# -- what is known of a file


def test_facts_are_the_files_and_follow_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", picture(6, 9))
    facts = image_facts(path)
    assert (facts.height, facts.width) == (6, 9)
    assert facts.digest == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert image_facts(path) is facts
    saved(tmp_path / "a.png", picture(16, 19))
    assert (image_facts(path).height, image_facts(path).width) == (16, 19)


SAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("MPO", {"save_all": True, "append_images": [picture(60, 90)], "quality": 95, "subsampling": 0}),
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".gif": ("GIF", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
}


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Colours within the quarters at the top left, top right and bottom left."""
    pixels = np.asarray(image, np.int64)
    high, wide = pixels.shape[0] // 8, pixels.shape[1] // 8
    spots = [pixels[high, wide], pixels[high, -1 - wide], pixels[-1 - high, wide]]
    return [tuple(int(value > 128) * 255 for value in spot) for spot in spots]


def quarters() -> Image.Image:
    """48 × 64: red at the top left, green at the top right, blue at the bottom left, else black."""
    image = Image.new("RGB", (64, 48))
    for at, colour in (((0, 0), RED), ((32, 0), GREEN), ((0, 24), BLUE)):
        image.paste(colour, (*at, at[0] + 32, at[1] + 24))
    return image


@pytest.mark.parametrize("extension", SAMPLES)
def test_every_format_is_read(extension: str, tmp_path: Path) -> None:
    assert set(SAMPLES) == set(EXTENSIONS)
    form, options = SAMPLES[extension]
    path = saved(tmp_path / f"a{extension}", quarters(), form, **options)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert corners(image) == [RED, GREEN, BLUE]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_says(form: str, orientation: int, tmp_path: Path) -> None:
    back = {6: "ROTATE_90", 8: "ROTATE_270"}.get(orientation, TURNS.get(orientation))
    stored = quarters().transpose(Image.Transpose[back]) if back else quarters()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path / "a.img", stored, form, exif=exif)
    facts, image = image_facts(path), read_image(path)
    assert (facts.height, facts.width) == (image.height, image.width) == (48, 64)
    assert corners(image) == [RED, GREEN, BLUE]


def test_an_unknown_orientation_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 9
    path = saved(tmp_path / "a.jpg", quarters(), "JPEG", exif=exif)
    assert corners(read_image(path)) == [RED, GREEN, BLUE]
    assert image_facts(path).width == 64


# -- pixels


def test_transparency_is_white(tmp_path: Path) -> None:
    clear = picture().convert("RGBA")
    clear.putpixel((4, 3), (0, 0, 0, 0))
    clear.putpixel((5, 3), (0, 0, 0, 127))
    image = read_image(saved(tmp_path / "a.png", clear))
    assert image.getpixel((0, 0)) == RED
    assert image.getpixel((4, 3)) == WHITE
    assert image.getpixel((5, 3)) == (128, 128, 128)
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (9, 255))
    assert list(np.asarray(read_image(saved(tmp_path / "b.png", grey)))[0, :, 0]) == [255, 9]


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_white(form: str, tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*BLUE, *RED])
    image.putpixel((1, 0), 1)
    found = read_image(saved(tmp_path / "a.img", image, form, transparency=0))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [WHITE, RED]


@pytest.mark.parametrize(("mode", "key", "colours"), [("RGB", BLUE, (BLUE, RED)), ("L", 7, (7, 9))])
def test_a_transparent_colour_without_palette_is_white(mode: str, key: Any, colours: Any, tmp_path: Path) -> None:
    image = Image.new(mode, (2, 1), colours[0])
    image.putpixel((1, 0), colours[1])
    found = read_image(saved(tmp_path / "a.png", image, transparency=key))
    assert found.getpixel((0, 0)) == WHITE
    assert found.getpixel((1, 0)) == (RED if mode == "RGB" else (9, 9, 9))


def test_16_bit_grey_keeps_its_high_bits(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    for form, kind in (("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.dtype(">u2"))):
        image = read_image(saved(tmp_path / "a.img", Image.fromarray(values.astype(kind)), form))
        assert image.mode == "RGB"
        assert np.asarray(image)[0, :, 1].tolist() == [0, 0, 1, 128, 255]


def test_cmyk_and_other_modes_become_rgb(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path / "a.jpg", quarters().convert("CMYK"), "JPEG", quality=95))
    assert corners(image) == [RED, GREEN, BLUE]
    for mode in ("L", "1"):
        assert read_image(saved(tmp_path / "a.png", Image.new(mode, (3, 2), 1))).mode == "RGB"


def test_the_first_frame_of_several(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    for form in ("GIF", "WEBP", "TIFF", "PNG"):
        path = saved(tmp_path / "a.img", frames[0], form, save_all=True, append_images=frames[1:])
        red, green, _ = read_image(path).getpixel((0, 0))  # type: ignore[misc]
        assert red > 200 > 50 > green, form
