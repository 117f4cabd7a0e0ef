"""Where the network runs: windows, partitions, plans and their cost.

Pure: knows no network, no options and no file. One word for each thing: a *window* is any
rectangle of a canvas; a *tile* is a core and the window that one network call computes for it; a
*block* is a large tile that is a trajectory of its own, from noise to picture. Tiles of a block
are fused at every step, blocks are blended once.
"""

from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.geometry import Geometry
from yoda_cli.tiling.plan import Plan, TileChoice, make_plan, window_plan
from yoda_cli.tiling.windows import Tile, Window, make_tiles

__all__ = [
    "Costs",
    "Geometry",
    "Plan",
    "Tile",
    "TileChoice",
    "Window",
    "make_plan",
    "make_tiles",
    "window_plan",
]
