"""What the doctor says of made-up machines."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from weitiao.doctor.builds import OLDEST_TORCH, build_for
from weitiao.doctor.facts import Card, Disk, Driver, Facts, Site, Torch, numbers
from weitiao.doctor.findings import ENGINE, findings, tier
from weitiao.doctor.text import as_json, as_text
from weitiao.engine.attention_plan import OLDEST

H100 = Card("NVIDIA H100 80GB HBM3", 79.6, "9.0")
T4 = Card("Tesla T4", 15.0, "7.5")
V100 = Card("Tesla V100-SXM2-16GB", 16.0, "7.0")
B200 = Card("NVIDIA B200", 178.4, "10.0")
NAMES = ("transformers", "peft", "accelerate", "tokenizers", "llguidance", "safetensors", "triton")
SM = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CPU = Torch("2.11.0+cpu")
SITES = tuple(
    Site(name, host, True)
    for name, host in (
        ("ModelScope", "modelscope.cn"),
        ("Hugging Face", "huggingface.co"),
        ("its mirror", "hf-mirror.com"),
        ("pip's index", "pypi.org"),
    )
)
INDEX = "https://download.pytorch.org/whl/"


def machine(*cards: Card, cuda: str | None = "12.8", driver: str = "570.86.15", torch: Torch | None = None) -> Facts:
    """A sound Linux machine. cuda: what its driver supports."""
    built = Torch("2.11.0+cu128", cuda="12.8", cards=len(cards), architectures=SM) if cards else CPU
    return Facts(
        system="Linux",
        memory_gib=62.0,
        driver=Driver(driver, cuda) if cards else None,
        cards=cards,
        torch=torch or built,
        disks=(Disk("cache", "~/.cache/weitiao", 300.0, 500.0), Disk("working folder", "~/work", 300.0, 500.0)),
        sites=SITES,
        versions={"weitiao": "0.1.0", "torch": "2.11.0", **dict.fromkeys(NAMES, "99.0")},
    )


def told(facts: Facts, mark: str) -> list[str]:
    return [finding.text for finding in findings(facts) if finding.mark == mark]


def mend(facts: Facts) -> str:
    """The one thing to mend."""
    [text] = told(facts, "mend")
    return text


def test_a_sound_machine_with_a_card() -> None:
    facts = machine(H100)
    assert told(facts, "mend") == told(facts, "note") == []
    assert told(facts, "ok") == [
        "NVIDIA H100 80GB HBM3: the engine",
        "torch 2.11.0+cu128, built for CUDA 12.8",
        "all servers answer",
    ]


def test_no_card() -> None:
    facts = machine()
    assert told(facts, "mend") == []
    [note] = told(facts, "note")
    assert note.startswith("no card: models run on the CPU")


def test_an_h100_with_a_cpu_build() -> None:
    text = mend(machine(H100, torch=CPU))
    assert "torch 2.11.0+cpu is a CPU build, and there is a card" in text
    assert text.endswith(f": pip uninstall -y torch && pip install torch --index-url {INDEX}cu128")


def test_a_driver_that_no_build_is_for() -> None:
    built = Torch("2.11.0+cu128", cuda="12.8")
    text = mend(machine(H100, cuda="11.4", driver="470.82.01", torch=built))
    assert "built for CUDA 12.8, and driver 470.82.01 supports CUDA 11.4" in text
    assert "need driver 525 or newer; install one, then: " in text
    assert text.endswith(f"pip install torch --index-url {INDEX}cu126")


@pytest.mark.parametrize(
    ("cuda", "card", "build"),
    [
        ("13.1", H100, "cu130"),
        ("13.0", H100, "cu130"),
        ("12.9", H100, "cu128"),
        ("12.8", H100, "cu128"),
        ("12.6", H100, "cu126"),
        ("12.2", H100, "cu126"),  # by minor version compatibility
        ("13.0", T4, "cu130"),
        ("13.0", V100, "cu126"),  # builds for newer CUDA have no kernels for it
        ("12.8", B200, "cu128"),
        (None, H100, "cu130"),
        ("11.8", H100, None),
    ],
)
def test_the_build_for_driver_and_card(cuda: str | None, card: Card, build: str | None) -> None:
    facts = machine(card, cuda=cuda)
    found = build_for(facts)
    assert (found and found.name) == build
    for torch in (CPU, Torch(), replace(CPU, error="broken")):
        assert "/whl/cpu" not in as_text(facts, findings(replace(facts, torch=torch)))


def test_a_driver_of_cuda_11_where_an_older_torch_would_do() -> None:
    found = build_for(replace(machine(H100, cuda="11.8"), needed={"torch": "2.6"}))
    assert found is not None
    assert found.name == "cu118"


def test_the_oldest_torch_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert f"torch>={OLDEST_TORCH}" in project["project"]["dependencies"]


def test_a_newer_minor_version_that_works_is_left_alone() -> None:
    assert told(machine(H100, cuda="12.4"), "mend") == []
    blind = Torch("2.11.0+cu128", cuda="12.8")
    assert mend(machine(H100, cuda="12.4", torch=blind)).endswith(f"{INDEX}cu126")


def test_a_t4_takes_the_plain_path() -> None:
    facts = machine(T4)
    assert told(facts, "mend") == []
    [note] = told(facts, "note")
    assert note.startswith("Tesla T4: the plain")
    assert "compute capability 8.0 or newer" in note
    assert tier(T4) == "plain, float16"
    assert tier(H100) == tier(B200) == "engine"
    assert tier(replace(T4, capability=None)) == "unknown"
    assert ENGINE == OLDEST, "what the engine itself asks for"


def test_a_card_without_kernels() -> None:
    text = mend(machine(V100))
    assert "without kernels for Tesla V100-SXM2-16GB (compute capability 7.0)" in text
    assert text.endswith(f"{INDEX}cu126")
    assert "no build of torch" in mend(machine(V100, B200))


def test_two_cards() -> None:
    facts = machine(H100, H100)
    assert "2 × NVIDIA H100 80GB HBM3: the engine" in told(facts, "ok")
    assert told(facts, "note") == ["2 cards: a run uses one; a model that does not fit is spread over all"]
    one = replace(facts, torch=replace(facts.torch, cards=1))
    assert any(note.startswith("torch sees 1 of 2 cards: unset CUDA_VISIBLE_DEVICES") for note in told(one, "note"))
    none = replace(facts, torch=replace(facts.torch, cards=0))
    assert mend(none).startswith("torch sees none of 2 cards")


def test_apple() -> None:
    facts = replace(machine(), system="Darwin", torch=Torch("2.11.0", mps=True))
    assert told(facts, "mend") == told(facts, "note") == []
    assert "Apple's GPU: the plain path, with model.device=mps" in told(facts, "ok")
    assert mend(replace(facts, torch=Torch())) == "torch is not installed: pip install torch"


def test_torch_is_missing_or_broken_or_old() -> None:
    assert mend(machine(torch=Torch())) == f"torch is not installed: pip install torch --index-url {INDEX}cpu"
    card = machine(H100, cuda="13.0", torch=Torch())
    assert mend(card) == f"torch is not installed: pip install torch --index-url {INDEX}cu130"
    broken = mend(machine(torch=replace(CPU, error="ImportError: no libgomp.so.1")))
    assert broken.startswith("torch 2.11.0+cpu cannot be imported (ImportError: no libgomp.so.1): pip uninstall")
    assert mend(machine(torch=Torch("2.4.0"))).startswith("torch 2.4.0 is older than 2.11: ")


def test_a_driver_that_fails() -> None:
    facts = replace(machine(), driver=Driver(error="Driver/library version mismatch"))
    assert mend(facts).startswith("nvidia-smi fails (Driver/library version mismatch): ")


def test_disks() -> None:
    full = tuple(replace(disk, free_gib=1.2) for disk in machine().disks)
    cache, work = told(replace(machine(), disks=full), "mend")
    assert "only 1.2 GiB are free in the cache (~/.cache/weitiao): make room, or set WEITIAO_CACHE elsewhere" in cache
    assert work.endswith("make room, or set run.output_dir elsewhere")
    notes = told(replace(machine(), disks=(replace(full[0], free_gib=12.0),)), "note")
    assert any(note.startswith("12.0 GiB are free in the cache") for note in notes)


def test_little_memory() -> None:
    assert any("5.8 GiB of memory" in note for note in told(replace(machine(), memory_gib=5.8), "note"))


def test_libraries() -> None:
    facts = machine(H100)
    without = dict(facts.versions) | {"peft": None, "triton": None, "accelerate": "1.2"}
    facts = replace(facts, versions=without, needed={"peft": "0.19", "accelerate": "1.10"})
    missing, triton = told(facts, "mend")
    assert missing == 'libraries are missing or too old: pip install "peft>=0.19" "accelerate>=1.10"'
    assert triton.endswith(": pip install triton")


def sites(*silent: str) -> Facts:
    return replace(machine(H100), sites=tuple(replace(site, reachable=site.name not in silent) for site in SITES))


def test_servers() -> None:
    assert told(sites(), "note") == []
    assert told(sites("Hugging Face"), "note") == [
        "Hugging Face does not answer, its mirror does: export HF_ENDPOINT=https://hf-mirror.com"
    ]
    assert told(sites("Hugging Face", "its mirror"), "note") == [
        "no answer from Hugging Face, its mirror: what lies there cannot be downloaded"
    ]
    both = told(sites("Hugging Face", "ModelScope"), "note")
    assert len(both) == 2
    assert "no answer from ModelScope" in both[1]
    assert mend(sites(*(site.name for site in SITES))).startswith("no server answers: set HTTPS_PROXY")


def test_offline() -> None:
    silent = tuple(replace(site, reachable=None, told="WEITIAO_OFFLINE") for site in SITES)
    facts = replace(machine(H100), sites=silent)
    assert told(facts, "mend") == []
    assert told(facts, "note") == [
        "offline (WEITIAO_OFFLINE), not asked: ModelScope, Hugging Face, its mirror, pip's index"
    ]


def test_every_line_starts_with_its_mark() -> None:
    facts = machine(H100, T4, torch=CPU)
    text = as_text(facts, findings(facts))
    above, _, below = text.partition("\n\n")
    assert all(line.split()[0] in ("ok", "note", "mend") for line in below.splitlines())
    assert "card 1          Tesla T4, 15.0 GiB, compute capability 7.5: plain" in above
    assert "driver          570.86.15, supports CUDA 12.8" in above
    values = json.loads(as_json(facts, findings(facts)))
    assert [card["tier"] for card in values["cards"]] == ["engine", tier(T4)]
    assert {finding["mark"] for finding in values["findings"]} <= {"ok", "note", "mend"}


@pytest.mark.parametrize(
    ("version", "parts"), [("2.11.0+cu128", (2, 11, 0)), ("2.12.0a0+git1", (2, 12, 0)), ("12.4", (12, 4)), ("dev", ())]
)
def test_versions_as_numbers(version: str, parts: tuple[int, ...]) -> None:
    assert numbers(version) == parts
