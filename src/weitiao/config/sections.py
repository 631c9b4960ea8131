"""The keys of a config: RunConfig and its sections, typed, frozen, documented under each field.

`docs/config.md` is generated from this file. The `task` section is open here: each task checks its own options.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

SCHEMA_VERSION = 1


class Section(BaseModel):
    """Base of every section: frozen, and a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


class RunSection(Section):
    name: str | None = None
    """Name of the run's folder; by default the model's name and the task."""
    output_dir: str = "output"
    """Folder that holds run folders."""
    seed: int = Field(42, ge=0)
    """Decides splits, order of the samples, adapter initialisation, dropout and bootstrap draws."""


class ModelSection(Section):
    name: str
    """A local Hugging Face folder, a `.gguf` file, or a hub name such as `Qwen/Qwen2-1.5B-Instruct`, downloaded from
    ModelScope unless this disk has it; `hf:ORG/NAME` is Hugging Face's, `ORG/NAME@REV` a branch, tag or commit."""
    family: str | None = None
    """Family of the model; by default found from its `config.json`."""
    cache_dir: str | None = None
    """Where hub models and converted GGUF weights are kept; by default the hubs' own caches and `~/.cache/weitiao`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the frozen weights; `auto` is bfloat16 on a GPU, float16 on a CUDA card before Ampere (compute capability
    8.0), and float32 on a CPU and on Apple's GPU. With float16 layers are left to transformers."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model runs; `auto` takes a GPU when there is one."""
    placement: Literal["auto", "one", "spread", "nf4"] = "auto"
    """How the weights lie on CUDA cards: on `one`, `spread` over all of them, or as `nf4` (4 bits, by bitsandbytes);
    `auto` is the first of these that fits, and says so."""


Pixels = Annotated[int, Field(ge=1, le=16_384)]


class DataSection(Section):
    train: str
    """File of labelled rows: .jsonl, .json, .csv, .tsv, .parquet or .xlsx; or a folder of images, with a folder inside
    for each label or with a metadata.csv or metadata.jsonl. A file of a hub's data set is named as
    `modelscope:ORG/NAME/path/rows.jsonl` or `hf:ORG/NAME@REV/rows.parquet` and downloaded once; so in the next keys."""
    validation: str | float | None = 0.1
    """A file, or the share of `train` to hold out; its metric chooses the best adapter. Null: none."""
    test: str | float | None = None
    """A file, or the share of `train` to hold out, for the final metrics. Null: none."""
    split_field: str | None = None
    """Field of each row that says `train`, `validation` or `test`; replaces the two keys above."""
    columns: dict[str, str] = {}
    """Our field name → the file's, where they differ, such as `{text: 内容, label: 类别}`. An empty name leaves a field
    out: `{image: ""}`."""
    encoding: str = "auto"
    """Encoding of all text files, such as `gb18030`, which reads GBK. `auto` finds each file's own by its bytes, UTF-8,
    GB18030 or UTF-16, and says so where it is not UTF-8. A byte-order mark is skipped."""
    max_length: int = Field(1024, ge=8)
    """Tokens that the shrinkable text and the images of a row may take. Longer text keeps its head and tail; images
    shrink, and are never cut. Nor is the answer; entities of the part that was left out are not trained on, and are
    found in overlapping windows when they are predicted."""
    images: str | None = None
    """Folder that image paths are relative to, and below which they must lie; by default that of the data file."""
    image_size: tuple[Pixels, Pixels] | None = None
    """Height and width that every image is resized to, such as `[280, 280]`; by default each keeps its shape."""
    min_pixels: int | None = Field(None, ge=1)
    """Smaller images are enlarged to so many pixels; by default what the model says."""
    max_pixels: int | None = Field(None, ge=1)
    """Larger images are reduced to so many pixels; by default what the model says. The images of a row shrink further
    where they and its text do not fit into `max_length`."""
    train_rows: int | None = Field(None, ge=1)
    """Use at most so many training rows, drawn by the seed."""
    validation_rows: int | None = Field(None, ge=1)
    """Use at most so many validation rows, drawn by the seed."""
    test_rows: int | None = Field(None, ge=1)
    """Use at most so many test rows, drawn by the seed."""
    split_seed: int | None = Field(None, ge=0)
    """Decides which rows validate and test; by default `run.seed`. With it, runs of several seeds are measured on the
    same rows, and `run.seed` alone draws `train_rows`."""

    @field_validator("validation", "test")
    @classmethod
    def _share(cls, value: str | float | None) -> str | float | None:
        if isinstance(value, float | int) and not 0 < value < 1:
            raise ValueError("a share must lie between 0 and 1 (or name a file)")
        return value


class LoraSection(Section):
    r: int = Field(8, ge=1)
    """Rank."""
    lora_alpha: int = Field(32, ge=1)
    """Scale of the update: it is multiplied by `lora_alpha / r`."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input. Above 0, samples that share a prefix share its mask."""
    target_modules: list[str] | None = None
    """Names of the linear layers that get an adapter; by default all of the family's."""
    vision_tower: bool = False
    """Whether the linear layers in the blocks of the vision tower get an adapter, too. False: the tower is frozen, and
    an image's features are computed once."""


