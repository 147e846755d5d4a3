"""Plans are complete or absent, and what is wrong with them is found before they are used."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from unittest.mock import Mock

import numpy as np
import pytest

from live2diff_trt.bundle import replaced
from live2diff_trt.bundle.replaced import name_beside, replacing_file
from live2diff_trt.engine.errors import PlanStoreError
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.plan_manifest import MANIFEST_FILE, PlanKey, PlanManifest
from live2diff_trt.engine.store import PlanStore, StoredPlans, generator, record_files
from tests.windows_files import is_possible_name, used_in

KEY = PlanKey("0123456789abcdef" * 4, "tensorrt-rtx", "1.6.1.120", (8, 9), "split", rows=2)
GPU = Gpu("NVIDIA GeForce RTX 4090", (8, 9), "580.65.06")


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "plans")


def fill(folder: Path, key: PlanKey = KEY, content: bytes = b"a plan", **changes: object) -> None:
    """Write the smallest set of plans."""
    (folder / "unet.plan").write_bytes(content)
    np.savez(folder / "kernel_constants.npz", table=np.arange(6.0).reshape(2, 3))
    manifest = PlanManifest(
        key, key.target, {"unet": "unet.plan"}, {"unet": "u"}, record_files(folder), None, None, 1.5, generator()
    )
    (folder / MANIFEST_FILE).write_text(replace(manifest, **changes).to_text())  # type: ignore[arg-type]


def build(store: PlanStore, key: PlanKey = KEY, content: bytes = b"a plan", *, overwrite: bool = False) -> StoredPlans:
    with store.writing(key, replace=overwrite) as folder:
        fill(folder, key, content)
    return store.open(key)


def names(store: PlanStore) -> list[str]:
    return sorted(path.name for path in store.folder(KEY).parent.iterdir())


def test_what_was_written_is_read(store: PlanStore) -> None:
    plans = build(store)
    assert plans.manifest.key == KEY
    assert plans.plan_bytes("unet") == b"a plan"
    assert plans.bytes == sum(path.stat().st_size for path in plans.folder.iterdir() if path.name != MANIFEST_FILE)
    assert (plans.split, plans.arena) == (None, None)
    np.testing.assert_array_equal(plans.constants["table"], [[0, 1, 2], [3, 4, 5]])
    assert names(store) == [KEY.folder_name]
    with pytest.raises(PlanStoreError, match="hold no depth"):
        plans.plan_bytes("depth")


def test_the_place_tells_bundle_flavour_version_gpu_and_options(store: PlanStore) -> None:
    folder = store.folder(KEY)
    assert folder.parent == store.root / "0123456789abcdef"
    assert folder.name.startswith("tensorrt-rtx-1.6.1.120-sm89-")
    others = [
        replace(KEY, form="whole"), replace(KEY, rows=3), replace(KEY, refittable=True), replace(KEY, target=(8, 6)),
        replace(KEY, version="1.7"), replace(KEY, flavour="tensorrt"), replace(KEY, bundle_digest="f" * 64),
    ]  # fmt: skip
    assert len({store.folder(key) for key in [KEY, *others]}) == 8


def test_missing_plans_end_with_the_command_that_builds_them(store: PlanStore) -> None:
    key = replace(KEY, rows=3, refittable=True)
    with pytest.raises(PlanStoreError) as caught:
        store.open(key)
    assert "there are no plans for tensorrt-rtx 1.6.1.120 for sm89, split, 3 rows, refittable" in caught.value.problem
    command = "live2diff-trt build BUNDLE --flavour tensorrt-rtx --form split --rows 3 --target-cc 8.9 --refittable"
    assert command in caught.value.remedy


def test_missing_plans_are_told_with_those_that_exist(store: PlanStore) -> None:
    build(store)
    build(store, replace(KEY, target=(8, 6), form="whole"))
    with pytest.raises(PlanStoreError, match=r"has plans for .*sm86, whole, 2 rows and for .*sm89, split, 2 rows"):
        store.open(replace(KEY, version="1.7.1.5"))
    assert len(store.find(KEY.bundle_digest)) == 2
    assert store.find("f" * 64) == []


def test_plans_of_a_style_lie_beside_the_others_and_are_none_to_stream_with(store: PlanStore) -> None:
    build(store)
    styled = build(store, replace(KEY, style="ab" * 32))
    assert styled.folder.name == f"{KEY.folder_name}-style-{'ab' * 8}"
    assert styled.manifest.key.style == "ab" * 32
    assert styled.store.folder(KEY) == store.folder(KEY)
    assert store.find(KEY.bundle_digest) == [KEY]
    (styled.folder / "unet.plan").unlink()
    with pytest.raises(PlanStoreError, match="can't be read any more") as caught:
        styled.plan_bytes("unet")
    assert caught.value.remedy == "Set the style again: they are then built anew"


def test_another_style_of_the_same_beginning_is_refused(store: PlanStore) -> None:
    build(store, replace(KEY, style="ab" * 32))
    with pytest.raises(PlanStoreError, match=r"the plans in .* are for"):
        store.open(replace(KEY, style="ab" * 31 + "cd"))


def test_a_plan_that_is_not_stored_leaves_the_loaded_one_as_it_is(store: PlanStore) -> None:
    plan, context, runtime = Mock(), Mock(), Mock()
    plan.name = "depth"
    stored = build(store)
    with pytest.raises(PlanStoreError, match="hold no depth"):
        stored.reload_plan(plan, runtime, [context])
    runtime.reload.assert_not_called()
    plan.name = "unet"
    stored.reload_plan(plan, runtime, [context])
    runtime.reload.assert_called_once_with(plan, b"a plan", [context])


def change_text(folder: Path, old: str, new: str) -> None:
    text = (folder / MANIFEST_FILE).read_text()
    assert old in text
    (folder / MANIFEST_FILE).write_text(text.replace(old, new))


def damage(folder: Path, how: str) -> None:
    plan, manifest = folder / "unet.plan", folder / MANIFEST_FILE
    if how == "truncated":
        plan.write_bytes(b"a pl")
    elif how == "flipped":
        plan.write_bytes(b"a plaN")
    elif how == "removed":
        plan.unlink()
    elif how == "edited":
        change_text(folder, '"build_seconds": 1.5', '"build_seconds": 0.5')
    elif how == "torn":
        manifest.write_text(manifest.read_text()[:200])
    elif how == "format":
        change_text(folder, '"format": 3', '"format": 99')
    elif how == "no manifest":
        manifest.unlink()
    elif how == "something else":
        manifest.write_text(json.dumps({"manifest": {"format": 3, "key": 3}}))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("truncated", r"has 4 bytes, its manifest says 6: it is truncated or foreign"),
        ("flipped", r"unet\.plan does not have the hash its manifest records"),
        ("removed", r"the plans lack .*unet\.plan"),
        ("edited", r"it was changed after it was written"),
        ("torn", r"the manifest .*plans\.json can't be used"),
        ("format", r"its format is 99, this version reads 3"),
        ("no manifest", r"there are no plans for"),
        ("something else", r"the manifest .*plans\.json can't be used"),
    ],
)
def test_damage_is_found_and_mended_by_building_again(store: PlanStore, how: str, reason: str) -> None:
    folder = build(store).folder
    damage(folder, how)
    with pytest.raises(PlanStoreError, match=reason) as caught:
        store.open(KEY)
    assert "live2diff-trt build BUNDLE --flavour tensorrt-rtx" in caught.value.remedy
    assert build(store).plan_bytes("unet") == b"a plan"
    assert names(store) == [KEY.folder_name]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(KEY, bundle_digest="0123456789abcdef" + "f" * 48), "are of another bundle"),
        (replace(KEY, version="1.5.0.1"), r"are for tensorrt-rtx 1\.5\.0\.1 .*, not for tensorrt-rtx 1\.6\.1\.120"),
        (replace(KEY, target=(8, 6)), r"for sm86, .*, not for .* for sm89"),
        (replace(KEY, flavour="tensorrt"), r"are for tensorrt 1\.6"),
        (replace(KEY, rows=4), r"4 rows, not for .* 2 rows"),
    ],
)
def test_plans_of_something_else_in_this_place_are_refused(store: PlanStore, other: PlanKey, reason: str) -> None:
    with store.writing(KEY) as folder:
        fill(folder, other)
    with pytest.raises(PlanStoreError, match=reason):
        store.open(KEY)


def test_plans_of_another_release_are_refused(store: PlanStore) -> None:
    with store.writing(KEY) as folder:
        fill(folder, generator="live2diff-trt 0.0.1")
    with pytest.raises(PlanStoreError, match=r"were built by live2diff-trt 0\.0\.1, this is live2diff-trt"):
        store.open(KEY)


def test_a_manifest_that_lists_files_elsewhere_is_refused(store: PlanStore) -> None:
    with store.writing(KEY) as folder:
        fill(folder, plans={"unet": "../../unet.plan"})
    with pytest.raises(PlanStoreError, match="do not agree"):
        store.open(KEY)


def test_a_build_that_fails_leaves_nothing(store: PlanStore) -> None:
    def write_half() -> None:
        with store.writing(KEY) as folder:
            fill(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert names(store) == []


def test_a_build_that_fails_keeps_what_was_there(store: PlanStore) -> None:
    build(store)
    with pytest.raises(ZeroDivisionError), store.writing(KEY, replace=True):
        raise ZeroDivisionError
    assert store.open(KEY).plan_bytes("unet") == b"a plan"


def test_the_first_of_two_builders_stays(store: PlanStore) -> None:
    with store.writing(KEY) as slow:
        fill(slow, content=b"slow")
        with store.writing(KEY) as fast:
            assert fast != slow
            fill(fast, content=b"fast")
        assert store.open(KEY).plan_bytes("unet") == b"fast"
    assert store.open(KEY).plan_bytes("unet") == b"fast"
    assert names(store) == [KEY.folder_name]


def test_overwriting_replaces_valid_plans(store: PlanStore) -> None:
    build(store)
    assert build(store, content=b"new", overwrite=True).plan_bytes("unet") == b"new"
    assert names(store) == [KEY.folder_name]


@pytest.mark.parametrize("overwrite", [False, True])
def test_many_builders_at_once_never_mix(store: PlanStore, overwrite: bool) -> None:
    contents = [bytes([65 + index]) * 1000 for index in range(6)]
    start = threading.Barrier(len(contents))
    found: list[bytes] = []

    def build_one(content: bytes) -> None:
        with store.writing(KEY, replace=overwrite) as folder:
            start.wait()
            fill(folder, content=content)
        found.append(content)

    threads = [threading.Thread(target=build_one, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == contents
    assert store.open(KEY).plan_bytes("unet") in contents
    assert names(store) == [KEY.folder_name]


def test_a_killed_build_is_cleaned_away_after_an_hour(store: PlanStore) -> None:
    parent = store.folder(KEY).parent
    old, young, foreign = (
        parent / f".{name}.partial" for name in (f"{KEY.folder_name}.1-a", f"{KEY.folder_name}.2-b", "other")
    )
    for folder in (old, young, foreign):
        folder.mkdir(parents=True)
        (folder / "unet.plan").write_bytes(b"half")
    long_ago = time.time() - 2 * 3600
    for path in (old / "unet.plan", old, young, foreign / "unet.plan", foreign):
        os.utime(path, (long_ago, long_ago))
    build(store)
    assert names(store) == sorted([young.name, foreign.name, KEY.folder_name])


def test_a_root_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PlanStoreError, match=r"can't be written .*--plans"), PlanStore(tmp_path / "file").writing(KEY):
        raise AssertionError("there is no folder to write to")


def test_the_root_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIVE2DIFF_TRT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert PlanStore().root == tmp_path / "live2diff-trt"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert PlanStore().root == tmp_path / "home" / ".cache" / "live2diff-trt"
    monkeypatch.setenv("LIVE2DIFF_TRT_CACHE", str(tmp_path / "chosen"))
    assert PlanStore().root == tmp_path / "chosen"


def test_facts_are_kept_per_gpu_and_driver(store: PlanStore) -> None:
    plans = build(store)
    facts = plans.facts(GPU)
    assert (facts.load_runtime_caches(), facts.load_measured()) == ({}, {})
    caches = {"one": b"\nkernels\n", "none": b"", "another": b"\0" * 9}
    facts.save_runtime_caches(caches)
    facts.save_measured({"scratch_bytes": {"unet": 12}})
    again = store.open(KEY).facts(GPU)
    assert (again.load_runtime_caches(), again.load_measured()) == (caches, {"scratch_bytes": {"unet": 12}})
    for other in (replace(GPU, driver="590.1"), replace(GPU, name="NVIDIA H100")):
        assert (plans.facts(other).load_runtime_caches(), plans.facts(other).load_measured()) == ({}, {})


@pytest.mark.parametrize("position", [0, 20, -1])
def test_torn_and_changed_facts_are_ignored_with_a_warning(
    store: PlanStore, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    plans = build(store)
    facts = plans.facts(GPU)
    facts.save_runtime_caches({"one": b"kernels"})
    facts.save_measured({"a": 1})
    for path in plans.folder.glob("*.cache"):
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(bytes(content) if position else b"")
    with caplog.at_level(logging.WARNING):
        assert (facts.load_runtime_caches(), facts.load_measured()) == ({}, {})
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    facts.save_runtime_caches({"one": b"new kernels"})
    assert facts.load_runtime_caches() == {"one": b"new kernels"}


def test_facts_that_can_not_be_saved_are_only_a_warning(store: PlanStore, caplog: pytest.LogCaptureFixture) -> None:
    plans = build(store)
    facts = StoredPlans(plans.folder / "unet.plan", plans.manifest).facts(GPU)
    with caplog.at_level(logging.WARNING):
        facts.save_runtime_caches({"one": b"kernels"})
    assert "can't be written" in caplog.text


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced, "RENAME_PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("windows_files")
def test_on_windows_plans_are_stored_found_replaced_and_kept_with_their_facts(store: PlanStore) -> None:
    plans = build(store)
    plans.facts(GPU).save_measured({"a": 1})
    plans.facts(GPU).save_measured({"a": 2})
    assert (plans.plan_bytes("unet"), list(plans.constants)) == (b"a plan", ["table"])
    assert used_in(store.root) == []
    again = build(store, content=b"new", overwrite=True)
    assert (again.plan_bytes("unet"), again.facts(GPU).load_measured()) == (b"new", {})
    with store.writing(KEY) as late:
        fill(late, content=b"late")
    assert store.open(KEY).plan_bytes("unet") == b"new"
    assert names(store) == [KEY.folder_name]


@pytest.mark.usefixtures("windows_files", "impatient")
def test_on_windows_plans_in_use_stay_whole_and_the_error_says_what_to_do(store: PlanStore) -> None:
    plans = build(store)
    with (plans.folder / "unet.plan").open("rb"):
        with pytest.raises(PlanStoreError, match=r"can't be written .*Access is denied.*Close what uses it"):
            build(store, content=b"new", overwrite=True)
        assert store.open(KEY).plan_bytes("unet") == b"a plan"
    assert names(store) == [KEY.folder_name]
    assert build(store, content=b"new", overwrite=True).plan_bytes("unet") == b"new"


@pytest.mark.usefixtures("windows_files", "impatient")
def test_on_windows_a_file_that_the_builder_left_open_is_an_error(store: PlanStore) -> None:
    def build_and_forget(open_files: ExitStack) -> None:
        with store.writing(KEY) as folder:
            fill(folder)
            open_files.enter_context((folder / "unet.plan").open("rb"))

    with ExitStack() as open_files:
        with pytest.raises(PlanStoreError, match="Access is denied"):
            build_and_forget(open_files)
        assert not store.folder(KEY).exists()
    assert store.find(KEY.bundle_digest) == []


@pytest.mark.usefixtures("windows_files")
def test_on_windows_new_plans_wait_for_a_scanner_of_viruses(store: PlanStore) -> None:
    """It opens every file that is new, for a moment, and a build that took minutes is not lost by that."""
    with store.writing(KEY) as folder:
        fill(folder)
        scanned = (folder / "unet.plan").open("rb")
        threading.Timer(0.25, scanned.close).start()
    assert store.open(KEY).plan_bytes("unet") == b"a plan"
    assert names(store) == [KEY.folder_name]


@pytest.mark.usefixtures("windows_files")
@pytest.mark.parametrize("overwrite", [False, True])
def test_on_windows_many_builders_at_once_never_mix(store: PlanStore, overwrite: bool) -> None:
    """They verify each other's plans meanwhile, and so have them open."""
    test_many_builders_at_once_never_mix(store, overwrite)


