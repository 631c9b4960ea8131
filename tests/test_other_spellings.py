"""LLaMA-Factory's and ms-swift's keys become ours with a line each, or are refused with the reason; ours stay."""

from pathlib import Path

import pytest
import yaml

from weitiao.config import SHIPPED, RunConfig, dump_yaml, load_config
from weitiao.errors import ConfigError
from weitiao.other_spellings.kinds import NotNeeded, Refused, Renamed
from weitiao.other_spellings.table import BATCH, TABLE
from weitiao.other_spellings.turning import is_theirs, turned

SMALL = {"task": {"name": "ner"}, "model": {"name": "m"}, "data": {"train": "train.jsonl"}}
SECTIONS = {
    name: field.annotation
    for name, field in RunConfig.model_fields.items()
    if hasattr(field.annotation, "model_fields")
}

RENAMED = {
    "stage": ("sft", {"task.name": "generation"}),
    "task_type": ("seq_cls", {"task.name": "classification"}),
    "problem_type": ("multi_label_classification", {"task.multi_label": True}),
    "system": ("Be short.", {"task.instruction": "Be short."}),
    "default_system": ("Be short.", {"task.instruction": "Be short."}),
    "model_name_or_path": ("Qwen/Qwen3-1.7B", {"model.name": "Qwen/Qwen3-1.7B"}),
    "model": ("Qwen/Qwen3-1.7B", {"model.name": "Qwen/Qwen3-1.7B"}),
    "model_id_or_path": ("Qwen/Qwen3-1.7B", {"model.name": "Qwen/Qwen3-1.7B"}),
    "cache_dir": ("c", {"model.cache_dir": "c"}),
    "torch_dtype": ("bfloat16", {"model.dtype": "bfloat16"}),
    "infer_dtype": ("float32", {"model.dtype": "float32"}),
    "quantization_bit": (4, {"model.placement": "nf4"}),
    "quant_bits": (4, {"model.placement": "nf4"}),
    "dataset": (["rows.jsonl#500"], {"data.train": "rows.jsonl", "data.train_rows": 500}),
    "eval_dataset": ("v.json", {"data.validation": "v.json"}),
    "val_dataset": (["v.csv#9"], {"data.validation": "v.csv", "data.validation_rows": 9}),
    "val_size": (0.1, {"data.validation": 0.1}),
    "split_dataset_ratio": (0, {"data.validation": None}),
    "media_dir": ("photos", {"data.images": "photos"}),
    "columns": ({"问": "query", "答": "response"}, {"data.columns": {"question": "问", "answer": "答"}}),
    "cutoff_len": (2048, {"data.max_length": 2048}),
    "max_length": (2048, {"data.max_length": 2048}),
    "max_samples": (1000, {"data.train_rows": 1000}),
    "image_max_pixels": (9, {"data.max_pixels": 9}),
    "image_min_pixels": (9, {"data.min_pixels": 9}),
    "max_pixels": (9, {"data.max_pixels": 9}),
    "lora_rank": (16, {"lora.r": 16}),
    "lora_r": (16, {"lora.r": 16}),
    "lora_alpha": (16, {"lora.lora_alpha": 16}),
    "lora_dropout": (0.05, {"lora.lora_dropout": 0.05}),
    "lora_target": ("q_proj, v_proj", {"lora.target_modules": ["q_proj", "v_proj"]}),
    "target_modules": (["all-linear"], {"lora.target_modules": None}),
    "lora_target_modules": ("ALL", {"lora.target_modules": None}),
    "freeze_vision_tower": (False, {"lora.vision_tower": True}),
    "freeze_vit": (True, {"lora.vision_tower": False}),
    "seed": (7, {"run.seed": 7}),
    "output_dir": ("saves", {"run.output_dir": "saves"}),
    "run_name": ("a", {"run.name": "a"}),
    "swanlab_run_name": ("a", {"run.name": "a"}),
    "learning_rate": (1e-5, {"training.learning_rate": 1e-5}),
    "num_train_epochs": (3.0, {"training.num_train_epochs": 3.0}),
    "max_steps": (-1, {"training.max_steps": None}),
    "lr_scheduler_type": ("cosine", {"training.lr_scheduler_type": "cosine"}),
    "warmup_ratio": (0.1, {"training.warmup_steps": 0.1}),
    "warmup_steps": (20, {"training.warmup_steps": 20}),
    "weight_decay": (0.1, {"training.weight_decay": 0.1}),
    "max_grad_norm": (0.5, {"training.max_grad_norm": 0.5}),
    "gradient_checkpointing": (True, {"training.gradient_checkpointing": "on"}),
    "disable_gradient_checkpointing": (True, {"training.gradient_checkpointing": "off"}),
    "logging_steps": (5, {"training.logging_steps": 5}),
    "save_steps": (500, {"training.save_steps": 500}),
    "save_total_limit": (3, {"training.keep_checkpoints": 3}),
    "eval_steps": (50, {"evaluation.steps": 50}),
    "metric_for_best_model": ("eval_rouge-l", {"evaluation.metric": "rouge_l"}),
    "early_stopping_steps": (3, {"evaluation.early_stopping_patience": 3}),
    "early_stop_interval": (3, {"evaluation.early_stopping_patience": 3}),
    "report_to": (["tensorboard", "swanlab"], {"tracking.trackers": ["tensorboard", "swanlab"]}),
    "use_swanlab": (True, {"tracking.trackers": ["swanlab"]}),
    "swanlab_project": ("p", {"tracking.project": "p"}),
    "swanlab_mode": ("cloud", {"tracking.mode": "online"}),
}


