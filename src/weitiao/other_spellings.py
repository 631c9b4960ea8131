"""LLaMA-Factory's and ms-swift's keys, turned into ours: a config of theirs, or a key of theirs inside ours.

`TABLE` has a row for each of their keys: what becomes of it, or why it is not needed, or why it is refused. Nothing is
passed over silently; each key gets one line. Our own keys come first: `config.py` asks here only for keys that it does
not know. The tables in docs/from-llama-factory.md and docs/from-ms-swift.md are generated from this one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from weitiao.errors import ConfigError

BOTH, FACTORY, SWIFT = "LS", "L", "S"
"""Whose key it is: LLaMA-Factory's, ms-swift's, or that of both (most of these are transformers')."""
OFF: tuple[Any, ...] = (None, False, 0, "", "none", "None", "null", [], {})
"""Values that leave something out."""
DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx")


@dataclass(frozen=True, slots=True)
class Renamed:
    """Becomes `ours`; `turn` gives our value, or several keys of ours, or a ValueError that says why not."""

    ours: str
    turn: Callable[[Any], Any] = lambda value: value
    note: str = ""
    of: str = BOTH
    weak: bool = False
    """Whether a key of ours that is there already stays as it is."""


@dataclass(frozen=True, slots=True)
class NotNeeded:
    """Left out, for the reason `why`. With `values`: only these; others are refused."""

    why: str
    values: tuple[Any, ...] | None = None
    of: str = BOTH


@dataclass(frozen=True, slots=True)
class Refused:
    """Has no counterpart, for the reason `why`; a value that switches it off is left out."""

    why: str
    of: str = BOTH
    secret: bool = False


Row = Renamed | NotNeeded | Refused


class Several(dict[str, Any]):
    """Keys of ours that one key of theirs becomes."""


def _share(value: Any) -> Any:
    if value in (0, None):
        return None
    if isinstance(value, int | float) and value >= 1:
        raise ValueError("is a number of rows; name a share such as 0.1, or a file of validation rows")
    return value


def _modules(value: Any) -> Any:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        return value
    names = [str(name).strip() for name in names]
    return None if {"all", "all-linear"} & {name.lower() for name in names} else names


def _file(value: Any) -> Any:
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(one, list) or (isinstance(one, str) and "," in one):
        raise ValueError("names several data sets; put their rows into one file, and name it in data.train")
    if not isinstance(one, str):
        return one
    name, _, rows = one.partition("#")
    if not name.lower().endswith(DATA_FILES):
        raise ValueError("is a name that their register knows; name its file in data.train, such as data/rows.jsonl")
    return (name, int(rows)) if rows.isdigit() else name


def _train(value: Any) -> Any:
    file = _file(value)
    return Several({"data.train": file[0], "data.train_rows": file[1]}) if isinstance(file, tuple) else file


def _validation(value: Any) -> Any:
    file = _file(value)
    return Several({"data.validation": file[0], "data.validation_rows": file[1]}) if isinstance(file, tuple) else file


def _trackers(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    names = [name.strip() if isinstance(name, str) else name for name in names]
    if "all" in names:
        raise ValueError("name the trackers: swanlab, tensorboard, wandb, mlflow or trackio")
    return [name for name in names if name not in OFF]


def _bits(value: Any) -> str:
    if value != 4:
        raise ValueError("weights are stored in 16 bits or, as nf4, in 4")
    return "nf4"


def _dtype(value: Any) -> Any:
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(value, value)


def _columns(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("wanted a mapping of the file's names to theirs")
    named = {"query": "question", "prompt": "question", "response": "answer", "images": "image", "input": "text"}
    named |= {"messages": "conversation", "conversations": "conversation"}
    return {named.get(theirs, theirs): column for column, theirs in value.items()}


def _text(value: Any) -> Any:
    if isinstance(value, str) and value.endswith(".txt"):
        raise ValueError("names a file; write its text")
    return value


def _one_of(choices: Mapping[Any, Any], why: str) -> Callable[[Any], Any]:
    def turn(value: Any) -> Any:
        if not isinstance(value, str | bool | int) or value not in choices:
            raise ValueError(why)
        return choices[value]

    return turn


def _metric(value: Any) -> Any:
    name = str(value).removeprefix("eval_")
    if "loss" in name:
        raise ValueError("the best adapter is chosen by the task's own metric, not by the loss")
    return name.replace("-", "_")


def _share_of_steps(value: Any) -> Any:
    if isinstance(value, int | float) and value >= 1:
        raise ValueError("wanted a share of the steps, below 1")
    return value


def _positive(value: Any) -> Any:
    return None if isinstance(value, int | float) and value < 0 else value


LORA_ONLY = "only LoRA is trained here, in its plain form"
ONE_PROCESS = "one process trains here; a model too large for one card is spread or stored in 4 bits (model.placement)"
ENGINE = "the engine chooses how it computes (engine.attention, engine.triton); answers and gradients are the same"
READ_AHEAD = "rows are read and tokenized here without helpers"
OWN_CHAT = "the model's own chat format is used, in training and in prediction"
IN_FOLDER = "the run folder always holds it"
TUNERS = ("lora", "LORA")

TABLE: dict[str, Row] = {
    # task
    "stage": Renamed(
        "task.name",
        _one_of({"sft": "generation"}, "only supervised fine-tuning is done here"),
        "`sft` is our task `generation`, unless `task` says another",
        FACTORY,
        weak=True,
    ),
    "task_type": Renamed(
        "task.name",
        _one_of(
            {"causal_lm": "generation", "seq_cls": "classification"}, "the tasks are classification, ner and generation"
        ),
        "`causal_lm`: generation; `seq_cls`: classification, whose labels the language model scores",
        SWIFT,
        weak=True,
    ),
    "problem_type": Renamed(
        "task.multi_label",
        _one_of(
            {"single_label_classification": False, "multi_label_classification": True}, "regression is no task here"
        ),
        of=SWIFT,
    ),
    "num_labels": NotNeeded("the labels are those of the rows, or of task.labels", of=SWIFT),
    "system": Renamed("task.instruction", _text, of=SWIFT),
    "default_system": Renamed("task.instruction", _text, of=FACTORY),
    # model
    "model_name_or_path": Renamed("model.name", of=FACTORY),
    "model": Renamed("model.name", of=SWIFT),
    "model_id_or_path": Renamed("model.name", of=SWIFT),
    "cache_dir": Renamed("model.cache_dir", of=FACTORY),
    "torch_dtype": Renamed("model.dtype", _dtype, of=SWIFT),
    "infer_dtype": Renamed("model.dtype", _dtype, of=FACTORY),
    "quantization_bit": Renamed("model.placement", _bits, "`4` is `nf4`; others are refused", FACTORY),
    "quant_bits": Renamed("model.placement", _bits, "`4` is `nf4`; others are refused", SWIFT),
    "quantization_method": NotNeeded("4 bits are by bitsandbytes", ("bnb", "bitsandbytes"), FACTORY),
    "quant_method": NotNeeded("4 bits are by bitsandbytes", ("bnb",), SWIFT),
    "quantization_type": NotNeeded("4 bits are nf4", ("nf4",), FACTORY),
    "bnb_4bit_quant_type": NotNeeded("4 bits are nf4", ("nf4",), SWIFT),
    "double_quantization": NotNeeded("the scales of 4 bits are quantized, too", (True,), FACTORY),
    "bnb_4bit_use_double_quant": NotNeeded("the scales of 4 bits are quantized, too", (True,), SWIFT),
    "bnb_4bit_compute_dtype": NotNeeded("model.dtype says it", of=SWIFT),
    "model_type": NotNeeded("the family is found from the model's config.json", of=SWIFT),
    "model_revision": Refused("write the revision into the name, as ORG/NAME@REV"),
    "use_hf": Refused("write the hub into the name, as hf:ORG/NAME", SWIFT),
    "trust_remote_code": NotNeeded("no code that comes with a model is run", of=FACTORY),
    "use_fast_tokenizer": NotNeeded("the tokenizer is read from its tokenizer.json", of=FACTORY),
    "resize_vocab": Refused("the vocabulary stays as it is", FACTORY),
    "new_special_tokens": Refused("the vocabulary stays as it is", SWIFT),
    "add_special_tokens": Refused("the vocabulary stays as it is", FACTORY),
    "add_tokens": Refused("the vocabulary stays as it is", FACTORY),
    "rope_scaling": Refused("positions are those of the model's config.json"),
    "adapter_name_or_path": Refused("an adapter is not trained further; merge it (`weitiao export`) and train on that"),
    "adapters": Refused("an adapter is not trained further; merge it (`weitiao export`) and train on that", SWIFT),
    "device_map": NotNeeded("model.device and model.placement say it", ("auto",), SWIFT),
    "hf_hub_token": Refused("a token is no part of a config; set HF_TOKEN", FACTORY, secret=True),
    "ms_hub_token": Refused("a token is no part of a config; set MODELSCOPE_API_TOKEN", FACTORY, secret=True),
    "hub_token": Refused("a token is no part of a config; set MODELSCOPE_API_TOKEN", SWIFT, secret=True),
    "swanlab_api_key": Refused("a key is no part of a config; set SWANLAB_API_KEY", FACTORY, secret=True),
    "swanlab_token": Refused("a key is no part of a config; set SWANLAB_API_KEY", SWIFT, secret=True),
    # data
    "dataset": Renamed("data.train", _train, "a file, not a registered name; `FILE#500` sets data.train_rows, too"),
    "eval_dataset": Renamed("data.validation", _validation, "a file, not a registered name", FACTORY),
    "val_dataset": Renamed("data.validation", _validation, "a file, not a registered name", SWIFT),
    "val_size": Renamed("data.validation", _share, "a share; `0` is null", FACTORY),
    "split_dataset_ratio": Renamed("data.validation", _share, "`0` is null", SWIFT),
    "dataset_dir": Refused("its dataset_info.json is not read; write the file's path into data.train", FACTORY),
    "media_dir": Renamed("data.images", of=FACTORY),
    "columns": Renamed("data.columns", _columns, "turned round: ours is our field → the file's column", SWIFT),
    "cutoff_len": Renamed("data.max_length", note="ours shortens the text alone, never the answer", of=FACTORY),
    "max_length": Renamed("data.max_length", note="ours shortens the text alone, never the answer", of=SWIFT),
    "max_samples": Renamed("data.train_rows", note="drawn by the seed, not the first ones", of=FACTORY),
    "image_max_pixels": Renamed("data.max_pixels", of=FACTORY),
    "image_min_pixels": Renamed("data.min_pixels", of=FACTORY),
    "max_pixels": Renamed("data.max_pixels", of=SWIFT),
    "template": NotNeeded(OWN_CHAT),
    "template_backend": NotNeeded(OWN_CHAT, of=SWIFT),
    "use_chat_template": NotNeeded(OWN_CHAT, (True,), SWIFT),
    "enable_thinking": NotNeeded("Qwen3 answers without thinking", (False,)),
    "truncation_strategy": Refused("a long text keeps its head and tail, and no row is left out", SWIFT),
    "train_on_prompt": Refused("the answer alone is trained on", FACTORY),
    "mask_history": NotNeeded("of a conversation, the last answer alone is trained on", (True,), FACTORY),
    "loss_scale": NotNeeded("of a conversation, the last answer alone is trained on", ("last_round",), SWIFT),
    "streaming": Refused("training rows are read whole"),
    "packing": NotNeeded("rows are always laid end to end, and none sees another"),
    "neat_packing": NotNeeded("rows are always laid end to end, and none sees another", of=FACTORY),
    "padding_free": NotNeeded("rows are always laid end to end, and none sees another", of=SWIFT),
    "group_by_length": NotNeeded("rows are laid end to end, so their lengths need not agree"),
    "mix_strategy": Refused("one file is trained on", FACTORY),
    "interleave_probs": Refused("one file is trained on", FACTORY),
    "interleave_prob": Refused("one file is trained on", SWIFT),
    "overwrite_cache": NotNeeded(READ_AHEAD, of=FACTORY),
    "tokenized_path": Refused(READ_AHEAD, FACTORY),
    "cached_dataset": Refused(READ_AHEAD, SWIFT),
    "load_from_cache_file": NotNeeded(READ_AHEAD, of=SWIFT),
    "preprocessing_num_workers": NotNeeded(READ_AHEAD, of=FACTORY),
    "preprocessing_batch_size": NotNeeded(READ_AHEAD, of=FACTORY),
    "dataset_num_proc": NotNeeded(READ_AHEAD, of=SWIFT),
    "dataloader_num_workers": NotNeeded(READ_AHEAD),
    "dataloader_pin_memory": NotNeeded(READ_AHEAD),
    "dataset_shuffle": NotNeeded("each epoch has an order of its own, by run.seed", (True,), SWIFT),
    "train_dataloader_shuffle": NotNeeded("each epoch has an order of its own, by run.seed", (True,), SWIFT),
    "disable_shuffling": Refused("each epoch has an order of its own, by run.seed", FACTORY),
    "data_seed": NotNeeded("run.seed decides the order, too"),
    "strict": NotNeeded("a broken row is always refused", (True,), SWIFT),
    "remove_unused_columns": NotNeeded("a task takes the fields that it knows"),
    "model_name": Refused("is for their data of self-cognition; the base is model.name", SWIFT),
    "model_author": Refused("is for their data of self-cognition", SWIFT),
    # lora
    "finetuning_type": NotNeeded(LORA_ONLY, TUNERS, FACTORY),
    "train_type": NotNeeded(LORA_ONLY, TUNERS, SWIFT),
    "tuner_type": NotNeeded(LORA_ONLY, TUNERS, SWIFT),
    "sft_type": NotNeeded(LORA_ONLY, TUNERS, SWIFT),
    "tuner_backend": NotNeeded("adapters are PEFT's", ("peft",), SWIFT),
    "lora_rank": Renamed("lora.r"),
    "lora_r": Renamed("lora.r"),
    "lora_alpha": Renamed("lora.lora_alpha"),
    "lora_dropout": Renamed("lora.lora_dropout"),
    "lora_target": Renamed("lora.target_modules", _modules, "`all` is null: all of the family's", FACTORY),
    "target_modules": Renamed("lora.target_modules", _modules, "`all-linear` is null: all of the family's", SWIFT),
    "lora_target_modules": Renamed("lora.target_modules", _modules, "`ALL` is null: all of the family's", SWIFT),
    "target_regex": Refused("name the layers in lora.target_modules", SWIFT),
    "lora_bias": NotNeeded("biases stay frozen", ("none",), SWIFT),
    "lora_dtype": NotNeeded("adapters are float32", ("float32",), SWIFT),
    "init_weights": NotNeeded("A is random, B is zero", (True, "true"), SWIFT),
    "additional_target": Refused(LORA_ONLY, FACTORY),
    "modules_to_save": Refused(LORA_ONLY, SWIFT),
    "use_dora": Refused(LORA_ONLY),
    "use_rslora": Refused(LORA_ONLY),
    "pissa_init": Refused(LORA_ONLY, FACTORY),
    "loraplus_lr_ratio": Refused(LORA_ONLY, FACTORY),
    "lorap_lr_ratio": Refused(LORA_ONLY, SWIFT),
    "use_galore": Refused(LORA_ONLY),
    "use_badam": Refused(LORA_ONLY, FACTORY),
    "use_apollo": Refused(LORA_ONLY, FACTORY),
    "neftune_noise_alpha": Refused("no noise is added"),
    "freeze_vision_tower": Renamed(
        "lora.vision_tower", _one_of({True: False, False: True}, "wanted true or false"), "the opposite", FACTORY
    ),
    "freeze_vit": Renamed(
        "lora.vision_tower", _one_of({True: False, False: True}, "wanted true or false"), "the opposite", SWIFT
    ),
    "freeze_multi_modal_projector": NotNeeded("it is frozen", (True,), FACTORY),
    "freeze_aligner": NotNeeded("it is frozen", (True,), SWIFT),
    "freeze_language_model": Refused("the language model gets the adapter", FACTORY),
    "freeze_llm": Refused("the language model gets the adapter", SWIFT),
    # training
    "do_train": NotNeeded("`weitiao train` is the command", (True,)),
    "do_eval": NotNeeded("validation and test rows are always measured", (True,)),
    "do_predict": NotNeeded("validation and test rows are always measured", (True,), FACTORY),
    "seed": Renamed("run.seed"),
    "output_dir": Renamed("run.output_dir", note="the run's folder lies in it, by the name run.name"),
    "run_name": Renamed("run.name"),
    "swanlab_run_name": Renamed("run.name", of=FACTORY),
    "overwrite_output_dir": NotNeeded("a finished run is never overwritten, unless by `weitiao train --overwrite`"),
    "add_version": NotNeeded("the folder is named by run.name", of=SWIFT),
    "resume_from_checkpoint": Refused("the same command goes on with its own run"),
    "learning_rate": Renamed("training.learning_rate"),
    "num_train_epochs": Renamed("training.num_train_epochs"),
    "max_steps": Renamed("training.max_steps", _positive, "below 0: null"),
    "lr_scheduler_type": Renamed("training.lr_scheduler_type", note="linear, cosine, constant, constant_with_warmup"),
    "lr_scheduler_kwargs": Refused("a schedule has no further values"),
    "warmup_ratio": Renamed("training.warmup_steps", _share_of_steps, "below 1 it is a share of all steps"),
    "warmup_steps": Renamed("training.warmup_steps"),
    "weight_decay": Renamed("training.weight_decay"),
    "max_grad_norm": Renamed("training.max_grad_norm"),
    "optim": NotNeeded("AdamW it is", ("adamw_torch", "adamw_torch_fused", "adamw_hf")),
    "adam_beta1": NotNeeded("it is 0.9", (0.9,)),
    "adam_beta2": NotNeeded("it is 0.999", (0.999,)),
    "adam_epsilon": NotNeeded("it is 1e-8", (1e-8,)),
    "gradient_checkpointing": Renamed(
        "training.gradient_checkpointing", _one_of({True: "on", False: "off"}, "wanted true or false"), "on or off"
    ),
    "disable_gradient_checkpointing": Renamed(
        "training.gradient_checkpointing", _one_of({True: "off", False: "auto"}, "wanted true or false"), of=FACTORY
    ),
    "gradient_checkpointing_kwargs": NotNeeded("the reentrant kind is not used", of=SWIFT),
    "logging_steps": Renamed("training.logging_steps"),
    "save_steps": Renamed("training.save_steps"),
    "save_total_limit": Renamed("training.keep_checkpoints", note="the best one stays besides"),
    "save_strategy": NotNeeded("checkpoints come every training.save_steps", ("steps",)),
    "save_only_model": NotNeeded("a checkpoint is small, and a run goes on from it"),
    "bf16": NotNeeded("a GPU computes in bfloat16, a CPU in float32; model.dtype says otherwise"),
    "pure_bf16": NotNeeded("a GPU computes in bfloat16; adapters are float32", of=FACTORY),
    "fp16": NotNeeded("a card before Ampere computes in float16, a newer one in bfloat16; model.dtype says otherwise"),
    "tf32": NotNeeded(ENGINE),
    "fp8": Refused("weights are in 16 bits or, as nf4, in 4", FACTORY),
    "flash_attn": NotNeeded(ENGINE, of=FACTORY),
    "attn_impl": NotNeeded(ENGINE, of=SWIFT),
    "use_unsloth": NotNeeded(ENGINE, of=FACTORY),
    "use_unsloth_gc": NotNeeded(ENGINE, of=FACTORY),
    "enable_liger_kernel": NotNeeded(ENGINE, of=FACTORY),
    "use_liger_kernel": NotNeeded(ENGINE, of=SWIFT),
    "deepspeed": Refused(ONE_PROCESS),
    "fsdp": Refused(ONE_PROCESS),
    "sequence_parallel_size": NotNeeded(ONE_PROCESS, (1,), SWIFT),
    "ddp_timeout": NotNeeded(ONE_PROCESS),
    "ddp_backend": NotNeeded(ONE_PROCESS),
    "ddp_find_unused_parameters": NotNeeded(ONE_PROCESS),
    # evaluation
    "per_device_eval_batch_size": NotNeeded("evaluation.batch_tokens says it, by tokens"),
    "eval_strategy": NotNeeded("evaluation.steps says it; left out, once an epoch", ("steps", "epoch")),
    "evaluation_strategy": NotNeeded("evaluation.steps says it; left out, once an epoch", ("steps", "epoch")),
    "eval_steps": Renamed("evaluation.steps"),
    "metric_for_best_model": Renamed("evaluation.metric", _metric, "a metric of the task; not the loss"),
    "greater_is_better": NotNeeded("the task knows it of its metric"),
    "load_best_model_at_end": NotNeeded("the best adapter is always kept", (True,)),
    "early_stopping_steps": Renamed("evaluation.early_stopping_patience", of=FACTORY),
    "early_stop_interval": Renamed("evaluation.early_stopping_patience", of=SWIFT),
    "predict_with_generate": NotNeeded("the task says how it is answered and judged"),
    "compute_accuracy": NotNeeded("the task says how it is answered and judged", of=FACTORY),
    "max_new_tokens": Refused("the task says how long an answer may be"),
    "temperature": Refused("answers are not drawn by chance"),
    "top_p": Refused("answers are not drawn by chance"),
    "do_sample": Refused("answers are not drawn by chance"),
    # tracking
    "report_to": Renamed("tracking.trackers", _trackers, "`none` is an empty list"),
    "use_swanlab": Renamed(
        "tracking.trackers", _one_of({True: ["swanlab"], False: []}, "wanted true or false"), of=FACTORY
    ),
    "swanlab_project": Renamed("tracking.project"),
    "swanlab_mode": Renamed(
        "tracking.mode", _one_of({"cloud": "online", "local": "local"}, "wanted cloud or local"), "`cloud` is online"
    ),
    "plot_loss": NotNeeded(IN_FOLDER, of=FACTORY),
    "logging_dir": NotNeeded(IN_FOLDER),
    "logging_first_step": NotNeeded(IN_FOLDER),
    "include_num_input_tokens_seen": NotNeeded(IN_FOLDER),
    "include_effective_tokens_per_second": NotNeeded(IN_FOLDER, of=FACTORY),
    "push_to_hub": Refused("nothing is uploaded"),
}
BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Two keys that become one, `training.samples_per_step`: their product."""
LEFT_OUT = (
    *("training.samples_per_step", "training.learning_rate", "training.num_train_epochs", "data.max_length"),
    *("data.validation", "lora.r", "lora.lora_alpha"),
)
"""Keys of ours whose defaults are not theirs; told where a whole config of theirs leaves them out."""


def is_theirs(key: str) -> bool:
    return key in TABLE or key in BATCH


def turned(theirs: Mapping[str, Any], has_task: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Their keys and values as `section.key` → value, and a line for each of them.

    has_task: whether a task is given, which theirs do not replace. Raises ConfigError for the first that cannot be.
    """
    ours: dict[str, Any] = {}
    lines: list[str] = []
    for key, value in theirs.items():
        if key in BATCH:
            if key == next(name for name in theirs if name in BATCH):
                _put(ours, "training.samples_per_step", _product(theirs), key)
                lines.append(f"{' × '.join(BATCH)} → training.samples_per_step = {ours['training.samples_per_step']}")
            continue
        row = TABLE[key]
        if value is None:
            lines.append(f"{key}: null, left out")
        elif isinstance(row, Refused):
            if not _is_off(value):
                raise ConfigError(f"key `{key}`{'' if row.secret else _is(value)} has no counterpart here: {row.why}")
            lines.append(f"{key}: off, left out")
        elif isinstance(row, NotNeeded):
            if row.values is not None and value not in row.values:
                raise ConfigError(f"key `{key}`{_is(value)} has no counterpart here: {row.why}")
            lines.append(f"{key}: not needed; {row.why}")
        else:
            lines.append(_rename(ours, key, value, row, has_task))
    return ours, lines


def _rename(ours: dict[str, Any], key: str, value: Any, row: Renamed, has_task: bool) -> str:
    try:
        made = row.turn(value)
    except ValueError as error:
        raise ConfigError(f"key `{key}`{_is(value)}: {error}") from None
    if row.weak and has_task:
        return f"{key}: not needed; `task` says it"
    several = made if isinstance(made, Several) else Several({row.ours: made})
    for name, own in several.items():
        _put(ours, name, own, key)
    if len(several) == 1 and made == value:
        return f"{key} → {row.ours}"
    return f"{key}{_is(value)} → " + ", ".join(f"{name}{_is(own)}" for name, own in several.items())


def _put(ours: dict[str, Any], name: str, value: Any, key: str) -> None:
    there = ours.get(name)
    if name == "tracking.trackers" and isinstance(there, list):
        value = [*there, *(tracker for tracker in value if tracker not in there)]
    elif there is not None and value is None:
        value = there
    elif there is not None and there != value:
        raise ConfigError(f"key `{key}`: `{name}` is given twice, {_shown(there)} and {_shown(value)}; remove one")
    ours[name] = value


def _product(theirs: Mapping[str, Any]) -> int:
    """Rows of a step. One of the two alone says nothing: the other's default is not the same for both programs."""
    product = 1
    for name in BATCH:
        value = theirs.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            found = "is missing" if value is None else f"is {_shown(value)}, wanted a whole number"
            raise ConfigError(
                f"key `{name}` {found}: the product of {' and '.join(BATCH)} is our training.samples_per_step; "
                "give both, or that"
            )
        product *= value
    return product


def _is_off(value: Any) -> bool:
    return any(value == off and isinstance(value, bool) == isinstance(off, bool) for off in OFF)


def _is(value: Any) -> str:
    return f" = {_shown(value)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
