"""What every part stands on: errors, files, paths, JSON into dataclasses, how a command ends. No torch."""
