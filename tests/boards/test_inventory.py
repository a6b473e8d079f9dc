"""The inventory of boards: what is taken, what is refused in one error, and the key that is written into it."""

from __future__ import annotations

import subprocess

import pytest

from edgemill.boards.inventory import INVENTORY, boards_of, find_board, fingerprint_of, keep_signer, load_inventory
from edgemill.errors import RecipeError
from tests.boards.sshd import KEYGEN

GOOD = "b1:\n  # the one on my desk\n  target: raspberry-pi-5\n  ssh: {host: 10.0.0.5, user: pi, key: keys/id}\n"


@pytest.fixture
def inventory(tmp_path):
    path = tmp_path / "boards.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run([*KEYGEN, str(path)], check=True)
    told = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout
    return " ".join(path.with_suffix(".pub").read_text().split()[:2]), told.split()[1]


def test_a_board_with_paths_beside_the_file(inventory, tmp_path):
    board = find_board("b1", inventory)
    assert board.ssh.key == tmp_path / "keys" / "id"
    assert (board.ssh.port, board.concurrency, board.python) == (22, 1, "python3")
    assert board.source == "measured:board:b1"


def test_the_environment_names_the_file(inventory, monkeypatch):
    monkeypatch.setenv(INVENTORY, str(inventory))
    assert list(load_inventory()) == ["b1"]


def test_no_inventory_is_no_boards(state):
    assert load_inventory() == {}
    with pytest.raises(RecipeError, match="no such board"):
        find_board("b1")


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("b1: {targte: raspberry-pi-5, ssh: {host: h}}", "b1", "target"),
        (GOOD + "  leas_s: 3\n", "b1.leas_s", "did you mean lease_s"),
        (GOOD + "  lease_s: soon\n", "b1.lease_s", "number"),
        (GOOD + "  concurrency: 0\n", "b1.concurrency", "greater"),
        (GOOD + "  serial: {port: /dev/ttyACM0}\n", "b1", "one of them"),
        ("b1: {target: raspberry-pi-5}", "b1", "one of them"),
        ("b1: {target: raspberry-pi-5, ssh: {host: -oProxyCommand=touch}}", "b1.ssh.host", "pattern"),
        ("b1: {target: raspberry-pi-5, ssh: {host: h, port: yes}}", "b1.ssh.port", "number"),
        ("b1: {target: raspberry-pi-5, ssh: {host: h}, python: 'python; reboot'}", "b1.python", "pattern"),
        ("B_1: {target: raspberry-pi-5, ssh: {host: h}}", "B_1.name", "small letters"),
        ("b1: [1]", "b1", "mapping"),
        ("[1]", "boards.yaml", "mapping"),
        ("b1: {", "boards.yaml", "read"),
        ("b1: {target: raspberry-pi-55, ssh: {host: h}}", "targets", "did you mean raspberry-pi-5"),
        (
            GOOD + "  signer: {key: ssh-ed25519 AAAA, fingerprint: 'SHA256:x'}\n",
            "b1.signer",
            "fingerprint: that of this key is",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, where, words):
    path = tmp_path / "boards.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_inventory(path)
    assert where in error.value.where
    assert words in str(error.value)


def test_near_names_are_offered(inventory):
    with pytest.raises(RecipeError) as error:
        find_board("bb1", inventory)
    assert "did you mean b1" in str(error.value)


class TestSigner:
    def test_the_fingerprint_is_that_of_ssh_keygen(self, key):
        assert fingerprint_of(key[0]) == key[1]

    def test_it_is_written_and_the_rest_stays(self, inventory, key):
        assert boards_of("raspberry-pi-5", inventory) == []
        keep_signer("b1", key[0], inventory)
        text = inventory.read_text()
        assert [line for line in text.splitlines(keepends=True) if "signer" not in line] == GOOD.splitlines(
            keepends=True
        )
        board = find_board("b1", inventory)
        assert (board.signer.key, board.signer.fingerprint, board.identity) == (*key, key[1])
        assert boards_of("raspberry-pi-5", inventory) == [board]
        keep_signer("b1", key[0], inventory)
        assert inventory.read_text() == text

    def test_another_key_is_refused(self, inventory, key, tmp_path):
        keep_signer("b1", key[0], inventory)
        subprocess.run([*KEYGEN, str(tmp_path / "other")], check=True)
        other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
        with pytest.raises(RecipeError, match="another key"):
            keep_signer("b1", other, inventory)

    def test_an_entry_in_one_line_says_what_to_add(self, tmp_path, key):
        path = tmp_path / "boards.yaml"
        path.write_text("b1: {target: raspberry-pi-5, ssh: {host: h}}\n")
        with pytest.raises(RecipeError) as error:
            keep_signer("b1", key[0], path)
        assert key[1] in error.value.remedy
