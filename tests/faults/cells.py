"""What is done to a command, and what counts as survived: the bytes there are without the fault, or a sentence and then those bytes."""

from __future__ import annotations

import gc
import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from steerlab.model import TracedModel
from steerlab.store import LOCK
from tests.faults.commands import Job
from tests.faults.disk import Fault
from tests.faults.running import Before, Outcome, Running, clock_back, run, set_locale

BUSY = "is being written by another process"
OPENED = 5  # by that change of the disk a run folder is locked
HOLD = 3.0  # seconds a second process may wait for the first one, which stands still


@dataclass(frozen=True)
class Row:
    """One cell of the table: how often a fault was injected into a command, how often nothing was lost, and what was lost else."""

    command: str
    fault: str
    injected: int
    survived: int
    lost: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Subject:
    """A command, its undisturbed result, and room to disturb it in."""

    def __init__(self, job: Job, place: Path) -> None:
        self.job, self.place = job, place
        self.slug = job.name.replace(" ", "-")
        self.number = 0

    @cached_property
    def whole(self) -> tuple[dict[str, bytes], Outcome]:
        """The files of a run that nothing disturbed, and how it went."""
        out = self.folder()
        done = run(self.job.at(out), out)
        assert done.code == 0, f"{self.job.name} fails without a fault: {done.err}"
        return files(out), done

    def folder(self) -> Path:
        """A folder of its own for every trial, always of the same name."""
        self.number += 1
        return self.place / "runs" / self.slug / str(self.number) / "out"

    def draw(self, fault: str) -> random.Random:
        """The random moments of one cell."""
        return random.Random(zlib.crc32(f"{self.job.name}/{fault}".encode()))

    def again(self, out: Path) -> str:
        """Repeat the command and compare; "" where the bytes are those of the undisturbed run."""
        done = run(self.job.at(out), out)
        if done.code != 0:
            return f"the same command then ended with {done.code}: {done.err[-400:]}"
        return differs(files(out), self.whole[0])


def files(out: Path) -> dict[str, bytes]:
    """Every file of a folder that is meant to be seen, with its bytes."""
    kept = (path for path in out.rglob("*") if path.is_file() and path.name != LOCK)
    named = {path.relative_to(out).as_posix(): path for path in kept}
    return {name: path.read_bytes() for name, path in sorted(named.items()) if not hidden(name)}


def hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden."""
    return any(part.startswith(".") for part in name.split("/"))


def differs(found: dict[str, bytes], wanted: dict[str, bytes]) -> str:
    """What is not as it was."""
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    other = [name for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    told = {"missing": missing, "not asked for": extra, "other bytes": other}
    return "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in told.items() if names)


Trial = Iterator[str]  # "" for every fault that was survived, else what was lost


def kills(subject: Subject) -> Trial:
    """SIGKILL at a random change of the disk, with a part of a write done, and at a random time."""
    draw, (_, whole) = subject.draw("kill"), subject.whole
    for _ in range(3):
        out = subject.folder()
        fault = Fault("kill", draw.randint(1, whole.operations), draw.random())
        yield _stopped(run(subject.job.at(out), out, fault), -9) or subject.again(out)
    out = subject.folder()
    running = Running(subject.job.at(out), out, Fault())
    running.ended(draw.uniform(0.0, whole.seconds))
    running.kill()
    running.wait()
    yield subject.again(out)


def cuts(subject: Subject) -> Trial:
    """The power goes: what was not flushed is lost, and the last new names may be."""
    draw, (_, whole) = subject.draw("cut"), subject.whole
    for _ in range(3):
        out = subject.folder()
        fault = Fault("cut", draw.randint(1, whole.operations), draw.random(), draw.randrange(1000))
        yield _stopped(run(subject.job.at(out), out, fault), -9) or subject.again(out)


def interrupts(subject: Subject) -> Trial:
    """SIGINT at a random change of the disk."""
    draw, (_, whole) = subject.draw("interrupt"), subject.whole
    out = subject.folder()
    said = run(subject.job.at(out), out, Fault("interrupt", draw.randint(1, whole.operations)))
    clear = said.code == 130 and said.err == "steerlab: interrupted; the same command continues where it stopped.\n"
    yield ("" if clear else f"ended with {said.code}: {said.err[-400:]}") or subject.again(out)


def full_disks(subject: Subject) -> Trial:
    """No room for another byte from a random write on."""
    draw, (_, whole) = subject.draw("full"), subject.whole
    for _ in range(2):
        out = subject.folder()
        fault = Fault("full", draw.randint(1, whole.operations), draw.random())
        said = run(subject.job.at(out), out, fault)
        late = said.code == 0  # there was nothing left to write
        clear = late or (said.clear and "space" in said.err)
        yield ("" if clear else f"ended with {said.code}: {said.err[-400:]}") or subject.again(out)


def read_only(subject: Subject) -> Trial:
    """A folder that may not be written: a new one, and one with a finished run, which stays as it was."""
    out = subject.folder()
    said = run(subject.job.at(out), out, Fault("denied", 1))
    yield ("" if said.clear else f"ended with {said.code}: {said.err[-400:]}") or subject.again(out)
    said = run(subject.job.at(out), out, Fault("denied", 1))
    kept = differs(files(out), subject.whole[0])
    yield kept if said.clear or said.code == 0 else f"ended with {said.code}: {said.err[-400:]}"


def damaged(subject: Subject) -> Trial:
    """A byte of every kind of file is flipped, or the file cut: noticed and refused, or made again."""
    draw, (whole, _) = subject.draw("damage"), subject.whole
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in whole:
        parts = Path(name)
        kinds.setdefault((parts.parts[0] if len(parts.parts) > 1 else parts.stem, parts.suffix), []).append(name)
    first = subject.folder()
    run(subject.job.at(first), first)
    for names in kinds.values():
        name, cut = draw.choice(names), draw.random() < 0.4
        out = subject.folder()
        shutil.copytree(first, out)
        data = bytearray(whole[name])
        if not data:
            continue
        at = draw.randrange(len(data))
        data[at] ^= 1 << draw.randrange(8)
        (out / name).write_bytes(data[:at] if cut else data)
        yield _noticed(subject, out, name, f"{'cut at' if cut else 'flipped'} byte {at} of {name}")


def _noticed(subject: Subject, out: Path, name: str, what: str) -> str:
    """A refusal that names the file, or at least its run, or the bytes there should be."""
    said = run(subject.job.at(out), out)
    if said.code == 0:
        wrong = differs(files(out), subject.whole[0])
        return wrong and f"{what}: {wrong}"
    named = name in said.err or Path(name).name in said.err or str(out) in said.err
    return "" if said.clear and named else f"{what}: ended with {said.code}: {said.err[-400:]}"


def two_at_once(subject: Subject) -> Trial:
    """A second process on the same folder while the first stands still in the middle: turned away with a sentence where a run is one
    process's own, else both end well; and the files are the same.
    """
    draw, (_, whole) = subject.draw("two"), subject.whole
    for _ in range(2):
        for moment in (
            draw.randint(OPENED, whole.operations),
            OPENED,
        ):  # with workers there is less for the first to do at times
            out = subject.folder()
            first = Running(subject.job.at(out), out, Fault("pause", moment))
            if first.paused():
                break
            first.wait()
        else:
            yield "the first did not come to its moment"
            continue
        second = Running(subject.job.at(out), out, Fault())
        second.ended(HOLD)
        first.go()
        ends = [first.wait(), second.wait()]
        wrong = [end for end in ends if end.code != 0 and not (end.clear and BUSY in end.err)]
        if wrong or ends[0].code or (ends[1].code == 0 and not subject.job.shared):
            yield f"they ended with {[end.code for end in ends]}: {[end.err[-300:] for end in ends]}"
            continue
        yield differs(files(out), subject.whole[0])


def clocks(subject: Subject) -> Trial:
    """The clock is set back ten years in the middle of the work."""
    draw, (_, whole) = subject.draw("clock"), subject.whole
    out = subject.folder()
    run(subject.job.at(out), out, Fault("kill", draw.randint(1, whole.operations)))
    done = run(subject.job.at(out), out, before=clock_back)
    yield differs(files(out), subject.whole[0]) if done.code == 0 else f"ended with {done.code}: {done.err[-400:]}"


def locales(subject: Subject) -> Trial:
    """Begun in one locale and continued in another: plain C, and Turkish with its own letters and decimal comma."""
    draw, (_, whole) = subject.draw("locale"), subject.whole
    names = ["C", *(["tr_TR"] if turkish(subject.place) else [])]
    for name in names:
        out = subject.folder()
        run(subject.job.at(out), out, Fault("kill", draw.randint(1, whole.operations)))
        done = run(subject.job.at(out), out, before=set_locale(name))
        yield differs(files(out), subject.whole[0]) if done.code == 0 else f"ended with {done.code}: {done.err[-400:]}"


def turkish(place: Path) -> bool:
    """Make the Turkish locale in a folder of ours, where the system has the parts of it."""
    folder = place / "locales"
    os.environ["LOCPATH"] = str(folder)
    if shutil.which("localedef") is None:
        return False
    if not (folder / "tr_TR").is_dir():
        folder.mkdir(exist_ok=True)
        words = ["localedef", "-i", "tr_TR", "-f", "ISO-8859-9", str(folder / "tr_TR")]
        subprocess.run(words, capture_output=True, check=False)
    return (folder / "tr_TR").is_dir()


def broken_models(subject: Subject) -> Trial:
    """A weight is NaN, and one infinite: refused, with the layer and the text where activations are read. Nothing where no traced model
    works.
    """
    for value in (torch.nan, torch.inf) if subject.job.traced else ():
        out = subject.folder()
        said = run(subject.job.at(out), out, before=_with_weight(value))
        named = not subject.job.reads or ("layer" in said.err and "text" in said.err)
        yield ("" if said.clear and named else f"ended with {said.code}: {said.err[-400:]}") or subject.again(out)


def _with_weight(value: float) -> Before:
    """Every model of the process gets this weight in its second block."""

    def change() -> None:
        models = [one for one in gc.get_objects() if type(one) is TracedModel]
        assert models
        for model in models:
            with torch.no_grad():
                model.hf.get_decoder().layers[1].mlp.down_proj.weight[0, 0] = value

    return change


def _stopped(said: Outcome, code: int) -> str:
    return "" if said.code == code else f"ended with {said.code} and not {code}: {said.err[-400:]}"


FAULTS: dict[str, Callable[[Subject], Trial]] = {
    "killed": kills,
    "power cut": cuts,
    "interrupted": interrupts,
    "full disk": full_disks,
    "read-only folder": read_only,
    "damaged file": damaged,
    "two at once": two_at_once,
    "clock set back": clocks,
    "other locale": locales,
    "NaN in the model": broken_models,
}


def cell(subject: Subject, fault: str) -> Row:
    """Inject one kind of fault into one command."""
    found = list(FAULTS[fault](subject))
    shutil.rmtree(subject.place / "runs" / subject.slug, ignore_errors=True)
    lost = tuple(one for one in found if one)
    return Row(subject.job.name, fault, len(found), len(found) - len(lost), lost)
