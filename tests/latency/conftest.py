"""A machine made of numbers: its speed, its noise and what each model takes are known."""

import numpy as np
import pytest

from hwnas.latency.time_onnx import REFERENCE, Burst, Facts

FACTS = Facts("a processor, 2 cores", "onnxruntime-1", "CPUExecutionProvider", "0,1")


class MadeUp:
    """A `hwnas.latency.target.Target` without a clock; the bytes of a model are its name."""

    host = None

    def __init__(self, time_ms, speed=lambda moment: 1.0, noise=0.0, session_noise=0.0, seed=0, stop_after=None):
        self.time_ms, self.speed, self.noise, self.session_noise = time_ms, speed, noise, session_noise
        self.rng = np.random.default_rng(seed)
        self.stop_after = stop_after
        self.moment = 0
        self.asked = []
        self.configs = []

    def facts(self):
        return FACTS

    def bursts(self, models, names, reference, config, schedule):
        self.configs.append(config)
        for number, (model, session) in enumerate(schedule):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(models[model])
            if number % 4 == 0:
                yield self._burst(REFERENCE, 0, 0.1)
            extra = np.exp(self.rng.normal(0, self.session_noise))
            for _ in range(config.bursts):
                yield self._burst(model, session, self.time_ms(models[model].decode()) * extra)

    def _burst(self, model, session, time_ms):
        self.moment += 1
        values = time_ms * self.speed(self.moment) * np.exp(self.rng.normal(0, self.noise, 11))
        return Burst(model, session, tuple(values.tolist()), 1.0, (5, 11, 11))


@pytest.fixture
def made_up():
    return MadeUp
