"""Dealer, parties and clients as processes: keys, cluster files, links, and the command line."""

from parties.client import AsyncClient
from parties.cluster import Cluster, Settings
from parties.keys import KeyPair
from parties.local import LocalCluster
from parties.models.data import DataSet, RemoteData
from parties.models.queries import ModelEntry
from parties.models.remote import RemoteModel
from parties.prepared import PreparedRun
from parties.report import RunReport, StockReport
from parties.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Cluster",
    "DataSet",
    "KeyPair",
    "LocalCluster",
    "ModelEntry",
    "PreparedRun",
    "RemoteData",
    "RemoteModel",
    "RunReport",
    "Settings",
    "StockReport",
]
