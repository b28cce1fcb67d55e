"""Metric values in files that the API server reads whenever somebody asks for them.

vLLM's channel from workers to the API server (``SchedulerStats``) has no place for values of a
platform and is silent while no step runs, so graphs compiled in idle gaps would not be seen. The
values go where prometheus_client puts those of several processes: each writes a memory-mapped file,
and ``prometheus_client.multiprocess.MultiProcessCollector`` reads them all at a scrape. A write is
a store to memory; nobody waits for it, and it costs the API server nothing between scrapes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from vllm_hpu.metrics.definitions import Metric


class Value:
    """One value of a metric: kept here, and copied to a file if there is one."""

    def __init__(self, file: MmapedDict | None, key: str) -> None:
        self.value = 0.0
        self._file = file
        self._key = key
        self.set(0.0)

    def add(self, amount: float) -> None:
        """Count ``amount`` more."""
        self.value += amount
        if self._file is not None:
            self._file.write_value(self._key, self.value, 0.0)

    def set(self, value: float) -> None:
        """Take ``value`` instead."""
        self.value = value
        if self._file is not None:
            self._file.write_value(self._key, value, time.time())


class Store:
    """The values of one process.

    Without a folder (an engine whose front end is elsewhere) values are kept and not shown.
    """

    def __init__(self, folder: str, name: str, labels: Mapping[str, str]) -> None:
        """
        Args:
            folder: where ``publish`` looks; "" for none.
            name: tells this process from others that write there; without "_", which separates the
                parts of a file's name.
            labels: ``metrics.COMMON_LABELS`` with their values.
        """
        self._labels = dict(labels)
        self._files: dict[str, MmapedDict | None] = {"counter": None, "gauge": None}
        if folder and os.path.isdir(folder):
            # Names and meaning: prometheus_client/multiprocess.py.
            self._files["counter"] = MmapedDict(os.path.join(folder, f"counter_{name}.db"))
            self._files["gauge"] = MmapedDict(os.path.join(folder, f"gauge_mostrecent_{name}.db"))

    def value(self, metric: Metric, **labels: str) -> Value:
        """The value of ``metric`` with these ``labels``, 0 at first."""
        if set(labels) != set(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}.")
        named = self._labels | labels
        key = mmap_key(metric.name, metric.sample, list(named), list(named.values()), metric.help)
        return Value(self._files[metric.kind], key)
