"""A child of ``limited_process`` that follows instructions, including harmful ones."""

import os
import signal
import threading
from contextlib import suppress

from beamlabel.transforms.worker import limited_process
from beamlabel.transforms.worker.limited_child import Requests, limit


def main(parent: int) -> None:
    requests = Requests(parent)

    def answer(words: bytes, data: bytes) -> tuple[bytes, memoryview | None]:
        if words == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif words == b"exit":
            os._exit(3)
        elif words == b"hang":
            threading.Event().wait()
        elif words == b"spin":
            limit(-2, 1 << 30)  # no second is left
            while True:
                pass
        elif words == b"fill":
            limit(60, 64 << 20)
            with suppress(MemoryError):
                return bytes(bytearray(256 << 20)[:1]), None
            return b"MemoryError", None
        elif words == b"lock":
            requests.wait_for_lock()
        elif words == b"much":
            return bytes(2 << 20), None
        elif words == b"print":
            print("to the standard output", flush=True)
            os.write(1, b"and again")
        elif words == b"write":
            requests._send(limited_process.HEAD.pack(b"?", 0))
        elif words == b"short":
            return b"", memoryview(bytes(3))
        elif words.startswith(b"{"):  # an image to decode
            os.kill(os.getpid(), signal.SIGSEGV)
        return words + data, memoryview(data) if data else None

    requests.serve(answer)
