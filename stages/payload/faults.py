"""How a device can fail to deliver, one word each."""

from __future__ import annotations

# What can go wrong between the host and a result, and what the user does next.
FAULTS = {
    "host_key": "check the device's host key and add it to known_hosts",
    "auth": "check user and key, and that the public key is in the device's authorized_keys",
    "unreachable": "check that the device is on, and its host and port",
    "unknown_host": "check device.host: the name cannot be resolved",
    "ssh_error": "try the same by hand with `ssh HOST`, then run again",
    "dropped": "the link was lost in the middle of a run; check the network and run again",
    "disk_full": "free space on the device and run again",
    "no_python": "install python 3.9 or newer on the device, or name it in device.python",
    "python_too_old": "install python 3.9 or newer on the device, or name it in device.python",
    "runtime_missing": "install the runtime on the device with the named pip command",
    "no_emulator": "make one with `make arm64`, or name the folder of one in device.sysroot",
    "deadline": "the device is too slow for the time limit or hangs; raise bench.max_s, or look at the last lines it printed",
    "oom_killed": "the kernel killed the run for memory; stop other programs on the device",
    "out_of_memory": "the device has too little free memory; stop other programs on it",
    "killed": "something else on the device ended the run; run again",
    "agent_error": "read the last lines that the device printed",
    "protocol": "run again; if it stays, something on the device writes into the agent's output",
    "busy": "another measurement runs on this device; wait for it to end",
    "model_rejected": "the runtime refuses this file",
    "model_aborted": "the runtime aborts on this file",
    "not_offered": "the format cannot run on this device",
}
DETERMINISTIC = ("model_rejected", "model_aborted", "not_offered")  # the variant's own failure, not the device's


class Fault(Exception):
    """The device did not deliver. `word` is a key of FAULTS; the message says what was seen and what to do next."""

    def __init__(self, word: str, seen: str):
        super().__init__(f"{seen}; {FAULTS[word]}")
        self.word = word
