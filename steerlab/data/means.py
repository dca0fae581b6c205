"""Means of a model's activations per language that others have published.

One safetensors file, one "layers x width" tensor a language.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from steerlab.data.corpus import SourceCard
from steerlab.data.reading import data_root
from steerlab.errors import SteerlabError
from steerlab.estimators import language_vectors
from steerlab.moments import Moments
from steerlab.provenance import Provenance
from steerlab.types import Site
from steerlab.vectors import SteeringVector

CLAS = SourceCard(
    "clas-llama31-8b",
    "https://github.com/d-gurgurov/CLaS-Bench",
    None,
    "Apache-2.0",
    "CLaS-Bench, arXiv 2601.08331: means of Llama-3.1-8B-Instruct on about 10M CulturaX tokens per language",
)
CLAS_FILE = "clas_llama31_8b/language_means.safetensors"


def clas_path(root: Path | str | None = None) -> Path:
    """The file of CLaS-Bench's means below the data folder.

    There is no download: the authors publish pickles, which this package does not open.
    """
    return data_root(root) / CLAS_FILE


def read_means(path: Path | str) -> dict[str, Float[Tensor, "l d"]]:
    """language -> its mean after every block, by language code.

    Raises `SteerlabError` when the file is missing, not safetensors, or holds tensors that are not of one "layers x
    width" shape and finite.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            means = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        what = "there is no such file" if not path.is_file() else f"it is not readable as safetensors ({error})"
        raise SteerlabError(f"the language means {path} can not be read: {what}.") from error
    shapes = {tuple(tensor.shape) for tensor in means.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise SteerlabError(
            f"{path} holds tensors of shapes {sorted(shapes)}: one tensor of layers x width per language is needed."
        )
    bad = [
        name
        for name, tensor in means.items()
        if not tensor.is_floating_point() or not bool(tensor.double().isfinite().all())  # float8 has no isfinite
    ]
    if bad:
        raise SteerlabError(f"the means of {', '.join(bad)} in {path} are not finite numbers: get the file again.")
    return means


def mean_vectors(path: Path | str) -> dict[str, SteeringVector]:
    """Language vectors of the means in a file: each language's mean minus the mean of the others' means, per layer.

    Row i of a tensor is the output of block i. Counts and residual norms are not known from means and are not recorded.
    """
    means = read_means(path)
    with safe_open(Path(path), framework="pt") as file:
        model = (file.metadata() or {}).get("model", "")
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return language_vectors(
        {code: _known_by_mean(mean.double()) for code, mean in means.items()},
        provenance=Provenance(model=model, data=((Path(path).name, digest),)),
    )


def _known_by_mean(mean: Float[Tensor, "l d"]) -> Moments:
    layers = len(mean)
    return Moments(
        sites=tuple(Site(layer) for layer in range(layers)),
        count=torch.zeros(layers, dtype=torch.float64),
        mean=mean,
        variance=torch.full_like(mean, float("nan")),
        norm=torch.full((layers,), float("nan"), dtype=torch.float64),
    )