def rows(kind):
    return [key for key, row in TABLE.items() if isinstance(row, kind)]


def test_every_renamed_row_is_tried_here():
    assert set(RENAMED) == set(rows(Renamed))


@pytest.mark.parametrize("key", RENAMED)
def test_a_renamed_key(key):
    value, wanted = RENAMED[key]
    ours, (line,) = turned({key: value})
    assert ours == wanted
    assert line.startswith(key)
    assert all(name in line for name in wanted)
    for name, made in ours.items():
        section, _, own = name.partition(".")
        assert section == "task" or own in SECTIONS[section].model_fields
        with_it = load_config({**SMALL, section: {**SMALL.get(section, {}), own: made}})
        assert section == "task" or getattr(getattr(with_it, section), own) == made


@pytest.mark.parametrize("key", rows(NotNeeded))
def test_a_key_that_is_not_needed(key):
    row = TABLE[key]
    for value in row.values or ("anything",):
        assert turned({key: value}) == ({}, [f"{key}: not needed; {row.why}"])
    if row.values is not None:
        with pytest.raises(ConfigError, match=f'^key `{key}` = "other" has no counterpart here: '):
            turned({key: "other"})


@pytest.mark.parametrize("key", rows(Refused))
def test_a_key_without_counterpart(key):
    with pytest.raises(ConfigError, match=f"^key `{key}`.* has no counterpart here: ") as error:
        turned({key: "sk-value"})
    assert ("sk-value" in str(error.value)) != TABLE[key].secret
    assert turned({key: False}) == ({}, [f"{key}: off, left out"])


