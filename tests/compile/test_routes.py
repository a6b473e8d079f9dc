import subprocess
import sys

import pytest

from edgemill.compile.backend import BACKENDS, Refusal, Route, backend_of
from edgemill.errors import InvariantError
from edgemill.quantize import DYNAMIC, FP16, LITERT, QAT, STATIC
from edgemill.recipe import Scheme, parse_recipe
from edgemill.targets import load_target, target_names

FORMS = frozenset({"onnx", "keras", "saved_model"})
SCHEMES = [None, *Scheme]


def recipe(**quantize):
    return parse_recipe(
        {
            "name": "test",
            "checkpoint": {"path": "model.keras"},
            "data": {"source": "npz", "path": "data.npz", "split": {"validation": 10}},
            "stages": {"quantize": quantize},
        }
    )


def route(target, scheme, available=FORMS, **quantize):
    found = backend_of(target).route(scheme, available, target, recipe(**quantize))
    assert isinstance(found, Route), found
    return found


def refusal(target, scheme, available=FORMS, **quantize):
    found = backend_of(target).route(scheme, available, target, recipe(**quantize))
    assert isinstance(found, Refusal), found
    assert found.reason
    assert found.remedy
    return found


X86, ARM, ANDROID = (load_target(name) for name in ("x86-64-vnni", "raspberry-pi-5", "android-arm64"))

RUNNABLE = [
    (name, scheme) for name in target_names() for scheme in SCHEMES if (scheme or "fp32") in load_target(name).formats
]


def running(scheme):
    return [name for name in target_names() if scheme in load_target(name).formats]


def quantized_by_us():
    """Targets whose int8 files are quantized here, not by the vendor's compiler."""
    return [name for name in running(Scheme.INT8_STATIC) if route(load_target(name), Scheme.INT8_STATIC).settings]


class TestEveryTarget:
    """What the seam promises of every target in the catalog."""

    @pytest.mark.parametrize(
        ("name", "scheme"),
        [
            (name, scheme)
            for name in target_names()
            for scheme in SCHEMES
            if (scheme or "fp32") in load_target(name).formats
        ],
    )
    def test_a_trainable_model_has_a_route_in_every_format(self, name, scheme):
        target = load_target(name)
        found = route(target, scheme)
        assert (found.step is None) == (found.settings is None)
        assert set(found.inputs.values()) <= {*FORMS, "data", "teacher"}
        if found.step is None:
            assert found.output in FORMS

    def test_mixed_precision_is_refused_for_litert_with_what_helps(self):
        assert "int8_qat" in refusal(ANDROID, Scheme.INT8_MIXED).remedy

    @pytest.mark.parametrize("name", target_names())
    def test_a_format_outside_the_target_is_refused(self, name):
        target = load_target(name)
        target = target.model_copy(update={"formats": ("fp32",)})
        for scheme in Scheme:
            assert str(scheme) in refusal(target, scheme).reason

    @pytest.mark.parametrize("name", running(Scheme.INT8_QAT))
    def test_training_needs_a_model_that_can_be_trained(self, name):
        target = load_target(name)
        found = refusal(target, Scheme.INT8_QAT, FORMS - {"keras"})
        assert "inference-only" in found.reason

    @pytest.mark.parametrize("name", running(Scheme.INT8_QAT))
    def test_teacher_goes_in_only_when_the_training_distills(self, name):
        target = load_target(name)
        assert "teacher" in route(target, Scheme.INT8_QAT).inputs
        assert "teacher" not in route(target, Scheme.INT8_QAT, qat={"distill": False}).inputs

    @pytest.mark.parametrize("name", quantized_by_us())
    def test_granularity_of_the_recipe_unless_the_target_has_one_scale(self, name):
        target = load_target(name)
        coarse = target.model_copy(update={"int8": target.int8.model_copy(update={"per_channel": False})})
        assert route(target, Scheme.INT8_STATIC).settings.granularity == "per_channel"
        assert route(target, Scheme.INT8_STATIC, granularity="per_tensor").settings.granularity == "per_tensor"
        assert route(coarse, Scheme.INT8_STATIC).settings.granularity == "per_tensor"


class TestOnnxRuntime:
    @pytest.mark.parametrize("target", [X86, ARM], ids=lambda target: target.name)
    def test_steps(self, target):
        assert route(target, None) == Route(None, None, {}, "onnx")
        assert route(target, Scheme.INT8_STATIC).step is STATIC
        assert route(target, Scheme.INT8_DYNAMIC).step is DYNAMIC
        assert route(target, Scheme.FP16).step is FP16
        assert route(target, Scheme.INT8_QAT).step is QAT

    def test_arithmetic_is_that_of_the_target(self):
        for target in (X86, ARM):
            settings = route(target, Scheme.INT8_STATIC, calibration="percentile", percentile=99.9).settings
            assert settings.int8 == target.int8
            assert (settings.calibration, settings.percentile) == ("percentile", 99.9)
        outputs = {route(target, Scheme.INT8_QAT).output for target in (X86, ARM)}
        assert outputs == {f"onnx_{target.int8.activations}" for target in (X86, ARM)}

    def test_an_inference_only_checkpoint_is_quantized_after_training(self):
        for scheme in (None, Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC, Scheme.FP16):
            route(X86, scheme, frozenset({"onnx"}))

    def test_weights_trained_on_8_bits_do_not_go_where_they_overflow(self):
        avx2 = X86.model_copy(update={"int8": X86.int8.model_copy(update={"reduce_range": True})})
        assert "overflow" in refusal(avx2, Scheme.INT8_QAT).reason
        assert route(avx2, Scheme.INT8_STATIC).settings.int8.reduce_range


class TestLiteRt:
    @pytest.mark.parametrize("scheme", [None, Scheme.FP16, Scheme.INT8_DYNAMIC, Scheme.INT8_STATIC])
    def test_conversion_carries_the_format(self, scheme):
        found = route(ANDROID, scheme)
        assert found.step is LITERT
        assert found.settings.scheme == (scheme or "fp32")
        assert found.output == "tflite"
        assert ("data" in found.inputs) == (scheme is Scheme.INT8_STATIC)

    def test_keras_before_saved_model(self):
        assert route(ANDROID, None).inputs == {"keras": "keras"}
        assert route(ANDROID, None, FORMS - {"keras"}).inputs == {"saved_model": "saved_model"}

    def test_a_tflite_checkpoint_ships_as_it_is(self):
        assert route(ANDROID, None, frozenset({"tflite", "onnx"})) == Route(None, None, {}, "tflite")

    def test_onnx_alone_is_refused(self):
        found = refusal(ANDROID, Scheme.INT8_STATIC, frozenset({"onnx"}))
        assert "onnx" in found.reason
        assert "SavedModel" in found.remedy


def test_every_backend_of_the_catalog_exists():
    assert {load_target(name).backend for name in target_names()} <= set(BACKENDS)
    for name, backend in BACKENDS.items():
        assert backend.name == name


def test_unknown_backend_is_named():
    with pytest.raises(InvariantError) as error:
        backend_of(X86.model_copy(update={"backend": "abacus"}))
    assert error.value.got == "abacus"


def test_the_seam_imports_no_framework():
    script = (
        "import sys; import edgemill.compile.backend, edgemill.benchmark, edgemill.benchmark.host;"
        "import edgemill.targets.capability, edgemill.runtimes;"
        "print([m for m in ('tensorflow', 'onnx', 'onnxruntime', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
