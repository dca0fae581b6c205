"""The comparison with peers: what is missing is named, ratios are of ratios, and the ways that run here do what hooks do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import timing
from benchmarks.peers import __main__ as peers
from benchmarks.peers import environments, picture, workloads
from benchmarks.peers import subject as subjects
from benchmarks.peers import ways as all_ways
from benchmarks.peers.run import workloads_of
from benchmarks.peers.worker import OURS, Task
from benchmarks.timing import Report
from steerlab import figures

LOAD = workloads.Load(4, 4, 2, (1, 2), 3, 2, 2, 3, 2)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> subjects.Subject:
    folder = tmp_path_factory.mktemp("subject")
    subjects.save(folder, subjects.Size(3, 64, 64))
    return subjects.load(folder)


def test_a_peer_without_its_environment_is_named_with_the_reason(tmp_path: Path) -> None:
    assert environments.missing("hooks", tmp_path) == ""
    assert "is not there: run" in environments.missing("repeng", tmp_path)
    (tmp_path / "repeng").mkdir()
    record = tmp_path / "repeng" / environments.RECORD
    record.write_text(json.dumps({"asked": environments.wanted("repeng"), "error": "pip: no space"}))
    assert environments.missing("repeng", tmp_path) == "pip: no space"
    record.write_text(json.dumps({"asked": ["repeng==0.1"], "error": ""}))
    assert "other versions" in environments.missing("repeng", tmp_path)
    assert all("==" in need for peer in environments.PACKAGES for need in environments.wanted(peer))
    assert not set(environments.ABSENT) & set(environments.PEERS)


@pytest.mark.parametrize("peer", ["ours", "transformer-lens"])
def test_a_way_does_what_hooks_do(peer: str, subject: subjects.Subject) -> None:
    before = subject.write(["w3 w4"], 3)
    found = dict(workloads.checks(subject, all_ways.load(peer, subject), all_ways.load("hooks", subject), LOAD))
    assert found.pop(workloads.CAPTURE) < 1e-5
    assert len(found) == 2 + 4 and not any(found.values())
    assert subject.write(["w3 w4"], 3) == before  # whatever a package does to a model, the plain one stays as it is


def test_hooks_steer_and_rows_differ(subject: subjects.Subject) -> None:
    """The reference itself: steered tokens are others, a batch of different rows is its single runs, and the means are transformers'."""
    hooks = all_ways.load("hooks", subject)
    prompts = subjects.texts(4, 4, 64)
    vectors = 3 * subjects.pushes(4, subject.size)
    assert hooks.write_rows is not None
    rows = hooks.write_rows(prompts, [0, 1, 2, 1], vectors, 6)
    assert rows == [hooks.write([p], at, v, 6)[0] for p, at, v in zip(prompts, [0, 1, 2, 1], vectors, strict=True)]
    assert all(a != b for a, b in zip(rows, subject.write(prompts, 6), strict=True))
    with torch.no_grad():
        states = subject.model(**subject.encode(prompts), output_hidden_states=True).hidden_states
    assert states is not None
    means = torch.stack([h.mean((0, 1)) for h in states[1:-1]])
    assert torch.allclose(hooks.capture(prompts, 2)[:-1], means, atol=1e-5)


def test_who_batches_is_not_asked_to_loop() -> None:
    named = [workloads.CAPTURE, f"sweep, {workloads.LOOP}", f"sweep, {workloads.BATCH}"]
    assert workloads_of(OURS, named) == workloads_of("hooks", named) == [named[0], named[2]]
    assert workloads_of("pyvene", named) == named


def _times() -> dict[tuple[str, str], list[tuple[float, float]]]:
    loop, batch = f"sweep, {workloads.LOOP}", f"sweep, {workloads.BATCH}"
    return {
        (workloads.CAPTURE, OURS): [(2.0, 2.0), (3.0, 2.0), (4.0, 4.0)],
        (batch, OURS): [(2.0, 2.0), (4.0, 2.0), (4.0, 4.0)],
        (workloads.CAPTURE, "repeng"): [(4.0, 2.0), (6.0, 2.0), (9.0, 3.0)],
        (loop, "repeng"): [(16.0, 2.0), (16.0, 2.0), (8.0, 1.0)],
        (batch, "repeng"): [(2.0, 2.0), (2.0, 2.0), (2.0, 2.0)],
    }


def test_peers_are_compared_by_ratios_of_ratios() -> None:
    rows = {(row.case, row.base): row for row in peers.rows_of(_times(), {OURS: True, "repeng": False})}
    assert len(rows) == 5 + 3
    loop = rows[f"repeng: sweep, {workloads.LOOP}", OURS]
    assert (loop.low, loop.ratio, loop.high, loop.target, loop.met) == (4.0, 8.0, 8.0, 5.0, True)
    assert (loop.value, loop.base_value) == (8.0, 1.0)
    hidden = rows[f"repeng: sweep, {workloads.BATCH} (not documented)", OURS]
    assert hidden.ratio == 1.0 and hidden.met is None
    assert rows[f"repeng: {workloads.CAPTURE}", OURS].ratio == 2.0
    plain = rows[f"{OURS}: {workloads.CAPTURE}", peers.PLAIN]
    assert (plain.ratio, plain.high, plain.met, plain.base_value) == (1.0, 1.5, True, 2.0)


def test_the_figure_says_what_was_found(tmp_path: Path) -> None:
    report = Report("?", peers.rows_of(_times(), {OURS: True, "repeng": False}))
    table = peers.table_of([row.to_json() for row in report.rows])
    assert picture.finding(table) == (
        "Many settings at once cost 1.00 to 1.00 times plain text in steerlab,\n8.0 to 8.0 where each is a run of its own"
    )
    figure = picture.draw(table)
    assert [label.get_text() for label in figure.axes[0].get_legend().get_texts()] == [OURS, "repeng"]  # type: ignore[union-attr]
    figures.plt.close(figure)


def test_a_task_survives_the_command_line() -> None:
    task = Task("repeng", "folder", LOAD, 1, ("sweep", "peer"))
    fields = {**vars(task), "load": vars(LOAD)}
    assert Task.parse(json.dumps(fields)) == task


@pytest.mark.slow
def test_a_quick_comparison_writes_what_the_figure_is_drawn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--quick", "--peers", "hooks", "repeng", "--environments", str(tmp_path), "--memory", "0", "--threads", "1"]
    path = timing.main("peers", peers.Config(), peers.QUICK, peers.compare, [*argv, "--out", str(tmp_path)])
    record = json.loads(path.read_text(encoding="utf-8"))
    assert "run python -m benchmarks.peers.environments" in record["facts"]["repeng was left out"]
    assert "aisteer360 was left out" in record["facts"]
    assert {row["base"] for row in record["rows"]} == {OURS, peers.PLAIN}
    off = record["facts"][f"off from hooks by hand, {OURS}"]
    assert off.pop(workloads.CAPTURE) < 1e-5 and not any(off.values())
    table = peers.table_of(record["rows"])
    assert set(table["peer"]) == {OURS, "hooks"} and workloads.CAPTURE in set(table["workload"])
    images = figures.write_images(picture.draw(table), tmp_path, "peers")
    assert all(image.stat().st_size > 5_000 for image in images)
    assert "mean nothing" in capsys.readouterr().out
