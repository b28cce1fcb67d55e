"""What a model's folder says of its sizes: config.json only, no weights, no code."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vllm_hpu.errors import ConfigurationError
from vllm_hpu.shapes.model import ModelShape

# Where configurations keep the longest sequence (vLLM 0.32, model_arch_config_convertor.py).
_LENGTH_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Kinds of rotary scaling whose factor is already in that length (vLLM 0.32, config/model.py).
_SCALED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
_LENGTH_UNKNOWN = 2048  # what vLLM 0.32 assumes of a model that does not say


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk.

    path              its folder
    architecture      the class that config.json names
    shape             its sizes
    max_model_len     the longest sequence, in tokens, that vLLM would serve by default
    """

    path: Path
    architecture: str
    shape: ModelShape
    max_model_len: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``path``/config.json.

        Raises:
            ConfigurationError: there is no such folder or file, it is no JSON object, or a size is
                missing.
        """
        file = path / "config.json"
        if not path.exists():
            raise ConfigurationError(
                f"There is no folder {path}",
                "A plan is made from a model's config.json on this machine; nothing is downloaded",
                "Give the folder of a downloaded model",
            )
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigurationError(
                f"{path} has no config.json", do="Give the folder that holds the model's files"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} cannot be read", str(error)) from None
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{file} is not JSON", str(error)) from None
        if not isinstance(config, dict):
            raise ConfigurationError(f"{file} is not a JSON object")
        # Models with vision or audio keep their decoder's sizes one level below.
        decoder = config.get("text_config")
        decoder = config | decoder if isinstance(decoder, dict) else config
        try:
            shape = ModelShape.from_config(decoder | {"dtype": _served_dtype(decoder)})
            length = _longest(decoder)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error}") from None
        match config.get("architectures"):
            case [str(architecture), *_]:
                return cls(path, architecture, shape, length)
        return cls(path, "unknown architecture", shape, length)


def _served_dtype(config: Mapping[str, Any]) -> str:
    """The type vLLM serves the model in by default: models in float32 become bfloat16."""
    stored = str(config.get("dtype") or config.get("torch_dtype")).rpartition(".")[2]
    return "bfloat16" if stored == "float32" else stored


def _longest(config: Mapping[str, Any]) -> int:
    lengths = [config[name] for name in _LENGTH_NAMES if config.get(name) is not None]
    if not lengths:
        return _LENGTH_UNKNOWN
    ropes = list(_ropes(config))
    found = min(_number(length) for length in lengths)
    for rope in ropes:
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind == "longrope":
            return int(_number(config.get("original_max_position_embeddings", found)))
        if kind not in _SCALED and "gemma3" not in str(config.get("model_type")):
            found *= _number(rope.get("factor") or 1)
    return int(found)


def _ropes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The rotary parameters: older files call them ``rope_scaling``, some have one per layer."""
    found = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(found, Mapping):
        return
    nested = [value for value in found.values() if isinstance(value, Mapping)]
    yield from nested[:1] or [found]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
        raise ConfigurationError(
            f"The model's longest sequence is given as {value!r}",
            "A number of tokens is expected",
            "Check the model's config.json",
        )
    return value
