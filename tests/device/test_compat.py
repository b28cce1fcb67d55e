"""Each patch in vllm_hpu/compat is still needed, and does what it says; docs/compat.md lists them.

A test named `..._still_...` fails when vLLM or PyTorch no longer needs the patch: delete both.
"""

from pathlib import Path

import pytest

from vllm_hpu import vllm_seams as seams

from .conftest import run_python

ROOT = Path(__file__).resolve().parents[2]

DRIVES_A_CARD = """
import torch
import habana_frameworks.torch
from vllm_hpu.compat import torch_accelerator, torch_cuda
"""


def output(code: str) -> str:
    done = run_python(code, GAUDI_EMULATOR_MEMORY="1GiB", VLLM_LOGGING_LEVEL="ERROR")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_seams_are_those_of_the_installed_vllm():
    assert seams.mismatches() == []
    seams.check()


def test_engine_seams_are_those_of_the_installed_vllm():
    assert seams.mismatches(seams.ENGINE_SEAMS) == []


def test_an_idle_engine_still_calls_nobody():
    """Between its steps an idle engine core waits for requests and does nothing else."""
    import inspect

    from vllm.v1.engine.core import EngineCoreProc

    waits = inspect.unwrap(EngineCoreProc._process_input_queue)
    source = inspect.getsource(waits)
    assert "self.input_queue.get(block=block)" in source
    assert "block = self.process_input_queue_block" in source
    for hook in ("current_platform", "collective_rpc", "model_executor", "plugin"):
        assert hook not in source


def test_a_step_is_still_bounded_by_rows_and_tokens_alone():
    """The scheduler's configuration knows no bound for the context of a step."""
    import inspect

    from vllm.config import SchedulerConfig
    from vllm.v1.core.sched.scheduler import Scheduler

    bounds = [name for name in vars(SchedulerConfig)["__dataclass_fields__"] if "max" in name]
    assert not [name for name in bounds if "block" in name or "context" in name], bounds
    source = inspect.getsource(inspect.unwrap(Scheduler.schedule))
    assert "current_platform" not in source
    # What the guard relies on: a waiting request without slots stays where it is.
    assert "# The request cannot be scheduled." in source
    # So is a running one that may not run yet.
    assert "if self.current_step < request.next_decode_eligible_step:" in source


def test_sleep_still_pauses_the_scheduler_first():
    """Before vLLM knows whether its workers can give memory back."""
    import inspect

    from vllm.v1.engine.core import EngineCore

    assert seams.mismatches(seams.SLEEP_SEAMS) == []
    source = inspect.getsource(inspect.unwrap(EngineCore.sleep))
    assert source.index("self.pause_scheduler(") < source.index("model_executor.sleep(level)")
    assert "enable_sleep_mode" not in source


def test_a_changed_signature_is_named(monkeypatch):
    from vllm.v1.worker.gpu_worker import Worker

    monkeypatch.setattr(Worker, "init_device", lambda self, surprise: None)
    target = "vllm.v1.worker.gpu_worker:Worker.init_device"
    expected = f"{target}: expected ('self',), found ('self', 'surprise')"
    assert seams.mismatches() == [expected]
    with pytest.raises(ImportError, match=r"supports vLLM >=0.32,<0.33") as refused:
        seams.check()
    assert expected in str(refused.value)


def test_a_missing_name_is_named(monkeypatch):
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    monkeypatch.delattr(GPUModelRunner, "prepare_inputs")
    (line,) = seams.mismatches()
    assert line.startswith("vllm.v1.worker.gpu.model_runner:GPUModelRunner.prepare_inputs: ")


def test_model_runner_v2_is_still_gated_by_triton():
    """HAS_TRITON off: vLLM falls back to runner V1, whose kernels nobody replaces."""
    code = """
import vllm.config.vllm as config
from vllm.config import VllmConfig

one = VllmConfig()
config.HAS_TRITON = False
try:
    one._validate_v2_model_runner()
    print("not gated")
except ValueError as error:
    print(error)
from vllm_hpu.compat import install
install()
one._validate_v2_model_runner()
print(config.HAS_TRITON)
"""
    assert output(code).splitlines() == ["Model Runner V2 requires Triton.", "True"]


def test_accelerator_memory_still_fails_without_the_patch():
    code = f"""{DRIVES_A_CARD}
print(torch_accelerator.needed())
try:
    torch.accelerator.get_memory_info(0)
    print("answered")
except RuntimeError:
    print("RuntimeError")
torch_accelerator.install()
kept = torch.ones(1 << 20, device="hpu")
print(torch.accelerator.get_memory_info(0) == torch.hpu.mem_get_info(0))
print(torch.accelerator.memory_stats(0) == torch.hpu.memory_stats(0))
print(torch.accelerator.memory_allocated(0) >= kept.nbytes)
print(torch_accelerator.needed())
"""
    assert output(code).split() == ["True", "RuntimeError", "True", "True", "True", "False"]


