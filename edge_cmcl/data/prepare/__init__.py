from edge_cmcl.data.prepare.catalogue import catalogue
from edge_cmcl.data.prepare.recipe import DatasetInfo
from edge_cmcl.data.prepare.run import PreparedFile, PrepareReport, prepare

__all__ = ["DatasetInfo", "PrepareReport", "PreparedFile", "catalogue", "prepare"]
