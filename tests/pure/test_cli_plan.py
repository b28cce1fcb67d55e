"""`vllm-hpu plan` as a user runs it: the installed command, a model's config.json, no device."""

import json
import os
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from vllm_hpu.cli import main
from vllm_hpu.engine_plan import engine_limits
from vllm_hpu.planner.model_config import ModelFolder
from vllm_hpu.settings import Settings
from vllm_hpu.shapes.cost import PREDICTED_GRAPH, CostModel
from vllm_hpu.shapes.model import ModelShape
from vllm_hpu.shapes.plan import ShapePlan
from vllm_hpu.shapes.simulate import steps_of
from vllm_hpu.shapes.traffic import Length, Load, Traffic
from vllm_hpu.warmup.manifest import GraphRecord, Manifest

DEMO = ROOT / "models" / "demo"
COMMAND = Path(sys.executable).with_name("vllm-hpu")
SHAPE = ModelShape.from_config(json.loads((DEMO / "config.json").read_text()))
SMALL = ("--max-num-seqs=16", "--max-num-batched-tokens=512", "--max-model-len=1024")


def vllm_hpu(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=plain | environment,
        check=False,
    )


def plan(*arguments: str | Path, **environment: str) -> dict[str, Any]:
    done = vllm_hpu("plan", *arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refusal(*arguments: str | Path, **environment: str) -> str:
    done = vllm_hpu("plan", *arguments, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def server_plan(**environment: str) -> ShapePlan:
    """What the engine plans for the demo model with the limits SMALL."""
    limits = engine_limits(16, 512, 1024, 128)
    return ShapePlan.from_settings(limits, Settings.from_env(environment), SHAPE)


def model(folder: Path, **changes: Any) -> Path:
    config = json.loads((DEMO / "config.json").read_text()) | changes
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )
    return folder


def test_the_plan_is_that_of_a_server_with_these_limits() -> None:
    found = plan(DEMO, *SMALL, "--strategy=exp")
    server = server_plan()
    graphs = [
        (g["tokens"], g["decode_rows"], g["decode_blocks"], g["prefill_blocks"], g["kind"])
        for g in found["graphs"]
    ]
    assert graphs == [
        (k.tokens, k.decode_rows, k.decode_blocks, k.prefill_blocks, k.kind) for k in server.keys
    ]
    covering = [graph for graph in found["graphs"] if graph["covering"]]
    assert len(covering) == len(server.covering)
    counts = Counter(graph["kind"] for graph in found["graphs"])
    assert counts == {kind["kind"]: kind["graphs"] for kind in found["kinds"]}


def test_variables_of_the_server_apply() -> None:
    linear = plan(DEMO, *SMALL, VLLM_BUCKETING_STRATEGY="lin", VLLM_DECODE_BS_BUCKET_STEP="4")
    assert linear["strategy"] == "lin"
    rows = {graph["decode_rows"] for graph in linear["graphs"] if graph["kind"] == "decode"}
    assert {4, 8, 12, 16} <= rows
    assert "VLLM_DECODE_BS_BUCKET_STEP" in refusal(DEMO, VLLM_DECODE_BS_BUCKET_STEP="none")


def test_padding_is_counted_on_the_profile(tmp_path: Path) -> None:
    """One request of 100 + 28 tokens at a time: every step is known, and so is its padding."""
    traffic = Traffic((Length(100, 28, 1),), (Load(1, 1.0),))
    file = tmp_path / "traffic.json"
    traffic.write(file)
    found = plan(DEMO, *SMALL, "--strategy=exp", "--profile", file)
    assert str(file) in found["traffic"]

    limits = engine_limits(16, 512, 1024, 128)
    shapes = server_plan()
    cost = CostModel(SHAPE, 128)
    needed = padded = 0.0
    for step, share in steps_of(traffic, limits, seed=1).items():
        needed += share * cost.step(step).flops
        padded += share * cost.key(shapes.dispatch(step)).flops
    assert found["strategies"]["exp"]["padding"] == pytest.approx(1 - needed / padded)
    # The roofline's time is counted on the same steps.
    seconds = sum(kind["seconds"] for kind in found["kinds"])
    padded_seconds = sum(kind["padded_seconds"] for kind in found["kinds"])
    assert found["strategies"]["exp"]["time_padding"] == pytest.approx(1 - seconds / padded_seconds)
    assert sum(kind["steps"] for kind in found["kinds"]) == pytest.approx(1)
    same = plan(DEMO, *SMALL, "--strategy=exp", VLLM_HPU_TRAFFIC_PROFILE=str(file))
    assert same["strategies"] == found["strategies"]


def test_warm_up_is_predicted_with_its_source() -> None:
    found = plan(DEMO, *SMALL)
    warm_up = found["strategies"][found["strategy"]]["warm_up"]
    number = len(found["graphs"])
    assert warm_up == {
        "graphs": number,
        "seconds": number * PREDICTED_GRAPH.seconds,
        "bytes": number * PREDICTED_GRAPH.bytes,
        "measured": 0,
    }
    assert found["warm_up_source"] == PREDICTED_GRAPH.source


def test_warm_up_is_measured_where_an_earlier_start_was(tmp_path: Path) -> None:
    shapes = server_plan()
    manifest = Manifest.load(tmp_path, "feed")
    for seconds, key in enumerate(shapes.keys[:5], 1):
        manifest.record(str(key), GraphRecord(float(seconds), 1000 * seconds, False))
    cache = {"PT_HPU_RECIPE_CACHE_CONFIG": f"{tmp_path},false,1024"}
    for found in (plan(DEMO, *SMALL, **cache), plan(DEMO, *SMALL, "--manifest", manifest.path)):
        warm_up = found["strategies"]["exp"]["warm_up"]
        number = len(found["graphs"])
        assert warm_up["measured"] == 5
        # Those not measured cost the mean of those that were: 3 s and 3000 bytes.
        assert warm_up["seconds"] == pytest.approx(15 + 3 * (number - 5))
        assert warm_up["bytes"] == 15000 + 3000 * (number - 5)
        assert "measured" in found["warm_up_source"]
        assert str(manifest.path) in found["warm_up_source"]
    # Which of two belongs to this model cannot be told.
    Manifest.load(tmp_path, "beef").record(str(shapes.keys[0]), GraphRecord(9.0, 9, False))
    assert plan(DEMO, *SMALL, **cache)["warm_up_source"] == PREDICTED_GRAPH.source


def test_defaults_are_completed_from_the_model_and_the_card() -> None:
    found = plan(DEMO)
    assert found["limits"] == {
        "max_num_seqs": 1024,
        "max_num_batched_tokens": 8192,
        "max_model_len": 1024,
        "block_size": 128,
        "query_len": 1,
        "max_decode_blocks": None,
        "max_prefill_blocks": found["limits"]["max_prefill_blocks"],
    }
    assert found["limits_from"]["max-model-len"] == "config.json"
    assert plan(DEMO, "--max-num-seqs=4", "--max-model-len=64")["limits"][
        "max_num_batched_tokens"
    ] == (4 * 64)


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": None, "n_positions": 512}, 512),
        ({"max_position_embeddings": None}, 2048),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, 4096),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 2048),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 1024),
        (
            {
                "rope_parameters": {"rope_type": "longrope"},
                "original_max_position_embeddings": 256,
            },
            256,
        ),
    ],
)
def test_the_longest_request_follows_from_the_configuration(
    tmp_path: Path, changes: dict[str, Any], longest: int
) -> None:
    assert ModelFolder.read(model(tmp_path, **changes)).max_model_len == longest


