"""Make tiny random-weight models: real files with real (seeded, random) weights, for tests.

    python models/tiny.py OUT_DIR              every model
    python models/tiny.py OUT_DIR llama bert   these
    python models/tiny.py OUT_DIR bench_llama  the 100 M parameter Llama of the benchmarks

Each becomes OUT_DIR/NAME, a directory that `transformers` and vLLM load. What is there and up to
date is left alone.
"""

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

if not __package__:  # run as a script: make `models` importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models import bench_llama, tiny_llama_parts, tiny_vision
from models.demo_facts import CAPITALS, OPPOSITES
from models.tiny_configs import CONFIGS, ENCODERS, VOCAB_SIZE
from models.tiny_weights import make_scores_large, randomise
from models.tokenizer import TOOL_MARKS, build_tokenizer, mark_pairs

#: Holds the fingerprint of the recipe that made a directory.
_STAMP = ".made-by"


def _new_model(name: str) -> PreTrainedModel:
    config, architecture = CONFIGS[name]()
    model = getattr(transformers, architecture)(config).to(torch.float32)
    randomise(model)
    if name == "qwen2_large_scores":
        make_scores_large(model)
    return model.eval()


def _tokenizer(extra_special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    text = [f"What is the capital of {land}? It is {city}." for land, city in CAPITALS.items()]
    text += [f"The opposite of {word} is {other}, they say." for word, other in OPPOSITES.items()]
    text += [f"The quick brown {i} foxes jump over the lazy dog number {i}." for i in range(99)]
    text += [
        '{"name": "get_weather", "arguments": {"city": "Paris"}}',
        "You are a helpful assistant. Write a short story about the weather in a small city.",
        "user assistant system tool question answer true false null",
    ] * 20
    return build_tokenizer(text, VOCAB_SIZE - len(TOOL_MARKS) + len(extra_special), extra_special)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out_dir: Path) -> None:
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def _make_plain(name: str, out_dir: Path) -> None:
    model, tokenizer = _new_model(name), _tokenizer()
    if name in ENCODERS:
        mark_pairs(tokenizer)
    if len(tokenizer) != VOCAB_SIZE:
        raise ValueError(f"tokenizer has {len(tokenizer)} tokens, not {VOCAB_SIZE}")
    _save(model, tokenizer, out_dir)


def _make_draft(_name: str, out_dir: Path) -> None:
    _save(tiny_llama_parts.make_draft(_new_model("llama")), _tokenizer(), out_dir)


def _make_eagle(_name: str, out_dir: Path) -> None:
    tiny_llama_parts.save_eagle(_new_model("llama"), out_dir)
    _tokenizer().save_pretrained(out_dir)


def _make_lora(name: str, out_dir: Path) -> None:
    tiny_llama_parts.save_lora(name, _new_model("llama"), out_dir)


def _make_vision(_name: str, out_dir: Path) -> None:
    tokenizer = _tokenizer(tiny_vision.SPECIAL_TOKENS)
    model = tiny_vision.make_model(tokenizer).to(torch.float32)
    randomise(model)
    model.save_pretrained(out_dir)
    tiny_vision.save_processor(tokenizer, out_dir)


def _make_bench(_name: str, out_dir: Path) -> None:
    _save(*bench_llama.make(), out_dir)


_MAKERS: dict[str, Callable[[str, Path], None]] = {
    **dict.fromkeys(CONFIGS, _make_plain),
    "llama_draft": _make_draft,
    "llama_eagle": _make_eagle,
    **dict.fromkeys(tiny_llama_parts.LORA_NAMES, _make_lora),
    "idefics3": _make_vision,
}
#: Every tiny model; `bench_llama` is made only when it is named.
NAMES: tuple[str, ...] = tuple(_MAKERS)
_MAKERS["bench_llama"] = _make_bench


@cache
def _fingerprint() -> str:
    """Changes when the recipe does: the sources of this folder and the library versions."""
    digest = hashlib.sha256(f"{torch.__version__} {transformers.__version__}".encode())
    folder = Path(__file__).parent
    sources = ["bench_llama.py", "chat_template.jinja", "demo_facts.py", "tokenizer.py"]
    for path in sorted([*folder.glob("tiny*.py"), *(folder / name for name in sources)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build(name: str, out_dir: Path | str) -> Path:
    """Make the model `name` in `out_dir` unless it is there, and return its directory.

    Safe when several processes build the same model: each writes aside and renames.
    Raises ValueError for a name that is not known.
    """
    if name not in _MAKERS:
        raise ValueError(f"no tiny model {name!r}: choose from {', '.join(_MAKERS)}")
    target = Path(out_dir) / name
    stamp = target / _STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == _fingerprint():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        _MAKERS[name](name, aside)
        aside.chmod(0o755)
        (aside / _STAMP).write_text(_fingerprint(), encoding="utf-8")
        _replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _replace(aside: Path, target: Path) -> None:
    """Put `aside` in the place of `target`; if another process was first, its result stays."""
    stamp = target / _STAMP
    if target.exists() and (not stamp.is_file() or stamp.read_text() != _fingerprint()):
        shutil.rmtree(target, ignore_errors=True)
    try:
        aside.rename(target)
    except OSError:
        if not stamp.is_file():
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_MAKERS))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(_MAKERS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(_MAKERS)}")
    for name in arguments.names or NAMES:
        print(build(name, arguments.out_dir), flush=True)


if __name__ == "__main__":
    main()
