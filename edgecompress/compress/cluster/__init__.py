"""Weight clustering: few distinct values in each layer, chosen with calibration data and stored in few bits."""

from edgecompress.compress.cluster.clustering import Clustered, after_training, cluster, goal
from edgecompress.compress.cluster.network import ClusteredLayer

__all__ = ["Clustered", "ClusteredLayer", "after_training", "cluster", "goal"]
