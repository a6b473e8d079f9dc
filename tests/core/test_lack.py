"""What a machine lacks, in words and as commands."""

from edgemill.lack import APT, SYSROOT, TOOLCHAINS, Lack, commands, state, told, total_mb

QEMU = Lack(name="qemu-aarch64", what="qemu-aarch64 is not installed", getter=APT, arguments=("qemu-user",))
RISCV = QEMU.model_copy(update={"name": "qemu-riscv64", "what": "qemu-riscv64 is not installed"})
ROOT = Lack(name="sysroot aarch64", what="there is no sysroot", getter=SYSROOT, arguments=("aarch64",))
EMX = Lack(
    name="toolchain emx", what="toolchain emx is not installed", getter=TOOLCHAINS, arguments=("emx",), size_mb=260
)
VELA = EMX.model_copy(update={"name": "toolchain vela", "arguments": ("vela",)})


def test_one_is_a_sentence_with_its_command():
    assert str(QEMU) == "qemu-aarch64 is not installed: apt-get install qemu-user"
    assert QEMU.as_json()["command"] == "apt-get install qemu-user"
    weaker = QEMU.model_copy(update={"effect": "answers are not the target's"})
    assert str(weaker) == "answers are not the target's: qemu-aarch64 is not installed: apt-get install qemu-user"


def test_several_are_said_once_each():
    assert told([QEMU, ROOT, QEMU]) == f"{QEMU}; {ROOT}"


def test_commands_are_joined_and_packages_of_the_system_come_first():
    assert commands([ROOT, EMX, QEMU, VELA, RISCV, EMX]) == [
        "apt-get install qemu-user",
        "edgemill targets install emx vela",
        "edgemill sysroot aarch64",
    ]
    assert commands([]) == []


def test_sizes_are_counted_once_each():
    assert total_mb([EMX, QEMU, VELA, EMX]) == 520


def test_state_tells_what_is_needed_from_what_would_prove_more():
    weaker = ROOT.model_copy(update={"effect": "answers are not the target's"})
    assert state([]) == "ready"
    assert state([weaker]) == "ready; more is proven with sysroot aarch64"
    assert state([EMX, weaker]) == "needs toolchain emx"
