"""All that needs Lightning, whose import takes seconds: loaded when training begins."""
