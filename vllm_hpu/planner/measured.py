"""What an earlier start measured of the graphs of a plan: the manifest beside a recipe cache."""

import json
from collections.abc import Mapping
from pathlib import Path

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.warmup.manifest import GraphRecord

_PREFIX = "vllm_hpu-"


def find_records(
    file: Path | None, folder: str, plan: ShapePlan
) -> tuple[Mapping[str, GraphRecord], Path | None]:
    """Records by the text of a key, and the manifest they come from; ({}, None) without one.

    Args:
        file: the manifest to take.
        folder: where to look when none is given ("" for nowhere). A manifest is taken when every
            graph of it belongs to ``plan``; which model it measured cannot be told from outside,
            so nothing is taken when several fit.

    Raises:
        ConfigurationError: ``file`` is given and no manifest.
    """
    if file is not None:
        return _read(file), file
    if not folder or not Path(folder).is_dir():
        return {}, None
    names = {str(key) for key in plan.keys}
    fitting = []
    for found in sorted(Path(folder).glob(f"{_PREFIX}*.json")):
        try:
            records = _read(found)
        except ConfigurationError:
            continue  # the server says so when it starts; a plan can do without
        if records and names.issuperset(name.removesuffix(" with adapters") for name in records):
            fitting.append((records, found))
    return fitting[0] if len(fitting) == 1 else ({}, None)


def _read(file: Path) -> Mapping[str, GraphRecord]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        graphs = found["graphs"]
        records = {name: GraphRecord.parse(value) for name, value in graphs.items()}
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"{file} is not a manifest of warm-up",
            f"{type(error).__name__}: {error}",
            f"Give a file {_PREFIX}*.json from the folder of the recipe cache",
        ) from None
    return records
