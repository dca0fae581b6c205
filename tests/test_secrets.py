"""Keys in the environment stay there: no log, configuration, report or run folder holds one."""

from __future__ import annotations

import logging as python_logging
from pathlib import Path

import pytest

from tests.command import QUICK, Command, save_model
from tests.reported_run import reported_run

SECRETS = {
    "HF_TOKEN": "hf_SecretOfTheHubQwertz123",
    "HUGGING_FACE_HUB_TOKEN": "hf_OlderSecretOfTheHub456",
    "NDIF_API_KEY": "ndif-secret-0123456789abcdef",
    "NDIF_KEY": "ndif-other-0123456789abcdef",
    "OPENAI_API_KEY": "sk-secret0123456789abcdefgh",
    "AWS_SECRET_ACCESS_KEY": "aws/secret+0123456789abcdef",
    "MY_PASSWORD": "correct-horse-battery-staple",
}


def _held(data: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret.encode() in data]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    return Command(monkeypatch, capsys)


def test_no_key_of_the_environment_reaches_a_run_a_log_or_a_page(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(python_logging.DEBUG)
    model, run, work = save_model(tmp_path / "model"), tmp_path / "work" / "run", tmp_path / "work"
    (tmp_path / "jv.txt").write_text("aku mangan sega\nkowe turu\n", encoding="utf-8")
    (tmp_path / "su.txt").write_text("abdi tuang sangu\nanjeun bobo\n", encoding="utf-8")
    sides = ("-t", f"jv={tmp_path / 'jv.txt'}", "-t", f"su={tmp_path / 'su.txt'}")
    said = [
        command("vectors", "fit", *sides, "-m", model, "-q", "--out", work / "vectors"),
        command("synthesize", "-l", "jv", "-m", model, "-n", "1", "--vector", work / "vectors" / "language-jv.safetensors",
                "--strength", "0.1", "--out", run, *QUICK),
        command("report", run, "--out", work / "page.html"),
        command("watch", run, "--once"),
        command("dataset", "export", run, "--out", work / "data"),
        command("reproduce", run, "-q"),
    ]  # fmt: skip
    assert [one.code for one in said] == [0] * len(said), said
    refused = [
        command("vectors", "pull", "nobody/nothing", "--out", work / "pulled"),
        command("synthesize", "-l", "jv", "-m", "nobody/nothing", "--out", work / "other", *QUICK),
        command("synthesize", "-l", "jv", "--engine", "ndif", "--out", work / "ndif", *QUICK),
    ]
    assert {one.code for one in refused} == {2}, refused
    for one in (*said, *refused):
        assert not _held((one.out + one.err).encode())
    assert not _held(caplog.text.encode())
    files = [path for path in work.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert {path: _held(path.read_bytes()) for path in files if _held(path.read_bytes())} == {}


def test_a_key_that_stands_in_a_configuration_is_hidden_on_the_page(command: Command, tmp_path: Path) -> None:
    run = reported_run(tmp_path / "run", key=SECRETS["HF_TOKEN"], nested={"api_key": SECRETS["NDIF_API_KEY"]})
    assert command("report", run, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_bytes()
    assert not _held(page) and page.count(b"[hidden]") >= 2


def test_a_key_would_be_found(tmp_path: Path) -> None:
    assert _held(f"x {SECRETS['HF_TOKEN']} y".encode()) == ["HF_TOKEN"]
