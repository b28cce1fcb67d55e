"""What a card cannot do fails, and says what it was."""

from pathlib import Path

import pytest
import torch

from .conftest import counted, emulated_only, run_python

SETUP = Path(__file__).resolve().parents[2] / "emulator" / "setup.py"
BUILD = (
    f"import runpy, sys; sys.argv = ['setup.py', '--version']; runpy.run_path({str(SETUP)!r}, "
    "run_name='__main__')"
)


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("add.Tensor", lambda card, host: card + host),
        ("add.Tensor", lambda card, host: host + card),
        ("add_.Tensor", lambda card, host: card.add_(host)),
        ("mm", lambda card, host: card.view(1, 3) @ host.view(3, 1)),
        ("cat", lambda card, host: torch.cat([card, host])),
        ("index_put_", lambda card, host: card.index_put_((card.long(),), host)),
        ("where.self", lambda card, host: torch.where(card > 0, card, host)),
        ("mul.out", lambda card, host: torch.mul(card, card, out=host)),
    ],
)
def test_host_and_card_tensors_do_not_mix(name, operation):
    card, host = torch.ones(3, device="hpu"), torch.ones(3)
    with pytest.raises(RuntimeError, match=f"two devices, hpu:0 and cpu! .*{name}"):
        operation(card, host)
    assert card.tolist() == [1, 1, 1]
    assert host.tolist() == [1, 1, 1]


def test_host_indices_are_copied_to_the_card():
    card, index = torch.tensor([4.0, 5.0, 6.0], device="hpu"), torch.tensor([2, 0])
    values = torch.tensor([1.0, 2.0], device="hpu")
    with counted() as happened:
        picked = card[index]
        card[index] = values
    assert happened.counters.h2d_copies == 2
    assert picked.tolist() == [6, 4]
    assert card.tolist() == [2, 5, 1]
    assert card.index_copy_(0, index, values).tolist() == [2, 5, 1]


def test_host_scalars_may_mix_but_not_be_written():
    card, scalar = torch.ones(3, device="hpu"), torch.tensor(2.0)
    assert (card * scalar).tolist() == [2, 2, 2]
    assert (card * scalar).is_hpu
    with pytest.raises(RuntimeError, match="two devices"):
        torch.sum(card, dim=0, out=scalar)


def test_cards_do_not_mix():
    with pytest.raises(RuntimeError, match=r"two devices, hpu:0 and hpu:1! .*add"):
        torch.ones(3, device="hpu:0") + torch.ones(3, device="hpu:1")


@emulated_only
@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("_to_sparse", lambda x: x.to_sparse()),
        ("quantize_per_tensor", lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.qint8)),
        ("to_mkldnn", lambda x: x.to_mkldnn()),
        (
            "fake_quantize_per_tensor",
            lambda x: torch.fake_quantize_per_tensor_affine(x, 1.0, 0, 0, 255),
        ),
    ],
)
def test_operators_the_card_lacks_name_themselves(name, operation):
    with pytest.raises(NotImplementedError, match=f"aten::{name}.* not available on the HPU"):
        operation(torch.ones(2, 2, device="hpu"))


def test_another_librarys_cpu_kernel_does_not_run():
    library = torch.library.Library("refusal_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.define("thrice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    library.impl("thrice", lambda x: x * 3, "CPU")
    library.impl("thrice", lambda x: x * 3, "HPU")
    x = torch.ones(2, device="hpu")
    with pytest.raises(NotImplementedError, match=r"refusal_test::twice.*no kernel for HPU"):
        torch.ops.refusal_test.twice(x)
    assert torch.ops.refusal_test.thrice(x).tolist() == [3, 3]


def test_sparse_layouts_are_refused():
    with pytest.raises((NotImplementedError, RuntimeError)):
        torch.empty(2, 2, layout=torch.sparse_coo, device="hpu")


def test_unknown_names_of_the_module_are_refused():
    with pytest.raises(AttributeError, match="no_such_function"):
        torch.hpu.no_such_function()


def _pretend_the_real_bridge_is_installed(directory: Path) -> dict[str, str]:
    """Metadata of a distribution that provides `habana_frameworks`, found through PYTHONPATH."""
    info = directory / "habana_torch_plugin-1.22.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: habana-torch-plugin\nVersion: 1.22.0\n")
    (info / "top_level.txt").write_text("habana_frameworks\n")
    return {"PYTHONPATH": str(directory)}


@emulated_only
def test_the_emulator_does_not_shadow_the_real_bridge(tmp_path):
    environment = _pretend_the_real_bridge_is_installed(tmp_path)
    imported = run_python("import gaudi_emulator", **environment)
    assert "ImportError: habana_frameworks is provided by habana-torch-plugin" in imported.stderr
    built = run_python(BUILD, **environment)
    assert built.returncode != 0
    assert (
        built.stderr.strip()
        .splitlines()[-1]
        .startswith("gaudi-emulator: habana_frameworks is already provided by habana-torch-plugin")
    )


@emulated_only
def test_a_missing_compiler_gets_one_line():
    built = run_python(BUILD, CXX="no-such-compiler")
    assert built.returncode != 0
    assert built.stderr.strip() == (
        "gaudi-emulator: no C++ compiler 'no-such-compiler' found; install g++ 11 or newer "
        "(apt install g++)."
    )
