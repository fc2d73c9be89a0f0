"""Being connected to Ray: to the cluster that RAY_ADDRESS or `ray start` on this machine names, else to one of our own.

What people's machines are known to get wrong is tried before Ray meets it, because Ray waits for minutes or shows a
traceback; whatever else it says becomes one sentence, and the rest goes to a file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import ray
from ray._common.network_utils import parse_address
from ray._common.utils import get_default_ray_temp_dir
from ray._private import node as ray_node
from ray._private import services
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import AUTH_MODE_ENV_VAR
from ray._private.node import Node
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT, PROCESS_TYPE_RAYLET
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._raylet import (  # type: ignore[attr-defined]
    DASHBOARD_AGENT_LISTEN_PORT_NAME,
    AuthenticationTokenLoader,
    Config,
    GcsClient,
    persist_port,
)
from ray.exceptions import AuthenticationError, RpcError
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from manifests.errors import KandinskyBatchError, UsageError
from workers.fault_tolerance import same_source

ADDRESS_VARIABLE = "RAY_ADDRESS"

#: Seconds in which a head that is just starting takes a connection, and in which one that took it answers, busy as it
#: may be.
ANSWER_S, BUSY_S = 8.0, 60.0

#: Seconds that a node of ours may take to start.
START_S = 300.0

#: Ray's own settings, which its processes inherit. A raylet that asks its agents something waits 30 s, and ends itself
#: then; a worker it gives 60 s to come up, and starts another one then: beside other work that might never succeed.
PATIENCE = {"RAY_agent_register_timeout_ms": "300000", "RAY_worker_register_timeout_seconds": "300"}

#: What Ray's parameters call the ports of a raylet's agents.
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")

#: Above those of Ray's workers (10002 to 19999), below those that Linux gives to who asks for any (from 32768 on).
PORTS = range(20_000, 32_768)

#: How a client of HTTP/2 begins (RFC 9113, section 3.4): the preface, and a frame of settings, which has none.
HTTP2_SETTINGS = b"\x04"
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0\0\0\0\0"

#: Seconds that a node may take to start the process that tells its source; later its actors tell.
SOURCE_S = 60.0

#: The longest path of a Unix socket, and what Ray appends to its temporary folder to make one.
SOCKET_BYTES = 107
SOCKET_BELOW = "session_2000-12-31_23-59-59_999999_4194304/sockets/plasma_store"

#: The source tree, or the folder that it was installed into.
ROOT = str(Path(__file__).resolve().parents[2])


#: Names of ports that this process has taken for its clusters, while it lives.
_taken: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens at, another one with each call in any process of ours that shares the network.

    On Linux no process that asks for any port is given it by chance, as Ray's processes do all the time.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        name = socket.socket(socket.AF_UNIX)
        with socket.socket() as free:
            # A connection that somebody has just closed holds a port for a minute, and nobody listens there.
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                if sys.platform == "linux":
                    # A socket without a file, which is gone with its process.
                    name.bind(f"\0kandinsky-batch-port-{port}")
                free.bind(("", port))
            except OSError:
                name.close()
                continue
        _taken.append(name)
        return port
    raise KandinskyBatchError(f"Ray does not start on this machine: all ports from {PORTS[0]} to {PORTS[-1]} are taken")


class PatientNode(Node):
    """A node that may take its time to start, and takes no port that a cluster beside it has or wants."""

    def start_raylet(self, *given: Any, **named: Any) -> None:
        """Start it and wait until it is there; right afterwards Ray waits for that as well, but thirty seconds only.

        The raylet ends itself where an agent does not tell its ports within fifteen seconds, which no setting changes;
        for ports that it is given it does not wait at all.
        """
        for name in AGENT_PORTS:
            if getattr(self._ray_params, name) in (None, 0, DEFAULT_DASHBOARD_AGENT_LISTEN_PORT):
                setattr(self._ray_params, name, free_port())
        # The one that no argument of the raylet names; it looks for it where the agent would tell it.
        listens = self._ray_params.dashboard_agent_listen_port
        persist_port(self._session_dir, self._node_id, DASHBOARD_AGENT_LISTEN_PORT_NAME, listens)
        super().start_raylet(*given, **named)
        (raylet,) = self.all_processes[PROCESS_TYPE_RAYLET]
        deadline = time.monotonic() + START_S
        # Asked by this client because the one that Ray asks with sleeps a second where the node is not there yet.
        head = GcsClient(address=self.gcs_address)
        while raylet.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(RpcError):
                if any(known.hex() == self._node_id for known in head.get_all_node_info()):
                    return
            time.sleep(0.02)


class OwnHead(PatientNode):
    """The head of a cluster that one run has to itself, without the processes that serve others.

    Each is a Python process of half a second of CPU or more, and Ray's start waits for one of them.
    """

    def start_monitor(self) -> None:
        """The autoscaler's monitor adds nodes where a cluster's file says how; this cluster has none."""

    def start_log_monitor(self) -> None:
        """It publishes what workers print, which this driver does not show (`log_to_driver`)."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Without a dashboard, all that runs in it reports how Ray is used, which `ray.init` has switched off."""


