"""The vectors that ship with polyglot-mini: what they are fitted on, how to load them, and the command that
fits them again.

`python -m steerlab.bundled.vectors --data DIR` reads the "vectors" splits, which the model was not trained on:
NTREX (news, ten languages) and NusaX (reviews; Javanese and Sundanese, tied to NTREX through Indonesian and
English), and the Slovene back-translation pairs.
"""

from __future__ import annotations

import argparse
import json
from importlib import resources
from pathlib import Path

from steerlab import data
from steerlab.bundled.corpus import LANGUAGES
from steerlab.fitting import fit_contrast_vector, fit_language_vectors
from steerlab.loading import load
from steerlab.model import TracedModel
from steerlab.vectors import SteeringVector
from steerlab.vectorset import load_set, save_set

RATE = 0.3  # share of corrupted tokens, as between the hops of the paper's back-translation


def bundled_vectors() -> dict[str, SteeringVector]:
    """Language vectors ("language-jv", ...) and quality vectors ("quality-jv", ...,
    "quality-sl-backtranslated") of polyglot-mini.
    """
    return load_set(Path(str(resources.files("steerlab.bundled"))) / "vectors")


def vector_texts(root: Path | None = None) -> dict[str, dict[str, list[str]]]:
    """corpus -> language -> texts the bundled vectors are fitted on."""
    ntrex = {
        c: list(data.load("ntrex", c, split="vectors", root=root).texts) for c in LANGUAGES if c not in ("jv", "su")
    }
    nusax = {c: list(data.load("nusax-mt", c, split="vectors", root=root).texts) for c in ("id", "en", "jv", "su")}
    return {"ntrex": ntrex, "nusax": nusax}


def fit(model: TracedModel, root: Path | None = None) -> dict[str, SteeringVector]:
    """Fit every bundled vector: twelve language vectors, twelve quality vectors against corrupted text, one
    against back-translation.
    """
    texts = vector_texts(root)
    found = {vector.name: vector for vector in fit_language_vectors(model, texts, progress=True).values()}
    for code in LANGUAGES:
        own = texts["nusax" if code in ("jv", "su") else "ntrex"][code]
        pairs = data.degraded_pairs(own, rate=RATE, seed=0)
        name = f"quality-{code}"
        found[name] = fit_contrast_vector(model, pairs.human, pairs.degraded, name=name, kind="quality")
    pairs = data.load_pairs(root=root, hops=2, split="vectors")
    name = "quality-sl-backtranslated"
    found[name] = fit_contrast_vector(model, pairs.human, pairs.degraded, name=name, kind="quality")
    return found


def main() -> None:
    """Fit the vectors on the bundled model and replace the ones in the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="local data folder (default: STEERLAB_DATA)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "vectors")
    given = parser.parse_args()
    vectors = fit(load("polyglot-mini"), given.data)
    save_set(vectors, given.out)
    texts = {
        f"vectors {corpus} {code}": own for corpus, by in vector_texts(given.data).items() for code, own in by.items()
    }
    samples = {f"sample {code}": list(data.load("sample", code).texts) for code in LANGUAGES}
    report = data.overlap_report({**texts, **samples})
    kept = [o for o in report.overlaps if o.first.startswith("vectors") and o.second.startswith("sample")]
    facts = {"vector_texts": sum(map(len, texts.values())), "sample_texts": sum(map(len, samples.values()))}
    facts |= {"exact": sum(o.exact for o in kept), "near": sum(o.near for o in kept)}
    (given.out / "leakage.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"{len(vectors)} vectors in {given.out}")


if __name__ == "__main__":
    main()
