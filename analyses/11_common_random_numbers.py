"""How much do common random numbers save when steered texts are compared with unsteered ones?

Two language vectors of polyglot-mini at one layer and six strengths, behind 28 topic prompts that name no language,
English, Indonesian or Slovenian. Each arm and the unsteered model write with the same sampling keys, and the unsteered
model writes once more with other keys: the variance of steered minus unsteered, within prompts, with independent over
that with shared noise, for four outcomes of a text. The ratio is how many times fewer texts give the same precision;
its interval is a bootstrap over prompts. A gap in the figure: with shared noise no difference varied at all.

    python -m analyses.11_common_random_numbers            # about 5 minutes on one busy core
    python -m analyses.11_common_random_numbers --redraw   # from figures/*.csv, without a model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from analyses._bundled import known_vectors, vector_hashes
from analyses._dose import topic_prompts
from analyses._harness import Result, main
from steerlab import data, figures
from steerlab.ablation import grid
from steerlab.ablation.noise import noise_share
from steerlab.generation import Settings
from steerlab.loading import load

NAME = "common_random_numbers"
NAMES = {
    "in_target": "in the target language",
    "tokens": "length in tokens",
    "log_perplexity": "surprise per token",
    "log_probability": "log-probability of the text",
}


@dataclass(frozen=True)
class Config:
    """Strengths are fractions of the layer's mean residual norm."""

    languages: tuple[str, ...] = ("de", "jv")
    layer: int = 2
    strengths: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    named: tuple[str, ...] = ("en", "id", "sl")  # languages prompts name, beside those that name none
    samples: int = 6
    max_new_tokens: int = 40
    seed: int = 1


def compute(config: Config) -> Result:
    """The table of `noise_share`."""
    model, known = load(), known_vectors()
    vectors = {code: known[code] for code in config.languages}
    prompts = [text for named in (None, *config.named) for text in topic_prompts(named)]
    settings = Settings(max_new_tokens=config.max_new_tokens, seed=config.seed)
    arms = grid(vectors, [config.layer], config.strengths)
    found = noise_share(model, arms, prompts, config.samples, settings, targets={c: c for c in vectors}, progress=True)
    table = found.table.rename(columns={"arm": "language"})
    facts = {"prompts": len(prompts), "texts": len(found.texts)}
    return Result({NAME: table}, facts, model.revision, vector_hashes(vectors))


def draw(result: Result) -> Mapping[str, Figure]:
    """The variance ratio by strength and outcome, a panel per vector."""
    table: Any = result.tables[NAME]
    codes = list(dict.fromkeys(table["language"]))
    figure, panels = figures.new(columns=len(codes), height=4.2)
    for axes, code in zip(panels, codes, strict=True):
        own = table[table["language"] == code]
        strengths = sorted(set(own["strength"]))
        shown = own.assign(place=[f"{s:g}" for s in own["strength"]])
        figures.dots(
            axes, shown, place="place", series="measure", order=[f"{s:g}" for s in strengths], series_order=tuple(NAMES), names=NAMES
        )  # fmt: skip
        same = own.groupby("strength")["identical"].first()
        axes.set_xticks(range(len(strengths)), [f"{s:g}\n{same[s] * 100:.0f} %" for s in strengths])
        axes.axhline(1, color="black", lw=0.9)
        axes.axhline(2, color="grey", ls=":", lw=1.2)
        axes.set(yscale="log", ylabel="variance, independent / common noise" if code == codes[0] else "")
        axes.set_xlabel("strength / stream's norm\n(below: texts that stay the same)")
        axes.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axes.set_ylim(0.5, max(20.0, table["high"].max()))
        axes.set_title(data.language(code).name)
    twice: Any = table[table["low"] >= 2]
    weak, strong = min(table["strength"]), max(table["strength"])
    ends = {s: table[table["strength"] == s]["value"] for s in (weak, strong)}
    figure.suptitle(
        f"Shared noise divides the variance by {ends[weak].min():.0f} to {ends[weak].max():.0f} at strength {weak:g},\n"
        f"by {ends[strong].min():.1f} to {ends[strong].max():.1f} at {strong:g}; whole interval above 2 in {len(twice)} of {len(table)} "
        f"cells, up to {twice['strength'].max():g}",
        fontsize=10.5, fontweight="bold", x=0.01, ha="left",
    )  # fmt: skip
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return {NAME: figure}


if __name__ == "__main__":
    main(__doc__, __file__, Config(), compute, draw)
