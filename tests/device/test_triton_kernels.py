"""What becomes of each Triton kernel of vLLM's workers: replaced, or not reached and why."""

import ast
import importlib.util
from pathlib import Path

import pytest

from vllm_hpu import rules
from vllm_hpu.flags import FLAGS, Verdict
from vllm_hpu.kernels.registry import KERNELS, METHODS

PACKAGE = "vllm.v1.worker."
# A method of vLLM that is replaced as a whole takes its kernels with it.
BY_METHOD = {
    "gpu.block_table._gather_block_tables_kernel": (
        "gpu.block_table.BlockTables.gather_block_tables"
    ),
    "gpu.block_table._compute_slot_mappings_kernel": (
        "gpu.block_table.BlockTables.compute_slot_mappings"
    ),
    "gpu.buffer_utils._apply_write_kernel": "gpu.buffer_utils.StagedWriteTensor.apply_write",
    "gpu.model_states.prompt_embeds": "gpu.model_states.prompt_embeds.PromptEmbedsState.apply",
    "gpu.sample.logit_bias": "gpu.sample.logit_bias.LogitBiasState.apply",
    "gpu.sample.penalties": "gpu.sample.penalties.PenaltiesState.apply",
    "gpu.sample.thinking_budget": "gpu.sample.thinking_budget.ThinkingBudgetState.apply",
    "gpu.spec_decode.rejection_sampler_utils": (
        "gpu.spec_decode.rejection_sampler.RejectionSampler._verify"
    ),
    "gpu.structured_outputs": (
        "gpu.structured_outputs.StructuredOutputsWorker.apply_grammar_bitmask"
    ),
    "utils._zero_kv_blocks_kernel": "utils.KVBlockZeroer.zero_block_ids",
}
# Kernels of what is refused at start: by a flag of the table, or by a rule.
BY_FLAG = {
    "gpu.cp_utils": "decode_context_parallel_size",
    "gpu.sample.batch_shard": "enable_batch_sharded_sampling",
    "gpu.sample.output._compact_sampling_mask_kernel": "return_sampling_mask",
    "gpu.sample.trace_replay": "enable_trace_replay",
    "gpu.sample.watermark": "watermark_config",
    "gpu.spec_decode.acceptance_estimator": "speculative_config.enable_adaptive_verification",
    "gpu.spec_decode.adaptive_verification": "speculative_config.enable_adaptive_verification",
}
BY_RULE = {
    "gpu.model_states.mamba_hybrid": "attention_only",
    "gpu.model_states.recoverssm": "attention_only",
    "mamba_utils": "attention_only",
    "gpu.spec_decode.dflash": "supported_method",
    "gpu.spec_decode.dflash2": "supported_method",
    "gpu.spec_decode.dspark": "supported_method",
    "gpu.spec_decode.lilicorr": "supported_method",
    "gpu.spec_decode.multi_module_mtp": "one_module_of_mtp",
    # vLLM's first model runner.
    "block_table": "second_model_runner",
}
# The plugin's own proposer runs in vLLM's place (spec_decode/ngram.py).
BY_OWN_CLASS = {"gpu.spec_decode.ngram"}


def kernels_of_vllm() -> dict[str, str]:
    """Triton functions of the workers, with the source of the module they are in."""
    found = {}
    [root] = importlib.util.find_spec("vllm.v1.worker").submodule_search_locations
    for path in sorted(Path(root).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and any(
                "triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list
            ):
                found[f"{module}.{node.name}"] = source
    return found


VLLM = kernels_of_vllm()


def helpers(names: set[str]) -> set[str]:
    """Those that only other kernels call: nothing launches them with ``[grid]``."""
    return {name for name in names if f"{name.rpartition('.')[2]}[" not in VLLM[name]}


def within(name: str, places: object) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_every_kernel_is_replaced_or_not_reached():
    assert len(VLLM) > 50
    ours = {name.removeprefix(PACKAGE) for name in KERNELS}
    known = (*BY_METHOD, *BY_FLAG, *BY_RULE, *BY_OWN_CLASS)
    left = {name for name in VLLM if name not in ours and not within(name, known)}
    assert sorted(left - helpers(left)) == []


def test_what_stands_for_a_kernel_exists():
    assert {PACKAGE + name for name in BY_METHOD.values()} <= METHODS.keys()
    assert all(FLAGS[name].verdict is Verdict.REFUSED for name in BY_FLAG.values())
    assert set(BY_RULE.values()) <= {rule.__name__ for rule in rules.RULES}


@pytest.mark.parametrize("place", [*BY_METHOD, *BY_FLAG, *BY_RULE, *BY_OWN_CLASS])
def test_no_entry_is_left_over(place):
    if place.rpartition(".")[2] in ("adaptive_verification", "dspark", "lilicorr"):
        pytest.skip("its module shares the kernels of another")
    assert any(within(name, [place]) for name in VLLM)
