import math
import platform

import numpy as np
import pytest

from edgemill.artifact import canonical_json
from edgemill.benchmark.energy import Covers
from edgemill.benchmark.energy.envelope import estimate_energy
from edgemill.benchmark.energy.facts import energy_facts, energy_source
from edgemill.benchmark.energy.measure import measure_energy, t_interval
from edgemill.errors import ToolchainError
from edgemill.targets import load_target, provenance
from tests.benchmark.energy import trees

LATENCY_S = 0.01
TRUE_MJ = 25.0


class Device:
    """A device and its meter, in its own time: idle power that drifts and fluctuates, and calls that cost 25 mJ."""

    name, source, scope, covers = "simulated", "measured:simulated", "all of it", Covers.SYSTEM

    def __init__(self, seed=0, drift_w_per_s=0.0, noise_w=0.0, update_s=0.001):
        self.rng = np.random.default_rng(seed)
        self.drift, self.noise, self.update_s = drift_w_per_s, noise_w, update_s
        self.now = self.joules = 0.0
        self.calls = 0

    def pass_time(self, seconds, extra_j=0.0):
        middle = self.now + seconds / 2
        fluctuation = self.noise * self.rng.normal() * math.sqrt(0.1 / seconds)
        self.joules += (3.0 + self.drift * middle + fluctuation) * seconds + extra_j
        self.now += seconds

    def call(self):
        self.calls += 1
        self.pass_time(LATENCY_S, TRUE_MJ / 1e3)

    def read(self):
        return self.joules

    def close(self):
        pass

    def measure(self, **settings):
        return measure_energy(self.call, self, clock=lambda: self.now, sleep=self.pass_time, **settings)


class TestMeasure:
    def test_energy_above_idle(self):
        found = Device().measure(pairs=4)
        assert found.energy_mj == pytest.approx(TRUE_MJ)
        assert found.idle_w == pytest.approx(3)
        assert found.active_w == pytest.approx(3 + TRUE_MJ / 1e3 / LATENCY_S)
        assert found.energy_source == "measured:simulated"
        assert found.energy_pairs == 4
        canonical_json(found.model_dump())

    @pytest.mark.parametrize("drift", [-0.02, 0.05])
    def test_drift_does_not_move_it(self, drift):
        device = Device(drift_w_per_s=drift)
        found = device.measure(pairs=10)
        # Idle first and active afterwards, 10 s each, would be off by 10 s * drift / 100 calls a second.
        naive_error_mj = abs(drift) * 10 * LATENCY_S * 1e3
        assert abs(found.energy_mj - TRUE_MJ) < 0.02 * naive_error_mj
        assert found.energy_mj_lower < TRUE_MJ < found.energy_mj_upper

    def test_interval_covers_as_often_as_it_says(self):
        runs = [Device(seed, 0.02, 0.5).measure(pairs=8, window_s=0.5, confidence=0.9) for seed in range(300)]
        covered = np.mean([run.energy_mj_lower <= TRUE_MJ <= run.energy_mj_upper for run in runs])
        assert 0.85 < covered < 0.95
        assert np.mean([run.energy_mj for run in runs]) == pytest.approx(TRUE_MJ, rel=0.01)

    def test_noise_larger_than_the_model_is_shown(self):
        found = Device(3, noise_w=200.0).measure(pairs=5)
        assert found.energy_mj_lower < 0 < found.energy_mj_upper

    def test_windows_of_a_slow_meter_are_long(self):
        device = Device(update_s=2.0)
        device.measure(pairs=3)
        assert device.now > 3 * 2 * 10 * device.update_s

    def test_a_counter_that_stands_still(self):
        device = Device()
        device.read = lambda: 1.0
        with pytest.raises(ToolchainError, match="stands still"):
            device.measure(pairs=3)

    def test_two_pairs_are_no_sample(self):
        with pytest.raises(ValueError, match="at least 3"):
            Device().measure(pairs=2)

    def test_progress_is_told(self):
        told = []
        Device().measure(pairs=3, report=lambda fraction, message: told.append(fraction))
        assert told == pytest.approx([1 / 3, 2 / 3, 1])

    def test_t_interval_of_a_textbook_sample(self):
        # Mean 3, standard deviation 1.5811, t(0.975, 4) = 2.7764.
        lower, upper = t_interval(np.array([1.0, 2, 3, 4, 5]), 0.95)
        assert (lower, upper) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-4)


