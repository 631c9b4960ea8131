"""RunConfig: everything that decides a run, and how it is read.

A config is a YAML file (or the name of one in `weitiao/configs/`) plus `section.key=value` from the command line.
Unknown keys are errors that name the nearest valid one.
"""

from weitiao.config.explanation import nearest, nearest_label, suggestion, validated
from weitiao.config.load import SHIPPED, load_config, resolve_config
from weitiao.config.sections import (
    SCHEMA_VERSION,
    DataSection,
    EngineSection,
    EvaluationSection,
    LoraSection,
    ModelSection,
    RunConfig,
    RunSection,
    Section,
    TrackingSection,
    TrainingSection,
)
from weitiao.config.yaml_text import dump_yaml, yaml_value

__all__ = [
    "SCHEMA_VERSION",
    "SHIPPED",
    "DataSection",
    "EngineSection",
    "EvaluationSection",
    "LoraSection",
    "ModelSection",
    "RunConfig",
    "RunSection",
    "Section",
    "TrackingSection",
    "TrainingSection",
    "dump_yaml",
    "load_config",
    "nearest",
    "nearest_label",
    "resolve_config",
    "suggestion",
    "validated",
    "yaml_value",
]
