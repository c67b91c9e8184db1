"""Numba functions -> an object file for another CPU, without a C compiler.

Numba types and lowers the Python functions; the LLVM inside llvmlite, which carries every back end, optimises
and emits them. Functions take pointers and 32-bit integers, return nothing and follow the C calling convention
of the target.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import codegen, compiler, sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.typing import Signature
from numba.extending import intrinsic

from edgecompress_runtime.arm_attributes import without_float_arguments

CONSTANT_ALIGNMENT = 16  # bytes; one vector of Helium


@dataclass(frozen=True)
class Machine:
    """A CPU in LLVM's names; features with + or - ("+dsp")."""

    triple: str
    cpu: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Function:
    """A Python function to be compiled under a C name; signature: void of pointers and integers."""

    symbol: str
    function: Callable[..., None]
    signature: Signature


class _RawLibrary(codegen.JITCodeLibrary):
    """Keeps the IR as Numba lowered it: optimising it here would vectorise it for the host."""

    def _optimize_functions(self, module: Any) -> None: ...
    def _optimize_final_module(self) -> None: ...
    def _finalize_specific(self) -> None: ...


class _RawCodegen(codegen.JITCPUCodegen):
    _library_class = _RawLibrary


def compiled(
    machine: Machine, functions: Iterable[Function], constants: Mapping[str, np.ndarray] = {}
) -> tuple[bytes, str]:
    """(ELF object, the same as assembly text): every function, and every constant as read-only data.

    Raises RuntimeError where LLVM does not know the triple, numba.core.errors.NumbaError for a function that
    can't be typed.
    """
    module, target = _linked(machine, functions, constants), _target_machine(machine)
    return without_float_arguments(target.emit_object(module)), target.emit_assembly(module)


def external(symbol: str, signature: Signature) -> types.ExternalFunction:
    """What a Numba function calls to call the C function `symbol`."""
    return types.ExternalFunction(symbol, signature)


def constant(symbol: str, dtype: np.dtype) -> Callable[[], Any]:
    """A function for use in Numba code that returns the address of a constant."""
    pointer = pointer_type(dtype)

    @intrinsic
    def address(typingctx):
        def generate(context, builder, signature, args):
            name = symbol
            if name not in builder.module.globals:
                ir.GlobalVariable(builder.module, ir.IntType(8), name).global_constant = True
            return builder.bitcast(builder.module.globals[name], context.get_value_type(pointer))

        return pointer(), generate

    return address


@cache
def pointer_type(dtype: np.dtype) -> types.CPointer:
    """A pointer to elements of a NumPy dtype; bool is one byte."""
    from numba import from_dtype

    return types.CPointer(from_dtype(np.dtype(np.int8) if dtype == bool else np.dtype(dtype)))


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def _target_machine(machine: Machine) -> llvm.TargetMachine:
    _initialize()
    target = llvm.Target.from_triple(machine.triple)
    # firmware lies at fixed addresses; under an operating system code may go into a shared library
    reloc = "static" if re.search("none|unknown-elf", machine.triple) else "pic"
    return target.create_target_machine(cpu=machine.cpu, features=",".join(machine.features), opt=3, reloc=reloc)


def _linked(machine: Machine, functions: Iterable[Function], constants: Mapping[str, np.ndarray]) -> llvm.ModuleRef:
    target = _target_machine(machine)
    functions = list(functions)
    whole = llvm.parse_assembly(_constants(constants))
    for function in functions:
        text = _for_machine(_lower(function), machine.triple, str(target.target_data))
        whole.link_in(llvm.parse_assembly(text))
    public = {function.symbol for function in functions}
    for function in whole.functions:
        function.add_function_attribute("nounwind")  # no unwind tables, and nothing of libgcc behind them
        if not function.is_declaration and function.name not in public:
            function.linkage = "internal"
    for variable in whole.global_variables:  # Numba's environments, which nothing here uses
        if variable.name.startswith("_ZN08NumbaEnv"):
            variable.linkage = "internal"
    whole.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    # primitives unroll and vectorise where it pays; elsewhere flash is worth more
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(whole, builder)
    return whole


def _lower(function: Function) -> str:
    """Unoptimised IR: the function as Numba lowers it, and one of the C calling convention that calls it."""
    flags = compiler.Flags()
    flags.no_compile = True  # or Numba hands the IR to the host's JIT, which knows no foreign intrinsics
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"  # no Python exceptions in the kernel
    args, result = sigutils.normalize_signature(function.signature)
    context = cpu_target.target_context.subtarget(_internal_codegen=_RawCodegen("edgecompress"))
    compiled = compiler.compile_extra(
        cpu_target.typing_context, context, function.function, args, result, flags, {}
    )
    if not compiled.library._finalized:
        with global_compiler_lock:
            compiled.library.finalize()
    text, inner = compiled.library.get_llvm_str(), compiled.fndesc.llvm_func_name
    types_ = [str(a.type) for a in llvm.parse_assembly(text).get_function(inner).arguments]
    # Numba's convention: a slot for the result and one for an exception go before the arguments
    outer = ", ".join(f"{t} noundef %a{i}" for i, t in enumerate(types_[2:]))
    passed = ", ".join(f"{t} %a{i}" for i, t in enumerate(types_[2:]))
    slots = ", ".join(f"{t} %s{i}" for i, t in enumerate(types_[:2]))
    return text + f"""
define void @{function.symbol}({outer}) noinline {{
  %s0 = alloca ptr
  %s1 = alloca ptr
  %status = call i32 @"{inner}"({slots}{", " if passed else ""}{passed})
  ret void
}}
"""


def _for_machine(text: str, triple: str, layout: str) -> str:
    text = re.sub(r"target triple = .*", f'target triple = "{triple}"', text)
    text = re.sub(r"target datalayout = .*", f'target datalayout = "{layout}"', text)
    # or loops that fill and copy become calls of a C library's memset and memcpy
    return re.sub(r"(?m)^(define .*?) \{$", r'\1 "no-builtins" {', text)


def _constants(constants: Mapping[str, np.ndarray]) -> str:
    lines = []
    for symbol, array in constants.items():
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        text = "".join(f"\\{byte:02x}" for byte in data)
        lines.append(f'@{symbol} = hidden constant [{len(data)} x i8] c"{text}", align {CONSTANT_ALIGNMENT}')
    return "\n".join(lines)
