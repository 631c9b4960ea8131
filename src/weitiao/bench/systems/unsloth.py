"""Unsloth in 16 bit as its users run it: `FastLanguageModel`, autocast, rows padded on the right, its own chunked loss.

No checkpointing: batches are as large as fit, and then it is faster without. In a process of its own, which it patches
on import; that process reads no network and writes its compiled code into the bench's temporary folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from weitiao.bench.hf import UNSUPERVISED
from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings
from weitiao.bench.systems.hf_batched import PADDED_TOKENS, HfBatched
from weitiao.model.adapter import adapter_parameters
from weitiao.types import Encoded

NEEDS = ("unsloth", "unsloth_zoo", "trl", "datasets", "bitsandbytes")
"""bitsandbytes: its loader imports it for weights in 16 bit, too."""
KERNELS_FOR = ("llama", "mistral", "qwen2", "qwen3")
"""Others would go through its general loader, which compiles Hugging Face's own code."""
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>"}


class Unsloth(HfBatched):
    own_process = True
    first_import = "unsloth"
    loads_itself = True

    @classmethod
    def absent(cls, model_type: str) -> str | None:
        missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
        if missing:
            return f"not installed ({', '.join(missing)})"
        if not torch.cuda.is_available():
            return "needs CUDA"
        return None if model_type in KERNELS_FOR else f"Unsloth has no kernels for {model_type}"

    @classmethod
    def environment(cls, folder: Path) -> Mapping[str, str]:
        return {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "UNSLOTH_DISABLE_STATISTICS": "1",
            "UNSLOTH_COMPILE_LOCATION": str(folder / "unsloth_compiled_cache"),
        }

    def prepare(self, make: ModelMaker, samples: Sequence[Encoded], settings: Settings) -> None:
        from transformers import AutoConfig
        from unsloth import FastLanguageModel

        assert make.folder is not None, "it loads from a folder"
        self.samples, self.settings, self.fits = samples, settings, PADDED_TOKENS
        write_tokenizer(make.folder)
        length = max(len(sample.ids) for sample in samples)
        base, _ = FastLanguageModel.from_pretrained(
            str(make.folder),
            max_seq_length=length,
            dtype=AutoConfig.from_pretrained(make.folder).dtype,
            load_in_4bit=False,
            use_gradient_checkpointing=False,
            use_exact_model_name=True,
            local_files_only=True,
        )
        lora = settings.lora(self.dropout(settings))
        self.model = FastLanguageModel.get_peft_model(
            base,
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=list(lora.target_modules or make.family.lora_targets),
            use_gradient_checkpointing=False,
            random_state=settings.seed,
            max_seq_length=length,
        ).train()
        self.device = base.device
        self.parameters = [parameter for _, parameter in adapter_parameters(self.model)]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)

    def loss(self, members: Sequence[Encoded], wanted: int) -> torch.Tensor:
        """It drops the mask in training, for no token sees the padding on its right."""
        labels = [[UNSUPERVISED] * sample.prompt_length + list(sample.answer) for sample in members]
        half = self.model.get_base_model().dtype == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            loss: torch.Tensor = self.model(
                input_ids=self.padded([sample.ids for sample in members], 0),
                attention_mask=self.padded([[1] * len(sample.ids) for sample in members], 0),
                labels=self.padded(labels, UNSUPERVISED),
                num_items_in_batch=torch.tensor(wanted, device=self.device),
                use_cache=False,
            ).loss
        return loss


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of three words beside the weights, for Unsloth loads no model without one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {word: at for at, word in enumerate(SPECIAL.values())}
    tokenizer = Tokenizer(WordLevel(words, unk_token=SPECIAL["unk_token"]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(folder)


SYSTEM = Unsloth
