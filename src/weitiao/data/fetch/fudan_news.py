"""Fudan news, as the tutorial takes it: `{"text": "…", "category": ["Sports", "Economy", …], "output": "Sports"}`.

`category` holds each row's own candidates, hence `task.options=row`. 4,000 training and 959 test rows in the source's
own two files, unchanged.
"""

from __future__ import annotations

from pathlib import Path

from weitiao.hub.cache import hub_file

NOTICE = """\
Chinese news of Fudan University, with candidate categories and the right one for each article.

Fetched by `weitiao data fetch fudan-news` from the files train.jsonl and test.jsonl of the ModelScope data set
swift/zh_cls_fudan-news (https://modelscope.cn/datasets/swift/zh_cls_fudan-news, formerly
huangjintao/zh_cls_fudan-news), unchanged.

The data set's page states the Apache License 2.0. It does not state the rights in the articles' text.
"""

SOURCE = "modelscope:swift/zh_cls_fudan-news"


def build(root: Path) -> dict[str, bytes]:
    """{"train.jsonl": …, "test.jsonl": …}; ModelScope's own cache keeps the download, not `root`."""
    return {name: hub_file(f"{SOURCE}/{name}").read_bytes() for name in ("train.jsonl", "test.jsonl")}
