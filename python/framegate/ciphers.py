"""Names of the TLS cipher suites that the core has: `--ssl-ciphers`.

Each has two names, IANA's and OpenSSL's; both are understood, in either case. Expressions of
OpenSSL such as `HIGH:!aNULL` are not: nothing is here that they would exclude. Every suite has
forward secrecy and authenticated encryption.
"""

from __future__ import annotations

from typing import Final

from framegate.errors import suggestion

__all__ = ["CIPHER_SUITES", "parse_ciphers"]

CIPHER_SUITES: Final = {
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
}
"""Number by the name that OpenSSL uses."""

_IANA: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}


def parse_ciphers(text: str) -> tuple[str, ...]:
    """Return the suites that a list names, separated by colons, commas or spaces.

    Raises:
        ValueError: One of them is not known; the message says which, and what is near.
    """
    found: dict[str, None] = {}
    for word in text.replace(",", ":").replace(" ", ":").split(":"):
        name = word.strip().upper()
        if not name:
            continue
        name = _IANA.get(name, name)
        if name not in CIPHER_SUITES:
            hint = suggestion(name, [*CIPHER_SUITES, *_IANA])
            known = ":".join(CIPHER_SUITES)
            raise ValueError(f'there is no cipher suite "{word}"{hint}; there are {known}')
        found[name] = None
    return tuple(found)
