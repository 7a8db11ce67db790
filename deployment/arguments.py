"""What arguments of 04_detect.py mean that are made of several parts."""

import argparse


def whole_numbers(text: str, separator: str, example: str, *, low: int = 0, n: int | None = None) -> tuple[int, ...]:
    """``3/5`` -> (3, 5): numbers from ``low`` to 999,999, ``n`` of them."""
    parts = text.split(separator)
    numbers = [int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) <= 6]
    if len(numbers) < len(parts) or len(numbers) != (n or len(numbers)) or min(numbers) < low:
        raise argparse.ArgumentTypeError(f"{text}: expected whole numbers such as {example}")
    return tuple(numbers)


def rule(text: str) -> tuple[int, int]:
    """``3/5`` -> (3, 5): windows that make an alarm, and among how many."""
    needed, among = whole_numbers(text, "/", "3/5", low=1, n=2)
    if needed > among:
        raise argparse.ArgumentTypeError(f"{text}: expected two numbers such as 3/5, the first at most the second")
    return needed, among


def raw(text: str) -> tuple[int, int]:
    """``16000,8`` -> (16000, 8): sample rate and number of channels."""
    sample_rate, n_channels = whole_numbers(text, ",", "16000,8, sample rate and number of channels", low=1, n=2)
    if n_channels >= 2**15:  # a wav file's header holds no more bytes of a sample
        raise argparse.ArgumentTypeError(f"{text}: expected fewer channels than {2**15}")
    return sample_rate, n_channels


def channels(text: str) -> tuple[int, ...]:
    """``0,3,5`` -> (0, 3, 5); ``all`` -> ()."""
    return () if text == "all" else tuple(dict.fromkeys(whole_numbers(text, ",", "0,3,5, or all")))


def machine_ids(text: str) -> tuple[str, ...]:
    """``id_00,id_02`` -> ("id_00", "id_02")."""
    return tuple(text.split(","))
