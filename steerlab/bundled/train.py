"""Train polyglot-mini from scratch: `make model` (CPU), or on a GPU with
`--device cuda`.

Steps, so that the second needs nothing but torch and transformers: `prepare` writes the tokenizer and packed
token batches, `fit` trains on them, `average` mixes the weights of two runs of which the second started from the
first. The schedule ends at `--tokens` or at `--minutes`, whichever comes first; with `--tokens` alone and one
thread the run is reproducible on one machine. `make model` is the whole recipe.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from steerlab.bundled.config import TrainConfig


def model_config(c: TrainConfig) -> LlamaConfig:
    """The Llama shape: tied embeddings, grouped-query attention."""
    return LlamaConfig(
        vocab_size=c.vocab, hidden_size=c.d_model, intermediate_size=c.mlp, num_hidden_layers=c.layers, num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads, max_position_embeddings=c.context, tie_word_embeddings=True, rms_norm_eps=1e-5,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip


def visible(document: Tensor) -> Tensor:
    """Attention mask (b 1 s s): causal, and only within one document. Padding sees itself, so that no row of
    the softmax is empty.
    """
    same = document[:, None, :, None] == document[:, None, None, :]
    causal = torch.ones(document.shape[1], document.shape[1], dtype=torch.bool, device=document.device).tril()
    return same & causal


def positions(document: Tensor) -> Tensor:
    """Position ids (b s) that start again at 0 with every document."""
    index = torch.arange(document.shape[1], device=document.device).expand_as(document)
    start = torch.ones_like(document, dtype=torch.bool)
    start[:, 1:] = document[:, 1:] != document[:, :-1]
    return index - torch.cummax(torch.where(start, index, 0), dim=1).values


def loss_of(
    model: LlamaForCausalLM, backbone: object, batch: Tensor, bf16: bool, places: int = 0
) -> tuple[Tensor, int]:
    """Summed cross-entropy in nats over the answer tokens of `batch` (3 b s), each as often as its weight there says, and the sum of
    the weights. Logits are made for those tokens only.

    `places` pads their number to a constant, so that every step allocates the same sizes: freshly mapped memory
    costs more than the padding.
    """
    ids, document, weight = batch[0].long(), batch[1], batch[2, :, 1:].reshape(-1)
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=bf16):
        hidden = backbone(
            input_ids=ids, attention_mask=visible(document), position_ids=positions(document), use_cache=False
        )  # type: ignore[operator]
        hidden = hidden.last_hidden_state
        wanted = weight.nonzero()[:, 0]
        n = int(wanted.numel())
        answer, weight = ids[:, 1:].reshape(-1)[wanted], weight[wanted]
        if places > n:
            wanted = torch.nn.functional.pad(wanted, (0, places - n))
            answer, weight = (torch.nn.functional.pad(own, (0, places - n)) for own in (answer, weight))
        picked = hidden[:, :-1].reshape(-1, hidden.shape[-1])[wanted]
        logits = model.lm_head(picked)
    nats = torch.nn.functional.cross_entropy(logits.float(), answer, reduction="none")
    return nats @ weight.float(), int(weight.sum())


def optimizers(model: LlamaForCausalLM, c: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms."""
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers." in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers." in n)]
    muon = torch.optim.Muon(inside, lr=c.muon_lr, weight_decay=c.weight_decay, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=c.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    for o in (muon, adam):
        for group in o.param_groups:
            group["base"] = group["lr"]
    return [muon, adam]


def rate(step: int, progress: float, c: TrainConfig) -> float:
    """Share of the peak learning rate: linear warm-up, constant, then linear to zero over the last `cooldown`
    of the run.
    """
    return min(1.0, (step + 1) / c.warmup_steps) * min(1.0, max(0.0, (1.0 - progress) / c.cooldown))


def bits_per_byte(model: LlamaForCausalLM, held: dict[str, list[list[int]]], size: dict[str, int]) -> dict[str, float]:
    """Held-out bits per UTF-8 byte of bare text (BOS + text + EOS) per language."""
    result = {}
    device = next(model.parameters()).device
    model.eval()
    for code, texts in held.items():
        nats, length = 0.0, max(len(t) for t in texts)
        for at in range(0, len(texts), 33):
            part = texts[at : at + 33]
            batch = torch.zeros(3, len(part), length, dtype=torch.int32, device=device)
            for r, ids in enumerate(part):
                batch[0, r, : len(ids)] = torch.tensor(ids)
                batch[1, r, : len(ids)] = 1
                batch[2, r, 1 : len(ids)] = 1
            with torch.no_grad():
                nats += float(loss_of(model, model.model, batch, bf16=False)[0])
        result[code] = nats / math.log(2) / size[code]
    model.train()
    return result


def fit(packed: Path, out: Path, c: TrainConfig) -> None:
    """Train on the batches under `packed` and write weights (bfloat16 safetensors), config and `training.json`
    to `out`.
    """
    torch.manual_seed(c.seed)
    stream = np.load(packed / "batches.npy", mmap_mode="r")
    held = json.loads((packed / "heldout.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    model = _start(c)
    backbone = torch.compile(model.model, dynamic=False) if c.compile else model.model
    opts = optimizers(model, c)
    places = _most_answers(stream, c)
    began, tokens, step, curve, running = time.time(), 0, 0, [], 0.0
    last_report = began

    def measure() -> None:
        bpb = bits_per_byte(model, held["ids"], held["bytes"])
        minutes = (time.time() - began) / 60
        curve.append({"step": step, "tokens": tokens, "minutes": minutes, "loss": running, "bits_per_byte": bpb})
        print("bits per byte " + " ".join(f"{k} {v:.3f}" for k, v in bpb.items()), flush=True)
        save(model, out, c, curve, tokens, step)

    for index in _cycle(len(stream)):
        progress = max(tokens / c.tokens, (time.time() - began) / 60 / c.minutes)
        if progress >= 1:
            break
        batch = torch.from_numpy(np.asarray(stream[index]).astype(np.int32)).to(c.device)
        loss, n = loss_of(model, backbone, batch, bf16=True, places=places)
        (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in opts:
            for group in o.param_groups:
                group["lr"] = group["base"] * rate(step, progress, c)
            o.step()
            o.zero_grad(set_to_none=True)
        tokens += int((batch[1] > 0).sum())
        step += 1
        if c.device == "cpu" or step % 50 == 0:
            value = float(loss.detach()) / n
            running = 0.98 * running + 0.02 * value if running else value
        if step % 50 == 0:
            print(
                f"step {step} tokens {tokens / 1e6:.2f}M loss {running:.3f} progress {progress:.3f} "
                f"{tokens / (time.time() - began):.0f} tok/s",
                flush=True,
            )
        if time.time() - last_report > 480 or step == 200:
            measure()
            last_report = time.time()
    measure()


def _start(c: TrainConfig) -> Any:
    """The weights training starts from: those of `c.start`, or random ones."""
    model: Any = LlamaForCausalLM(model_config(c))
    model.to(c.device)
    if c.start:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(c.start, dtype=torch.float32).state_dict())
        return model
    for name, p in model.named_parameters():
        if name.endswith(
            ("o_proj.weight", "down_proj.weight")
        ):  # residual writers start small: GPT-2's 1/sqrt(2 layers)
            p.data.mul_((2 * c.layers) ** -0.5)
    return model


def _most_answers(stream: np.ndarray, c: TrainConfig) -> int:
    """Most tokens to predict in any batch of the stream (n 3 rows length)."""
    parts = (stream[at : at + 256, 2].reshape(-1, c.rows * c.length) for at in range(0, len(stream), 256))
    return int(max((part > 0).sum(1).max() for part in parts))


def _cycle(n: int) -> Iterator[int]:
    while True:
        yield from range(n)


def save(model: LlamaForCausalLM, out: Path, c: TrainConfig, curve: list[dict], tokens: int, step: int) -> None:
    """Write the weights in bfloat16, the model config, and the training record."""
    state = {k: v.detach().to("cpu", torch.bfloat16, copy=True) for k, v in model.state_dict().items()}
    config = model_config(c)
    config.dtype = torch.bfloat16
    fresh: Any = LlamaForCausalLM(config)
    fresh.to(torch.bfloat16)
    fresh.load_state_dict(state)
    fresh.save_pretrained(out)
    parameters = sum(p.numel() for p in model.parameters())
    record = {"parameters": parameters, "config": asdict(c), "tokens": tokens, "steps": step, "curve": curve}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def average(first: Path, second: Path, share: float, out: Path) -> None:
    """Weights `(1 - share) first + share second`, where `second` was trained on from `first` (Wortsman et al. 2022, arXiv 2203.05482).

    On 14 MB of text the second run learns the tasks and also begins to know its texts by heart; the mean keeps the first and loses
    much of the second.
    """
    parts = [LlamaForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (first, second)]
    records = [json.loads((path / "training.json").read_text(encoding="utf-8")) for path in (first, second)]
    model, start = parts[1], parts[0].state_dict()
    model.load_state_dict({k: (1 - share) * start[k] + share * v for k, v in parts[1].state_dict().items()})
    c = TrainConfig(**{**records[1]["config"], "start": "an earlier run of the same recipe"})
    before = records[0]
    for point in records[1]["curve"]:
        point["tokens"] += before["tokens"]
        point["step"] += before["steps"]
        point["minutes"] += before["curve"][-1]["minutes"]
    save(
        model, out, c, before["curve"] + records[1]["curve"], *(before[k] + records[1][k] for k in ("tokens", "steps"))
    )
    record = json.loads((out / "training.json").read_text(encoding="utf-8"))
    record["average"] = {"share_of_second": share, "tokens": [r["tokens"] for r in records]}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, packed: Path) -> None:
    """Add the held-out bits per byte of a folder's weights to its training record: an average has no curve of its own."""
    held = json.loads((packed / "heldout.json").read_text(encoding="utf-8"))
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    record["bits_per_byte"] = bits_per_byte(model, held["ids"], held["bytes"])
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def add_options(parser: argparse.ArgumentParser, c: TrainConfig) -> None:
    """Every field of the config as an option, its value as the default."""
    for field, value in asdict(c).items():
        kind = (lambda s: s.lower() in ("1", "true", "yes")) if isinstance(value, bool) else type(value)
        parser.add_argument(f"--{field.replace('_', '-')}", type=kind, default=value)


def main() -> None:
    """Command line: every field of `TrainConfig` is an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="local data folder (default: STEERLAB_DATA)")
    parser.add_argument("--packed", type=Path, default=Path("runs/polyglot-mini/packed"))
    parser.add_argument("--out", type=Path, default=Path("runs/polyglot-mini/model"))
    parser.add_argument("--step", choices=("all", "prepare", "fit", "average", "tokenizer"), default="all")
    parser.add_argument("--first", type=Path, default=Path("runs/polyglot-mini/first"), help="average: the earlier run")
    parser.add_argument("--second", type=Path, default=Path("runs/polyglot-mini/second"), help="average: the later run")
    parser.add_argument("--share", type=float, default=0.7, help="average: share of the later run")
    parser.add_argument(
        "--prepare-tokens",
        type=int,
        default=40_000_000,
        help="tokens to pack; training walks over them again if it needs more",
    )
    add_options(parser, TrainConfig())
    given = vars(parser.parse_args())
    c = TrainConfig(**{k: given[k] for k in asdict(TrainConfig())})
    from steerlab.bundled import prepare  # needs the data layer; `fit` alone does not

    if given["step"] in ("all", "prepare"):
        prepare.prepare(given["data"], given["packed"], given["prepare_tokens"], c)
    if given["step"] in ("all", "fit"):
        fit(given["packed"], given["out"], c)
    if given["step"] == "average":
        average(given["first"], given["second"], given["share"], given["out"])
        measure(given["out"], given["packed"])
    if given["step"] in ("all", "average", "tokenizer"):
        prepare.write_tokenizer(given["packed"], given["out"])


if __name__ == "__main__":
    main()