def test_a_decoder_inside_a_larger_model(tmp_path: Path) -> None:
    config = json.loads((DEMO / "config.json").read_text())
    outer = {"architectures": ["SomeVision"], "text_config": config, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(outer))
    found = plan(tmp_path, *SMALL)
    assert found["model"]["architecture"] == "SomeVision"
    assert found["model"]["sizes"]["layers"] == config["num_hidden_layers"]


def test_limits_reach_the_plan() -> None:
    found = plan(DEMO, *SMALL, "--block-size=16", "--num-speculative-tokens=3", "--num-blocks=40")
    assert found["limits"]["query_len"] == 4
    assert max(graph["decode_blocks"] for graph in found["graphs"]) == 40
    assert max(graph["prefill_blocks"] for graph in found["graphs"]) == 40
    decode = [graph for graph in found["graphs"] if graph["kind"] == "decode"]
    assert all(graph["tokens"] == 4 * graph["decode_rows"] for graph in decode)
    assert found["serve"].endswith("--hpu-bucketing-strategy exp --speculative-config ...")


def test_padding_falls_while_warm_up_goes_on() -> None:
    found = plan(DEMO, *SMALL, "--strategy=exp", "--budget-graphs=20")
    path = found["strategies"]["exp"]["padding_by_graphs"]
    assert path[0][0] >= sum(graph["covering"] for graph in found["graphs"])
    assert path[0][1] > path[-1][1] >= found["strategies"]["exp"]["padding"] - 1e-9
    assert found["budget"]["graphs"] == 20
    assert [20, found["budget"]["padding"]] in path


