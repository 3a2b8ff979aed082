"""Code that is copied beside exported weights: for transformers with ``trust_remote_code``, without this package."""
