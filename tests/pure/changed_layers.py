"""Where vLLM's models change an object after they have made it, and why that is right here.

Found by ``test_changed_layers.py``. Keys are patterns of ``module`` and of what is assigned; a name
in the place of a module is the whole of vLLM that may do so. A new line of vLLM that no pattern
matches has to be looked at: what of ours derives something from that attribute, and when?
"""

MODEL_READS = "the model's own Python reads it in its forward; nothing of ours holds it"
NO_LAYER = "no layer: a configuration, a processor or data of one request"
PARAMETER = "a parameter or its place; we read parameters when we run, or after loading"
NEW_LAYER = "another layer in the place of one, before weights are loaded; we look at loaded models"
LINEAR = "vLLM's linear layer, which is not replaced and reads it in its forward"
ROUTER = "the router reads the bias where it routes, and hands it to ops/routing.py as an argument"
BALANCING = "expert load balancing, which the MoE method refuses (supports_eplb)"
TRANSFORMERS = (
    "the transformers backend rewrites modules before weights are loaded (case of the docs)"
)

CHANGES: dict[tuple[str, str], str] = {
    # Layers that are replaced here.
    ("ernie45", "layer.self_attn.rotary_emb.is_neox_style"): "ops/rotary.py derives after loading",
    ("paddleocr_vl", "layer.self_attn.rotary_emb.is_neox_style"): (
        "turns back what ernie45 turned; ops/rotary.py derives after loading, and multi-modal "
        "sections keep vLLM's forward, which reads it"
    ),
    ("transformers.utils", "embedding.__class__"): (
        "becomes vLLM's embedding, not ours, which is right on any number of ranks"
    ),
    ("nemotron_parse", "self.embed_tokens.weight"): PARAMETER,
    ("deepencoder2", "self.model.embed_tokens"): NEW_LAYER,
    # Attention.
    ("laguna_dflash", "layer.self_attn.attn.sliding_window"): (
        "only sizes the cache; the arithmetic has the window that its implementation was made with"
    ),
    ("qwen3_dflash", "self.attn.segmented_*"): "of ROCm's attention",
    ("hy_v3", "self.attn.query_quant"): "of quantised attention, which is refused",
    ("deepseek_mtp", "mla_attn.skip_topk"): "of sparse attention, which is refused",
    ("gemma4_mm", "metadata.mm_prefix_*"): "the step's metadata, for attention of both directions",
    ("gemma4", "forward_context.batch_descriptor"): "CUDA graphs within a model",
    # Experts.
    ("*", "*.n_local_physical_experts"): BALANCING,
    ("*", "*.n_physical_experts"): BALANCING,
    ("*", "*.n_redundant_experts"): BALANCING,
    ("*", "self.gate.e_score_correction_bias"): ROUTER,
    ("*", "self.gate.expert_bias"): ROUTER,
    ("deepseek_v2", "self.gate.e_score_correction_bias.data"): ROUTER,
    ("minimax_m2", "self.e_score_correction_bias.weight_loader"): PARAMETER,
    ("k2_horizon", "self.*.bias"): ROUTER,
    ("nemotron_h", "self.fc2_latent_proj.reduce_commutative"): "vLLM's MoE runner reads it",
    ("transformers.moe", "self._moe_state.*"): MODEL_READS,
    ("transformers.moe", "moe_block.experts"): TRANSFORMERS,
    ("transformers.moe", "*.reduce_results"): LINEAR,
    # Linear layers, heads and parameters.
    ("ernie45", "layer.self_attn.o_proj.*"): LINEAR,
    ("bert_with_rope", "layer.mlp.gate_up_proj.*"): LINEAR,
    ("telechat2", "*.skip_bias_add"): LINEAR,
    ("adapters", "self.score.*"): LINEAR,
    (
        "adapters",
        "language_model.lm_head",
    ): "classification in the place of logits: a pooling model",
    ("qwen3_asr_forced_aligner", "language_model.*"): "a pooling model",
    ("llama_eagle3", "self.self_attn.qkv_proj"): NEW_LAYER,
    ("qwen3_eagle3", "self.self_attn.qkv_proj"): NEW_LAYER,
    ("qwen3_dspark", "self.markov_w2.*"): "of quantised layers, which are refused",
    ("chatglm", "self.transformer.output_layer.weight"): PARAMETER,
    ("k2_horizon", "self.lm_head.weight"): PARAMETER,
    ("bailing_moe_v3", "self.?_conv1d.weight.data"): PARAMETER,
    ("cohere_asr", "param.data"): PARAMETER,
    ("transformers.base", "tensor.data"): PARAMETER,
    (
        "gemma3_mm",
        "self.language_model.logits_processor.scale",
    ): "not replaced; read where it scales",
    ("paligemma", "self.language_model.logits_processor.scale"): (
        "not replaced; read where it scales"
    ),
    # Whole parts of a model, before it is loaded.
    ("mimo_audio", "self.input_local_transformer.norm"): NEW_LAYER,
    ("deepseek_vl2", "setattr(parent, ...)"): NEW_LAYER,
    ("minicpmv", "model.*"): NEW_LAYER,
    ("minicpmv4_6", "self.vpm.encoder.layers"): NEW_LAYER,
    ("llava_onevision2", "self.encoder.layers"): NEW_LAYER,
    ("*", "self.model.confidence_head"): NEW_LAYER,
    ("col*", "*head.projector"): "a pooling model",
    ("jina", "model.*"): "a pooling model",
    ("transformers.pooling", "self.*"): "a pooling model",
    # What a model's own forward reads.
    ("*", "self.model.aux_hidden_state_layers"): MODEL_READS,
    ("granite4_vision", "self.language_model._ds_layer_indices"): MODEL_READS,
    ("moss_audio", "*.deepstack_inject_layer_indices"): MODEL_READS,
    ("moss_audio", "setattr(self, ...)"): MODEL_READS,
    ("diffusion_gemma", "*states*"): MODEL_READS,
    ("qwen3_dflash", "self.model.has_separate_mask_embedding"): MODEL_READS,
    ("utils", "model.has_own_*"): MODEL_READS,
    # The transformers backend.
    ("transformers.*", "setattr(*, ...)"): TRANSFORMERS,
    ("transformers.fusers.*", "*.forward"): TRANSFORMERS,
    ("transformers.fusers.mla", "*.return_bias"): LINEAR,
    ("transformers.fusers.glu", "gate_call.func.attr"): "a syntax tree",
    ("transformers.fx_utils", "*"): "a traced graph",
    ("transformers.utils", "nn.Module.register_parameter"): "while modules are made, and put back",
    ("transformers.base", "self.model._can_record_outputs"): MODEL_READS,
    # What is no layer.
    ("*", "*config*"): NO_LAYER,
    ("*", "*_cfg.*"): NO_LAYER,
    ("config", "sc.max_num_seqs"): NO_LAYER,
    ("*", "processor.*"): NO_LAYER,
    ("*", "hf_processor.*"): NO_LAYER,
    ("*", "image_processor.*"): NO_LAYER,
    ("*", "setattr(image_processor, ...)"): NO_LAYER,
    ("dots_ocr", "setattr(self.get_tokenizer(), ...)"): NO_LAYER,
    ("*", "inputs.*"): NO_LAYER,
    ("*", "overrides.num_frames"): NO_LAYER,
    ("*", "*.shard_id"): NO_LAYER,
    ("adapters", "ModelFor*.__name__"): "a class",
    ("interfaces_base", "model.*"): "a class",
}
