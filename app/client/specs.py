"""Specs in files: JSON, or YAML that means the same, and single fields set beside them."""

import json
import math
import re
from typing import Any

import yaml

MAX_BYTES = 512 << 10
MAX_NODES = 100_000
"""Values of a spec, those that YAML's aliases repeat counted each time."""


class SpecError(ValueError):
    """What is wrong with a spec before anybody is asked: a sentence that names the line."""


def read_spec(content: bytes, name: str) -> Any:
    """The spec in a file of this name. Raises SpecError.

    `.json` is JSON and `.yaml` YAML; anything else, such as standard input, is JSON where it begins like JSON.
    """
    if len(content) > MAX_BYTES:
        raise SpecError(f"{name} has {len(content)} bytes; a spec may have {MAX_BYTES}.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{name} is not UTF-8 text: byte {error.start} is none of it.") from None
    is_json = name.endswith(".json") or (
        not name.endswith((".yaml", ".yml")) and text.lstrip()[:1] in ("{", "[")
    )
    try:
        return _json(text) if is_json else _yaml(text)
    except SpecError as error:
        raise SpecError(f"{name}: {error}") from None
    except RecursionError:
        raise SpecError(f"{name}: it is nested too deeply for a spec.") from None


# ---- JSON


def _json(text: str) -> Any:
    try:
        return json.loads(
            text, object_pairs_hook=_once_each, parse_constant=_no_number, parse_float=_json_number
        )
    except json.JSONDecodeError as error:
        raise SpecError(f"line {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(f"the field {twice!r} is given twice in one object: keep one.")
    return fields


def _no_number(text: str) -> Any:
    raise SpecError(f"{text} is no number that a spec can have.")


def _json_number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


# ---- YAML


class _Loader(yaml.BaseLoader):
    """Nodes only, whose tags say what they are in YAML's core schema (1.2) and in JSON: 1e-3 is a number, `no` and
    2026-01-31 are text, 010 is not octal."""


for _tag, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)\Z", list("-+0123456789")),
    ("float", r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\Z", list("-+.0123456789")),
    ("merge", r"<<\Z", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _yaml(text: str) -> Any:
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise SpecError(f"{where}not YAML ({what}).") from None
    if node is None:
        raise SpecError("it is empty.")
    return _Values().of(node)


class _Values:
    """From YAML's nodes to JSON's values. Aliases repeat what they name, a bounded number of times; `<<` merges."""

    def __init__(self) -> None:
        self._count = 0
        self._open: set[int] = set()

    def of(self, node: yaml.Node) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise _at(node, f"its aliases make more than {MAX_NODES} values.")
        if id(node) in self._open:
            raise _at(node, "it contains itself, by an alias.")
        self._open.add(id(node))
        try:
            return self._value(node)
        finally:
            self._open.remove(id(node))

    def _value(self, node: yaml.Node) -> Any:
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [self.of(child) for child in node.value]
        if isinstance(node, yaml.ScalarNode) and tag in ("null", "bool", "int", "float", "str", "merge"):
            return _scalar(tag, node)
        raise _at(node, f"the tag {node.tag!r} is none that a spec has: leave it out.")

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged = self._merged(value) | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise _at(key, "a field's name is text.")
            if key.value in own:
                raise _at(key, f"the field {key.value!r} is given twice: keep one.")
            own[key.value] = self.of(value)
        return merged | own

    def _merged(self, node: yaml.Node) -> dict[str, Any]:
        """What `<<` brings: of several objects the first that has a field counts."""
        found = self.of(node)
        fields: dict[str, Any] = {}
        for part in found if isinstance(found, list) else [found]:
            if not isinstance(part, dict):
                raise _at(node, "`<<` merges an object, or a list of objects.")
            fields = part | fields
        return fields


def _scalar(tag: str, node: yaml.ScalarNode) -> Any:
    text: str = node.value
    try:
        match tag:
            case "null":
                return None
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "int":
                return int(text)
            case "float":
                return _finite(float(text))
    except (ValueError, KeyError):
        raise _at(node, f"{text[:40]!r} is no number or truth value that a spec can have.") from None
    return text


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value


def _at(node: yaml.Node, sentence: str) -> SpecError:
    return SpecError(f"line {node.start_mark.line + 1}: {sentence}")


# ---- single fields


def set_field(spec: Any, assignment: str) -> Any:
    """The spec with one field set: "steps.0.alpha=0.5", or by JSON pointer "/steps/0/alpha=0.5". Raises SpecError.

    The value is JSON where it can be read so, else text. A field that is not there is added; what it is in must be there.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip("/."):
        raise SpecError(f"--set {assignment!r}: give FIELD=VALUE, such as steps.0.alpha=0.5.")
    return _with(spec, _parts(path), _literal(text), assignment)


def _parts(path: str) -> list[str]:
    if path.startswith("/"):
        return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    return path.split(".")


def _literal(text: str) -> Any:
    try:
        return _json(text)
    except SpecError:
        return text


def _with(value: Any, parts: list[str], new: Any, assignment: str) -> Any:
    if not parts:
        return new
    part, rest = parts[0], parts[1:]
    if isinstance(value, list):
        if not part.isdecimal() or int(part) >= len(value):
            raise SpecError(
                f"--set {assignment!r}: {part!r} is none of its {len(value)} places (0 is the first)."
            )
        place = int(part)
        return [*value[:place], _with(value[place], rest, new, assignment), *value[place + 1 :]]
    if not isinstance(value, dict) or (rest and part not in value):
        there = ", ".join(sorted(value)) if isinstance(value, dict) else json.dumps(value)[:80]
        raise SpecError(f"--set {assignment!r}: there is no {part!r} to set something in. There is: {there}.")
    return {**value, part: _with(value.get(part), rest, new, assignment)}
