"""Weight clustering: few distinct values a layer, chosen with calibration data, that pack into few bits."""

from edgecompress.compress.cluster.clustering import Clustered, after_training, cluster, goal
from edgecompress.compress.cluster.network import ClusteredLayer

__all__ = ["Clustered", "ClusteredLayer", "after_training", "cluster", "goal"]
