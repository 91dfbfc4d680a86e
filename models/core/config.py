"""Configurations: nested dataclasses, to and from what JSON can hold."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as nested dictionaries; tuples become lists, as JSON has them."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def from_dict(cls: type[Config], values: object, where: str = "") -> Config:
    """A dataclass from nested dictionaries; what is left out has its default.

    Args:
        cls: the dataclass. Its fields are int, float, str, bool, dict, dataclasses, tuples of these, or unions of them.
        values: a mapping.
        where: what the mapping is called in errors.

    Raises:
        ValueError: an unknown key, a value of another type, or one that the dataclass refuses. The message gives the
            key from the top, if the dataclass begins with the name of the field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where or 'the configuration'} must be a mapping of names to values, got {values!r}")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    unknown = [key for key in values if key not in names]
    if unknown:
        raise ValueError(
            f"unknown in the configuration: {', '.join(f'{prefix}{key}' for key in unknown)}; "
            f"{where or 'it'} has {', '.join(names)}"
        )
    converted = {key: _convert(hints[key], value, f"{prefix}{key}") for key, value in values.items()}
    try:
        return cls(**converted)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _convert(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple and arguments[0] is str and isinstance(value, str):  # a single one needs no brackets
        return (value,)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(arguments[0], part, f"{where}[{index}]") for index, part in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ValueError(f"{where} must be {_article(expected.__name__)}, got {value!r}")
    return value


def _article(type_name: str) -> str:
    names = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false", "tuple": "a list"}
    return names.get(type_name, "a mapping of names to values")
