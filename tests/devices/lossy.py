"""A line that loses, changes, delays and splits bytes, between the host and a socket that an emulated board has."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Faults:
    """Chances: of a byte to be changed or lost, of a block to be held back (up to 30 ms) or cut in two; and after how
    many bytes the line is cut, so many times or (None) for good."""

    flip: float = 0.0
    drop: float = 0.0
    delay: float = 0.0
    split: float = 0.0
    cut_after: int | None = None
    cuts: int | None = None


class LossyLine:
    """url: for the host. Carries bytes to and from `port` on loopback until it is closed; once it was cut, to and from
    `then`, if that is given."""

    def __init__(self, port: int, faults: Faults, seed: int = 0, listen: int = 0, then: int = 0) -> None:
        self._faults, self._random, self._port = faults, random.Random(seed), port
        self.carried = self.changed = self._cuts = 0
        self._then = then or port
        self._listener = socket.create_server(("127.0.0.1", listen))
        self.url = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                host, _ = self._listener.accept()
                board = self._board()
            except OSError:
                return
            with host, board:
                self._carry(host, board)

    def _board(self) -> socket.socket:
        """QEMU may not listen yet."""
        for _ in range(500):
            try:
                return socket.create_connection(("127.0.0.1", self._then if self._cuts else self._port))
            except OSError:
                time.sleep(0.02)
        raise OSError("nobody listens")

    def _carry(self, host: socket.socket, board: socket.socket) -> None:
        for end in (host, board):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            for source in select.select([host, board], [], [])[0]:
                target = board if source is host else host
                try:
                    data = source.recv(4096)
                    if not data or self._is_cut():
                        return
                    self.carried += len(data)
                    self._pass_on(target, self._damaged(data))
                except OSError:
                    return

    def _is_cut(self) -> bool:
        after, most = self._faults.cut_after, self._faults.cuts
        if after is None or self.carried <= after * (self._cuts + 1 if most else 1) or self._cuts == most:
            return False
        self._cuts += 1
        return True

    def _damaged(self, data: bytes) -> bytes:
        kept = bytearray()
        for byte in data:
            chance = self._random.random()
            self.changed += chance < self._faults.drop + self._faults.flip
            if chance < self._faults.drop:
                continue
            flipped = chance < self._faults.drop + self._faults.flip
            kept.append(byte ^ self._random.randrange(1, 256) if flipped else byte)
        return bytes(kept)

    def _pass_on(self, target: socket.socket, data: bytes) -> None:
        if self._random.random() < self._faults.delay:
            time.sleep(self._random.random() * 0.03)
        if len(data) > 1 and self._random.random() < self._faults.split:
            middle = self._random.randrange(1, len(data))
            target.sendall(data[:middle])
            time.sleep(0.002)
            data = data[middle:]
        target.sendall(data)
