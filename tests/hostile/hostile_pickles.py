"""Pickles that want memory, time or code; and a process that reads them under a limit.

As a program, ``named`` reads every case of ``NAMED``, and ``COUNT SEED`` that many made by chance.
It prints one JSON line per case.
"""

import io
import json
import pickle
import pickletools
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

ROOM = 1 << 30  # address space beyond what is mapped before the first case
MAGIC = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


def name(module, attribute):
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def number(value):
    return pickle.LONG1 + bytes([9]) + value.to_bytes(9, "little", signed=True)


def text(value):
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def call(module, attribute, *arguments):
    """The program that calls something of a module."""
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


def storage(key, count, kind="FloatStorage", tail=b""):
    """The program that asks for a storage of ``count`` numbers."""
    parts = text("storage"), name("torch", kind), text(key), text("cpu"), number(count), tail
    return b"(" + b"".join(parts) + b"tQ"


def tensor(key, count, size, stride):
    shape = b"(" + b"".join(map(number, size)) + b"t"
    steps = b"(" + b"".join(map(number, stride)) + b"t"
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = storage(key, count), number(0), shape, steps, b"\x89", hooks
    return call("torch._utils", "_rebuild_tensor_v2", *arguments)


def table(value):
    """The program of {"weight": value}."""
    return b"}" + text("weight") + value + b"s"


def zipped(program, *, compression=zipfile.ZIP_STORED, records=(("0", bytes(64)),)):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + program + b".")
        archive.writestr("a/byteorder", b"little")
        for key, body in records:
            archive.writestr(f"a/data/{key}", body)
        archive.writestr("a/version", b"3\n")
    return packed.getvalue()


def legacy(program, keys=(), body=b""):
    return legacy_head(program) + pickle.dumps(list(keys), 2) + body


def legacy_head(program):
    """All that stands before the keys of the storages."""
    head = b"".join(pickle.dumps(part, 2) for part in MAGIC)
    return head + b"\x80\x02" + program + b"."


def folded(levels):
    """A tuple of two of the same, ``levels`` deep: its hash takes 2^levels steps."""
    return b")" + b"q\x000h\x00h\x00\x86" * levels


COUNT = number(3 << 30)
BILLION = call("builtins", "range", number(1 << 30))
LONG_LIST = b"](" + b"K\x00" * 50_000 + b"eq\x01"
NAMED = {
    "bytearray of a number": lambda: zipped(call("builtins", "bytearray", COUNT)),
    "list of a range": lambda: zipped(call("builtins", "list", BILLION)),
    "set of a range": lambda: zipped(call("builtins", "set", BILLION)),
    "arguments that are a range": lambda: zipped(name("builtins", "set") + BILLION + b"R"),
    "inert with a range": lambda: zipped(name("lightning", "X") + BILLION + b"R"),
    "a storage made by hand": lambda: zipped(call("torch", "UntypedStorage", COUNT)),
    "a typed storage made by hand": lambda: zipped(call("torch", "FloatStorage", COUNT)),
    "a storage class": lambda: zipped(call("torch.storage", "TypedStorage", COUNT)),
    "a size of a range": lambda: zipped(call("torch", "Size", BILLION)),
    "one list copied": lambda: zipped(LONG_LIST + call("builtins", "list", b"h\x01") * 2_000),
    "a far memo": lambda: zipped(b"]r" + struct.pack("<I", 1 << 30)),
    "bytes without end": lambda: zipped(b"\x8e" + struct.pack("<Q", 1 << 40)),
    "bytearray without end": lambda: zipped(b"\x96" + struct.pack("<Q", 2 << 30)),
    "a frame without end": lambda: zipped(b"\x95" + struct.pack("<Q", 1 << 60)),
    "a long without end": lambda: zipped(b"\x8b" + struct.pack("<i", 1 << 30)),
    "a long of many digits": lambda: zipped(b"}L" + b"9" * 1_000_000 + b"L\nK\x00s"),
    "a key of many digits": lambda: zipped(
        table(tensor("0", 16, [16], [1])) + pickle.LONG4 + struct.pack("<i", 9999) + b"\x01" * 9999
        + tensor("0", 16, [16], [1]) + b"s"
    ),
    "a folded key": lambda: zipped(b"}" + folded(60) + b"K\x00s"),
    "a folded member": lambda: zipped(call("builtins", "set", b"](" + folded(60) + b"e")),
    "a folded frozen set": lambda: zipped(b"(" + folded(60) + b"\x91"),
    "a folded key of pairs": lambda: zipped(
        call("collections", "OrderedDict", b"](" + folded(60) + b"K\x00\x86e")
    ),
    "a deep key": lambda: zipped(b"}" + b")" + b"\x85" * 300_000 + b"K\x00s"),
    "a deep list": lambda: zipped(b"]" * 300_000 + b"a" * 299_999),
    "a table in itself": lambda: zipped(b"}q\x00" + text("model") + b"h\x00s"),
    "a storage larger than the file": lambda: zipped(table(tensor("0", 1 << 40, [1 << 40], [1]))),
    "a storage of the old format": lambda: legacy(
        b"}" + text("weight") + storage("0", 3 << 29, tail=b"N") + b"s", ["0"]
    ),
    "folded keys of storages": lambda: legacy_head(b"}") + b"\x80\x02](" + folded(60) + b"e.",
    "a folded protocol": lambda: pickle.dumps(MAGIC[0], 2) + b"\x80\x02" + folded(60) + b".",
    "a folded table for a protocol": lambda: (
        pickle.dumps(MAGIC[0], 2) + b"\x80\x02}" + text("a") + folded(60) + b"s."
    ),
    "a storage of less than nothing": lambda: zipped(table(tensor("0", -5, [1], [1]))),
    "a tensor larger than its storage": lambda: zipped(table(tensor("0", 16, [1 << 40], [0]))),
    "many views of one storage": lambda: zipped(
        b"}" + b"".join(text(f"w{i}") + tensor("0", 4096, [4096], [1]) + b"s" for i in range(2000)),
        records=[("0", bytes(4 * 4096))],
    ),
    "a sum over two axes": lambda: zipped(
        tensor("0", 100_000, [100_000, 1], [1, 1])
        + b"(" + tensor("0", 100_000, [1, 100_000], [1, 1]) + b"\x90",
        records=[("0", bytes(400_000))],
    ),
    "a write to all of an expanded tensor": lambda: zipped(
        tensor("0", 16, [1 << 40], [0]) + b"\x8c\x01xK\x00s" + b"K\x00K\x00s"
    ),
    "a compressed program": lambda: zipped(b"N0" * 10_000_000, compression=zipfile.ZIP_DEFLATED),
    "many sets": lambda: zipped(b"\x8f" * 3_000_000),
    "code": lambda: zipped(call("os", "system", text("false"))),
    "code by two names": lambda: zipped(
        text("os") + text("system") + b"\x93(" + text("false") + b"tR"
    ),
    "a function that is altered": lambda: zipped(
        name("torch._utils", "_rebuild_tensor_v2") + b"N}" + text("__defaults__") + b")s\x86b"
    ),
    "a class that is altered": lambda: zipped(
        name("torch", "UntypedStorage") + b"N}" + text("nbytes") + b"Ns\x86b"
    ),
    "an extension": lambda: zipped(b"\x82\x01"),
    "a buffer from elsewhere": lambda: zipped(b"\x97"),
    "an empty program": lambda: zipped(b""),
    "nothing": lambda: b"",
}  # fmt: skip


