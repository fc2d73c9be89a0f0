"""The ways to a cluster: a script copied alone to its head (`ray submit`), a folder that is shipped (`ray job submit`).

Nodes have the package as pip would install it, and no source tree in sight.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray._private.utils import write_ray_address

from jobs.engine.connection import free_port
from tests.nodes import ray_nodes
from tests.unit.finished_run import write_manifest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
ROWS = [{"id": f"r{i}", "task": "text2img", "prompt": f"p {i}", "seed": i, "num_images": 1} for i in range(6)]
#: A run that takes longer hangs.
RUN_LIMIT_S = 600
SMALL = ["--height", "64", "--width", "64", "--batch-size", "2"]


SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def packages() -> list[str]:
    """What setuptools finds by pyproject.toml: folders of these names that say that they are packages."""
    tops = [top for pattern in SETUPTOOLS["packages"]["find"]["include"] for top in ROOT.glob(pattern)]
    return [".".join(path.relative_to(ROOT).parent.parts) for top in tops for path in top.rglob("__init__.py")]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages folder with packages and data as pyproject.toml says, and nothing else of the source tree."""
    folder = tmp_path_factory.mktemp("site-packages")
    data = SETUPTOOLS["package-data"]
    for package in packages():
        inside = Path(*package.split("."))
        for pattern in ["*.py", *data.get(package, ())]:
            for file in filter(Path.is_file, (ROOT / inside).glob(pattern)):
                target = folder / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    return folder


@dataclass(frozen=True)
class Head:
    """A cluster with a dashboard, seen from a shell on its head."""

    dashboard: str
    environment: dict[str, str]
    metrics: str

    def run(self, *command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **more}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_LIMIT_S)

    def start(self, *command: str, folder: Path, **more: str) -> subprocess.Popen[str]:
        environment = {**self.environment, **more}
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="module")
def head(installed: Path, clean_environment: dict[str, str]) -> Iterator[Head]:
    # Short: there are sockets in it.
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
    ):
        patch.chdir(installed.parent)
        environment = {
            **clean_environment,
            # `python` in a job is that of the shell which `ray start` was typed in.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            # Ten seconds elsewhere.
            "RAY_metrics_report_interval_ms": "500",
        }
        size = {"num_cpus": 4, "object_store_memory": 200 << 20, "temp_dir": folder}
        # The agent, which starts the jobs, has the same port in every cluster unless told otherwise.
        ports = {"dashboard_port": free_port(), "dashboard_agent_listen_port": free_port()}
        with ray_nodes(environment, {**size, "include_dashboard": True, **ports}, path=installed) as cluster:
            # As `ray start` does. A submitted job's cluster is looked up there, and else among all of this machine.
            write_ray_address(cluster.address, folder)
            exported = f"http://127.0.0.1:{cluster.head_node.metrics_export_port}/metrics"
            shell = {**environment, "PYTHONPATH": str(installed), "RAY_ADDRESS": cluster.address}
            yield Head(f"http://{cluster.webui_url}", shell, exported)


def test_every_package_is_installed() -> None:
    found = {
        ".".join(path.relative_to(ROOT).parent.parts)
        for top in ("jobs", "workers", "manifests")
        for path in (ROOT / top).rglob("*.py")
    }
    assert sorted(packages()) == sorted(found)


def not_source(folder: str, names: list[str]) -> set[str]:
    """What tools leave in a checkout, which other tests may be changing right now."""
    kept = {".gitignore", ".rayignore"}
    return {name for name in names if name == "__pycache__" or (name.startswith(".") and name not in kept)}


