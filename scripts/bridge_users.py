"""Collect what programs for Gaudi use of the bridge, for scripts/bridge_inventory.py.

Only sources are read, nothing is imported or run. Results go to scripts/bridge_users.json.

    python scripts/bridge_users.py vllm-gaudi=FOLDER/vllm_gaudi@COMMIT ...
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path(__file__).with_name("bridge_users.json")
ROOT = "habana_frameworks"
PACKAGE = f"{ROOT}.torch"


def dotted(node: ast.AST) -> list[str]:
    """``a.b.c`` as a list; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else []


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local names and what of the bridge each stands for, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for entry in node.names:
                if entry.name.split(".")[0] == ROOT:
                    local = entry.asname or ROOT
                    yield local, entry.name if entry.asname else ROOT
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == ROOT:
            for entry in node.names:
                yield entry.asname or entry.name, f"{node.module}.{entry.name}"


def modules(tree: ast.AST) -> Iterator[str]:
    """Modules that are imported by name, even if nothing of them is used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (e.name for e in node.names if e.name.split(".")[0] == ROOT)


def used(tree: ast.AST) -> Iterator[str]:
    """Full names of the bridge that a file imports or reaches through attributes."""
    local = dict(imported(tree))
    yield from modules(tree)
    yield from local.values()
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        chain = dotted(node) if isinstance(node, ast.Attribute) and id(node) not in inner else []
        if chain[:3] == ["torch", "ops", "hpu"] or chain[:2] == ["torch", "hpu"]:
            yield ".".join([PACKAGE, *chain[1:]])
        elif chain and chain[0] in local:
            yield ".".join([local[chain[0]], *chain[1:]])


def collect(folder: Path) -> list[str]:
    """All names that the Python files below ``folder`` use, sorted."""
    names: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        names.update(used(ast.parse(path.read_text(encoding="utf-8"))))
    return sorted(names - {ROOT, PACKAGE, f"{PACKAGE}.torch"})


def main() -> None:
    """Read the folders that the command line names."""
    found = {}
    for argument in sys.argv[1:]:
        project, _, rest = argument.partition("=")
        folder, _, version = rest.partition("@")
        if not (Path(folder).is_dir() and version):
            sys.exit(f"{argument}: expected PROJECT=FOLDER@VERSION with an existing folder")
        found[project] = {"version": version, "names": collect(Path(folder))}
    if not found:
        sys.exit(__doc__)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
