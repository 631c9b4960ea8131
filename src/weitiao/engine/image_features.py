"""What a vision tower makes of images: an embedding for each image token.

A frozen tower gives the same for the same pixels, so it is asked once: features are kept on disk, one memory-mapped
safetensors file an image, for later epochs, evaluation, prediction and other runs. A tower that is trained is computed
in every step.

    <cache>/image-features/<tower>/<ab>/<SHA-256 of the image's file>-280x280.safetensors
    tower      names weights, settings and preprocessing, their type and kind of device
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from weitiao.engine.full_attention import full_attention
from weitiao.errors import DataError
from weitiao.hub.cache import cache_root
from weitiao.images import read_image
from weitiao.model.files import fingerprint
from weitiao.types import PlacedImage

NAME = "weitiao_vision_flash"
"""Of the tower's attention function. transformers hands all images over in one call only where the name has "flash"."""
VERSION = 1
"""Of what is computed; another one gives other files."""
PATCHES = 16_384
"""Patches that the tower computes at once, unless one image has more."""
GIB = 2**30


def image_features(
    model: Any, folder: Path, cache_dir: str | None = None, limit_gib: float = 20
) -> ImageFeatures | None:
    """Of a model on its device, with its adapters in place; None when it has no vision tower.

    folder: the base model's. limit_gib: of disk, for the features of all models together.
    """
    tower = getattr(model.model, "visual", None)
    if tower is None:
        return None
    features = ImageFeatures(tower, PixelReader(folder))
    if limit_gib and not features.trained:
        root = cache_root(cache_dir) / "image-features"
        features.store = FeatureStore(root, _tower_key(features, folder), int(limit_gib * GIB))
    return features


