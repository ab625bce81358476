from edge_cmcl.report.benchmark import is_benchmark, load_benchmark
from edge_cmcl.report.benchmark_page import benchmark_verdict, write_benchmark_page
from edge_cmcl.report.entries import percent
from edge_cmcl.report.fleet_page import fleet_verdict, write_fleet_page
from edge_cmcl.report.page import is_page, write_page
from edge_cmcl.report.results import Comparison, load, save
from edge_cmcl.report.sentences import verdict
from edge_cmcl.report.summary import summaries, write_csv

__all__ = [
    "Comparison",
    "benchmark_verdict",
    "fleet_verdict",
    "is_benchmark",
    "is_page",
    "load",
    "load_benchmark",
    "percent",
    "save",
    "summaries",
    "verdict",
    "write_benchmark_page",
    "write_csv",
    "write_fleet_page",
    "write_page",
]