def test_a_process_without_a_device_still_cannot_empty_its_cache():
    code = """
import torch
from vllm_hpu.compat import no_accelerator

def call():
    for empty in (torch.accelerator.empty_cache, torch.accelerator.empty_host_cache):
        try:
            empty()
            print("returned")
        except RuntimeError:
            print("RuntimeError")

call()
no_accelerator.install()
call()
"""
    assert output(code).split() == ["RuntimeError", "RuntimeError", "returned", "returned"]


def test_cuda_streams_still_fail_without_the_patch():
    code = f"""{DRIVES_A_CARD}
try:
    torch.cuda.current_stream()
    print("answered")
except (RuntimeError, AssertionError):
    print("refused")
torch_cuda.install()
with torch.cuda.stream(torch.cuda.Stream()) as stream:
    pass
torch.cuda.Event(enable_timing=True, blocking=True).record()
print(torch.cuda.current_stream() == torch.hpu.current_stream())
print(torch.cuda.Stream is torch.hpu.Stream)
"""
    assert output(code).split() == ["refused", "True", "True"]


def test_the_runner_still_names_torch_cuda():
    import vllm.v1.worker.gpu as runner

    assert runner.__file__ is not None
    sources = Path(runner.__file__).parent.rglob("*.py")
    named = [path.name for path in sources if "torch.cuda.Stream(" in path.read_text()]
    assert "structured_outputs.py" in named


def test_masks_still_make_the_host_wait_without_the_patch():
    code = f"""{DRIVES_A_CARD}
from gaudi_emulator import counters
from vllm.model_executor.models import utils
from vllm_hpu.compat import multimodal_merge

values = [torch.full((2, 3), 7.0, device="hpu")]
mask = torch.tensor([False, True, True, False])
for install in (lambda: None, multimodal_merge.install):
    install()
    text, before = torch.zeros(4, 3, device="hpu"), counters()
    utils._merge_multimodal_embeddings(text, values, mask)
    print((counters() - before).host_syncs, text.sum(1).tolist())
try:
    utils._merge_multimodal_embeddings(text, values * 2, mask)
except ValueError as error:
    print(error)
"""
    before, after, too_many = output(code).splitlines()
    assert before == "1 [0.0, 21.0, 21.0, 0.0]"
    assert after == "0 [0.0, 21.0, 21.0, 0.0]"
    assert too_many.startswith("4 embeddings of images or other media for 2 placeholder tokens")


def test_every_patch_is_documented():
    page = (ROOT / "docs" / "compat.md").read_text()
    files = sorted(path.name for path in (ROOT / "vllm_hpu" / "compat").glob("[!_]*.py"))
    assert files
    assert [name for name in files if f"`{name}`" not in page] == []


def test_a_stat_logger_plugin_still_cannot_decline():
    """Whatever an entry point names is used, and turns statistics on."""
    import inspect

    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.metrics import loggers

    load = inspect.getsource(inspect.unwrap(loggers.load_stat_logger_plugin_factories))
    assert "issubclass(" in load
    assert "factories.append(plugin_class)" in load
    start = inspect.getsource(AsyncLLM.__init__)
    assert "log_stats or has_custom_loggers" in start
    assert "load_stat_logger_plugin_factories()" in start


def test_parsed_arguments_still_reach_no_platform():
    """A platform may add flags; what is parsed from them is no field, and nobody is told."""
    import inspect

    from vllm.engine.arg_utils import EngineArgs

    assert seams.mismatches(seams.ARGUMENT_SEAMS) == []
    source = inspect.getsource(inspect.unwrap(EngineArgs.from_cli_args.__func__))
    assert "dataclasses.fields(cls)" in source
    assert "current_platform" not in source
    configured = inspect.getsource(EngineArgs.create_engine_config)
    assert "current_platform.pre_register_and_update()" in configured


def test_a_shutdown_still_leaves_open_streams_without_a_word():
    """The task that hands out answers is cancelled, which it takes for no error."""
    import inspect

    from vllm.entrypoints.launchers import launcher
    from vllm.v1.engine.async_llm import AsyncLLM

    assert seams.mismatches(seams.SHUTDOWN_SEAMS) == []
    assert seams.mismatches(seams.SERVER_SEAMS) == []
    assert "propagate_error" not in inspect.getsource(inspect.unwrap(AsyncLLM.shutdown))
    handler = inspect.getsource(AsyncLLM._run_output_handler)
    assert "except Exception as e:" in handler
    assert "CancelledError" not in handler
    assert "exit" not in inspect.getsource(launcher.terminate_if_errored).replace(
        "server.should_exit = True", ""
    )


def test_an_engine_core_is_still_watched_for_its_end_only():
    import inspect

    from vllm.v1.engine.utils import CoreEngineProcManager
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    assert seams.mismatches(seams.LIVENESS_SEAMS) == []
    watch = inspect.getsource(CoreEngineProcManager.monitor_engine_liveness)
    assert "connection.wait(sentinels, timeout=1)" in watch
    check = inspect.getsource(UniProcExecutor.check_health)
    assert check.rstrip().endswith("return")


def test_torch_still_times_the_guards_of_every_compilation():
    import inspect

    from torch._dynamo.guards import CheckFunctionManager

    assert "latency = profile_guard_manager(" in inspect.getsource(CheckFunctionManager.__init__)


