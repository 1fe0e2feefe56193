"""Which passwords are taken: long ones, whatever they are made of, that are not the first that anybody would try."""

from __future__ import annotations

from pipeline_platform.access.passwords import MAX_LENGTH
from pipeline_platform.errors import PermanentError

MIN_LENGTH = 12
_REST = 8  # of a password that holds the user's name

# The most common ones that are long enough, by published lists of leaked passwords, and what is close at hand here.
# Compared without case; what is one character, or a row of the keyboard, again and again is found by itself.
_COMMON_ONES = """
123456789012 1234567890123 12345678901234 123456789123 123123123123 112233445566 111222333444 password1234
password12345 password123456 password1234! password123! p@ssword1234 p@ssw0rd1234 passw0rd1234
passwordpassword mypassword123 administrator administrator1 adminadminadmin admin1234567 admin12345678
changemeplease changeme1234 changemechangeme welcome12345 welcome123456 letmeinplease letmein12345
qwertyuiop12 qwertyuiop123 qwertyuiop[] qwerty123456 qwerty12345678 1qaz2wsx3edc 1q2w3e4r5t6y zaq12wsxcde3
q1w2e3r4t5y6 asdfghjkl123 abcdefghijkl abcd1234abcd abc123abc123 iloveyou1234 iloveyouforever sunshine1234
princess1234 football1234 baseball1234 monkey123456 dragon123456 superman1234 trustno1trustno1
correcthorsebatterystaple pipelineplatform pipeline-platform pipeline1234 dagsterdagster dagster12345
postgrespostgres secretsecret secret123456 testtesttest test12345678 defaultpassword
"""
_COMMON = frozenset(_COMMON_ONES.split())
_ROWS = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop", "asdfghjkl", "zxcvbnm")


def check_password(password: str, name: str) -> str:
    """The password; PermanentError says why it is not taken."""
    if len(password) < MIN_LENGTH:
        raise PermanentError(f"The password is too short: take {MIN_LENGTH} characters or more.")
    if len(password) > MAX_LENGTH:
        raise PermanentError(f"The password is too long: take at most {MAX_LENGTH} characters.")
    plain = password.casefold()
    if plain in _COMMON or _repeats(plain) or any(plain in row * 20 or plain in row[::-1] * 20 for row in _ROWS):
        raise PermanentError("The password is one of those that are tried first; take another one.")
    if len(name) > 2 and name.casefold() in plain and len(plain.replace(name.casefold(), "")) < _REST:
        raise PermanentError("The password is little more than the user's name; take another one.")
    return password


def _repeats(text: str) -> bool:
    """Whether the text is a piece of at most four characters again and again."""
    return any(text == (text[:size] * len(text))[: len(text)] for size in range(1, 5))
