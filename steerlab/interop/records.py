"""Classes of other packages that vectors are pickled as, each stood in for by a class that only holds their fields."""

from __future__ import annotations


class Record:
    """The fields of an instance of another package's class. None of that package's code is there."""


class SteeringVectorsRecord(Record):
    """Of steering-vectors: `layer_activations` by block, and the `layer_type` they are added to."""


class ControlVectorRecord(Record):
    """Of repeng and EasySteer: `directions` by block; EasySteer's have a `method` too."""


CLASSES: dict[str, type[Record]] = {
    "steering_vectors.steering_vector.SteeringVector": SteeringVectorsRecord,
    "repeng.extract.ControlVector": ControlVectorRecord,
    "easysteer.extraction.result.StatisticalControlVector": ControlVectorRecord,
    "easysteer.steer.utils.StatisticalControlVector": ControlVectorRecord,
}
