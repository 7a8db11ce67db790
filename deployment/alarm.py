"""Alarms: several anomalous windows of a machine among its latest, so that one slammed door is none."""

import argparse
import logging
import re
from collections import defaultdict, deque
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """At least ``needed`` of the last ``among`` windows of a machine are anomalous."""

    needed: int
    among: int


def rule(text: str) -> Rule:
    """``3/5`` -> Rule(3, 5)."""
    found = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text}: expected two numbers such as 3/5, the first at most the second")
    return Rule(int(found[1]), int(found[2]))


class Alarm:
    """Whether there is an alarm, machine ID by machine ID, as their windows are judged in turn."""

    def __init__(self, rule: Rule):
        self.rule = rule
        self.recent: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=rule.among))
        self.on: set[str] = set()
        self.occurred = False

    def recall(self, machine_id: str, is_anomaly: bool) -> None:
        """Take note of a window that an earlier run has judged and told of."""
        if self._is_on(machine_id, is_anomaly):
            self.on.add(machine_id)
        else:
            self.on.discard(machine_id)

    def hear(self, machine_id: str, is_anomaly: bool, where: str) -> bool:
        """Whether there is an alarm with the next window of a machine; its begin and its end are told.

        Parameters
        ----------
        where : what the window is called when they are told
        """
        was_on = machine_id in self.on
        self.recall(machine_id, is_anomaly)
        is_on = machine_id in self.on
        if is_on != was_on:
            text = "%s of %s: %d of the last %d windows are anomalous, with %s"
            level, word = (logging.WARNING, "ALARM") if is_on else (logging.INFO, "end of the alarm")
            recent = self.recent[machine_id]
            logger.log(level, text, word, machine_id, sum(recent), len(recent), where)
        self.occurred |= is_on
        return is_on

    def _is_on(self, machine_id: str, is_anomaly: bool) -> bool:
        recent = self.recent[machine_id]
        recent.append(is_anomaly)
        return sum(recent) >= self.rule.needed