def test_the_optimal_strategy_plans_for_the_profile_and_the_budget(tmp_path: Path) -> None:
    file = tmp_path / "traffic.json"
    Traffic((Length(300, 100, 1),), (Load(4, 1.0),)).write(file)
    arguments = (DEMO, *SMALL, "--strategy=opt", "--profile", file, "--budget-graphs=15")
    found = plan(*arguments)
    assert len(found["graphs"]) <= 15
    assert found["strategies"]["opt"]["padding"] < found["strategies"]["exp"]["padding"]
    server = server_plan(
        VLLM_BUCKETING_STRATEGY="opt",
        VLLM_HPU_TRAFFIC_PROFILE=str(file),
        VLLM_HPU_PLAN_BUDGET="15 graphs",
    )
    assert [graph["tokens"] for graph in found["graphs"]] == [key.tokens for key in server.keys]


def test_a_profile_is_planned_for_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "traffic.json"
    Traffic((Length(300, 100, 1),), (Load(4, 1.0),)).write(file)
    found = plan(DEMO, *SMALL, "--profile", file)
    assert found["strategy"] == "opt"
    given = {"VLLM_HPU_TRAFFIC_PROFILE": str(file)}
    assert [g["tokens"] for g in found["graphs"]] == [k.tokens for k in server_plan(**given).keys]
    assert found["serve"] == (
        f"vllm serve {DEMO} --max-num-seqs 16 --max-num-batched-tokens 512 --max-model-len 1024 "
        f"--hpu-bucketing-strategy opt --hpu-traffic-profile {file}"
    )
    operations = plan(DEMO, *SMALL, "--profile", file, "--cost=operations", "--budget-graphs=15")
    assert operations["serve"].endswith("--hpu-plan-budget '15 graphs' --hpu-plan-cost operations")
    server = server_plan(**given, VLLM_HPU_PLAN_COST="operations", VLLM_HPU_PLAN_BUDGET="15 graphs")
    assert [g["tokens"] for g in operations["graphs"]] == [key.tokens for key in server.keys]
    by_time = plan(DEMO, *SMALL, "--profile", file, "--budget-graphs=15")
    # Least operations, in which one strategy may not be worse than the other by its own measure.
    padding = [found["strategies"]["opt"]["padding"] for found in (operations, by_time)]
    assert padding[0] <= padding[1]


def test_sizes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "buckets.txt"
    file.write_text("(1, 64, 0)\n(16, 1, 128)\n")
    found = plan(DEMO, *SMALL, "--bucket-file", file)
    assert found["strategy"] == "file"
    assert found["serve"].startswith(f"VLLM_BUCKETING_FROM_FILE={file} vllm serve {DEMO} --max-")
    assert 64 in {graph["tokens"] for graph in found["graphs"]}
    assert plan(DEMO, *SMALL, VLLM_BUCKETING_FROM_FILE=str(file))["graphs"] == found["graphs"]
    assert str(tmp_path / "none") in refusal(DEMO, "--bucket-file", tmp_path / "none")