def test_what_is_shipped_is_the_source_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT, folder, ignore=not_source)
    leftovers = [
        "out/00000.tar",
        "out/00000.parquet",
        "out/_run/run.json",
        "demo-output/a",
        ".venv/bin/x",
        ".git/config",
    ]
    for name in [*leftovers, "weights/unet/model.safetensors"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    package = tmp_path / "package.zip"
    create_package(
        str(folder),
        package,
        include_gitignore=True,
        excludes=get_runtime_env_default_excludes(),
        include_parent_dir=False,
    )
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", str(package)], capture_output=True, text=True)
    shipped = [line.split()[0] for line in listed.stdout.splitlines()[1:] if not line.split()[0].endswith("/")]
    assert {
        "jobs/generate.py",
        "workers/stages/prior.py",
        "manifests/planning/plan.py",
        "infra/constraints.txt",
    } <= set(shipped)
    assert "manifests/examples/demo.parquet" in shipped
    assert not [
        name for name in shipped if name.startswith(("tests", "out", "weights", "demo-output", ".venv", ".git/"))
    ]


class Scraper(threading.Thread):
    """Does what Prometheus does while a run is under way, more often."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._enough = threading.Event()
        #: By the names that Prometheus stores, what was last seen of every set of labels. Replaced, never changed.
        self.seen: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}

    def run(self) -> None:
        while not self._enough.wait(0.5):
            # An answer may be cut off, or not be there in time.
            with contextlib.suppress(OSError, HTTPException, ValueError):
                self.seen = self._with(self._asked())

    def _asked(self) -> list[Metric]:
        with urllib.request.urlopen(self._url, timeout=30) as answer:
            return list(text_string_to_metric_families(answer.read().decode()))

    def _with(self, families: Sequence[Metric]) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        seen = {name: dict(found) for name, found in self.seen.items()}
        for family in families:
            for sample in family.samples:
                seen.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return seen

    def total(self, name: str, **labels: str) -> float:
        """Sum over processes of what has these labels."""
        found = self.seen.get(name, {})
        return sum(value for names, value in found.items() if labels.items() <= dict(names).items())

    def has_seen(self, names: set[str], stages: Sequence[str]) -> bool:
        """All of these, and each of ours from one of these stages."""
        ours = [name for name in names if name.startswith("ray_kandinsky")]
        return names <= set(self.seen) and all(any(self.total(name, stage=stage) for stage in stages) for name in ours)

    def stop(self) -> None:
        self._enough.set()
        self.join()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the head: `ray submit` puts the script there, alone."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(ROOT / "jobs" / "generate.py", home)
    shutil.copy(ROOT / "tests" / "faults" / "quick_generate.py", home)
    write_manifest(home / "m.parquet", ROWS)
    return home


@pytest.fixture(scope="module")
def copied_run(head: Head, home: Path) -> tuple[subprocess.CompletedProcess[str], Scraper]:
    """How a script that was copied alone ended, and which metrics its run exported."""
    scraper = Scraper(head.metrics)
    scraper.start()
    command = ["--manifest", "m.parquet", "--output", "out", *SMALL]
    go_on = home / "go_on"
    process = head.start(sys.executable, "quick_generate.py", *command, folder=home, QUICK_GO_ON=str(go_on))
    # It stands still after its first batch until everything was exported once: processes do that now and then only.
    # Of the decoder, which is a quick one, there is what the driver counts.
    deadline = time.monotonic() + RUN_LIMIT_S
    while not (seen := scraper.has_seen(asked(), ["encode", "decoder"])):
        if process.poll() is not None or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    go_on.touch()
    out, err = process.communicate(timeout=RUN_LIMIT_S)
    scraper.stop()
    assert seen, f"not exported within {RUN_LIMIT_S} s: {asked() - set(scraper.seen)}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err), scraper


def asked() -> set[str]:
    """Metrics that the dashboard shows."""
    return set(re.findall(r"\bray_\w+", (ROOT / "infra" / "grafana.json").read_text()))


def test_a_script_that_was_copied_alone_runs_on_the_installed_package(
    head: Head, home: Path, installed: Path, copied_run: tuple[subprocess.CompletedProcess[str], Scraper]
) -> None:
    refused = head.run(sys.executable, "generate.py", "--manifest", "none.parquet", "--output", "out", folder=home)
    assert refused.returncode == 2
    assert f"{home}/none.parquet" in refused.stderr
    where = head.run(sys.executable, "-c", "import jobs; print(jobs.__file__)", folder=home)
    assert where.stdout.strip() == str(installed / "jobs" / "__init__.py")

    ended, _ = copied_run
    assert ended.returncode == 0, ended.stderr
    assert (home / "out" / "_SUCCESS").exists()
    # A relative output is a place in that home, and the last lines say which.
    assert f"output: {home}/out" in ended.stdout


def test_a_run_counts_its_rows_and_exports_what_the_dashboard_asks_for(
    copied_run: tuple[subprocess.CompletedProcess[str], Scraper],
) -> None:
    _, scraper = copied_run
    # What a process counts in its last moments may be exported too late for anybody to see.
    assert 0 < scraper.total("ray_kandinsky_rows_total", stage="encode", status="success") <= len(ROWS)
    bucket = "text2img 64 x 64, 100 steps"
    assert 0 < scraper.total("ray_kandinsky_call_seconds_count", stage="encode", bucket=bucket) <= len(ROWS) / 2
    assert scraper.total("ray_kandinsky_busy_seconds_total", stage="encode") > 0
    assert {state for found in scraper.seen["ray_resources"] for name, state in found if name == "State"} == {
        "AVAILABLE",
        "USED",
    }
    assert asked()
    assert asked() - set(scraper.seen) == set()


def test_a_folder_that_was_shipped_runs_its_own_source(head: Head, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    for name in ("jobs", "workers", "manifests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    # A change that no node has installed, and that workers meet as well as the driver.
    with open(folder / "workers" / "stages" / "encode.py", "a") as module:
        module.write("\n_FORMAT_OF_SHIPPED = _settings\n_settings = lambda record: [('Shipped', 'yes')]\n")
    shutil.copy(ROOT / "tests" / "faults" / "quick_generate.py", folder)
    manifest = write_manifest(tmp_path / "m.parquet", ROWS)
    start = f"python quick_generate.py --manifest {manifest} {' '.join(SMALL)} --output"
    # Into a file: what `ray job submit` shows is read from the job's log for as long as its agent answers.
    told = tmp_path / "told"
    submit = [
        *(str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", head.dashboard),
        *("--working-dir", ".", "--", "sh", "-c", f"exec >{told} 2>&1; {start} out; {start} {tmp_path}/out"),
    ]
    ended = head.run(*submit, folder=folder)
    deadline = time.monotonic() + RUN_LIMIT_S
    # The head answers before its agent is up, which takes long on a busy machine.
    while "No available agent to submit job" in ended.stderr and time.monotonic() < deadline:
        ended = head.run(*submit, folder=folder)
    assert ended.returncode == 0, (ended.stdout, ended.stderr, told.exists() and told.read_text())
    said = told.read_text()
    assert "'out' is relative, and under `ray job submit` that is a place in a temporary copy" in said
    assert "6 images written, 0 failed" in said
    with tarfile.open(tmp_path / "out" / "00000.tar") as shard:
        first = next(member for member in shard if member.name.endswith(".png"))
        image = Image.open(shard.extractfile(first))
        assert "Shipped: yes" in image.text["parameters"]
