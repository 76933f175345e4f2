"""The registers of Dynamixel X-series servos and what their numbers mean; the vendor's model files say the same.

An emulator says that it is one by `EMULATED` in the register "model_information", where servos have small numbers.
"""

from __future__ import annotations

import math

EMULATED = int.from_bytes(b"EMUL", "little")
REGISTERS = {  # name: address, bytes, signed; below 64 they are kept without power, and writable without torque only
    "model": (0, 2, False), "model_information": (2, 4, False), "firmware": (6, 1, False), "id": (7, 1, False),
    "baud": (8, 1, False), "return_delay": (9, 1, False), "drive_mode": (10, 1, False), "operating_mode": (11, 1, False),
    "secondary_id": (12, 1, False), "homing": (20, 4, True), "temperature_limit": (31, 1, False), "pwm_limit": (36, 2, False),
    "current_limit": (38, 2, False), "velocity_limit": (44, 4, False), "max_position": (48, 4, False),
    "min_position": (52, 4, False), "shutdown": (63, 1, False), "torque": (64, 1, False), "led": (65, 1, False),
    "status_level": (68, 1, False), "alarm": (70, 1, False), "position_d": (80, 2, False), "position_i": (82, 2, False),
    "position_p": (84, 2, False), "watchdog": (98, 1, False), "goal_current": (102, 2, True), "goal_velocity": (104, 4, True),
    "profile_acceleration": (108, 4, False), "profile_velocity": (112, 4, False), "goal": (116, 4, True),
    "realtime_tick": (120, 2, False), "moving": (122, 1, False), "current": (126, 2, True), "velocity": (128, 4, True),
    "position": (132, 4, True), "voltage": (144, 2, False), "temperature": (146, 1, False),
}  # fmt: skip
MODELS = {  # number: name, amperes a unit of register 126 (NaN: it is a load there)
    1020: ("XM430-W350", 0.00269), 1030: ("XM430-W210", 0.00269), 1060: ("XL430-W250", math.nan), 1070: ("XC430-W150", math.nan),
    1080: ("XC430-W240", math.nan), 1090: ("2XL430-W250", math.nan), 1120: ("XM540-W270", 0.00269), 1130: ("XM540-W150", 0.00269),
    1160: ("2XC430-W250", math.nan), 1190: ("XL330-M077", 0.001), 1200: ("XL330-M288", 0.001), 1210: ("XC330-T181", 0.001),
    1220: ("XC330-T288", 0.001), 1230: ("XC330-M181", 0.001), 1240: ("XC330-M288", 0.001),
}  # fmt: skip
ALARMS = {1: "input voltage", 4: "overheating", 8: "motor encoder", 16: "electrical shock", 32: "overload"}
POSITION, EXTENDED_POSITION, CURRENT_POSITION = 3, 4, 5  # operating modes
DAMAGED = 3  # the error number of an answer to a request that came damaged
REFUSALS = {1: "result fail", 2: "instruction", DAMAGED: "CRC", 4: "data range", 5: "data length", 6: "data limit", 7: "access"}
