"""How much more labels would help: the same training at several shares of the rows, and what follows beyond them.

`walk.py` is the way through; `plan.py` says which trainings there are, `runs.py` carries them out, `points.py` makes
points of them, `fit.py` (pure) draws the curve, `said.py`, `table.py` and `picture.py` tell of it.
"""
