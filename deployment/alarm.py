"""Alarms: several anomalous windows of a machine among its latest, so that one slammed door is none."""

import logging
from collections import defaultdict, deque

logger = logging.getLogger(__name__)


class Alarm:
    """Whether at least ``needed`` of the last ``among`` windows of a machine are anomalous, each machine by itself."""

    def __init__(self, needed: int, among: int):
        self.needed = needed
        self.recent: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=among))

    def hear(self, machine: str, is_anomaly: bool, where: str) -> bool:
        """Whether there is an alarm with the next window of a machine; its begin and its end are told.

        Parameters
        ----------
        where : what the window is called when they are told; empty: an earlier run has told of it
        """
        recent = self.recent[machine]
        was_on = sum(recent) >= self.needed
        recent.append(is_anomaly)
        is_on = sum(recent) >= self.needed
        if where and is_on != was_on:
            text = "%s of %s: %d of the last %d windows are anomalous, with %s"
            level, word = (logging.WARNING, "ALARM") if is_on else (logging.INFO, "end of the alarm")
            logger.log(level, text, word, machine, sum(recent), len(recent), where)
        return is_on
