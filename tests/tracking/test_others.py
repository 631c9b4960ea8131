"""The trackers of accelerate, each read back by its own library; those that are not installed are skipped by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runs import run_config, trained
from tracking.reading import break_at, captured, wanted_curves, wanted_texts
from weitiao.config import RunConfig
from weitiao.tracking.others import OTHERS, flat
from weitiao.training.train import train


def config_for(name: str, model: Path, rows: Path, tmp_path: Path) -> RunConfig:
    overrides = ("data.validation=0.25", "data.test=0.2", "evaluation.steps=3", "tracking.timeout=120")
    return run_config(tmp_path, model, rows, *overrides, f"tracking.trackers=[{name}]")


def tracked(config: RunConfig) -> str:
    """Train; the line on the screen that names the tracker."""
    screen, told = captured()
    train(config, screen=screen)
    assert not [line for line in told() if line.startswith("warning")]
    (line,) = [line for line in told() if line.startswith(("TensorBoard", "W&B", "MLflow", "Trackio"))]
    return line


@pytest.mark.slow
def test_tensorboard(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is interrupted once; its points are there once."""
    config = config_for("tensorboard", qwen2_folder, classification_file, tmp_path)
    with monkeypatch.context() as patch:
        break_at(5, patch)
        with pytest.raises(RuntimeError, match="no power"):
            trained(config)
    folder = config.folder / "tracking" / "tensorboard"
    assert tracked(config) == f"TensorBoard: look with: tensorboard --logdir {folder}"
    assert len(list((folder / "run").glob("events*"))) == 2
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "run"))
    events.Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    wanted = wanted_curves(config.folder)
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points]
        # Its values are float32.
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6)
    (text,) = events.Tensors("Prediction/text_summary")
    shown = text.tensor_proto.string_val[0].decode("utf-8").split("\n\n---\n\n")
    for part, (row, caption) in zip(shown, wanted_texts(config.folder), strict=True):
        head, _, content = part.partition("\n\n")
        assert (head, json.loads(content)) == (f"**{caption}**", row)
    (told,) = {path.read_text() for path in folder.rglob("hparams.yml")}
    assert "training.learning_rate: 0.01" in told


def test_wandb(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    config = config_for("wandb", qwen2_folder, classification_file, tmp_path)
    line = tracked(config)
    (folder,) = (config.folder / "tracking" / "wandb" / "wandb").glob("offline-run-*")
    assert line.startswith("W&B: offline; upload with: wandb sync ")
    assert line.endswith(folder.name)
    (file,) = folder.glob("*.wandb")
    found: dict[str, list[tuple[int, Any]]] = {}
    kept, code = {}, None
    for raw in level_db_log(file):
        record = Record()
        record.ParseFromString(raw)
        items = {item.key or "".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for name, value in items.items():
            found.setdefault(name, []).append((record.history.step.num, value))
        kept |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        kept |= {item.key: json.loads(item.value_json) for item in record.config.update}
        code = record.exit.exit_code if record.HasField("exit") else code
    assert {name: found[name] for name in wanted_curves(config.folder)} == wanted_curves(config.folder)
    assert kept["training.learning_rate"] == 0.01
    assert code == 0
    (table,) = folder.rglob("Prediction*.table.json")
    rows = json.loads(table.read_text("utf-8"))["data"]
    assert [(json.loads(text), caption) for caption, text in rows] == wanted_texts(config.folder)


def level_db_log(file: Path) -> Iterator[bytes]:
    """Records of W&B's file. W&B has no reader in Python; SwanLab's reads the same format below another header."""
    from swanlab.sdk.internal.core_python.store import LEVELDBLOG_HEADER_LEN, DataStoreReader

    class Reader(DataStoreReader):
        def _read_header(self) -> None:
            assert self._fp.read(LEVELDBLOG_HEADER_LEN).startswith(b":W&B")
            self._index = LEVELDBLOG_HEADER_LEN

    reader = Reader()
    reader.open(file)
    yield from reader
    reader.close()


def test_mlflow(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    config = config_for("mlflow", qwen2_folder, classification_file, tmp_path)
    line = tracked(config)
    place = f"sqlite:///{config.folder}/tracking/mlflow/mlflow.db"
    assert line == f"MLflow: look with: mlflow ui --backend-store-uri {place}"
    from mlflow import MlflowClient

    client = MlflowClient(place)
    (experiment,) = client.search_experiments(filter_string="name = 'weitiao'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["training.learning_rate"] == "0.01"
    for name, points in wanted_curves(config.folder).items():
        assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] == points
    artifact = Path(run.info.artifact_uri.removeprefix("file://")) / "Prediction.txt"
    assert artifact.read_text("utf-8").count('"prediction"') == 10


def test_trackio(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    config = config_for("trackio", qwen2_folder, classification_file, tmp_path)
    line = tracked(config)
    folder = config.folder / "tracking" / "trackio"
    assert line == f"Trackio: look with: TRACKIO_DIR={folder} trackio show --project weitiao"
    import sqlite3

    with sqlite3.connect(folder / "weitiao.db") as database:
        rows = database.execute("SELECT step, metrics FROM metrics WHERE run_name = 'run' ORDER BY id").fetchall()
    found: dict[str, list[tuple[int, Any]]] = {}
    for step, metrics in rows:
        for name, value in json.loads(metrics).items():
            found.setdefault(name, []).append((step, value))
    ((step, table),) = found.pop("Prediction")
    assert {name: found[name] for name in wanted_curves(config.folder)} == wanted_curves(config.folder)
    assert step == 6
    shown = [(json.loads(row["row"]), row["prediction"]) for row in table["_value"]]
    assert shown == wanted_texts(config.folder)


def test_every_name_of_the_config_has_a_tracker() -> None:
    names = RunConfig.model_fields["tracking"].annotation.model_fields["trackers"].annotation.__args__[0].__args__
    assert set(names) == {"swanlab", *OTHERS}


def test_a_nested_config_becomes_plain_values() -> None:
    config = {"lora": {"r": 8, "target_modules": ["q_proj"]}, "name": "南京", "data": {"test": None, "columns": {}}}
    assert flat(config) == {
        "lora.r": 8,
        "lora.target_modules": '["q_proj"]',
        "name": "南京",
        "data.test": "null",
    }
