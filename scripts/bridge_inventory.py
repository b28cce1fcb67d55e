"""Write docs/bridge-inventory.md: which public names of Intel's bridge the emulated one has.

The names stand in scripts/bridge_inventory_names.toml, those that other programs use in
scripts/bridge_users.json (see scripts/bridge_users.py), the reasons of refusals in the bridge's
_refused.py; whether a name exists is found by asking the emulated bridge. With ``--check`` nothing
is written, and an outdated page is an error.

    python scripts/bridge_inventory.py
"""

import importlib
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
from habana_frameworks.torch._refused import reason_for

ROOT = Path(__file__).resolve().parents[1]
NAMES = ROOT / "scripts" / "bridge_inventory_names.toml"
USERS = ROOT / "scripts" / "bridge_users.json"
PAGE = ROOT / "docs" / "bridge-inventory.md"
PACKAGE = "habana_frameworks.torch"


def module_has(module: str, name: str) -> bool:
    """Whether ``name`` can be had from the bridge's ``module``."""
    try:
        return hasattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    except ImportError:
        return False


def operator_has(name: str) -> bool:
    """Whether ``torch.ops.hpu.<name>`` is registered."""
    return hasattr(torch.ops.hpu, name)


def resolves(full_name: str) -> bool:
    """Whether a dotted name below the package leads to something; operators to an overload."""
    if full_name.startswith("ops."):
        value: Any = torch.ops
        parts = full_name.split(".")[1:]
    else:
        value = importlib.import_module(PACKAGE)
        parts = full_name.split(".")
    seen = PACKAGE
    for part in parts:
        seen = f"{seen}.{part}"
        if not hasattr(value, part):
            try:
                value = importlib.import_module(seen)
            except ImportError:
                return False
        else:
            value = getattr(value, part)
    return True


def users() -> dict[str, dict[str, str]]:
    """What other programs use: by name its state, and who uses it."""
    listed = json.loads(USERS.read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {}
    for project, entry in listed.items():
        for name in entry["names"]:
            short = name.removeprefix(f"{PACKAGE}.")
            row = found.setdefault(short, {"state": state(short, resolves(short)), "by": ""})
            row["by"] = ", ".join(filter(None, [row["by"], project]))
    return dict(sorted(found.items()))


def users_section(found: dict[str, dict[str, str]]) -> list[str]:
    """The part of the page about other programs."""
    listed = json.loads(USERS.read_text(encoding="utf-8"))
    versions = ", ".join(f"{project} ({entry['version']})" for project, entry in listed.items())
    lines = [
        "",
        "## What other programs use",
        "",
        f"Read from the sources of {versions}",
        "by `scripts/bridge_users.py`: every import of the bridge, every attribute of such an",
        "import, of `torch.hpu` and of `torch.ops.hpu`.",
        "",
        "| name | used by | state |",
        "|---|---|---|",
    ]
    return lines + [f"| `{name}` | {row['by']} | {row['state']} |" for name, row in found.items()]


def state(full_name: str, exists: bool) -> str:
    """``implemented``, ``refused: <reason>``, or ``unknown``.

    Raises:
        ValueError: a name that exists is listed as refused.
    """
    why = reason_for(full_name)
    if exists and why:
        raise ValueError(f"{full_name} exists, but _refused.py lists it; correct that")
    if exists:
        return "implemented"
    return f"refused: {why}" if why else "unknown"


def inventory() -> dict[str, dict[str, str]]:
    """The state of every name, by module."""
    listed = tomllib.loads(NAMES.read_text(encoding="utf-8"))
    found = {
        module: {name: state(f"{module}.{name}", module_has(module, name)) for name in names}
        for module, names in listed["modules"].items()
    }
    for namespace, names in listed["operators"].items():
        where = f"ops.{namespace}"
        found[where] = {name: state(f"{where}.{name}", operator_has(name)) for name in names}
    return found


def page(found: dict[str, dict[str, str]]) -> str:
    """The inventory as Markdown."""
    states = [text.partition(":")[0] for names in found.values() for text in names.values()]
    lines = [
        "# Inventory of the bridge's public names",
        "",
        "Written by `scripts/bridge_inventory.py` from `scripts/bridge_inventory_names.toml`; do",
        "not edit. Modules are below `habana_frameworks.torch`, operators below `torch.ops`.",
        "*Refused* and *unknown* names raise an error which names them, at import or at the",
        "first use; unknown ones have not been worked on.",
        "",
        "| implemented | refused | unknown |",
        "|---:|---:|---:|",
        "| "
        + " | ".join(str(states.count(s)) for s in ("implemented", "refused", "unknown"))
        + " |",
    ]
    for module, names in found.items():
        lines += ["", f"## `{module}`", "", "| name | state |", "|---|---|"]
        lines += [f"| `{name}` | {text} |" for name, text in names.items()]
    lines += users_section(users())
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page, or check it."""
    text = page(inventory())
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE.name} is out of date; run python scripts/bridge_inventory.py")
        return
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
