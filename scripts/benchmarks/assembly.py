"""Compiles kernels for other CPUs, and counts what the hottest loops consist of; nothing is run.

The hottest loops are the innermost loops with fused multiply-adds (FMA) of float32: what a kernel does once a row is in
float64. Vector code has FMAs of the CPU's widest registers there, no calls, and no branches besides those of the loop
itself. A branch for each lane of a vector, such as those of a masked load on a CPU that has none, is an inner branch.

The IR that Numba makes of a kernel is optimized and compiled for each CPU, with the passes that Numba uses. It is the
same for all CPUs except for the float mode, which is set once per block of rows.
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module

KERNELS = {
    "softmax_few_float32": "batchmax.kernels.softmax.softmax_few_float32",
    "softmax_float32": "batchmax.kernels.softmax.softmax_float32",
}
"""Names of kernels, with their modules."""
CPUS = {
    "znver3": "x86_64-unknown-linux-gnu",
    "haswell": "x86_64-unknown-linux-gnu",
    "znver5": "x86_64-unknown-linux-gnu",
    "neoverse-n1": "aarch64-unknown-linux-gnu",
    "apple-m1": "aarch64-unknown-linux-gnu",
}
"""LLVM's names of CPUs, with a triple. ELF for all: the instructions don't depend on the system."""
SHOWN = 3
"""Loops that are shown of each kernel."""

LABEL = re.compile(r"^(\.?\w[\w.$]*):")
JUMP = re.compile(r"^(?:jmp|b)\s+(\.?\w+)$")
BRANCH = re.compile(r"^(?:j(?!mp)\w+|b\.\w+|cbn?z|tbn?z)\s.*?(\.L\w+)$")
END = re.compile(r"^(?:ret\w*|ud2|brk|br|jmpq?\s+\*)\b")
CALL = re.compile(r"^(?:callq?|blr?)\s")
FMA = re.compile(r"^(?:vfn?m(?:add|sub)|fn?m(?:add|sub)|fml[as])")
SINGLE = re.compile(r"^(?:v\w+[ps]s\s|fml[as]\s+v\d+\.[24]s|fn?m\w+\s+s\d)")
FLOAT_MODE = re.compile(r"^.*@llvm\.x86\.sse\.(?:st|ld)mxcsr.*$", re.MULTILINE)


@dataclass
class Block:
    """A basic block: its instructions, and the names of the blocks that may follow."""

    lines: list[str] = field(default_factory=list)
    followers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its number of instructions, FMAs by register and of float32, inner branches and calls."""

    instructions: int
    fmas: dict[str, int]
    single_fmas: int
    branches: int
    calls: int


def unoptimized_ir(name: str) -> str:
    """Return the LLVM IR of the float32 kernel, without its threads, before optimization.

    Numba must not have been imported yet.
    """
    os.environ["NUMBA_OPT"] = "0"
    from numba.core.caching import NullCache

    kernel = getattr(import_module(KERNELS[name]), name)
    dispatcher = kernel._serial  # noqa: SLF001 - kernels don't show their code otherwise
    dispatcher._cache = NullCache()  # noqa: SLF001 - cached code has no IR
    dispatcher.compile(kernel.signatures[0])
    return str(dispatcher.inspect_llvm(dispatcher.signatures[0]))


def assembly(text: str, cpu: str) -> str:
    """Return the assembly of LLVM IR for a CPU."""
    from llvmlite import binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = CPUS[cpu]
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    if not triple.startswith("x86_64"):
        text = FLOAT_MODE.sub("", text)
    text = re.sub(r'^target (datalayout|triple) = ".*"$', "", text, flags=re.MULTILINE)
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = triple, str(machine.target_data)
    for loops in (False, True):
        tuning = llvm.create_pipeline_tuning_options(speed_level=3)
        tuning.loop_vectorization, tuning.slp_vectorization = loops, False
        builder = llvm.create_pass_builder(machine, tuning)
        passes = builder.getModulePassManager()
        passes.run(module, builder)
    return str(machine.emit_assembly(module))


