"""LLaMA-Factory's and ms-swift's keys, turned into ours: a config of theirs, or a key of theirs inside ours.

Nothing is passed over silently; each key gets one line. Our own keys come first: `config/foreign_keys.py` asks here
only for keys that are not ours.
"""
