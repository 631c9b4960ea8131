"""GLM-4: first checkpoints (`chatglm`, read by model/chatglm.py), `-hf` checkpoints (`glm`), 0414 series (`glm4`)."""

from weitiao.families.base import Family
from weitiao.families.chat_format import Glm4

FAMILY = Family(
    model_types=("chatglm", "glm", "glm4"),
    chat_format=Glm4,
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
    lora_aliases={
        "query_key_value": ("q_proj", "k_proj", "v_proj"),
        "dense": ("o_proj",),
        "dense_h_to_4h": ("gate_up_proj",),
        "dense_4h_to_h": ("down_proj",),
    },
)
