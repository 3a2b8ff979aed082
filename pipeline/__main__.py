"""`python -m pipeline`: look at a study without running it."""

from pipeline.commands.main import main

main()
