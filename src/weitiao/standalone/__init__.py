"""A folder that answers without Weitiao: `predict.py` and what it reads.

`write.py` fills the folder and `trial.py` tries it. `predict.py` and what it imports are not imported here: they are
copied as they are, with three files of other rooms that import nothing of ours (see `FILES` in `write.py`). What parts
one run from another is in the files beside them, so a new task is a function there and its settings here.
"""
