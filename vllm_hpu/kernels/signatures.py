"""Arguments of every kernel and method of vLLM that is replaced, as of the vLLM named below.

Positional callers make the order part of the contract.
"""

SUPPORTED_VLLM = ">=0.32,<0.33"

_SIGNATURES = """
gpu.input_batch._prepare_prefill_inputs_kernel:
    input_ids_ptr next_prefill_tokens_ptr next_prefill_tokens_stride num_lookahead
    idx_mapping_ptr query_start_loc_ptr all_token_ids_ptr all_token_ids_stride prefill_lens_ptr
    num_computed_tokens_ptr BLOCK_SIZE LOOKAHEAD_BLOCK
gpu.input_batch._prepare_pos_seq_lens_kernel:
    pos_ptr seq_lens_ptr idx_mapping_ptr query_start_loc_ptr num_computed_tokens_ptr
    max_num_reqs BLOCK_SIZE
gpu.input_batch._combine_sampled_and_draft_tokens_kernel:
    input_ids_ptr idx_mapping_ptr last_sampled_tokens_ptr query_start_loc_ptr seq_lens_ptr
    prefill_len_ptr draft_tokens_ptr draft_tokens_stride cu_num_logits_ptr logits_indices_ptr
    BLOCK_SIZE NUM_NEW_SAMPLED_TOKENS
gpu.input_batch._get_num_sampled_and_rejected_kernel:
    num_sampled_ptr num_rejected_ptr seq_lens_ptr cu_num_logits_ptr idx_mapping_ptr
    prefill_len_ptr
gpu.input_batch._post_update_kernel:
    idx_mapping_ptr num_computed_tokens_ptr last_sampled_tokens_ptr output_bin_counts_ptr
    output_bin_counts_stride sampled_tokens_ptr sampled_tokens_stride num_sampled_ptr
    num_rejected_ptr query_start_loc_ptr all_token_ids_ptr all_token_ids_stride total_len_ptr
gpu.input_batch._post_update_num_computed_tokens_kernel:
    idx_mapping_ptr num_computed_tokens_ptr query_start_loc_ptr
gpu.input_batch._expand_idx_mapping_kernel:
    idx_mapping_ptr expanded_idx_mapping_ptr expanded_local_pos_ptr cu_num_logits_ptr BLOCK_SIZE
gpu.sample.gumbel._temperature_kernel:
    logits_ptr logits_stride expanded_idx_mapping_ptr temperature_ptr vocab_size BLOCK_SIZE
gpu.sample.gumbel._gumbel_sample_kernel:
    local_argmax_ptr local_argmax_stride local_max_ptr local_max_stride logits_cache_ptr
    logits_cache_stride_0 logits_cache_stride_1 logits_cache_col_ptr logits_cache_source_ptr
    logits_cache_source_stride logits_ptr logits_stride expanded_idx_mapping_ptr seeds_ptr
    pos_ptr temp_ptr vocab_size BLOCK_SIZE IS_DRAFTING APPLY_TEMPERATURE USE_FP64 PER_TOKEN_COL
gpu.sample.min_p._min_p_kernel:
    logits_ptr logits_stride expanded_idx_mapping_ptr min_p_ptr vocab_size BLOCK_SIZE
gpu.sample.logprob._topk_log_softmax_kernel:
    output_ptr logits_ptr logits_stride topk_ids_ptr topk_ids_stride topk vocab_size BLOCK_SIZE
    TOPK_BLOCK_SIZE
gpu.sample.logprob._ranks_kernel:
    output_ptr logits_ptr logits_stride token_ids_ptr vocab_size BLOCK_SIZE
gpu.sample.logprob._fill_logprob_token_ids_kernel:
    out_token_ids_ptr out_token_ids_stride out_valid_mask_ptr out_valid_mask_stride
    sampled_token_ids_ptr topk_indices_ptr topk_indices_stride expanded_idx_mapping_ptr
    num_per_req_token_ids_ptr per_req_token_ids_ptr per_req_token_ids_stride NUM_TOPK
    PADDED_COLS
gpu.sample.prompt_logprob._prompt_logprobs_token_ids_kernel:
    prompt_logprobs_token_ids_ptr query_start_loc_ptr idx_mapping_ptr num_computed_tokens_ptr
    all_token_ids_ptr all_token_ids_stride BLOCK_SIZE
gpu.sample.bad_words._bad_words_kernel:
    logits_ptr logits_stride expanded_idx_mapping_ptr bad_word_token_ids_ptr
    bad_word_token_ids_stride bad_word_offsets_ptr bad_word_offsets_stride num_bad_words_ptr
    all_token_ids_ptr all_token_ids_stride prompt_len_ptr total_len_ptr input_ids_ptr
    expanded_local_pos_ptr
gpu.metrics.logits._num_nans_kernel:
    logits_ptr logits_stride num_nans_ptr vocab_size BLOCK_SIZE
gpu.spec_decode.rejection_sampler._flatten_sampled_kernel:
    flat_sampled_ptr sampled_ptr sampled_stride num_sampled_ptr cu_num_logits_ptr
gpu.spec_decode.rejection_sampler._gather_draft_sampled_kernel:
    draft_sampled_ptr pos_ptr input_ids_ptr positions_ptr logits_indices_ptr
    expanded_idx_mapping_ptr expanded_local_pos_ptr prefill_len_ptr num_logits BLOCK_SIZE
gpu.spec_decode.target_dependent_ar.speculator._prepare_prefill_inputs_kernel:
    last_token_indices_ptr draft_current_step_ptr draft_input_ids_ptr draft_positions_ptr
    draft_query_start_loc_ptr draft_seq_lens_ptr target_input_ids_ptr target_positions_ptr
    idx_mapping_ptr last_sampled_ptr next_prefill_tokens_ptr num_sampled_ptr num_rejected_ptr
    query_start_loc_ptr seq_lens_ptr max_num_reqs BLOCK_SIZE
gpu.spec_decode.target_dependent_ar.speculator._prepare_decode_inputs_kernel:
    draft_tokens_ptr draft_tokens_stride target_seq_lens_ptr num_rejected_ptr input_ids_ptr
    positions_ptr sample_src_positions_ptr query_start_loc_ptr seq_lens_ptr max_model_len
    max_num_reqs BLOCK_SIZE ADVANCE_DRAFT_POSITIONS
gpu.spec_decode.target_dependent_ar.speculator._update_draft_inputs_kernel:
    output_draft_tokens_ptr output_draft_tokens_stride next_input_hidden_states_ptr
    next_input_hidden_states_stride input_ids_ptr positions_ptr sample_src_positions_ptr
    seq_lens_ptr draft_tokens_ptr current_draft_step_ptr hidden_states_ptr hidden_states_stride
    hidden_size max_model_len num_speculative_steps BLOCK_SIZE ADVANCE_DRAFT_POSITIONS
gpu.spec_decode.standalone_ar.speculator._prepare_prefill_inputs_kernel:
    target_input_ids_ptr target_positions_ptr last_sampled_ptr idx_mapping_ptr out_input_ids_ptr
    out_positions_ptr last_token_indices_ptr out_query_start_loc_ptr out_seq_lens_ptr
    query_start_loc_ptr seq_lens_ptr num_rejected_ptr max_num_reqs max_model_len BLOCK_SIZE
gpu.mm.rope._prepare_rope_positions_kernel:
    positions_ptr positions_stride prefill_positions_ptr prefill_positions_stride0
    prefill_positions_stride1 prefill_delta_ptr idx_mapping_ptr query_start_loc_ptr
    prefill_lens_ptr num_computed_tokens_ptr BLOCK_SIZE NUM_DIMS
gpu.buffer_utils.StagedWriteTensor.apply_write:
    self
gpu.buffer_utils.UvaBackedTensor.copy_to_uva:
    self n
gpu.buffer_utils.FusedStagedWriter.apply:
    self tensors output_ptrs output_strides
gpu.block_table.BlockTables.gather_block_tables:
    self idx_mapping num_reqs_padded out out_ptrs
gpu.block_table.BlockTables.compute_slot_mappings:
    self idx_mapping query_start_loc positions num_tokens_padded out
gpu.sample.sampler.Sampler._sample_random:
    self processed_logits expanded_idx_mapping idx_mapping_np pos top_k top_p use_fused_sampler
gpu.sample.penalties.PenaltiesState.apply:
    self logits ctx
gpu.sample.penalties.PenaltiesState.apply_staged_writes:
    self
gpu.sample.logit_bias.LogitBiasState.apply:
    self logits ctx
gpu.sample.thinking_budget.ThinkingBudgetState.apply_staged_writes:
    self
gpu.sample.thinking_budget.ThinkingBudgetState.apply:
    self logits ctx
gpu.structured_outputs.StructuredOutputsWorker.apply_grammar_bitmask:
    self logits input_batch grammar_req_ids grammar_bitmask
gpu.spec_decode.rejection_sampler.RejectionSampler._verify:
    self logits draft_logits draft_sampled pos cu_num_logits idx_mapping idx_mapping_np
    expanded_idx_mapping expanded_local_pos seq_lens_upper_bound_np verify_draft_sampled
gpu.model_states.prompt_embeds.PromptEmbedsState.apply:
    self input_batch num_computed_tokens inputs_embeds
utils.KVBlockZeroer.__init__:
    self device attn_groups_iter kernel_block_sizes static_forward_context num_blocks
    runner_only_attn_layers
utils.KVBlockZeroer.zero_block_ids:
    self block_ids
vllm.v1.sample.ops.topk_topp_sampler.apply_top_k_top_p:
    logits k p
vllm.v1.worker.gpu.sample.sampler.apply_top_k_top_p:
    logits k p
vllm.v1.worker.gpu.sample.states.apply_top_k_top_p:
    logits k p
vllm.v1.watermarking.gpu_sampler.apply_top_k_top_p:
    logits k p
"""


def _parse(text: str) -> dict[str, tuple[str, ...]]:
    """Names end in a colon, the arguments of each follow on indented lines."""
    signatures: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in text.strip().splitlines():
        if line.startswith(" "):
            signatures[name] += tuple(line.split())
        else:
            name = line.rstrip(":")
            if not name.startswith("vllm."):
                name = "vllm.v1.worker." + name
            signatures[name] = ()
    return signatures


REPLACED: dict[str, tuple[str, ...]] = _parse(_SIGNATURES)
"""Full name in vLLM -> argument names the replacement expects, in order."""