class ScriptsCode(JobConfig):
    """Tells workers to look for modules where the script has its own, and not in the folder that a person stands in."""

    def __init__(self) -> None:
        super().__init__(_py_driver_sys_path=[ROOT])

    def _runtime_env_has_working_dir(self) -> bool:
        # Ray asks before it puts the current folder, and that of the script, in front of everything.
        return True


def connect(tell: Callable[[str], None]) -> None:
    """Join or start Ray, without a word on the terminal.

    There is no runtime_env here: a field that `ray job submit` has set as well would be refused.

    Raises:
        UsageError: it cannot be, whatever one waits for; the text says what to do.
        KandinskyBatchError: no cluster answers, or Ray does not start.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Workers of a cluster started here inherit this. Those of a cluster that was there before hear of it by the
    # job's config.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    address = _address()
    if address is not None and not _answers(address):
        if os.environ.get(ADDRESS_VARIABLE, "auto") not in ("", "auto"):
            raise KandinskyBatchError(
                f"no Ray cluster answers at {address}, the {ADDRESS_VARIABLE} of the environment; start it, correct "
                f"the address, or unset {ADDRESS_VARIABLE} to use this machine alone"
            )
        tell(f"the Ray cluster that was started on this machine ({address}) does not answer; starting another one")
        address = None
    if address is None:
        check_temporary_folder()
        _bring_token()
    else:
        _check_node_here(address)
        _authenticate_as(address)
    _init(address)


def starts_own() -> bool:
    """Whether `connect` would start a cluster here, and join none.

    Raises:
        UsageError, KandinskyBatchError: as `connect`.
    """
    return _address() is None


def is_own() -> bool:
    """Whether the cluster that this process is connected to is one that it has started."""
    head = ray_worker._global_node
    return isinstance(head, OwnHead) and bool(head.head)


def check_source() -> None:
    """Make sure that every node would import the source that this process has imported.

    Nodes that do not answer in time are left to the attempts actor (workers/fault_tolerance/attempts.py), which every
    process of a stage asks at its start.

    Raises:
        UsageError: a node has another one, or none.
    """
    ours = same_source.own_source()
    ray.cloudpickle.register_pickle_by_value(same_source)
    try:
        tell_source = ray.remote(num_cpus=0)(same_source.find_source)
        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                asked[tell_source.options(scheduling_strategy=there).remote()] = node["NodeManagerAddress"]
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=SOURCE_S)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(same_source)
    for answer in answered:
        try:
            theirs = ray.get(answer)
        except ray.exceptions.RayError:
            # Gone, or too sick to say; the run meets that in its own way.
            continue
        if (words := same_source.difference(f"node {asked[answer]}", theirs, ours)) is not None:
            raise UsageError(words)


def _address() -> str | None:
    """Where Ray would look for a cluster, as host:port; None where it would start one."""
    given = os.environ.get(ADDRESS_VARIABLE, "")
    if given.startswith(("http://", "https://")):
        raise UsageError(
            f"{ADDRESS_VARIABLE}={given} is the address of a dashboard, which takes `ray job submit`; unset it on a "
            "node of the cluster, or give the address of the cluster itself, as in 10.0.0.1:6379"
        )
    if "://" in given:
        raise UsageError(
            f"{ADDRESS_VARIABLE}={given} asks for Ray Client, which cannot carry this job; send it with "
            "`ray job submit`, or start it on a node of the cluster"
        )
    try:
        found = services.canonicalize_bootstrap_address(None)
        if found is not None and not 0 < int((parse_address(found) or ("", ""))[1]) < 65536:
            raise ValueError(found)
    except ValueError as error:
        raise UsageError(
            f"{ADDRESS_VARIABLE}={given} is no address of a Ray cluster; give host:port, as in 10.0.0.1:6379, or unset "
            "it to use this machine alone"
        ) from error
    except ConnectionError as error:
        raise KandinskyBatchError(
            f"{ADDRESS_VARIABLE}={given} asks for the Ray of this machine, and none is running; start one with "
            f"`ray start --head`, or unset {ADDRESS_VARIABLE}"
        ) from error
    except OSError as error:
        raise _unusable(error) from error
    return found


def _answers(address: str) -> bool:
    """True where something answers as a Ray head would, which may just be starting."""
    deadline = time.monotonic() + ANSWER_S
    while not _speaks_http2(address):
        if time.monotonic() + 0.5 > deadline:
            return False
        time.sleep(0.5)
    return True


def _speaks_http2(address: str) -> bool:
    """True where a server opens a conversation in HTTP/2, which is what gRPC speaks."""
    host, port = parse_address(address)
    try:
        # No proxy of the environment is asked; Ray does not ask them either.
        with socket.create_connection((host, int(port)), ANSWER_S) as there:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                # The handshake is Ray's own.
                return True
            there.settimeout(BUSY_S)
            there.sendall(HTTP2_HELLO)
            return there.recv(4)[3:] == HTTP2_SETTINGS
    except OSError:
        return False


def _check_node_here(address: str) -> None:
    """Ray talks to a cluster through a node of it on this machine, and would wait a minute for one."""
    deadline = time.monotonic() + ANSWER_S
    while not services.find_node_ids():
        if time.monotonic() > deadline:
            raise _no_node_here(address)
        time.sleep(0.5)


def _no_node_here(address: str) -> KandinskyBatchError:
    return KandinskyBatchError(
        f"the Ray cluster at {address} answers, but has no node on this machine; start the job on one of its nodes, "
        f"make this machine one with `ray start --address={address}`, or send the job with `ray job submit`"
    )


def check_temporary_folder() -> None:
    """Ray's folder for sockets and logs must take both.

    Raises:
        UsageError: its path is too long, or this user cannot write there.
    """
    folder = get_default_ray_temp_dir()
    bytes_needed = len(os.fsencode(os.path.join(folder, SOCKET_BELOW)))
    if bytes_needed > SOCKET_BYTES:
        raise UsageError(
            f"Ray cannot keep its sockets in {folder}: their paths would have {bytes_needed} bytes, and "
            f"Unix takes {SOCKET_BYTES}; set RAY_TMPDIR to a short folder, as in RAY_TMPDIR=/tmp"
        )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder):
            pass
    except OSError as error:
        raise _unusable(error) from error


def _unusable(error: OSError) -> UsageError:
    return UsageError(
        f"Ray cannot keep its files in {get_default_ray_temp_dir()}: {error.strerror}; set RAY_TMPDIR to a folder that "
        f"you can write to, with room for what does not fit memory"
    )


def _bring_token() -> None:
    """Where Ray cannot write the token of a new cluster into the home, this cluster has one of its own.

    Its processes inherit it, and it ends with them. Where the home can have one it is written here, in one step: two
    runs that start at once, the first ones on a machine, would each have Ray write another one over the other's, and
    half of a cluster's processes would read that.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    if (os.environ.get(AUTH_MODE_ENV_VAR) or "token") != "token":
        return
    token = secrets.token_hex(32)
    try:
        file = Path.home() / ".ray" / "auth_token"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with tempfile.NamedTemporaryFile("w", dir=file.parent) as new:
                new.write(token)
                new.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(new.name, file)
        kept = os.access(file, os.R_OK)
    except (OSError, RuntimeError):
        kept = False
    if not kept:
        os.environ["RAY_AUTH_TOKEN"] = token


