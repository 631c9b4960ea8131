"""Qwen2 and Qwen2.5, Instruct and base: ChatML."""

from weitiao.families.base import Family
from weitiao.families.chat_format import ChatML

FAMILY = Family(model_types=("qwen2",), chat_format=ChatML)
