import shutil
import subprocess

import numpy as np
import pytest

from edgemill.compile.backend import backend_of
from edgemill.emulate.answering import open_on
from edgemill.emulate.host import this_host
from edgemill.emulate.machine import how_executed
from edgemill.errors import ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.recipe import Recipe, Scheme
from edgemill.runtimes.program import HOST, MANIFEST, ProgramManifest, ProgramModel
from edgemill.select import Measured, screen
from edgemill.summary import Profile
from edgemill.targets import load_target
from edgemill.targets.spec import CrossCompiler, Limits, Target
from edgemill.validate.verdict import Decision, Verdict
from tests.c_program.programs import CLASSES, SIZE, TARGETS, Bench, reference, script
from tests.support.ready import usable


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def int8(bench):
    return bench.int8_model()


@pytest.fixture(scope="module")
def fp32(bench):
    return bench.float_model()


@pytest.mark.parametrize("name", TARGETS)
class TestEveryTarget:
    def test_int8_gives_the_same_bits_as_the_same_c_on_this_host(self, name, bench, int8):
        target = usable(name)
        record = bench.compile(target, int8, Scheme.INT8_STATIC)
        assert record.facts["bit_equal"] is True
        assert record.facts["float_nodes"] == []
        assert "QLinearConv" in record.facts["op_counts"]
        programs = bench.path(record.outputs["executable"])
        full = target.emulation.model_copy(update={"probe": None})
        own = ProgramModel(programs, None if name == "x86-64-c" and this_host().arch == "x86_64" else full)
        answers = own.predict(bench.x)
        assert answers.tobytes() == ProgramModel(programs, twin=True).predict(bench.x).tobytes()
        assert (answers.argmax(1) == reference(bench.path(int8), bench.x).argmax(1)).mean() >= 0.95

    def test_fp32_answers_as_onnxruntime_does(self, name, bench, fp32):
        target = usable(name)
        record = bench.compile(target, fp32, None)
        answers = open_on(how_executed(target), bench.path(record.outputs["executable"]), "program").predict(bench.x)
        np.testing.assert_allclose(answers, reference(bench.path(fp32), bench.x), rtol=0, atol=1e-5)

    def test_figures_come_from_the_linker(self, name, bench, int8, fp32):
        target = usable(name)
        small, large = (bench.compile(target, *each) for each in ((int8, Scheme.INT8_STATIC), (fp32, None)))
        figures = [DeviceFigures.model_validate(record.facts["device"]) for record in (small, large)]
        assert {entry.source for entry in figures} == {f"linked:{target.cross.compiler}"}
        pixels = SIZE * SIZE
        # input and output as the caller has them, and the two tensors that the sum needs at once
        assert figures[0].ram_bytes >= 4 * (pixels + CLASSES) + 2 * 4 * pixels
        assert figures[1].ram_bytes >= 4 * (pixels + CLASSES) + 2 * 4 * 4 * pixels
        assert figures[0].ram_bytes < figures[1].ram_bytes
        weights = 4 * 9 + 4 * 4 * 9 + 4 * CLASSES
        assert all(weights < entry.flash_bytes < 64 << 10 for entry in figures)


def test_what_ships_is_source_without_harness_or_paths_and_the_same_every_time(bench, int8, tmp_path):
    target = usable("x86-64-c")
    first = bench.compile(target, int8, Scheme.INT8_STATIC).outputs["model"]
    again = Bench(tmp_path)
    second = again.compile(target, again.put(_copy(bench.path(int8), tmp_path), "onnx"), Scheme.INT8_STATIC)
    assert second.outputs["model"].digest == first.digest
    folder = bench.path(first)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.c", "model.h"]
    text = "".join(path.read_text() for path in folder.iterdir())
    assert str(tmp_path.parent) not in text
    assert "int main" not in text
    assert first.kind == "c"
    assert first.signature.inputs[0].shape == (1, 1, SIZE, SIZE)


def _copy(path, folder):
    copy = folder / "int8.onnx"
    shutil.copyfile(path, copy)
    return copy


