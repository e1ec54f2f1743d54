"""How we speak with the Hub: with timeouts, a total deadline, and errors of one line that show no token.

huggingface_hub itself waits for ever on a silent server, and for as long as a `Retry-After` says, a day if it is a day.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from vit_zoo import __version__
from vit_zoo.errors import CannotWrite, HubError, Unreachable, VitzooError

T = TypeVar("T")

CONNECT, READ = 10.0, 60.0  # seconds
DEADLINE = 900.0  # seconds of a whole conversation, unless VITZOO_HUB_DEADLINE says otherwise
TRIES = 5
FIRST_WAIT = 1.0  # seconds, doubled each time
UNSENDABLE = "the token for the Hub holds characters that no token has"
PASSING = (408, 429, 500, 502, 503, 504)  # what may be gone a moment later
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class Conversation:
    """The Hub's API, tried again while that can help and the deadline allows."""

    def __init__(self, what: str) -> None:
        from huggingface_hub import HfApi

        self.what = what  # whom it is about, for errors
        self.deadline = _deadline()
        self.ends = time.monotonic() + self.deadline
        self.token = checked_token()
        # False: without a token none is sent; None would look for one again
        self.api = HfApi(token=self.token or False, library_name="vitzoo", library_version=__version__)

    @property
    def remaining(self) -> float:
        return self.ends - time.monotonic()

    def again(self, call: Callable[[], T], settled: Callable[[], T | None] = lambda: None) -> T:
        """The result of a call. One that failed in passing is made again, unless `settled` finds that it was heard after all.

        Raises HubError, CannotWrite for a full disk.
        """
        wait = FIRST_WAIT
        for tries_left in reversed(range(TRIES)):
            try:
                return self.once(call)
            except HubError as error:
                if not error.passing:
                    raise
                last = not tries_left or self.remaining < wait
                if not last:
                    time.sleep(wait)
                    wait *= 2
                found = settled()
                if found is not None:
                    return found
                if last:
                    raise
        raise AssertionError

    def once(self, call: Callable[[], T]) -> T:
        """The result of a call that is not made again."""
        try:
            return call()
        except VitzooError:
            raise
        except Exception as error:  # httpx, OSError, ValueError, RuntimeError: whatever the library lets through
            told = self._told(error)
            if isinstance(told, HubError):
                told.passing = is_passing(error)
            raise told from None

    def _told(self, error: Exception) -> VitzooError:
        """The error in our words, by the first cause that says something."""
        from huggingface_hub import errors as hub

        chain = list(causes(error))
        for cause in chain:
            if isinstance(cause, VitzooError):
                return cause
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                return CannotWrite("no space left for what the Hub sends", where=self.what)
        for cause in chain:
            match cause:
                case hub.OfflineModeIsEnabled():
                    return HubError("HF_HUB_OFFLINE is set, and this needs the Hub", where=self.what)
                case hub.GatedRepoError():
                    return self._hub("is gated: its terms must be accepted on its page", None if self.token else LOG_IN)
                case hub.RevisionNotFoundError():
                    return self._hub("has no such revision")
                case hub.RemoteEntryNotFoundError():
                    return self._hub("has no such file")
                case hub.RepositoryNotFoundError():
                    return self._hub(
                        "there is no such repository, or it is private",
                        "is the token allowed to see it?" if self.token else LOG_IN,
                    )
                case hub.HfHubHTTPError(response=response) if response is not None:
                    return self._answered(cause, response.status_code)
        last = chain[-1]
        if is_unreachable(error):
            return Unreachable(f"the Hub cannot be reached: {_sentence(last)}", where=self.what)
        return self._hub(f"the Hub or its library failed: {_sentence(last)}")

    def _answered(self, error: Any, status: int) -> HubError:
        said = _sentence(error.server_message) if getattr(error, "server_message", None) else f"HTTP {status}"
        match status:
            case 401:
                return self._hub("the Hub does not know the token" if self.token else "the Hub wants a token", LOG_IN)
            case 403:
                return self._hub(f"is not allowed with this token: {said}", "it needs the right to write there")
            case 409 | 412:
                return self._hub(f"was changed by someone else meanwhile: {said}", "nothing was sent; run it again")
            case 429:
                return self._hub("the Hub asks for fewer requests", "try again later")
            case _ if status >= 500:
                return self._hub(f"the Hub is out of order: {said}", "nothing is half done; run it again later")
        return self._hub(f"the Hub refuses: {said}")

    def _hub(self, message: str, hint: str | None = None) -> HubError:
        return HubError(message, where=self.what, hint=hint)


