"""Keys of CURVE, and peers that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq
import zmq.auth

from zdev._certificates import write_keys

from ..support import Network


class Pair:
    """A public key and its secret one, and their certificates."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(exist_ok=True)
        public, secret, self.public = write_keys(directory, name)
        self.public_path, self.secret_path = Path(public), Path(secret)
        self.secret = zmq.auth.load_certificate(secret)[1] or b""

    @property
    def both(self) -> tuple[bytes, bytes]:
        return self.public, self.secret

    def client_of(self, server_key: bytes) -> dict[str, Any]:
        """Return the options of a client of the server with that key."""
        return {
            "curve_publickey": self.public,
            "curve_secretkey": self.secret,
            "curve_serverkey": server_key,
        }

    def server(self) -> dict[str, Any]:
        return {"curve_secretkey": self.secret, "curve_server": 1}


def joined(net: Network, kind: int, address: str, **options: Any) -> zmq.Socket[bytes]:
    """Return a socket that is connected there, or tries to."""
    peer = net.socket(kind, **options)
    peer.connect(address)
    return peer