def _authenticate_as(address: str) -> None:
    """Use a token where the cluster asks for one, and nowhere else, unless the environment has decided.

    Ray decides by whether the home has a token, which is there after the first cluster of one's own, and only for a
    cluster that it finds. One that was started without would take this process, but be refused whenever it asks back,
    so that the run's actors die before they run; one that wants a token, given by its address, would get none.

    Raises:
        UsageError: it wants a token that is not here.
    """
    if os.environ.get(AUTH_MODE_ENV_VAR):
        return
    if _is_let_in(address, "disabled"):
        return
    # Ray ends a process that is to bring a token and has none.
    if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True) or not _is_let_in(address, "token"):
        raise UsageError(
            f"the Ray cluster at {address} wants a token, and what is here is none or another one; put the cluster's "
            "into ~/.ray/auth_token, or into RAY_AUTH_TOKEN"
        )


def _is_let_in(address: str, mode: str) -> bool:
    os.environ[AUTH_MODE_ENV_VAR] = mode
    # This process has read it already.
    Config.initialize("")
    try:
        with _held_back_stderr():
            GcsClient(address=address).get_all_node_info(timeout=BUSY_S)
    except AuthenticationError:
        return False
    except Exception:  # what `ray.init` will meet as well, and say
        return True
    return True


