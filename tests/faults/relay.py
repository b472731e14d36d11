"""Hosts on one machine, and a network between them that fails when told to; run as a process.

Each host is a network namespace whose only interface is a TUN device; this process reads what comes
out of one, and writes it to another: late, not at all, or at once. Needs root, `ip` and nothing of
the kernel's traffic control. The machine itself is a host too, from which the tests look on.

Reads one JSON object a line, and answers each with one line:
{"host": name, "number": n} adds a host at `SUBNET.n`, in the namespace PREFIX-name;
{"cut_from": [n...], "cut_to": [n...], "slow": [n...], "delay_secs": s, "loss": p} says what is
lost, and what is slow, from now on. Ends, and takes all of it away, when its standard input does.
"""

import fcntl
import heapq
import itertools
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU = 1500
ONLOOKER = 254
# A queue like that of a router: packets that do not fit are lost.
QUEUE = 10_000


class Relay:
    def __init__(self, prefix, subnet):
        self._prefix, self._subnet = prefix, subnet
        self._chance = random.Random(0)
        self._files = {}
        self._numbers = {}
        self._due, self._order = [], itertools.count()
        self._policy = {"cut_from": [], "cut_to": [], "slow": [], "delay_secs": 0.0, "loss": 0.0}
        self._cleanup = ExitStack()

    def run(self):
        with self._cleanup:
            self._add_device(ONLOOKER, None)
            print(json.dumps("ready"), flush=True)
            while self._look():
                pass

    def _look(self):
        timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        readable, _, _ = select.select([0, *self._numbers], [], [], timeout)
        for file in readable:
            if file:
                self._forward(file)
            elif not self._obey(sys.stdin.readline()):
                return False
        while self._due and self._due[0][0] <= time.monotonic():
            self._deliver(*heapq.heappop(self._due)[2:])
        return True

    def _obey(self, line):
        if not line:
            return False
        order = json.loads(line)
        if "host" in order:
            self._add_device(order["number"], f"{self._prefix}-{order['host']}")
        else:
            self._policy |= order
        print(json.dumps("done"), flush=True)
        return True

    def _forward(self, file):
        packet = os.read(file, MTU + 100)
        if packet[0] >> 4 != 4:  # IPv6 looks for neighbours that there are not.
            return
        sender, receiver, policy = packet[15], packet[19], self._policy
        if sender in policy["cut_from"] or receiver in policy["cut_to"]:
            return
        is_slow = sender in policy["slow"] or receiver in policy["slow"]
        if not is_slow or ONLOOKER in (sender, receiver):
            self._deliver(receiver, packet)
        elif self._chance.random() >= policy["loss"] and len(self._due) < QUEUE:
            due = time.monotonic() + policy["delay_secs"]
            heapq.heappush(self._due, (due, next(self._order), receiver, packet))

    def _deliver(self, receiver, packet):
        if receiver in self._files:
            os.write(self._files[receiver], packet)

    def _add_device(self, number, namespace):
        device = f"{self._prefix}n{number}"
        file = os.open("/dev/net/tun", os.O_RDWR)
        self._cleanup.callback(os.close, file)
        request = struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(file, TUNSETIFF, request)
        if namespace:
            run(f"ip netns add {namespace}")
            self._cleanup.callback(run, f"ip netns del {namespace}")
            run(f"ip link set {device} netns {namespace}")
            run(f"ip -n {namespace} link set lo up")
        where = f"ip -n {namespace}" if namespace else "ip"
        run(f"{where} addr add {self._subnet}.{number}/24 dev {device}")
        run(f"{where} link set {device} mtu {MTU} up")
        self._files[number], self._numbers[file] = file, number


def run(command):
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL, timeout=20)


# A signal that ends all processes of the tests closes standard input too.
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, signal.SIG_IGN)
Relay(*sys.argv[1:]).run()
