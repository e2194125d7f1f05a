"""Sensors on fixture trees laid out as the kernel lays out /sys: units, wrap-around, permission, garbage, absence.

Fixture-tested, nothing more: no real INA3221, Pi 5 or battery has been read here.
"""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgewise.agent import power, sensors
from edgewise.artifacts.records import Energy
from edgewise.devices.local import LocalDevice
from edgewise.measure import passes, results
from edgewise.measure.runs import Run
from tests.unit.test_agent import make_job


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


PLACES = {  # finder -> the module and the name of the folder that it looks into
    power.find_batteries: (power, "BATTERIES"),
    power.find_power_monitors: (power, "HWMON"),
    power.find_rapl: (power, "RAPL"),
    sensors.find_temperatures: (sensors, "THERMAL"),
    sensors.find_frequencies: (sensors, "PROCESSORS"),
}


def found(finder, monkeypatch, root: Path, files: dict[str, str]) -> dict[str, sensors.Source]:
    monkeypatch.setattr(*PLACES[finder], tree(root, files))
    return {source.name: source for source in finder()}


RAPL = {
    "intel-rapl:0/name": "package-0",
    "intel-rapl:0/energy_uj": "262143000000",
    "intel-rapl:0/max_energy_range_uj": "262143328850",
    "intel-rapl:0:0/name": "core",
    "intel-rapl:0:0/energy_uj": "7",
    "intel-rapl:1/name": "psys",
    "intel-rapl:1/energy_uj": "9",
}
INA3221 = {"hwmon1/name": "ina3221"}
for n, (label, millivolts, milliamperes) in enumerate([("VDD_CPU_GPU_CV", 5000, 400), ("VDD_IN", 19000, 350), ("VDD_SOC", 5000, 300)], 1):
    INA3221 |= {f"hwmon1/in{n}_label": label, f"hwmon1/in{n}_input": str(millivolts), f"hwmon1/curr{n}_input": str(milliamperes)}
    INA3221 |= {f"hwmon1/in{n + 3}_input": "77777"}  # shunt voltages
BATTERY = {"BAT0/type": "Battery", "BAT0/status": "Discharging", "BAT0/voltage_now": "11800000", "BAT0/current_now": "-1500000"}


def test_rapl(monkeypatch, tmp_path):
    sources = found(power.find_rapl, monkeypatch, tmp_path, RAPL)
    package = sources["rapl_0_package-0_uj"]
    assert (package.read(), package.wraps_at, package.scope, package.counter) == (262143000000, 262143328850, "package", True)
    assert sources["rapl_0.0_core_uj"].scope == "core" and sources["rapl_1_psys_uj"].scope == "board"
    assert sources["rapl_1_psys_uj"].wraps_at is None


def test_ina3221_by_label_and_never_the_shunt_voltages(monkeypatch, tmp_path):
    sources = found(power.find_power_monitors, monkeypatch, tmp_path, INA3221)
    assert {source.scope for source in sources.values()} == {"board", "VDD_CPU_GPU_CV", "VDD_SOC"}
    assert sources["hwmon1_ina3221_VDD_IN_uw"].read() == pytest.approx(19.0 * 0.350 * 1e6)


def test_power_and_energy_inputs_of_any_driver(monkeypatch, tmp_path):
    files = {"hwmon0/name": "ina226", "hwmon0/power1_input": "2500000", "hwmon2/name": "sbrmi", "hwmon2/energy1_input": "123"}
    sources = found(power.find_power_monitors, monkeypatch, tmp_path, {**files, "hwmon0/temp1_input": "4"})
    assert {n: (s.read(), s.quantity, s.counter) for n, s in sources.items()} == {
        "hwmon0_ina226_power1_uw": (2.5e6, "power", False),
        "hwmon2_sbrmi_energy1_uj": (123, "energy", True),
    }


