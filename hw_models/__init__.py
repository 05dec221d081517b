"""A machine and its price.

For all of them:
    estimate                a number with its interval, unit, bound and provenance
    tables, arguments       the data files; checks of arguments
    validation, validation_page, validated_*    published numbers, and what the models say

GPUs:
    devices, native         peak rates by dtype, memory, sizes; which formats are multiplied natively
    tile_wave, kernels, roofline, weight_only   the tile and wave model, its parameters, what no kernel can beat
    gemm, passes, energy, model_cost            products, quantizing and unpacking, joules, a whole model's products
    workload, model_shapes, model_workloads     operations of known models (`data/models/`; transformer_workload,
                            residual_workload)
    trace                   operations of any PyTorch or JAX program (traced_torch, traced_jax)
    workload_cost, operation_cost, collectives  what they cost, operation by operation
    llm, training           serving a language model, a step of training

Datapaths, and standard cells:
    blocks, datapath        the sized blocks that multiply and add in any formats (value_sets, datapath_*)
    targets, units, depths  what these take in a technology: MACs, dot units, tensor cores
    processing_elements     published elements, of the same blocks
    operations, die_area    published energies of single operations; whole dies

FPGAs:
    fpga_targets, fpga      LUTs, flip-flops, DSPs and the clock of units
    fpga_engines, fpga_boards, fpga_devices     whole designs, and how many of them fit boards
    finn, bismo, dsp_packing, dot_widths, fpga_memories, fpga_measured     published models and figures of their parts
    block_verilog, yosys    the blocks in Verilog, and their measured LUTs

Lookup tables and CPUs:
    lut_engine, lut_gemm, lut_run, lut_break_even, lut_unit     products by table lookup: model, execution, hardware
                            (lut_counts, lut_formats, lut_operands, lut_plot, lut_sum_kernels, lut_table_kernels)
    cpu_cores, cpu_simd     packed weights, unpacked and multiplied

Choosing:
    grids, space            formats by ranges of parameters; candidates and machines
    explore, pareto         trying all of them: stores, executors, the Pareto front with intervals, why (exploration*,
                            progress, fingerprints, plot_labels)
    mixed_precision, precision_search, sensitivity, hawq    a format for each layer, and HAWQ-V3's published problems

Other tools:
    accelergy, zigzag       their files (yaml_text)
    qonnx_types             data types of QONNX and FINN

Coefficients and device figures are in `data/`, each with unit, source and how sure it is.
"""

from lowp.hw_models.accelergy import AccelergyTables, accelergy_tables
from lowp.hw_models.bismo import Bismo, bismo
from lowp.hw_models.blocks import Block
from lowp.hw_models.collectives import all_reduce
from lowp.hw_models.cpu_cores import CpuCore, cpu_core, cpu_cores
from lowp.hw_models.cpu_simd import MeasuredTokens, cpu_gemm, cpu_tokens_per_second, measured_tokens
from lowp.hw_models.datapath import Datapath, datapath
from lowp.hw_models.devices import Device, device, devices
from lowp.hw_models.die_area import die_area, dies
from lowp.hw_models.dot_widths import DotWidths, dot_widths
from lowp.hw_models.dsp_packing import Packing, dsp_packing, packing_bound
from lowp.hw_models.energy import gemm_energy
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.exploration import Exploration
from lowp.hw_models.exploration_plots import plot_area_against_error, plot_front, plot_roofline
from lowp.hw_models.exploration_points import METRICS, Metric, Point
from lowp.hw_models.explore import explore
from lowp.hw_models.finn import Mvau, mvau
from lowp.hw_models.fpga import FpgaUnitCost, fpga_unit
from lowp.hw_models.fpga_boards import Fit, fit_units, fpga_decode
from lowp.hw_models.fpga_devices import FpgaDevice, fpga_device, fpga_devices
from lowp.hw_models.fpga_engines import FpgaDesign, matrix_engine, streaming_layer
from lowp.hw_models.gemm import gemm
from lowp.hw_models.grids import Expansion, Grid, Skipped, grid
from lowp.hw_models.hawq import PublishedConfiguration, hawq_configurations, hawq_layers
from lowp.hw_models.llm import Llm, llm
from lowp.hw_models.lut_break_even import lut_break_even, optimal_lut_group
from lowp.hw_models.lut_counts import LutCounts
from lowp.hw_models.lut_engine import LutEngine, lut_engine, lut_engines
from lowp.hw_models.lut_gemm import LutGemm, lut_gemm
from lowp.hw_models.lut_plot import plot_lut_break_even
from lowp.hw_models.lut_run import LutRun, run_lut_gemm
from lowp.hw_models.lut_unit import lut_unit
from lowp.hw_models.mixed_precision import (
    Assignment,
    PrecisionLayer,
    assign_precisions,
    budget_between,
    given_precisions,
    latency_costs,
    precision_front,
    uniform_precision,
)
from lowp.hw_models.model_cost import matmuls_cost
from lowp.hw_models.model_shapes import model_shape, models
from lowp.hw_models.model_workloads import workload
from lowp.hw_models.native import Operand, operand
from lowp.hw_models.operations import area_scaling, energy_scaling, memory_energy, operation
from lowp.hw_models.pareto import STANDINGS, knees, pareto_front, standings
from lowp.hw_models.passes import dequantize_pass, quantize_pass
from lowp.hw_models.processing_elements import ProcessingElement, processing_element, processing_elements
from lowp.hw_models.qonnx_types import from_qonnx, to_qonnx
from lowp.hw_models.roofline import roofline
from lowp.hw_models.sensitivity import (
    HessianTrace,
    empirical_fisher,
    hessian_trace,
    measured_sensitivity,
    precision_layers,
    weight_sensitivity,
)
from lowp.hw_models.space import Candidate, Machine, Space
from lowp.hw_models.targets import targets
from lowp.hw_models.trace import trace
from lowp.hw_models.training import TrainingStep, training_step, training_workload
from lowp.hw_models.units import UnitCost, dot_unit, mac, price, tensor_core
from lowp.hw_models.weight_only import break_even_batch, ideal_speedup
from lowp.hw_models.workload import Operation, Workload
from lowp.hw_models.workload_cost import OperationCost, WorkloadCost, workload_cost
from lowp.hw_models.zigzag import ZigzagAccelerator, zigzag_accelerator, zigzag_memory

