"""Train the demo model, or measure it: a small Llama that adds, looks up, writes JSON, calls tools.

    python models/train_demo.py OUT_DIR             train into OUT_DIR (about 20 minutes on 2 cores)
    python models/train_demo.py --evaluate DIR      print the held-out exact-match score per task

Only answers are learned (the loss skips questions), from conversations that `demo_text` generates
from a fixed seed. The shipped result is `models/demo`.
"""

import argparse
import copy
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

if not __package__:  # run as a script: make `models` importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.demo_card import TrainingRun, write_card
from models.demo_score import Result, load, render, report, score
from models.demo_text import Example, held_out_examples, training_example
from models.tokenizer import TURN_END, build_tokenizer

SEED = 20
VOCAB_SIZE = 766  # plus the two tool marks: 768
STEPS = 6000
TOKENS_PER_STEP = 2048
#: Muon for the matrices of the layers, AdamW for the rest.
MUON_LEARNING_RATE = 0.012
ADAM_LEARNING_RATE = 3e-3
WARMUP_STEPS = 20
#: Bare examples are common at first and rare after this part of the training.
EASY_PART = 0.15


def demo_config() -> LlamaConfig:
    """2.3 million parameters; widths are multiples of 128, so group-wise quantisation applies."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE + 2,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        # what can be read can be repeated: copying an argument into a tool call needs no practice
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


class _AnswerMask:
    """Finds the tokens of a text that are learned: those of assistant messages."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._head = tokenizer.encode("<|im_start|>assistant\n")
        self._end = tokenizer.convert_tokens_to_ids(TURN_END)

    def labels(self, example: Example, ids: list[int]) -> list[int]:
        """`ids` with -100 where nothing is learned."""
        if example.plain:
            asked = len(self._tokenizer.encode(example.messages[0]["content"]))
            return [-100] * asked + ids[asked:]
        labels = [-100] * len(ids)
        head, learning = self._head, False
        for i, token in enumerate(ids):
            if learning:
                labels[i] = token
                learning = token != self._end
            elif ids[max(0, i + 1 - len(head)) : i + 1] == head:
                learning = True
        return labels


def _pool(rng: random.Random, ease: float) -> list[Example]:
    """Examples that are sorted by length and cut into batches together."""
    return [training_example(rng, ease) for _ in range(2000)]


def batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, ease: Callable[[], float]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of (ids, labels), int64 [examples, length].

    A batch has at most `TOKENS_PER_STEP` tokens with padding; its examples have similar lengths,
    so little of it is padding.
    """
    mask = _AnswerMask(tokenizer)
    while True:
        pool = _pool(rng, ease())
        encoded = tokenizer([render(tokenizer, example) for example in pool])["input_ids"]
        rows = [
            (ids, mask.labels(example, ids)) for example, ids in zip(pool, encoded, strict=True)
        ]
        rows.sort(key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row[0]) > TOKENS_PER_STEP:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            length = len(group[-1][0])
            ids = torch.zeros(len(group), length, dtype=torch.long)
            labels = torch.full((len(group), length), -100)
            for i, (row_ids, row_labels) in enumerate(group):
                ids[i, : len(row_ids)] = torch.tensor(row_ids)
                labels[i, : len(row_ids)] = torch.tensor(row_labels)
            yield ids, labels


def _loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the next token where it is learned."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    learned = wanted != -100
    return cross_entropy(model.lm_head(hidden[learned]).float(), wanted[learned])


def _rate(progress: float, step: int) -> float:
    """Factor of the learning rates: a short warm-up, then a linear fall to zero."""
    return min((step + 1) / WARMUP_STEPS, 1 - progress)


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=MUON_LEARNING_RATE, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(
            others, lr=ADAM_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        ),
    ]


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out_dir: Path) -> None:
    """Write the model in bfloat16, its generation settings and its tokenizer."""
    shipped = copy.deepcopy(model).to(torch.bfloat16)
    # a low temperature, because a server that is not told otherwise samples at 1
    shipped.generation_config = GenerationConfig(
        eos_token_id=[2, 0], pad_token_id=0, do_sample=True, temperature=0.1
    )
    shipped.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def train(out_dir: Path, steps: int = STEPS) -> None:
    """Train tokenizer and model, and save both with the generation settings into `out_dir`."""
    wall, cpu = time.time(), time.process_time()
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    tokenizer = build_tokenizer(_tokenizer_text(random.Random(SEED + 1)), VOCAB_SIZE)
    model = LlamaForCausalLM(demo_config())
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(f"tokenizer has {len(tokenizer)} tokens, not {model.config.vocab_size}")
    print(f"{model.num_parameters():,} parameters, {steps} steps", flush=True)
    for layer in model.model.layers:  # each layer starts as the identity
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    optimizers = _optimizers(model)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    # twice as fast where the processor multiplies bfloat16, slower where it does not
    autocast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    progress = 0.0
    source = batches(tokenizer, rng, lambda: 0.6 * max(0.0, 1 - progress / EASY_PART))
    recent: list[float] = []
    for step in range(steps):
        progress = step / steps
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * _rate(progress, step)
        ids, labels = next(source)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = _loss(model, ids, labels)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1} loss {sum(recent) / len(recent):.4f} "
                f"{time.time() - wall:.0f} s, {time.process_time() - cpu:.0f} CPU-s",
                flush=True,
            )
            recent.clear()
        if (step + 1) % 400 == 0:
            _save(model, tokenizer, out_dir)  # what an interrupted training leaves
            report(score(model, tokenizer, held_out_examples(10, seed=2)))
    _save(model, tokenizer, out_dir)
    run = TrainingRun(model.num_parameters(), steps, time.time() - wall, time.process_time() - cpu)
    print(f"saved to {out_dir}: {run.wall_seconds:.0f} s, {run.cpu_seconds:.0f} CPU-s", flush=True)
    result = evaluate(out_dir, per_task=100, misses=3)
    write_card(out_dir, run, {task: counts[:2] for task, counts in result.items()})


def _tokenizer_text(rng: random.Random) -> Iterator[str]:
    for _ in range(20_000):
        example = training_example(rng)
        for tool in example.tools:
            yield " ".join([tool["function"]["name"], tool["function"].get("description", "")])
        for message in example.messages:
            yield message["content"]
            if "tool_calls" in message:
                yield json.dumps([call["function"] for call in message["tool_calls"]])


def _seen_prompts(count: int) -> set[str]:
    """Every question in the first `count` conversations of the training text."""
    rng = random.Random(SEED)
    return {
        message["content"]
        for _ in range(count)
        for message in training_example(rng).messages
        if message["role"] == "user"
    }


def evaluate(model_dir: Path, per_task: int, misses: int) -> Result:
    """Print and return the held-out score of the model in `model_dir`."""
    model, tokenizer = load(model_dir)
    examples = held_out_examples(per_task)
    seen = _seen_prompts(100_000)
    leaked = [e.prompt[0]["content"] for e in examples if e.prompt[0]["content"] in seen]
    if leaked:
        raise ValueError(f"held-out questions occur in the training text: {leaked[:5]}")
    result = score(model, tokenizer, examples)
    report(result, misses)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="where to save, or what to evaluate")
    parser.add_argument("--evaluate", action="store_true", help="measure instead of training")
    parser.add_argument("--per-task", type=int, default=100, help="held-out prompts per task")
    parser.add_argument("--misses", type=int, default=3, help="wrong answers to print per task")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of the training")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if arguments.evaluate:
        evaluate(arguments.directory, arguments.per_task, arguments.misses)
    else:
        train(arguments.directory, arguments.steps)


if __name__ == "__main__":
    main()
