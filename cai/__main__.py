"""`python -m cai` is `cai`, for environments whose scripts are not on the path."""

from cai.cli.main import main

main()
