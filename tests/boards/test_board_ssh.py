"""Boards behind a real SSH server: measuring, what is refused, and boards, clients and connections that die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from edgemill.boards.contact import look
from edgemill.boards.inventory import INVENTORY, find_board
from edgemill.boards.measure import enroll, measure
from edgemill.boards.package import package
from edgemill.boards.record import board_call, measure_and_keep
from edgemill.boards.signature import verify
from edgemill.commands.device import device
from edgemill.data.dataset import Dataset, SplitName
from edgemill.device import lease as leases
from edgemill.errors import EdgemillError, RecipeError, ToolchainError
from edgemill.runtimes import open_model
from edgemill.store import Store
from tests.boards.conftest import TARGET
from tests.boards.sshd import KEYGEN, needs_sshd
from tests.boards.test_lease import group, wait_until
from tests.runtimes import models

pytestmark = needs_sshd


def nothing(*_):
    """A report that nobody reads."""


@dataclass
class Asked:
    """A measurement in a thread."""

    board: object
    settings: object
    files: object
    out: object
    messages: list = field(default_factory=list)
    error: EdgemillError | None = None

    def __post_init__(self):
        self.out.mkdir(parents=True)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            measure(self.board, self.settings, self.files, self.out, lambda _, text: self.messages.append(text))
        except EdgemillError as error:
            self.error = error

    def end(self, limit_s=60):
        self.thread.join(limit_s)
        assert not self.thread.is_alive()
        return self.error


def at_work(server):
    """The lease once the work under it measures."""

    def measuring():
        lease = leases.read(server.folder / "board")
        return lease is not None and lease.work is not None and group(lease.work.group)

    wait_until(measuring, 30)
    lease = leases.read(server.folder / "board")
    log = server.folder / "board" / "work" / lease.id / "out"
    wait_until(log.exists, 30)
    return lease


@pytest.fixture(scope="module")
def measured(shared_lab, files, short):
    board, server = shared_lab.board("desk")
    out = shared_lab.folder / "out"
    out.mkdir()
    messages = []
    settings = short.model_copy(update={"answer": SplitName.TEST})
    answer = measure(board, settings, files, out, lambda _, text: messages.append(text))
    return board, server, settings, answer, messages


class TestMeasuring:
    def test_the_figures_are_of_the_files_that_were_sent(self, measured, files):
        answer = measured[3]
        facts = answer.signed.facts
        with np.load(answer.files["samples.npz"], allow_pickle=False) as samples:
            counted = samples["variant_ns"][samples["counted"]]
        assert facts["latency_p50_ms"] == pytest.approx(np.median(counted) / 1e6)
        assert facts["ratio_lower"] <= facts["ratio"] <= facts["ratio_upper"]
        assert facts["cold_start_ms"] > facts["load_ms"] > 0
        assert facts["runtime"] == "ai-edge-litert"
        assert answer.signed.inputs["variant"] == files["variant"].artifact.digest

    def test_its_answers_are_those_of_the_file(self, measured, files):
        answers = np.load(measured[3].files["predictions.npy"])
        x = Dataset(files["data"].path).features(SplitName.TEST)
        expected = open_model(files["variant"].path, "tflite").predict(x)
        assert len(x) > 0
        np.testing.assert_array_equal(answers, expected)

    def test_the_state_of_the_board_is_told(self, measured):
        signed = measured[3].signed
        assert signed.host["arch"] == os.uname().machine
        for moment in (signed.before, signed.after):
            assert moment["load"] >= 0
            assert moment["governors"] or "governor" in moment["missing"]
            assert moment["temperature_c"] or "temperature" in moment["missing"]

    def test_nothing_is_left_on_the_board_but_package_and_key(self, measured):
        board = measured[1].folder / "board"
        assert leases.read(board) is None
        assert {path.name for path in board.iterdir()} >= {"packages", "key", "key.pub"}
        assert list((board / "work").iterdir()) == []
        assert [path.name for path in (board / "packages").iterdir()] == [package().digest]

    def test_the_package_is_pushed_once(self, measured):
        board, server, *_ = measured
        folder = server.folder / "board" / "packages" / package().digest
        before = folder.stat().st_ino
        assert look(board).has_package
        enroll(board, board_inventory(server))
        assert folder.stat().st_ino == before

    def test_the_board_measured_with_what_was_pushed(self, measured):
        assert measured[3].signed.package == package().digest


def board_inventory(server):
    return server.folder.parent / "boards.yaml"


class TestSignature:
    def test_a_changed_result_is_refused(self, measured):
        board, _, _, answer, _ = measured
        verify(board.name, board.signer, answer.text, answer.signature)
        figure = json.dumps(answer.signed.facts["ratio"])
        changed = answer.text.replace(figure, "0.123")
        assert changed != answer.text
        with pytest.raises(ToolchainError, match="does not bear the board's signature"):
            verify(board.name, board.signer, changed, answer.signature)

    def test_an_unknown_key_is_refused(self, measured, tmp_path, files):
        board, server, settings, *_ = measured
        kept = server.folder / "board" / "key"
        names = ("key", "key.pub")
        for name in names:
            shutil.move(kept.with_name(name), tmp_path / name)
        try:
            subprocess.run([*KEYGEN, str(kept)], check=True)
            (tmp_path / "out").mkdir()
            with pytest.raises(ToolchainError, match="does not bear the board's signature"):
                measure(board, settings, files, tmp_path / "out", nothing)
            with pytest.raises(RecipeError, match="another key"):
                enroll(board, board_inventory(server))
        finally:
            for name in names:
                shutil.move(tmp_path / name, kept.with_name(name))

    def test_a_board_that_is_not_enrolled_is_not_asked(self, measured, files, tmp_path):
        board, _, settings, *_ = measured
        with pytest.raises(RecipeError, match="not enrolled"):
            measure(board.model_copy(update={"signer": None}), settings, files, tmp_path, nothing)


class TestRecord:
    def test_it_is_asked_once_and_found_again(self, measured, files, tmp_path):
        board, server, settings, *_ = measured
        store = Store(tmp_path / "store")
        kept = {name: store.put(file.path, kind=file.artifact.kind, step="test") for name, file in files.items()}
        call = board_call(board, settings, kept)
        record = measure_and_keep(store, board, call, nothing)
        assert record.facts["source"] == "measured:board:desk"
        assert record.facts["size_bytes"] == files["variant"].artifact.size_bytes
        assert record.facts["board"]["signer"] == board.signer.fingerprint
        proof = json.loads(store.path(record.outputs["signed"]).read_text())
        verify(board.name, board.signer, proof["result"], proof["signature"])
        assert set(record.outputs) == {"samples", "signed", "predictions"}
        server.stop()
        try:
            assert measure_and_keep(store, board, call, nothing) == record
        finally:
            server.start()

    def test_a_board_of_another_target_is_refused(self, measured, files):
        board, _, settings, *_ = measured
        other = board.model_copy(update={"target": "x86-64-vnni"})
        with pytest.raises(RecipeError, match="another target"):
            board_call(other, settings, {name: file.artifact for name, file in files.items()})


class TestRefused:
    """One clear error each; the text says what to do."""

    def refusal(self, lab, name="b1", **entry):
        with pytest.raises(ToolchainError) as error:
            lab.board(name, **entry)
        assert f"board {name} at" in error.value.where
        return error.value

    def test_a_wrong_host_key(self, lab):
        subprocess.run([*KEYGEN, str(lab.folder / "other")], check=True)
        wrong = lab.folder / "wrong_hosts"
        board, server = lab.board("b1", enrolled=False, hop={"known_hosts": str(wrong)})
        wrong.write_text(f"[127.0.0.1]:{server.port} {(lab.folder / 'other.pub').read_text()}")
        with pytest.raises(ToolchainError) as error:
            enroll(board, lab.inventory)
        assert error.value.what == "The board's host key is not the known one."
        assert "known_hosts" in error.value.remedy
        wrong.write_text("")
        with pytest.raises(ToolchainError, match="host key is not the known one"):
            enroll(board, lab.inventory)

    def test_a_key_that_the_board_does_not_take(self, lab):
        subprocess.run([*KEYGEN, str(lab.folder / "other")], check=True)
        assert self.refusal(lab, hop={"key": str(lab.folder / "other")}).what == "The board refuses the key."

    def test_a_key_that_is_not_there(self, lab):
        error = self.refusal(lab, hop={"key": str(lab.folder / "none")})
        assert error.what in ("The board refuses the key.", "The SSH client cannot use its key.")

    def test_a_board_that_is_off(self, lab):
        board, server = lab.board("b1", enrolled=False)
        server.stop()
        with pytest.raises(ToolchainError, match="cannot be reached") as error:
            enroll(board, lab.inventory)
        assert "switched on" in error.value.remedy

    def test_an_unknown_address(self, lab):
        assert self.refusal(lab, hop={"host": "board.invalid"}).what == "The board's address is not known."

    def test_no_interpreter(self, lab):
        error = self.refusal(lab, python="/nowhere/python3")
        assert "127" in error.got
        assert "/nowhere/python3" in error.got

    def test_missing_packages_are_named(self, lab):
        lonely = lab.folder / "python"
        lonely.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
        lonely.chmod(0o755)
        error = self.refusal(lab, python=str(lonely))
        assert "numpy, pydantic, psutil, pyyaml, packaging not installed there" in error.got
        assert "pip install" in error.got

    def test_an_interpreter_that_is_none(self, lab):
        assert "nonsense" in self.refusal(lab, python="/bin/echo").what

    def test_another_cpu_than_declared(self, lab):
        error = self.refusal(lab, target="raspberry-pi-5")
        assert error.what == "The board has another CPU than its target."
        assert "the board is x86_64, the target aarch64" in error.got

    def test_a_login_script_that_prints(self, lab, files, short):
        board, server = lab.board("b1")
        loud = lab.folder / "loud"
        loud.write_text(f'#!/bin/sh\necho welcome\nexec {sys.executable} "$@"\n')
        loud.chmod(0o755)
        (lab.folder / "out").mkdir()
        loud_board = board.model_copy(update={"python": str(loud)})
        with pytest.raises(ToolchainError, match="nonsense") as error:
            measure(loud_board, short, files, lab.folder / "out", nothing)
        assert error.value.got == "welcome"
        wait_until(lambda: leases.read(server.folder / "board") is None)


class TestJump:
    def test_through_another_machine(self, lab):
        _, gate = lab.board("gate", enrolled=False)
        board, _ = lab.board("inner", hop={"jump": gate.hop()})
        assert look(board).machine == os.uname().machine
        gate.stop()
        with pytest.raises(ToolchainError, match="cannot be reached"):
            look(board)

    def test_a_wrong_host_key_of_the_machine_between(self, lab):
        _, gate = lab.board("gate", enrolled=False)
        empty = lab.folder / "none_known"
        empty.write_text("")
        with pytest.raises(ToolchainError, match="host key is not the known one"):
            lab.board("inner", hop={"jump": gate.hop() | {"known_hosts": str(empty)}})


class TestHeld:
    def test_who_comes_second_learns_who_has_it(self, lab, files, endless, short):
        board, server = lab.board("b1", lease_s=20, wait_s=0)
        first = Asked(board, endless, files, lab.folder / "one")
        lease = at_work(server)
        (lab.folder / "two").mkdir()
        with pytest.raises(ToolchainError, match="Somebody else has the board") as error:
            measure(board, short, files, lab.folder / "two", nothing)
        assert f"process {os.getpid()}" in error.value.got
        assert "until 20" in error.value.got
        os.killpg(lease.work.group, signal.SIGKILL)
        assert "died" in first.end().what

    @pytest.mark.slow
    def test_who_waits_gets_it_when_it_is_free(self, lab, files, endless, short):
        board, server = lab.board("b1", lease_s=20, wait_s=60)
        first = Asked(board, endless, files, lab.folder / "one")
        lease = at_work(server)
        second = Asked(board, short, files, lab.folder / "two")
        wait_until(lambda: any("waiting for the board" in text for text in second.messages), 30)
        os.killpg(lease.work.group, signal.SIGKILL)
        assert first.end() is not None
        assert second.end() is None


CLIENT = """
import sys
from pathlib import Path
from edgemill.boards import BoardSettings
from edgemill.boards.inventory import find_board
from edgemill.boards.measure import measure
from edgemill.recipe import Benchmark
from edgemill.targets import load_target
from tests.boards.conftest import ENDLESS, TARGET
from tests.runtimes import models
folder = Path(sys.argv[2])
files = {
    "variant": models.input_file(models.dense_tflite(folder / "v.tflite", "int8"), "tflite"),
    "baseline": models.input_file(models.dense_onnx(folder / "b.onnx"), "onnx"),
    "data": models.input_file(models.dataset(folder / "data", models.inputs(20)), "dataset"),
}
(folder / "out").mkdir()
settings = BoardSettings(target=load_target(TARGET), benchmark=ENDLESS)
measure(find_board("b1", Path(sys.argv[1])), settings, files, folder / "out", lambda *_: None)
"""


class TestHung:
    """Whatever dies or hangs, the board is free again, and whoever waits is told."""

    @pytest.mark.slow
    def test_a_client_that_is_killed(self, lab, files, short):
        board, server = lab.board("b1", lease_s=60)
        (lab.folder / "client").mkdir()
        command = [sys.executable, "-c", CLIENT, str(lab.inventory), str(lab.folder / "client")]
        with subprocess.Popen(command) as client:
            lease = at_work(server)
            ssh = [one for one in psutil.Process(client.pid).children() if one.name() == "ssh"]
            client.kill()
        wait_until(lambda: leases.read(server.folder / "board") is None and not group(lease.work.group))
        wait_until(lambda: not any(one.is_running() for one in ssh))
        (lab.folder / "out").mkdir()
        measure(board, short, files, lab.folder / "out", nothing)

    def test_work_that_is_stopped(self, lab, files, endless):
        board, server = lab.board("b1", lease_s=4)
        asked = Asked(board, endless, files, lab.folder / "out")
        lease = at_work(server)
        os.killpg(lease.work.group, signal.SIGSTOP)
        error = asked.end(30)
        assert error.what == "The work on the board hangs and was ended; the board is free."
        assert "lease_s" in error.remedy
        assert leases.read(server.folder / "board") is None
        assert not group(lease.work.group)

    @pytest.mark.slow
    def test_a_server_that_is_ended_in_the_middle(self, lab, files, endless):
        board, server = lab.board("b1", lease_s=60)
        asked = Asked(board, endless, files, lab.folder / "out")
        lease = at_work(server)
        server.stop()
        error = asked.end(30)
        assert error.what == "The connection to the board was lost."
        wait_until(lambda: leases.read(server.folder / "board") is None and not group(lease.work.group))

    @pytest.mark.slow
    def test_a_server_that_stands_still(self, lab, files, endless):
        board, server = lab.board("b1", lease_s=6)
        asked = Asked(board, endless, files, lab.folder / "out")
        lease = at_work(server)
        server.signal(signal.SIGSTOP)
        try:
            error = asked.end(40)
            assert error.what == "The connection to the board was lost."
            wait_until(lambda: leases.read(server.folder / "board") is None and not group(lease.work.group), 20)
        finally:
            server.signal(signal.SIGCONT)

    @pytest.mark.slow
    def test_a_keeper_that_stands_still(self, lab, files, endless):
        board, server = lab.board("b1", lease_s=4)
        asked = Asked(board, endless, files, lab.folder / "out")
        lease = at_work(server)
        psutil.Process(psutil.Process(lease.work.group).ppid()).send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert asked.end(40) is not None
        assert time.monotonic() - began < 4 + 10
        wait_until(lambda: leases.read(server.folder / "board") is None and not group(lease.work.group), 20)


class TestCommands:
    def test_check_list_and_bench(self, lab, files, monkeypatch, tmp_path):
        lab.board("b1", enrolled=False)
        monkeypatch.setenv(INVENTORY, str(lab.inventory))
        runner = CliRunner()
        listed = runner.invoke(device, ["list"])
        assert "not enrolled: edgemill device enroll b1" in listed.output
        assert runner.invoke(device, ["enroll", "b1"]).exit_code == 0
        done = runner.invoke(device, ["check", "b1"])
        assert (done.exit_code, done.output.splitlines()[-1]) == (0, "ready")
        np.save(tmp_path / "x.npy", models.inputs(5))
        arguments = [str(files["variant"].path), "--baseline", str(files["baseline"].path), "--seconds", "0.3"]
        arguments += ["--samples", str(tmp_path / "x.npy"), "--out", str(tmp_path / "r.json"), "--board", "b1"]
        done = runner.invoke(device, ["bench", *arguments])
        assert done.exit_code == 0, done.output
        result = json.loads((tmp_path / "r.json").read_text())
        assert result["source"] == "measured:board:b1"
        board = find_board("b1")
        verify("b1", board.signer, result["signed_text"], result["signature"])

    def test_bench_on_this_machine(self, files, tmp_path):
        np.save(tmp_path / "x.npy", models.inputs(5))
        arguments = [str(files["variant"].path), "--baseline", str(files["baseline"].path), "--seconds", "0.3"]
        done = CliRunner().invoke(
            device, ["bench", *arguments, "--samples", str(tmp_path / "x.npy"), "--target", TARGET]
        )
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert result["facts"]["latency_p50_ms"] > 0
        assert {"governors", "temperature_c"} <= set(result["before"])
