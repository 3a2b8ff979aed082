"""`python -m pipeline`: look at a study without running it."""

from pipeline.base.packages import require_packages

require_packages()

from pipeline.commands.main import main  # noqa: E402 (it imports what may be missing)

main()