__all__ = [
    "METRICS",
    "STANDINGS",
    "AccelergyTables",
    "Assignment",
    "Bismo",
    "Block",
    "Candidate",
    "CpuCore",
    "Datapath",
    "Device",
    "DotWidths",
    "Estimate",
    "Expansion",
    "Exploration",
    "Fit",
    "FpgaDesign",
    "FpgaDevice",
    "FpgaUnitCost",
    "Grid",
    "HessianTrace",
    "Llm",
    "LutCounts",
    "LutEngine",
    "LutGemm",
    "LutRun",
    "Machine",
    "MeasuredTokens",
    "Metric",
    "Mvau",
    "Operand",
    "Operation",
    "OperationCost",
    "Packing",
    "Point",
    "PrecisionLayer",
    "ProcessingElement",
    "PublishedConfiguration",
    "Skipped",
    "Space",
    "TrainingStep",
    "UnitCost",
    "Workload",
    "WorkloadCost",
    "ZigzagAccelerator",
    "accelergy_tables",
    "all_reduce",
    "area_scaling",
    "assign_precisions",
    "bismo",
    "break_even_batch",
    "budget_between",
    "cpu_core",
    "cpu_cores",
    "cpu_gemm",
    "cpu_tokens_per_second",
    "datapath",
    "dequantize_pass",
    "device",
    "devices",
    "die_area",
    "dies",
    "dot_unit",
    "dot_widths",
    "dsp_packing",
    "empirical_fisher",
    "energy_scaling",
    "explore",
    "fit_units",
    "fpga_decode",
    "fpga_device",
    "fpga_devices",
    "fpga_unit",
    "from_qonnx",
    "gemm",
    "gemm_energy",
    "given_precisions",
    "grid",
    "hawq_configurations",
    "hawq_layers",
    "hessian_trace",
    "ideal_speedup",
    "knees",
    "latency_costs",
    "llm",
    "lut_break_even",
    "lut_engine",
    "lut_engines",
    "lut_gemm",
    "lut_unit",
    "mac",
    "matmuls_cost",
    "matrix_engine",
    "measured_sensitivity",
    "measured_tokens",
    "memory_energy",
    "model_shape",
    "models",
    "mvau",
    "operand",
    "operation",
    "optimal_lut_group",
    "packing_bound",
    "pareto_front",
    "plot_area_against_error",
    "plot_front",
    "plot_lut_break_even",
    "plot_roofline",
    "precision_front",
    "precision_layers",
    "price",
    "processing_element",
    "processing_elements",
    "quantize_pass",
    "roofline",
    "run_lut_gemm",
    "standings",
    "streaming_layer",
    "targets",
    "tensor_core",
    "to_qonnx",
    "trace",
    "training_step",
    "training_workload",
    "uniform_precision",
    "weight_sensitivity",
    "workload",
    "workload_cost",
    "zigzag_accelerator",
    "zigzag_memory",
]
