from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steerlab import store
from steerlab.errors import SteerlabError
from steerlab.store import RunFolder, read_config, read_rows, verify
from tests.small_run import CONFIG, content, work


def test_rows_tables_and_reports_come_back(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        run.append("samples.jsonl", [{"n": np.int64(1)}, {"n": 2}])
        run.append("samples.jsonl", [{"n": 3}])
        assert run.read("samples.jsonl") == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert run.read("others.jsonl") == []
        run.write_text("report.md", "# Číslo\n")
        run.write_table("tables/a.csv", pd.DataFrame({"x": [1.5, float("nan")], "y": ["a", "b"]}))
        assert run.config == CONFIG
        assert not run.finished
    assert (tmp_path / "run" / "report.md").read_text(encoding="utf-8") == "# Číslo\n"
    assert (tmp_path / "run" / "tables" / "a.csv").read_text() == "x,y\n1.5,a\n,b\n"
    assert read_config(tmp_path / "run") == CONFIG
    assert [row["n"] for row in read_rows(tmp_path / "run" / "samples.jsonl")] == [1, 2, 3]


def test_the_manifest_covers_every_file_and_comes_last(tmp_path: Path) -> None:
    folder = work(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == {"config.json", "batches.jsonl", "samples.jsonl", "metrics.json"}
    assert manifest["config_key"] == store.config_key(CONFIG)
    verify(folder)
    with RunFolder.open(folder, CONFIG) as run:
        assert run.finished
        run.verify()
        run.write_text("later.md", "more")
        assert not run.finished
        with pytest.raises(SteerlabError, match="no finished run"):
            run.verify()
        run.finish()
        run.verify()


def test_a_finished_run_done_again_is_the_same_to_the_byte(tmp_path: Path) -> None:
    first = content(work(tmp_path / "a"))
    assert content(work(tmp_path / "b")) == first
    assert content(work(tmp_path / "a")) == first


@pytest.mark.parametrize("name", ["samples.jsonl", "config.json", "metrics.json"])
def test_verify_names_a_changed_or_missing_file(tmp_path: Path, name: str) -> None:
    folder = work(tmp_path / "run")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-2] + b" \n")
    with pytest.raises(SteerlabError, match=f"{name} was changed"):
        verify(folder)
    (folder / name).unlink()
    with pytest.raises(SteerlabError, match=f"{name} is missing"):
        verify(folder)
    (folder / name).write_bytes(data)
    verify(folder)


def test_verify_refuses_a_manifest_that_names_nothing(tmp_path: Path) -> None:
    folder = work(tmp_path / "run")
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(SteerlabError, match="is not what was written there"):
        verify(folder)


def test_another_configuration_is_refused_and_the_fields_are_named(tmp_path: Path) -> None:
    folder = work(tmp_path / "run")
    before = content(folder)
    other = {**CONFIG, "seed": 2, "sampling": {"top_p": 0.9, "temperature": 1.0}}
    with pytest.raises(SteerlabError, match=r"sampling\.temperature is 0\.8 there, 1\.0 now; seed is 1") as caught:
        RunFolder.open(folder, other)
    assert "give another folder" in str(caught.value)
    assert "top_p" not in str(caught.value)
    with pytest.raises(SteerlabError, match="and 1 more"):
        RunFolder.open(folder, {"new": 1})
    assert content(folder) == before
    RunFolder.open(folder, dict(reversed(CONFIG.items()))).close()  # order is not content


def test_without_resume_an_existing_run_is_refused(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "run", CONFIG, resume=False).close()
    with pytest.raises(SteerlabError, match="already holds a run"):
        RunFolder.open(tmp_path / "run", CONFIG, resume=False)
    RunFolder.open(tmp_path / "run", CONFIG).close()


