"""The rules of the code base that a program can check."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "vllm_hpu"


def sources(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.py")


def matches(folder: Path, pattern: str, allowed: tuple[str, ...] = ()) -> list[str]:
    found = []
    for path in sources(folder):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(allowed):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{name}:{number}: {line.strip()}")
    return found


def test_only_device_imports_the_bridge() -> None:
    imports = r"^\s*(import|from)\s+habana_frameworks"
    assert matches(PLUGIN, imports, allowed=("vllm_hpu/device/",)) == []


def test_only_settings_reads_the_environment() -> None:
    assert matches(PLUGIN, r"os\.environ|os\.getenv", allowed=("vllm_hpu/settings.py",)) == []


def test_the_plugin_does_not_know_what_is_behind_the_device() -> None:
    assert matches(PLUGIN, r"(?i)emulat") == []


@pytest.mark.parametrize("folder", ["vllm_hpu", "emulator", "tests", "benchmarks", "examples"])
def test_no_mocks_and_no_unpickling(folder: str) -> None:
    here = ("tests/pure/test_layering.py",)
    assert matches(ROOT / folder, r"unittest\.mock|MagicMock|mocker\.", allowed=here) == []
    # Tensors on the card can be pickled, and a test shows it on bytes of its own.
    pickles = (*here, "tests/device/test_tensors.py")
    assert matches(ROOT / folder, r"\bpickle\.loads?\(", pickles) == []
    assert matches(ROOT / folder, r"torch\.load\((?!.*weights_only)", here) == []
    assert matches(ROOT / folder, r"trust_remote_code\s*=\s*True", here) == []


def test_shapes_and_settings_are_pure() -> None:
    """Importing any of them brings neither torch nor vLLM, also not through what they import."""
    shapes = [path.relative_to(ROOT) for path in sources(PLUGIN / "shapes")]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in shapes]
    modules += [f"vllm_hpu.{name}" for name in ("settings", "variables", "options", "errors")]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print(sorted({'torch', 'vllm', 'transformers', 'habana_frameworks'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    # Nor do functions of `shapes` import them later.
    later = r"^\s*(import|from)\s+(torch|vllm|transformers|habana_frameworks)(\.|\s|$)"
    assert matches(PLUGIN / "shapes", later) == []


def test_shapes_know_nothing_of_the_rest() -> None:
    """What plans steps imports itself and the errors; types of the settings are no import."""
    rest = r"^\s*(import|from)\s+vllm_hpu(\.(?!shapes\b|errors\b)|\s)"
    assert matches(PLUGIN / "shapes", rest) == []