class PixelReader:
    """Image files → the patches that a tower takes, as transformers' image processor makes them with Pillow.

    Files are read on the host, by threads at once; what the processor does with the pixels is done on the device, by a
    table of what it makes of each of the 256 values: to the bit the same, in a tenth of the time.
    """

    def __init__(self, folder: Path) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        processor: Any = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self._processor = processor
        self._tables: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    @property
    def settings(self) -> str:
        names = ("image_mean", "image_std", "rescale_factor", "patch_size", "temporal_patch_size", "merge_size")
        return repr([(name, getattr(self._processor, name)) for name in names])

    def pixels(self, image: PlacedImage) -> torch.Tensor:
        """uint8 [height, width, 3]; DataError when the file is broken."""
        from PIL import Image

        try:
            picture = read_image(image.path)
        except DataError as error:
            raise DataError(f"{image.place}: {error}") from None
        if picture.size != (image.width, image.height):
            picture = picture.resize((image.width, image.height), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(picture))

    def patches(self, pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """uint8 [height, width, 3] → [patches, channels × times × height × width of a patch], on the same device. The
        patches that will be one token stand together; a still image shows the same at all times."""
        size, merge, times = (getattr(self._processor, f"{n}_size") for n in ("patch", "merge", "temporal_patch"))
        height, width, channels = pixels.shape
        rows, columns = height // (size * merge), width // (size * merge)
        values = self._table(pixels.device, dtype)[pixels.long() + 256 * torch.arange(3, device=pixels.device)]
        parts = values.view(rows, merge, size, columns, merge, size, channels).permute(0, 3, 1, 4, 6, 2, 5)
        repeated = parts.unsqueeze(5).expand(-1, -1, -1, -1, -1, times, -1, -1)
        return repeated.reshape(rows * columns * merge**2, channels * times * size**2)

    def _table(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """[3 × 256]: what the processor makes of each value of each channel."""
        if (device, dtype) not in self._tables:
            ramp = np.arange(256, dtype=np.float64)[None, None].repeat(3, axis=0)
            told = self._processor
            values = told.normalize(told.rescale(ramp, told.rescale_factor), told.image_mean, told.image_std)
            self._tables[device, dtype] = torch.as_tensor(values, dtype=torch.float32).flatten().to(device, dtype)
        return self._tables[device, dtype]


class ImageFeatures:
    def __init__(self, tower: Any, reader: PixelReader) -> None:
        self.tower, self.reader = tower, reader
        self.store: FeatureStore | None = None
        """Where features are kept; None computes them anew each time."""
        self.trained = any("lora_" in name for name, _ in tower.named_parameters())
        self.merge = int(tower.spatial_merge_size)
        from transformers import AttentionInterface  # takes seconds to import, and text is read without it

        AttentionInterface.register(NAME, full_attention)
        tower.config._attn_implementation = NAME

    @property
    def dtype(self) -> torch.dtype:
        return next(self.tower.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.tower.parameters()).device

    def prepare(self, images: Sequence[PlacedImage], advance: Callable[[int], None] = lambda images: None) -> None:
        """Compute what is not known yet and keep it; `advance` is told of images done."""
        if self.store is None:
            return
        missing = [image for image in unique(images) if not self.store.has(image)]
        batches = list(_batches(missing, self.merge))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # Files are read while the tower computes the batch before.
            reading = [pool.submit(self.reader.pixels, image) for image in batches[0]] if batches else []
            written: list[Future[None]] = []
            for batch, following in zip(batches, [*batches[1:], []], strict=False):
                pixels = [future.result() for future in reading]
                reading = [pool.submit(self.reader.pixels, image) for image in following]
                found = self._frozen(batch, pixels).cpu().split([image.tokens for image in batch])
                written += [pool.submit(self.store.put, *pair) for pair in zip(batch, found, strict=True)]
                advance(len(batch))
            for done in written:
                done.result()

    def features(self, images: Sequence[PlacedImage]) -> torch.Tensor:
        """[tokens of all images, width of the decoder], one image after another, on the tower's device."""
        if self.store is None:
            return self._computed(images, [self.reader.pixels(image) for image in images])
        found: dict[str, torch.Tensor] = {}
        for image in unique(images):
            known = self.store.get(image)
            if known is not None:
                found[key(image)] = known
        if all(key(image) in found for image in images):
            whole = torch.cat([found[key(image)] for image in images])
            # From pinned memory, the host goes on while the card is still at work.
            return whole.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else whole
        found = {name: known.to(self.device) for name, known in found.items()}
        missing = [image for image in unique(images) if key(image) not in found]
        for batch in _batches(missing, self.merge):
            pixels = [self.reader.pixels(image) for image in batch]
            computed = self._frozen(batch, pixels).split([image.tokens for image in batch])
            found.update(zip(map(key, batch), computed, strict=True))
        return torch.cat([found[key(image)] for image in images])

    @torch.no_grad()
    def _frozen(self, images: Sequence[PlacedImage], pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        return self._computed(images, pixels)

    def _computed(self, images: Sequence[PlacedImage], pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        grids = torch.tensor([[1, image.rows * self.merge, image.columns * self.merge] for image in images])
        patches = torch.cat([self.reader.patches(image.to(self.device), self.dtype) for image in pixels])
        return self.tower(patches, grid_thw=grids.to(self.device)).pooler_output


class FeatureStore:
    """Features on disk, of bounded size: those not used for longest make room."""

    def __init__(self, root: Path, tower: str, limit: int) -> None:
        """root: of all towers. limit: bytes of all towers together."""
        self.root, self.tower, self.limit = root, tower, limit
        self._used: set[Path] = set()
        """Files of this process: these do not make room for each other."""
        self._others: list[tuple[float, int, Path]] | None = None
        self._bytes = 0
        self._counting = Lock()

    def path(self, image: PlacedImage) -> Path:
        return self.root / self.tower / image.digest[:2] / f"{key(image)}.safetensors"

    def has(self, image: PlacedImage) -> bool:
        return self.path(image).is_file()

    def get(self, image: PlacedImage) -> torch.Tensor | None:
        """[tokens, width] of the file's own memory; None when it is not kept."""
        path = self.path(image)
        try:
            found = load_file(path)["features"]
            if path not in self._used:
                self._used.add(path)
                os.utime(path)
            return found
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError):  # cut off by a full disk, say
            path.unlink(missing_ok=True)
            return None

    def put(self, image: PlacedImage, features: torch.Tensor) -> None:
        """Keep the features, unless there is no room for them. Threads may do so at once."""
        size = features.numel() * features.element_size()
        with self._counting:
            if not self._has_room(size):
                return
            self._bytes += size
        path = self.path(image)
        draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A part of a batch would be written with all of it.
            save_file({"features": features.clone()}, draft)
            draft.replace(path)
        except OSError:  # a full disk costs time, not the run
            draft.unlink(missing_ok=True)
            return
        self._used.add(path)

    def _has_room(self, size: int) -> bool:
        if self._others is None:
            files = [(path, path.stat()) for path in self.root.rglob("*.safetensors")]
            self._bytes = sum(state.st_size for _, state in files)
            self._others = sorted((state.st_mtime, state.st_size, path) for path, state in files)
        while self._bytes + size > self.limit and self._others:
            _, other, path = self._others.pop(0)
            if path not in self._used:
                path.unlink(missing_ok=True)
                self._bytes -= other
        return self._bytes + size <= self.limit


def key(image: PlacedImage) -> str:
    return f"{image.digest}-{image.height}x{image.width}"


def unique(images: Sequence[PlacedImage]) -> list[PlacedImage]:
    """The first of each that gives the same features."""
    return list({key(image): image for image in reversed(images)}.values())[::-1]


def _batches(images: Sequence[PlacedImage], merge: int) -> Iterator[list[PlacedImage]]:
    """Images of at most `PATCHES` together, of similar size."""
    batch: list[PlacedImage] = []
    taken = 0
    for image in sorted(images, key=lambda image: image.tokens):
        patches = image.tokens * merge**2
        if batch and taken + patches > PATCHES:
            yield batch
            batch, taken = [], 0
        batch.append(image)
        taken += patches
    if batch:
        yield batch


def _tower_key(features: ImageFeatures, folder: Path) -> str:
    settings = json.dumps(features.tower.config.to_dict(), sort_keys=True, default=str)
    weights = (fingerprint(folder, "visual."), str(features.dtype), features.device.type)
    parts = (VERSION, *weights, settings, features.reader.settings)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
