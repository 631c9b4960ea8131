"""Models of Llama's build that speak ChatML, such as SmolLM2. One without ChatML's control tokens is refused."""

from weitiao.families.base import Family
from weitiao.families.chat_format import ChatML

FAMILY = Family(model_types=("llama",), chat_format=ChatML)
