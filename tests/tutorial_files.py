"""Small data files in the formats that the tutorial's data sets have.

fudan_news(path)   rows {"text", "category": [options], "output"}
ccfbdci(path)      rows {"text", "entities": [{"start_idx", "end_idx", "entity_text", "entity_label", "entity_names"}]}
coco_caption(folder)  coco-2024-dataset.csv, rows image_path and caption, and the images
data_vl(table)        data_vl.json beside it, the same as conversations
"""

from __future__ import annotations

import csv
import json
from itertools import islice, product
from pathlib import Path
from typing import Any

from PIL import Image

from tiny import small_ner, write_rows

TOPICS = {
    "体育": ("主队在{}赢了比赛。", "{}的球员进了三个球。", "教练在{}谈到训练。"),
    "经济": ("{}的股市今天上涨。", "{}的银行降低了利率。", "{}的出口增加了一成。"),
    "教育": ("{}的学校今天开学。", "{}的老师和学生见面。", "{}的大学公布了招生办法。"),
}
PLACES = ("南京", "北京", "上海", "广州", "杭州", "哈尔滨", "乌鲁木齐", "西安")
NAMES = {"人名": ("PER", ["人名", "姓名"]), "地点": ("LOC", ["地址", "地点"])}
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "gray", "orange")
ANIMALS = ("dog", "cat", "horse", "bird", "sheep")


def fudan_news(path: Path, rows: int = 48, start: int = 0, long: int = 0) -> Path:
    """Rows `start` and following of 72 different ones, each with its candidates in another order. long: how many of
    them, counted from the first, have a text of some hundred tokens. The first text holds U+2028, which ends a line for
    `str.splitlines`, but not in JSON Lines."""
    triples = [(topic, pattern, place) for (topic, ps), place in product(TOPICS.items(), PLACES) for pattern in ps]
    found = []
    for at, (topic, pattern, place) in enumerate(sorted(triples, key=lambda t: (t[2], t[1]))[start : start + rows]):
        order = list(TOPICS)[at % 3 :] + list(TOPICS)[: at % 3]
        text = pattern.format(place) * (30 if at < long else 1) + ("" if at else "\u2028完。")
        found.append({"text": text, "category": order, "output": topic})
    return write_rows(path, found)


def ccfbdci(path: Path, rows: int = 40) -> Path:
    """At most 256 different rows with persons and places, whose types are told as the data set does it."""
    lines = small_ner(path, rows).read_text("utf-8").splitlines()
    found: list[dict[str, Any]] = []
    for row in islice(map(json.loads, lines), rows):
        entities = [
            {
                "start_idx": entity["start"],
                "end_idx": entity["end"],
                "entity_text": entity["text"],
                "entity_label": NAMES[entity["type"]][0],
                "entity_names": NAMES[entity["type"]][1],
            }
            for entity in row["entities"]
        ]
        found.append({"text": row["text"], "entities": entities})
    return write_rows(path, found)


def coco_caption(folder: Path, rows: int = 40) -> Path:
    """At most 40 rows, what the data set gives of them; path of the CSV. Small images of one colour, a third of them
    PNG; captions have commas and quotes."""
    (folder / "coco_2014_caption").mkdir(parents=True)
    found = []
    for at, (animal, colour) in enumerate(islice(product(ANIMALS, COLOURS), rows)):
        name = f"coco_2014_caption/{at}.{'jpg' if at % 3 else 'png'}"
        Image.new("RGB", (24 + at, 64 - at), colour).save(folder / name)
        found.append([name, f'A {animal}, called "{colour}", in the grass.'])
    path = folder / "coco-2024-dataset.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["image_path", "caption"], *found])
    return path


def data_vl(table: Path) -> Path:
    with table.open(encoding="utf-8", newline="") as file:
        pairs = [(row["image_path"], row["caption"]) for row in csv.DictReader(file)]
    found = [
        {
            "id": f"identity_{number}",
            "conversations": [
                {"from": "user", "value": f"COCO Yes: <|vision_start|>{image}<|vision_end|>"},
                {"from": "assistant", "value": caption},
            ],
        }
        for number, (image, caption) in enumerate(pairs, 1)
    ]
    path = table.with_name("data_vl.json")
    path.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return path
