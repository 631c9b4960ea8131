"""One forward pass over a batch, the packed and the plain way, up to the hidden states that are read."""

from __future__ import annotations

from typing import Any

import torch

from weitiao.data.collate import Batch
from weitiao.engine.attention_plan import NAME, AttentionPlan, Way
from weitiao.engine.supervised_loss import answer_loss


class Forward:
    """Computes batches with a Hugging Face causal model, with or without PEFT's layers inside.

    model: the `…ForCausalLM` itself. way: how packs attend.
    """

    def __init__(self, model: Any, way: Way = "rows") -> None:
        self.model, self.way = model, way
        self.body, self.head = model.get_decoder(), model.get_output_embeddings()
        # Where tokens go in; a model that is spread over cards gives its states on another one.
        self.device: torch.device = model.get_input_embeddings().weight.device

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Last hidden states after the final norm, [N, H], at the batch's `keep`."""
        batch = batch.to(self.device)
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.positions, "use_cache": False}
        if batch.packed:
            use_attention(self.model, NAME)
            inputs["attention_plan"] = AttentionPlan.of(batch, self.way)
        else:
            use_attention(self.model, "sdpa")
            inputs["attention_mask"] = _padding_mask(batch)
        states = self.body(**inputs).last_hidden_state
        return states.flatten(0, 1)[batch.keep.to(states.device)]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the answer tokens' cross-entropies, float32 scalar."""
        return answer_loss(self.hidden(batch), self.head, batch.labels.to(self.head.weight.device))

    def log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, H] → log-probabilities over the vocabulary, float32 [N, V]."""
        return self.head(hidden).float().log_softmax(-1)


def use_attention(model: Any, name: str) -> None:
    """Set the model's attention function, when it is another."""
    if model.config._attn_implementation != name:
        model.set_attn_implementation(name)


def _padding_mask(batch: Batch) -> torch.Tensor:
    lengths = torch.tensor(batch.lengths, device=batch.positions.device) + batch.prefix_length
    return (batch.positions < lengths[:, None]).long()
