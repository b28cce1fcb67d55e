"""Hugging Face ``generate`` on the CPU: the reference that everybody has."""

from __future__ import annotations

import torch
import transformers


class HuggingFace:
    """One model, greedy decoding of equally long prompts with the library's own KV cache."""

    def __init__(self, model: str, context: int, batch: int, eager: bool):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        self.model.eval()

    def describe(self) -> dict[str, str]:
        return {
            "device": "cpu",
            "mode": "eager",
            "version": f"transformers {transformers.__version__}",
            "torch": torch.__version__,
        }

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """Exactly ``new_tokens`` tokens for every prompt; all prompts have the same length."""
        inputs = torch.tensor(prompts)
        with torch.inference_mode():
            output = self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return output[:, inputs.shape[1] :].tolist()
