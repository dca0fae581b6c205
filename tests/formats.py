"""Which files of other programs are read and written, and the version each was tried with.

`python -m tests.formats` runs the tests named here with whatever packages are there and writes benchmarks/results/formats.csv.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "formats.csv"
COLUMNS = ("program", "file", "read", "written", "package", "version", "passed", "skipped", "failed", "what")


@dataclass(frozen=True)
class Format:
    """A format, the package it was tried with, what was seen, and the tests that saw it."""

    program: str
    file: str
    read: str
    written: str
    package: str
    what: str
    tests: tuple[str, ...]


EXCHANGE, PEERS = "tests/test_interop_exchange.py", "tests/test_interop_peers.py"
FORMATS = (
    Format(
        "llama.cpp", "GGUF, architecture `controlvector`, float32 `direction.N`", "yes", "yes, N from 1", "gguf",
        "the reader of llama.cpp's package sees the names, types and shapes that llama.cpp asks for",
        (f"{EXCHANGE}::test_a_control_vector_is_named_and_typed_as_llama_cpp_wants_it",),
    ),
    Format(
        "repeng", "the same; pickled `ControlVector`", "yes", "yes, N from 1", "repeng",
        "its `ControlModel` gives the logits of our own edit; its files are read (`numpy.float_`, gone from numpy 2, is put back for it)",
        (f"{PEERS}::test_repeng_steers_alike_and_its_files_are_read",),
    ),
    Format(
        "EasySteer", "the same with its record, block 0 allowed; one row in a `.pt`", "yes", "yes", "gguf",
        "no package of it can be installed without its own build of vLLM; files follow its source",
        (f"{EXCHANGE}::test_block_0_can_not_be_a_control_vector_of_llama_cpp_and_can_be_easysteers",),
    ),
    Format(
        "steering-vectors", "`torch.save` of its `SteeringVector`, or of its fields", "yes", "its fields", "steering-vectors",
        "its `apply` gives the logits of our own edit; its pickled object is read",
        (f"{PEERS}::test_steering_vectors_steers_alike_and_its_files_are_read",),
    ),
    Format(
        "lm-evaluation-harness", "`.pt` by hookpoint for `--model steered`", "yes, `add` and `clamp`", "yes, `add`", "lm-eval",
        "its `SteeredModel` gives the logits of our own edit; its clamp is our match",
        (f"{PEERS}::test_lm_evaluation_harness_steers_alike", f"{EXCHANGE}::test_the_clamp_of_lm_eval_is_a_match_of_the_projection"),
    ),
    Format(
        "lm-evaluation-harness, tasks", "`SteeredLM`, a model of the harness", "-", "yes", "lm-eval",
        "unsteered it scores and writes what `hf` does, with `add` what `steered` does; tasks of a local file run from end to end",
        ("tests/test_interop_harness.py", "tests/test_harness_command.py"),
    ),
    Format(
        "scikit-learn", "`LinearProbe`, a classifier", "-", "yes", "scikit-learn",
        "its `check_estimator` passes for every kind; pipelines, cross-validation and searches, with groups",
        ("tests/test_probes_estimator.py",),
    ),
    Format(
        "sentence-transformers", "folders of its models", "yes", "no", "sentence-transformers",
        "embeddings equal those of its own `encode`; nothing is fetched", ("tests/test_evaluation_embeddings.py",),
    ),
    Format(
        "PEFT", "LoRA adapters", "yes, `steerlab.load(adapter=...)`", "yes, `steerlab expert train`", "peft", "logits equal",
        (f"{PEERS}::test_peft_reads_an_adapter_that_was_attached_here",),
    ),
    Format(
        "scripts of papers", "pickles of protocols 2 to 5", "yes, without running them", "no", "torch",
        "plain values, arrays and tensors come back; what would be called is refused by name",
        ("tests/test_interop_plain_pickle.py",),
    ),
    Format(
        "NumPy, safetensors", "`.npy`, `.npz`, `.safetensors` of plain arrays", "yes", "no", "numpy", "rows and layers come back",
        (f"{EXCHANGE}::test_arrays_and_plain_safetensors_are_read",),
    ),
    Format(
        "Hugging Face hub", "a folder of our own vector files with a card", "yes, at one commit", "yes", "huggingface_hub",
        "against a folder in place of the hub", ("tests/test_interop_hub.py",),
    ),
    Format(
        "datasets", "parquet files with a card, one configuration per task and language", "-", "yes", "datasets",
        "`load_dataset` gives the texts, labels and splits that were written",
        ("tests/test_dataset.py::test_a_data_set_loads_as_it_was_written",),
    ),
    Format(
        "llama2.c", "checkpoints and tokenizers, into a Hugging Face folder", "yes", "no", "transformers",
        "logits and tokens equal those of our own NumPy version of it; stories260K writes its story", ("tests/test_interop_llama2c.py",),
    ),
)  # fmt: skip


class _Seen:
    """How each test ended, by the part of its name that was asked for."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.ends.append((report.nodeid, report.outcome))


def row(one: Format, ends: Counter[str]) -> dict[str, str]:
    """The format's line of the table, with the version of the package that is here."""
    try:
        version = importlib.metadata.version(one.package)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    facts = {"program": one.program, "file": one.file, "read": one.read, "written": one.written, "package": one.package}
    return {
        **facts,
        "version": version,
        **{name: str(ends[name]) for name in ("passed", "skipped", "failed")},
        "what": one.what,
    }


def main() -> None:
    """Run the tests, write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", default="", help="one program; the lines of the others stay as they are")
    only = parser.parse_args().only
    chosen = [one for one in FORMATS if only in ("", one.program)]
    kept: dict[str, dict[str, str]] = {}
    if only:
        with TABLE.open(encoding="utf-8", newline="") as file:
            kept = {line["program"]: line for line in csv.DictReader(file)}
    seen = _Seen()
    asked = list(dict.fromkeys(name for one in chosen for name in one.tests))
    pytest.main(
        ["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *(str(ROOT / name) for name in asked)], plugins=[seen]
    )
    for one in chosen:
        kept[one.program] = row(one, Counter(end for name, end in seen.ends if name.startswith(one.tests)))
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept[one.program] for one in FORMATS)


if __name__ == "__main__":
    main()
