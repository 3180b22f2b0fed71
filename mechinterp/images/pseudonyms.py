"""Names that stand for patients: a keyed hash that nobody without the key can compute or undo."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from mechinterp.errors import ConfigError

KEY_VARIABLE = "MECHINTERP_KEY_FILE"
RANDOM = "random"
_KEY_BYTES = 32
_SHOWN = 16  # hex digits: among a million patients two share a name with a chance of 3 in 10⁸


class Pseudonyms:
    """Turns identities into names with a secret key.

    A plain hash of a patient number is no protection: all numbers of a hospital are hashed in seconds and compared.
    HMAC-SHA256 [1]_ needs the key, which stays in a file outside of every run. The same key gives the same names, so
    that runs on one machine agree on who is who; another key cuts the tie.

    Parameters
    ----------
    key
        The secret, at least 16 bytes.

    References
    ----------
    .. [1] Krawczyk, Bellare, Canetti. HMAC: Keyed-Hashing for Message Authentication. RFC 2104, 1997.

    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ConfigError(f"the key has {len(key)} bytes: at least 16 random ones are needed")
        self._key = key

    def __repr__(self) -> str:
        return "Pseudonyms(<secret>)"

    def __call__(self, *identity: str) -> str:
        """Return the name that stands for an identity; its parts are kept apart."""
        message = "\x00".join(identity).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_SHOWN]


def pseudonyms(key: str | Path | None = None) -> Pseudonyms:
    """Open the key, or make one on first use.

    Parameters
    ----------
    key
        A key file; ``"random"`` for a key that is forgotten with this process (then the names of another run do not
        match, and images cannot be found again by their ids). ``None`` takes the file that ``MECHINTERP_KEY_FILE``
        names, or ``mechinterp/pseudonyms.key`` in the user's configuration folder (``XDG_CONFIG_HOME`` or
        ``~/.config``), which is made on first use, readable by the user alone. A key file that was asked for by name
        is made too where it is missing. Nobody needs to know what is in it: 64 random hex digits.

    Raises
    ------
    ConfigError
        If the file can neither be read nor made, or holds no key.

    """
    if key == RANDOM:
        return Pseudonyms(secrets.token_bytes(_KEY_BYTES))
    path = Path(key) if key is not None else _default_path()
    remedy = f"give --key FILE, set {KEY_VARIABLE}, or use --key random"
    try:
        if not path.exists():
            _make(path)
        return Pseudonyms(bytes.fromhex(path.read_text(encoding="ascii").strip()))
    except OSError as error:
        raise ConfigError(f"key file {path} cannot be used ({error.strerror or error}): {remedy}") from error
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"key file {path} holds no key of at least 32 hex digits: {remedy}") from error


def key_setting(key: str | Path | None) -> dict[str, str]:
    """Return what a set's source says of its key: where the file is, nothing of what is in it."""
    if key is None:
        return {}
    return {"key": RANDOM if key == RANDOM else Path(key).resolve().as_posix()}


def _default_path() -> Path:
    named = os.environ.get(KEY_VARIABLE)
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "mechinterp" / "pseudonyms.key"


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = secrets.token_hex(_KEY_BYTES).encode() + b"\n"
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.link(temporary, path)  # fails where another process was faster: then its key is the key
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
