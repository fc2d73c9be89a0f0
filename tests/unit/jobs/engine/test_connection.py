"""Ray's address and folders, as a machine has them, before Ray meets them."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import ray
from ray._private.node import Node
from ray._raylet import NodeID
from ray.exceptions import RpcError

from jobs.engine import connection
from manifests.errors import KandinskyBatchError, UsageError


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What connecting sets ends with the test."""
    for name in ("PYTHONPATH", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_BACKEND_LOG_LEVEL"):
        monkeypatch.setenv(name, "")


def refused(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError) as caught:
        connection.connect(print)
    return str(caught.value)


@pytest.mark.parametrize("address", ["head", "head:", "head:ray", "head:0", "head:99999", ":6379:1", "ssh://head:22"])
def test_what_is_no_address_is_refused_before_anything_waits(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(address, monkeypatch).startswith(f"RAY_ADDRESS={address} ")


@pytest.mark.parametrize("room", [0, 1])
def test_a_temporary_folder_may_be_as_long_as_rays_sockets_allow(
    room: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    longest = connection.SOCKET_BYTES - len(f"/ray/{connection.SOCKET_BELOW}")
    # Of this process alone: another suite may run on the same machine.
    folder = f"/tmp/{os.getpid()}".ljust(longest + 1 - room, "x")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    try:
        if room:
            connection.check_temporary_folder()
        else:
            with pytest.raises(UsageError, match=r"108 bytes, and Unix takes 107; set RAY_TMPDIR"):
                connection.check_temporary_folder()
    finally:
        if os.path.isdir(folder):
            os.rmdir(f"{folder}/ray")
            os.rmdir(folder)


def init_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> NoReturn:
        os.write(2, b"what Ray writes itself\n")
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "local")


def test_another_version_of_ray_is_one_sentence_with_both(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.11.7\n"
        "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    init_raises(RuntimeError(text), monkeypatch)
    with pytest.raises(UsageError) as caught:
        connection.connect(print)
    said = str(caught.value)
    assert "\n" not in said
    assert "Ray: 2.40.0" in said
    assert "Ray: 2.60.0" in said
    assert said.endswith("use the same Ray and the same Python on both sides")
    assert capfd.readouterr().err == ""


def test_whatever_else_ray_says_is_one_sentence_and_the_rest_is_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connection.tempfile, "tempdir", str(tmp_path))
    init_raises(ValueError("something\nnobody has seen"), monkeypatch)
    with pytest.raises(KandinskyBatchError, match="Ray does not start on this machine: something nobody has seen"):
        connection.connect(print)
    (log,) = tmp_path.glob("kandinsky-batch-ray-*.log")
    assert log.read_text().startswith("what Ray writes itself\nTraceback")


def test_a_home_that_takes_no_token_gets_one_that_ends_with_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    connection._bring_token()
    assert os.environ["RAY_AUTH_TOKEN"] == ""
    monkeypatch.setenv("HOME", "/proc/nowhere")
    connection._bring_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_runs_that_are_the_first_of_a_home_together_have_one_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file, link = tmp_path / ".ray" / "auth_token", os.link

    def slower_than_another(source: str, target: Path) -> None:
        file.write_text("of the other run")
        link(source, target)

    monkeypatch.setattr(os, "link", slower_than_another)
    connection._bring_token()
    assert file.read_text() == "of the other run"
    monkeypatch.setattr(os, "link", link)
    file.unlink()
    connection._bring_token()
    token = file.read_text()
    connection._bring_token()
    assert (file.read_text(), len(token), os.environ["RAY_AUTH_TOKEN"]) == (token, 64, "")
    assert os.listdir(file.parent) == ["auth_token"]


def test_a_home_gets_no_token_where_clusters_shall_have_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    connection._bring_token()
    assert not list(tmp_path.iterdir())
    assert os.environ["RAY_AUTH_TOKEN"] == ""


def test_a_head_that_is_busy_is_waited_for_longer_than_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as head:

        def answer() -> None:
            there, _ = head.accept()
            with there:
                there.recv(len(connection.HTTP2_HELLO))
                time.sleep(2 * connection.ANSWER_S)
                there.sendall(b"\0\0\0" + connection.HTTP2_SETTINGS)

        thread = threading.Thread(target=answer)
        thread.start()
        assert connection._answers(f"127.0.0.1:{head.getsockname()[1]}")
        thread.join()
    # Port 1 is nobody's.
    assert not connection._answers("127.0.0.1:1")


THIS_NODE, OTHER_NODE = NodeID.from_random(), NodeID.from_random()


class Start:
    """A node of this process whose start is told, and takes as many seconds as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ready_at: float, dies_at: float | None = None) -> None:
        self.now = 0.0
        # What the raylet's arguments say, and what it finds where the agent would tell.
        self.given: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self._ready_at, self._dies_at = ready_at, dies_at
        monkeypatch.setattr(Node, "start_raylet", lambda node: self.given.update(vars(node._ray_params)))
        monkeypatch.setattr(connection, "persist_port", self._tell)
        monkeypatch.setattr(Node, "gcs_address", "head:1")
        monkeypatch.setattr(connection, "GcsClient", lambda address: SimpleNamespace(get_all_node_info=self._nodes))
        monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep))

    def run(self, **asked: int) -> None:
        node = object.__new__(connection.PatientNode)
        process = SimpleNamespace(poll=lambda: 1 if self._dies_at is not None and self.now > self._dies_at else None)
        processes = {"raylet": [SimpleNamespace(process=process)]}
        node.__dict__.update(_node_id=THIS_NODE.hex(), _session_dir="/session", all_processes=processes)
        # As Ray has them where nobody asks for any.
        unasked = dict.fromkeys(connection.AGENT_PORTS, 0) | {"dashboard_agent_listen_port": 52365}
        node._ray_params = SimpleNamespace(**(unasked | asked))
        node.start_raylet()

    def _tell(self, session: str, node_id: str, name: str, port: int) -> None:
        assert (session, node_id) == ("/session", THIS_NODE.hex())
        self.told[name] = port

    def _nodes(self) -> dict[NodeID, None]:
        """What the head says: nothing at first, then that it knows another node, then this one as well."""
        if self.now < self._ready_at / 2:
            raise RpcError("unavailable")
        return dict.fromkeys([OTHER_NODE, THIS_NODE][: 1 + (self.now >= self._ready_at)])

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_node_may_take_minutes_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(monkeypatch, ready_at=200)
    start.run()
    assert start.now == pytest.approx(200, abs=1)


def test_a_node_that_dies_or_never_comes_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Start(monkeypatch, ready_at=1e9, dies_at=7)
    dead.run()
    assert dead.now == pytest.approx(7, abs=1)
    never = Start(monkeypatch, ready_at=1e9)
    never.run()
    assert never.now == pytest.approx(connection.START_S, abs=1)


def test_agents_have_ports_that_are_known_before_they_come_up_and_that_no_other_one_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports = []
    for _ in range(20):
        start = Start(monkeypatch, ready_at=0)
        start.run()
        assert start.given.keys() == set(connection.AGENT_PORTS)
        assert start.told == {"dashboard_agent_listen_port": start.given["dashboard_agent_listen_port"]}
        ports += start.given.values()
    assert len(set(ports)) == len(ports)
    assert set(ports) <= set(connection.PORTS)


def test_ports_that_somebody_has_asked_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(monkeypatch, ready_at=0)
    start.run(dashboard_agent_listen_port=1234, metrics_export_port=1235)
    assert (start.given["dashboard_agent_listen_port"], start.given["metrics_export_port"]) == (1234, 1235)
    assert start.told == {"dashboard_agent_listen_port": 1234}


def test_a_port_that_somebody_listens_at_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", connection.free_port())) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(connection, "PORTS", range(port, port + 1))
        with pytest.raises(KandinskyBatchError, match=f"all ports from {port} to {port} are taken"):
            connection.free_port()