@contextlib.contextmanager
def conversation(what: str) -> Iterator[Conversation]:
    """A conversation about a repository; while it lasts, huggingface_hub's requests have timeouts and the deadline."""
    from huggingface_hub import utils
    from huggingface_hub.utils import _http
    from huggingface_hub.utils import logging as hub_logging

    httpx, hub_utils = _httpx(), cast(Any, utils)
    speaker = Conversation(what)
    factory = _http._GLOBAL_CLIENT_FACTORY  # the user's own, for proxies and certificates; no public name gives it
    verbosity, bars = hub_logging.get_verbosity(), not hub_utils.are_progress_bars_disabled()

    def before(request: Any) -> None:
        if speaker.remaining <= 0:
            raise HubError(f"gave up after {speaker.deadline:,.0f} seconds", where=what, hint="VITZOO_HUB_DEADLINE sets more")

    def after(response: Any) -> None:
        wait = response.headers.get("retry-after", "")
        if response.status_code in PASSING and wait.isdecimal() and int(wait) > speaker.remaining:
            raise HubError(f"the Hub asks to wait {_span(int(wait))} (HTTP {response.status_code})", where=what)

    def client() -> Any:
        made = factory()
        made.timeout = httpx.Timeout(READ, connect=CONNECT)
        made.event_hooks = {
            "request": [*made.event_hooks["request"], before],
            "response": [*made.event_hooks["response"], after],
        }
        return made

    _http.set_client_factory(client)
    hub_logging.set_verbosity(logging.ERROR)  # its warnings would tell of every try
    if bars and not sys.stderr.isatty():
        hub_utils.disable_progress_bars()
    try:
        yield speaker
    finally:
        _http.set_client_factory(factory)
        hub_logging.set_verbosity(verbosity)
        if bars:
            hub_utils.enable_progress_bars()


def checked_token() -> str | None:
    """The user's token, if there is one. Raises HubError for one that no header can carry: libraries would print it."""
    from huggingface_hub import get_token

    try:
        token = get_token()
    except UnicodeError:  # of the token's file
        raise HubError(UNSENDABLE, hint=LOG_IN) from None
    if token and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise HubError(UNSENDABLE, hint=LOG_IN)
    return token or None


def _httpx() -> Any:
    """The HTTP library of this huggingface_hub: httpx until 1.x, httpx2 since 2.0."""
    from huggingface_hub import utils

    return utils.httpx  # type: ignore[attr-defined]


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later; not what huggingface_hub has tried often enough itself."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in PASSING
    if isinstance(error, _httpx().ConnectError):  # nobody is there: who waits for a cache hit should not wait for that
        return False
    # a proxy's page in the place of JSON, a body shorter than was said
    return isinstance(error, _httpx().TransportError | json.JSONDecodeError) or "Consistency check failed" in str(error)


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub did not answer at all."""

    return any(isinstance(cause, _httpx().TransportError | ConnectionError) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it came from, outermost first."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _deadline() -> float:
    text = os.environ.get("VITZOO_HUB_DEADLINE", "")
    try:
        found = float(text) if text else DEADLINE
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise HubError(f"{text!r} is no number of seconds", where="VITZOO_HUB_DEADLINE")
    return found


def _sentence(what: object) -> str:
    """The first line of somebody else's text."""
    text = " ".join(str(what).split())[:200]
    return text or type(what).__name__


def _span(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds // 60
    return f"{hours} hours" if hours > 1 else f"{minutes} minutes" if minutes > 1 else f"{seconds} seconds"
