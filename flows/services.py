"""`edgemill up`: the servers and the worker as child processes of one foreground command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from edgemill.errors import ServiceError
from edgemill.guard import watch
from edgemill.store import state_folder, write_atomically
from flows.leftovers import end_left_runs
from tasks.database import ensure_database
from tasks.environment import SERVICES, answers, artifact_root, prepare, tracking_database

POOL = "edgemill"
_HOST = "127.0.0.1"
_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 15.0


def serve(prefect_port: int, mlflow_port: int) -> None:
    """Run until interrupted.

    Raises:
        ServiceError: a port is taken, or a server does not come up.
    """
    state = state_folder()
    state.mkdir(parents=True, exist_ok=True)
    addresses = {"prefect": f"http://{_HOST}:{prefect_port}", "mlflow": f"http://{_HOST}:{mlflow_port}"}
    for name, address in addresses.items():
        if answers(address):
            raise ServiceError(
                f"The port for {name} is taken.", where=address, remedy=f"stop what runs there, or give --{name}-port"
            )
    database = tracking_database(state)
    prepare()
    ensure_database(database)
    watch()  # the servers must not outlive us, whatever ends us
    environment = os.environ | {
        "PREFECT_API_URL": f"{addresses['prefect']}/api",
        "MLFLOW_TRACKING_URI": addresses["mlflow"],
    }
    logs = state / "logs"
    logs.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.ExitStack() as running:
        servers = {
            "prefect": ["prefect", "server", "start", "--host", _HOST, "--port", str(prefect_port)],
            "mlflow": [
                *("mlflow", "server", "--host", _HOST, "--port", str(mlflow_port), "--workers", "1"),
                *("--backend-store-uri", database, "--registry-store-uri", database),
                *("--no-serve-artifacts", "--default-artifact-root", artifact_root(state)),
            ],
        }
        processes = {
            name: running.enter_context(_process(command, logs / f"{name}.log", environment))
            for name, command in servers.items()
        }
        for name, process in processes.items():
            _wait_for(name, process, addresses[name], logs / f"{name}.log")
        if left := end_left_runs(f"{addresses['prefect']}/api"):
            click.echo(f"{left} flow run(s) of a killed worker marked as crashed")
        _deploy(environment, logs / "deploy.log")
        worker = ["prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        processes["worker"] = running.enter_context(_process(worker, logs / "worker.log", environment))
        write_atomically(state / SERVICES, json.dumps(addresses))
        running.callback((state / SERVICES).unlink, missing_ok=True)
        click.echo(f"Prefect  {addresses['prefect']}\nMLflow   {addresses['mlflow']}\nCtrl-C stops both.")
        with contextlib.suppress(KeyboardInterrupt):
            _watch(processes, logs)
        click.echo("stopping ...")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    executable = Path(sys.executable).parent / command[0]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(executable), *command[1:]],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_LIMIT_S)
            if number == signal.SIGINT:
                continue
    process.wait()


def _wait_for(name: str, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while not answers(address):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServiceError(
                f"The {name} server did not start.",
                where=str(log),
                got=" | ".join(log.read_text(errors="replace").strip().splitlines()[-3:]),
                remedy="read the log",
            )
        time.sleep(0.2)


def _deploy(environment: dict[str, str], log: Path) -> None:
    prefect = str(Path(sys.executable).parent / "prefect")
    commands = (
        [prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite"],
        [prefect, "work-pool", "set-concurrency-limit", POOL, "1"],
        [prefect, "--no-prompt", "deploy", "--all"],
    )
    with log.open("wb") as stream:
        for command in commands:
            done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False)
            if done.returncode != 0:
                raise ServiceError(
                    "The deployments could not be registered.",
                    where=str(log),
                    got=" ".join(command[1:]) + f" ended with {done.returncode}",
                    remedy="read the log; run from the folder that holds prefect.yaml",
                )


def _watch(processes: dict[str, subprocess.Popen[bytes]], logs: Path) -> None:
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                raise ServiceError(
                    f"{name} ended by itself.", where=str(logs / f"{name}.log"), got=f"exit status {process.returncode}"
                )
        time.sleep(0.5)
