"""Compare 32 keys at once, and walk over those that passed: what compilers do not make of a loop that appends."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

LANES = 32
_ZERO = ir.Constant(ir.IntType(32), 0)


def _at_least(_typing: Any, keys: Any, begin: Any, least: Any) -> Any:
    """Return a mask of which of the :data:`LANES` int16 keys from `begin` on are at least `least`, the lowest bit the first.

    `keys` must be contiguous and hold as many from there on: nothing is checked.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        lanes = ir.VectorType(ir.IntType(16), LANES)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), lanes.as_pointer())
        loaded = builder.load(place)
        loaded.align = 2
        first = builder.insert_element(ir.Constant(lanes, ir.Undefined), arguments[2], _ZERO)
        same = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        bound = builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), same)
        return builder.bitcast(builder.icmp_signed(">=", loaded, bound), ir.IntType(LANES))

    return types.uint32(keys, types.intp, types.int16), generate


def _lowest(_typing: Any, mask: Any) -> Any:
    """Return the place of a mask's lowest bit; the mask must not be zero."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint32(types.uint32), generate


def _how_many(_typing: Any, mask: Any) -> Any:
    """Return how many of a mask's bits are set."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), generate


at_least: Any = intrinsic(_at_least)
lowest: Any = intrinsic(_lowest)
how_many: Any = intrinsic(_how_many)
