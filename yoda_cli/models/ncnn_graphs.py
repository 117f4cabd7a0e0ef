"""The graphs that the package ships beside its weights, from our compact networks' modules.

Written layer by layer in ncnn's text format, in the order of the networks' ``forward``. Of a model:
``encoder``: ``x`` (4, h, w), the LR picture minus 0.5 and a plane of the strength, and ``up``
(3, H, W), its bicubic enlargement → ``difficulty`` (1, h, w) before its softplus, ``base``
(3, H, W), ``features`` (C, h, w). ``restorer`` (where there is one): ``lr`` (3, h, w)
→ ``picture`` (3, H, W). ``denoiser``: ``state`` (n, H, W), ``time`` (D,) as
sines and cosines, and ``features`` → ``z_0`` (3, H, W). h and w divide by the stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.graphs import SUFFIX, Layout, write_graphs
from yoda_cli.models.loading import find_model
from yoda_cli.models.ncnn_network import RESTORER
from yoda_cli.models.ncnn_writer import Writer
from yoda_cli.models.nets import sr3, srdiff
from yoda_cli.models.nets.encoder import DIFFICULTY_SHIFT, FULL, SMOOTH
from yoda_cli.models.nets.restorer import Restorer
from yoda_cli.models.nets.rrdb import RESIDUAL, SLOPE
from yoda_cli.models.onnx_graphs import Compact, check_exportable, facts_of
from yoda_cli.models.srdiff import SRDiff

MODELS = ("general", "face")
BLOCKS_A_STOP = 3  # residual blocks between two moments at which Ctrl-C is heard


def packaged_graphs() -> Iterator[tuple[str, bytes]]:
    """The files of graphs, and their names in ``checkpoints``."""
    for name in MODELS:
        options = UpscaleOptions(model=name, device="cpu", precision="fp32")
        net = check_exportable(find_model(options).backbone, name)
        yield f"{name}{SUFFIX}", write_graphs(dict(layouts(net)), _facts(net))


def _facts(net: Compact) -> dict[str, Any]:
    """What ``NcnnNetwork`` computes beside the graphs, in numbers."""
    facts = facts_of(net, "")
    del facts["part"]
    return facts | {
        "backbone": "srdiff" if isinstance(net, SRDiff) else "sr3",
        "time_dim": net.config.dim if isinstance(net, SRDiff) else net.config.inner_channel,
        "difficulty_shift": DIFFICULTY_SHIFT,
        "brightest": FULL * float(net.encoder.difficulty_p90),
        "smooth": SMOOTH,
    }


def layouts(net: Compact) -> Iterator[tuple[str, Layout]]:
    """The graphs of a compact network by name."""
    yield "encoder", encoder(net)
    if isinstance(net, SRDiff) and net.restorer is not None:
        yield RESTORER, restorer(net.restorer, net)
    yield "denoiser", _SRDiff(net).denoiser() if isinstance(net, SRDiff) else _SR3(net).denoiser()


def encoder(net: Compact) -> Layout:
    """``LREncoder.forward``, and what the denoiser's projection makes of it."""
    graph, part, scale = Writer(net), net.encoder, net.config.scale
    graph.take("x", "up")
    first = y = graph.conv("x", part.conv_first)
    stops = []
    for index, block in enumerate(part.trunk, 1):
        y = graph.sum(graph.conv(graph.conv(y, block.conv1, relu=True), block.conv2), y)
        if index % BLOCKS_A_STOP == 0:
            stops.append(y)
    features = graph.sum(graph.conv(y, part.conv_trunk), first)
    residual = graph.add("PixelShuffle", [graph.conv(features, part.base_head)], f"0={scale}")
    base = graph.sum("up", residual)
    hidden = graph.conv(features, part.attention_head[0], relu=True)
    made = {"difficulty": graph.conv(hidden, part.attention_head[2]), "base": base}
    if isinstance(net, SRDiff):
        seen = graph.add("BinaryOp", [graph.add("Reorg", [base], f"0={scale}")], "0=1 1=1 2=0.5")
        both = graph.add("Concat", [features, seen], "0=0")
        made["features"] = graph.conv(both, net.denoise_fn.cond_proj)
    else:
        made["features"] = graph.conv(features, net.denoise_fn.feature_proj)
    for name, value in made.items():
        graph.add("Noop", [value], names=[name])
    return graph.layout(tuple(made), stops)


def restorer(net: Restorer, whole: nn.Module) -> Layout:
    """``Restorer.forward``, a part of ``whole``."""
    graph = Writer(whole)
    graph.take("lr")
    first = y = graph.conv("lr", net.conv_first)
    stops = []
    for block in net.body:
        before = y
        for dense in block.children():
            y = _dense(graph, dense, y)
        y = graph.sum(before, y, RESIDUAL)
        stops.append(y)
    y = graph.sum(graph.conv(y, net.conv_body), first)
    y = graph.leaky(graph.add("PixelShuffle", [graph.conv(y, net.conv_up)], "0=2"), SLOPE)
    y = graph.conv(graph.conv(y, net.conv_hr, slope=SLOPE), net.conv_last)
    graph.add("PixelShuffle", [y], "0=2", names=["picture"])
    return graph.layout(["picture"], stops)


