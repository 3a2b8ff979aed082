"""`python -m pipeline`: look at a study without running it."""

from pipeline.cli import main

main()
