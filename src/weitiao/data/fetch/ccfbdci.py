"""CCF BDCI's named entities, as the tutorial takes them, in one file without splits, unchanged:

{"text": "…", "entities": [{"start_idx": 0, "end_idx": 3, "entity_text": "菲律宾", "entity_label": "GPE",
                            "entity_names": ["地缘政治实体", "政治实体", "地理实体", "社会实体"]}, …]}
"""

from __future__ import annotations

from pathlib import Path

from weitiao.hub.cache import hub_file

NOTICE = """\
Chinese news sentences with named entities (GPE, LOC, ORG, PER), from a contest of CCF BDCI on robust NER.

Fetched by `weitiao data fetch ccfbdci` from the file data/ccfbdci.jsonl of the Hugging Face data set
qgyd2021/chinese_ner_sft (https://huggingface.co/datasets/qgyd2021/chinese_ner_sft), unchanged.

The data set's page states the Apache License 2.0 for the collection. This part was made from the contest's training
data (https://www.datafountain.cn/competitions/510), which its organisers give to those who sign up; the rights in it
and in the sentences are not stated: do not redistribute this file.
"""

SOURCE = "hf:qgyd2021/chinese_ner_sft/data/ccfbdci.jsonl"
"""No copy on ModelScope is known; HF_ENDPOINT names a mirror where Hugging Face cannot be reached."""


def build(root: Path) -> dict[str, bytes]:
    """{"ccfbdci.jsonl": …}; Hugging Face's own cache keeps the download, not `root`."""
    return {"ccfbdci.jsonl": hub_file(SOURCE).read_bytes()}
