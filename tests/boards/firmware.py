"""The firmware's side of the serial protocol, in a process of its own at the other end of a pseudo-terminal.

`python firmware.py DESCRIPTOR MODEL DIGEST FAULT`: answers with a LiteRT file's own integers. FAULT spoils something.
"""

from __future__ import annotations

import os
import sys
import time
import zlib

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(descriptor: int, model: str, digest: str, fault: str) -> None:
    interpreter = Interpreter(model)
    entry, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], [1, *entry["shape"][1:]])
    interpreter.allocate_tensors()
    size = [int(np.prod(part["shape"][1:])) * np.dtype(part["dtype"]).itemsize for part in (entry, answer)]
    buffer, runs, heard = b"", 0, 0
    while True:
        while b"\n" not in buffer:
            buffer += os.read(descriptor, 1 << 12)
        line, _, buffer = buffer.partition(b"\n")
        heard += 1
        text, _, checksum = line.rpartition(b" *")
        word, _, argument = text.partition(b" ")
        if fault == "silent":
            continue
        if f"{zlib.crc32(text):08x}".encode() != checksum:
            told = "error checksum"
        elif word == b"hello":
            name = "something" if fault == "stranger" else "edgemill"
            told = f"{name} 1 model={digest} input={size[0]} output={size[1]} clock_hz=168000000 ram=2048"
        elif word == b"run" and fault != "no memory":
            runs += 1
            x = np.frombuffer(bytes.fromhex(argument.decode()), entry["dtype"]).reshape(1, *entry["shape"][1:])
            interpreter.set_tensor(entry["index"], x)
            interpreter.invoke()
            told = f"done {1000 + runs} {interpreter.get_tensor(answer['index']).tobytes().hex()}"
            told = told[:-2] if fault == "short" else told
        else:
            told = "error no memory"
        if fault == "unplugged" and runs == 3:
            sys.exit()
        spoilt = fault == "noise" and heard % 3 == 2
        mark = 0 if spoilt else zlib.crc32(told.encode())
        os.write(descriptor, (b"\x00?" if spoilt else b"") + f"{told} *{mark:08x}\n".encode())
        time.sleep(0.001)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
