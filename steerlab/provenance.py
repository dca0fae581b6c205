"""Where a vector came from: `Provenance`, a plain record that travels inside every saved vector."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace

from steerlab.errors import SteerlabError


@dataclass(frozen=True)
class Provenance:
    """What a result was computed from. Empty strings mean "not recorded", never "none".

    `data` pairs a data set's name with the SHA-256 of its text, `versions` a package with its version.
    `positions` and `weighting` say which tokens entered the mean and whether tokens or texts count equally.
    """

    model: str = ""
    revision: str = ""
    tokenizer_hash: str = ""
    template_hash: str = ""
    dtype: str = ""
    data: tuple[tuple[str, str], ...] = ()
    method: str = ""
    positions: str = ""
    weighting: str = ""
    seed: int | None = None
    versions: tuple[tuple[str, str], ...] = ()

    def by(self, method: str) -> Provenance:
        """This record with another `method`."""
        return replace(self, method=method)

    def joined(self, other: Provenance, method: str) -> Provenance:
        """The record of a result computed from two others: shared facts stay, the data of both are listed.

        Raises `SteerlabError` when the two come from different models or revisions, whose spaces are not
        comparable.
        """
        for name in ("model", "revision"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine and theirs and mine != theirs:
                raise SteerlabError(
                    f"the vectors come from different models ({name} {mine!r} and {theirs!r}) and their spaces are not comparable: "
                    "fit both on one model and revision."
                )
        shared = {
            f.name: getattr(self, f.name) if getattr(self, f.name) == getattr(other, f.name) else f.default
            for f in fields(self)
        }
        shared["model"] = self.model or other.model
        shared["revision"] = self.revision or other.revision
        shared["data"] = tuple(sorted({*self.data, *other.data}))
        return Provenance(**{**shared, "method": method})

    def check(self, what: str, model: str, revision: str, allow: Collection[str] = ()) -> None:
        """Refuse another model or revision than this record's; `allow` may name "model" and "revision" to
        override them.

        `what` names the thing this record belongs to in the error.
        """
        unknown = set(allow) - {"model", "revision"}
        if unknown:
            raise SteerlabError(
                f"allow={sorted(unknown)} was given: only 'model' and 'revision' can be overridden, width and layers can not."
            )
        for name, mine, theirs in (("model", self.model, model), ("revision", self.revision, revision)):
            if name not in allow and mine != theirs:
                raise SteerlabError(
                    f"{what} was fitted on {name} {mine or 'not recorded'!r}, but {theirs or 'not recorded'!r} is loaded: "
                    f"fit it again, load the {name} it was fitted on, or allow {name!r} if you know that the two share a space."
                )

    def to_json(self) -> dict[str, object]:
        """Plain JSON values; the inverse of `from_json`."""
        record = asdict(self)
        record["data"] = [list(pair) for pair in self.data]
        record["versions"] = [list(pair) for pair in self.versions]
        return record

    @staticmethod
    def from_json(record: object) -> Provenance:
        """Read what `to_json` wrote. Raises `SteerlabError` on unknown or missing fields or values of another
        type.
        """
        names = {f.name for f in fields(Provenance)}
        if not isinstance(record, Mapping) or set(record) != names:
            wrong = ", ".join(sorted(set(record) ^ names)) if isinstance(record, Mapping) else f"it is {record!r}"
            raise SteerlabError(
                f"the provenance record has unknown or missing fields ({wrong}): it was written by another version."
            )
        values = {**record, "data": _pairs(record["data"]), "versions": _pairs(record["versions"])}
        seed = values["seed"]
        texts = [values[n] for n in names - {"data", "versions", "seed"}]
        if not (seed is None or isinstance(seed, int)) or not all(isinstance(text, str) for text in texts):
            raise SteerlabError(
                "the provenance record holds values of the wrong type: it was edited or written by another program."
            )
        return Provenance(**values)  # pyright: ignore[reportArgumentType]  # checked above


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise SteerlabError(
            "the provenance record lists its data or versions wrongly: it was edited or written by another program."
        )
    pairs: list[tuple[str, str]] = []
    for pair in value:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise SteerlabError(
                f"the provenance record holds {pair!r} where a pair of texts was expected: it was edited."
            )
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)
