"""`steerlab vectors import|export|push|pull`: files of other programs in and out, one sentence for what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steerlab.commands import exchange
from steerlab.errors import SteerlabError
from steerlab.interop import torch_file as files
from steerlab.vectorset import load_set, save_set
from tests.command import Command, save_model
from tests.made import made_vector


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_vectors_go_out_and_come_back(command: Command, tmp_path: Path) -> None:
    save_set({"jv": made_vector(1), "su": made_vector(2)}, tmp_path / "mine")
    out = tmp_path / "jv.pt"
    said = command(
        "vectors", "export", tmp_path / "mine", "--key", "jv", "--format", "lm-eval", "--layers", "2,5", "--out", out
    )
    assert said.code == 0 and f"v1 at layers 2, 5 as lm-eval: {out}" in said.out
    said = command("vectors", "import", out, "--out", tmp_path / "back")
    assert said.code == 0 and "1 vectors of a model that is not recorded" in said.out
    back = load_set(tmp_path / "back")["jv"]
    torch.testing.assert_close(back.raw(5), made_vector(1).raw(5))
    command.refused(
        "vectors", "export", tmp_path / "mine", "--format", "gguf", "--out", out, because="choose one with --key"
    )
    command.refused("vectors", "import", out, "--out", tmp_path / "x", "--texts", out, because="name it with --model")
    command.refused("vectors", "import", tmp_path / "none.pt", "--out", tmp_path / "x", because="there is no file")
    assert not (tmp_path / "x").exists()


def test_names_that_are_no_file_names_become_some(tmp_path: Path) -> None:
    files.write(
        tmp_path / "v.pt", {"ja vanese": torch.ones(2, 3), "ja/vanese": torch.eye(2, 3), "..": torch.ones(1, 3)}
    )
    keys, _ = exchange.bring(tmp_path / "v.pt", tmp_path / "out", "", False, "", None, "text")
    assert keys == ["ja-vanese", "ja-vanese-2", "vector"]


def test_an_imported_vector_steers_its_model(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    (tmp_path / "some.txt").write_text("hello there\nabc\n")
    files.write(tmp_path / "v.pt", {"jv": torch.randn(4, 32, generator=torch.Generator().manual_seed(0))})
    exchange.bring(tmp_path / "v.pt", tmp_path / "out", "", False, str(model), tmp_path / "some.txt", "text")
    vector = load_set(tmp_path / "out")["jv"]
    assert vector.provenance.model == str(model) and vector.norm_at(2) > 0


@pytest.mark.parametrize(("text", "want"), [("", ()), ("3", (3,)), ("0-2, 9", (0, 1, 2, 9))])
def test_layers_are_written_as_people_write_them(text: str, want: tuple[int, ...]) -> None:
    assert exchange.layers_of(text) == want


@pytest.mark.parametrize("text", ["a", "1-", "-1", "1..3", "0-99999"])
def test_layers_that_can_not_be_read_are_refused(text: str) -> None:
    with pytest.raises(SteerlabError, match="layers"):
        exchange.layers_of(text)