def test_a_battery_counts_only_while_discharging(monkeypatch, tmp_path):
    source = found(power.find_batteries, monkeypatch, tmp_path, {**BATTERY, "AC/type": "Mains"})["BAT0_uw"]
    assert source.read() == pytest.approx(11.8 * 1.5 * 1e6) and source.scope == "device" and source.problem is None
    (tmp_path / "BAT0/status").write_text("Charging\n")
    assert sensors.snapshot([source]) == {"BAT0_uw": None}
    assert "only while discharging" in power.find_batteries()[0].problem
    tree(tmp_path, {"BAT0/status": "Discharging", "BAT0/power_now": "4200000"})
    assert power.find_batteries()[0].read() == 4.2e6


def test_steal_is_a_share_of_all_processors_whatever_the_agent_is_pinned_to(monkeypatch, tmp_path):
    """Of 8 processors each loses 0.2 s in a second; the agent may use 2 of them."""
    lines = "".join(f"\ncpu{number} 0 0 0 0 0 0 0 20 0 0" for number in range(8))
    monkeypatch.setattr(sensors, "STAT", tmp_path / "stat")
    monkeypatch.setattr(sensors.os, "sysconf", lambda name: 100)
    readings = []
    for ticks in (0, 8 * 20):
        tree(tmp_path, {"stat": f"cpu  0 0 0 0 0 0 0 {ticks} 0 0{lines}\nintr 5"})
        readings.append({"steal_ns": sensors.read_steal_ns()})
    block = {
        "event": "block",
        "wall_ns": [250_000_000] * 4,
        "cpu_ns": [1] * 4,
        "wait_ns": None,
        "before": readings[0],
        "after": readings[1],
    }
    run = Run.of([{"event": "hello", "cpus": [0, 1]}, {"event": "warmup", "steady": True}, block])
    assert results.gather_evidence([run], [run])["steal_share"] == pytest.approx(0.2)


def test_temperature_and_frequency(monkeypatch, tmp_path):
    zones = found(
        sensors.find_temperatures, monkeypatch, tmp_path / "t", {"thermal_zone0/type": "cpu-thermal", "thermal_zone0/temp": "51234"}
    )
    assert zones["thermal_zone0_cpu-thermal_mdegc"].read() == 51234
    clocks = found(
        sensors.find_frequencies, monkeypatch, tmp_path / "f", {"cpu0/cpufreq/scaling_cur_freq": "1500000", "cpu0/cpufreq/x": ""}
    )
    assert clocks["cpu0_khz"].read() == 1.5e6


def test_steal_and_pressure(monkeypatch, tmp_path):
    tree(
        tmp_path,
        {"stat": "cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1\nctxt 9", "pressure": "some avg10=0 avg60=0 avg300=0 total=4242\nfull total=1"},
    )
    monkeypatch.setattr(sensors, "STAT", tmp_path / "stat")
    monkeypatch.setattr(sensors, "PRESSURE", tmp_path / "pressure")
    assert sensors.read_steal_ns() == pytest.approx(2.5e9) and sensors.read_pressure_us() == 4242
    tree(tmp_path, {"pressure": "garbage", "stat": "cpu  1 2 3 4"})  # the steal column is as old as Linux 2.6.11
    assert sensors.snapshot([s for s in sensors.find_contention() if s.quantity == "steal"]) == {"steal_ns": None}
    assert sensors.snapshot([s for s in sensors.find_contention() if s.quantity == "pressure"]) == {"pressure_cpu_some_us": None}


PI = """#!/bin/sh
case "$1" in
get_throttled) echo "throttled=0x50005" ;;
pmic_read_adc) printf '%s' "$ADC" ;;
esac
"""
ADC = """\
     3V3_SYS_A current(1)=0.10A
   VDD_CORE_A current(7)=2.0A
     3V3_SYS_V volt(9)=3.30V
   VDD_CORE_V volt(15)=0.75V
      EXT5V_V volt(24)=5.1V
"""


@pytest.fixture
def pi(tmp_path, monkeypatch):
    command = tmp_path / "bin/vcgencmd"
    tree(tmp_path, {"bin/vcgencmd": PI})
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    return lambda adc: (
        monkeypatch.setenv("ADC", adc),
        {source.name: source for source in [*sensors.find_throttling(), *power.find_pmic()]},
    )[1]


