"""Image files, opened safely: only below a folder that the user named, never from the network, and of bounded size.

What is wrong with a file is a `DataError` of one line; the caller puts the row's place before it.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weitiao.errors import DataError, ImageError, first_line

if TYPE_CHECKING:
    from PIL import Image

    from weitiao.config import DataSection

MOST_PIXELS = 50_000_000
"""Of a file. A few KiB can hold an image that takes gigabytes once it is unpacked."""
MOST_BYTES = 100 * 2**20
"""Of a file."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""That Pillow may try; it knows dozens of old ones, whose readers are where its security holes were. MPO, which some
telephones write in .jpg files, is part of JPEG."""
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ORIENTATION = 0x0112
"""EXIF's tag."""
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""Value of that tag → Pillow's name of what puts the image upright; from 5 on height and width change places."""

IMAGE_NAMES = ("image", "images", "image_path", "image_paths")
"""Names that a file may use for a row's images: a path, or a list of paths."""
IN_TEXT = re.compile(r"<\|vision_start\|>\s*(.*?)\s*<\|vision_end\|>", re.DOTALL)
"""A path within a text."""
PLACEHOLDER = "<|image_pad|>"
"""Stands there for the path of the row's next image."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image without unpacking it."""

    digest: str
    """SHA-256 of the file."""
    height: int
    width: int
    """Pixels, as it is looked at."""


def allowed_path(name: str, root: str) -> str:
    """Absolute path of the image `name`, relative to `root` or absolute, that lies below `root`.

    Links are followed first, so that none leads out of `root`. DataError when it is elsewhere or no file.
    """
    if "://" in name or name.startswith("data:"):
        raise ImageError(f"image {name!r:.80}: is an address; wanted a file, so download it first")
    try:
        folder = Path(root).expanduser().resolve()
        # Only `~/` is the home folder; `~1.jpg` is what some editors call a copy.
        path = (folder / (Path(name).expanduser() if name.startswith("~/") else name)).resolve()
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"image {name!r:.80}: is no path that can be read ({reason})") from None
    if not path.is_relative_to(folder):
        raise ImageError(f"image {name!r:.80}: is not in {folder}; move it there, or set data.images to its folder")
    if not is_file:
        raise ImageError(f"image {name!r:.80}: no such file in {folder}; correct the path, or set data.images")
    return str(path)


def image_root(file: Path, data: DataSection) -> str:
    """Folder below which the images of a data file must lie; a folder of images is its own."""
    return str(file) if file.is_dir() else data.images or str(file.parent)


def measured_root(data: DataSection, split: str) -> str:
    """Folder below which the images of a run's measured rows must lie; `split` is that of `metrics.json`.

    It need not exist: the data may have been moved, or lie on a hub.
    """
    named = None if data.split_field else {"validation": data.validation, "test": data.test}.get(split)
    file = Path(named if isinstance(named, str) else data.train).expanduser()
    return image_root(file, data)


def image_names(fields: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    """Images of a raw row, as it names them: in its fields first, then inside its texts and messages.

    columns: `data.columns`. Unlike a task, this checks nothing; what is no name is left out.
    """
    known = (columns["image"],) if "image" in columns else IMAGE_NAMES
    value = next((fields[name] for name in known if name in fields), None)
    if isinstance(value, str):
        value = [name.strip() for name in value.split(";")]
    items = value if isinstance(value, list | tuple) else [value]
    found = [item.get("path") if isinstance(item, Mapping) else item for item in items]
    found += [name for key, told in fields.items() if key not in known for name in _named_in(told)]
    return [name for name in found if isinstance(name, str) and name]


def _named_in(value: Any) -> Iterator[Any]:
    """What a text, a message or a list of them names."""
    if isinstance(value, str):
        yield from (name for name in IN_TEXT.findall(value) if name != PLACEHOLDER)
    elif isinstance(value, Mapping):
        if value.get("type") == "image":
            yield value.get("image", value.get("path"))
        else:
            yield from (name for inner in value.values() for name in _named_in(inner))
    elif isinstance(value, list | tuple):
        yield from (name for inner in value for name in _named_in(inner))


def image_facts(path: str) -> ImageFacts:
    """Facts of a file; DataError when it is no image, or too large. A file that has not changed is read once."""
    try:
        state = Path(path).stat()
    except OSError as error:
        raise ImageError(f"image {path}: cannot be read ({error.strerror or error})") from None
    if not stat.S_ISREG(state.st_mode):
        raise ImageError(f"image {path}: is a folder, a pipe or a device; wanted a file")
    return _facts(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1 << 20)
def _facts(path: str, _changed: int, size: int) -> ImageFacts:
    if size > MOST_BYTES:
        raise ImageError(f"image {path}: {size / 2**20:.0f} MiB; wanted at most {MOST_BYTES / 2**20:.0f}")
    with _opened(path) as image:
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        with Path(path).open("rb") as file:
            return ImageFacts(hashlib.file_digest(file, "sha256").hexdigest(), height, width)


def read_image(path: str) -> Image.Image:
    """The image in RGB, turned as its EXIF data say, on white where it is transparent; the first one of several.

    DataError when the file is broken.
    """
    from PIL import Image

    with _opened(path) as image:
        turn = TURNS.get(_orientation(image))
        image.load()
        upright = image.transpose(Image.Transpose[turn]) if turn else image
        if upright.mode.startswith("I;16"):
            return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
        if upright.has_transparency_data:
            paper = Image.new("RGBA", upright.size, "white")
            return Image.alpha_composite(paper, upright.convert("RGBA")).convert("RGB")
        return upright.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Value of EXIF's tag, which Pillow obeys by itself in TIFF files; 1 is upright."""
    if image.format == "TIFF":
        return 1
    value = image.getexif().get(ORIENTATION)
    return value if value in TURNS else 1


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    import warnings

    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own cap is stricter, and broken EXIF data are no harm
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise ImageError(
                        f"image {path}: {width} × {height} pixels; wanted at most {MOST_PIXELS:,}: reduce it first"
                    )
                yield image
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(f"image {path}: is none that can be read; wanted {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"image {path}: {first_line(error)}; wanted at most {MOST_PIXELS:,}: reduce it first"
        ) from None
    # What is damaged fails in whichever of Pillow's readers meets it first.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError(f"image {path}: cannot be read ({error.strerror})") from None
        raise ImageError(f"image {path}: is broken ({first_line(error)}); replace it") from None