def sound(chance):
    """A checkpoint as people save them, in one of both containers."""
    state = OrderedDict((f"w{i}", torch.ones(chance.randint(1, 9), 3)) for i in range(4))
    content = {"state_dict": state, "epoch": 3, "names": {"a", "b"}, "rate": 0.1, "size": (3, 4)}
    packed = io.BytesIO()
    old = chance.random() < 0.5
    torch.save(content, packed, _use_new_zipfile_serialization=not old)
    return packed.getvalue(), old


def mutated(program, chance):
    """A pickled program with some of its bytes replaced, repeated, left out or made up."""
    program = bytearray(program)
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes]
    numbers = [struct.pack("<Q", 1 << n) for n in (7, 15, 31, 40, 62)]
    bombs = [COUNT, BILLION, folded(40), b"r\xff\xff\xff\x7f", b"\x8e" + numbers[3],
             call("builtins", "bytearray", COUNT), name("torch", "UntypedStorage")]  # fmt: skip
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(program) + 1)
        kind = chance.randrange(6)
        if kind == 0 and program:
            program[at % len(program)] = chance.randrange(256)
        elif kind == 1:
            program[at:at] = bytes(chance.choices(opcodes, k=chance.randint(1, 8)))
        elif kind == 2:
            program[at:at] = chance.choice(bombs)
        elif kind == 3:
            program[at : at + 8] = chance.choice(numbers)
        elif kind == 4:
            del program[at : at + chance.randint(1, 20)]
        else:
            part = program[at : at + chance.randint(1, 40)]
            program[at:at] = part * chance.randint(1, 50)
    return bytes(program)


def by_chance(seed):
    """One hostile file, always the same for a seed."""
    chance = random.Random(seed)
    torch.manual_seed(0)
    whole, old = sound(chance)
    if old or chance.random() < 0.2:
        return mutated(whole, chance)
    records = {}
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    program = next(key for key in records if key.endswith("data.pkl"))
    records[program] = mutated(records[program], chance)
    packed = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if chance.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(packed, "w", kind) as archive:
        for key, body in records.items():
            archive.writestr(key, body)
    return packed.getvalue()


def resident(kind):
    """Bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at most since the reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) << 10


def read_all(cases):
    """Read each case in this process, which may take ``ROOM`` more than it has."""
    from yoda_cli.errors import WeightsError
    from yoda_cli.weights.tensors import read_tensors

    torch.save({"a": torch.ones(2)}, "warm.pth")
    read_tensors(Path("warm.pth"))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    for title, body in cases:
        path = Path("case.pth")
        path.write_bytes(body)
        del body
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, hard))
        Path("/proc/self/clear_refs").write_text("5")  # a new peak
        before, began = resident("VmRSS"), time.process_time()
        try:
            found = "read"
            for value in read_tensors(path).values():
                value.float().sum()
        except WeightsError as error:
            found = f"WeightsError: {error}"
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        seconds = time.process_time() - began
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        grown = resident("VmHWM") - before
        record = {"case": title, "found": found, "seconds": seconds, "grown": grown}
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()


def outcomes(*arguments):
    """What a process of its own found in each case; the last case where the process died."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__)), *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (found[-1:], done.stderr[-500:])
    return found


if __name__ == "__main__":
    if sys.argv[1] == "named":
        wanted = sys.argv[2:] or NAMED
        read_all((title, NAMED[title]()) for title in wanted)
    else:
        count, seed = map(int, sys.argv[1:])
        read_all((n, by_chance(n)) for n in range(seed, seed + count))