class TrainingSection(Section):
    learning_rate: float = Field(1e-4, gt=0, allow_inf_nan=False)
    """Peak learning rate of AdamW."""
    num_train_epochs: float = Field(2, gt=0, allow_inf_nan=False)
    """Passes over the training rows."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps, whatever `num_train_epochs` says."""
    samples_per_step: int = Field(16, ge=1)
    """Examples in one optimizer update (batch × accumulation elsewhere)."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Course of the learning rate after warm-up."""
    warmup_steps: int | float = Field(0, ge=0, allow_inf_nan=False)
    """Steps over which the learning rate rises from 0; below 1, the share of all steps."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of the adapters."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in the backward pass; `auto` does so on a GPU when they would not fit."""
    logging_steps: int = Field(10, ge=1)
    """Steps between two lines of `log.jsonl`; a non-finite gradient is noticed here."""
    save_steps: int = Field(100, ge=1)
    """Steps between two checkpoints; one more is saved at the end."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many of the last checkpoints stay on disk; the best one stays besides."""
    on_cpu: Literal["refuse", "allow"] = "refuse"
    """Whether a model of more than a billion parameters may be trained on a CPU, which takes days: `refuse` says how
    long, `allow` does it."""
    check_first: bool = True
    """Look at the rows as `weitiao check` does before anything else: errors stop the run, and warnings get a line each.
    What was found of the same rows before is known at once."""

    @field_validator("warmup_steps")
    @classmethod
    def _steps_or_share(cls, value: int | float) -> int | float:
        if value >= 1 and value != int(value):
            raise ValueError("wanted a whole number of steps, or a share of them below 1")
        return int(value) if value >= 1 or not value else value


class EvaluationSection(Section):
    steps: int | None = Field(None, ge=1)
    """Steps between two evaluations on the validation rows; by default once per epoch."""
    metric: str | None = None
    """Metric that chooses the best adapter; by default the task's headline metric."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations without improvement. Null: never."""
    max_rows: int | None = Field(None, ge=1)
    """Validation rows used for each evaluation while training; the final test uses all of its rows."""
    baselines: bool = True
    """Measure the task's baselines on the same test rows."""
    untuned: bool = True
    """Measure the base model without the adapter on the same test rows, under the same constraint. Where answers are
    written, as entities are, it takes longer than the fine-tuned one, on a CPU hours: `weitiao check` says how long."""
    bootstrap: int = Field(1000, ge=100)
    """Resamples of the rows for the 95 % intervals."""
    batch_tokens: int | None = Field(None, ge=256)
    """Tokens that one prediction batch may hold. Left out: 16,384 on a card, 2,048 without one."""


class EngineSection(Section):
    packing: bool = True
    """Lay samples end to end behind one shared prefix; false is the plain padded path."""
    attention: Literal["auto", "rows", "varlen", "split", "dense"] = "auto"
    """How a pack attends: `split` and `varlen` need CUDA, `rows` runs everywhere, `dense` is the slow oracle."""
    fast_layer: bool = True
    """Compute the layers of a pack by our own few kernels; false leaves them to transformers."""
    triton: bool = True
    """On a card, compute norms, SwiGLU, rotation and loss of `fast_layer` by Triton; false leaves them to torch."""
    cuda_graphs: bool = True
    """On a card, start a training step of `fast_layer` as a whole, not kernel by kernel."""
    tokens_per_pack: int | None = Field(None, ge=256)
    """Most tokens that one pack may hold; a single longer example gets a pack of its own. Left out: as many as the
    card's memory allows, at most 65,536; 4,096 without a card."""
    image_cache_gib: float = Field(20, ge=0, allow_inf_nan=False)
    """GiB of disk for the features of images that a frozen vision tower gave; those not used for longest go first.
    0: none are kept, and they are computed anew each time."""


class TrackingSection(Section):
    trackers: list[Literal["swanlab", "tensorboard", "wandb", "mlflow", "trackio"]] = []
    """Where curves, config and test predictions go besides the run folder's `log.jsonl`; by default nowhere."""
    project: str = Field("weitiao", min_length=1, max_length=100, pattern=r"^[0-9a-zA-Z_\-+.]+$")
    """Name that groups runs at a tracker: ASCII letters, digits and `_-+.`."""
    mode: Literal["auto", "online", "offline", "local"] = "auto"
    """For SwanLab and W&B. `auto`: what their own settings say, else online when a key is there, else offline.
    `local`: SwanLab's dashboard on this machine; W&B has none and stays offline."""
    predictions: int = Field(100, ge=0, le=108)
    """Test predictions that trackers get as texts, the first ones; 108 is SwanLab's limit. 0: none."""
    timeout: float = Field(60, gt=0, allow_inf_nan=False)
    """Seconds that trackers may take to finish when the run ends; then they are stopped, with a warning."""


class RunConfig(Section):
    schema_version: Literal[1] = 1
    """Version of this shape."""
    run: RunSection = RunSection()
    task: dict[str, Any]
    """`name` of the task and the task's own options."""
    model: ModelSection
    data: DataSection
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    engine: EngineSection = EngineSection()
    tracking: TrackingSection = TrackingSection()

    @field_validator("task")
    @classmethod
    def _named(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("name"), str):
            raise ValueError("needs a `name`, such as `name: classification`")
        return value

    @property
    def run_name(self) -> str:
        """The run folder's name: `run.name`, else the model's short name and the task."""
        model = Path(self.model.name.rstrip("/")).name.removesuffix(".gguf")
        return self.run.name or re.sub(r"[^\w.-]+", "-", f"{model}-{self.task['name']}")

    @property
    def split_seed(self) -> int:
        return self.run.seed if self.data.split_seed is None else self.data.split_seed

    @property
    def folder(self) -> Path:
        return Path(self.run.output_dir) / self.run_name
