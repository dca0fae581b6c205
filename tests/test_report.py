"""The page of a report: whole, escaped, without a request, with every text beside the right one."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from steerlab.errors import SteerlabError
from steerlab.report import charts, gather, write_report
from steerlab.report.pairs import marked, pairs
from tests.reported_run import EVIL, HEBREW, reported_run, sample

VOID = {"meta", "link", "br", "img", "input", "path", "line", "rect"}


class _Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed in its place."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag, f"{tag} is closed out of its place"

    def handle_data(self, data: str) -> None:
        self.inside.setdefault(self.open[-1] if self.open else "", []).append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported_run(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def source(run: Path) -> str:
    out = run.with_name("page.html")
    assert write_report([run], out) == 16
    return out.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_nothing_of_a_run_is_markup(source: str) -> None:
    page = _Page(source)
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") or name == "style" for _, attrs in page.tags for name in attrs)
    assert "alert(1)" in "".join(page.inside["mark"] + page.inside["div"]) and "<script>alert" not in source
    assert source.count(EVIL[:20]) == 0 and "\x00" not in source and "␀" in source
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in source


def test_the_page_asks_for_nothing_and_allows_only_its_own_style_and_script(source: str) -> None:
    page = _Page(source)
    for tag, attrs in page.tags:
        for name in ("src", "href", "action", "srcset", "data", "xlink:href"):
            if name in attrs:
                assert re.match(r"#|data:", attrs[name]), (tag, attrs)
    assert not re.search(r"url\(|@import|https?://", source)
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = page.inside[tag]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_secrets_in_settings_are_hidden(source: str) -> None:
    assert "hf_abc" not in source and "".join(_Page(source).inside["td"]).count("[hidden]") == 2
    assert dict(gather.flat({"max_new_tokens": 8, "a": {"api_key": "x", "token": ""}, "l": [1, 2]})) == {
        "max_new_tokens": "8", "a.api_key": "[hidden]", "a.token": "", "l": "1, 2",
    }  # fmt: skip


def test_texts_say_their_language_and_find_their_own_direction(source: str) -> None:
    texts = [attrs for tag, attrs in _Page(source).tags if tag == "div" and "text" in attrs.get("class", "")]
    assert len(texts) == 32 and all(attrs["dir"] == "auto" for attrs in texts)
    assert {attrs["lang"] for attrs in texts} == {"jv", "he"}
    assert HEBREW in source


def test_every_table_has_a_caption_headings_and_a_way_to_sort(source: str) -> None:
    page = _Page(source)
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == names.count("caption") == 4
    heads = [attrs for tag, attrs in page.tags if tag == "th"]
    assert all(attrs.get("scope") in ("col", "row") for attrs in heads)
    assert {"cost.csv" in text for text in page.inside["caption"]} == {True, False}
    fields = [attrs.get("aria-controls") for tag, attrs in page.tags if tag == "input"]
    tables = [attrs.get("id") for tag, attrs in page.tags if tag == "table"]
    assert set(fields) <= set(tables) and len(fields) == 3
    assert page.tags[names.index("html")][1]["lang"] == "en" and names.count("h1") == 1
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_a_steered_text_stands_beside_the_unsteered_one_of_its_place_and_prompt(run: Path) -> None:
    found = pairs([gather.look(run, "first")])
    assert len(found) == 16
    for pair in found:
        want = "plain nameless" if pair.condition == "steered-nameless" else "plain"
        left = "".join(piece for piece, _ in pair.plain)
        right = "".join(piece for piece, _ in pair.steered)
        assert pair.noise and right.endswith(pair.index)
        assert left.endswith(f"{want} {pair.index}") or "alert" in left
        assert pair.steering == "add 0.6 of the residual norm of language-jv at block 1"


def test_across_runs_the_other_runs_text_stands_beside_and_one_alone_stays_alone(tmp_path: Path) -> None:
    from steerlab.store import RunFolder

    for name, rows in (
        ("a", [sample("jv", "plain", "travel", i, f"plain {i}") for i in range(2)]),
        ("b", [sample("jv", "steered", "travel", 0, "steered", key=["other"])]),
    ):
        with RunFolder.open(tmp_path / name, {"name": name}) as folder:
            folder.append("samples.jsonl", rows, batch="0")
    found = pairs([gather.look(tmp_path / name, name) for name in "ab"])
    assert [(p.run, p.plain, p.steered, p.noise) for p in found] == [
        ("b", [("plain 0", True)], [("steered", True)], False),
        ("a", [("plain 1", False)], [], False),
    ]
    assert gather.look(tmp_path / "a", "a").state == "not finished: 2 texts so far"


def test_the_words_that_differ_are_marked() -> None:
    left, right = marked("the cat sat here", "the dog sat here too")
    assert left == [("the ", False), ("cat", True), (" sat here", False)]
    assert right == [("the ", False), ("dog", True), (" sat here", False), (" too", True)]
    assert marked("", "new") == ([], [("new", False)])
    long = "ก็" * 20
    assert marked(long, long + "ข")[1] == [
        (long, False),
        ("ข", True),
    ]  # a script without spaces: by letters with their marks


def test_marks_stand_where_their_numbers_say(run: Path) -> None:
    found = {chart.metric: chart for chart in charts.charts([gather.look(run, "first")])}
    assert list(found) == ["language_share", "macro_f1", "faithfulness", "log_perplexity"]
    chart = found["macro_f1"]
    scale = {text: x for x, text in chart.ticks}
    assert list(scale) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    for mark in chart.marks:
        plain = "plain" in mark.said
        assert mark.x == pytest.approx((scale["0.2"] + scale["0.4"]) / 2 if plain else scale["0.6"], abs=0.2)
        assert mark.low == pytest.approx(scale["0.2"] if plain else (scale["0.4"] + scale["0.6"]) / 2, abs=0.2)
    assert len({(mark.x, mark.y) for mark in chart.marks}) == 4
    assert max(mark.y for mark in chart.marks) < chart.height
    assert found["faithfulness"].missing[0].startswith("jv · topic") and not found["faithfulness"].marks
    (mark,) = found["log_perplexity"].marks
    assert mark.said == "jv · topic, plain: 5.25 [4, 7.5], n 4"
    assert [text for _, text in found["log_perplexity"].ticks] == ["4", "5", "6", "7", "8"]


@pytest.mark.parametrize(("low", "high"), [(3.0, 3.0), (-2.0, 0.5), (1e-9, 2e-9), (1e6, 3e6), (0.0, 1.0), (5, 7.3)])
def test_an_axis_covers_its_values_in_few_round_steps(low: float, high: float) -> None:
    first, last, step = charts._axis(low, high)
    assert first <= low and last >= high and 1 <= round((last - first) / step) <= 8


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    run = reported_run(tmp_path / "run")
    assert gather.look(run, "run").whole
    (run / "metrics.json").write_text('{"metrics": []}')
    seen = gather.look(run, "run")
    assert not seen.whole and "was changed after the run finished" in seen.state


def test_a_run_that_is_being_written_is_read_up_to_what_counts(tmp_path: Path) -> None:
    run = reported_run(tmp_path / "run", finish=False)
    with (run / "samples.jsonl").open("ab") as file:
        file.write(b'{"text": "half a li')
    seen = gather.look(run, "run")
    assert seen.state == "not finished: 32 texts of 32 so far" and len(seen.parts[0][1]) == 32


def test_at_most_so_many_pairs_are_shown_and_that_is_said(run: Path, tmp_path: Path) -> None:
    assert write_report([run], tmp_path / "p.html", title="<b>Mine", most=5) == 5
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "5 of 16 pairs are shown" in text and "<h1>&lt;b&gt;Mine</h1>" in text


def test_what_is_no_run_gives_one_sentence_and_no_page(run: Path, tmp_path: Path) -> None:
    for runs, because in (([], "0 runs"), ([tmp_path], "holds no run"), ([run, run], "given twice")):
        with pytest.raises(SteerlabError, match=because):
            write_report(runs, tmp_path / "p.html")
    assert not list(tmp_path.iterdir())


def test_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    other = reported_run(tmp_path / run.name)
    write_report([run, other], tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert f"<b>{run.parent.name}/first</b>" in text and f"<b>{tmp_path.name}/first</b>" in text
