"""Notices when another worker is gone, and ends this process with a message: a sum over workers waits forever for one
that will never answer.

The first worker listens, the others hold a connection to it all the time. The system closes the connections of a
process that dies, however it dies, and finds out within seconds when a whole host is gone; the first worker tells the
others. Nothing is sent otherwise, so a worker that computes for minutes without a word counts as alive.
"""

import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.common.errors import UserError
from models.common.launch.local_devices import host_ip, is_ip
from models.common.launch.rank_table import read_rank_table
from models.common.train.workers import Workers

LOST_EXIT_CODE = 3
CONNECT_SECONDS, GREETING_SECONDS = 60.0, 5.0
# Of a silent connection: asked for a sign of life every 2 seconds, given up behind 5 without one.
KEEPALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 5}
GOODBYE = -1  # sent instead of the number of a lost worker
_NUMBER = struct.Struct("!i")


class Watch:
    """Watches from when it is made until it is closed. lost: called with a message, in a thread of its own; it must end
    the process."""

    def __init__(self, workers: Workers, lost: Callable[[str], None] | None = None) -> None:
        self._workers, self._lost = workers, lost or end_process
        self._over = False
        self._noticing = threading.Lock()  # one loss counts: who is told of it ends, which is no second one
        self._peers: dict[int, socket.socket] = {}
        if workers.size > 1:
            self._connect()
            for rank, peer in self._peers.items():
                threading.Thread(target=self._listen, args=(rank, peer), name=f"watch-{rank}", daemon=True).start()

    def close(self) -> None:
        """The work is done: what happens to the others from here on is none of this one's business."""
        self._over = True
        for peer in self._peers.values():
            _send(peer, GOODBYE)

    def _connect(self) -> None:
        own = socket.create_server(("", 0)) if self._workers.rank == 0 else None
        host = own_address(self._workers.rank)
        address = struct.unpack("!I", socket.inet_aton(host))[0]
        port = own.getsockname()[1] if own else 0
        address, port = self._workers.broadcast(np.array([address, port], np.int64)).tolist()
        if own is None:
            peer = socket.create_connection((socket.inet_ntoa(struct.pack("!I", address)), port), CONNECT_SECONDS)
            _keep_alive(peer)
            _send(peer, self._workers.rank)
            self._peers[0] = peer
            return
        with own:
            own.settimeout(CONNECT_SECONDS)
            while len(self._peers) < self._workers.size - 1:
                try:
                    peer = own.accept()[0]
                except TimeoutError:
                    missing = sorted({*range(1, self._workers.size)} - {*self._peers})
                    raise UserError(f"workers {missing} cannot reach {host}, port {port}; is there a "
                                    "firewall between the hosts?") from None  # fmt: skip
                peer.settimeout(GREETING_SECONDS)
                rank = _receive(peer)
                if rank in range(1, self._workers.size):
                    _keep_alive(peer)
                    self._peers[rank] = peer
                else:  # somebody who tries out ports
                    peer.close()

    def _listen(self, rank: int, peer: socket.socket) -> None:
        """Wait for the first word of a peer: a goodbye, the number of a lost worker, or that it is gone itself."""
        number = _receive(peer)
        with self._noticing:
            if number == GOODBYE or self._over:
                return
            self._over = True
        gone = rank if number is None else number
        for other, connection in self._peers.items():
            if other != rank:
                _send(connection, gone)
        self._lost(f"worker {gone} is gone; see its log. All stop; start the same command again to go on")


def own_address(rank: int) -> str:
    """This host's IPv4 address as the others see it: of the interface that leads to the scheduler, or that of the
    server with this rank in the rank table; the loopback's where there are no others. Raises `UserError`."""
    scheduler = os.environ.get("MS_SCHED_HOST")
    if scheduler is None:
        table = os.environ.get("RANK_TABLE_FILE")
        servers = read_rank_table(Path(table)).servers if table else ()
        if len(servers) < 2:
            return "127.0.0.1"
        own = next(server.server_id for server in servers if rank in {each.rank_id for each in server.devices})
        return own if is_ip(own) and ":" not in own else host_ip()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((scheduler, int(os.environ.get("MS_SCHED_PORT", "9"))))
        return probe.getsockname()[0]


def end_process(message: str) -> None:
    """Leave at once: the main thread may be inside a sum that will never end."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(LOST_EXIT_CODE)


def _keep_alive(peer: socket.socket) -> None:
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(peer: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # it is gone too, and whoever listens to it knows
        peer.sendall(_NUMBER.pack(number))


def _receive(peer: socket.socket) -> int | None:
    """The next number; None when the connection has ended."""
    try:
        data = peer.recv(_NUMBER.size, socket.MSG_WAITALL)
    except OSError:
        data = b""
    return _NUMBER.unpack(data)[0] if len(data) == _NUMBER.size else None
