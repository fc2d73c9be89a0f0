"""`jobs/benchmark.py kernels`: one small case on MindSpore's side; PyTorch is no part of this project's environment."""

from __future__ import annotations

import pytest

from jobs import benchmark
from manifests.errors import UsageError


@pytest.mark.models
def test_a_case_is_one_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--sizes", "demo", "--parts", "prior step", "--batches", "2", "--rounds", "1", "--graph"]
    assert benchmark.main(["kernels", *chosen]) == 0
    *_, head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| model | call | batch | MindSpore | graph | PyTorch | MindSpore ratio | graph ratio |"
    before, _, after = row.partition("| demo | prior step | 2 | ")
    operators, graph, beside = after.split(" | ", 2)
    assert (before, beside) == ("", "– | – | – |")
    assert min(float(operators), float(graph)) > 0


@pytest.mark.parametrize("python", ["/no/such/python", "false"])
def test_an_interpreter_without_pytorch_is_refused(python: str) -> None:
    with pytest.raises(UsageError, match="cannot import torch and diffusers"):
        benchmark.main(["kernels", "--torch-python", python])
