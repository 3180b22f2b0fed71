"""Ctrl-C and SIGTERM wait until a step is whole, so that where a training stood can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_HELD = (signal.SIGINT, signal.SIGTERM)


class Held:
    """Inside the context the first Ctrl-C or SIGTERM is only noted; on leaving it does what it would have done.

    A second one does so at once. Outside the main thread, and where a signal is ignored, nothing is held.

    Parameters
    ----------
    active
        Hold nothing where this is false.

    Examples
    --------
    >>> with Held() as held:
    ...     for step in range(3):
    ...         if held.came:
    ...             break

    """

    def __init__(self, *, active: bool = True) -> None:
        self._active = active and threading.current_thread() is threading.main_thread()
        self._before: dict[signal.Signals, Any] = {}
        self._came: int | None = None

    @property
    def came(self) -> bool:
        """Whether a signal waits."""
        return self._came is not None

    def __enter__(self) -> Held:
        """Begin to hold."""
        for number in _HELD if self._active else ():
            before = signal.getsignal(number)
            # what is ignored (nohup) stays so; None was set outside Python and could not be put back
            if before not in {None, signal.SIG_IGN}:
                self._before[number] = before
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hold no more, and let go what waits; an error on its way goes first."""
        self._restore()
        if self._came is not None and error is None:
            signal.raise_signal(self._came)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._came is None:
            self._came = number
            return
        self._restore()
        signal.raise_signal(number)

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
