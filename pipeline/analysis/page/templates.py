"""HTML pages made of the templates beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def filled(name: str, **values: Any) -> str:
    """The page of a template; ``css``, which every template has, is report.css."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(FOLDER),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    css = Markup((FOLDER / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(name).render(css=css, **values)
