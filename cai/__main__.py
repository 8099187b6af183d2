"""`python -m cai` is `cai`, for environments whose scripts are not on the path."""

import os
import sys

# `python -m` puts the working folder first on the import path; no file there may replace a module of ours or of Python
sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]

from cai.cli.main import main  # noqa: E402

main()
