"""Which address the server listens on: what is none says what to write."""

from __future__ import annotations

import re

import pytest

from engines.errors import VisavisError
from streamer.serve.config import read_settings
from streamer.serve.listener import listen


@pytest.mark.parametrize(
    ("host", "bare"),
    [
        ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "::1"), ("[::1]", "::1"), ("::", "::"),
        ("fe80::1%lo", "fe80::1%lo"), ("my_host.local", "my_host.local"),
        ("::1:80", "::1:80"),  # is an address too
    ],
)  # fmt: skip
def test_an_address_is_taken(host: str, bare: str) -> None:
    assert read_settings(host=host).host == bare


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("[::1]:80", "write --host ::1 --port 80;"), ("localhost:80", "write --host localhost --port 80;"),
        ("1.2.3.4:", "write --host 1.2.3.4;"), (":80", "write --host 127.0.0.1 --port 80;"),
        ("http://localhost", "write --host localhost;"), ("http://[::1]:80/", "write --host ::1 --port 80;"),
        ("", "write --host 127.0.0.1;"), ("[]", "write --host 127.0.0.1;"),
        ("[::1", "is no address: write one such as"), ("::1]", "is no address: write one such as"),
        ("a b", "is no address: write one such as"), ("x/y", "is no address: write one such as"),
    ],
)  # fmt: skip
def test_more_than_an_address_is_told_what_to_write(host: str, says: str) -> None:
    with pytest.raises(VisavisError, match=re.escape(says)):
        read_settings(host=host)


@pytest.mark.parametrize("host", [70 * "a", f"x.{300 * 'a'}", "192.0.2.1", "::2"])
def test_a_host_that_is_not_this_computer_wants_another_host(host: str) -> None:
    with pytest.raises(VisavisError, match=r"choose another with --host$"):
        listen(host, 0)
