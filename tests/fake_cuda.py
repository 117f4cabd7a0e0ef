"""A CUDA device that is not there: its tensors have shapes, types and a device, but no values.

Tensors of the CPU stay real, so a whole pipeline runs: plans, hashes and checks have their numbers.
What a real device would refuse is refused: an operation on tensors of two devices, or a matrix
product or convolution of two types. What is read back is a constant.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map_only

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
FREE = 16 << 30  # bytes that the device says are free
ONE_TYPE = {
    aten.convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm,
    aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_efficient_attention,
}  # fmt: skip


def constant(shape, dtype):
    """What stands for values that nobody computed: all that is computed from it is finite."""
    return torch.full(shape, dtype == torch.bool or 0.5 * dtype.is_floating_point, dtype=dtype)


class FakeCuda(FakeTensorMode):
    """Operations on the device have no values, those on the CPU are what they are.

    ``moved`` counts the tensors that came to the device and those that left it.
    """

    def __init__(self):
        super().__init__()
        self.is_absent = not torch.cuda.is_available()  # asked before anybody pretends
        self.is_inside = False  # torch's own steps of an operation come by here again
        self.moved = {"to": 0, "from": 0}

    @property
    def avoid_device_init(self):
        return self.is_absent

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return constant((), args[0].dtype).item()
        if self.is_inside:
            return super().__torch_dispatch__(func, types, args, kwargs)
        leaves = tree_flatten((args, kwargs))[0]
        flat = [x for x in leaves if isinstance(x, Tensor)]
        fake = any(isinstance(x, FakeTensor) for x in flat)
        there = any(isinstance(x, torch.device) and x.type == "cuda" for x in leaves)
        if not fake and not there:
            return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet is aten.copy_ and not isinstance(args[0], FakeTensor):
            self.moved["from"] += 1
            return args[0].copy_(constant(args[1].shape, args[1].dtype))
        if packet in ONE_TYPE and len({x.dtype for x in flat if x.is_floating_point()}) > 1:
            raise RuntimeError(f"{func} on several types: {', '.join(str(x.dtype) for x in flat)}")
        if not fake and flat:
            self.moved["to"] += 1
        lifted = tree_map_only(Tensor, self.lift, (args, kwargs))
        self.is_inside = True
        try:
            out = super().__torch_dispatch__(func, types, *lifted)
        finally:
            self.is_inside = False
        return tree_map_only(FakeTensor, self.lower, out)

    def lift(self, x):
        return x if isinstance(x, FakeTensor) else self.from_tensor(x)

    def lower(self, x):
        """A result on the CPU is a real tensor again."""
        if x.device.type != "cpu":
            return x
        self.moved["from"] += 1
        return constant(x.shape, x.dtype)


def real_load(*arguments, load=torch.load, **options):
    """``torch.load`` reads no values while there are fake tensors, unless it does not know."""
    with _disable_current_modes():
        return load(*arguments, **options)


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """A machine with one CUDA device of ``FREE`` bytes that computes nothing."""
    answers = {
        "is_available": True, "device_count": 1, "is_bf16_supported": True,
        "mem_get_info": (FREE, FREE), "max_memory_allocated": 0, "current_device": 0,
        "empty_cache": None, "synchronize": None, "reset_peak_memory_stats": None,
        "get_device_name": "fake", "get_device_capability": (9, 0),
    }  # fmt: skip
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    machine = FakeCuda()
    with ExitStack() as stack:
        for name, value in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, return_value=value))
        stack.enter_context(mock.patch.object(torch, "load", real_load))
        stack.enter_context(mock.patch.object(Tensor, "pin_memory", lambda self, *_: self))
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        yield stack.enter_context(machine)
