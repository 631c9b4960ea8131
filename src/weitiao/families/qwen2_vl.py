"""Qwen2-VL and Qwen2.5-VL: ChatML with images."""

from weitiao.families.base import Family
from weitiao.families.chat_format import ChatMLWithImages
from weitiao.families.vision import qwen2_vision

FAMILY = Family(
    model_types=("qwen2_vl", "qwen2_5_vl"),
    chat_format=ChatMLWithImages,
    vision=qwen2_vision,
    # The towers of Qwen2-VL have fc1 and fc2, those of Qwen2.5-VL the gated layers.
    vision_targets=("qkv", "proj", "fc1", "fc2", "gate_proj", "up_proj", "down_proj"),
)
