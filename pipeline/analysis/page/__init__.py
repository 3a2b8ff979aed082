"""The report as files: page, tables, and the numbers that DVC and MLflow show."""
