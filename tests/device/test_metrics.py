"""The bridge's metrics: names, values, life cycle."""

import itertools
import json

import gaudi_emulator
import pytest
import torch
from habana_frameworks.torch._device import DeviceGraph, note_compilation
from habana_frameworks.torch.hpu import metrics
from habana_frameworks.torch.hpu.metrics import (
    MetricNotFound,
    metric_global,
    metric_localcontext,
    metrics_dump,
)
from habana_frameworks.torch.internal import bridge_config

_constants = itertools.count()


def capture():
    """One compilation of the kind that a graph capture is: no two graphs are the same."""
    x = torch.ones(2, device="hpu")
    graph = DeviceGraph()
    graph.capture_begin()
    y = x + next(_constants)
    graph.capture_end()
    return graph, (x, y)


def test_graph_compilation_counts_inside_the_context_only():
    capture()
    with metric_localcontext("graph_compilation") as metric:
        assert dict(metric.stats()) == {"TotalNumber": 0, "TotalTime": 0, "AvgTime": 0}
        note_compilation("hpu_backend", "a", 300)
        note_compilation("hpu_backend", "b", 100)
        assert metric.stats() == [("TotalNumber", 2), ("TotalTime", 400), ("AvgTime", 200.0)]
        metric.reset()
        capture()
    capture()
    assert dict(metric.stats())["TotalNumber"] == 1, "it counts after its context"
    assert metric.name() == "graph_compilation"


def test_global_metric_counts_since_the_import():
    metric = metric_global("graph_compilation")
    before = dict(metric.stats())["TotalNumber"]
    capture()
    assert dict(metric.stats())["TotalNumber"] == before + 1
    assert dict(metric.stats())["TotalNumber"] <= gaudi_emulator.counters().total_compilations


def test_a_metric_stops_and_starts():
    with metric_localcontext("graph_compilation") as metric:
        capture()
        metric.stop()
        capture()
        assert dict(metric.stats())["TotalNumber"] == 1
        metric.start()
        capture()
        metric.start()
        assert dict(metric.stats())["TotalNumber"] == 1


def test_details_name_each_recipe(monkeypatch):
    with metric_localcontext("graph_compilation") as metric:
        note_compilation("hpu_backend", "layer_1:4x8", 70)
        note_compilation("hpu_backend", "layer_2:4x8", 20)
        assert "recipe" not in dict(metric.stats())
        monkeypatch.setenv("PT_HPU_METRICS_GC_DETAILS", "1")
        assert dict(metric.stats())["recipe"] == [("layer_1:4x8", 70), ("layer_2:4x8", 20)]


def test_recipe_cache_needs_its_flag():
    with (
        pytest.raises(MetricNotFound, match="PT_HPU_ENABLE_CACHE_METRICS"),
        metric_localcontext("recipe_cache"),
    ):
        pass
    assert metric_global("recipe_cache") is None
    with (
        bridge_config.env_setting("PT_HPU_ENABLE_CACHE_METRICS", True),
        metric_localcontext("recipe_cache") as metric,
    ):
        graph, _ = capture()
        graph.replay()
        graph.replay()
        stats = dict(metric.stats())
    assert (stats["TotalHit"], stats["TotalMiss"]) == (2, 1)
    assert stats["RecipeHit"] == {"graph": 2}
    assert sum(stats["RecipeMiss"].values()) == 1


def test_what_never_happens_on_this_device():
    """An operator without a kernel raises, so that the fallback metric has nothing to count."""
    with metric_localcontext("cpu_fallback") as metric:
        with pytest.raises(NotImplementedError):
            torch.ones(2, 2, device="hpu").to_mkldnn()
        assert dict(metric.stats()) == {"TotalNumber": 0, "FallbackOps": {}}
    names = [name for name, _ in metric_global("memory_defragmentation").stats()]
    assert names == ["TotalNumber", "TotalSuccessful", "AvgTime", "MaxTime"]


def test_unknown_names():
    assert metric_global("temperature") is None
    with (
        pytest.raises(MetricNotFound, match=r"temperature.*graph_compilation"),
        metric_localcontext("temperature"),
    ):
        pass
    with pytest.raises(AttributeError, match=r"metrics\.metric_average"):
        _ = metrics.metric_average


def test_dump(tmp_path):
    capture()
    metrics_dump(str(tmp_path / "m.json"))
    values = json.loads((tmp_path / "m.json").read_text())
    assert values["graph_compilation"]["TotalNumber"] >= 1
    metrics_dump(str(tmp_path / "m.txt"), format="text")
    assert "graph_compilation: TotalNumber=" in (tmp_path / "m.txt").read_text()
    with pytest.raises(ValueError, match="format 'xml'"):
        metrics_dump(str(tmp_path / "m.xml"), format="xml")
