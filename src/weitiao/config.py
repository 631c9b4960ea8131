"""RunConfig: everything that decides a run, typed, frozen, documented under each field.

A config is a YAML file (or the name of one in `weitiao/configs/`) plus `section.key=value` from the command line.
Unknown keys are errors that name the nearest valid one. `docs/config.md` is generated from this file.
Keys of LLaMA-Factory and ms-swift are turned into ours by `other_spellings.py`, each with a line that says so.
The `task` section is open here: each task checks its own options with `validated`.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from weitiao.errors import ConfigError
from weitiao.other_spellings import LEFT_OUT, is_theirs, turned

SCHEMA_VERSION = 1
SHIPPED = Path(__file__).parent / "configs"


class Section(BaseModel):
    """Base of every section: frozen, and a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


S = TypeVar("S", bound=BaseModel)


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
    encoding: str = "utf-8"
    """Encoding of text files; `gb18030` reads GBK. A UTF-8 byte-order mark is skipped."""
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
    """Measure the base model without the adapter on the same test rows, under the same constraint."""
    bootstrap: int = Field(1000, ge=100)
    """Resamples of the rows for the 95 % intervals."""
    batch_tokens: int | None = Field(None, ge=256)
    """Tokens that one prediction batch may hold. Left out: 16,384 on a card, 4,096 without one."""


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
    card's memory allows, at most 32,768; 4,096 without a card."""
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


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config and check it.

    source: path of a YAML file, the name of a shipped config, or a mapping.
    overrides: `section.key=value`; the value is read as YAML, so `null`, `true`, `1e-4` and `[a, b]` work.
    Keys of LLaMA-Factory and ms-swift are understood in both; what becomes of each is a line on standard error.
    Raises ConfigError with one line for the first thing that is wrong.
    """
    if isinstance(source, Mapping):
        values: dict[str, Any] = json.loads(json.dumps(source))
        where = "config"
    else:
        path = resolve_config(source)
        values, where = _read_yaml(path), str(source)
    _turn_theirs(values, where)
    _override(values, overrides, where)
    return validated(RunConfig, values, where)


def resolve_config(source: str | Path) -> Path:
    """Path of a config file, or of a shipped config of that name."""
    path = Path(source)
    if path.is_file():
        return path
    names = sorted(p.stem for p in SHIPPED.glob("*.yaml"))
    if str(source) in names:
        return SHIPPED / f"{source}.yaml"
    hint = nearest(str(source), names)
    raise ConfigError(
        f"no config {str(source)!r}: not a file, nor one of the shipped configs"
        + (f"; did you mean {hint!r}?" if hint else f" ({', '.join(names)})")
    )


def validated(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """`model` made of `values`, or a ConfigError that names the key, the value and the nearest valid key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(model, error)}") from None


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` most likely meant, or None."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return found[0] if found else None


def dump_yaml(config: BaseModel) -> str:
    """YAML that `load_config` reads back to an equal config."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def yaml_value(value: Any) -> str:
    """A value on one line of YAML, as `load_config` reads it back; small numbers as `1e-4`."""
    if isinstance(value, float) and 0 < value < 0.001:
        return f"{value:e}".replace("e-0", "e-").replace(".000000", "")
    text = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, default_flow_style=True, width=1 << 30)
    return text.removesuffix("\n").removesuffix("\n...")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text("utf-8"), Loader=_Loader)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save the config as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-02-30
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())[:120]
        raise ConfigError(f"{path}{line}: is not valid YAML ({problem}); correct it") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: wanted sections such as `task:`, `model:` and `data:`, found {type(values).__name__}"
        )
    return values


_NUMBER = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_BOOLEAN = re.compile(r"^(true|True|TRUE|false|False|FALSE)$")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two of its surprises mended: `1e-4` is a number, and only `true` and `false` are booleans."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would read as a number, and U+0085, which YAML takes for a line break."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfF"))
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None),
)


def _turn_theirs(values: dict[str, Any], where: str) -> None:
    """Keys of other programs become ours, in place; what becomes of each is printed."""
    theirs: dict[str, Any] = {}
    for name, value in list(values.items()):
        if _foreign((name,), value):
            theirs[name] = values.pop(name)
        elif isinstance(value, dict) and name != "task":
            for key in [key for key in value if _foreign((name, key), value[key])]:
                if key in theirs:
                    raise ConfigError(f"{where}: key `{key}` is given twice; remove one")
                theirs[key] = value.pop(key)
    if not theirs:
        return
    whole = not isinstance(values.get("model"), dict)
    for name, value in _ours(theirs, values, where).items():
        section, key = name.split(".")
        there = values.get(section, {})
        if isinstance(there, dict) and there.get(key, value) != value:
            if value is None:
                continue
            raise ConfigError(
                f"{where}: key `{name}` is given twice, {_shown(there[key])} and {_shown(value)} by another program's "
                "key; remove one"
            )
        _put(values, name, value)
    if whole:
        _say_what_is_left_out(values)


def _override(values: dict[str, Any], overrides: Sequence[str], where: str) -> None:
    theirs: dict[str, Any] = {}
    for override in overrides:
        names, value = _read_override(override)
        if _foreign(names, value):
            theirs[names[-1]] = value
        else:
            _apply(values, names, value, override)
    for name, value in _ours(theirs, values, where).items():
        _put(values, name, value)


def _foreign(names: Sequence[str], value: Any) -> bool:
    """Whether a key is another program's. One of ours never is; `model` with a text is, since ours has keys below."""
    *sections, key = names
    fields = RunConfig.model_fields
    if not sections:
        return is_theirs(key) and (key not in fields or isinstance(value, str))
    section = fields[sections[0]].annotation if sections[0] in fields and len(sections) == 1 else None
    is_section = isinstance(section, type) and issubclass(section, BaseModel)
    return is_section and key not in section.model_fields and is_theirs(key)  # type: ignore[union-attr]


def _ours(theirs: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        ours, lines = turned(theirs, has_task="task" in values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    for line in lines:
        print(line, file=sys.stderr)
    return ours


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    section, key = name.split(".")
    place = values.setdefault(section, {})
    if isinstance(place, dict):  # else the check of the whole says what is wrong
        place[key] = value


def _say_what_is_left_out(values: Mapping[str, Any]) -> None:
    """Defaults differ from program to program, and a config that is carried over relies on some."""
    told = []
    for name in LEFT_OUT:
        section, key = name.split(".")
        if key not in (values.get(section) or {}):
            fields: dict[str, Any] = RunConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
            default = fields[key].default
            told.append(f"{name} = {_shown(default)}")
    if "task" not in values:
        print("left out there: task; their fine-tuning is `task.name=generation`", file=sys.stderr)
    if told:
        print(f"left out there, so by our defaults: {', '.join(told)}", file=sys.stderr)


def _read_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r}: wanted key=value, such as training.learning_rate=1e-4")
    try:
        return key.strip().split("."), yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{override!r}: the value is not valid YAML; quote it") from None


def _apply(values: dict[str, Any], names: Sequence[str], value: Any, override: str) -> None:
    *sections, last = names
    place = values
    for name in sections:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{override!r}: `{name}` is not a section")
        place = inner
    place[last] = value


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    # A union adds the name of each alternative to the location; those are no keys.
    key = ".".join(part for part in location if part not in ("str", "float", "int"))
    shown = _shown(first["input"])
    if first["type"] == "extra_forbidden":
        choices = _keys_beside(model, location)
        hint = nearest(location[-1], choices)
        tail = f"did you mean `{hint}`?" if hint else f"valid keys: {', '.join(sorted(choices))}"
        return f"unknown key `{key}` (value {shown}); {tail}"
    if first["type"] == "missing":
        return f"key `{key}` is missing"
    if first["type"] in ("model_type", "dict_type"):
        return f"key `{key}` = {shown}: wanted keys below it, one a line (or leave `{key}` out)"
    message = first["msg"].removeprefix("Value error, ")
    return f"key `{key}` = {shown}: {message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _keys_beside(model: type[BaseModel], location: list[str]) -> list[str]:
    current = model
    for part in location[:-1]:
        inner = current.model_fields[part].annotation if part in current.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        current = inner
    return list(current.model_fields)
