"""hwnas: one supernet, and per target device a Pareto archive of real models.

Every public name is listed here and imported on first use, so that ``import hwnas`` and ``hwnas --help`` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwnas.archive import Archive as Archive
    from hwnas.archive import Evaluation as Evaluation
    from hwnas.data import AugmentConfig as AugmentConfig
    from hwnas.data import DataConfig as DataConfig
    from hwnas.data import Dataset as Dataset
    from hwnas.data import DatasetSplit as DatasetSplit
    from hwnas.data import ImageSet as ImageSet
    from hwnas.data import Splits as Splits
    from hwnas.data import as_input as as_input
    from hwnas.data import load_data as load_data
    from hwnas.data.left_out import LeftOut as LeftOut
    from hwnas.data.look import DataSummary as DataSummary
    from hwnas.data.source import Opened as Opened
    from hwnas.data.source import Source as Source
    from hwnas.errors import ArgumentError as ArgumentError
    from hwnas.errors import CheckpointError as CheckpointError
    from hwnas.errors import DataError as DataError
    from hwnas.errors import DeviceError as DeviceError
    from hwnas.errors import ExportError as ExportError
    from hwnas.errors import HostError as HostError
    from hwnas.errors import HwnasError as HwnasError
    from hwnas.errors import MeasurementError as MeasurementError
    from hwnas.errors import MissingBlockError as MissingBlockError
    from hwnas.errors import OutputError as OutputError
    from hwnas.errors import PluginError as PluginError
    from hwnas.errors import RecipeError as RecipeError
    from hwnas.errors import ResumeError as ResumeError
    from hwnas.errors import SearchError as SearchError
    from hwnas.errors import SpaceError as SpaceError
    from hwnas.errors import TableError as TableError
    from hwnas.errors import TableMismatchError as TableMismatchError
    from hwnas.errors import TrainingError as TrainingError
    from hwnas.errors import WorkerError as WorkerError
    from hwnas.export.bundle import Bundle as Bundle
    from hwnas.export.bundle import load_model as load_model
    from hwnas.export.exits import export_cascade as export_cascade
    from hwnas.export.exits import export_exits as export_exits
    from hwnas.export.exits import export_joint_exits as export_joint_exits
    from hwnas.export.onnx_file import to_onnx as to_onnx
    from hwnas.finetune import FinetuneConfig as FinetuneConfig
    from hwnas.finetune import FinetuneResult as FinetuneResult
    from hwnas.finetune import FinishConfig as FinishConfig
    from hwnas.finetune import Student as Student
    from hwnas.finetune import train_together as train_together
    from hwnas.finetune.exits import choose_cascades as choose_cascades
    from hwnas.finetune.exits import exit_answers as exit_answers
    from hwnas.finetune.exits import prune_exits as prune_exits
    from hwnas.latency.build import build_table as build_table
    from hwnas.latency.check import check_table as check_table
    from hwnas.latency.device import DeviceProfile as DeviceProfile
    from hwnas.latency.device import devices as devices
    from hwnas.latency.exits import exit_latencies_ms as exit_latencies_ms
    from hwnas.latency.fit import fit_profile as fit_profile
    from hwnas.latency.fit import sample_networks as sample_networks
    from hwnas.latency.importers import import_table as import_table
    from hwnas.latency.measurement import Measurement as Measurement
    from hwnas.latency.placement import Placement as Placement
    from hwnas.latency.placement import node_placement as node_placement
    from hwnas.latency.plan import TableConfig as TableConfig
    from hwnas.latency.profile import profile as profile
    from hwnas.latency.rank import DeviceRanks as DeviceRanks
    from hwnas.latency.rank import rank_devices as rank_devices
    from hwnas.latency.table import Device as Device
    from hwnas.latency.table import load_device as load_device
    from hwnas.latency.target import Target as Target
    from hwnas.latency.time_onnx import Burst as Burst
    from hwnas.latency.time_onnx import Facts as Facts
    from hwnas.objectives import Objective as Objective
    from hwnas.objectives.case import SubnetCase as SubnetCase
    from hwnas.objectives.class_profiles import ClassProfiles as ClassProfiles
    from hwnas.objectives.config import EvaluationConfig as EvaluationConfig
    from hwnas.objectives.introspectability import class_profiles as class_profiles
    from hwnas.objectives.plugin import EvaluatedObjective as EvaluatedObjective
    from hwnas.objectives.plugin import ExactObjective as ExactObjective
    from hwnas.objectives.subnets import SubnetEvaluator as SubnetEvaluator
    from hwnas.predictors import CellFeatures as CellFeatures
    from hwnas.runs.analysis.baseline import Baseline as Baseline
    from hwnas.runs.analysis.compare import RunComparison as RunComparison
    from hwnas.runs.analysis.fleet import Fleet as Fleet
    from hwnas.runs.analysis.gains import DeviceGains as DeviceGains
    from hwnas.runs.analysis.quality import SupernetQuality as SupernetQuality
    from hwnas.runs.analysis.why_not import WhyNot as WhyNot
    from hwnas.runs.begin import Begun as Begun
    from hwnas.runs.begin import init as init
    from hwnas.runs.data import look_at_data as look_at_data
    from hwnas.runs.data import open_data as open_data
    from hwnas.runs.doctor import doctor as doctor
    from hwnas.runs.executor import Executor as Executor
    from hwnas.runs.front import Front as Front
    from hwnas.runs.front import FrontModel as FrontModel
    from hwnas.runs.plan import Plan as Plan
    from hwnas.runs.plugins import plugins as plugins
    from hwnas.runs.published import import_ofa as import_ofa
    from hwnas.runs.reach import DeviceReach as DeviceReach
    from hwnas.runs.reach import reach as reach
    from hwnas.runs.recipe import ExportConfig as ExportConfig
    from hwnas.runs.recipe import Recipe as Recipe
    from hwnas.runs.recipe import load_recipe as load_recipe
    from hwnas.runs.recipe_reference import recipe_schema as recipe_schema
    from hwnas.runs.run import Run as Run
    from hwnas.runs.select import Selection as Selection
    from hwnas.runs.start import open_run as open_run
    from hwnas.runs.start import operators as operators
    from hwnas.runs.start import plan as plan
    from hwnas.runs.start import quickstart as quickstart
    from hwnas.runs.start import run as run
    from hwnas.runs.start import start_run as start_run
    from hwnas.runs.watch import RunState as RunState
    from hwnas.runs.watch import run_state as run_state
    from hwnas.search import Problem as Problem
    from hwnas.search import Result as Result
    from hwnas.search import SearchConfig as SearchConfig
    from hwnas.search import Searcher as Searcher
    from hwnas.search import specialise as specialise
    from hwnas.search import survivors as survivors
    from hwnas.search.hurricane import Hurricane as Hurricane
    from hwnas.search.limits import Limit as Limit
    from hwnas.search.memory import Memory as Memory
    from hwnas.search.minimize import minimize as minimize
    from hwnas.search.natv2 import NATv2 as NATv2
    from hwnas.search.settings import NATv2Settings as NATv2Settings
    from hwnas.space import Arch as Arch
    from hwnas.space import Choice as Choice
    from hwnas.space import SearchSpace as SearchSpace
    from hwnas.space.dialects.nasbench201 import format_nasbench201 as format_nasbench201
    from hwnas.space.dialects.nasbench201 import parse_nasbench201 as parse_nasbench201
    from hwnas.space.dialects.once_for_all import format_ofa as format_ofa
    from hwnas.space.dialects.once_for_all import parse_ofa as parse_ofa
    from hwnas.supernet import BlockSpec as BlockSpec
    from hwnas.supernet import Family as Family
    from hwnas.supernet import FamilyConfig as FamilyConfig
    from hwnas.supernet import Layout as Layout
    from hwnas.supernet import Slot as Slot
    from hwnas.supernet import SuperNet as SuperNet
    from hwnas.supernet import build_supernet as build_supernet
    from hwnas.supernet import calibrate_bn as calibrate_bn
    from hwnas.supernet import extract_subnet as extract_subnet
    from hwnas.supernet import make_layout as make_layout
    from hwnas.supernet.blocks.block import ElasticBlock as ElasticBlock
    from hwnas.supernet.blocks.block import largest_of as largest_of
    from hwnas.supernet.blocks.elastic_layers import ElasticBatchNorm2d as ElasticBatchNorm2d
    from hwnas.supernet.blocks.elastic_layers import ElasticConv2d as ElasticConv2d
    from hwnas.supernet.blocks.elastic_layers import ElasticDepthwiseConv2d as ElasticDepthwiseConv2d
    from hwnas.supernet.blocks.head import HeadSpec as HeadSpec
    from hwnas.supernet.exits import ExitNetwork as ExitNetwork
    from hwnas.supernet.exits import extract_exits as extract_exits
    from hwnas.supernet.slot_sum import SlotSum as SlotSum
    from hwnas.task import Meter as Meter
    from hwnas.task import Score as Score
    from hwnas.task import Task as Task
    from hwnas.train import PhaseConfig as PhaseConfig
    from hwnas.train import TrainConfig as TrainConfig
    from hwnas.train import load_supernet as load_supernet
    from hwnas.train import save_supernet as save_supernet
    from hwnas.train import train_supernet as train_supernet
    from hwnas.train.evaluate import scores as scores

__version__ = "0.2.0"

_HOMES = {
    "ExitNetwork": "hwnas.supernet.exits",
    "extract_exits": "hwnas.supernet.exits",
    "exit_latencies_ms": "hwnas.latency.exits",
    "prune_exits": "hwnas.finetune.exits",
    "choose_cascades": "hwnas.finetune.exits",
    "exit_answers": "hwnas.finetune.exits",
    "export_exits": "hwnas.export.exits",
    "export_joint_exits": "hwnas.export.exits",
    "export_cascade": "hwnas.export.exits",
    "as_input": "hwnas.data",
    "Arch": "hwnas.space",
    "Archive": "hwnas.archive",
    "ArgumentError": "hwnas.errors",
    "AugmentConfig": "hwnas.data",
    "Baseline": "hwnas.runs.analysis.baseline",
    "Begun": "hwnas.runs.begin",
    "BlockSpec": "hwnas.supernet",
    "Bundle": "hwnas.export.bundle",
    "Burst": "hwnas.latency.time_onnx",
    "CellFeatures": "hwnas.predictors",
    "CheckpointError": "hwnas.errors",
    "Choice": "hwnas.space",
    "DataConfig": "hwnas.data",
    "DataError": "hwnas.errors",
    "DataSummary": "hwnas.data.look",
    "Dataset": "hwnas.data",
    "DatasetSplit": "hwnas.data",
    "Device": "hwnas.latency.table",
    "DeviceGains": "hwnas.runs.analysis.gains",
    "RunComparison": "hwnas.runs.analysis.compare",
    "DeviceError": "hwnas.errors",
    "DeviceProfile": "hwnas.latency.device",
    "DeviceRanks": "hwnas.latency.rank",
    "ElasticBatchNorm2d": "hwnas.supernet.blocks.elastic_layers",
    "ElasticBlock": "hwnas.supernet.blocks.block",
    "ElasticConv2d": "hwnas.supernet.blocks.elastic_layers",
    "ElasticDepthwiseConv2d": "hwnas.supernet.blocks.elastic_layers",
    "DeviceReach": "hwnas.runs.reach",
    "EvaluatedObjective": "hwnas.objectives.plugin",
    "Evaluation": "hwnas.archive",
    "EvaluationConfig": "hwnas.objectives.config",
    "ClassProfiles": "hwnas.objectives.class_profiles",
    "class_profiles": "hwnas.objectives.introspectability",
    "ExactObjective": "hwnas.objectives.plugin",
    "Executor": "hwnas.runs.executor",
    "ExportConfig": "hwnas.runs.recipe",
    "ExportError": "hwnas.errors",
    "Facts": "hwnas.latency.time_onnx",
    "Family": "hwnas.supernet",
    "FamilyConfig": "hwnas.supernet",
    "FinetuneConfig": "hwnas.finetune",
    "FinetuneResult": "hwnas.finetune",
    "FinishConfig": "hwnas.finetune",
    "Fleet": "hwnas.runs.analysis.fleet",
    "Front": "hwnas.runs.front",
    "FrontModel": "hwnas.runs.front",
    "HeadSpec": "hwnas.supernet.blocks.head",
    "HostError": "hwnas.errors",
    "Hurricane": "hwnas.search.hurricane",
    "HwnasError": "hwnas.errors",
    "ImageSet": "hwnas.data",
    "Layout": "hwnas.supernet",
    "LeftOut": "hwnas.data.left_out",
    "Limit": "hwnas.search.limits",
    "Measurement": "hwnas.latency.measurement",
    "MeasurementError": "hwnas.errors",
    "Memory": "hwnas.search.memory",
    "Meter": "hwnas.task",
    "MissingBlockError": "hwnas.errors",
    "NATv2": "hwnas.search.natv2",
    "NATv2Settings": "hwnas.search.settings",
    "Objective": "hwnas.objectives",
    "Opened": "hwnas.data.source",
    "OutputError": "hwnas.errors",
    "PhaseConfig": "hwnas.train",
    "Placement": "hwnas.latency.placement",
    "Plan": "hwnas.runs.plan",
    "PluginError": "hwnas.errors",
    "Problem": "hwnas.search",
    "Recipe": "hwnas.runs.recipe",
    "RecipeError": "hwnas.errors",
    "Result": "hwnas.search",
    "ResumeError": "hwnas.errors",
    "Run": "hwnas.runs.run",
    "RunState": "hwnas.runs.watch",
    "Score": "hwnas.task",
    "SearchConfig": "hwnas.search",
    "SearchError": "hwnas.errors",
    "SearchSpace": "hwnas.space",
    "Searcher": "hwnas.search",
    "Selection": "hwnas.runs.select",
    "Slot": "hwnas.supernet",
    "SlotSum": "hwnas.supernet.slot_sum",
    "Source": "hwnas.data.source",
    "SpaceError": "hwnas.errors",
    "Splits": "hwnas.data",
    "Student": "hwnas.finetune",
    "SubnetCase": "hwnas.objectives.case",
    "SubnetEvaluator": "hwnas.objectives.subnets",
    "SuperNet": "hwnas.supernet",
    "SupernetQuality": "hwnas.runs.analysis.quality",
    "TableConfig": "hwnas.latency.plan",
    "TableError": "hwnas.errors",
    "TableMismatchError": "hwnas.errors",
    "Target": "hwnas.latency.target",
    "Task": "hwnas.task",
    "TrainConfig": "hwnas.train",
    "TrainingError": "hwnas.errors",
    "WhyNot": "hwnas.runs.analysis.why_not",
    "WorkerError": "hwnas.errors",
    "build_supernet": "hwnas.supernet",
    "build_table": "hwnas.latency.build",
    "calibrate_bn": "hwnas.supernet",
    "check_table": "hwnas.latency.check",
    "devices": "hwnas.latency.device",
    "doctor": "hwnas.runs.doctor",
    "extract_subnet": "hwnas.supernet",
    "fit_profile": "hwnas.latency.fit",
    "format_nasbench201": "hwnas.space.dialects.nasbench201",
    "format_ofa": "hwnas.space.dialects.once_for_all",
    "import_ofa": "hwnas.runs.published",
    "import_table": "hwnas.latency.importers",
    "init": "hwnas.runs.begin",
    "largest_of": "hwnas.supernet.blocks.block",
    "load_data": "hwnas.data",
    "load_device": "hwnas.latency.table",
    "load_model": "hwnas.export.bundle",
    "load_recipe": "hwnas.runs.recipe",
    "load_supernet": "hwnas.train",
    "look_at_data": "hwnas.runs.data",
    "make_layout": "hwnas.supernet",
    "minimize": "hwnas.search.minimize",
    "node_placement": "hwnas.latency.placement",
    "open_data": "hwnas.runs.data",
    "open_run": "hwnas.runs.start",
    "operators": "hwnas.runs.start",
    "parse_nasbench201": "hwnas.space.dialects.nasbench201",
    "parse_ofa": "hwnas.space.dialects.once_for_all",
    "plan": "hwnas.runs.start",
    "plugins": "hwnas.runs.plugins",
    "profile": "hwnas.latency.profile",
    "quickstart": "hwnas.runs.start",
    "rank_devices": "hwnas.latency.rank",
    "reach": "hwnas.runs.reach",
    "recipe_schema": "hwnas.runs.recipe_reference",
    "run": "hwnas.runs.start",
    "run_state": "hwnas.runs.watch",
    "sample_networks": "hwnas.latency.fit",
    "save_supernet": "hwnas.train",
    "scores": "hwnas.train.evaluate",
    "specialise": "hwnas.search",
    "start_run": "hwnas.runs.start",
    "survivors": "hwnas.search",
    "to_onnx": "hwnas.export.onnx_file",
    "train_supernet": "hwnas.train",
    "train_together": "hwnas.finetune",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list of names, made from the mapping above)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hwnas' has no attribute {name!r}; its public names are {', '.join(sorted(_HOMES))}")


def __dir__() -> list[str]:
    return sorted(_HOMES)
