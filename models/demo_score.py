"""How well a model does the demo tasks: exact matches of its greedy answers, per task."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from models.demo_text import Example
from models.tokenizer import END_OF_TEXT, TURN_END

#: Task name to exact matches, prompts, and a line for each miss.
Result = dict[str, tuple[int, int, list[str]]]
#: More than the longest held-out answer, two tool calls.
MAX_NEW_TOKENS = 96


def render(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    """The training text of one example, its answer included."""
    if example.plain:
        return "".join(message["content"] for message in example.messages) + END_OF_TEXT
    tools = example.tools or None
    return tokenizer.apply_chat_template(example.messages, tools=tools, tokenize=False)


def render_prompt(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    """What the model is asked: the example without its answer."""
    return tokenizer.apply_chat_template(
        example.prompt, tools=example.tools or None, tokenize=False, add_generation_prompt=True
    )


def render_answer(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    """The text the model has to generate, without the end-of-sequence token."""
    whole = render(tokenizer, example)
    return whole[len(render_prompt(tokenizer, example)) :].removesuffix(f"{TURN_END}\n")


@torch.inference_mode()
def generate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], batch: int = 64
) -> list[str]:
    """Greedy completions of `prompts`, without special tokens at their end."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = tokenizer([prompts[i] for i in chosen], padding=True, padding_side="left")
        ids = torch.tensor(inputs["input_ids"])
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.tensor(inputs["attention_mask"]),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=[2, 0],
            pad_token_id=0,
        )
        for i, row in zip(chosen, output[:, ids.shape[1] :], strict=True):
            texts[i] = tokenizer.decode(row, skip_special_tokens=True)
    return texts


def score(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> Result:
    """Greedy answers compared with the wanted ones, per task."""
    prompts = [render_prompt(tokenizer, example) for example in examples]
    answers = generate(model, tokenizer, prompts)
    result: Result = {}
    for example, prompt, answer in zip(examples, prompts, answers, strict=True):
        wanted = render_answer(tokenizer, example)
        right, asked, misses = result.get(example.task, (0, 0, []))
        if answer != wanted:
            misses.append(f"{prompt!r}: {answer!r} instead of {wanted!r}")
        result[example.task] = (right + (answer == wanted), asked + 1, misses)
    return result


def total(result: Result) -> float:
    """Share of exact matches over all tasks."""
    asked = sum(n for _, n, _ in result.values())
    return sum(right for right, _, _ in result.values()) / asked


def report(result: Result, misses: int = 0) -> None:
    """Print the score per task, and up to `misses` wrong answers of each."""
    for task, (right, asked, missed) in result.items():
        print(f"  {task:12} {right:4}/{asked} = {right / asked:.3f}")
        for line in missed[:misses]:
            print(f"      {line}")
    print(f"  {'all':12} {total(result):.4f}", flush=True)


def load(model_dir: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model in float32 and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(model_dir)