def _dense(graph: Writer, block: nn.Module, x: str) -> str:
    """``DenseBlock.forward``."""
    *inner, last = block.children()
    seen = [x]
    for conv in inner:
        seen.append(graph.conv(_joined(graph, seen), conv, slope=SLOPE))
    return graph.sum(x, graph.conv(_joined(graph, seen), last), RESIDUAL)


def _joined(graph: Writer, values: list[str]) -> str:
    return graph.add("Concat", values, "0=0") if len(values) > 1 else values[0]


class _SRDiff:
    """``SRDiffUNet.forward`` in its compact form."""

    def __init__(self, net: SRDiff) -> None:
        self.net, self.graph = net.denoise_fn, Writer(net)

    def denoiser(self) -> Layout:
        net, graph = self.net, self.graph
        graph.take("state", "time", "features")
        cells = graph.add("Reorg", ["state"], f"0={net.unshuffle}")
        x = graph.sum(graph.conv(cells, net.stem), "features")
        hidden = graph.silu(graph.linear("time", net.mlp[0]))
        time = graph.silu(graph.linear(hidden, net.mlp[2]))  # every block begins with this
        skips, stops = [], []
        for level in net.downs:
            x = self._blocks(level, x, time)
            skips.append(x)
            x = self._resampled(level, x)
        x = self._block(net.mid_block2, self._block(net.mid_block1, x, time), time)
        for level in net.ups:
            x = self._blocks(level, graph.add("Concat", [x, skips.pop()], "0=0"), time)
            x = self._resampled(level, x)
            stops.append(x)
        x = graph.conv(self._conv_block(net.final_conv[0], x), net.final_conv[1])
        graph.add("PixelShuffle", [x], f"0={net.unshuffle}", names=["z_0"])
        return graph.layout(["z_0"], stops)

    def _blocks(self, level: nn.Module, x: str, time: str) -> str:
        for block in list(level.children())[:-1]:
            x = self._block(block, x, time)
        return x

    def _resampled(self, level: nn.Module, x: str) -> str:
        last = list(level.children())[-1]
        if isinstance(last, nn.Identity):
            return x
        assert isinstance(last, (srdiff.Downsample, srdiff.Upsample))
        return self.graph.conv(x, last.conv[-1])

    def _block(self, block: nn.Module, x: str, time: str) -> str:
        assert isinstance(block, srdiff.ResnetBlock)
        graph = self.graph
        h = graph.sum(self._conv_block(block.block1, x), graph.linear(time, block.mlp[1]))
        h = self._conv_block(block.block2, h)
        is_same = isinstance(block.res_conv, nn.Identity)
        return graph.sum(h, x if is_same else graph.conv(x, block.res_conv))

    def _conv_block(self, block: nn.Module, x: str) -> str:
        assert isinstance(block, srdiff.ConvBlock)
        x = x if block.norm is None else self.graph.norm(x, block.norm)
        return self.graph.silu(self.graph.conv(x, block.block[1]))


class _SR3:
    """``SR3UNet.forward`` in its compact form."""

    def __init__(self, net: Compact) -> None:
        assert isinstance(net.denoise_fn, sr3.SR3UNet)
        self.net, self.graph = net.denoise_fn, Writer(net)

    def denoiser(self) -> Layout:
        net, graph = self.net, self.graph
        graph.take("state", "time", "features")
        x = graph.add("Reorg", ["state"], f"0={net.unshuffle}")
        mlp = net.noise_level_mlp
        noise = graph.linear(graph.silu(graph.linear("time", mlp[1])), mlp[3])
        skips: list[str] = []
        for index, layer in enumerate(net.downs):
            x = self._layer(layer, x, noise)
            if index == 0:
                x = graph.sum(x, "features")
            skips.append(x)
        stops = [x]
        for layer in net.mid:
            x = self._layer(layer, x, noise)
        for layer in net.ups:
            if isinstance(layer, sr3.ResnetBlockWithAttention):
                x = graph.add("Concat", [x, skips.pop()], "0=0")
            x = self._layer(layer, x, noise)
            stops.append(x)
        x = self._block(net.final_conv, x)
        graph.add("PixelShuffle", [x], f"0={net.unshuffle}", names=["z_0"])
        return graph.layout(["z_0"], stops)

    def _layer(self, layer: nn.Module, x: str, noise: str) -> str:
        graph = self.graph
        if isinstance(layer, nn.Conv2d):
            return graph.conv(x, layer)
        if isinstance(layer, sr3.Downsample):
            return graph.conv(x, layer.conv)
        if isinstance(layer, sr3.Upsample):
            return graph.conv(graph.add("Interp", [x], "0=1 1=2.0 2=2.0"), layer.conv)
        assert isinstance(layer, sr3.ResnetBlockWithAttention)
        block = layer.res_block
        h = graph.sum(
            self._block(block.block1, x), graph.linear(noise, block.noise_func.noise_func[0])
        )
        h = self._block(block.block2, h)
        is_same = isinstance(block.res_conv, nn.Identity)
        return graph.sum(h, x if is_same else graph.conv(x, block.res_conv))

    def _block(self, block: nn.Module, x: str) -> str:
        assert isinstance(block, sr3.Block)
        norm, _, _, conv = block.block
        return self.graph.conv(self.graph.silu(self.graph.norm(x, norm)), conv)
