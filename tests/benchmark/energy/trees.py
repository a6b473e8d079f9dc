"""Imitations of the kernel's sensor files, with content as real machines show it."""

from __future__ import annotations

import stat
from pathlib import Path


def write(root: Path, files: dict[str, object]) -> Path:
    """Write files below `root`, each with a newline at its end as the kernel does."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="utf-8")
    return root


RAPL_RANGE = 262_143_328_850


def powercap(root: Path, energies: dict[str, int]) -> Path:
    """A server with two packages, each with core and dram inside, psys, and the mmio view of package 0."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "core",
        "intel-rapl:1:1": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    files: dict[str, object] = {"sys/class/powercap/intel-rapl/enabled": 1}
    for zone, name in zones.items():
        files |= {
            f"sys/class/powercap/{zone}/name": name,
            f"sys/class/powercap/{zone}/energy_uj": energies.get(zone, 0),
            f"sys/class/powercap/{zone}/max_energy_range_uj": RAPL_RANGE,
        }
    return write(root, files)


def perf(root: Path) -> Path:
    """The power device of a machine with two packages."""
    folder = "sys/bus/event_source/devices/power"
    files: dict[str, object] = {f"{folder}/type": 21, f"{folder}/cpumask": "0,18"}
    for name, config in (("cores", 1), ("pkg", 2), ("ram", 3), ("psys", 5)):
        files |= {
            f"{folder}/events/energy-{name}": f"event=0x0{config}",
            f"{folder}/events/energy-{name}.scale": "2.3283064365386962890625e-10",
            f"{folder}/events/energy-{name}.unit": "Joules",
        }
    return write(root, files | {"proc/sys/kernel/perf_event_paranoid": 2})


def orin_nano(root: Path) -> Path:
    """Jetson Orin Nano with JetPack 5: a hardware monitor with the rail of the whole input."""
    chip = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    files: dict[str, object] = {
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0003\0nvidia,p3767-0003\0nvidia,tegra234\0"
    }
    rails = (("VDD_IN", 5056, 920), ("VDD_CPU_GPU_CV", 5056, 104), ("VDD_SOC", 5056, 240))
    for place in (chip, "sys/class/hwmon/hwmon3"):
        files[f"{place}/name"] = "ina3221"
        for index, (label, millivolts, milliamperes) in enumerate(rails, start=1):
            files |= {
                f"{place}/in{index}_label": label,
                f"{place}/in{index}_enable": 1,
                f"{place}/in{index}_input": millivolts,
                f"{place}/curr{index}_input": milliamperes,
                f"{place}/in{index + 3}_input": 80,
            }
        files |= {f"{place}/in7_label": "sum of shunt voltages", f"{place}/in7_input": 160}
    return write(root, files)


def agx_orin(root: Path) -> Path:
    """Jetson AGX Orin: no rail of the whole input, two chips, one channel of the second connected."""
    drivers = "sys/bus/i2c/drivers/ina3221"
    files: dict[str, object] = {"proc/device-tree/compatible": "nvidia,p3701\0nvidia,tegra234\0"}
    rails = (("VDD_GPU_SOC", 19_824, 160), ("VDD_CPU_CV", 19_824, 72), ("VIN_SYS_5V0", 4_968, 912))
    for index, (label, millivolts, milliamperes) in enumerate(rails, start=1):
        files |= {
            f"{drivers}/1-0040/hwmon/hwmon3/in{index}_label": label,
            f"{drivers}/1-0040/hwmon/hwmon3/in{index}_input": millivolts,
            f"{drivers}/1-0040/hwmon/hwmon3/curr{index}_input": milliamperes,
        }
    second = (("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 4_968, 80), ("NC", 0, 0))
    for index, (label, millivolts, milliamperes) in enumerate(second, start=1):
        files |= {
            f"{drivers}/1-0041/hwmon/hwmon4/in{index}_label": label,
            f"{drivers}/1-0041/hwmon/hwmon4/in{index}_input": millivolts,
            f"{drivers}/1-0041/hwmon/hwmon4/curr{index}_input": milliamperes,
        }
    return write(root, files)


def agx_xavier(root: Path) -> Path:
    """Jetson AGX Xavier with JetPack 4: two IIO devices of the driver ina3221x, in milliwatts."""
    drivers = "sys/bus/i2c/drivers/ina3221x"
    files: dict[str, object] = {"proc/device-tree/compatible": "nvidia,p2972-0000\0nvidia,tegra194\0"}
    devices = (("1-0040/iio:device0", ("GPU", "CPU", "SOC")), ("1-0041/iio:device1", ("CV", "VDDRQ", "SYS5V")))
    power = 100
    for device, rails in devices:
        for index, rail in enumerate(rails):
            files |= {
                f"{drivers}/{device}/rail_name_{index}": rail,
                f"{drivers}/{device}/in_power{index}_input": power,
                f"{drivers}/{device}/in_current{index}_input": 20,
                f"{drivers}/{device}/in_voltage{index}_input": 19_168,
            }
            power += 100
    return write(root, files)


PMIC = """\
 3V7_WL_SW_A current(0)=0.00000000A
   3V3_SYS_A current(1)=0.06245952A
   1V8_SYS_A current(2)=0.16102850A
  DDR_VDD2_A current(3)=0.00780744A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.17566740A
    0V8_SW_A current(6)=0.32791250A
  VDD_CORE_A current(7)=10.87674000A
   3V3_DAC_A current(17)=0.00036630A
   3V3_ADC_A current(18)=0.00042735A
   0V8_AON_A current(16)=0.00579975A
      HDMI_A current(22)=0.01367520A
 3V7_WL_SW_V volt(8)=3.79999600V
   3V3_SYS_V volt(9)=3.30632200V
   1V8_SYS_V volt(10)=1.79828900V
  DDR_VDD2_V volt(11)=1.10292900V
  DDR_VDDQ_V volt(12)=0.60476130V
   1V1_SYS_V volt(13)=1.10439400V
    0V8_SW_V volt(14)=0.80256330V
  VDD_CORE_V volt(15)=0.89745940V
   3V3_DAC_V volt(20)=3.30494200V
   3V3_ADC_V volt(21)=3.30219400V
   0V8_AON_V volt(19)=0.79736190V
      HDMI_V volt(23)=5.11168000V
     EXT5V_V volt(24)=5.10732000V
      BATT_V volt(25)=0.00000000V
"""


def vcgencmd(folder: Path, answer: str, status: int = 0) -> Path:
    """A command that answers as the firmware's tool does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vcgencmd"
    path.write_text(f'#!/bin/sh\n[ "$1" = pmic_read_adc ] || exit 9\ncat <<"END"\n{answer}END\nexit {status}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def laptop(root: Path, **battery: object) -> Path:
    """A battery (fields given or changed by name), mains, and the battery of a mouse."""
    fields = {
        "type": "Battery",
        "status": "Discharging",
        "scope": "System",
        "voltage_now": 11_880_000,
        "power_now": 7_450_000,
        "energy_now": 31_230_000,
    } | battery
    folder = "sys/class/power_supply"
    files: dict[str, object] = {f"{folder}/BAT0/{name}": value for name, value in fields.items() if value is not None}
    files |= {f"{folder}/AC/type": "Mains", f"{folder}/AC/online": 0}
    files |= {
        f"{folder}/hidpp_battery_0/type": "Battery",
        f"{folder}/hidpp_battery_0/scope": "Device",
        f"{folder}/hidpp_battery_0/status": "Discharging",
        f"{folder}/hidpp_battery_0/voltage_now": 4_000_000,
    }
    return write(root, files)
