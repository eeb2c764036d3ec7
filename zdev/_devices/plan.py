"""What a socket of a device is to be: its options, binds and connects."""

from __future__ import annotations

import errno
from typing import Any, Literal

import zmq

from zdev._certificates import Key, Keys, PathLike
from zdev._names import Named, option
from zdev._zap import Allowed

from . import security
from .resolving import EVERY
from .security import Passwords, Who

__all__ = ["Plans", "SocketPlan"]


class SocketPlan:
    """The configuration of one socket, in the order in which it was given.

    The methods only note what they are told. Their docstrings are those of the devices' methods
    that are made from them (`bind_in` and its kin), which also do it while the device runs.
    """

    def __init__(self) -> None:
        self.binds: list[str] = []
        self.connects: list[str] = []
        self.names: dict[str, float] = {}
        """Those of them that are looked up, and after how many seconds again."""
        self.sockopts: list[tuple[int, Any]] = []
        self.allowed: Allowed | None = None
        """Who is let in; None: whoever the mechanism lets in."""

    @property
    def mechanism(self) -> str:
        """How peers are to prove who they are: "NULL" (not at all), "PLAIN" or "CURVE"."""
        return security.mechanism(self.sockopts)

    def __bool__(self) -> bool:
        """Whether anything is planned."""
        return bool(self.binds or self.connects or self.sockopts or self.allowed)

    def copy(self) -> SocketPlan:
        """Return a plan that may be changed without changing this one."""
        plan = SocketPlan()
        plan.binds, plan.connects = self.binds.copy(), self.connects.copy()
        plan.names = self.names.copy()
        plan.sockopts, plan.allowed = self.sockopts.copy(), self.allowed
        return plan

    def bind(self, addr: str) -> None:
        """Bind the socket to an address, such as ``tcp://127.0.0.1:5555``.

        Before the start, this is noted and done then; while the device runs, it is done at once, on
        the device's own thread, and its error is raised here. See zmq_bind(3).

        Parameters
        ----------
        addr : str
            Where to bind; ``endpoints`` tells what a wildcard such as ``tcp://*:*`` became.

        Raises
        ------
        zmq.ZMQError
            For what is no address: EINVAL, EPROTONOSUPPORT or ENAMETOOLONG; before the start, too.
        """
        self.binds.append(addr)

    def connect(
        self,
        addr: str,
        *,
        resolve: Literal["first", "all"] = "first",
        every: float | None = None,
    ) -> None:
        """Connect the socket to an address, or to all that its name has.

        Before the start, this is noted and done then; while the device runs, it is done at once, on
        the device's own thread, and its error is raised here. See zmq_connect(3).

        Parameters
        ----------
        addr : str
            What to connect to.
        resolve : {"first", "all"}
            What a name of a host stands for, in ``tcp://name:port``. "first" (the default): its
            first address, which libzmq looks up when it connects. "all": all addresses that it has,
            those of IPv6 only if the socket has ZMQ_IPV6. A thread looks them up as soon as the
            device relays, and again and again: the socket is connected to those that are new, and
            disconnected from those that are gone, where messages on their way are lost; with
            ZMQ_IMMEDIATE, none are on their way to where nobody is. A name that cannot be looked up
            keeps what it had; the logger ``zdev`` warns of that.
        every : float, optional
            With "all", seconds from one look to the next, at least 0.1; 10 by default. Called again
            for the same name, this changes it.

        Raises
        ------
        zmq.ZMQError
            For what is no address: EINVAL, EPROTONOSUPPORT or ENAMETOOLONG; before the start, too.
        TypeError, ValueError
            For another `resolve` or `every`; for "all" with what is not ``tcp://name:port``; and if
            the socket is connected to that address already, in the other way.
        """
        if resolve == "all":
            self.names[addr] = EVERY if every is None else every
            if addr in self.connects:
                return
        else:
            self.names.pop(addr, None)  # the list of connects may have been emptied by hand
        self.connects.append(addr)

    def unbind(self, addr: str) -> None:
        """Undo a bind, before the start or while the device runs. See zmq_unbind(3).

        When this returns, the address is free; peers that had come there are cut off.

        Parameters
        ----------
        addr : str
            As it was given to bind, or as ``endpoints`` shows it.

        Raises
        ------
        zmq.ZMQError
            ENOENT, if the socket is not bound there.
        """
        self._forget(self.binds, addr)

    def disconnect(self, addr: str) -> None:
        """Undo a connect, before the start or while the device runs. See zmq_disconnect(3).

        Parameters
        ----------
        addr : str
            As it was given to connect.

        Raises
        ------
        zmq.ZMQError
            ENOENT, if the socket is not connected there.
        """
        self._forget(self.connects, addr)
        self.names.pop(addr, None)

    def setsockopt(self, opt: Named, value: Any) -> None:
        """Set an option of the socket. See zmq_setsockopt(3).

        Before the start, this is noted and done then, before any bind or connect; while the device
        runs, it is done at once, on the device's own thread, and its error is raised here.

        Parameters
        ----------
        opt : int or str
            The option, such as ``zmq.ROUTING_ID``, or its name in capital or small letters.
        value : int, bytes or str
            ``str`` is set as UTF-8.

        Raises
        ------
        TypeError, ValueError
            If there is no such option, or it takes another type of value; before the start, too.
        zmq.ZMQError
            EINVAL, if the socket does not take the value or the option cannot be set.
        """
        self.sockopts.append((option(opt, "opt"), value))

    def curve_server(self, keys: Keys) -> None:
        """Let the socket be a server of CURVE: what comes and goes is encrypted and authenticated.

        Peers that do not know the public key get nowhere. Any that do come in, unless a list of
        `allow` says who may. A socket is either server or client, for all its binds and connects.
        Over inproc nothing is encrypted and nobody is asked.

        Parameters
        ----------
        keys : str, path, or tuple of a public key and its secret key
            The path is that of a secret certificate, as ``zdev keygen`` or `zmq.auth` write it. It
            is read now. Keys are 40 characters each.

        Raises
        ------
        OSError
            If the file cannot be read; PermissionError also if others than its owner could.
        TypeError, ValueError
            For what is no pair of keys.
        NotImplementedError
            If this libzmq has no CURVE.
        RuntimeError
            If the device runs, and the socket is bound or connected, where this would not hold.
        """
        self._secure("curve_server", keys)

    def curve_client(self, keys: Keys, server_key: Key | PathLike) -> None:
        """Let the socket be a client of CURVE, which connects to servers with this key only.

        Parameters
        ----------
        keys : str, path, or tuple of a public key and its secret key
            Its own, as for a server; by the public one, servers may know it.
        server_key : str, bytes or path
            The server's public key, or the path of its public certificate.

        Raises
        ------
        OSError
            If a file cannot be read; PermissionError also if others than its owner could read keys.
        TypeError, ValueError
            For what are no keys.
        NotImplementedError
            If this libzmq has no CURVE.
        RuntimeError
            If the device runs, and the socket is bound or connected, where this would not hold.
        """
        self._secure("curve_client", keys, server_key)

    def plain_server(self, passwords: Passwords) -> None:
        """Let the socket be a server of PLAIN, which lets in who has one of these passwords.

        Nothing is encrypted, the passwords neither: on a network, use CURVE.

        Parameters
        ----------
        passwords : mapping of str to str
            By user name, 1 to 255 bytes each in UTF-8. `allow` replaces them.

        Raises
        ------
        TypeError, ValueError
            For what are no names and passwords.
        RuntimeError
            If the device runs, and the socket is bound or connected, where this would not hold.
        """
        self._secure("plain_server", passwords)

    def plain_client(self, username: str, password: str) -> None:
        """Let the socket be a client of PLAIN, which tells servers this name and password.

        Nothing is encrypted, the password neither: on a network, use CURVE.

        Parameters
        ----------
        username, password : str
            1 to 255 bytes each in UTF-8.

        Raises
        ------
        TypeError, ValueError
            For what cannot be a name or password.
        RuntimeError
            If the device runs, and the socket is bound or connected, where this would not hold.
        """
        self._secure("plain_client", username, password)

    def allow(self, who: Who) -> None:
        """Let in at the socket, which is a server of CURVE or PLAIN, nobody but these.

        While the device runs, this replaces the list at once. Who is in stays in: libzmq cannot cut
        off one peer. Who is refused is logged.

        Parameters
        ----------
        who : path, iterable of keys and paths, or mapping of str to str
            For CURVE, a directory, of which each file ``*.key`` is a public certificate, or public
            keys and paths of certificates. They are read now, and again when this is called again.
            For PLAIN, passwords by user name. An empty one lets nobody in.

        Raises
        ------
        OSError
            If a file or directory cannot be read. Whatever is raised, the list is as it was.
        TypeError, ValueError
            For what is no key, name or password; from the start on, for a list that is of another
            mechanism than the socket.
        RuntimeError
            If the device runs, and the socket is bound or connected without a list, where one would
            not hold; of the start, if the context has a ZAP handler that is not zdev's.
        NotImplementedError
            If this libzmq has no CURVE, or is older than 4.3.
        """
        self._secure("allow", who)

    def _secure(self, verb: str, *args: Any) -> None:
        options, allowed = security.options_of(verb, *args)
        self.sockopts[:] = security.renewed(self.sockopts, options)
        self.allowed = allowed or self.allowed

    @staticmethod
    def _forget(addresses: list[str], addr: str) -> None:
        if addr not in addresses:
            known = ", ".join(map(repr, addresses)) or "none"
            raise zmq.ZMQError(errno.ENOENT, f"no such address: {addr!r}; those planned: {known}")
        addresses.remove(addr)


class Plans(dict[str, SocketPlan]):
    """The plans of all sockets of a device, by role: in, out, mon and ctrl."""

    def copy(self) -> Plans:
        """Return plans that may be changed without changing these."""
        return Plans((role, plan.copy()) for role, plan in self.items())

    def note(self, role: str, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Plan what one of `SocketPlan`'s verbs says for the socket of that role."""
        getattr(self[role], verb)(*args, **kwargs)