ARM = load_target("raspberry-pi-5")


class TestEstimate:
    def test_share_of_the_busy_cores(self):
        one = estimate_energy(ARM, 8.0, 1, "measured:native")
        assert one.energy_estimate_mj == pytest.approx(8.0 * (8.5 - 2.4) / 4)
        assert one.energy_estimate_source == "estimated:power-envelope"
        assert one.energy_estimate_basis == ARM.power.source
        for threads in (4, 16):
            assert estimate_energy(ARM, 8.0, threads, "measured:native").energy_estimate_mj == pytest.approx(48.8)

    def test_latency_from_elsewhere_is_said_or_refused(self):
        found = estimate_energy(ARM, 8.0, 1, "proxy:riscv64-host")
        assert found.energy_estimate_source == "estimated:power-envelope, latency proxy:riscv64-host"
        assert estimate_energy(ARM, 8.0, 1, "unlike:x86_64-host") is None

    def test_no_envelope_no_estimate(self):
        target = ARM.model_copy(update={"power": None})
        assert estimate_energy(target, 8.0, 1, "measured:native") is None

    def test_it_never_stands_in_a_measured_column(self):
        fields = set(estimate_energy(ARM, 8.0, 1, "measured:native").model_dump())
        assert not fields & set(Device().measure(pairs=3).model_dump())


@pytest.mark.parametrize(
    "change",
    [{"active_w": 2.0}, {"idle_w": 0.0}, {"active_cores": 0}, {"source": "somewhere"}],
    ids=lambda change: next(iter(change)),
)
def test_envelope_must_be_possible_and_cited(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        type(ARM.power).model_validate(ARM.power.model_dump() | change)


class TestFacts:
    def test_measured_where_a_meter_is(self, tmp_path):
        """The counter moves with the calls: 3 mJ a call, nothing while idle."""
        trees.powercap(tmp_path, {})
        file = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
        position = [trees.RAPL_RANGE - 5_000]
        file.write_text(f"{position[0]}\n")

        def call():
            position[0] += 3_000
            file.write_text(f"{position[0] % trees.RAPL_RANGE}\n")

        facts = energy_facts(call, ARM, latency_ms=1.0, threads=1, pairs=3, window_s=0.05, root=tmp_path)
        assert facts["energy_mj"] == pytest.approx(3.0, rel=0.05)
        assert facts["energy_mj_lower"] <= facts["energy_mj"] <= facts["energy_mj_upper"]
        assert facts["energy_meter"] == "rapl-powercap"
        assert "energy_estimate_mj" not in facts
        label = provenance(ARM, platform.machine())
        assert facts["energy_source"] == ("measured:rapl" if label == "measured:native" else f"{label}/rapl")

    def test_estimated_where_none_is(self, tmp_path, monkeypatch):
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
        facts = energy_facts(lambda: None, ARM, latency_ms=2.0, threads=4, root=tmp_path)
        assert facts["energy_estimate_mj"] == pytest.approx(2 * 6.1)
        assert "energy_mj" not in facts
        assert "rapl-powercap" in facts["energy_missing"]

    def test_a_meter_that_stands_still_is_a_reason(self, tmp_path):
        trees.powercap(tmp_path, {})
        facts = energy_facts(lambda: None, ARM, latency_ms=2.0, threads=1, pairs=3, window_s=0.02, root=tmp_path)
        assert "energy_mj" not in facts
        assert "stands still" in facts["energy_missing"]

    def test_label_of_another_machine(self, monkeypatch):
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        assert energy_source(Device(), ARM) == "unlike:x86_64-host/simulated"
        assert energy_source(Device(), load_target("x86-64-vnni")) == "measured:simulated"
        assert energy_source(Device(), None) == "measured:simulated"