def test_guards_are_made_without_being_timed():
    code = """
import torch
import torch._dynamo.guards as guards
timed = []
original = guards.profile_guard_manager
guards.profile_guard_manager = lambda *args: timed.append(args) or original(*args)
def run(n):
    torch.compile(lambda x: x + n, backend="eager", dynamic=False)(torch.ones(2))
run(1)
before = len(timed)
from vllm_hpu.compat import torch_guards
torch_guards.install()
run(2)
print(before, len(timed))
"""
    assert output(code) == "1 1"


def test_merged_outputs_still_lose_the_prompt_without_the_patch():
    """A reader who is slow gets the first output of the second sequence within another's second."""
    code = """
import asyncio
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm_hpu.compat import merged_outputs

def output(index, prompt_logprobs):
    step = {7: Logprob(-1.0)}
    one = CompletionOutput(index, "a", [7], -1.0, [step], None)
    return RequestOutput("r", None, [1, 2], prompt_logprobs, [one], False)

async def read():
    reader = RequestOutputCollector(RequestOutputKind.DELTA, "r")
    prompt = [None, {2: Logprob(-2.0)}]
    reader.put(output(0, prompt))
    first = await reader.get()
    reader.put(output(0, []))  # the prompt's have been handed out
    reader.put(output(1, prompt))
    merged = await reader.get()
    print(len(first.prompt_logprobs), len(merged.prompt_logprobs), len(merged.outputs))

asyncio.run(read())
merged_outputs.install()
asyncio.run(read())
"""
    assert output(code).splitlines() == ["2 0 2", "2 2 2"]


def test_requests_are_still_derived_after_the_platform_was_asked():
    import inspect

    from vllm.v1.engine.input_processor import InputProcessor

    source = inspect.getsource(inspect.unwrap(InputProcessor.process_inputs))
    asked = source.index("current_platform.validate_request(")
    assert asked < source.index("sampling_params.update_from_generation_config(")
    assert asked < source.index("sampling_params.update_from_tokenizer(")


def test_a_worker_still_cannot_name_a_request_that_failed():
    import inspect

    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    names = vars(ModelRunnerOutput)["__dataclass_fields__"]
    assert not [name for name in names if "fail" in name or "error" in name]
    assert "except" not in inspect.getsource(GPUModelRunner.add_requests)


def test_the_first_grammar_still_decides_for_all_without_the_patch():
    """The second schema is for guidance: xgrammar leaves out what it cannot do."""
    code = f"""
import time
from types import SimpleNamespace
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output import StructuredOutputManager as Manager
from vllm.v1.structured_output.request import StructuredOutputRequest
import inspect

config = EngineArgs(model={str(ROOT / "models" / "demo")!r}).create_engine_config()
tokenizer = cached_tokenizer_from_config(config.model_config)
methods = [(name, getattr(Manager, name)) for name in ("grammar_init", "_create_grammar")]
for change in (inspect.unwrap, lambda method: method):
    for name, method in methods:
        setattr(Manager, name, change(method))
    manager, made = Manager(config), []
    for asked in (dict(regex="a"), dict(json=dict(type="integer", multipleOf=7)), dict(regex="b")):
        params = SamplingParams(structured_outputs=StructuredOutputsParams(**asked))
        params.verify(config.model_config, None, config.structured_outputs_config, tokenizer)
        request = SimpleNamespace(
            request_id="r",
            sampling_params=params,
            structured_output_request=StructuredOutputRequest.from_sampling_params(params),
        )
        manager.grammar_init(request)
        while request.structured_output_request.grammar is None:
            time.sleep(0.01)
        made.append(type(request.structured_output_request.grammar).__name__)
    print(*made)
"""
    without, with_patch = output(code).splitlines()[-2:]
    assert without == "XgrammarGrammar XgrammarGrammar XgrammarGrammar"
    assert with_patch == "XgrammarGrammar GuidanceGrammar XgrammarGrammar"


def test_a_body_of_the_wrong_type_still_raises_what_nobody_expects():
    import inspect

    from fastapi.dependencies.utils import _validate_value_with_model_field as validate
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    assert tuple(inspect.signature(validate).parameters) == ("field", "value", "values", "loc")
    with pytest.raises(AttributeError, match="has no attribute 'get'"):
        CompletionRequest.model_validate({"prompt": "a", "structured_outputs": 5})


def test_a_stream_of_responses_still_ends_without_a_word():
    import asyncio
    import inspect

    from vllm.entrypoints.openai.responses import api_router
    from vllm.exceptions import VLLMValidationError

    from vllm_hpu.compat import response_streams

    async def refused():
        raise VLLMValidationError("too much", parameter="seed")
        yield

    async def read(convert):
        return [event async for event in convert(refused())]

    with pytest.raises(VLLMValidationError):
        asyncio.run(read(inspect.unwrap(api_router._convert_stream_to_sse_events)))
    response_streams.install()
    (event,) = asyncio.run(read(api_router._convert_stream_to_sse_events))
    assert event.startswith("event: error\ndata: {")
    assert '"code": "400"' in event
    assert "too much" in event
