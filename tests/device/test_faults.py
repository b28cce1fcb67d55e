"""Armed faults: every kind at every site where it makes sense, once, at its step."""

import subprocess
import sys
import threading
import time

import habana_frameworks.torch  # noqa: F401 - registers hccl
import pytest
import torch
import torch.distributed as dist
from gaudi_emulator import config, faults, recipes
from gaudi_emulator.graph import Graph

from .conftest import emulated_only, run_python

pytestmark = emulated_only


@pytest.fixture(autouse=True)
def disarmed():
    yield
    faults.disarm()


class Sites:
    """What visits each site exactly once per call, and returns its result."""

    def __init__(self, folder):
        self.x = torch.ones(4, device="hpu")
        self.host = torch.ones(4)
        self.graph = Graph()
        self.graph.capture_begin()
        self.doubled = self.x * 2
        self.graph.capture_end()
        recipes.use_folder(str(folder), False, 1 << 20)

    def launch(self):
        return self.x.add_(0)

    def graph_replay(self):
        self.graph.replay()
        return self.doubled

    def compile(self):
        recipes.forget()
        recipes.obtain("test", f"graph {time.monotonic_ns()}", "", 1)

    def copy(self):
        return self.x.copy_(self.host)

    def allocate(self):
        return torch.empty(4, device="hpu")

    def collective(self):
        dist.all_reduce(self.x)
        return self.x

    def recipe_read(self):
        recipes.forget()
        recipes.obtain("test", "one graph", "", 1)


@pytest.fixture
def sites(tmp_path):
    dist.init_process_group("hccl", store=dist.HashStore(), rank=0, world_size=1)
    yield Sites(tmp_path)
    recipes.use_folder("", False, 0)
    dist.destroy_process_group()


def where(kind):
    return [site for site, kinds in faults.SITES.items() if kind in kinds]


def strikes_at_the_third_visit(visit, kind, check, seconds=None):
    """Two visits go well, the third does not, the fourth does again."""
    faults.arm(faults.Fault(visit.__name__, 3, kind, seconds))
    visit()
    visit()
    assert faults.struck() == []
    check(visit)
    assert faults.pending() == []
    assert [text.split(":")[2] for text in faults.struck()] == [kind]
    visit()


@pytest.mark.parametrize("site", where("device_error"))
def test_device_error(sites, site):
    def check(visit):
        expected = rf"hpu:0 has failed, synStatus 26.*injected fault {site}:3:device_error"
        with pytest.raises(RuntimeError, match=expected):
            visit()

    strikes_at_the_third_visit(getattr(sites, site), "device_error", check)


@pytest.mark.parametrize("site", where("oom"))
def test_out_of_memory(sites, site):
    def check(visit):
        with pytest.raises(torch.OutOfMemoryError, match=f"injected fault {site}:3:oom"):
            visit()

    strikes_at_the_third_visit(getattr(sites, site), "oom", check)


@pytest.mark.parametrize("site", where("slow"))
def test_slow(sites, site):
    def check(visit):
        started = time.monotonic()
        visit()
        assert time.monotonic() - started >= 0.05

    strikes_at_the_third_visit(getattr(sites, site), "slow", check, 0.05)


@pytest.mark.parametrize("site", where("hang"))
def test_a_hang_lets_other_threads_run_and_ends_with_disarm(sites, site):
    faults.arm(f"{site}:1:hang")
    ended = threading.Event()
    other = threading.Thread(target=lambda: (getattr(sites, site)(), ended.set()))
    other.start()
    assert not ended.wait(0.05)
    assert faults.struck() == [f"{site}:1:hang"]
    faults.disarm()
    assert ended.wait(10)
    other.join()


@pytest.mark.parametrize("site", where("nan"))
def test_nan(sites, site):
    def check(visit):
        assert visit().isnan().all()
        sites.x.fill_(1)  # what later visits read

    strikes_at_the_third_visit(getattr(sites, site), "nan", check)


@pytest.mark.parametrize("site", where("wrong"))
def test_wrong(sites, site):
    def check(visit):
        before = sites.x.clone()
        result = visit()
        assert not result.isnan().any()
        assert (result != before).all()

    strikes_at_the_third_visit(getattr(sites, site), "wrong", check)


def test_a_corrupt_recipe_is_compiled_again(sites, caplog):
    def check(visit):
        visit()
        assert "checksum does not match" in caplog.text

    strikes_at_the_third_visit(sites.recipe_read, "corrupt", check)


