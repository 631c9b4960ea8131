"""`weitiao doctor`: what this machine is, and what about it is to mend.

`facts.py` says what is known of a machine, as plain values; `gather.py`, `cards.py` and `network.py` find it out;
`findings.py` judges it without looking at the machine, so that machines that nobody here has can be tested; `text.py`
writes both down. Nothing here imports torch: a torch that is broken is a finding, so a process of its own tries it.
"""
