import subprocess

import numpy as np
import pytest

from edgemill.compile.c_harness import harness, linker_script
from edgemill.errors import ToolchainError
from edgemill.runtimes.program import HOST, MANIFEST, TARGET, ProgramModel, check_same
from tests.c_program.programs import program_folder
from tests.support.ready import usable


class TestForeignProgram:
    X = np.ones((3, 3), np.float32)

    def test_a_crash_is_one_error_with_its_last_words(self, tmp_path):
        folder = program_folder(tmp_path, "import sys\nsys.stderr.write('first\\nno memory\\n')\nsys.exit(9)")
        with pytest.raises(ToolchainError, match="The program died") as caught:
            ProgramModel(folder).predict(self.X)
        assert "exit status 9" in caught.value.got
        assert "no memory" in caught.value.got

    def test_a_signal_is_named(self, tmp_path):
        folder = program_folder(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
        with pytest.raises(ToolchainError, match="The program died") as caught:
            ProgramModel(folder).predict(self.X)
        assert "signal 11" in caught.value.got

    def test_a_hang_ends_at_the_time_limit(self, tmp_path):
        folder = program_folder(tmp_path, "import time\ntime.sleep(60)")
        with pytest.raises(ToolchainError, match="did not end within its time") as caught:
            ProgramModel(folder, limit_s=1.0).predict(self.X)
        assert caught.value.expected == "at most 1 s"

    @pytest.mark.parametrize("answers", [0, 1, 4])
    def test_another_number_of_answers_is_refused(self, tmp_path, answers):
        folder = program_folder(
            tmp_path, f"import sys\nsys.stdin.buffer.read()\nsys.stdout.buffer.write(b'1234' * {2 * answers})"
        )
        with pytest.raises(ToolchainError, match="did not write an answer to every sample") as caught:
            ProgramModel(folder).predict(self.X)
        assert caught.value.expected == "24 bytes, 3 answers"
        assert caught.value.got == f"{8 * answers} bytes"

    def test_a_program_of_another_cpu_is_one_error(self, tmp_path):
        folder = program_folder(tmp_path, "pass")
        (folder / HOST).write_bytes(b"\x7fELF" + bytes(60))
        with pytest.raises(ToolchainError, match=r"cannot be started|died"):
            ProgramModel(folder).predict(self.X)

    def test_a_folder_without_a_manifest_is_named(self, tmp_path):
        with pytest.raises(ToolchainError, match="holds no program") as caught:
            ProgramModel(tmp_path)
        assert MANIFEST in caught.value.where

    def test_no_samples_give_no_answers(self, tmp_path):
        folder = program_folder(tmp_path, "import sys\nsys.exit(1)")
        assert ProgramModel(folder).predict(np.zeros((0, 3), np.float32)).shape == (0, 2)


def test_a_bare_program_that_faults_is_told_apart(tmp_path):
    target = usable("cortex-m4-bare-c")
    folder = program_folder(tmp_path, "pass")
    signature = ProgramModel(folder).signature
    (tmp_path / "model.h").write_text("void model(const float x[1][3], float y[1][2]);\n")
    (tmp_path / "harness.c").write_text(harness(signature, bare=True))
    (tmp_path / "model.c").write_text(
        '#include "model.h"\nvoid model(const float x[1][3], float y[1][2]) {\n'
        "(void)x; y[0][0] = *(volatile float *)0x50000000; }\n"
    )
    (tmp_path / "board.ld").write_text(linker_script(target.emulation.board, 4096))
    command = [target.cross.compiler, *target.cross.flags, "-nostartfiles", f"-Wl,-T,{tmp_path / 'board.ld'}"]
    sources = [tmp_path / "harness.c", tmp_path / "model.c"]
    subprocess.run([*command, *sources, "-o", folder / TARGET], check=True, capture_output=True)
    with pytest.raises(ToolchainError, match="The program died") as caught:
        ProgramModel(folder, target.emulation).predict(np.ones((1, 3), np.float32))
    assert "fault of the CPU" in caught.value.got


def test_floats_may_differ_by_rounding_and_integers_not_at_all():
    own, twin = np.array([[1.0, 2.0]], np.float32), np.array([[1.0, 2.000002]], np.float32)
    check_same(own, twin, exact=False, title="a CPU")
    with pytest.raises(ToolchainError, match="1 of 1 answers differ") as caught:
        check_same(own, twin, exact=True, title="a CPU")
    assert "a CPU" in caught.value.what
    with pytest.raises(ToolchainError):
        check_same(own, np.array([[1.0, np.nan]], np.float32), exact=False, title="a CPU")
