"""Finished run folders without a model: answers that are drawn at random stand in for those of one.

made_run(folder, "classification")   two or more labels; so with "ner", or several labels with multi_label=True
made_run(folder, "generation", rows)  captions, such as caption_rows makes; the files of images need not be there
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from weitiao.config import RunConfig, load_config
from weitiao.data.summary import summary
from weitiao.metrics.entities import Entity
from weitiao.prediction.calibration import with_temperature
from weitiao.prediction.evaluate import measured, write_predictions
from weitiao.run_folder import TASK_FILE, BaseName, RunFolder, TaskFile, Thresholds, write_json, write_text
from weitiao.tasks.base import Example, Task, task_class, task_options
from weitiao.types import Encoded, Prediction, Row

MACHINE = {
    "processor": "A processor",
    "cores": 2,
    "threads": 1,
    "memory_gib": 23.5,
    "system": "Linux",
    "device": "cpu",
    "python": "3.11.7",
    "versions": {"weitiao": "0.1.0", "torch": "2.14.1"},
}
SPLITS = ("test", "validation", "train")
LABELS = ("好评", "差评", "中评")
THRESHOLDS = Thresholds(shared=0.41, labels={"好评": 0.29})
"""Of a run with several labels."""
PEOPLE, PLACES = ("王小明", "李华", "张伟"), ("南京市", "北京", "乌鲁木齐")

Answerer = Callable[[Task, Example, random.Random], Prediction]


def classification_rows(count: int, labels: Sequence[str] = LABELS, many: bool = False) -> list[dict[str, Any]]:
    draw = random.Random(0)
    rows = []
    for i in range(count):
        chosen = [label for label in labels if draw.random() < 0.4] if many else draw.choice(labels)
        rows.append({"text": f"第{i}条：手机{'很好' * (i % 3)}。", "label": chosen})
    return rows


def caption_rows(count: int, images: Sequence[str] = ("a.png",)) -> list[dict[str, Any]]:
    """Captions of six words and more; `images` take turns."""
    draw, words = (
        random.Random(0),
        ("a", "small", "red", "old", "dog", "cat", "tree", "boat", "sleeps", "beside", "under"),
    )
    return [
        {"image": images[i % len(images)], "captions": [" ".join(draw.choices(words, k=6 + i % 3)), f"a view of {i}"]}
        for i in range(count)
    ]


def ner_rows(count: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(count):
        person, place = PEOPLE[i % 3], PLACES[i % 2]
        text = f"第{i}天，{person}从{place}回来了。"
        found = [(person, "人名"), (place, "地点")]
        entities = [{"start": text.index(t), "end": text.index(t) + len(t), "type": k, "text": t} for t, k in found]
        rows.append({"text": text, "entities": entities if i % 5 else entities[:1]})
    return rows


def drawn(task: Task, example: Example, draw: random.Random) -> Prediction:
    """An answer that is right four times in five, with the probabilities of a model that is too sure."""
    sure = draw.uniform(0.5, 1)
    if task.name == "ner":
        return Prediction(_disturbed(example, draw), probability=sure**3)
    if task.name == "generation":
        words = [word for word in str(example.answer).split() if draw.random() < 0.8]
        return Prediction(" ".join(words) or None, probability=sure)
    if getattr(task.options, "multi_label", False):
        kept = tuple(label for label in example.options if (label in example.answer) != (draw.random() < 0.1))  # type: ignore[attr-defined]
        return Prediction(kept, probability=sure, scores=dict.fromkeys(example.options, 0.4) | dict.fromkeys(kept, 0.6))  # type: ignore[attr-defined]
    options = example.options  # type: ignore[attr-defined]
    answer = example.answer if draw.random() < 0.8 else draw.choice(options)
    rest = (1 - sure) / max(len(options) - 1, 1)
    scores = {label: sure if label == answer else rest for label in options}
    return Prediction(answer, probability=sure, scores=scores)


def _disturbed(example: Example, draw: random.Random) -> tuple[Entity, ...]:
    """The reference with entities left out, cut, mistyped and made up."""
    text, found = example.text, []
    types = sorted({e.type for e in example.answer} | {"人名", "地点"})
    for e in example.answer:
        chance = draw.random()
        if chance < 0.08:
            continue
        if chance < 0.14 and e.end - e.start > 1:
            found.append(Entity(e.start, e.end - 1, e.type, text[e.start : e.end - 1]))
        elif chance < 0.2:
            found.append(Entity(e.start, e.end, draw.choice([t for t in types if t != e.type]), e.text))
        else:
            found.append(e)
    if draw.random() < 0.06 and len(text) > 6:
        start = draw.randrange(len(text) - 2)
        found.append(Entity(start, start + 2, types[0], text[start : start + 2]))
    if draw.random() < 0.01:
        found.append(Entity(-1, -1, types[0], "不在文中"))
    return tuple(sorted(found, key=lambda e: e.start))


def made_run(
    folder: Path,
    name: str = "classification",
    rows: Sequence[dict[str, Any]] | None = None,
    *,
    seed: int = 0,
    split: str = "test",
    temperature: float = 1.6,
    answer: Answerer = drawn,
    baselines: dict[str, Callable[..., list[Prediction]]] | None = None,
    overrides: Sequence[str] = (),
    steps: int = 20,
    model: str = "Qwen/Qwen2-1.5B-Instruct",
    **options: Any,
) -> Path:
    """A finished run folder. rows: those of the test split, and of the others too. options: of the task."""
    if rows is None:
        rows = ner_rows(60) if name == "ner" else classification_rows(60, many=options.get("multi_label", False))
    config = _config(folder, {"name": name, **options}, model, overrides)
    task, examples = _typed(config, rows)
    run = RunFolder(folder)
    run.start(config, {"schema_version": 1, "files": {"rows.jsonl": "0" * 64}, "rows": {"train": len(rows)}})
    _log(run, task, examples, steps)
    _adapter(run, config, task, temperature)
    draw = random.Random(seed)
    systems = {}
    if examples:
        answers = [with_temperature(answer(task, example, draw), temperature) for example in examples]
        systems = {"finetuned": answers, "untuned": [_first(task, example) for example in examples]}
        systems |= {name: baseline(examples, examples) for name, baseline in (baselines or {}).items()}
        write_predictions(run.predictions, task, examples, answers)
    figures = measured(task, systems, examples, split=split, bootstrap=100, seed=0, temperature=temperature)
    write_json(run.metrics, figures)
    return folder


def _first(task: Task, example: Example) -> Prediction:
    """What an untuned model might say."""
    if task.name == "ner":
        return Prediction(example.answer[:1], probability=0.2)
    if task.name == "generation":
        return Prediction("a dog")
    options = example.options  # type: ignore[attr-defined]
    return Prediction((options[0],) if getattr(task.options, "multi_label", False) else options[0], probability=0.5)


def _config(folder: Path, task: dict[str, Any], model: str, overrides: Sequence[str]) -> RunConfig:
    values = {
        "run": {"output_dir": str(folder.parent), "name": folder.name},
        "task": task,
        "model": {"name": model},
        "data": {"train": "rows.jsonl"},
    }
    return load_config(values, overrides)


def _typed(config: RunConfig, records: Sequence[dict[str, Any]]) -> tuple[Task, list[Example]]:
    rows = [Row(record, "rows.jsonl", i, image_root=None) for i, record in enumerate(records, 1)]
    kind = task_class(config.task["name"])
    task = kind(kind.resolve(task_options(config.task), rows))
    return task, [task.example(row) for row in rows]


def _log(run: RunFolder, task: Task, examples: Sequence[Example], steps: int) -> None:
    encoded = [Encoded(tuple(range(20 + len(e.text))), 20, removed=int(len(e.text) > 400)) for e in examples]
    told = summary(task, examples, encoded)
    lines: list[dict[str, Any]] = [{"step": 0, "started": MACHINE, "data": dict.fromkeys(SPLITS, told)}]
    draw = random.Random(1)
    for step in range(1, steps + 1):
        figures = {"loss": 2.5 / step**0.6 + draw.random() * 0.1, "learning_rate": 1e-4 * (1 - step / steps)}
        lines.append({"step": step, **figures, "samples_per_second": 9.0, "tokens_per_second": 99.0})
        if step % max(steps // 5, 1) == 0:
            value = 0.8 - 0.3 / step + (0.0 if step < steps else -0.02)
            lines.append({"step": step, "evaluation": {task.headline: value}, "best": step < steps})
    lines += [{"step": steps, "training_seconds": 271.3}, {"step": steps, "finished": {"peak_gib": 2.76}}]
    write_text(run.log, "".join(json.dumps({**line, "time": float(i)}) + "\n" for i, line in enumerate(lines)))


def _adapter(run: RunFolder, config: RunConfig, task: Task, temperature: float) -> None:
    run.adapter.mkdir(parents=True)
    told = TaskFile(
        task=task.options.model_dump(mode="json"),
        family="qwen2",
        template_hash="0",
        tokenizer_hash="0",
        stop_ids=[0],
        base=BaseName(name=config.model.name, fingerprint="0" * 64),
        max_length=config.data.max_length,
        max_answer_tokens=8,
        temperature=temperature,
        thresholds=THRESHOLDS if getattr(task.options, "multi_label", False) else Thresholds(),
        columns={},
        encoding="utf-8",
    )
    write_json(run.adapter / TASK_FILE, told.model_dump(mode="json"))
