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

from weitiao.engine import build, kernels, row_attention, slot_attention
from weitiao.engine.split_attention import split_layout

TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
INNER = ("_tile", "_scores", "weighed", "_of_scores", "_of_keys", "_kept", "_mixed")
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


for module in (kernels, row_attention, slot_attention):
    for name, value in list(vars(module).items()):
        if hasattr(value, "fn") and name not in INNER:
            setattr(module, name, Compiler(value))
build.build(
    build.Dimensions(1536, 8960, 12, 2, 128, 128, False, 151_936, 8, False, dropout=True, dtype=sys.argv[2]), "cpu"
)
layout = split_layout(3, (4,), parents=((-1, 0, 0, 1),))
qkv = torch.zeros(7, 16 * 128, dtype=getattr(torch, sys.argv[2]))
row_attention.forward(qkv, layout.blocks, 3, (12, 2, 128), 1.0, 0, layout.trees)
slots, kept = torch.zeros(7, dtype=torch.long), [torch.zeros(7, 64, 2, 128, dtype=qkv.dtype) for _ in range(2)]
for places in (torch.zeros(7, 1, dtype=torch.long), torch.zeros(1, 7, dtype=torch.long)):
    table = torch.zeros(7, 128, dtype=qkv.dtype)
    slot_attention.keep(qkv, table, table, False, places, slots, *kept)
    slot_attention.attend(qkv, places, slots, *kept, 1.0, 16)
kernels.chosen(torch.zeros(2, 151_936, dtype=qkv.dtype), torch.zeros(2, 4748, dtype=torch.int32))
print(json.dumps(found))
