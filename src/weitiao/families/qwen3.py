"""Qwen3, always without thinking: an answer of a few tokens needs no monologue before it."""

from weitiao.families.base import Family
from weitiao.families.chat_format import ChatMLWithoutThinking

FAMILY = Family(model_types=("qwen3",), chat_format=ChatMLWithoutThinking)
