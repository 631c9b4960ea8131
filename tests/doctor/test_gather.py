"""How the facts are found: with programs called `nvidia-smi` and packages called `torch` that a test has written."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from weitiao.doctor import cards, gather, network
from weitiao.doctor.cards import driver_and_cards, joined, torch_and_cards
from weitiao.doctor.facts import Card, Driver, Site, Torch
from weitiao.hub.pip_settings import PipSettings

HEADER = "| NVIDIA-SMI 535.129.03   Driver Version: 535.129.03   CUDA Version: 12.2     |"
posix = pytest.mark.skipif(os.name == "nt", reason="writes a shell script")


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """smi(script) puts a program `nvidia-smi` first on the path."""

    def write(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return write


@posix
def test_driver_and_cards(smi: Any) -> None:
    rows = "NVIDIA A100-SXM4-80GB, 81920, 535.129.03, 8.0\nTesla T4, [N/A], 535.129.03, [N/A]"
    smi(f'case "$1" in --query*) echo "{rows}";; *) echo "{HEADER}";; esac')
    driver, found = driver_and_cards()
    assert driver == Driver("535.129.03", "12.2")
    assert found == (Card("NVIDIA A100-SXM4-80GB", 80.0, "8.0"), Card("Tesla T4"))


@posix
def test_an_old_driver_does_not_know_the_capability(smi: Any) -> None:
    refused = "echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2"
    row = "Tesla T4, 15109, 470.82.01"
    smi(f'case "$1" in *compute_cap*) {refused};; --query*) echo "{row}";; *) echo "{HEADER}";; esac')
    driver, found = driver_and_cards()
    assert driver is not None
    assert driver.version == "470.82.01"
    assert found == (Card("Tesla T4", 14.8),)
    assert joined(found, [Card("Tesla T4", 14.6, "7.5")]) == (Card("Tesla T4", 14.8, "7.5"),)
    assert joined((), [Card("Tesla T4", 14.6, "7.5")]) == (Card("Tesla T4", 14.6, "7.5"),)


@posix
def test_a_driver_that_fails_or_hangs(smi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    smi("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    assert driver_and_cards() == (Driver(error="Failed to initialize NVML: Driver/library version mismatch"), ())
    monkeypatch.setattr(cards, "SECONDS", 0.2)
    smi("exec sleep 20")
    assert driver_and_cards() == (Driver(error="no answer in 0.2 s"), ())


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_and_cards() == (None, ())


@pytest.fixture
def fake_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """fake_torch(code) is what `import torch` runs in another process; "9.9" is its version."""

    def write(code: str) -> None:
        (tmp_path / "torch.py").write_text(code, "utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(cards, "version", lambda name: "9.9")

    return write


def test_a_broken_torch_is_one_line(fake_torch: Any) -> None:
    fake_torch("print('on its way')\nraise ImportError('libcudart.so.12: cannot open shared object file')")
    torch, found = torch_and_cards()
    assert torch == Torch("9.9", error="ImportError: libcudart.so.12: cannot open shared object file")
    assert found == ()


def test_a_torch_that_kills_its_process(fake_torch: Any) -> None:
    fake_torch("import os; os._exit(4)")
    assert torch_and_cards()[0] == Torch("9.9", error="it ended with code 4")


def test_a_torch_with_a_card(fake_torch: Any) -> None:
    fake_torch(
        "from types import SimpleNamespace as N\n"
        "print('a warning')\n"
        "__version__ = '9.9+cu130'\n"
        "version = N(cuda='13.0', hip=None)\n"
        "card = N(name='NVIDIA H100', total_memory=80 * 2**30, major=9, minor=0)\n"
        "cuda = N(is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda i: card,\n"
        "         get_arch_list=lambda: ['sm_80', 'sm_90'])\n"
        "backends = N(mps=N(is_available=lambda: False))\n"
    )
    torch, found = torch_and_cards()
    assert torch == Torch("9.9+cu130", cuda="13.0", cards=1, architectures=("sm_80", "sm_90"))
    assert found == (Card("NVIDIA H100", 80.0, "9.0"),)


def test_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise cards.PackageNotFoundError(name)

    monkeypatch.setattr(cards, "version", missing)
    assert torch_and_cards() == (Torch(), ())


def test_servers_are_asked_at_once_and_not_waited_for() -> None:
    hang = threading.Event()

    def refuse() -> int:
        raise ConnectionError("https://user:secret@host")

    asked = [
        (Site("good", "a"), lambda: 200),
        (Site("closed", "b"), lambda: 403),
        (Site("gone", "c"), refuse),
        (Site("slow", "d"), lambda: int(hang.wait(30))),
        (Site("slow, too", "e"), lambda: int(hang.wait(30))),
        (Site("not asked", "f", told="--offline"), None),
    ]
    start = time.monotonic()
    found = network.answers(asked, 0.5)
    assert time.monotonic() - start < 5
    hang.set()
    assert [(site.reachable, site.told) for site in found] == [
        (True, ""),
        (False, "HTTP status 403"),
        (False, "no connection (ConnectionError)"),
        (False, "no answer in 0.5 s"),
        (False, "no answer in 0.5 s"),
        (None, "--offline"),
    ]


@pytest.mark.parametrize(
    ("variables", "reasons"),
    [
        ({"WEITIAO_OFFLINE": "1"}, ["WEITIAO_OFFLINE"] * 4),
        ({"HF_HUB_OFFLINE": "1"}, ["", "HF_HUB_OFFLINE", "HF_HUB_OFFLINE", ""]),
        ({}, [""] * 4),
    ],
)
def test_what_is_offline_is_not_asked(
    variables: dict[str, str], reasons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WEITIAO_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    index = "https://user:secret@packages.example/token/simple"
    monkeypatch.setattr(network, "read_settings", lambda: PipSettings(indexes=(index,)))
    asked: list[str] = []
    monkeypatch.setattr(network, "_status", lambda url: asked.append(url) or 200)
    monkeypatch.setattr(network, "_index_status", lambda url, settings: asked.append(url) or 200)
    found = network.sites()
    assert [site.told for site in found] == reasons
    assert [site.reachable for site in found] == [None if reason else True for reason in reasons]
    assert len(asked) == reasons.count("")
    assert {"secret", "token"} & {part for site in found for part in (site.host, site.told)} == set()
    assert found[-1].host == ("pypi.org" if reasons[-1] else "packages.example")
    assert [site.told for site in network.sites("--offline")] == ["--offline"] * 4


def test_home_and_user_stay_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home" / "linh"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(gather.getpass, "getuser", lambda: "linh")
    assert gather._pasteable(f"no file {home}/lib/x.so") == "no file ~/lib/x.so"
    assert gather._pasteable("/scratch/linh/work") == "/scratch/USER/work"
    assert gather._pasteable("/scratch/linhart") == "/scratch/linhart"


def test_the_command(tmp_path: Path, weitiao: Any) -> None:
    secret = "hf_" + "s3cret" * 5
    told = weitiao(tmp_path, "doctor", HF_TOKEN=secret, PIP_INDEX_URL=f"https://u:{secret}@packages.example/simple")
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    assert secret not in told.stdout
    assert "offline (WEITIAO_OFFLINE), not asked: ModelScope" in told.stdout
    as_json = weitiao(tmp_path, "doctor", "--offline", "--json")
    values = json.loads(as_json.stdout)
    assert values["versions"]["weitiao"]
    assert values["torch"]["error"] is None
    assert values["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {site["told"] for site in values["sites"]} == {"--offline"}
