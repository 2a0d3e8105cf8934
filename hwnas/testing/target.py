"""Does a target keep to `hwnas.latency.target.Target`? Inherit `TargetTests` in your own tests and override `make`."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from hwnas.errors import MeasurementError
from hwnas.latency.build import build_table
from hwnas.latency.check import check_table
from hwnas.latency.measure import MeasureConfig, measure, reference_model
from hwnas.latency.plan import TableConfig
from hwnas.latency.target import Target
from hwnas.latency.time_onnx import REFERENCE, Burst, BurstConfig, Facts
from hwnas.supernet import Layout, make_layout
from hwnas.supernet.families.mbv3 import MBV3Config

_QUICK = MeasureConfig(sessions=2, burst_s=0.001, min_runs=3, warmup_runs=3)


def tiny_layout() -> Layout:
    """Return a space of a handful of blocks: two resolutions, two depths, two kernel sizes."""
    stage = {"width": 8, "stride": 2, "depths": [1, 2], "kernel_sizes": [3, 5], "expand_ratios": [1, 2]}
    return make_layout(MBV3Config.model_validate({
        "family": "mbv3", "in_channels": 3, "classes": 4, "resolutions": [8, 10], "stem_width": 8, "stem_stride": 1,
        "first_block": False, "stages": [stage], "expand_width": 16, "feature_width": 16,
    }))  # fmt: skip


def _model() -> bytes:
    """A block that takes ``(batch, 24, 14, 14)``."""
    return bytes(reference_model(1).SerializeToString())


class TargetTests:
    """What every target does. The models that are timed are small; a target of hardware takes seconds for them all."""

    equal_within = 2.0
    """Two timings of one model differ by less than this factor; a quiet target may say 1.05."""

    def make(self) -> Target:
        """Return the target to test; each test asks for a new one."""
        raise NotImplementedError("override make() to return the target that is tested")

    def test_it_says_what_it_is(self) -> None:
        """Facts are text, and the same every time but for the cores: tables are compared by them."""
        target = self.make()
        facts, again = target.facts(), self.make().facts()
        assert isinstance(facts, Facts)
        assert facts.device.strip(), "Facts.device names the hardware"
        assert facts.runtime.strip(), "Facts.runtime names what executes models, with its version"
        assert (facts.device, facts.runtime, facts.provider) == (again.device, again.runtime, again.provider)
        assert target.host is None or target.host.strip(), "host is None, or the name of another machine"

    def test_every_session_is_timed_in_the_order_of_the_schedule(self) -> None:
        """Each pair of the schedule gives ``bursts`` bursts, in order; the reference model may come between them."""
        schedule = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2)]
        found = self._timed(schedule, bursts=2)
        own = [(b.model, b.session) for b in found if b.model != REFERENCE]
        assert own == [pair for pair in schedule for _ in range(2)]

    def test_only_what_is_asked_for_is_timed(self) -> None:
        """A model that no pair of the schedule names is not timed: builds continue where they stopped."""
        assert {b.model for b in self._timed([(1, 3)])} - {REFERENCE} == {1}

    def test_timings_are_times(self) -> None:
        """Positive finite milliseconds, as many as asked for at least, with the shape of the input."""
        for burst in self._timed([(0, 0), (1, 0)]):
            assert len(burst.values_ms) >= (1 if burst.model == REFERENCE else 3)
            assert all(math.isfinite(v) and v > 0 for v in burst.values_ms)
            assert burst.cpu_share > 0, "cpu_share is 1 where timings do not depend on a core of the host"
            if burst.model != REFERENCE:
                assert burst.input_shape == (24, 14, 14)

    def test_equal_models_take_equally_long(self) -> None:
        """One model under two numbers: what is timed is the model, not its place in the list."""
        first, second = measure([_model(), _model()], _QUICK, target=self.make())
        assert 1 / self.equal_within < first.median_ms / second.median_ms < self.equal_within

    def test_a_file_is_timed_like_its_bytes(self) -> None:
        """Models come as bytes or as paths of ONNX files."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(_model())
            first, second = measure([path, _model()], _QUICK, target=self.make())
        assert 1 / self.equal_within < first.median_ms / second.median_ms < self.equal_within

    def test_a_file_that_is_no_model_is_a_measurement_error(self) -> None:
        """Whatever a runtime raises becomes one line of hwnas."""
        target = self.make()
        config = BurstConfig(target.facts().provider, (0.001,), min_runs=3, warmup_runs=3)
        try:
            list(target.bursts([b"no model"], ["the broken one"], _model(), config, [(0, 0)]))
        except MeasurementError as error:
            said = str(error)
        else:
            raise AssertionError("bytes that are no model were timed")
        assert "the broken one" in said, "the message names the model"

    def test_a_measurement_states_the_conditions_of_the_target(self) -> None:
        """`hwnas.latency.measure.measure` runs through it, and says where its numbers hold."""
        target = self.make()
        told: list[tuple[float, float]] = []
        (found,) = measure(
            [_model()], _QUICK, target=target, progress=lambda task, done, total, note="": told.append((done, total))
        )
        facts = target.facts()
        conditions = found.conditions
        assert (conditions.device, conditions.runtime) == (facts.device, facts.runtime)
        assert conditions.provider == facts.provider
        assert conditions.input_shape == (24, 14, 14)
        assert found.sessions == _QUICK.sessions
        assert 0 < found.p10_ms <= found.median_ms <= found.p90_ms
        assert told[-1] == (_QUICK.sessions, _QUICK.sessions)

    def test_a_table_is_built_and_checked(self) -> None:
        """A small table: every block of a tiny space, its published error, and a check on fresh networks."""
        layout, config = tiny_layout(), TableConfig(n_networks=6, n_held_out=4, rounds=1, block_time_s=0.001)
        target = self.make()
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "my-device"
            device = build_table(layout, table, target=target, config=config)
            found = check_table(layout, table, 3, target=target, config=config)
        assert device.name == "my-device"
        conditions = device.profile.conditions or {}
        assert (conditions["device"], conditions["runtime"]) == (target.facts().device, target.facts().runtime)
        assert all(row.median_ms > 0 for row in device.rows.values())
        assert found["n_networks"] == 3
        assert found["mismatches"] == [], "facts are the same during a build and after it"

    def _timed(self, schedule: list[tuple[int, int]], bursts: int = 1) -> list[Burst]:
        target = self.make()
        config = BurstConfig(target.facts().provider, (0.001, 0.001), bursts=bursts, min_runs=3, warmup_runs=3)
        return list(target.bursts([_model(), _model()], ["first", "second"], _model(), config, schedule))
