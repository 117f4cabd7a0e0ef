"""A network's layers in ncnn's text format, and which weights they read, one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from yoda_cli.devices.graphs import Layout, Weight
from yoda_cli.models.nets.layers import ChannelNorm


class Writer:
    """Layers one after another; each method returns the names of the values that it makes."""

    def __init__(self, net: nn.Module) -> None:
        self.keys = {id(value): key for key, value in net.state_dict(keep_vars=True).items()}
        self.layers: list[tuple[str, list[str], list[str], str]] = []
        self.weights: list[Weight] = []

    def add(
        self, kind: str, sources: Sequence[str], parameters: str = "", *, names: Sequence[str] = ()
    ) -> str:
        """A layer, and the name of its first value."""
        made = list(names) or [f"v{len(self.layers)}"]
        self.layers.append((kind, list(sources), made, parameters))
        return made[0]

    def weigh(self, *tensors: Tensor | None, is_turned: bool = False) -> None:
        """The weights of the layer added last: the first with a flag before it."""
        for index, tensor in enumerate(one for one in tensors if one is not None):
            first = index == 0
            key = self.keys[id(tensor)]
            self.weights.append(Weight(key, (), is_turned and first, first))

    def take(self, *names: str) -> None:
        """Inputs of the graph."""
        for name in names:
            self.add("Input", [], names=[name])

    def conv(
        self, x: str, layer: nn.Module | Tensor, *, relu: bool = False, slope: float = 0.0
    ) -> str:
        """A convolution, with a ReLU after it where it is wanted, leaky with a ``slope``; or a
        transposed one."""
        assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        is_turned = isinstance(layer, nn.ConvTranspose2d)
        made = self.add(
            "Deconvolution" if is_turned else "Convolution",
            [x],
            f"0={layer.out_channels} 1={layer.kernel_size[0]} 3={layer.stride[0]} "
            f"4={layer.padding[0]} 5={int(layer.bias is not None)} 6={layer.weight.numel()}"
            + (f" 9=2 -23310=1,{slope:g}" if slope else " 9=1" if relu else ""),
        )
        self.weigh(layer.weight, layer.bias, is_turned=is_turned)
        return made

    def linear(self, x: str, layer: nn.Module) -> str:
        """A matrix product."""
        assert isinstance(layer, nn.Linear)
        made = self.add("InnerProduct", [x], f"0={layer.out_features} 1=1 2={layer.weight.numel()}")
        self.weigh(layer.weight, layer.bias)
        return made

    def sum(self, x: str, y: str, share: float = 1.0) -> str:
        """x + y; a vector y is added to every pixel. Or ``share`` of a y of x's size."""
        if share != 1:
            return self.add("Eltwise", [x, y], f"0=1 -23301=2,1.0,{share:g}")
        return self.add("BinaryOp", [x, y], "0=0")

    def leaky(self, x: str, slope: float) -> str:
        """A leaky ReLU."""
        return self.add("ReLU", [x], f"0={slope:g}")

    def silu(self, x: str) -> str:
        """x·σ(x)."""
        return self.add("Swish", [x])

    def norm(self, x: str, layer: nn.Module) -> str:
        """Over the channels of each pixel: x less their mean, by the root of the sum of squares."""
        assert isinstance(layer, ChannelNorm)
        count = layer.weight.numel()
        mean = self.add("Reduction", [x], "0=3 1=0 -23303=1,0 4=1 5=1")
        centred = self.add("BinaryOp", [x, mean], "0=1")
        normed = self.add("Normalize", [centred], f"0=0 1=1 2={count * 1e-6:g} 3=1 4=1 9=0")
        self.weights.append(Weight("", (math.sqrt(count),)))
        scaled = self.add("Scale", [normed], f"0={count} 1=1")
        for tensor in (layer.weight, layer.bias):
            self.weights.append(Weight(self.keys[id(tensor)]))
        return scaled

    def layout(self, outputs: Sequence[str], stops: Sequence[str] = ()) -> Layout:
        """The graph. A value that several layers read is split, as ncnn wants it."""
        readers: dict[str, int] = {}
        for _, sources, _, _ in self.layers:
            for name in sources:
                readers[name] = readers.get(name, 0) + 1
        copies: dict[str, list[str]] = {}
        rows: list[str] = []
        count = 0
        for kind, sources, made, parameters in self.layers:
            read = [copies[name].pop(0) if name in copies else name for name in sources]
            rows.append(_row(kind, len(rows), read, made, parameters))
            count += len(made)
            for name in made:
                if readers.get(name, 0) > 1:
                    copies[name] = [f"{name}.{i}" for i in range(readers[name])]
                    rows.append(_row("Split", len(rows), [name], copies[name], ""))
                    count += readers[name]
        inputs = tuple(made[0] for kind, _, made, _ in self.layers if kind == "Input")
        text = "\n".join(["7767517", f"{len(rows)} {count}", *rows, ""])
        return Layout(text, tuple(self.weights), inputs, tuple(outputs), tuple(stops))


def _row(kind: str, index: int, sources: Sequence[str], made: Sequence[str], said: str) -> str:
    names = " ".join([*sources, *made])
    return f"{kind} {index} {len(sources)} {len(made)} {names} {said}".rstrip()
