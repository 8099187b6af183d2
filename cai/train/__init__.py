"""Workshop: one way to learn from rows a file, each ending in METHOD.

`_knobs` has what all methods let a person set, `_frame` what all of them do around TRL's trainers, `_folders` how a
result appears whole and a checkpoint is found again, `_stop` how Ctrl-C becomes a checkpoint.
"""
