"""Build the C++ extension of the emulated device, or say in one line why that is not possible."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from setuptools import setup

OWN_DISTRIBUTION = "gaudi-emulator"
HERE = Path(__file__).resolve().parent
TORCH_HEADERS = HERE / "csrc" / "torch_headers.h"


def stop(message: str) -> None:
    """End the build with one line that says what to do."""
    sys.exit(f"gaudi-emulator: {message}")


def refuse_to_shadow() -> None:
    """Stop if another distribution already provides Intel's `habana_frameworks`."""
    providers = set(metadata.packages_distributions().get("habana_frameworks", []))
    others = sorted(providers - {OWN_DISTRIBUTION})
    if others:
        stop(
            f"habana_frameworks is already provided by {', '.join(others)}; the emulator would "
            "shadow it. Use an environment of its own for the emulator."
        )


def precompile_headers(compiler: list[str], folder: Path) -> None:
    """Precompile PyTorch's headers into ``folder``, unless that was done with the same command.

    GCC takes the result where its options match and else reads the header itself, which takes
    longer and gives the same; so a failure here is left for the compilation to report.
    """
    result, made_by = folder / f"{TORCH_HEADERS.name}.gch", folder / "command.txt"
    command = [*compiler, "-x", "c++-header", str(TORCH_HEADERS), "-o", str(result)]
    record = "\n".join([metadata.version("torch"), *command, TORCH_HEADERS.read_text()])
    if result.exists() and made_by.exists() and made_by.read_text() == record:
        return
    folder.mkdir(parents=True, exist_ok=True)
    made_by.unlink(missing_ok=True)
    if subprocess.run(command, check=False, capture_output=True).returncode == 0:
        made_by.write_text(record)
    else:
        result.unlink(missing_ok=True)


def extension_modules() -> tuple[list, dict]:
    """Return the extension and its build command; stop without a compiler or torch."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler.split()[0]) is None:
        stop(f"no C++ compiler '{compiler}' found; install g++ 11 or newer (apt install g++).")
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError:
        stop("torch is not installed; install it first and use --no-build-isolation.")
    os.environ.setdefault("MAX_JOBS", str(os.cpu_count() or 1))
    sources = sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").rglob("*.cpp"))
    # OpenMP makes ATen's parallel_for parallel; its library is the one PyTorch has already loaded.
    options = ["-O2", "-g0", "-std=c++20", "-Wall", "-fvisibility=hidden", "-fopenmp"]

    class Build(BuildExtension):
        def build_extensions(self) -> None:
            folder = Path(self.build_temp).resolve() / "precompiled"
            include = [
                f"-I{path}" for path in [*extension.include_dirs, *self.compiler.include_dirs]
            ]
            precompile_headers([*self.compiler.compiler_so, *include, "-fPIC", *options], folder)
            extension.include_dirs[:0] = [str(folder), str(HERE / "csrc")]
            super().build_extensions()

    extension = CppExtension(
        "gaudi_emulator._C", sources, extra_compile_args=options, extra_link_args=["-fopenmp"]
    )
    return [extension], {"build_ext": Build}


def bridge_metadata() -> list[tuple[str, list[str]]]:
    """The metadata of the distribution that Intel's bridge comes in, for `data_files`.

    Programs ask it for the release, and PyTorch finds in it what `import torch` loads. It is an
    .egg-info folder, since a wheel has one .dist-info. pip does not replace it: to install Intel's
    distribution, uninstall gaudi-emulator first.
    """
    text = (HERE / "bridge_metadata" / "PKG-INFO").read_text()
    version = next(line for line in text.splitlines() if line.startswith("Version: "))[9:]
    packages = Path(sysconfig.get_path("purelib")).relative_to(sysconfig.get_path("data"))
    files = sorted(str(p.relative_to(HERE)) for p in (HERE / "bridge_metadata").iterdir())
    return [(str(packages / f"habana_torch_plugin-{version}.egg-info"), files)]


refuse_to_shadow()
os.chdir(HERE)
modules, commands = extension_modules()
setup(ext_modules=modules, cmdclass=commands, data_files=bridge_metadata())
