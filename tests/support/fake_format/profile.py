"""What the fake format says of its time: a Conv that takes three quarters, a cast, and a Conv again. UNSUPPORTED is set by tests."""

from tests.support.fake_format import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = None


class Session(run.Session):
    count = 0

    def run(self, feeds):
        self.count += 1
        return super().run(feeds)

    def profile(self):
        return {"runs": [operators(number) for number in range(self.count)], "trace": '[{"ph": "X"}]'}


def load(folder, settings):
    return Session(run.load(folder, settings).does)


def operators(number):
    conv = {"type": "Conv", "kernel": "fast", "dtype": "int8", "converts": False, "fallback": False}
    cast = {"type": "Cast", "kernel": None, "dtype": "float32", "converts": True, "fallback": True}
    burst = 50 if number % 20 == 7 else 1  # a neighbour disturbs one run of twenty
    return [
        {"name": "first", **conv, "time_ns": burst * 500_000},
        {"name": "between", **cast, "time_ns": 200_000 + 1000 * number},
        {"name": "second", **conv, "time_ns": 250_000},
    ]
