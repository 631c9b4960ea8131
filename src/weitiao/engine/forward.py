"""One forward pass over a batch, the packed and the plain way, up to the hidden states that are read."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import torch

from weitiao.data.collate import Batch
from weitiao.engine import plain
from weitiao.engine.attention_plan import NAME, AttentionPlan, Way, register
from weitiao.engine.exact import exact_product
from weitiao.engine.fast_layer import FastDecoder, unfit
from weitiao.engine.image_features import ImageFeatures
from weitiao.engine.slots import SlotCache, SlotPlan
from weitiao.engine.split_attention import HALF, POWERS
from weitiao.engine.supervised_loss import answer_loss
from weitiao.types import PlacedImage

WHOLE = 1024
"""Rows from which on no product of 16 bits splits its sums on an H200 (`bench/same_bits.py`); 700 are enough there."""


class Forward:
    """Computes batches with a Hugging Face causal model, with or without PEFT's layers inside.

    model: the `…ForCausalLM` or `…ForConditionalGeneration` itself. way: how packs attend. images: what its vision
    tower gives; None for a model that reads text alone. fast: compute the layers of packs by `fast_layer`, where it
    covers the model, on a card with Triton's kernels where `triton`; `slow_because` says why it does not.
    """

    def __init__(
        self,
        model: Any,
        way: Way = "rows",
        images: ImageFeatures | None = None,
        fast: bool = False,
        triton: bool = True,
    ) -> None:
        self.model, self.way, self.images = model, way, images
        self.body, self.head = model.get_decoder(), model.get_output_embeddings()
        # Where tokens go in; a model that is spread over cards gives its states on another one.
        self.device: torch.device = model.get_input_embeddings().weight.device
        # Triton starts a kernel on the first card, wherever its tensors are.
        spread = self.head.weight.device != self.device
        self.kernels = _kernels(triton and not spread, self.device)
        self.slow_because = unfit(self.body) if fast else None
        self.fast = FastDecoder(self.body, self.kernels) if fast and not self.slow_because else None
        self.rounds = self.fast is not None and self.head.weight.dtype in HALF
        """Whether a pass rounds to 16 bits, and `exactly` can do without."""
        self.exact = False
        """Whether it does."""

    @property
    def least(self) -> int:
        """Tokens of a pack, and reads, from which on a row gets the same bits whoever else is there."""
        return WHOLE if self.rounds and self.kernels is not plain and not self.exact else 0

    @property
    def slot_kernels(self) -> ModuleType | None:
        """Where they attend over slots: then `step` is told which slots it is about."""
        if self.fast is None or self.kernels.slot_attention is None or self.exact:
            return None
        return self.kernels if self.fast.layers[0].heads.size in POWERS else None

    def steady(self, rows: int = 0) -> contextlib.AbstractContextManager[None]:
        """Meanwhile the adapters do not change, which need not be looked at in every pass. rows: as `FastDecoder`'s."""
        return contextlib.nullcontext() if self.fast is None else self.fast.steady(rows)

    @contextlib.contextmanager
    def exactly(self) -> Iterator[None]:
        """Meanwhile packs and steps of a model that `rounds` are computed in float32."""
        assert self.fast is not None
        self.exact = True
        try:
            with self.fast.exactly():
                yield
        finally:
            self.exact = False

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Last hidden states after the final norm, [N, H], at the batch's `keep`."""
        batch = batch.to(self.device)
        embedded = self.embedded(batch)
        if batch.packed and self.fast is not None:
            return self.fast(embedded[0], batch.positions, AttentionPlan.of(batch, self.way), batch.keep)
        states = self._theirs(batch, embedded)
        return states.flatten(0, 1)[batch.keep.to(states.device)]

    def embedded(self, batch: Batch) -> torch.Tensor:
        """What goes into the first layer, [B, T, H], in float32 where it is exact; the batch is on the device."""
        return self._embedded(batch.input_ids, batch.images, batch.image_places)

    def _theirs(self, batch: Batch, embedded: torch.Tensor) -> torch.Tensor:
        """Last hidden states [B, T, H] by the decoder's own forward pass."""
        attention: dict[str, Any]
        if batch.packed:
            use_attention(self.body, NAME)
            attention = {"attention_plan": AttentionPlan.of(batch, self.way)}
        else:
            use_attention(self.body, "sdpa")
            attention = {"attention_mask": _padding_mask(batch)}
        return self.body(
            inputs_embeds=embedded, position_ids=batch.positions, use_cache=False, **attention
        ).last_hidden_state

    def step(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: SlotCache,
        keep: torch.Tensor | None = None,
        images: Sequence[PlacedImage] = (),
        image_places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Last hidden states [N, H] of new tokens, whose K and V go where `cache.begin` said.

        ids: int64 [B, n], on the device as all tensors here. positions, images, image_places: as in a `Batch`. keep:
        int64 [N], into the flattened B × n, the tokens whose states are wanted; None: all.
        """
        embedded = self._embedded(ids, images, image_places)
        if self.fast is not None:
            plan = SlotPlan(cache, len(ids), kernels=self.slot_kernels)
            return self.fast(embedded.flatten(0, 1), positions, plan, keep)
        use_attention(self.body, NAME)
        states = self.body(
            inputs_embeds=embedded,
            position_ids=positions,
            use_cache=True,
            attention_plan=SlotPlan(cache),
            **{self._cache_name: cache},
        ).last_hidden_state.flatten(0, 1)
        return states if keep is None else states[keep.to(states.device)]

    @property
    def _cache_name(self) -> str:
        # transformers 5.24 renames it.
        return "cache" if "cache" in inspect.signature(self.body.forward).parameters else "past_key_values"

    def _embedded(self, ids: torch.Tensor, images: Sequence[PlacedImage], places: torch.Tensor | None) -> torch.Tensor:
        """Embeddings [B, T, H] of the ids, with the images' features in the place of their tokens'."""
        embedded: torch.Tensor = self.model.get_input_embeddings()(ids)
        embedded = embedded.float() if self.exact else embedded
        if not images:
            return embedded
        assert self.images is not None, "a batch with images needs a model that reads them"
        assert places is not None
        features = self.images.features(images).to(embedded)
        flat = embedded.flatten(0, 1).index_copy(0, places, features)
        return flat.view_as(embedded)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the answer tokens' cross-entropies, float32 scalar."""
        labels = batch.labels.to(self.head.weight.device, non_blocking=True)
        return answer_loss(self.hidden(batch), self.head, labels, self.kernels)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, H] → [N, V]."""
        if not self.exact:
            return self.head(hidden)  # type: ignore[no-any-return]
        logits = exact_product(hidden, self.head.weight, self.kernels)
        return logits if self.head.bias is None else logits.add_(self.head.bias)

    def log_probabilities(self, hidden: torch.Tensor, at: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """float32 [M], in nats, of `tokens` behind the states `at`, both int64 [M]. hidden: [N, H]."""
        logits = self.logits(hidden)
        at, tokens = (x.to(logits.device, non_blocking=True) for x in (at, tokens))
        return logits[at, tokens].float() - self.kernels.log_sums(logits)[at]


def use_attention(body: Any, name: str) -> None:
    """Set the decoder's attention function, when it is another; that of a vision tower stays."""
    if name == NAME:
        register()
    if body.config._attn_implementation != name:
        body.set_attn_implementation(name)


def _kernels(triton: bool, device: torch.device) -> ModuleType:
    """Triton's kernels on a card, where Triton is installed (not everywhere on Windows)."""
    if not triton or device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return plain
    from weitiao.engine import kernels

    return kernels


def kernels_ahead() -> None:
    """Triton's kernels are imported, and Triton hashes itself for the names of built ones: half a second each."""
    importlib.import_module("weitiao.engine.kernels")
    importlib.import_module("triton.runtime.cache").triton_key()


def _padding_mask(batch: Batch) -> torch.Tensor:
    lengths = torch.tensor(batch.lengths, device=batch.input_ids.device) + batch.prefix_length
    places = torch.arange(batch.input_ids.shape[1], device=lengths.device)
    return (places < lengths[:, None]).long()
