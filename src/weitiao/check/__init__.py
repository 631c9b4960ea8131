"""`weitiao check CONFIG`: what is wrong, or may be, with the rows of a config, before anything is trained.

    walk         the order of it all: files → rows → checks → result
    reading      rows, typed one after another; what cannot be typed
    table        a few numbers of each row, by which splits are drawn and repeats are found
    checks/      one file a subject; the file's name is the registry, and `checks/__init__.py` says what a check has

A row's text is in memory while its batch is looked at, and no longer. Nothing here imports torch.
"""
