"""GRAPH_VISUALIZATION=1: every compiled graph leaves a file in the folder ``.graph_dumps``.

That is how programs count graphs: ``len(glob.glob(".graph_dumps/*PreGraph*"))`` (optimum-habana,
vllm-gaudi). The card's compiler writes a second file for each, of the graph as it has changed it
(``PostGraph``); here it changes nothing, so there is none.
"""

from __future__ import annotations

import itertools
from pathlib import Path

__all__ = ["FOLDER", "write"]

FOLDER = ".graph_dumps"
"""Below the working directory, as on a card."""

_serial = itertools.count()


def write(kind: str, graph: str) -> Path:
    """Write a graph's file, one node for each line of its text.

    Args:
        kind: how the graph came about; begins the name, which ends in a number that is free.
        graph: the text by which the graph is known.
    """
    folder = Path(FOLDER)
    folder.mkdir(exist_ok=True)
    nodes = [
        f'node {{\n  name: "n{number}"\n  op: "{_quoted(line)}"\n}}\n'
        for number, line in enumerate(graph.splitlines())
    ]
    while True:
        path = folder / f"{kind}_{next(_serial)}-PreGraph-symbol.pbtxt"
        try:
            with path.open("x") as file:  # other ranks write here, too
                file.writelines(nodes)
        except FileExistsError:
            continue
        return path


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
