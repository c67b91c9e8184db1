"""Numba functions -> an object file for another CPU, without a C compiler.

Numba types and lowers the Python functions; the LLVM inside llvmlite, which carries every back end, optimizes
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
from numba import types
from numba.core import codegen, compiler, sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.typing import Signature

from edgecompress_runtime.llvm import rounded_product, word_pairs
from edgecompress_runtime.llvm.arm_attributes import without_float_arguments
from edgecompress_runtime.llvm.float_functions import FUNCTIONS
from edgecompress_runtime.llvm.lowered_kernels import Lowered, kept

CONSTANT_ALIGNMENT = 16  # bytes; one vector of Helium


@dataclass(frozen=True)
class Machine:
    """A CPU in LLVM's names; features with + or - ("+dsp")."""

    triple: str
    cpu: str
    features: tuple[str, ...] = ()

    @property
    def full_triple(self) -> str:
        """The triple in the form that LLVM needs.

        In a triple of three parts LLVM would take "eabi" for an operating system, and call run-time functions by names
        that Arm's libraries do not have.

        >>> Machine("thumbv6m-none-eabi", "cortex-m0").full_triple
        'thumbv6m-none-unknown-eabi'
        """
        return re.sub(r"^(\w[\w.]*-none)-(eabi\w*)$", r"\1-unknown-\2", self.triple)

    @property
    def bare(self) -> bool:
        """Whether there is no operating system, and so perhaps no C library."""
        return re.search("none|unknown-elf", self.triple) is not None

    @property
    def has_libm(self) -> bool:
        """Whether math.h can be had. RISC-V's programs here call Linux themselves."""
        return not (self.bare or self.triple.startswith("riscv"))

    @property
    def instructions(self) -> tuple[str, ...]:
        """Functions of math.h that LLVM has an instruction for, or the system's C library."""
        features = " ".join(f for f in self.features if f.startswith("+"))
        rounds = self.has_libm or "fp-armv8" in features or "mve.fp" in features
        roots = rounds or "+vfp" in features
        return (*(("trunc", "floor", "ceil") if rounds else ()), *(("sqrt",) if roots else ()))


@dataclass(frozen=True, eq=False)
class Function:
    """A Python function to be compiled under a C name; signature: void of pointers, numbers and tuples of them.

    inlined: it vanishes into its callers, and has no symbol in the object. hidden: its symbol is none of a shared
    library's that the object becomes part of. shared: called by others, and unknown outside of the object.
    """

    symbol: str
    function: Callable[..., None]
    signature: Signature
    inlined: bool = False
    hidden: bool = False
    shared: bool = False


class _RawLibrary(codegen.JITCodeLibrary):
    """Keeps the IR as Numba lowered it: optimizing it here would vectorize it for the host."""

    def _optimize_functions(self, module: Any) -> None: ...
    def _optimize_final_module(self) -> None: ...
    def _finalize_specific(self) -> None: ...


class _RawCodegen(codegen.JITCPUCodegen):
    _library_class = _RawLibrary


def compiled(
    machine: Machine, functions: Iterable[Function], constants: Mapping[str, np.ndarray] = {}, text: str = ""
) -> tuple[bytes, str]:
    """(ELF object, the same as assembly text): every function, and every constant as read-only data.

    text: functions in LLVM's intermediate representation, with their linkage, which may call the others.

    Raises RuntimeError where LLVM does not know the triple, numba.core.errors.NumbaError for a function that
    can't be typed.
    """
    module, target = _linked(machine, functions, constants, text), target_machine(machine)
    return without_float_arguments(target.emit_object(module)), target.emit_assembly(module)


def external(symbol: str, signature: Signature) -> Callable[..., Any]:
    """What a Numba function calls to call the C function `symbol`."""
    function: Any = types.ExternalFunction(symbol, signature)
    return function


@cache
def pointer_type(dtype: np.dtype) -> types.CPointer:
    """A pointer to elements of a NumPy dtype; bool is one byte."""
    from numba import from_dtype

    return types.CPointer(from_dtype(np.dtype(np.int8) if np.dtype(dtype).kind == "b" else np.dtype(dtype)))


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def target_machine(machine: Machine) -> llvm.TargetMachine:
    """What LLVM compiles for. Raises RuntimeError where it does not know the triple."""
    _initialize()
    target = llvm.Target.from_triple(machine.full_triple)
    # firmware lies at fixed addresses; under an operating system code may go into a shared library
    reloc, features = "static" if machine.bare else "pic", ",".join(machine.features)
    return target.create_target_machine(cpu=machine.cpu, features=features, opt=3, reloc=reloc, codemodel="small")