@pytest.mark.parametrize("key", TABLE)
def test_null_leaves_a_key_out(key):
    assert turned({key: None}) == ({}, [f"{key}: null, left out"])


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"stage": "dpo"}, 'key `stage` = "dpo": only supervised'),
        ({"finetuning_type": "full"}, 'key `finetuning_type` = "full" has no counterpart here: only LoRA'),
        ({"quantization_bit": 8}, "key `quantization_bit` = 8: weights are stored"),
        ({"deepspeed": "zero3"}, 'key `deepspeed` = "zero3" has no counterpart here: one process'),
        ({"dataset": "identity,alpaca"}, "key `dataset` = .*: names several data sets"),
        ({"dataset": "identity"}, 'key `dataset` = "identity": is a name that their register knows'),
        ({"val_size": 500}, "key `val_size` = 500: is a number of rows"),
        ({"warmup_ratio": 1}, "key `warmup_ratio` = 1: wanted a share"),
        ({"report_to": "all"}, 'key `report_to` = "all": name the trackers'),
        ({"metric_for_best_model": "eval_loss"}, "key `metric_for_best_model` = .*not by the loss"),
        ({"system": "system.txt"}, "key `system` = .*: names a file"),
        ({"cutoff_len": 512, "max_length": 256}, "key `max_length`: `data.max_length` is given twice, 512 and 256"),
        ({"per_device_train_batch_size": 4}, "key `gradient_accumulation_steps` is missing: .*samples_per_step"),
        ({"gradient_accumulation_steps": 4}, "key `per_device_train_batch_size` is missing: "),
        (dict.fromkeys(BATCH, "auto"), 'key `per_device_train_batch_size` is "auto", wanted'),
    ],
)
def test_what_cannot_be_turned(theirs, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        turned(theirs)
    with pytest.raises(ConfigError, match=f"^config: {message}"):
        load_config({**SMALL, **theirs})


FACTORY = """
model_name_or_path: Qwen/Qwen3-1.7B
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: data/identity.json
template: qwen3_nothink
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
output_dir: saves/qwen3
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
report_to: none
use_swanlab: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
quantization_bit: 4
flash_attn: fa2
ddp_timeout: 180000000
resume_from_checkpoint: null
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
"""
SWIFT = """
model: Qwen/Qwen2.5-1.5B-Instruct
train_type: lora
dataset:
  - data/train.jsonl#500
val_dataset: data/valid.jsonl
split_dataset_ratio: 0
torch_dtype: bfloat16
num_train_epochs: 1
per_device_train_batch_size: 2
per_device_eval_batch_size: 2
learning_rate: 1e-4
lora_rank: 8
lora_alpha: 32
target_modules: all-linear
gradient_accumulation_steps: 16
eval_steps: 50
save_steps: 50
save_total_limit: 2
logging_steps: 5
max_length: 2048
output_dir: output
system: You are a helpful assistant.
warmup_ratio: 0.05
dataloader_num_workers: 4
attn_impl: flash_attn
task: {name: generation}
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "theirs.yaml"
    file.write_text(text, "utf-8")
    return file


def test_a_whole_config_of_llama_factory(tmp_path, capsys):
    config = load_config(written(tmp_path, FACTORY))
    assert config == load_config(
        {
            "run": {"output_dir": "saves/qwen3"},
            "task": {"name": "generation"},
            "model": {"name": "Qwen/Qwen3-1.7B", "placement": "nf4"},
            "data": {"train": "data/identity.json", "train_rows": 1000, "validation": 0.1, "max_length": 2048},
            "lora": {"r": 8},
            "training": {
                "learning_rate": 1e-4,
                "num_train_epochs": 3.0,
                "samples_per_step": 8,
                "warmup_steps": 0.1,
                "lr_scheduler_type": "cosine",
                "logging_steps": 10,
                "save_steps": 500,
            },
            "evaluation": {"steps": 500},
            "tracking": {"trackers": ["swanlab"]},
        }
    )
    said = capsys.readouterr().err.splitlines()
    theirs = yaml.safe_load(FACTORY)
    assert len(said) == len(theirs), "one line a key; two become one, and one is of what is left out"
    assert "lora_rank → lora.r" in said
    assert "per_device_train_batch_size × gradient_accumulation_steps → training.samples_per_step = 8" in said
    assert said[-1] == "left out there, so by our defaults: lora.lora_alpha = 32"


def test_a_whole_argument_list_of_ms_swift(tmp_path, capsys):
    config = load_config(written(tmp_path, SWIFT))
    assert config == load_config(
        {
            "run": {"output_dir": "output"},
            "task": {"name": "generation", "instruction": "You are a helpful assistant."},
            "model": {"name": "Qwen/Qwen2.5-1.5B-Instruct", "dtype": "bfloat16"},
            "data": {
                "train": "data/train.jsonl",
                "train_rows": 500,
                "validation": "data/valid.jsonl",
                "max_length": 2048,
            },
            "lora": {"r": 8, "lora_alpha": 32},
            "training": {
                "learning_rate": 1e-4,
                "num_train_epochs": 1,
                "samples_per_step": 32,
                "warmup_steps": 0.05,
                "logging_steps": 5,
                "save_steps": 50,
                "keep_checkpoints": 2,
            },
            "evaluation": {"steps": 50},
        }
    )
    assert "model → model.name" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (FACTORY, "dataset: identity", 'key `dataset` = "identity": is a name that their register knows'),
        (FACTORY, "deepspeed: ds_z3.json", "key `deepspeed` = .*: one process trains here"),
        (FACTORY, "stage: dpo", 'key `stage` = "dpo": only supervised fine-tuning is done here'),
        (FACTORY, "galore_rank: 16", r"unknown key `galore_rank` \(value 16\)"),
        (SWIFT, "train_type: full", 'key `train_type` = "full" has no counterpart here: only LoRA'),
        (SWIFT, "use_hf: true", "key `use_hf` = true has no counterpart here: .*hf:ORG/NAME"),
    ],
)
def test_a_whole_config_that_is_refused(tmp_path, text, line, message):
    file = written(tmp_path, yaml.safe_dump({**yaml.safe_load(text), **yaml.safe_load(line)}))
    with pytest.raises(ConfigError, match=f"^{file}: {message}"):
        load_config(file)


def test_a_key_of_theirs_inside_ours(capsys):
    inside = {**SMALL, "lora": {"lora_rank": 4}, "training": {"bf16": True}, "learning_rate": 1e-5, "seed": 3}
    config = load_config(inside)
    assert (config.lora.r, config.training.learning_rate, config.run.seed) == (4, 1e-5, 3)
    said = capsys.readouterr().err.splitlines()
    assert sorted(said) == sorted(set(said)), "once each"
    assert {"lora_rank → lora.r", "learning_rate → training.learning_rate", "seed → run.seed"} < set(said)
    with pytest.raises(ConfigError, match=r"^config: key `lora\.r` is given twice, 8 and 4 by another program's key"):
        load_config({**inside, "lora": {"r": 8, "lora_rank": 4}})


def test_on_the_command_line(capsys):
    overrides = [
        *("lora_rank=4", "lora.lora_dropout=0.1", "cutoff_len=512", "model=other"),
        *(f"{key}=4" for key in BATCH),
    ]
    config = load_config({**SMALL, "lora": {"r": 64}, "data": {"train": "t", "max_length": 99}}, overrides)
    assert (config.lora.r, config.data.max_length, config.model.name) == (4, 512, "other")
    assert config.training.samples_per_step == 16
    assert "lora_rank → lora.r" in capsys.readouterr().err.splitlines()


def test_a_task_of_ours_stays(capsys):
    assert load_config({**SMALL, "stage": "sft"}).task == {"name": "ner"}
    assert "stage: not needed; `task` says it" in capsys.readouterr().err


def test_our_own_keys_are_never_renamed(tmp_path, capsys):
    config = load_config({**SMALL, **{name: {} for name in SECTIONS if name not in ("model", "data")}})
    whole = config.model_dump(mode="json")
    assert load_config(whole) == config
    (tmp_path / "config.yaml").write_text(dump_yaml(config), "utf-8")
    assert load_config(tmp_path / "config.yaml") == config
    for section, kind in SECTIONS.items():
        for key in kind.model_fields:
            value = yaml.safe_dump(whole[section][key], default_flow_style=True).partition("\n")[0]
            assert load_config(whole, [f"{section}.{key}={value}"]) == config
    for path in SHIPPED.glob("*.yaml"):
        load_config(path)
    assert capsys.readouterr().err == ""


def test_no_section_of_ours_is_a_key_of_theirs():
    assert {name for name in RunConfig.model_fields if is_theirs(name)} == {"model"}, "theirs is a text, ours a section"
