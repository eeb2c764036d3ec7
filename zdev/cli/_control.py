"""The control socket of ``zdev run``: where one file's run is asked to read that file again.

It is a socket of its user's alone, in a folder of its user's alone, by a name that is made of the
file's real path. Where that is not the path that the run was given, another name leads there: a
link in the path may since point to another version of the file, as deployments have it. A request
is one line of JSON, and so is the answer.

A service has its folder from systemd, and often a user of its own. So who asks looks there, too,
and does not mind whose the folder is, if RUNTIME_DIRECTORY names it or only root could make it;
the socket lets in none but its user and root.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

__all__ = ["ControlError", "Listener", "ask", "only_run", "path_of"]

LONGEST = 1 << 20  # bytes of a request
PATIENCE = 1.0  # seconds for a client that has connected to say what it wants
SERVICE = Path("/run/zdev")  # the folder of a service with RuntimeDirectory=zdev


class ControlError(Exception):
    """What keeps a run from being asked, or from being there to be asked."""


def path_of(file: str) -> Path:
    """Return the path of the control socket for a configuration file."""
    return _folder() / _name(os.path.realpath(file))


def _alias_of(file: str) -> Path:
    """Return the path of a link to that, by the file's path as it was given."""
    return _folder() / _name(os.path.abspath(file))


def _name(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16] + ".sock"


def _given() -> str:
    """Return the folder that systemd has made for this service, or that a user has named."""
    return os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]


def _asked() -> list[Path]:
    """Return the folders in which to look for a run."""
    if _given():
        return [Path(_given())]
    try:
        return [_folder(), SERVICE]
    except ControlError:
        if not SERVICE.is_dir():
            raise
        return [SERVICE]


def _folder() -> Path:
    """Return the runtime folder, which is made if it is not there; nobody else's will do."""
    given = _given()
    user = os.environ.get("XDG_RUNTIME_DIR", "")
    if given:  # systemd's, for this unit
        folder = Path(given)
    elif os.path.isabs(user):  # any other is to be ignored, says its specification
        folder = Path(user) / "zdev"
    else:
        try:
            folder = Path(tempfile.gettempdir()) / f"zdev-{os.getuid()}"
        except FileNotFoundError:  # nothing can be written to, as in some containers
            words = "there is no folder for the control socket; RUNTIME_DIRECTORY can name one"
            raise ControlError(words) from None
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        found = folder.lstat()
    except OSError as error:
        raise ControlError(f"cannot have the folder {folder}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ControlError(f"{folder} is not a folder that only you can write to; remove it")
    return folder


class Listener:
    """The socket on which a run is asked.

    Raises
    ------
    ControlError
        If another run of that file is there.
    """

    def __init__(self, file: str) -> None:
        self.path, self._alias = path_of(file), _alias_of(file)
        if _answers(self.path) or _answers(self._alias):
            raise ControlError(f"another zdev run has {file}")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        try:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()  # of one that was killed
            mask = os.umask(0o177)
            try:
                self._socket.bind(str(self.path))
            finally:
                os.umask(mask)
            if self._alias != self.path:
                with contextlib.suppress(FileNotFoundError):
                    self._alias.unlink()
                self._alias.symlink_to(self.path)
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            raise ControlError(f"cannot listen at {self.path}: {error.strerror or error}") from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def serve(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer one who has come."""
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        with client, contextlib.suppress(OSError, ValueError, RecursionError):
            request = json.loads(_line(client, PATIENCE))
            if isinstance(request, dict):
                client.settimeout(PATIENCE)
                client.sendall(json.dumps(answer(request)).encode() + b"\n")

    def close(self) -> None:
        self._socket.close()
        for path in {self.path, self._alias}:
            with contextlib.suppress(OSError):
                path.unlink()


def _answers(path: Path) -> bool:
    answers = False
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):  # it is too long
        answers = probe.connect_ex(str(path)) == 0
    return answers


def _line(client: socket.socket, timeout: float | None) -> bytes:
    """Receive a line, which has to be whole in so many seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    received = b""
    while not received.endswith(b"\n") and len(received) < LONGEST:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise socket.timeout
            client.settimeout(left)
        more = client.recv(65536)
        if not more:
            break
        received += more
    return received


def ask(file: str, request: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """Ask the run of a file something, and return its answer.

    Raises
    ------
    ControlError
        If there is no such run.
    TimeoutError
        If it has not answered in so many seconds.
    """
    names = _name(os.path.realpath(file)), _name(os.path.abspath(file))
    return _ask([folder / name for folder in _asked() for name in names], file, request, timeout)


def only_run() -> str:
    """Return the file of the only run of this user.

    Raises
    ------
    ControlError
        If there is none, or several.
    """
    files: set[str] = set()  # a run of which the file was given by a link has two names here
    for path in (path for folder in _asked() for path in folder.glob("*.sock")):
        with contextlib.suppress(ControlError, TimeoutError):
            file = _ask([path], str(path), {"verb": "file"}, PATIENCE).get("file")
            if isinstance(file, str):
                files.add(file)
    if len(files) == 1:
        return files.pop()
    if not files:
        raise ControlError("there is no zdev run of yours; name the file of one, or an address")
    raise ControlError(f"there are several; name one of {', '.join(sorted(files))}")


def _ask(
    paths: list[Path], file: str, request: dict[str, Any], timeout: float | None
) -> dict[str, Any]:
    """Ask at the first of these paths where a run listens."""
    problem = f"there is no zdev run of {file}"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        try:
            for path in paths:
                failed = client.connect_ex(str(path))
                if not failed:
                    break
                if failed not in (errno.ENOENT, errno.ECONNREFUSED):
                    problem = f"cannot ask at {path}: {os.strerror(failed)}"
            else:
                raise ControlError(problem)
            client.sendall(json.dumps(request).encode() + b"\n")
            received = _line(client, timeout)
        except socket.timeout:  # before Python 3.10, it is no TimeoutError
            raise TimeoutError(f"the run of {file} has not answered in {timeout:g} s") from None
        except OSError as error:
            raise ControlError(f"cannot ask the run of {file}: {error.strerror or error}") from None
    try:
        answer = json.loads(received)
    except (ValueError, RecursionError):
        raise ControlError(f"the run of {file} ended before it answered") from None
    if not isinstance(answer, dict):
        raise ControlError(f"what answers for {file} is no zdev run")
    return answer
