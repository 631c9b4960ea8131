"""Weitiao's own way with the adapter folded into the weights, as Hugging Face's ways have it (`predict --merged`)."""

from __future__ import annotations

from typing import Any

from weitiao.bench.answerer import adapted
from weitiao.bench.answerers.weitiao import Weitiao
from weitiao.bench.shapes import ModelMaker
from weitiao.model.merge import merge


class WeitiaoMerged(Weitiao):
    @staticmethod
    def model(make: ModelMaker) -> Any:
        return merge(adapted(make))

    opened = model


ANSWERER = WeitiaoMerged
