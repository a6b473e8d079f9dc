"""The step `quantize.mixed` on a small classifier."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.errors import DataError, QualityGateError, ToolchainError
from edgemill.quantize import MixedSettings
from edgemill.quantize.mixed import step
from edgemill.recipe import Budget, FlipsGate, Gates, Preprocess, Repair, Task, Wider
from edgemill.runtimes import open_model
from edgemill.step import Outputs
from edgemill.targets.spec import ActivationType, Int8Arithmetic
from tests.mixed.graphs import save
from tests.quantize.models import as_input, context

U8 = Int8Arithmetic(activations=ActivationType.UINT8, reduce_range=False)
S8 = Int8Arithmetic(activations=ActivationType.INT8, reduce_range=False)
MARGIN = 0.03
BAD = 1
"""The planted place: channels between depth0 and point0."""
PAIR = {"depth0", "point0"}


def mixed(model: Path, data: Path, folder: Path, checkpoint: Path | None = None, **changes: Any) -> Outputs:
    rules = MixedSettings(**({"int8": U8, "budget": Budget(max_accuracy_drop=MARGIN)} | changes))
    inputs = {"onnx": as_input(model, "onnx"), "data": as_input(data, "dataset")}
    if checkpoint is not None:
        inputs["checkpoint"] = as_input(checkpoint, "onnx")
    return step.run(rules, inputs, context(folder))


def accuracy(path: Path, data: Dataset) -> float:
    answers = open_model(path, "onnx").predict(data.features(SplitName.VALIDATION))
    return float((answers.argmax(axis=1) == data.labels(SplitName.VALIDATION)).mean())


@pytest.fixture(scope="module")
def planted(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    return mixed(bench.model(BAD), bench.data_path, tmp_path_factory.mktemp("planted") / "step")


class TestPlanted:
    """Channels of one pair of layers are badly scaled."""

    def test_int8_fails_and_mixed_passes(self, planted: Outputs, bench: Any) -> None:
        records = planted.facts["evaluations"]
        assert [record["what"] for record in records[:2]] == ["checkpoint", "int8"]
        assert records[1]["decision"] == "FAIL"
        assert planted.facts["outcome"] == "mixed"
        assert any(record.get("decision") == "PASS" for record in records)
        assert accuracy(planted.files["onnx"].path, bench.data) > accuracy(bench.model(), bench.data) - MARGIN

    def test_the_ranking_finds_the_pair(self, planted: Outputs) -> None:
        assert {group["name"] for group in planted.facts["groups"][:2]} == PAIR
        noise = [group["noise"] for group in planted.facts["groups"]]
        assert noise == sorted(noise, reverse=True)
        assert noise[1] > 5 * noise[2]

    def test_only_the_pair_is_float(self, planted: Outputs) -> None:
        assert set(planted.facts["restored"]) == PAIR
        assert set(planted.facts["wide_nodes"]) == PAIR | {f"{name}_relu" for name in PAIR}
        assert {group["name"] for group in planted.facts["groups"] if group["wide"]} == PAIR
        assert planted.facts["kernels"]["operators"]["QLinearConv"] == 3
        assert planted.facts["warnings"] == []
        assert all("gate" in planted.facts["float_nodes"][name] for name in PAIR)

    def test_few_evaluations_were_needed(self, planted: Outputs) -> None:
        assert len(planted.facts["evaluations"]) <= 4

    def test_again_gives_the_same_bytes(self, planted: Outputs, bench: Any, tmp_path: Path) -> None:
        again = mixed(bench.model(BAD), bench.data_path, tmp_path / "again")
        assert again.files["onnx"].path.read_bytes() == planted.files["onnx"].path.read_bytes()
        assert again.facts == planted.facts

    def test_nothing_else_is_left_in_the_folder(self, planted: Outputs) -> None:
        path = planted.files["onnx"].path
        assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_healthy_model_is_done_after_one_look(bench: Any, tmp_path: Path) -> None:
    made = mixed(bench.model(), bench.data_path, tmp_path / "step")
    assert made.facts["outcome"] == "int8"
    assert [record["what"] for record in made.facts["evaluations"]] == ["checkpoint", "int8"]
    assert made.facts["restored"] == made.facts["wide_nodes"] == []
    assert made.facts["kernels"]["unfused"] == []


def test_int8_activations_as_on_arm(bench: Any, tmp_path: Path) -> None:
    made = mixed(bench.model(BAD), bench.data_path, tmp_path / "step", int8=S8)
    assert set(made.facts["restored"]) >= PAIR
    types = {tensor.name: tensor.data_type for tensor in onnx.load(made.files["onnx"].path).graph.initializer}
    quantizers = [node for node in onnx.load(made.files["onnx"].path).graph.node if node.op_type == "QuantizeLinear"]
    assert {types[node.input[2]] for node in quantizers} == {TensorProto.INT8}


def test_further_gates_count(bench: Any, tmp_path: Path) -> None:
    made = mixed(bench.model(BAD), bench.data_path, tmp_path / "step", gates=Gates(flips=FlipsGate(max_rate=0.03)))
    assert made.facts["evaluations"][1]["decision"] == "FAIL"
    assert set(made.facts["restored"]) >= PAIR


def test_unlabelled(bench: Any, tmp_path: Path) -> None:
    made = mixed(bench.model(BAD), bench.data_path, tmp_path / "step", task=Task.UNLABELLED)
    assert set(made.facts["restored"]) >= PAIR


def test_half_weights_where_they_pass(bench: Any, planted: Outputs, tmp_path: Path) -> None:
    made = mixed(bench.model(BAD), bench.data_path, tmp_path / "step", wider=(Wider.FP16, Wider.FP32))
    assert made.facts["evaluations"][-1]["what"] == "fp16"
    assert len(made.facts["fp16_weights"]) == 2
    assert made.files["onnx"].path.stat().st_size < planted.files["onnx"].path.stat().st_size + 600
    held = onnx.load(made.files["onnx"].path).graph.initializer
    assert sum(tensor.data_type == TensorProto.FLOAT16 for tensor in held) == 2
    assert accuracy(made.files["onnx"].path, bench.data) > accuracy(bench.model(), bench.data) - MARGIN


class TestRefusals:
    def test_a_model_that_lost_too_much_before(self, bench: Any, tmp_path: Path) -> None:
        model = onnx.load(bench.model(BAD))
        head = next(tensor for tensor in model.graph.initializer if tensor.name == "head.w")
        worse = numpy_helper.to_array(head) * np.random.default_rng(0).uniform(-1, 1, head.dims).astype(np.float32)
        head.CopyFrom(numpy_helper.from_array(worse, "head.w"))
        onnx.save(model, tmp_path / "worse.onnx")
        with pytest.raises(QualityGateError, match="not even with every operator in float") as caught:
            mixed(tmp_path / "worse.onnx", bench.data_path, tmp_path / "step", checkpoint=bench.model())
        assert "distill" in str(caught.value.remedy)
        assert "int8_qat" in str(caught.value.remedy)

    def test_too_few_samples_to_prove_anything(self, bench: Any, tmp_path: Path) -> None:
        with pytest.raises(QualityGateError, match="too few") as caught:
            mixed(bench.model(BAD), bench.data_path, tmp_path / "step", budget=Budget(max_accuracy_drop=0.001))
        assert "samples" in str(caught.value.expected)
        assert not list((tmp_path / "step" / "out").iterdir())

    def test_no_evaluations_left(self, bench: Any, tmp_path: Path) -> None:
        with pytest.raises(QualityGateError, match="Nothing in int8 passes"):
            mixed(bench.model(BAD), bench.data_path, tmp_path / "step", evaluations=2)

    def test_nothing_to_quantize(self, bench: Any, tmp_path: Path) -> None:
        nodes = [helper.make_node("Softplus", ["x"], ["y"], name="only")]
        path = save(tmp_path / "m.onnx", nodes, {}, ["n", 8, 8, 1], ("y", ["n", 8, 8, 1]))
        with pytest.raises(ToolchainError, match="No operator"):
            mixed(path, bench.data_path, tmp_path / "step", task=Task.UNLABELLED)

    def test_weights_that_are_not_finite(self, bench: Any, tmp_path: Path) -> None:
        model = onnx.load(bench.model())
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "stem.b")
        bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, np.nan, np.float32), "stem.b"))
        onnx.save(model, tmp_path / "nan.onnx")
        with pytest.raises(DataError, match="not finite"):
            mixed(tmp_path / "nan.onnx", bench.data_path, tmp_path / "step", checkpoint=bench.model())

    def test_no_validation_samples(self, bench: Any, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        cut = {split: 0 if split is SplitName.VALIDATION else None for split in SplitName}
        write_dataset(
            folder,
            {split: bench.data.raw(split)[: cut[split]] for split in SplitName},
            {split: bench.data.labels(split)[: cut[split]] for split in SplitName},
            Preprocess(scale=16),
        )
        with pytest.raises(DataError, match="validation split is empty"):
            mixed(bench.model(), folder, tmp_path / "step")

    def test_a_file_that_is_no_model(self, bench: Any, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes(b"not a model")
        with pytest.raises(ToolchainError):
            mixed(tmp_path / "m.onnx", bench.data_path, tmp_path / "step", checkpoint=bench.model())


def test_nodes_without_names(bench: Any, tmp_path: Path) -> None:
    model = onnx.load(bench.model(BAD))
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "unnamed.onnx")
    made = mixed(tmp_path / "unnamed.onnx", bench.data_path, tmp_path / "step")
    assert made.facts["outcome"] == "mixed"
    assert len(made.facts["restored"]) == 2


def test_four_bit_head(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "wide.onnx"
    shutil.copy(bench.model(), path)
    model = onnx.load(path)
    draw = np.random.default_rng(2)
    wide = draw.normal(size=(10, 512)).astype(np.float32)
    back = np.linalg.pinv(wide).astype(np.float32)
    model.graph.node[-1].output[0] = "narrow"
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["narrow", "wide.w"], ["wide"], name="wide"),
            helper.make_node("MatMul", ["wide", "back.w"], ["logits"], name="back"),
        ]
    )
    model.graph.initializer.extend([numpy_helper.from_array(wide, "wide.w"), numpy_helper.from_array(back, "back.w")])
    onnx.save(model, path)
    made = mixed(path, bench.data_path, tmp_path / "step", int4_weights=True)
    kinds = [node.op_type for node in onnx.load(made.files["onnx"].path).graph.node]
    assert kinds.count("MatMulNBits") == len(made.facts["int4_nodes"]) > 0
    assert made.facts["evaluations"][-1]["decision"] == "PASS"
    assert made.facts["kernels"]["operators"]["MatMulNBits"] == len(made.facts["int4_nodes"])
    plain = mixed(path, bench.data_path, tmp_path / "plain")
    assert made.files["onnx"].path.stat().st_size < plain.files["onnx"].path.stat().st_size


class TestRepairs:
    def test_a_repaired_graph_needs_nothing_wider(self, bench: Any, tmp_path: Path) -> None:
        made = mixed(bench.model(BAD), bench.data_path, tmp_path / "step", repair=(Repair.EQUALIZATION,))
        assert made.facts["outcome"] == "int8"
        assert [record["repair"] for record in made.facts["repairs"] if record["kept"]] == ["cross_layer_equalization"]

    def test_repairs_of_the_quantized_graph_are_in_what_is_judged(self, bench: Any, tmp_path: Path) -> None:
        made = mixed(
            bench.model(BAD), bench.data_path, tmp_path / "step", repair=(Repair.MSE_SCALES, Repair.BIAS_CORRECTION)
        )
        assert {record["repair"] for record in made.facts["repairs"]} == {"mse_scales", "bias_correction"}
        passing = [record for record in made.facts["evaluations"] if record.get("decision") == "PASS"]
        assert accuracy(made.files["onnx"].path, bench.data) == pytest.approx(passing[-1]["accuracy"])
