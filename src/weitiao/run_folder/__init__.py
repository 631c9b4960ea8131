"""The names inside a run folder, and saves that are whole or absent.

    output/<name>/config.yaml          the resolved config
                  data.json            hashes of the data files, and the splits' sizes
                  log.jsonl            one line per log interval and evaluation: the source of truth
                  checkpoint-N/        adapter + optimizer state; the last ones and the best
                  adapter/             the best adapter
                  metrics.json         present when the run is finished
                  predictions.jsonl    the test rows with their predictions
                  report.html          all of it on one page
                  tracking/            what trackers write on this disk

An adapter folder is PEFT's two files and `task.json`; a checkpoint is one too, with the state to go on from.
A folder is written beside its place under a hidden name, with the SHA-256 of each file in `files.json`, then renamed.
"""

from weitiao.run_folder.folder import RunFolder, find_adapter
from weitiao.run_folder.task_file import (
    TASK_FILE,
    BaseName,
    ImageLimits,
    TaskFile,
    Thresholds,
    read_task_file,
)
from weitiao.run_folder.whole import MANIFEST, damage, whole_folder, write_json, write_text

__all__ = [
    "MANIFEST",
    "TASK_FILE",
    "BaseName",
    "ImageLimits",
    "RunFolder",
    "TaskFile",
    "Thresholds",
    "damage",
    "find_adapter",
    "read_task_file",
    "whole_folder",
    "write_json",
    "write_text",
]