def _linked(
    machine: Machine, functions: Iterable[Function], constants: Mapping[str, np.ndarray], text: str
) -> llvm.ModuleRef:
    target = target_machine(machine)
    functions, layout = list(functions), str(target.target_data)
    whole = llvm.parse_assembly(_for_machine(text, machine, layout))
    written = {function.name for function in whole.functions if not function.is_declaration}
    helpers = rounded_product.definition(machine.triple) + word_pairs.definition(machine.cpu)
    whole.link_in(llvm.parse_assembly(_constants(constants) + helpers))
    _link(whole, functions, machine, layout)
    if not machine.has_libm:
        wanted = {f.name for f in whole.functions if f.is_declaration} & FUNCTIONS.keys()
        library = [_float_function(name) for name in sorted(wanted)]
        _link(whole, library, machine, layout)
        functions += library
    public = {function.symbol: function.hidden for function in functions if not function.inlined}
    shared = {function.symbol for function in functions if function.shared}
    for function in whole.functions:
        function.add_function_attribute("nounwind")  # no unwind tables, and nothing of libgcc behind them
        if function.name in public:
            function.add_function_attribute("noinline")
            if function.name in shared:
                function.linkage = "internal"
            else:
                function.visibility = "hidden" if public[function.name] else "default"
        elif not (function.is_declaration or function.name in written):
            function.linkage = "internal"
            function.add_function_attribute("alwaysinline")
    for variable in whole.global_variables:  # Numba's environments, which nothing here uses
        if variable.name.startswith("_ZN08NumbaEnv"):
            variable.linkage = "internal"
    whole.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    # families' blocks unroll and vectorize where it pays; elsewhere flash is worth more
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(target, options)
    first = llvm.create_new_module_pass_manager()
    first.add_always_inliner_pass()  # kernels are optimized where their callers' constants are known, never before
    first.run(whole, builder)
    builder.getModulePassManager().run(whole, builder)
    return whole


def _float_function(name: str) -> Function:
    function = FUNCTIONS[name]
    arguments = [types.float32] * function.__code__.co_argcount
    return Function(name, function, types.float32(*arguments), shared=True)


def _link(whole: llvm.ModuleRef, functions: Iterable[Function], machine: Machine, layout: str) -> None:
    for function in functions:
        text = lowered(function)
        whole.link_in(llvm.parse_assembly(_for_machine(text, machine, layout)))


def lowered(function: Function) -> str:
    """Unoptimized IR: the function as Numba lowers it, and one of the C calling convention that calls it. It returns
    nothing or a float32."""
    own = _lowered_by_numba(function.function, function.signature)
    # Numba's convention: a slot for the result and one for an exception go before the arguments
    slots, arguments = own.arguments[:2], own.arguments[2:]
    outer = ", ".join(f"{t} noundef %a{i}" for i, t in enumerate(arguments))
    passed = ", ".join([f"{t} %s{i}" for i, t in enumerate(slots)] + [f"{t} %a{i}" for i, t in enumerate(arguments)])
    kind, ending = "void", "ret void"
    if sigutils.normalize_signature(function.signature)[1] != types.void:
        kind, ending = "float", "%r = load float, ptr %s0\n  ret float %r"
    return f"""{own.text}
define {kind} @{function.symbol}({outer}) {{
  %s0 = alloca ptr
  %s1 = alloca ptr
  %status = call i32 @"{own.name}"({passed})
  {ending}
}}
"""


@cache
def _lowered_by_numba(function: Callable[..., None], signature: Signature) -> Lowered:
    """It takes Numba longer than LLVM needs for all the rest, so programs share it, whatever symbol each of them gives
    to the kernel."""

    def lower() -> tuple[str, str]:
        flags: Any = compiler.Flags()
        flags.no_compile = True  # or Numba hands the IR to the host's JIT, which knows no foreign intrinsics
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        flags.error_model = "numpy"  # no Python exceptions in the kernel
        args, result = sigutils.normalize_signature(signature)
        with global_compiler_lock:  # Numba's own, for whoever compiles beside
            context = cpu_target.target_context.subtarget(_internal_codegen=_RawCodegen("edgecompress"))
            compiled = compiler.compile_extra(cpu_target.typing_context, context, function, args, result, flags, {})
            if not compiled.library._finalized:
                compiled.library.finalize()
        return compiled.library.get_llvm_str(), compiled.fndesc.llvm_func_name

    return kept(function, signature, lower)


def _for_machine(text: str, machine: Machine, layout: str) -> str:
    text = re.sub(r"target triple = .*", f'target triple = "{machine.full_triple}"', text)
    text = re.sub(r"target datalayout = .*", f'target datalayout = "{layout}"', text)
    # an instruction where the CPU has one, a C library's function elsewhere
    for name in machine.instructions:
        text = text.replace(f"@{name}f(", f"@llvm.{name}.f32(").replace(f"@{name}(", f"@llvm.{name}.f64(")
    for symbol in () if machine.has_libm else FUNCTIONS:
        if (name := symbol.removesuffix("f")) not in machine.instructions:
            text = text.replace(f"@llvm.{name}.f32(", f"@{symbol}(")
    # or loops that fill and copy become calls of a C library's memset and memcpy
    return re.sub(r"(?m)^(define .*?) \{$", r'\1 "no-builtins" {', text)


def _constants(constants: Mapping[str, np.ndarray]) -> str:
    lines = []
    for symbol, array in constants.items():
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        text = "".join(f"\\{byte:02x}" for byte in data)
        lines.append(f'@{symbol} = hidden constant [{len(data)} x i8] c"{text}", align {CONSTANT_ALIGNMENT}')
    return "\n".join(lines) + "\n"
