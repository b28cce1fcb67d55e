"""The tiny models build the same twice, load in transformers, and have something to say."""

import hashlib
import itertools
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
)

from models import bench_llama, tiny
from models.tiny_configs import CONFIGS, ENCODERS
from models.tiny_llama_parts import LORA_NAMES

DECODERS = [name for name in CONFIGS if name not in ENCODERS and name != "llama_classify"]


def weights_hash(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model, made anew."""
    directory = tmp_path_factory.mktemp("models")
    for name in tiny.NAMES:
        tiny.build(name, directory)
    return directory


@pytest.mark.parametrize("name", tiny.NAMES)
def test_second_build_has_equal_files(name: str, built: Path, tmp_path: Path) -> None:
    again = tiny.build(name, tmp_path)
    files = sorted(path.name for path in again.iterdir())
    assert files == sorted(path.name for path in (built / name).iterdir())
    assert weights_hash(again) == weights_hash(built / name)
    for file in ("tokenizer.json", "config.json", "adapter_config.json"):
        if file in files:
            assert (again / file).read_bytes() == (built / name / file).read_bytes()


@pytest.mark.parametrize("name", tiny.NAMES)
def test_only_safetensors_hold_weights(name: str, built: Path) -> None:
    suffixes = {path.suffix for path in (built / name).iterdir()}
    assert ".safetensors" in suffixes
    assert suffixes <= {".safetensors", ".json", ".jinja", ""}


def test_build_leaves_a_current_model_alone(built: Path) -> None:
    before = (built / "llama" / "model.safetensors").stat().st_mtime_ns
    assert tiny.build("llama", built) == built / "llama"
    assert (built / "llama" / "model.safetensors").stat().st_mtime_ns == before


def test_build_replaces_a_stale_model(tmp_path: Path) -> None:
    path = tiny.build("llama", tmp_path)
    (path / ".made-by").write_text("another recipe")
    (path / "model.safetensors").write_bytes(b"damaged")
    tiny.build("llama", tmp_path)
    assert load_file(path / "model.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["llama"]


def test_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tiny model 'llame': choose from llama"):
        tiny.build("llame", tmp_path)


@pytest.mark.parametrize("name", [*DECODERS, "llama_draft"])
def test_decoder_generates_varied_tokens(name: str, built: Path) -> None:
    """Greedy text wanders, and it depends on the first token of a 20-token prompt."""
    model, info = AutoModelForCausalLM.from_pretrained(
        built / name, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.max_position_embeddings >= 1024
    ids = torch.arange(20, 40).repeat(2, 1)
    ids[1, 0] = 300
    mask = torch.ones_like(ids)
    out = model.generate(
        ids, attention_mask=mask, max_new_tokens=32, min_new_tokens=32, do_sample=False
    )[:, 20:]
    assert len(set(out[0].tolist())) >= 8
    with torch.inference_mode():
        logits = model(ids).logits[:, -1]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3", "gpt_oss"])
def test_sliding_window_matters(name: str, built: Path) -> None:
    """Without the window, the logits after 300 tokens are others."""
    window = AutoModelForCausalLM.from_pretrained(built / name, dtype=torch.float32)
    layers = window.config.num_hidden_layers
    full = AutoModelForCausalLM.from_pretrained(
        built / name,
        dtype=torch.float32,
        sliding_window=4096,
        **({} if name == "mistral" else {"layer_types": window.config.layer_types}),
    )
    assert layers == full.config.num_hidden_layers
    ids = torch.randint(10, 500, (1, 300), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = (window(ids).logits - full(ids).logits)[0].abs()
    assert difference[:60].max() < 1e-5
    assert difference[-1].max() > 1e-3


def test_attention_sinks_matter(built: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(built / "gpt_oss", dtype=torch.float32)
    ids = torch.arange(10, 40)[None]
    with torch.inference_mode():
        with_sinks = model(ids).logits
        for layer in model.model.layers:
            layer.self_attn.sinks.fill_(-1e4)
        without = model(ids).logits
    assert (with_sinks - without).abs().max() > 1e-2


def test_latent_attention_has_a_head_size_vllm_takes(built: Path) -> None:
    config = json.loads((built / "deepseek_v3" / "config.json").read_text())
    assert config["kv_lora_rank"] + config["qk_rope_head_dim"] in {320, 512, 576}


def test_encoder_embeds_and_scores(built: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(built / "bert")
    pair = tokenizer("a cold day", "the weather", return_tensors="pt")
    assert pair["token_type_ids"].unique().tolist() == [0, 1]
    encoder = AutoModel.from_pretrained(built / "bert", dtype=torch.float32)
    scorer = AutoModelForSequenceClassification.from_pretrained(
        built / "bert_score", dtype=torch.float32
    )
    with torch.inference_mode():
        assert encoder(**pair).last_hidden_state.shape[-1] == 64
        score = scorer(**pair).logits
        other = scorer(**tokenizer("a cold day", "two foxes", return_tensors="pt")).logits
    assert score.shape == (1, 1)
    assert (score - other).abs() > 1e-4


def test_classifier_has_two_labels(built: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        built / "llama_classify", dtype=torch.float32
    )
    with torch.inference_mode():
        assert model(torch.arange(10, 20)[None]).logits.shape == (1, 2)


def test_adapters_fit_and_differ(built: Path) -> None:
    base = load_file(built / "llama" / "model.safetensors")
    seen = []
    for name in LORA_NAMES:
        tensors = load_file(built / name / "adapter_model.safetensors")
        assert all(tensor.abs().max() > 0 for tensor in tensors.values())
        for key in (key for key in tensors if ".lora_A." in key):
            a, b = tensors[key], tensors[key.replace(".lora_A.", ".lora_B.")]
            weight = base[key.removeprefix("base_model.model.").replace(".lora_A", "")]
            assert a.shape[0] == b.shape[1] == 8
            assert (b @ a).shape == weight.shape
        seen.append(tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"])
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(seen, 2))


@torch.inference_mode()
def test_draft_model_is_often_right_and_often_wrong(built: Path) -> None:
    llama = AutoModelForCausalLM.from_pretrained(built / "llama", dtype=torch.float32)
    draft = AutoModelForCausalLM.from_pretrained(built / "llama_draft", dtype=torch.float32)
    ids = llama.generate(
        torch.arange(20, 40)[None], max_new_tokens=200, min_new_tokens=200, do_sample=False
    )
    agree = llama(ids).logits.argmax(-1) == draft(ids).logits.argmax(-1)
    assert 0.3 < agree.float().mean() < 0.95


@torch.inference_mode()
def test_eagle_head_is_sometimes_right(built: Path) -> None:
    """The projection alone (its layer adds little), on text it was not fitted to."""
    llama = AutoModelForCausalLM.from_pretrained(built / "llama", dtype=torch.float32)
    projection = load_file(built / "llama_eagle" / "model.safetensors")["fc.weight"]
    ids = llama.generate(
        torch.arange(20, 40)[None], max_new_tokens=200, min_new_tokens=200, do_sample=False
    )
    hidden = llama.model(ids).last_hidden_state[0]
    guess = torch.cat([llama.model.embed_tokens(ids[0, 1:]), hidden[:-1]], -1) @ projection.T
    wanted = llama.lm_head(hidden[1:]).argmax(-1)[20:]
    agree = (llama.lm_head(guess).argmax(-1)[20:] == wanted).float().mean()
    assert 0.1 < agree < 0.95


def test_vision_model_sees_the_image(built: Path) -> None:
    processor = AutoProcessor.from_pretrained(built / "idefics3")
    model = AutoModelForImageTextToText.from_pretrained(built / "idefics3", dtype=torch.float32)
    question = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True
    )
    logits = []
    for colour in ("red", "blue"):
        image = Image.new("RGB", (80, 48), colour)
        inputs = processor(text=text, images=[image], return_tensors="pt")
        assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16
        with torch.inference_mode():
            logits.append(model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_bench_llama_has_100_million_parameters() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(bench_llama.config())
    assert model.num_parameters() == 100_092_672
