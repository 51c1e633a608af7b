"""ICC profiles that are built here, so that no file is needed."""

from __future__ import annotations

import struct

import numpy as np


def gray_profile(gamma: float) -> bytes:
    """A gray profile of version 2 (ICC.1:2001): a white point and a power curve."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + bytes(79)
    tags = ((b"wtpt", white), (b"kTRC", curve), (b"desc", description))
    table, body, start = struct.pack(">I", 3), b"", 128 + 4 + 36
    for name, content in tags:
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def cmyk_profile() -> bytes:
    """A printer's profile (ICC.1:2001) with one table of 2 nodes per axis: paper white to black."""

    def lut(inputs: int, outputs: int, table: np.ndarray) -> bytes:
        identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
        ramp = struct.pack(">2H", 0, 65535)
        head = (
            b"mft2\0\0\0\0" + struct.pack(">BBBx", inputs, outputs, 2) + identity + struct.pack(">HH", 2, 2)
        )
        return head + ramp * inputs + table.astype(">u2").tobytes() + ramp * outputs

    ink = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    light = 100 * (1 - ink[:, 3]) * (1 - ink[:, :3] @ (0.3, 0.4, 0.1))
    a = (1 - ink[:, 3]) * (-30 * ink[:, 0] + 60 * ink[:, 1])
    b = (1 - ink[:, 3]) * (-40 * ink[:, 0] + 80 * ink[:, 2])
    table = np.stack((light * 652.8, (a + 128) * 256, (b + 128) * 256), axis=1)
    forth, back = lut(4, 3, np.clip(table, 0, 65280)), lut(3, 4, np.zeros((8, 4)))
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    description = b"desc\0\0\0\0" + struct.pack(">I", 6) + b"press\0" + bytes(80)
    contents, body, start = struct.pack(">I", 4), b"", 128 + 4 + 48
    for name, content in ((b"desc", description), (b"wtpt", white), (b"A2B0", forth), (b"B2A0", back)):
        contents += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + contents + body
