"""Which device and precision to compute in, and what to do when memory runs out.

Knows no network. A new kind of device is added here and nowhere else.
"""

from yoda_cli.devices.device import autocast, pick_device, pick_precision, upload
from yoda_cli.devices.out_of_memory import Counter, Recovered, run_with_less_memory

__all__ = [
    "Counter",
    "Recovered",
    "autocast",
    "pick_device",
    "pick_precision",
    "run_with_less_memory",
    "upload",
]
