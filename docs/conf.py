"""The Sphinx configuration.  To build: `sphinx-build -W --keep-going docs docs/_build`."""

import re
from importlib.metadata import version as version_of

from sphinx.util.logging import getLogger
from twisted.internet import interfaces
from zope.interface.interface import InterfaceClass

import txmetrics_tcp

project = "txmetrics-tcp"
author = "The txmetrics-tcp authors"
copyright = f"2026, {author}"
version = release = version_of(project)

# Without intersphinx, a build needs no network. References to other projects stay plain text.
extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["_build", "changes"]

# `Name` in a docstring links to the documentation of the name, if it exists.
default_role = "py:obj"
add_module_names = False
python_use_unqualified_type_names = True

# Types are documented by annotations only.
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
# Parameters are documented in the docstring of __init__.
autoclass_content = "both"
autodoc_type_aliases = {"_H": "Self"}
# Without this, signatures show interfaces as <InterfaceClass ...>.
for interface in vars(interfaces).values():
    if isinstance(interface, InterfaceClass):
        interface.__qualname__ = interface.__name__

myst_heading_anchors = 3

# The address in the schema's $id.
html_extra_path = ["../txmetrics_tcp/json-lines.schema.json"]

html_theme = "furo"
html_title = f"{project} {release}"


# Docstrings use the markup of Twisted (`@param name: …`, `C{code}`). This converts it to reST.
_FIELD = re.compile(r"^(\s*)@(param|return|raise|ivar|cvar|type)\b")
_CODE = re.compile(r"\bC\{([^{}]*)\}")


def _to_rest(app, what, name, obj, options, lines: list[str]) -> None:
    rest: list[str] = []
    for line in lines:
        if _FIELD.match(line):
            rest.append("")  # separates the first field from the preceding text
        rest.append(_CODE.sub(r"``\1``", _FIELD.sub(r"\1:\2", line)))
    lines[:] = rest


# Every public name must be documented in reference/api.rst.
def _all_documented(app, env) -> None:
    known = env.domains["py"].data["objects"]
    for name in txmetrics_tcp.__all__:
        if f"txmetrics_tcp.{name}" not in known:
            getLogger(__name__).warning("txmetrics_tcp.%s is not in the API reference", name)


# Annotations refer to the private modules that define the public names.
def _resolve_public(app, env, node, contnode):
    target = node.get("reftarget", "")
    if target.startswith("txmetrics_tcp._"):
        target = target.rpartition(".")[2]
    return env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"txmetrics_tcp.{target}", node, contnode
    )


def setup(app) -> None:
    app.connect("autodoc-process-docstring", _to_rest)
    app.connect("env-check-consistency", _all_documented)
    app.connect("missing-reference", _resolve_public)