def test_the_table_says_what_the_json_says() -> None:
    text = vllm_hpu("plan", DEMO, *SMALL, "--strategy=exp").stdout
    found = plan(DEMO, *SMALL, "--strategy=exp")
    for kind in found["kinds"]:
        assert re.search(rf"^ +{kind['kind']} +{kind['graphs']} ", text, re.MULTILINE)
    assert re.search(rf"^ +all +{len(found['graphs'])} ", text, re.MULTILINE)
    assert found["warm_up_source"] in text
    assert f"\n  {found['serve']}\n" in text
    assert "--hpu-record-profile FILE" in text
    assert all(f"  {name} " in text for name in found["strategies"])


def test_plots_are_pictures_of_their_suffix(tmp_path: Path) -> None:
    png, svg = tmp_path / "plan.png", tmp_path / "plan.svg"
    for file in (png, svg):
        done = vllm_hpu("plan", DEMO, *SMALL, "--plot", file)
        assert done.returncode == 0, done.stderr
        assert f"Plot: {file}" in done.stdout
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000
    assert height > 500
    assert ET.parse(svg).getroot().tag.endswith("}svg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], ["no folder nowhere", "config.json"]),
        ([ROOT / "docs"], ["has no config.json"]),
        ([DEMO, "--max-num-seqs=0"], ["--max-num-seqs", "at least 1"]),
        ([DEMO, "--max-num-seqs=many"], ["--max-num-seqs", "'many'"]),
        (
            [DEMO, "--max-num-seqs=64", "--max-num-batched-tokens=32"],
            ["(32) is below", "(64)", "Raise --max-num-batched-tokens"],
        ),
        ([DEMO, "--max-model-len=2048"], ["above 1024", "--max-model-len 1024"]),
        ([DEMO, "--block-size=100"], ["--block-size 100", "multiple of 16"]),
        ([DEMO, "--strategy=best"], ["'best'", "exp", "lin"]),
        ([DEMO, "--strategy=file"], ["--strategy file", "--bucket-file"]),
        ([DEMO, "--profile=missing.json"], ["missing.json", "cannot be read"]),
        ([DEMO, "--profile", DEMO / "config.json"], ["config.json", "no traffic profile"]),
        ([DEMO, "--manifest", DEMO / "config.json"], ["config.json", "not a manifest"]),
        ([DEMO, "--budget-graphs=1"], ["--budget-graphs 1 is below"]),
        ([DEMO, "--plot=plan.gif"], ["plan.gif", ".png", ".svg"]),
        ([DEMO, "--card=gaudi9"], ["gaudi9", "gaudi2"]),
        ([], ["MODEL"]),
    ],
)
def test_bad_input_is_explained(
    arguments: list[str | Path], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: what fails before anything is computed needs no other one."""
    try:
        status = main(["plan", *map(str, arguments)])
    except SystemExit as left:  # how argparse ends
        status = int(str(left.code))
    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    assert all(words in printed.err for words in said), printed.err


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert str(tmp_path / "config.json") in refusal(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": None},
        {"hidden_size": "wide"},
        {"max_position_embeddings": -5},
        {"max_position_embeddings": "long"},
    ],
)
def test_impossible_sizes_are_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    message = refusal(model(tmp_path, **changes))
    assert "config.json" in message


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    done = vllm_hpu("plan", DEMO, *SMALL, "--plot", tmp_path / "none" / "plan.png")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plot_without_matplotlib(tmp_path: Path) -> None:
    """It is not among the plugin's dependencies, so it may be missing."""
    code = (
        "import sys; sys.modules['matplotlib'] = None; from vllm_hpu.cli import main; "
        f"sys.exit(main(['plan', {str(DEMO)!r}, '--plot', {str(tmp_path / 'a.svg')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install matplotlib" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_option() -> None:
    text = vllm_hpu("plan", "--help").stdout
    for option in ("--profile", "--strategy", "--budget-graphs", "--plot", "--json", "--card"):
        assert option in text
    assert "plan" in vllm_hpu("--help").stdout


def test_neither_torch_nor_vllm_is_imported() -> None:
    """A plan is there at once, and on machines that have neither."""
    code = (
        "import sys; from vllm_hpu.cli import main; "
        f"main(['plan', {str(DEMO)!r}, '--json']); "
        "assert not {'torch', 'vllm', 'habana_frameworks'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
