"""Every place where a module of vLLM's models changes an object that it has made is known here."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.pure.changed_layers import CHANGES


def models_folder() -> Path:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model_executor" / "models"


def spelled(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=owner, attr=name):
            return f"{spelled(owner)}.{name}"
        case ast.Subscript(value=owner):
            return f"{spelled(owner)}[]"
        case ast.Call(func=function):
            return f"{spelled(function)}()"
    return "..."


def single(targets: list[ast.expr]) -> Iterator[ast.expr]:
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List):
            yield from single(target.elts)
        else:
            yield target


_CHANGING = (ast.Assign, ast.Delete, ast.AugAssign, ast.AnnAssign, ast.Call)


def changes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what is assigned to or deleted, unless it is an attribute of ``self``."""
    for node in ast.walk(tree):
        if not isinstance(node, _CHANGING):
            continue
        targets: list[ast.expr] = []
        match node:
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                pass
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                targets = [target]
            case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[owner, *_]):
                yield node.lineno, f"setattr({spelled(owner)}, ...)"
        for target in single(targets):
            if isinstance(target, ast.Attribute):
                name = spelled(target)
                if name.count(".") > 1 or name.split(".")[0] not in ("self", "cls"):
                    yield target.lineno, name


@functools.cache
def found() -> list[tuple[str, int, str]]:
    """Module, line and name of every change, some 400 of them."""
    folder = models_folder()
    return [
        (".".join(path.relative_to(folder).with_suffix("").parts), line, name)
        for path in sorted(folder.rglob("*.py"))
        for line, name in changes(ast.parse(path.read_text(encoding="utf-8")))
    ]


def known(module: str, name: str) -> list[tuple[str, str]]:
    return [
        (modules, names)
        for modules, names in CHANGES
        if fnmatchcase(module, modules) and fnmatchcase(name, names)
    ]


def test_every_change_has_been_looked_at() -> None:
    new = [
        f"{module}.py:{line}: {name}" for module, line, name in found() if not known(module, name)
    ]
    assert new == [], (
        "vLLM's models change these after they were made. Does a layer of ours derive something "
        "from it? See vllm_hpu/ops/derived.py, then add it to tests/pure/changed_layers.py."
    )


def test_no_entry_is_out_of_date() -> None:
    used = {entry for module, _, name in found() for entry in known(module, name)}
    assert [entry for entry in CHANGES if entry not in used] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("layer.rotary_emb.is_neox_style = False", ["layer.rotary_emb.is_neox_style"]),
        ("self.experts.scale = 1", ["self.experts.scale"]),
        ("self.scale = 1", []),
        ("self.layers[0].norm.weight, x = 1, 2", ["self.layers[].norm.weight"]),
        ("del self.model.norm", ["self.model.norm"]),
        ("setattr(layer, name, 1)", ["setattr(layer, ...)"]),
        ("layer.scale *= 2", ["layer.scale"]),
    ],
)  # fmt: skip
def test_what_counts_as_a_change(source: str, names: list[str]) -> None:
    assert [name for _, name in changes(ast.parse(source))] == names