@pytest.mark.usefixtures("windows_files")
def test_on_windows_facts_that_another_process_reads_are_not_replaced(
    store: PlanStore, caplog: pytest.LogCaptureFixture
) -> None:
    plans = build(store)
    facts = plans.facts(GPU)
    facts.save_measured({"a": 1})
    (path,) = plans.folder.glob("measured-*")
    with path.open("rb"), caplog.at_level(logging.WARNING):
        facts.save_measured({"a": 2})
    assert "can't be written" in caplog.text
    assert facts.load_measured() == {"a": 1}
    assert [one.name for one in plans.folder.iterdir() if one.name.startswith(".")] == []


def test_plans_that_can_not_be_read_are_refused(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where another program may keep a file to itself."""
    build(store)

    def refuse(path: Path) -> str:
        raise PermissionError(13, "The process cannot access the file", str(path))

    monkeypatch.setattr("live2diff_trt.engine.store.hash_file", refuse)
    with pytest.raises(PlanStoreError, match=r"unet\.plan can't be read|kernel_constants\.npz can't be read"):
        store.open(KEY)


def test_paths_of_a_cache_on_windows_are_short_enough(tmp_path: Path) -> None:
    """Without a switch in its registry, Windows takes no path of more than 259 characters."""
    root = PureWindowsPath("C:/Users/somebody.with.a.long.name/AppData/Local/live2diff-trt", "0123456789abcdef")
    gpu = Gpu("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", (12, 0), "580.65.06", f"GPU-{'0' * 36}")
    facts = root / KEY.folder_name / f"runtime_caches-{gpu.card_slug}.cache"
    with replacing_file(tmp_path / facts.name) as scratch:
        scratch.write_bytes(b"")
    styled = replace(KEY, target=(12, 0), style="ab" * 32).folder_name
    plan = root / name_beside(Path(styled), "partial").name / "unet_segment_000.plan"
    paths = [facts, facts.with_name(scratch.name), plan]
    assert all(is_possible_name(part) for path in paths for part in path.parts[1:])
    assert max(len(str(path)) for path in paths) < 260
