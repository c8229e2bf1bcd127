"""Dealer, parties and clients as processes: keys, cluster files, links, and the command line."""

import logging

from parties.client.async_client import AsyncClient
from parties.client.auditing import AuditEntry
from parties.client.explanation import Explanation
from parties.client.mixing import mixed
from parties.client.prepared import PreparedRun
from parties.client.progress import Progress as TrainingProgress
from parties.client.queries import ModelEntry
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel
from parties.client.report import RunReport, StockReport
from parties.client.request_entries import RequestEntry
from parties.client.sync import Client
from parties.client.training import Training
from parties.client.training_job import TrainingJob
from parties.client.writing import Kept
from parties.local.local_cluster import LocalCluster
from parties.local.memory_cluster import MemoryCluster
from parties.members.cluster import Cluster
from parties.members.cluster_file import Settings
from parties.members.keys import KeyPair
from parties.stored.data_set import DataSet

__all__ = [
    "AsyncClient",
    "AuditEntry",
    "Client",
    "Cluster",
    "DataSet",
    "Explanation",
    "Kept",
    "KeyPair",
    "LocalCluster",
    "MemoryCluster",
    "ModelEntry",
    "PreparedRun",
    "RemoteData",
    "RemoteModel",
    "RequestEntry",
    "RunReport",
    "Settings",
    "StockReport",
    "Training",
    "TrainingJob",
    "TrainingProgress",
    "mixed",
]

# Python prints warnings of which nobody has said where they go: what servers of a cluster in memory note would stand
# between what a script prints.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __dir__() -> list[str]:
    return __all__
