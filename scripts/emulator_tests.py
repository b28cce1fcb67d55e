"""Run the tests that need neither vLLM nor the plugin: those of the emulator as its own product.

    python scripts/emulator_tests.py [options of pytest]

Works in an environment with torch, gaudi-emulator and pytest alone (emulator/README.md says how to
make one), to try another version of PyTorch.
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("device", "bridge", "emulator")


def imported(file: Path) -> set[str]:
    """Names of the modules that a file imports anywhere; those of its folder begin with a dot."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
            if node.level and not node.module:
                names |= {f".{alias.name}" for alias in node.names}
    return names


def needs_vllm(file: Path) -> bool:
    """Whether the file, or a helper beside it, imports vLLM or the plugin."""
    for name in imported(file):
        if name.split(".")[0] in ("vllm", "vllm_hpu", "tests", "scripts"):
            return True
        helper = file.parent / f"{name.removeprefix('.')}.py"
        if name.startswith(".") and helper.is_file() and needs_vllm(helper):
            return True
    return False


def main() -> int:
    """Return pytest's exit code."""
    files = [
        file
        for folder in FOLDERS
        for file in sorted((ROOT / "tests" / folder).glob("test_*.py"))
        if not needs_vllm(file)
    ]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *sys.argv[1:]]
    return subprocess.run([*command, *map(str, files)], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
