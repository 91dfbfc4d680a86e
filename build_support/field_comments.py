"""An extension of Griffe, which reads the sources for the reference: comments of a class's fields are their docstrings.

A field's comment stands behind it, or on the lines above it, as in `reblur_models.training.config`.
"""

import ast
from typing import Any

from griffe import Attribute, Docstring, Extension, ObjectNode

from models.core.explanations import comment


class FieldComments(Extension):
    """Gives each field of a class, where it has no docstring, its comment."""

    def on_attribute_instance(self, *, node: ast.AST | ObjectNode, attr: Attribute, **_: Any) -> None:
        if attr.docstring or attr.lineno is None or not (attr.parent and attr.parent.is_class):
            return
        text = comment(attr.lines_collection[attr.filepath], attr.lineno - 1, (attr.endlineno or attr.lineno) - 1)
        if text:
            attr.docstring = Docstring(text[0].upper() + text[1:], parent=attr)
