"""How Sphinx makes the documentation: `sphinx-build -W --keep-going docs docs/_build`."""

import re
from importlib.metadata import version as version_of

from sphinx.util.logging import getLogger

import txmetrics_tcp

project = "txmetrics-tcp"
author = "The txmetrics-tcp authors"
copyright = f"2026, {author}"
version = release = version_of(project)

# No intersphinx: building needs no network. A reference to another project's name stays plain text.
extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["_build", "changes"]

# `Name` in a docstring links to the name where there is one.
default_role = "py:obj"
add_module_names = False
python_use_unqualified_type_names = True

# Annotations say the types; docstrings, which are plain text with some reST, do not say them again.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}

myst_heading_anchors = 3

html_theme = "furo"
html_title = f"{project} {release}"


# Docstrings name parameters as Twisted's own do (`@param name: …`, `C{code}`); autodoc wants reST.
_FIELD = re.compile(r"^(\s*)@(param|return|raise|ivar|cvar|type)\b")
_CODE = re.compile(r"\bC\{([^{}]*)\}")


def _to_rest(app, what, name, obj, options, lines: list[str]) -> None:
    rest: list[str] = []
    for line in lines:
        if _FIELD.match(line):
            rest.append("")  # the first field must not join the text before it
        rest.append(_CODE.sub(r"``\1``", _FIELD.sub(r"\1:\2", line)))
    lines[:] = rest


# automodule leaves out values that have no docstring: those must be named in api.rst.
def _all_documented(app, env) -> None:
    known = env.domains["py"].data["objects"]
    for name in txmetrics_tcp.__all__:
        if f"txmetrics_tcp.{name}" not in known:
            getLogger(__name__).warning("txmetrics_tcp.%s is not in the API reference", name)


def setup(app) -> None:
    app.connect("autodoc-process-docstring", _to_rest)
    app.connect("env-check-consistency", _all_documented)
