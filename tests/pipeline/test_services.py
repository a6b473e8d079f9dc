"""`edgemill up`: both servers, a worker, and a flow run started from the form in a real browser and over REST."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import ROOT, SHORT, environment, optimize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CHROMIUM_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,2400",
)


@dataclass(frozen=True)
class Services:
    home: Path
    prefect: str
    mlflow: str

    def api(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.prefect}/api{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def wait_for(self, flow_run: str) -> str:
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            state = self.api(f"/flow_runs/{flow_run}")["state"]["type"]
            if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return state
            time.sleep(1)
        raise AssertionError("the flow run did not end")

    def recipe(self) -> dict[str, Any]:
        recipe: dict[str, Any] = self.api("/deployments/name/optimize/on-demand")["parameters"]["recipe"]
        for override in SHORT:
            key, _, value = override.partition("=")
            *parents, last = key.split(".")
            node = recipe
            for part in parents:
                node = node.setdefault(part, {})
            node[last] = value.strip("[]").split(",") if value.startswith("[") else json.loads(value)
        return recipe


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("home")
    prefect, mlflow = free_port(), free_port()
    log = (home / "up.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemill.cli", "up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow)],
        env=environment(home),
        cwd=ROOT,
        stdout=log,
        stderr=log,
    )
    deadline = time.monotonic() + 240
    while not (home / "services.json").exists():
        assert process.poll() is None, (home / "up.log").read_text()
        assert time.monotonic() < deadline, (home / "up.log").read_text()
        time.sleep(0.5)
    yield Services(home, f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=90) == 0
    assert not (home / "services.json").exists()
    for port in (prefect, mlflow):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=1)


def results(home: Path, name: str) -> list[tuple[str, str]]:
    """Which file each target got."""
    summary = json.loads((home / "runs" / name / "summary.json").read_text())
    return [(target["target"], target["selected"]) for target in summary["targets"]]


@pytest.fixture(scope="module")
def by_command_line(services) -> list[tuple[str, str]]:
    finished = optimize(services.home, *SHORT)
    assert finished.code == 0, finished.log
    return results(services.home, "digits")


def test_the_command_line_uses_the_running_servers(services, by_command_line):
    runs = services.api("/flow_runs/filter", {"flows": {"name": {"any_": ["optimize"]}}})
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"]


def test_over_the_rest_api(services, by_command_line):
    deployment = services.api("/deployments/name/optimize/on-demand")
    run = services.api(
        f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"recipe": services.recipe()}}
    )
    shutil.rmtree(services.home / "runs")
    assert services.wait_for(run["id"]) == "COMPLETED"
    assert results(services.home, "digits") == by_command_line


def test_bad_values_are_refused_before_anything_runs(services):
    deployment = services.api("/deployments/name/optimize/on-demand")
    recipe = services.recipe()
    recipe["budget"]["confidence"] = "high"
    with pytest.raises(urllib.error.HTTPError) as caught:
        services.api(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"recipe": recipe}})
    assert caught.value.code in (409, 422)


@pytest.fixture
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in CHROMIUM_OPTIONS:
        options.add_argument(option)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


def test_from_the_form_in_a_browser(services, by_command_line, browser):
    """Changes the name in the form, submits it, and finds the same files chosen as on the command line."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    deployment = services.api("/deployments/name/optimize/on-demand")
    request = urllib.request.Request(
        f"{services.prefect}/api/deployments/{deployment['id']}",
        data=json.dumps({"parameters": {"recipe": services.recipe()}}).encode(),
        headers={"Content-Type": "application/json"},
        method="PATCH",
    )
    urllib.request.urlopen(request, timeout=30).close()
    browser.get(f"{services.prefect}/deployments/deployment/{deployment['id']}/run")
    wait = WebDriverWait(browser, 60)
    wait.until(lambda page: "name of the model" in page.page_source)
    name = next(
        area for area in browser.find_elements(By.TAG_NAME, "textarea") if area.get_attribute("value") == "digits"
    )
    name.send_keys(Keys.CONTROL, "a")
    name.send_keys("from-the-form")
    browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    wait.until(lambda page: "/run" not in page.current_url.rsplit("/", 1)[-1] or "/runs/" in page.current_url)
    if folder := os.environ.get("EDGEMILL_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / "submitted.png"))
    filters = {"flow_runs": {"name": {"like_": ""}}, "sort": "EXPECTED_START_TIME_DESC"}
    deadline = time.monotonic() + 60
    started = None
    while started is None and time.monotonic() < deadline:
        runs = services.api("/flow_runs/filter", filters)
        started = next((run for run in runs if run["parameters"]["recipe"]["name"] == "from-the-form"), None)
        time.sleep(1)
    assert started is not None, "the form started nothing"
    assert services.wait_for(started["id"]) == "COMPLETED"
    assert results(services.home, "from-the-form") == by_command_line
