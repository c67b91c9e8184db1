"""Weight clustering: few distinct values a layer, chosen with calibration data, that pack into few bits."""
from edgecompress.compress.cluster.clustering import Clustered, cluster
from edgecompress.compress.cluster.network import ClusteredLayer

__all__ = ["Clustered", "ClusteredLayer", "cluster"]
