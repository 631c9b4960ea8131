"""Weitiao's speed beside other ways to do the same work: `weitiao bench`.

No weights and no data are downloaded: shapes are real, numbers random (`shapes.py`, `profiles.py`). To measure one more
way to train, write `systems/<name>.py` with a `SYSTEM` (see `system.py`); one more way to predict is
`answerers/<name>.py` with an `ANSWERER` (see `answerer.py`). The file's name is the registry.
"""
