"""A peer's run, the judge of all models, claims, table and picture."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path
from platform import machine

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import input_file
from benchmarks.peers.claims import claims, stretch
from benchmarks.peers.contenders import Made, Peer, Setting, make
from benchmarks.peers.document import markdown
from benchmarks.peers.environments import Environment
from benchmarks.peers.judge import judge
from benchmarks.peers.ours import variants
from benchmarks.peers.picture import draw
from benchmarks.peers.workload import Workload
from edgemill.artifact import digest_path
from edgemill.bundle import Origin, write_bundle
from edgemill.data.dataset import SplitName, write_dataset
from edgemill.recipe import Budget, Preprocess, Task
from edgemill.summary import CheckpointFacts, DataFacts, Profile, Status, Summary, TargetResult, VariantResult
from edgemill.targets import load_target
from edgemill.validate.decide import failed
from edgemill.validate.paired_proportions import compare_binary

N = 1200
SIDE = 6


def network(path: Path, weights: np.ndarray) -> Path:
    """Conv 3x3 of 4 channels, Relu, MatMul to 2 logits: int8 has something to do."""
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(4, 1, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "k"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(kernel, "k"), numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    """A network, and data that it answers rightly."""
    import onnxruntime

    folder = tmp_path_factory.mktemp("workload")
    rng = np.random.default_rng(0)
    inputs, data = folder / "inputs", folder / "data"
    inputs.mkdir()
    data.mkdir()
    weights = rng.normal(size=(4 * (SIDE - 2) ** 2, 2)).astype(np.float32)
    teacher = network(inputs / "teacher.onnx", weights)
    x = rng.normal(size=(N, SIDE, SIDE, 1)).astype(np.float32)
    y = onnxruntime.InferenceSession(str(teacher)).run(None, {"x": x})[0].argmax(1)
    write_dataset(data, dict.fromkeys(SplitName, x), dict.fromkeys(SplitName, y), Preprocess())
    np.save(inputs / "calibration_x.npy", x[:50])
    return Workload(inputs, input_file(data, "dataset"))


@pytest.fixture
def here():
    """This Python as the environment of the peer onnxruntime: it has the same package."""
    return Environment("onnxruntime", Path(sys.executable), 1.0, 2.0, "lock", reused=True)


PEER = Peer("onnxruntime", "onnxruntime", ())


def test_a_peer_makes_a_model_once(tmp_path, workload, here):
    out = tmp_path / "out"
    made = make(PEER, Setting("static_u8s8"), here, workload.inputs, out)
    assert made.failure == ""
    assert [path.name for path in made.files] == ["model.onnx"]
    types = {node.op_type for node in onnx.load(made.files[0]).graph.node}
    assert "QuantizeLinear" in types
    assert made.seconds >= 0
    assert made.peak_rss_mb > 10
    made.files[0].write_bytes(b"kept")
    assert make(PEER, Setting("static_u8s8"), here, workload.inputs, out).files[0].read_bytes() == b"kept"
    other = Environment("onnxruntime", here.python, 1.0, 2.0, "another lock", reused=True)
    assert make(PEER, Setting("static_u8s8"), other, workload.inputs, out).files[0].read_bytes() != b"kept"


def test_whatever_a_peer_does_is_a_row(tmp_path, workload, here):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "teacher.onnx").write_bytes(b"no model")
    np.save(broken / "calibration_x.npy", np.zeros((3, SIDE, SIDE, 1), np.float32))
    fails = make(PEER, Setting("static_u8s8"), here, broken, tmp_path / "a")
    assert fails.files == ()
    assert fails.failure.startswith("exit status 1: ")
    assert "Error" in fails.failure
    slow = make(PEER, Setting("dynamic", limit_s=0.01), here, workload.inputs, tmp_path / "b")
    assert slow.files == ()
    assert "limit" in slow.failure


def test_the_judge_treats_all_alike(tmp_path, workload):
    original = onnx.load(workload.teacher)
    weights = numpy_helper.to_array(original.graph.initializer[1])
    same = network(tmp_path / "same.onnx", weights.copy())
    opposite = network(tmp_path / "opposite.onnx", -weights)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"no model")
    models = [
        Made("same", "edgemill", "", (same,)),
        Made("opposite", "peer", "", (opposite,)),
        Made("garbage", "peer", "", (garbage,)),
        Made("gone", "peer", "", failure="did not install"),
    ]
    work = tmp_path / "judged"
    work.mkdir()
    rows = {row["model"]: row for row in judge(work, workload, models, rounds=8, runs=2)}
    assert list(rows) == ["fp32", "same", "opposite", "garbage", "gone"]
    assert rows["fp32"]["accuracy"] == 1
    assert rows["fp32"]["latency_ratio"] == pytest.approx(1)
    assert (rows["same"]["verdict_005"], rows["same"]["verdict_01"]) == ("PASS", "PASS")
    assert rows["same"]["compressed_ratio"] == pytest.approx(1, rel=0.05)
    assert (rows["opposite"]["verdict_005"], rows["opposite"]["accuracy"]) == ("FAIL", 0)
    assert rows["opposite"]["lost"] == N
    for name in ("same", "opposite"):
        assert rows[name]["n"] == N
        assert rows[name]["latency_ratio_lower"] < rows[name]["latency_ratio"] < rows[name]["latency_ratio_upper"]
        assert len(rows[name]["round_p50_ns"]) == 8
    assert "cannot load" in rows["garbage"]["failure"]
    assert rows["gone"]["failure"] == "did not install"
    assert not {"latency_ratio", "verdict_005"} & (set(rows["garbage"]) | set(rows["gone"]))


def row(model: str, who: str, verdicts: tuple[str, str], latency: float, size: float) -> dict:
    return {
        "model": model,
        "who": who,
        "runtime": "LiteRT",
        "failure": "",
        "notes": {},
        "seconds": 1.0,
        "peak_rss_mb": None,
        "n": 10_000,
        "accuracy": 0.92,
        "drop": 0.001,
        "drop_upper": 0.004,
        "verdict_005": verdicts[0],
        "verdict_01": verdicts[1],
        "bytes": 1000,
        "compressed_bytes": 900,
        "compressed_ratio": size,
        "latency_ratio": latency,
        "latency_ratio_lower": latency * 0.99,
        "latency_ratio_upper": latency * 1.01,
        "p95_ratio": latency,
        "p50_us": 10.0,
    }


def failed_row(model: str) -> dict:
    return {"model": model, "who": "peer", "runtime": None, "failure": "no | wheel\nhere", "notes": {}}


ROWS = [
    row("fp32", "baseline", ("PASS", "PASS"), 1.0, 1.0),
    row("theirs", "peer", ("PASS", "PASS"), 0.3, 0.25),
    row("theirs-fast", "peer", ("INCONCLUSIVE", "PASS"), 0.2, 0.2),
    row("ours", "edgemill", ("PASS", "PASS"), 0.06, 1 / 41),
    row("ours-small", "edgemill", ("INCONCLUSIVE", "PASS"), 0.05, 1 / 61),
    row("ours-bad", "edgemill", ("FAIL", "FAIL"), 0.01, 1 / 100),
    failed_row("gone"),
]


def values(rows: list[dict], quick: bool = False) -> dict[str, float]:
    return {claim.id: claim.value for claim in claims(rows, quick)}


def test_claims_count_what_passed():
    found = values(ROWS)
    assert found["latency_of_fp32_at_0.005"] == 0.06
    assert found["latency_of_best_peer_at_0.005"] == pytest.approx(0.2)
    assert found["compressed_of_fp32_at_0.005"] == pytest.approx(1 / 41)
    assert found["compressed_of_fp32_at_0.01"] == pytest.approx(1 / 61)
    assert found["peer_models_measured"] == 2
    assert all(claim.holds for claim in claims(ROWS, quick=False))


def test_without_a_pass_no_claim_holds():
    rows = [dict(r, verdict_005="INCONCLUSIVE", verdict_01="FAIL") if r["who"] == "edgemill" else r for r in ROWS]
    found = [claim for claim in claims(rows, quick=False) if claim.id != "peer_models_measured"]
    assert len(found) == 4
    assert all(math.isnan(claim.value) and not claim.holds for claim in found)
    assert not any(claim.holds for claim in claims(ROWS[:1], quick=False))


def test_quick_claims_say_that_they_prove_less():
    found = values(ROWS, quick=True)
    assert found["latency_of_fp32_at_0.005_not_failed_on_2000_images"] == 0.05
    assert found["compressed_of_fp32_at_0.01_not_failed_on_2000_images"] == pytest.approx(1 / 61)


def test_peers_alone_claim_nothing_about_edgemill():
    assert [claim.id for claim in claims(ROWS[:3], quick=True, alone=True)] == ["peer_models_measured"]


def test_stretch_goals_are_information():
    said = stretch(ROWS, quick=False)
    goals = "latency at 0.005 0.05 = 1/20 of fp32: not reached; bytes at 0.01 0.0125 = 1/80 of fp32: not reached"
    assert said[-1] == f"stretch: {goals}"
    assert any("theirs)" in line and "peers" in line for line in said)


def test_table_and_picture_show_every_row(tmp_path):
    text = markdown(ROWS, claims(ROWS, quick=False), ["a fact"], "peers.svg")
    for number, each in enumerate(ROWS, start=1):
        assert f"| {number} | {each['model']} |" in text
    assert "| 7 | gone | no \\| wheel here |" in text
    assert "| latency_of_fp32_at_0.005 | 0.06 | <= 0.08 | yes |" in text
    draw(ROWS, "verdict_005", "a < b", tmp_path / "peers.svg")
    root = ElementTree.parse(tmp_path / "peers.svg").getroot()
    titles = [item.text for item in root.iter("{http://www.w3.org/2000/svg}title")]
    assert [name for name in titles if name in {r["model"] for r in ROWS}] == [r["model"] for r in ROWS[:6]]
    shown = " ".join(item.text or "" for item in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "gone" not in shown
    assert "a < b" in shown


def test_edgemills_gated_variants_are_read(tmp_path):
    checkpoint = tmp_path / "checkpoint.keras"
    checkpoint.write_bytes(b"checkpoint")
    budget = Budget(max_accuracy_drop=0.01)
    own, other = sorted(("x86-64-vnni", "raspberry-pi-5"), key=lambda n: load_target(n).arch != machine())
    target, files, found = load_target(own), {}, []
    for name, status in (("good", Status.SELECTED), ("bad", Status.FAILED), ("dull", Status.DROPPED)):
        path = tmp_path / name
        path.write_bytes(name.encode() * 100)
        passing = compare_binary(np.ones(1000), np.ones(1000), budget)
        verdict = {"good": passing, "bad": failed(budget, 10, "worse")}.get(name)
        files[digest_path(path)] = path
        found.append(
            VariantResult(
                target=target.name,
                candidate=name,
                scheme="int8_static",
                digest=digest_path(path),
                kind="onnx",
                profile=Profile(size_bytes=400, compressed_bytes=400, source="measured:native"),
                accuracy=0.9 if verdict else None,
                verdict=verdict,
                status=status,
                reason="" if name == "good" else "worse",
            )
        )
    result = TargetResult(target=target.name, source="measured:native", variants=tuple(found))
    elsewhere = TargetResult(target=other, failure="no emulator")
    origin = Origin(
        model="w1",
        task=Task.CLASSIFICATION,
        preprocess=Preprocess(),
        checkpoint_digest=digest_path(checkpoint),
        data_digest="0" * 64,
    )
    folder, state = tmp_path / "out", tmp_path / "state"
    write_bundle(folder / "bundles" / target.name, result, target, files, origin)
    summary = Summary(
        name="w1",
        task=Task.CLASSIFICATION,
        recipe_digest="0" * 64,
        budget=budget,
        checkpoint=CheckpointFacts(format="keras2", digest=digest_path(checkpoint)),
        data=DataFacts(source="idx", digest="0" * 64, splits={}),
        targets=(result, elsewhere),
        started=datetime.now(UTC),
        finished=datetime.now(UTC),
        command="edgemill optimize",
    )
    (folder / "summary.json").write_text(summary.model_dump_json())
    good, bad = variants(folder, checkpoint, state)
    assert good.name == f"edgemill/good {own}"
    assert good.files[0].read_bytes() == b"good" * 100
    assert bad.files == ()
    assert "gone" in bad.failure
    assert bad.notes["own_verdict"] == "FAIL"
    digest = digest_path(tmp_path / "bad")
    stored = state / "objects" / digest[:2] / digest / "model.onnx"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"bad" * 100)
    assert variants(folder, checkpoint, state)[1].files == (stored,)
    checkpoint.write_bytes(b"another")
    with pytest.raises(ValueError, match="another checkpoint"):
        variants(folder, checkpoint, state)
    with pytest.raises(ValueError, match=r"summary\.json"):
        variants(tmp_path, checkpoint)