def test_the_shipped_source_compiles_for_others_and_answers(bench, int8, tmp_path):
    usable("x86-64-c")
    record = bench.compile(load_target("x86-64-c"), int8, Scheme.INT8_STATIC)
    folder = bench.path(record.outputs["model"])
    caller = tmp_path / "caller.c"
    caller.write_text(
        '#include <stdio.h>\n#include "model.h"\n'
        f"int main(void) {{ static float x[1][1][{SIZE}][{SIZE}]; float y[1][{CLASSES}];\n"
        f'model(x, y); for (int i = 0; i < {CLASSES}; ++i) printf("%.9g ", y[0][i]); return 0; }}\n'
    )
    program = tmp_path / "caller"
    command = ["gcc", "-std=c99", "-Wall", "-Werror=implicit", "-ffp-contract=off", f"-I{folder}"]
    subprocess.run([*command, caller, folder / "model.c", "-lm", "-o", program], check=True, capture_output=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    zeros = np.zeros((1, 1, SIZE, SIZE), np.float32)
    own = ProgramModel(bench.path(record.outputs["executable"]), twin=True).predict(zeros)
    np.testing.assert_array_equal(np.array(told.split(), np.float32), own[0])


def test_softmax_in_floating_point_is_compared_by_tolerance(bench):
    target = usable("cortex-m4-bare-c")
    record = bench.compile(target, bench.float_model(softmax=True), None)
    assert record.facts["host_max_difference"] < 1e-6
    assert not ProgramManifest.model_validate_json(
        (bench.path(record.outputs["executable"]) / MANIFEST).read_bytes()
    ).exact


def test_an_operator_that_the_generator_lacks_is_named(bench):
    target = usable("x86-64-c")
    with pytest.raises(ToolchainError, match="knows an operator of the model not") as caught:
        bench.compile(target, bench.float_model(further="Normalizer"), None)
    assert "Normalizer" in caught.value.got


def test_a_missing_compiler_is_named_with_the_command_that_gets_it(bench, int8):
    target = usable("x86-64-c")
    absent = CrossCompiler(compiler="no-such-gcc", packages=("gcc-none",))
    with pytest.raises(ToolchainError, match="no-such-gcc cannot be started") as caught:
        bench.compile(target.model_copy(update={"cross": absent}), int8, Scheme.INT8_STATIC)
    assert caught.value.remedy == "apt-get install gcc-none"


def test_a_program_that_fits_no_board_is_refused_by_the_linker(bench, int8):
    target = usable("cortex-m4-bare-c")
    other = target.model_copy(update={"emulation": target.emulation.model_copy(update={"board": "none-such"})})
    with pytest.raises(ToolchainError, match="what memory the target's emulated board has"):
        bench.compile(other, int8, Scheme.INT8_STATIC)


class TestMachine:
    @pytest.mark.parametrize(
        ("name", "emulator"), [("riscv64-linux-c", "qemu-riscv64"), ("cortex-m4-bare-c", "qemu-system-arm")]
    )
    def test_label_says_whether_all_samples_were_emulated(self, name, emulator):
        target = load_target(name)
        host = this_host().model_copy(update={"arch": "x86_64", "emulators": {emulator: "7.2.22"}})
        assert how_executed(target, host).source == f"probed:{emulator}"
        assert str(target.emulation.probe) in how_executed(target, host).reason
        full = target.model_copy(update={"emulation": target.emulation.model_copy(update={"probe": None})})
        assert how_executed(full, host).source == f"emulated:{emulator}"
        assert how_executed(full, host).identity != how_executed(target, host).identity

    def test_a_probe_is_for_programs_only(self):
        fields = load_target("riscv64-linux-c").model_dump(mode="json")
        fields |= {"execution": {"by": "runtime"}, "cross": None}
        with pytest.raises(ValueError, match="only a program has a twin"):
            Target.model_validate(fields)

    def test_the_probe_is_answered_by_the_emulated_cpu_and_a_difference_is_an_error(self, bench, int8, tmp_path):
        target = usable("riscv64-linux-c")
        record = bench.compile(target, int8, Scheme.INT8_STATIC)
        wrong = tmp_path / "wrong"
        shutil.copytree(bench.path(record.outputs["executable"]), wrong)
        machine = how_executed(target)
        good = open_on(machine, wrong, "program").predict(bench.x)
        assert len(good) == len(bench.x)
        (wrong / HOST).chmod(0o644)
        (wrong / HOST).write_text(
            script(f"""
            import sys, numpy as np
            count = len(sys.stdin.buffer.read()) // {4 * SIZE * SIZE}
            sys.stdout.buffer.write(np.full((count, {CLASSES}), 0.5, np.float32).tobytes())
        """)
        )
        with pytest.raises(ToolchainError, match="other answers on the emulated CPU"):
            open_on(machine, wrong, "program").predict(bench.x)


def test_the_backend_refuses_what_the_targets_do_not_run():
    target = load_target("cortex-m4-bare-c")
    answer = backend_of(target).route(Scheme.FP16, {"onnx"}, target, Recipe.model_construct())
    assert "does not run fp16" in answer.reason


def test_a_model_too_big_for_the_device_is_compiled_run_and_refused_with_its_figures(bench, int8):
    target = usable("cortex-m4-bare-c")
    device = DeviceFigures.model_validate(bench.compile(target, int8, Scheme.INT8_STATIC).facts["device"])
    assert any("more memory than the device" in note for note in device.notes)
    profile = Profile(
        source="untimed",
        size_bytes=100,
        compressed_bytes=100,
        device=device,
    )
    screened = Verdict.model_construct(verdict=Decision.PASS)
    variant = Measured("small", profile, screened, None, 0.9)
    baseline = profile.model_copy(update={"size_bytes": 10**6, "compressed_bytes": 10**6})
    assert screen([variant], baseline, target.limits)[0] == [variant]
    kept, dropped = screen([variant], baseline, Limits(flash_bytes=1 << 20, ram_bytes=1024))
    assert kept == []
    assert f"{device.ram_bytes:,}" in dropped["small"]
    assert "1,024" in dropped["small"]