def _init(address: str | None) -> None:
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "include_dashboard": False,
    }
    if RAY_JOB_CONFIG_JSON_ENV_VAR not in os.environ:
        # Under `ray job submit` the job's own config has the folder that was shipped, and another one would lose it.
        options["job_config"] = ScriptsCode()
    if address is None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
    with _held_back_stderr() as said, _own_head():
        try:
            # An address that is given is not the same to Ray as one that it finds, so it finds that again.
            ray.init(address="local" if address is None else None, **options)
        except Exception as error:  # Ray raises what it likes
            said.seek(0)
            raise _told(error, address, said.read().decode(errors="replace")) from error


@contextmanager
def _own_head() -> Iterator[None]:
    """Let `ray.init` make that kind of head, if it makes one."""
    kept, ray_node.Node = ray_node.Node, OwnHead
    try:
        yield
    finally:
        ray_node.Node = kept


def _told(error: Exception, address: str | None, said: str) -> KandinskyBatchError:
    """What Ray has raised, as one sentence."""
    words = " ".join(str(error).split()) or type(error).__name__
    if "Version mismatch" in words:
        return UsageError(
            f"the Ray cluster at {address} cannot be joined from here: {words}; use the same Ray and the same Python "
            "on both sides"
        )
    if address is not None and "node" in words and "to connect" in words:
        return _no_node_here(address)
    where = f"the Ray cluster at {address} cannot be joined" if address else "Ray does not start on this machine"
    more = ""
    with contextlib.suppress(OSError):
        number, name = tempfile.mkstemp(prefix="kandinsky-batch-ray-", suffix=".log")
        with os.fdopen(number, "w", errors="replace") as file:
            file.write(said + "".join(traceback.format_exception(error)))
        more = f" (more in {name})"
    return KandinskyBatchError(f"{where}: {words}{more}")


@contextmanager
def _held_back_stderr() -> Iterator[IO[bytes]]:
    """Keep what is written to stderr meanwhile.

    Ray's C++ part announces its log level there, and no setting keeps it from that.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield held
        finally:
            os.dup2(shown, 2)
            os.close(shown)