KILLED = """
import sys, torch, torch.distributed as dist, habana_frameworks.torch
from gaudi_emulator import recipes
from gaudi_emulator.graph import Graph
x, graph = torch.ones(4, device='hpu'), Graph()
graph.capture_begin()
y = x + 1
graph.capture_end()
dist.init_process_group('hccl', store=dist.HashStore(), rank=0, world_size=1)
recipes.use_folder(sys.argv[1], False, 1 << 20)
import gaudi_emulator.faults as faults
faults.arm(sys.argv[2] + ':1:rank_death')
print('alive', flush=True)
{
    'launch': lambda: x.add_(1),
    'graph_replay': graph.replay,
    'compile': lambda: recipes.obtain('test', 'a graph', '', 1),
    'copy': lambda: x.copy_(torch.ones(4)),
    'allocate': lambda: torch.empty(4, device='hpu'),
    'collective': lambda: dist.all_reduce(x),
    'recipe_read': lambda: recipes.obtain('test', 'a graph', '', 1),
}[sys.argv[2]]()
print('still alive', flush=True)
"""


def death(site, folder):
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), site],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_rank_death(tmp_path):
    done = death("collective", tmp_path)
    assert (done.stdout, done.returncode) == ("alive\n", -9), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("site", where("rank_death"))
def test_rank_death_at_every_site(site, tmp_path):
    done = death(site, tmp_path)
    assert (done.stdout, done.returncode) == ("alive\n", -9), done.stderr


def test_a_fault_of_one_card_spares_the_others():
    faults.arm("launch:2:device_error@1")
    x, y = torch.ones(2, device="hpu:0"), torch.ones(2, device="hpu:1")
    faults.disarm()
    faults.arm("launch:2:device_error@1")
    for _ in range(5):
        x.add_(1)
    y.add_(1)
    with pytest.raises(RuntimeError, match="hpu:1 has failed"):
        y.add_(1)


def test_several_faults_and_a_block():
    x = torch.ones(2, device="hpu")
    with faults.armed("launch:1:oom, launch:2:device_error", faults.Fault("copy", 9, "nan")):
        assert faults.pending() == ["launch:1:oom", "launch:2:device_error", "copy:9:nan"]
        with pytest.raises(torch.OutOfMemoryError):
            x.add_(1)
        with pytest.raises(RuntimeError, match="synStatus 26"):
            x.add_(1)
        assert faults.pending() == ["copy:9:nan"]
    assert faults.pending() == []
    x.add_(1)


def test_an_error_leaves_the_tensors_as_they_were():
    x = torch.ones(2, device="hpu")
    with faults.armed("launch:1:device_error"), pytest.raises(RuntimeError):
        x.add_(1)
    assert x.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("launch", r"fault 'launch': expected site:step:kind\[:seconds\]\[@module\]"),
        ("lunch:1:oom", "fault 'lunch:1:oom': fault site 'lunch': expected one of launch, graph"),
        ("launch:x:oom", "step 'x': expected an integer from 1"),
        ("launch:0:oom", "fault step 0: expected a number from 1"),
        ("launch:1:fire", "fault kind 'fire': expected one of device_error, oom, hang"),
        ("copy:1:wrong", "a fault 'wrong' cannot happen at 'copy': expected one of device_error"),
        ("copy:1:slow:soon", "seconds 'soon': expected a number"),
        ("copy:1:slow:nan", "seconds 'nan': expected a number"),
        ("copy:1:slow:-1", "fault seconds -1.0: expected 0 to 86400"),
        ("copy:1:nan:3", "a fault 'nan' takes no seconds; 'hang' and 'slow' do"),
        ("copy:1:nan@x", "module 'x': expected the number of a card"),
        ("copy:1:nan@9", "module 9 is not visible to this process, which sees 0, 1"),
    ],
)
def test_a_malformed_specification_is_explained(text, message):
    with pytest.raises(ValueError, match=message):
        faults.arm(f"launch:5:oom,{text}")
    assert faults.pending() == []
    with pytest.raises(ValueError, match=r"^GAUDI_EMULATOR_FAULTS: fault "):
        config.read({"GAUDI_EMULATOR_FAULTS": text})


def test_the_specification_is_the_faults_text():
    text = "launch:1:oom,collective:20:slow:0.5@3,recipe_read:2:corrupt"
    assert ",".join(map(str, faults.parse(text))) == text
    assert faults.parse(" ") == ()


def test_the_environment_arms_the_cards_that_a_process_sees():
    code = (
        "import gaudi_emulator as g; g.activate(); print(g.faults.pending())\n"
        "import torch; torch.ones(1, device='hpu').add_(1)"
    )
    done = run_python(
        code,
        HABANA_VISIBLE_MODULES="4,5",
        GAUDI_EMULATOR_FAULTS="launch:1:device_error@4,launch:1:device_error@3",
    )
    assert done.stdout.strip() == "['launch:1:device_error@4']"
    assert "RuntimeError: hpu:0 has failed, synStatus 26" in done.stderr