def functions(text: str) -> Iterator[dict[str, Block]]:
    """Yield the basic blocks of each function, the first block first."""
    blocks: dict[str, Block] = {}
    current: Block | None = None
    for number, full in enumerate(text.splitlines()):
        line = re.split(r"\s(?:#\s|//)", full.replace("\t", " "))[0].strip()
        if (label := LABEL.match(line)) is not None:
            name = label[1]
            if not name.startswith(".L"):
                if blocks:
                    yield blocks
                blocks, current = {}, None
            elif current is not None:
                current.followers.append(name)
            current = blocks.setdefault(name, Block())
        elif line and not line.startswith((".", "#", "//")) and blocks:
            if current is None:
                current = blocks.setdefault(f"after {number}", Block())
            current.lines.append(line)
            if (jump := JUMP.match(line)) is not None:
                current.followers.append(jump[1])
                current = None
            elif END.match(line):
                current = None
            elif (branch := BRANCH.match(line)) is not None:
                following = f"after {number}"
                current.followers += [branch[1], following]
                current = blocks.setdefault(following, Block())
    yield blocks


def loops(blocks: dict[str, Block]) -> list[Loop]:
    """Return the innermost loops of a function."""
    before: dict[str, set[str]] = collections.defaultdict(set)
    for name, block in blocks.items():
        block.followers = [one for one in block.followers if one in blocks]
        for follower in block.followers:
            before[follower].add(name)
    bodies: dict[str, set[str]] = collections.defaultdict(set)
    for tail, head in _back_edges(blocks):
        body, waiting = {head}, [tail]
        while waiting:
            name = waiting.pop()
            if name not in body:
                body.add(name)
                waiting += before[name]
        bodies[head] |= body
    return [
        _count(blocks, body)
        for head, body in bodies.items()
        if not any(other in body for other in bodies if other != head)
    ]


def _back_edges(blocks: dict[str, Block]) -> Iterator[tuple[str, str]]:
    """Yield the edges to a block that a depth-first search is still in."""
    state: dict[str, bool] = {}
    for root in list(blocks)[:1]:
        stack = [(root, iter(blocks[root].followers))]
        state[root] = True
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[name] = False
                stack.pop()
            elif following not in state:
                state[following] = True
                stack.append((following, iter(blocks[following].followers)))
            elif state[following]:
                yield name, following


def _count(blocks: dict[str, Block], body: set[str]) -> Loop:
    lines = [line for name in body for line in blocks[name].lines]
    fmas = [line for line in lines if FMA.match(line)]
    return Loop(
        instructions=len(lines),
        fmas=dict(collections.Counter(map(register, fmas)).most_common()),
        single_fmas=sum(SINGLE.match(line) is not None for line in fmas),
        # The loop's own branches lead out of it.
        branches=sum(len(set(blocks[name].followers)) > 1 and set(blocks[name].followers) <= body for name in body),
        calls=sum(CALL.match(line) is not None for line in lines),
    )


def register(line: str) -> str:
    """Return the type of register that an FMA writes: ``zmm``, ``ymm``, ``xmm``, ``4s``, ``2d``, or ``scalar``."""
    if re.match(r"\S+s[sd]\s", line):
        return "scalar"
    if (found := re.search(r"%([xyz]mm)\d+\S*(?: \{\S+)?$", line)) is not None:
        return found[1]
    if (found := re.match(r"\S+\s+v\d+\.(\w+)", line)) is not None:
        return found[1]
    return "scalar"


def report(cpus: Sequence[str], kernels: Sequence[str]) -> str:
    """Return a table of the hottest loops of kernels for CPUs."""
    rows = [("kernel", "CPU", "instructions", "FMAs by register", "inner branches", "calls")]
    for name in kernels:
        text = unoptimized_ir(name)
        for cpu in cpus:
            found = [loop for blocks in functions(assembly(text, cpu)) for loop in loops(blocks) if loop.single_fmas]
            # A scalar loop beside a vector loop of the same arithmetic computes what doesn't fill a vector.
            vectors = {loop.single_fmas for loop in found if set(loop.fmas) != {"scalar"}}
            found = [loop for loop in found if set(loop.fmas) != {"scalar"} or loop.single_fmas not in vectors]
            for loop in sorted(found, key=lambda loop: -loop.single_fmas)[:SHOWN]:
                fmas = ", ".join(f"{count} {kind}" for kind, count in loop.fmas.items())
                rows.append((name, cpu, str(loop.instructions), fmas, str(loop.branches), str(loop.calls)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
