"""Every environment variable with a meaning on Gaudi: type, default, help, what becomes of it.

Data only; ``vllm_hpu.settings`` reads them, ``docs/settings.md`` is generated from them.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Status(Enum):
    """What setting a variable does; the value is the heading in the documentation."""

    ACTIVE = "Honoured"
    DEPRECATED = "Honoured, with a newer name"
    LATER = "Not in this version"
    NO_EFFECT = "Accepted without effect"
    DEAD = "Without meaning"
    BRIDGE = "Read by Intel's software"
    VLLM = "Read by vLLM"


Kind = Literal["bool", "int", "text"]


@dataclass(frozen=True)
class Variable:
    """One environment variable.

    default    as the user would write it; empty when unset means something else than any value
    choices    the only values allowed, compared in lower case
    minimum, maximum  bounds of a number
    reason     why it has no effect (NO_EFFECT, DEAD, LATER) or what to write instead (DEPRECATED)
    acts_like  the value the plugin acts like anyway, so that setting it needs no warning
    refused    setting it (to anything but ``acts_like``) is an error, because ignoring it would
               give the user something else than asked for
    option     entry of ``--additional-config`` that says it for one engine, and name of its flag
    unit       what a number counts, where it may be written in another way
    """

    name: str
    kind: Kind
    default: str
    help: str
    status: Status = Status.ACTIVE
    reason: str = ""
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    acts_like: str | None = None
    refused: bool = False
    option: str = ""
    unit: str = ""

    @property
    def flag(self) -> str:
        """The flag of ``vllm serve`` for it."""
        return f"--{self.option.replace('_', '-')}" if self.option else ""


def _bucket_variables() -> list[Variable]:
    """VLLM_{PROMPT,DECODE}_<dimension>_BUCKET_{MIN,STEP,MAX,PAD_MAX,PAD_PERCENT}."""
    # dimension, what it counts here, least minimum, defaults of MIN, STEP and MAX
    dimensions = [
        ("PROMPT_QUERY", "tokens of a step with prefill rows", 1,
         ("--block-size", "--block-size", "--max-num-batched-tokens")),
        ("PROMPT_CTX", "KV blocks of the prefill rows of a step, up to one row of full length", 0,
         ("0", "1", "blocks of the longest context")),
        ("DECODE_BS", "decode rows of a step", 1, ("1", "32 (pad: 2)", "--max-num-seqs")),
        ("DECODE_BLOCK", "KV blocks of the decode rows of a step", 1,
         ("1", "--block-size", "the most blocks that decode rows can have")),
    ]  # fmt: skip
    parts = {"MIN": "Smallest size of", "STEP": "Step between sizes of", "MAX": "Largest size of"}
    found = []
    for dimension, counts, least, defaults in dimensions:
        for (part, words), default in zip(parts.items(), defaults, strict=True):
            found.append(
                Variable(
                    f"VLLM_{dimension}_BUCKET_{part}",
                    "int",
                    default,
                    f"{words}: {counts} (strategies lin, pad).",
                    minimum=1 if part == "STEP" else least,
                )
            )
    for part in parts:
        name = f"VLLM_PROMPT_SEQ_BUCKET_{part}"
        new = f"VLLM_PROMPT_QUERY_BUCKET_{part}"
        found.append(
            Variable(name, "int", "", f"Old name of {new}.", Status.DEPRECATED, f"Set {new}",
                     minimum=1)
        )  # fmt: skip
    flat = "Steps are one flat batch of tokens without a prompt batch dimension"
    for part, default in zip(parts, ("1", "1", "1"), strict=True):
        found.append(
            Variable(f"VLLM_PROMPT_BS_BUCKET_{part}", "int", default, "Prompts of a prefill graph.",
                     Status.NO_EFFECT, flat, minimum=1, acts_like="1")
        )  # fmt: skip
    paddings = [("PROMPT_BS", "", Status.NO_EFFECT, flat)]
    paddings += [(name, counts, Status.ACTIVE, "") for name, counts, _, _ in dimensions]
    for dimension, counts, status, reason in paddings:
        largest = "a quarter of the largest size"
        if dimension == "PROMPT_CTX":
            largest = "the blocks that --max-num-batched-tokens fill"
        of = counts or "prompts of a prefill graph"
        found += [
            Variable(f"VLLM_{dimension}_BUCKET_PAD_MAX", "int", largest,
                     f"Most padding, absolute: {of} (strategy pad).", status, reason, minimum=0),
            Variable(f"VLLM_{dimension}_BUCKET_PAD_PERCENT", "int", "25",
                     f"Most padding in percent of the size: {of} (strategy pad).", status, reason,
                     minimum=0, maximum=50),
        ]  # fmt: skip
    return found


def _named(status: Status, reason: str, **helps: str) -> list[Variable]:
    """Variables the plugin does not parse, with one status and reason."""
    return [Variable(name, "text", "", text, status, reason) for name, text in helps.items()]


_EXECUTION = [
    Variable("VLLM_HPU_FORCE", "text", "auto",
             "Whether this plugin takes over vLLM: auto asks for a Gaudi card and stands aside "
             "when vLLM is built for another device, on insists, off stands aside.",
             choices=("auto", "on", "off")),
    Variable("PT_HPU_LAZY_MODE", "text", "0",
             "1 selects HPU graphs (the bridge's lazy mode), 0 torch.compile. The bridge reads it "
             "too and knows only these two values.",
             choices=("0", "1")),
    Variable("VLLM_SKIP_WARMUP", "bool", "false",
             "Start without warm-up: the first request to need a graph waits for its compilation."),
    Variable("VLLM_FULL_WARMUP", "bool", "false",
             "Compile every planned graph before the server answers, none in idle gaps."),
    Variable("VLLM_HPU_WARMUP_SECONDS", "int", "no limit",
             "Most seconds that warm-up may compile, before the server answers and in idle gaps "
             "together. The few graphs without which a step might have none are always compiled.",
             minimum=0, option="hpu_warmup_seconds"),
    Variable("VLLM_HPU_WARMUP_BYTES", "int", "what the largest step leaves free",
             "Most device memory that warmed-up graphs may keep, in bytes. The few graphs without "
             "which a step might have none are always compiled.",
             minimum=0, option="hpu_warmup_bytes", unit="bytes"),
    Variable("VLLM_HPU_WARMUP_LOAD_SECONDS", "int", "0",
             "A server that is never idle compiles one graph between two steps every so many "
             "seconds; 0 compiles in idle gaps only.",
             minimum=0, option="hpu_warmup_load_seconds"),
    Variable("VLLM_HPU_HANG_SECONDS", "int", "30",
             "Seconds that a step may take, or a process be silent, before vllm serve gives the "
             "engine up: /health is 503, requests get an error that names the rank, and the "
             "server ends. Ten times the longest step so far counts if that is more; time in "
             "which graphs are compiled does not count. 0 waits for ever.",
             minimum=0, option="hpu_hang_seconds"),
    Variable("VLLM_HPU_RECORD_PROFILE", "text", "",
             "A file that the server writes its traffic to, for vllm-hpu plan --profile: lengths "
             "of requests and how many are in flight, no content. It is written every few seconds "
             "and begins anew with every start.", option="hpu_record_profile"),
    Variable("VLLM_T_COMPILE_FULLGRAPH", "bool", "false",
             "torch.compile with fullgraph=True: a graph break is an error."),
    Variable("VLLM_BUCKETING_STRATEGY", "text", "exp",
             "How the sizes of graphs are chosen: opt makes expected traffic cheapest, exp doubles "
             "them, lin takes equal steps that the bucket variables set, pad leaves out those of "
             "lin that save little padding. With a traffic profile, opt is the default. See "
             "shapes.md.",
             choices=("exp", "lin", "pad", "opt"), option="hpu_bucketing_strategy"),
    Variable("VLLM_HPU_TRAFFIC_PROFILE", "text", "chat and some documents",
             "A JSON file with the traffic to plan for, with strategy opt unless another is "
             "chosen: lengths of requests, and how many are in flight. See shapes.md.",
             option="hpu_traffic_profile"),
    Variable("VLLM_HPU_PLAN_BUDGET", "text", "100 graphs",
             "Most graphs of a plan, or the seconds and bytes they may take by prediction "
             '(strategy opt): for example "60 graphs", "20 min, 8 GiB".',
             option="hpu_plan_budget"),
    Variable("VLLM_HPU_PLAN_COST", "text", "time",
             "What a launch costs, where plans choose between graphs: predicted time, which counts "
             "operations and bytes moved, or operations alone.",
             choices=("time", "operations"), option="hpu_plan_cost"),
    Variable("VLLM_EXPONENTIAL_BUCKETING", "bool", "", "true is exp, false is lin.",
             Status.DEPRECATED, "Set VLLM_BUCKETING_STRATEGY=exp or =lin"),
    *_bucket_variables(),
    Variable("VLLM_BUCKETING_FROM_FILE", "text", "",
             "A file that lists the sizes of graphs, in place of a strategy: one (batch, query, "
             "context) per line. See shapes.md."),
    Variable("VLLM_ENABLE_BUCKETING", "bool", "true", "Pad steps to planned sizes.",
             Status.NO_EFFECT,
             "Every step runs in a planned size; VLLM_SKIP_WARMUP=1 starts without warm-up",
             acts_like="true"),
    Variable("VLLM_GRAPH_RESERVED_MEM", "text", "0.1",
             "Share of the memory left beside weights, buffers and the largest steps that the KV "
             "cache leaves to graphs, from 0 to below 1. Eager mode has no graphs and keeps none."),
    Variable("VLLM_T_COMPILE_DYNAMIC_SHAPES", "bool", "true",
             "Whether torch.compile is told about changing shapes.", Status.NO_EFFECT,
             "Every graph is compiled for one shape", acts_like="false"),
    Variable("VLLM_T_COMPILE_REGIONAL_COMPILATION", "bool", "true",
             "Compile one layer and reuse it for all of its kind.", Status.NO_EFFECT,
             "Layers are always compiled one by one and reused", acts_like="true"),
    Variable("VLLM_CONFIG_HIDDEN_LAYERS", "int", "1", "Layers per device launch in lazy mode.",
             Status.NO_EFFECT, "HPU graphs hold the whole forward", acts_like="1"),
    Variable("VLLM_WEIGHT_LOAD_FORCE_SYNC", "bool", "true",
             "Wait for the device after each weight.", Status.LATER,
             "vLLM's loader decides when to wait"),
    *_named(Status.LATER, "Vision inputs are not planned ahead in this version",
            VLLM_MULTIMODAL_BUCKETS="Patch counts to warm up.",
            VLLM_MULTIMODAL_RESOLUTIONS="Resolutions to warm up.",
            VLLM_MM_WARMUP_OUTSIDE_COMPILE_ONLY="Run the multimodal warm-up on the device."),
    *_named(Status.DEAD, "No software of the last years reads it",
            VLLM_GRAPH_PROMPT_RATIO="Share of graph memory for prompts.",
            VLLM_GRAPH_PROMPT_STRATEGY="Order in which prompt graphs were captured.",
            VLLM_GRAPH_DECODE_STRATEGY="Order in which decode graphs were captured."),
    *_named(Status.BRIDGE, "",
            PT_HPU_RECIPE_CACHE_CONFIG="Compiled graphs on disk: path, delete at start (true or "
            "false), size in MB, on NFS (true or false).",
            PT_HPU_RECIPE_CACHE_NFS_TIMEOUT_S="Seconds to wait for another process on NFS.",
            PT_RECIPE_CACHE_IGNORE_VERSION="Use recipes of another software version.",
            PT_RECIPE_CACHE_DUMP_DEBUG="Write what the recipe hash is made of.",
            PT_HPU_COMPILE_THREAD_POOL_SIZE="Compilation threads of eager and torch.compile.",
            FUSER_ENABLE_MULTI_THREADED_INVOCATIONS="Several threads in the fuser.",
            PT_HPU_MAX_COMPOUND_OP_SIZE="Operators after which lazy mode cuts its graph.",
            PT_HPU_WEIGHT_SHARING="Share constant weights between recipes.",
            EXPERIMENTAL_WEIGHT_SHARING="The same in the graph compiler.",
            PT_HPU_ENABLE_LAZY_COLLECTIVES="Collectives inside lazy graphs; needed for tensor "
            "parallel with HPU graphs.",
            PT_HPUGRAPH_DISABLE_TENSOR_CACHE="Keep no inputs of HPU graphs.",
            PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES="Dynamic shapes in the graph compiler.",
            PT_HPU_EAGER_PIPELINE_ENABLE="Overlap host stages of eager launches.",
            PT_HPU_EAGER_COLLECTIVE_PIPELINE_ENABLE="The same for collectives.",
            PT_HPU_ENABLE_EAGER_CACHE="Recipe cache of eager operators.",
            PT_ENABLE_INT64_SUPPORT="Native 64-bit integers; always on, the noise of sampling "
            "needs them.",
            PT_COMPILE_ONLY_MODE="Compile and never launch.",
            PT_HPU_USE_EAGER_FALLBACK="Run operators outside the graph when they cannot be in it.",
            PT_HPU_INITIAL_WORKSPACE_SIZE="First size of the workspace.",
            PT_HPU_POOL_STRATEGY="Allocator strategy.",
            PT_HPU_POOL_MEM_ACQUIRE_PERC="Share of device memory the allocator takes.",
            PT_HPU_HUGE_PAGES_LIMIT_MB="Limit of huge pages.",
            PT_HPU_PLACE_ON_CPU="Operators that may run on the host.",
            PT_HPU_DISALLOW_TORCH_COMPILE="Refuse torch.compile.",
            ENABLE_EXPERIMENTAL_FLAGS="Unlock experimental flags of the graph compiler.",
            ENABLE_SKIP_REMOVAL_OF_GRAPH_INPUT_IDENTITY_NODES="Keep identity nodes of inputs.",
            FUSER_ENABLE_LOW_UTILIZATION="Fuse also where the engines are little used.",
            ENABLE_FUSION_BEFORE_NORM="Fuse in front of normalisations."),
]  # fmt: skip

_ATTENTION = [
    *_named(Status.NO_EFFECT, "KV blocks are gathered by block table, which prefix caching needs",
            VLLM_CONTIGUOUS_PA="Read the KV cache as one prefix slice.",
            VLLM_USE_HPU_CONTIGUOUS_CACHE_FETCH="Old name of VLLM_CONTIGUOUS_PA.",
            VLLM_DEFRAG="Move blocks to keep the slice short.",
            VLLM_DEFRAG_THRESHOLD="Holes that start a move.",
            VLLM_DEFRAG_WITH_GRAPHS="Move in a graph."),
    *_named(Status.DEAD, "vLLM's --enable-prefix-caching decides; set that flag",
            VLLM_PREFIX_CACHING="Overrode the detection of prefix caching."),
    *_named(Status.LATER, "The plugin chooses the attention implementation",
            VLLM_PROMPT_USE_FUSEDSDPA="Prefill through FusedSDPA.",
            VLLM_PROMPT_USE_FLEX_ATTENTION="Prefill through flex attention.",
            VLLM_PROMPT_ATTN_IMPL="Prefill implementation.",
            VLLM_FP32_SOFTMAX="Softmax of attention in float32.",
            VLLM_FP32_SOFTMAX_VISION="The same in vision towers.",
            VLLM_ALIBI_USE_FLOAT32_BIASES="ALiBi biases in float32.",
            VLLM_FUSED_BLOCK_SOFTMAX="Fused softmax of a KV block.",
            VLLM_FUSED_BLOCK_SOFTMAX_ADJUSTMENT="Fused correction between KV blocks.",
            VLLM_HPU_FSDPA_SLICE_ENABLED="Cut long prefill attention in slices.",
            VLLM_HPU_FSDPA_SLICE_SEQ_LEN_THLD="Length from which it is cut.",
            VLLM_HPU_FSDPA_SLICE_CHUNK_SIZE="Length of a slice.",
            VLLM_HPU_FSDPA_SLICE_WITH_GRAPH_BREAKS="A graph per slice.",
            VLLM_FUSEDSDPA_SLIDE_THLD="Length from which sliding windows are cut.",
            VLLM_COS_SIN_RECOMPUTE="Compute rotary tables in every layer."),
    *_named(Status.NO_EFFECT, "Every step is one flat batch of tokens",
            VLLM_MERGED_PREFILL="Concatenate prompts.",
            VLLM_FLATTEN_INPUT="Flatten batch and sequence."),
    *_named(Status.DEAD, "Removed from the existing plugin with version 0.19",
            VLLM_UNIFIED_ATTN="Attention of mixed batches.",
            VLLM_UNIFIED_ATTN_SHARED_CACHE_RATIO="Its share of blocks in several requests."),
    *_named(Status.BRIDGE, "",
            PT_HPU_SDPA_QKV_SLICE_MODE_FWD="Slice FusedSDPA inside the kernel.",
            PT_HPU_SDPA_BC_FACTOR="Length of its slices of keys.",
            PT_HPU_SDPA_BR_FACTOR="Length of its slices of queries.",
            PT_HPU_ENABLE_FUSED_SDPA_SINK="Attention sinks inside FusedSDPA."),
]  # fmt: skip

_QUANTIZATION = [
    *_named(Status.LATER, "FP8 through Intel Neural Compressor is not in this version",
            QUANT_CONFIG="Configuration file of Intel Neural Compressor.",
            VLLM_DISABLE_MARK_SCALES_AS_CONST="Keep scales as inputs of the graph.",
            VLLM_SCALE_ADJUSTMENT="Fit scales to the FP8 range of Gaudi 2.",
            HPU_ALIGNED_SCALE="Scales the hardware multiplies for free.",
            VLLM_HPU_FORCE_CHANNEL_FP8="Turn block scales into channel scales.",
            VLLM_DYNAMIC_KV_QUANT="Scale the KV cache as it is written.",
            VLLM_PER_TOKEN_KV_SCALING_SUPPORT="One KV scale per token.",
            VLLM_USE_DISPATCH_FN="Gather FP8 experts' inputs through a function."),
    *_named(Status.LATER, "The plugin chooses how experts are computed",
            VLLM_MOE_CHUNK="Chunk sizes of the experts.",
            VLLM_MOE_TOKEN_BOUNDARY="Tokens from which each chunk size is used.",
            MAX_EXPERTS_PER_SLICE="Experts per operator call.",
            HPU_FUSED_MOE="Experts in one operator.",
            HPU_MXFP4_NATIVE="MXFP4 weights as they are.",
            VLLM_MINIMAX_M3_MOE_TOKEN_TILE="Token tile of MiniMax experts.",
            VLLM_MINIMAX_M3_MOE_DECODE_GATHER="Gather MiniMax experts in decode.",
            VLLM_MINIMAX_M3_MOE_GATHER_MAX_TOKENS="Tokens up to which they are gathered."),
    *_named(Status.BRIDGE, "",
            RUNTIME_SCALE_PATCHING="Change FP8 scales without compiling again.",
            PT_HPU_H2D_TRIVIAL_SCALES_MODE="How trivial scales are handled.",
            PT_HPU_ENABLE_H2D_SCALES="Scales as host tensors.",
            PT_HPU_MARK_NON_RECIPROCAL_CASTS="Casts with scales that are not reciprocal.",
            PT_HPU_STOCHASTIC_ROUNDING_MODE="Rounding of casts to FP8."),
]  # fmt: skip

_HYBRID = _named(
    Status.LATER, "Models with state-space layers are not in this version",
    VLLM_COMPACT_GDN="Compact state of gated delta nets.",
    VLLM_USE_HYBRID_CACHE="One cache for attention and state.",
    VLLM_USE_NAIVE_MAMBA_CACHE_SHARING="Share state caches between layers.",
    VLLM_MAMBA_USE_PYTORCH="Mamba in plain PyTorch.",
    VLLM_MAMBA_USE_SELECTIVE_STATE_UPDATE_REF_PT="State update in plain PyTorch.",
    VLLM_GDN_LEGACY_PHASE_B="Older second phase of gated delta nets.",
    VLLM_GDN_COMPUTE_FP32="Gated delta nets in float32.",
    VLLM_GDN_EXACT_SOLVE="Exact solve in gated delta nets.",
)  # fmt: skip

_DISTRIBUTED = [
    *_named(Status.LATER, "The plugin has no KV connector of its own in this version",
            VLLM_NIXL_DEVICE_TO_DEVICE="Transfer KV between cards directly.",
            VLLM_NIXL_ABORT_REQUEST_TIMEOUT="Seconds until an unread transfer is dropped.",
            VLLM_NIXL_BACKEND="Transport of the KV transfer.",
            VLLM_HPU_HETERO_KV_LAYOUT="Transfer KV to another kind of device.",
            VLLM_HPU_NIXL_JOINT_KV="Stage K and V together.",
            VLLM_HPU_NIXL_STAGING_SLOTS="Staging buffers of the transfer.",
            VLLM_KV_TRANSFER_CONFIG="Detection of LMCache.",
            VLLM_KV_CONNECTOR="Detection of LMCache.",
            VLLM_HPU_MULTI_MODEL_CONFIG="Several models that take turns."),
    *_named(Status.LATER, "Row-parallel layers are not cut in this version",
            VLLM_ROW_PARALLEL_CHUNKS="Chunks whose all-reduce overlaps the next product.",
            VLLM_ROW_PARALLEL_CHUNK_THRESHOLD="Tokens from which layers are cut."),
    *_named(Status.BRIDGE, "",
            HABANA_VISIBLE_DEVICES="Cards a container sees.",
            HABANA_VISIBLE_MODULES="Cards a process sees.",
            HCCL_SOCKET_IFNAME="Network interface of collectives.",
            GLOO_SOCKET_IFNAME="Network interface of host collectives.",
            HCCL_OVER_OFI="Collectives over libfabric.",
            PT_HPU_ENABLE_RESTORE_KV_LAYOUT="Layout of transferred KV.",
            PT_HPU_GPU_MIGRATION="Run code written for CUDA."),
    *_named(Status.VLLM, "",
            VLLM_WORKER_MULTIPROC_METHOD="How workers start; on Gaudi always spawn.",
            VLLM_NIXL_SIDE_CHANNEL_HOST="Host of the KV transfer's side channel.",
            VLLM_NIXL_SIDE_CHANNEL_PORT="Port of the KV transfer's side channel.",
            VLLM_SERVER_DEV_MODE="Development endpoints.",
            VLLM_ALLOW_INSECURE_SERIALIZATION="Pickle in the engine's messages.",
            VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS="Seconds a step may take.",
            VLLM_ALLOW_LONG_MAX_MODEL_LEN="Allow a --max-model-len above the model's."),
    *_named(Status.DEAD, "Set VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS",
            VLLM_ENGINE_ITERATION_TIMEOUT_S="Seconds a step may take.",
            VLLM_RPC_TIMEOUT="Milliseconds an engine call may take."),
]  # fmt: skip

_DIAGNOSTICS = [
    *_named(Status.LATER, "Profile with vLLM's --profiler-config",
            VLLM_PROFILER_ENABLED="Trace of the engine's steps.",
            VLLM_PT_PROFILE="Profile of one graph at start.",
            VLLM_PROFILE_PROMPT="Prompt shape to profile.",
            VLLM_PROFILE_DECODE="Decode shape to profile.",
            VLLM_PROFILE_STEPS="Steps to profile."),
    *_named(Status.LATER, "VLLM_LOGGING_LEVEL=DEBUG shows what the plugin logs",
            VLLM_DEBUG="Topics of debug output.",
            VLLM_DEVELOPER_MODE="Developer checks."),
    *_named(Status.DEAD, "vLLM's --profiler-config replaced it",
            VLLM_TORCH_PROFILER_DIR="Directory of traces."),
    *_named(Status.DEAD, "No software reads it",
            VLLM_HPU_LOG_STEP_GRAPH_COMPILATION="Log compilations of a step.",
            VLLM_HPU_LOG_STEP_GRAPH_COMPILATION_ALL="Log compilations of all steps.",
            VLLM_HPU_LOG_STEP_CPU_FALLBACKS="Log host fallbacks of a step.",
            VLLM_HPU_LOG_STEP_CPU_FALLBACKS_ALL="Log host fallbacks of all steps.",
            VLLM_HANDLE_TOPK_DUPLICATES="Ties in top-k.",
            VLLM_ENABLE_EXPERIMENTAL_FLAGS="Flags of the old fork.",
            VLLM_USE_V1="Choice of vLLM's engine; there is one."),
    *_named(Status.DEAD, "Set --async-scheduling",
            VLLM_DELAYED_SAMPLING="Sample while the next step runs."),
    *_named(Status.DEAD, "The plugin asks the device instead",
            VLLM_USE_FAKE_HPU="Pretend to have a card.",
            VLLM_HW="Overrode the detected card.",
            VLLM_BUILD="Overrode the detected software build.",
            VLLM_ENGINE_VERSION="Overrode the detected engine.",
            VLLM_BRIDGE_MODE="Overrode the detected bridge mode.",
            VLLM_MODEL_TYPE="Overrode the detected model type.",
            VLLM_VLLM_GAUDI_COMMIT="Overrode the detected commit."),
    *_named(Status.BRIDGE, "",
            PT_HPU_METRICS_FILE="File the bridge's counters are written to.",
            PT_HPU_METRICS_DUMP_TRIGGERS="When they are written.",
            PT_HPU_METRICS_GC_DETAILS="Names of compiled graphs in the counters.",
            PT_HPU_GRAPH_DUMP_MODE="Write graphs.",
            PT_HPU_GRAPH_DUMP_FORMAT="Their format.",
            PT_HPU_GRAPH_DUMP_PREFIX="Where they are written.",
            PT_HPU_PRINT_DEVICE_CONFIG="Print the device configuration.",
            HABANA_PROFILE="Hardware trace.",
            HABANA_LOGS="Directory of Intel's logs.",
            LOG_LEVEL_ALL="Level of Intel's logs.",
            ENABLE_CONSOLE="Intel's logs on the terminal.",
            GRAPH_VISUALIZATION="Write compiled graphs as pictures."),
]  # fmt: skip

GROUPS: dict[str, list[Variable]] = {
    "Execution, shapes and warm-up": _EXECUTION,
    "Attention and KV cache": _ATTENTION,
    "Quantization and experts": _QUANTIZATION,
    "State-space models": _HYBRID,
    "Several cards, connectors": _DISTRIBUTED,
    "Diagnostics": _DIAGNOSTICS,
}

VARIABLES: dict[str, Variable] = {
    variable.name: variable for group in GROUPS.values() for variable in group
}
