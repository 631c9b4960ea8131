"""Compiles every kernel that a step of Qwen2-1.5B's shape calls, and those of its answers, for a card that need not be
there.

python compiled.py CAPABILITY DTYPE     prints JSON: of each kernel the bytes of shared memory that it wants, and its
                                        float32 multiplications that are written out
"""

import inspect
import json
import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from weitiao.engine import build, kernels

TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
INNER = ("_tile", "_scores", "weighed", "_of_scores", "_of_keys", "_keys", "_word", "stays", "_mixed", "_log_sum")
"""Those that other kernels call."""
found: dict[str, tuple[int, int]] = {}


class Compiler:
    def __init__(self, kernel) -> None:
        self.kernel, self.parameters = kernel, list(inspect.signature(kernel.fn).parameters.values())

    def __getitem__(self, grid):
        return self.call

    def call(self, *args, **options) -> None:
        signature, constants = {}, {}
        for parameter, argument in zip(self.parameters, args, strict=True):
            signature[parameter.name] = kind(parameter, argument)
            if signature[parameter.name] == "constexpr":
                constants[parameter.name] = argument
        source = ASTSource(self.kernel, signature, constants)
        made = compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=options)
        name = self.kernel.fn.__name__
        told = made.metadata.shared, made.asm["ptx"].count("fma.rn.f32")
        found[name] = max(told[0], found.get(name, told)[0]), max(told[1], found.get(name, told)[1])


def kind(parameter: inspect.Parameter, argument: object) -> str:
    if parameter.annotation == "tl.constexpr" or argument is None:
        return "constexpr"
    if isinstance(argument, torch.Tensor):
        return TYPES[argument.dtype]
    if isinstance(argument, float):
        return "fp32"
    return "i32" if -(2**31) <= argument < 2**31 else "i64"


for module in filter(inspect.ismodule, list(vars(kernels).values())):
    for name, value in list(vars(module).items()):
        if hasattr(value, "fn") and name not in INNER:
            setattr(module, name, Compiler(value))
dimensions = build.Dimensions(1536, 8960, 12, 2, 128, 128, False, 151_936, 8, False, dropout=True, dtype=sys.argv[2])
build.build(dimensions, "cpu")
build.build_answers(dimensions, "cpu")
if sys.argv[2] != "float32":
    build.build_exact_answers(dimensions, "cpu")
print(json.dumps(found))