@pytest.mark.parametrize("adc", [ADC, ADC.replace("     3", "3").replace("   V", "V").replace("(1)", "")])
def test_pi_5_rails_in_both_formats(pi, adc):
    sources = pi(adc)
    assert sources["pmic_rails_w"].read() == pytest.approx(0.33 + 1.5)
    assert int(sources["throttle_bits"].read()) == 0x50005


def test_an_older_pi_has_no_rails_and_garbage_is_a_problem(pi):
    assert "pmic_rails_w" not in pi('error=1 error_msg="Command not registered"')
    assert "no rail" in pi("hello")["pmic_rails_w"].problem


@pytest.mark.parametrize(("content", "problem"), [("", "holds no number"), ("n/a", "holds no number"), (None, "Is a directory")])
def test_garbage_is_a_problem_not_a_number(monkeypatch, tmp_path, content, problem):
    if content is None:
        (tmp_path / "intel-rapl:0/energy_uj").mkdir(parents=True)
        files = {"intel-rapl:0/name": "package-0"}
    else:
        files = {"intel-rapl:0/name": "package-0", "intel-rapl:0/energy_uj": content}
    (source,) = found(power.find_rapl, monkeypatch, tmp_path, files).values()
    assert problem in source.problem and sensors.snapshot([source]) == {source.name: None}


def mounted(fixture: Path, *prelude: str) -> LocalDevice:
    """The agent in a mount namespace of its own, with `fixture` in the place of /sys/class."""
    script = " && ".join([f"mount --bind {fixture} /sys/class", *prelude, f"exec {sys.executable} -m edgewise.agent.program"])
    command = ("unshare", "--mount", "--map-root-user", "sh", "-c", script)
    trial = subprocess.run([*command[:-1], f"mount --bind {fixture} /sys/class"], capture_output=True)
    if not shutil.which("unshare") or trial.returncode:
        pytest.skip("this machine allows no mount namespace")
    return LocalDevice(command)


def run_energy(tmp_path: Path, files: dict[str, str], *prelude: str) -> Energy:
    device = mounted(tree(tmp_path / "class", files), *prelude)
    events = device.run(make_job(tmp_path, "energy", does={"sleep_ms": 20}, seconds=0.6), 120)
    return passes.make_energy(Run.of(events))


def test_an_energy_pass_over_the_real_paths(tmp_path):
    files = {f"hwmon/{name}": content for name, content in INA3221.items()} | {f"powercap/{k}": v for k, v in RAPL.items()}
    fields = run_energy(tmp_path, files)
    assert fields.status == "measured" and fields.figures.source == "hwmon1_ina3221_VDD_IN_uw"
    assert fields.figures.mean_w == pytest.approx(6.65) and fields.figures.idle_w == pytest.approx(6.65)
    assert fields.figures.gross_mj >= 6.65 * 20 and fields.figures.net_mj == pytest.approx(0, abs=0.01)
    assert fields.figures.rate_hz > 3, "twenty a second on a machine with nothing else to do"
    assert any("rapl_0_package-0_uj: stood still" in problem for problem in fields.problems)


def test_a_missing_sensor_and_a_missing_permission_are_reported_differently(tmp_path):
    assert run_energy(tmp_path, {"power/none": ""}) == Energy("no sensor on this device")
    files = {f"powercap/{name}": content for name, content in RAPL.items() if ":0/" in name or ":0:0/" in name}
    directory = "rm -f /sys/class/powercap/*/energy_uj && mkdir /sys/class/powercap/intel-rapl:0/energy_uj"
    status = run_energy(tmp_path, files, directory).status
    assert "rapl_0_package-0_uj: /sys/class/powercap/intel-rapl:0/energy_uj: Is a directory" in status


