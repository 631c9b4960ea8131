"""`weitiao export`: an adapter in a form that other programs read.

To add a form, write a function (adapter folder, draft folder) and name it in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from weitiao.config import nearest
from weitiao.errors import ConfigError
from weitiao.families.base import model_config
from weitiao.prediction.adapter_folder import AdapterFolder, open_folder
from weitiao.run_folder import TASK_FILE, whole_folder


def export(run: str | Path, dest: str | Path, format: str) -> Path:
    """Write the adapter of a run, adapter or checkpoint folder to the new folder `dest`, whole or not at all.

    Raises ConfigError for an unknown format, a taken `dest`, or a model that the format is not for.
    """
    dest = Path(dest)
    if format not in FORMATS:
        hint = nearest(format, FORMATS)
        raise ConfigError(
            f"no export format {format!r}; " + (f"did you mean {hint!r}?" if hint else f"choose {', '.join(FORMATS)}")
        )
    if dest.exists():
        raise ConfigError(f"{dest}: is there already; name a new folder")
    folder = open_folder(run)
    with whole_folder(dest) as draft:
        FORMATS[format](folder, draft)
        (draft / TASK_FILE).write_bytes((folder.path / TASK_FILE).read_bytes())
    return dest


def _chatglm_adapter(folder: AdapterFolder, draft: Path) -> None:
    """By the names of GLM-4's own code: `query_key_value`, `dense`, `dense_h_to_4h`, `dense_4h_to_h`."""
    from weitiao.model.chatglm_adapter import part_rows, write_old

    config = model_config(folder.base.folder)
    if config["model_type"] not in ("chatglm", "glm"):
        raise ConfigError(f"{folder.path}: is an adapter of {config['model_type']!r}; chatglm-adapter is GLM-4's form")
    write_old(folder.path, draft, part_rows(config))


FORMATS: Mapping[str, Callable[[AdapterFolder, Path], None]] = {"chatglm-adapter": _chatglm_adapter}