def test_a_folder_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path / "run", CONFIG),
        pytest.raises(SteerlabError, match="is being written by another process"),
    ):
        RunFolder.open(tmp_path / "run", CONFIG)
    run = RunFolder.open(tmp_path / "run", CONFIG)
    run.close()
    run.close()
    with pytest.raises(SteerlabError, match="is closed"):
        run.append("samples.jsonl", [{}])


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunFolder.open(tmp_path / "run", CONFIG):
        raise KeyError
    with pytest.raises(SteerlabError, match="another configuration"):
        RunFolder.open(tmp_path / "run", {})
    RunFolder.open(tmp_path / "run", CONFIG).close()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SteerlabError, match="holds files but no run"):
        RunFolder.open(tmp_path, CONFIG)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_path_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SteerlabError, match="a file stands in the way: give another folder"):
            RunFolder.open(path, CONFIG)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def denied(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", denied)  # tests may run as root, whom no mode bit stops
    with pytest.raises(SteerlabError, match="cannot be written .*give another folder"):
        RunFolder.open(tmp_path / "run", CONFIG)


def test_a_batch_may_be_empty_and_counts_once(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        run.append("samples.jsonl", [], batch="none")
        with pytest.raises(SteerlabError, match="'none' of samples.jsonl is complete already"):
            run.append("samples.jsonl", [{"n": 1}], batch="none")
        run.append("rejected.jsonl", [{"n": 1}], batch="none")
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        assert run.completed_batches() == run.completed_batches("rejected.jsonl") == {"none"}
        assert run.read("samples.jsonl") == []


def test_rows_changed_by_another_hand_are_named(tmp_path: Path) -> None:
    folder = work(tmp_path / "run")
    file, data = folder / "samples.jsonl", (folder / "samples.jsonl").read_bytes()
    lines = data.split(b"\n")
    lines[4] = lines[4][:-3]
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(SteerlabError, match=r"line 5 of .*samples\.jsonl is not a JSON object"):
        RunFolder.open(folder, CONFIG)
    with pytest.raises(SteerlabError, match="line 5 of"):
        read_rows(file)
    file.write_bytes(data.replace(b'"1-1"', b'"9-9"'))
    with pytest.raises(SteerlabError, match=r"lines 4 to 6 of .*samples\.jsonl are not what was written"):
        RunFolder.open(folder, CONFIG)
    file.unlink()
    with pytest.raises(SteerlabError, match="lines 1 to 3 of"):
        RunFolder.open(folder, CONFIG)
    file.write_bytes(data)
    RunFolder.open(folder, CONFIG).close()


def test_a_damaged_log_or_config_is_named(tmp_path: Path) -> None:
    folder = work(tmp_path / "run")
    log = (folder / "batches.jsonl").read_bytes()
    (folder / "batches.jsonl").write_bytes(b"{}\n" + log)
    with pytest.raises(SteerlabError, match=r"line 1 of .*batches\.jsonl"):
        RunFolder.open(folder, CONFIG)
    (folder / "batches.jsonl").write_bytes(log)
    (folder / "config.json").write_bytes(b"{")
    with pytest.raises(SteerlabError, match=r"config\.json is not a JSON object"):
        RunFolder.open(folder, CONFIG)


@pytest.mark.parametrize("name", ["../a.jsonl", "/a.jsonl", ".a.jsonl", "", "a.txt", "batches.jsonl"])
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        before = content(run.path)
        with pytest.raises(SteerlabError, match="cannot be a file of a run|kept by the run folder"):
            run.append(name, [{}])
        with pytest.raises(SteerlabError, match="kept by the run folder"):
            run.write_text("manifest.json", "{}")
        assert content(run.path) == before


def test_row_files_and_other_files_do_not_mix(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        run.append("samples.jsonl", [{"n": 1}])
        with pytest.raises(SteerlabError, match="is a row file of this run"):
            run.write_text("samples.jsonl", "")
        run.write_text("mine.jsonl", '{"n": 1}\n')
        with pytest.raises(SteerlabError, match="was not appended to by this run"):
            run.append("mine.jsonl", [{"n": 2}])
        assert run.read("mine.jsonl") == [{"n": 1}]


def test_a_row_that_cannot_be_stored_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", CONFIG) as run:
        run.append("samples.jsonl", [{"n": 1}])
        before = content(run.path)
        with pytest.raises(SteerlabError, match="infinite"):
            run.append("samples.jsonl", [{"n": 2}, {"n": float("inf")}])
        assert content(run.path) == before


@pytest.mark.parametrize("reader", [read_config, verify])
def test_reading_a_folder_without_a_run(tmp_path: Path, reader: object) -> None:
    assert callable(reader)
    with pytest.raises(SteerlabError, match="holds no"):
        reader(tmp_path)
    with pytest.raises(SteerlabError, match="does not exist"):
        read_rows(tmp_path / "samples.jsonl")