def test_permission_denied_is_said(monkeypatch, tmp_path):
    def deny(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sensors, "read_number", deny)
    (package, *_) = found(power.find_rapl, monkeypatch, tmp_path, {k: v for k, v in RAPL.items() if ":1" not in k}).values()
    assert package.problem.endswith("energy_uj: Permission denied")
    sources = [sensors.describe(package)]
    fields = passes.make_energy(Run.of([{"event": "sources", "sources": json.loads(json.dumps(sources))}]))
    assert "Permission denied" in fields.status and fields.figures is None


def windows(name: str, idle: list, load: list, runs: int = 10) -> list[dict]:
    at = [int(i * 1e9) for i in range(len(idle))]
    return [
        {"event": "energy", "phase": phase, "at_ns": at, "values": {name: values}, "runs": runs * (phase == "load")}
        for phase, values in (("idle", idle), ("load", load))
    ]


def computed(source: sensors.Source, idle: list, load: list) -> Energy:
    return passes.make_energy(Run.of([{"event": "sources", "sources": [sensors.describe(source)]}, *windows(source.name, idle, load)]))


def test_a_counter_that_wraps():
    source = sensors.Source("rapl_0_package-0_uj", "energy", float, counter=True, wraps_at=10e6, scope="package")
    fields = computed(source, [1e6, 2e6, 3e6], [6e6, 9e6, 2e6])
    assert fields.figures.idle_w == pytest.approx(1.0) and fields.figures.mean_w == pytest.approx(3.0)
    assert fields.figures.gross_mj == pytest.approx(600) and fields.figures.net_mj == pytest.approx(400)


def test_a_sensor_that_vanishes_gives_no_number():
    source = sensors.Source("hwmon0_ina226_power1_uw", "power", float)
    assert computed(source, [1e6] * 3, [2e6, None, 2e6]).status == f"{source.name}: vanished in the load window"
    backwards = sensors.Source("hwmon0_x_energy1_uj", "energy", float, counter=True)
    assert "counted backwards" in computed(backwards, [1, 2, 3], [6, 2, 9]).status


@pytest.mark.parametrize("readings", [[], [1e6]])
@pytest.mark.parametrize("counter", [False, True])
def test_a_sensor_that_was_read_less_than_twice_gives_no_number(readings, counter):
    source = sensors.Source("hwmon0_x_energy1_uj" if counter else "hwmon0_x_power1_uw", "power", float, counter=counter)
    assert computed(source, readings, readings).status == f"{source.name}: {len(readings)} readings in the idle window, two are needed"


def test_readings_at_one_time_give_no_number():
    source = sensors.Source("hwmon0_x_power1_uw", "power", float)
    events = [{"event": "sources", "sources": [sensors.describe(source)]}, *windows(source.name, [1e6] * 3, [2e6] * 3)]
    found = passes.make_energy(Run.of([{**event, "at_ns": [5, 5, 5]} if "at_ns" in event else event for event in events]))
    assert found.figures is None and "no time passed in the idle window" in found.status


def test_power_is_integrated():
    source = sensors.Source("hwmon0_ina226_power1_uw", "power", float)
    fields = computed(source, [1e6, 1e6, 1e6], [1e6, 3e6, 5e6])
    assert fields.figures.mean_w == pytest.approx(3.0) and fields.figures.net_mj == pytest.approx(400)


def test_find_lists_what_was_asked_for():
    assert {source.quantity for source in sensors.find("switches", "steal")} == {"switches", "steal"}


@pytest.mark.parametrize(("degrees", "files"), [(81.5, {"thermal_zone0/type": "soc", "thermal_zone0/temp": "81500"}), (None, {"x/y": ""})])
def test_cool_down_waits_for_a_temperature_where_there_is_one(tmp_path, degrees, files):
    device = mounted(tree(tmp_path / "class", {f"thermal/{name}": content for name, content in files.items()}))
    cooled = list(device.run({"kind": "cool_down", "below_degc": 50.0, "max_s": 1.5}, 120))[1]
    assert cooled["hottest_mdegc"] == (degrees and degrees * 1000)
    assert cooled["waited_s"] >= 1.5 if degrees else cooled["waited_s"] < 1.0
