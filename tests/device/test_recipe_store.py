"""The folder of recipes: whole files or none, bounded, and nothing else in it is touched."""

import os
import threading
import time

from gaudi_emulator.recipe_store import Recipe, RecipeStore
from hypothesis import given
from hypothesis import strategies as st


def recipe(number, detail=""):
    return Recipe(f"{number:064x}", "graph_capture", detail, 3, 40)


def test_what_is_saved_is_loaded(tmp_path):
    store = RecipeStore(tmp_path / "new" / "folder", 1 << 20)
    assert store.load(recipe(1).key) is None
    store.save(recipe(1, "2x4"))
    assert RecipeStore(store.folder, 1 << 20).load(recipe(1).key) == recipe(1, "2x4")
    assert store.load(recipe(2).key) is None


@given(data=st.data())
def test_damage_is_noticed(tmp_path_factory, data):
    """Any change of the bytes is ignored with one line, and a new recipe takes the place."""
    store = RecipeStore(tmp_path_factory.mktemp("recipes"), 1 << 20)
    store.save(recipe(1))
    [path] = store.folder.iterdir()
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
        damaged = whole[:place] + bytes([other]) + whole[place + 1 :]
    path.write_bytes(damaged)
    assert store.load(recipe(1).key) is None
    store.save(recipe(1))
    assert store.load(recipe(1).key) == recipe(1)


def test_a_foreign_recipe_is_ignored_with_one_line(tmp_path, caplog):
    store = RecipeStore(tmp_path, 1 << 20)
    store.save(recipe(1))
    (tmp_path / f"{recipe(1).key}.recipe").rename(tmp_path / f"{recipe(2).key}.recipe")
    assert store.load(recipe(2).key) is None
    (tmp_path / f"{recipe(3).key}.recipe").write_bytes(b"\x80\x04K\x01.")
    assert RecipeStore(tmp_path, 1 << 20).load(recipe(3).key) is None
    reasons = [r.getMessage().partition("compiled again: ")[2] for r in caplog.records]
    assert [reason.partition(".")[0] for reason in reasons] == [
        "it belongs to another graph",
        "it is not a recipe of this software",
    ]


def test_a_folder_full_of_them_costs_one_line(tmp_path, caplog):
    store = RecipeStore(tmp_path, 1 << 20)
    for number in range(4):
        (tmp_path / f"{recipe(number).key}.recipe").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / f"{recipe(4).key}.recipe").mkdir()
    for number in range(6):
        assert store.load(recipe(number).key) is None
        store.save(recipe(number))
    assert len(caplog.records) == 1
    # What can be replaced is; a folder in a recipe's place stays.
    kept = RecipeStore(tmp_path, 1 << 20)
    assert [kept.load(recipe(number).key) is not None for number in range(6)] == [
        number != 4 for number in range(6)
    ]


def test_only_one_is_at_a_recipe(tmp_path):
    """Threads stand for processes: a lock belongs to whoever opened its file."""
    running, most, lock = [0, 0], [0, 0], threading.Lock()

    def compile_both() -> None:
        store = RecipeStore(tmp_path, 1 << 20)
        for number in (0, 1) * 20:
            with store.turn(recipe(number).key):
                with lock:
                    running[number] += 1
                    most[number] = max(most[number], running[number])
                time.sleep(0.0005)
                with lock:
                    running[number] -= 1

    threads = [threading.Thread(target=compile_both) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1]
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_everyone_has_a_turn(tmp_path):
    (tmp_path / "file").write_text("")
    with RecipeStore(tmp_path / "file" / "folder", 1 << 20).turn(recipe(1).key):
        pass


def test_the_oldest_make_room(tmp_path):
    store = RecipeStore(tmp_path, 1 << 20)
    store.save(recipe(0))
    size = (tmp_path / f"{recipe(0).key}.recipe").stat().st_size
    (tmp_path / "manifest.json").write_text("x" * 10 * size)
    for number in range(5):
        store.save(recipe(number))
        os.utime(tmp_path / f"{recipe(number).key}.recipe", (100 + number, 100 + number))
    assert store.load(recipe(0).key) is not None, "now the latest used"
    RecipeStore(tmp_path, 3 * size).save(recipe(5))
    left = {number for number in range(6) if store.load(recipe(number).key)}
    assert left == {0, 4, 5}
    assert (tmp_path / "manifest.json").exists()


def test_what_a_killed_writer_left_goes_when_it_is_old(tmp_path):
    young, old = (tmp_path / f"{recipe(n).key}.recipe.{n}.0" for n in (1, 2))
    other = tmp_path / "notes.recipe.txt"
    for path in (young, old, other):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    RecipeStore(tmp_path, 1 << 20).save(recipe(3))
    assert young.exists()
    assert not old.exists()
    assert other.exists()


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = RecipeStore(tmp_path / "file" / "folder", 1 << 20)
    assert store.load(recipe(1).key) is None
    store.save(recipe(1))
    store.save(recipe(2))
    assert store.load(recipe(1).key) is None
    assert len(caplog.records) == 1
    store.clear()


def test_clearing_leaves_what_is_not_a_recipe(tmp_path):
    store = RecipeStore(tmp_path, 1 << 20)
    store.save(recipe(1))
    (tmp_path / "mine.recipe").write_text("")
    store.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.recipe"]
