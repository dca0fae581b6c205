"""Texts go around through the pivots and come back beside their originals, counted, and the same after any interruption."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steerlab import store
from steerlab.backtranslation import BackTranslation, Made, Texts, back_translate, distinct, read_pairs
from steerlab.data.contrast import corrupt_tokens
from steerlab.data.surface import normalise_surface
from steerlab.errors import SteerlabError
from steerlab.store import read_rows
from steerlab.translation import Translation, Translator, load_translator
from tests.seq2seq import TEXTS, nllb, plain, save_translator
from tests.small_run import content

SETTINGS = BackTranslation("sl", batch_rows=4, max_new_tokens=12)
USED = distinct(TEXTS, [f"s-{i}" for i in range(len(TEXTS))])


def around(out: Path, settings: BackTranslation = SETTINGS, texts: Texts = USED, **changes: Any) -> Made:
    return back_translate([changes.pop("translator", nllb())], texts, settings, out, progress=False, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("back") / "run"
    around(out)
    return out


def test_every_hop_is_the_models_own_and_corrupted_in_between(whole: Path) -> None:
    rows = {row["id"]: row for row in read_rows(whole / "pairs.jsonl")}
    assert len(rows) > len(TEXTS) // 2
    translator = nllb()
    for number, text in enumerate(TEXTS):
        hops: list[dict[str, str]] = []
        now = text
        for hop, (a, b) in enumerate((("slv_Latn", "deu_Latn"), ("deu_Latn", "zho_Hans"), ("zho_Hans", "slv_Latn"))):
            now = " ".join(translator.translate([now], a, b, max_new_tokens=12)[0].split())
            hops.append({"language": b, "text": now})
            if not now:
                break
            if hop < 2:
                now = hops[-1]["corrupted"] = corrupt_tokens(now, 0.3, 0, f"s-{number}\x1f{hop}")
        row = rows.get(f"s-{number}")
        if row is None:
            assert not now or normalise_surface(now) == normalise_surface(text)
        else:
            assert row == {
                "id": f"s-{number}",
                "human": text,
                "degraded": now,
                "source": "backtranslated",
                "hops": hops,
            }
    corrupted = [hop for row in rows.values() for hop in row["hops"][:-1]]
    assert any(hop["text"] != hop["corrupted"] for hop in corrupted)
    assert all("corrupted" not in row["hops"][-1] for row in rows.values())


def test_the_summary_says_what_was_done(whole: Path) -> None:
    store.verify(whole)
    found = json.loads((whole / "summary.json").read_text())
    assert found["route"] == [["slv_Latn", "deu_Latn"], ["deu_Latn", "zho_Hans"], ["zho_Hans", "slv_Latn"]]
    assert found["models"] == [{"model": "tiny-nllb", "revision": nllb().revision, "dtype": "float32"}]
    assert (found["rate"], found["seed"], found["beams"], found["source"]) == (0.3, 0, 1, "backtranslated")
    assert found["texts"] == {"count": len(TEXTS), "sha256": USED.sha256}
    pairs = read_pairs(whole)
    assert found["pairs_sha256"] == pairs.sha256 and found["counts"]["kept"] == len(pairs)
    by_id = dict(zip(USED.ids, USED.texts, strict=True))
    assert all(pair.human == by_id[pair.id] and pair.degraded not in ("", pair.human) for pair in pairs)
    assert [pair.id for pair in pairs] == sorted(pair.id for pair in pairs)  # in the order the texts were given


@pytest.mark.parametrize("batch_rows", [1, 32])
def test_batches_do_not_change_pairs(whole: Path, tmp_path: Path, batch_rows: int) -> None:
    settings = BackTranslation("sl", batch_rows=batch_rows, max_new_tokens=12)
    found = around(tmp_path / "run", settings).pairs
    assert found.pairs == read_pairs(whole).pairs and found.dropped == len(TEXTS) - len(found)
    backwards = distinct(TEXTS[::-1], USED.ids[::-1])
    found = around(tmp_path / "back", settings, backwards).pairs
    assert found.pairs == read_pairs(whole).pairs[::-1]


def test_seed_and_rate_change_what_comes_back(whole: Path, tmp_path: Path) -> None:
    base = {pair.id: pair.degraded for pair in read_pairs(whole)}
    others = {
        "seed": replace(SETTINGS, seed=1),
        "rate": replace(SETTINGS, rate=0.0),
        "pivot": replace(SETTINGS, pivots=("eng_Latn",)),
    }
    for name, settings in others.items():
        other = around(tmp_path / name, settings).pairs
        assert {pair.id: pair.degraded for pair in other} != base, name
    rows = read_rows(tmp_path / "rate" / "pairs.jsonl")
    assert all(hop["corrupted"] == hop["text"] for row in rows for hop in row["hops"][:-1])


class Scripted(Translator):
    """Says what a script says: text -> what every hop makes of it."""

    script: dict[str, str]

    def run(self, texts: Any, source: str, target: str, **options: Any) -> list[Translation]:
        return [Translation(str(self.script.get(t, t)), 3, not t.startswith("endless")) for t in texts]


def scripted(**script: str) -> Scripted:
    own = nllb()
    made = Scripted("scripted", "0", own.hf, own.tokenizer, own.style, own.codes)
    object.__setattr__(made, "script", {key.replace("_", " "): value for key, value in script.items()})
    return made


def test_every_text_is_counted_once(tmp_path: Path) -> None:
    texts = ["Voda teče.", "pes", "pes ", "„Pes“!", "", "...", "mačka", "gone", "endless song", "a" * 70, "last one"]
    ids = [str(i) for i in range(len(texts))]
    translator = scripted(gone="", mačka="maček", **{"Voda_teče.": "voda teče"})
    settings = BackTranslation("sl", rate=0.0, max_new_tokens=8)
    made = around(tmp_path / "run", settings, distinct(texts, ids, limit=6), translator=translator)
    assert made.counts == {
        "given": 11,
        "empty": 2,
        "duplicates": 2,
        "beyond_limit": 1,
        "empty_translation": 1,
        "identical": 1,
        "identical_surface": 1,
        "kept": 1,
        "too_long": 1,
        "unended": 1,
    }
    assert sum(n for why, n in made.counts.items() if why != "given") == 11
    assert [(pair.id, pair.human, pair.degraded) for pair in made.pairs] == [("6", "mačka", "maček")]


def test_texts_are_used_once_in_order_with_ids() -> None:
    found = distinct(["b  c", "„B c“", " ", "a", "d"], limit=2)
    assert (found.ids, found.texts) == (("text-0", "text-3"), ("b c", "a"))
    assert found.counts == {"given": 5, "empty": 1, "duplicates": 1, "beyond_limit": 1}
    assert found.sha256 != distinct(["b c", "a"], ["x", "y"]).sha256
    with pytest.raises(SteerlabError, match="2 texts and 1 different ids"):
        distinct(["a", "b"], ["x", "x"])
    with pytest.raises(SteerlabError, match="none holds a word"):
        distinct(["...", ""])
    with pytest.raises(SteerlabError, match="the limit is 0"):
        distinct(["a"], limit=0)


def test_a_model_per_hop_goes_around_without_codes(tmp_path: Path) -> None:
    out, home = plain(0), plain(1)
    settings = BackTranslation("sl", ("en",), rate=0.0, max_new_tokens=12)
    found = back_translate([out, home], USED, settings, tmp_path / "run", progress=False)
    for pair in found.pairs:
        there = out.translate([pair.human], "", "", max_new_tokens=12)
        assert pair.degraded == " ".join(home.translate(there, "", "", max_new_tokens=12)[0].split())
    assert len(found.pairs) > len(TEXTS) // 2
    with pytest.raises(SteerlabError, match="3 models were given for 2 translations"):
        back_translate([out] * 3, USED, settings, tmp_path / "more", progress=False)


def test_what_cannot_be_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(SteerlabError, match="tiny-nllb has no language 'fra_Latn'"):
        around(out, BackTranslation("sl", ("fra_Latn",), max_new_tokens=12))
    with pytest.raises(SteerlabError, match="max_new_tokens is 256 and tiny-nllb has 64 positions"):
        around(out, BackTranslation("sl"))
    with pytest.raises(SteerlabError, match="no pivot language"):
        BackTranslation("sl", ())
    with pytest.raises(SteerlabError, match="corruption rate 1.5"):
        BackTranslation("sl", rate=1.5)
    with pytest.raises(SteerlabError, match="beams is 0"):
        BackTranslation("sl", beams=0)
    assert not out.exists()


def test_another_configuration_is_refused_and_the_same_one_changes_nothing(whole: Path) -> None:
    before = content(whole)
    around(whole)
    assert content(whole) == before
    with pytest.raises(SteerlabError, match="another configuration .*seed is 0 there, 1 now"):
        around(whole, BackTranslation("sl", batch_rows=4, max_new_tokens=12, seed=1))
    assert content(whole) == before


def test_interrupted_between_any_two_batches_it_ends_with_the_same_bytes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Translator.run, 0

    def stopping(self: Translator, *given: Any, **options: Any) -> list[Translation]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(self, *given, **options)

    monkeypatch.setattr(Translator, "run", stopping)
    stops = Counter[bool]()
    for calls in (0, 2, 3, 4, 7):
        out = tmp_path / str(calls)
        left = calls
        with pytest.raises(KeyboardInterrupt):
            around(out)
        assert not (out / store.MANIFEST).exists()
        stops[(out / "translations.jsonl").exists()] += 1
        left = 9 - calls // 3 * 3  # three hops for each of three batches, and not one of a finished batch again
        around(out)
        assert left == 0 and content(out) == content(whole)
    assert stops[True] and stops[False]


def test_pairs_are_read_from_a_file_and_bad_ones_refused(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"human": "voda teče", "degraded": "voda tečejo"}\n{"human": "a", "degraded": "a"}\n')
    found = read_pairs(file)
    assert (found[0].id, found[0].source, found.dropped) == ("own-1", "own", 1)
    file.write_text('{"human": "voda", "worse": "vode"}\n')
    with pytest.raises(SteerlabError, match="row 1 of .* has no text as 'degraded' .it has human, worse."):
        read_pairs(file)
    file.write_text("")
    with pytest.raises(SteerlabError, match="holds no pairs"):
        read_pairs(file)
    with pytest.raises(SteerlabError, match="does not exist"):
        read_pairs(tmp_path / "none.jsonl")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in content(whole).items():
        (copy / name).write_bytes(data)
    assert read_pairs(copy).pairs == read_pairs(whole).pairs
    (copy / "pairs.jsonl").write_bytes(content(whole)["pairs.jsonl"].replace(b"voda", b"vode"))
    with pytest.raises(SteerlabError, match=r"pairs.jsonl was changed after the run finished"):
        read_pairs(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(SteerlabError, match="no finished run"):
        read_pairs(copy)


_WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.test_backtranslation import write
write(sys.argv[2], sys.argv[3])
"""


def write(model: str, out: str) -> None:
    """Twelve batches of two texts through a saved model."""
    texts = distinct([f"voda {'je mrzla ' * (i % 5)}{chr(97 + i % 8)} {i}" for i in range(24)])
    settings = BackTranslation("sl", batch_rows=2, max_new_tokens=20)
    back_translate([load_translator(model, device="cpu")], texts, settings, out, progress=False)


@pytest.mark.slow
def test_killed_at_random_moments_and_repeated_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    model = save_translator(tmp_path / "model")
    write(str(model), str(tmp_path / "whole"))
    wanted, draw = content(tmp_path / "whole"), random.Random(3)
    killed, rows = tmp_path / "killed", tmp_path / "killed" / "translations.jsonl"
    moments = sorted(draw.randrange(len(wanted["translations.jsonl"]) * 3 // 4) for _ in range(2))
    command = [sys.executable, "-c", _WRITER, str(Path(store.__file__).parents[1]), str(model), str(killed)]
    for moment in moments:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while not rows.exists() or rows.stat().st_size <= moment:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert not (killed / store.MANIFEST).exists()
    write(str(model), str(killed))
    assert content(killed) == wanted
    store.verify(killed)
