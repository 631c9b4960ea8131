"""SwanLab, by its Python API as of 0.10.3.

    offline    a folder `run-<time>-<id>` with everything, which `swanlab sync` uploads
    online     the same, uploaded as it comes
    local      the same, and what `swanlab watch` shows

A key is found where SwanLab finds it: SWANLAB_API_KEY, its configuration files, or what `swanlab login` left.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from weitiao.errors import first_line
from weitiao.shell import typed
from weitiao.tracking.shown import Shown, opened


class SwanLab:
    def __init__(self, start: Mapping[str, Any]) -> None:
        import swanlab

        self._swanlab = swanlab
        found = swanlab.Settings()
        mode, automatic = start["mode"], start["mode"] == "auto"
        if automatic:
            # What SWANLAB_MODE or `swanlab offline` chose counts; SwanLab's own default is online.
            mode = found.mode if "mode" in found.model_fields_set else "online" if found.api_key else "offline"
        told: dict[str, Any] = {name: start[name] for name in ("name", "project", "config")}
        if "log_dir" not in found.model_fields_set and "SWANLAB_LOGDIR" not in os.environ:
            told["log_dir"] = start["folder"]
        # Nothing may ask a question here, and this process has no output of the training to collect.
        told["settings"] = swanlab.Settings(interactive=False, terminal={"proxy_type": "none"})
        why = ""
        try:
            self._run = swanlab.init(mode=mode, **told)
        except Exception as error:
            if not (automatic and mode == "online"):
                raise
            why = f" ({first_line(error).rstrip('.')})"
            self._run = swanlab.init(mode="offline", **told)
        self.notes: Sequence[str] = [f"SwanLab: {self._run.mode}{why}{self._where()}"]

    def log(self, step: int, figures: Mapping[str, float], at: float) -> None:
        self._run.log(dict(figures), step=step)

    def rows(self, step: int, name: str, rows: Sequence[Shown]) -> None:
        images, texts = opened(rows)
        # A name holds one kind of media.
        of_texts = f"{name}/text" if images else name
        told = {
            name: [self._swanlab.Image(image, caption=row.caption, file_type="jpg") for image, row in images],
            of_texts: [self._swanlab.Text(row.content, caption=row.caption) for row in texts],
        }
        self._run.log({key: media for key, media in told.items() if media}, step=step)

    def finish(self, state: str, error: str | None) -> None:
        self._run.finish(state=state, error=error)

    def _where(self) -> str:
        run = self._run
        if run.mode == "online":
            return f" at {run.url}, kept in {run.dir}"
        if run.mode == "local":
            return f"; look with: swanlab watch {typed(run.dir.parent)}"
        if run.mode == "offline":
            return f"; upload with: swanlab sync {typed(run.dir)}"
        return ""
