"""Client of the Hub with timeouts, retries, a total deadline, and one-line errors that contain no token.

huggingface_hub alone waits forever for a server that does not answer, and as long as a `Retry-After` header says, even a day.
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
from vit_zoo.errors import CannotWrite, HubError, Unreachable, VitzooError, cause_of

T = TypeVar("T")

CONNECT, READ = 10.0, 60.0  # seconds
DEADLINE = 900.0  # seconds for all requests of a client together, unless VITZOO_HUB_DEADLINE is set
TRIES = 5
FIRST_WAIT = 1.0  # seconds before the first retry; doubled for each further one
BAD_CHARACTERS = "the Hub token contains invalid characters"
TRANSIENT = (408, 429, 500, 502, 503, 504)  # HTTP status codes after which a retry may succeed
CHANGED = "was changed by someone else in the meantime"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class HubClient:
    """The Hub's API with retries; `where` is the repository that its errors name. Made by `hub_client`."""

    def __init__(self, where: str) -> None:
        from huggingface_hub import HfApi

        self.where = where
        self.deadline = _deadline()
        self.ends_at = time.monotonic() + self.deadline
        self.token = checked_token()
        # False sends no token; None would make huggingface_hub look for one again
        self.api = HfApi(token=self.token or False, library_name="vitzoo", library_version=__version__)

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self.ends_at - time.monotonic()

    def call(self, request: Callable[[], T], find_result: Callable[[], T | None] = lambda: None) -> T:
        """Return the result of a request, and repeat it after a transient error.

        `find_result` is called before each retry and after the last error. It returns the result if the Hub carried out the
        request although its answer was lost, else None. Raises HubError, or CannotWrite for a full disk.
        """
        wait = FIRST_WAIT
        for tries_left in reversed(range(TRIES)):
            try:
                return self.call_once(request)
            except HubError as error:
                if not error.passing:
                    raise
                last = not tries_left or self.remaining < wait
                if not last:
                    time.sleep(wait)
                    wait *= 2
                result = find_result()
                if result is not None:
                    return result
                if last:
                    raise
        raise AssertionError

    def call_once(self, request: Callable[[], T]) -> T:
        """Return the result of a request without retries."""
        try:
            return request()
        except VitzooError:
            raise
        except Exception as error:  # huggingface_hub passes on httpx errors, OSError, ValueError, RuntimeError, ...
            translated = self._translated(error)
            if isinstance(translated, HubError):
                translated.passing = is_transient(error)
            raise translated from None

    def _translated(self, error: Exception) -> VitzooError:
        """Return an error of this package for the first known error in the chain of causes."""
        from huggingface_hub import errors as hub

        chain = list(causes(error))
        for cause in chain:
            if isinstance(cause, VitzooError):
                return cause
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                return CannotWrite(f"the download failed: {cause_of(cause)}", where=self.where)
        for cause in chain:
            match cause:
                case hub.OfflineModeIsEnabled():
                    return HubError("cannot use the Hub: HF_HUB_OFFLINE is set", where=self.where)
                case hub.GatedRepoError():
                    return self._error("is gated: accept its terms on its page", None if self.token else LOG_IN)
                case hub.RevisionNotFoundError():
                    return self._error("no such revision")
                case hub.RemoteEntryNotFoundError():
                    return self._error("no such file")
                case hub.RepositoryNotFoundError():
                    return self._error(
                        "no such repository, or it is private",
                        "check that the token has access to it" if self.token else LOG_IN,
                    )
                case hub.HfHubHTTPError(response=response) if response is not None:
                    return self._status_error(cause, response.status_code)
        last = chain[-1]
        if is_unreachable(error):
            return Unreachable(f"cannot reach the Hub: {_one_line(last)}", where=self.where)
        return self._error(f"request to the Hub failed: {_one_line(last)}")

    def _status_error(self, error: Any, status: int) -> HubError:
        reason = _one_line(error.server_message) if getattr(error, "server_message", None) else f"HTTP {status}"
        match status:
            case 401:
                return self._error("the Hub rejected the token" if self.token else "the Hub requires a token", LOG_IN)
            case 403:
                return self._error(f"not allowed with this token: {reason}", "it needs write access to the repository")
            case 409 | 412:
                return self._error(f"{CHANGED}: {reason}", "nothing was uploaded; try again")
            case 429:
                return self._error("too many requests to the Hub", "try again later")
            case _ if status >= 500:
                return self._error(f"the Hub failed internally: {reason}", "nothing was left incomplete; try again later")
        return self._error(f"the Hub refused the request: {reason}")

    def _error(self, message: str, hint: str | None = None) -> HubError:
        return HubError(message, where=self.where, hint=hint)


@contextlib.contextmanager
def hub_client(where: str) -> Iterator[HubClient]:
    """Make a client for a repository. Inside the block, all requests of huggingface_hub have timeouts and the deadline."""
    from huggingface_hub import utils
    from huggingface_hub.utils import _http
    from huggingface_hub.utils import logging as hub_logging

    httpx, hub_utils = _httpx(), cast(Any, utils)
    hub = HubClient(where)
    factory = _http._GLOBAL_CLIENT_FACTORY  # the user may have set it, for proxies and certificates; there is no public getter
    verbosity, bars = hub_logging.get_verbosity(), not hub_utils.are_progress_bars_disabled()

    def before(request: Any) -> None:
        if hub.remaining <= 0:
            hint = "set VITZOO_HUB_DEADLINE to allow more"
            raise HubError(f"gave up after {hub.deadline:,.0f} seconds", where=where, hint=hint)

    def after(response: Any) -> None:
        wait = response.headers.get("retry-after", "")
        if response.status_code in TRANSIENT and wait.isdecimal() and int(wait) > hub.remaining:
            raise HubError(f"the Hub requires a wait of {_duration(int(wait))} (HTTP {response.status_code})", where=where)

    def make_client() -> Any:
        http_client = factory()
        http_client.timeout = httpx.Timeout(READ, connect=CONNECT)
        http_client.event_hooks = {
            "request": [*http_client.event_hooks["request"], before],
            "response": [*http_client.event_hooks["response"], after],
        }
        return http_client

    _http.set_client_factory(make_client)
    hub_logging.set_verbosity(logging.ERROR)  # it warns about each retry
    if bars and not sys.stderr.isatty():
        hub_utils.disable_progress_bars()
    try:
        yield hub
    finally:
        _http.set_client_factory(factory)
        hub_logging.set_verbosity(verbosity)
        if bars:
            hub_utils.enable_progress_bars()


def has_bars() -> bool:
    """Return whether huggingface_hub draws bars for its downloads and uploads."""
    from huggingface_hub import utils

    return not cast(Any, utils).are_progress_bars_disabled()


def checked_token() -> str | None:
    """Return the user's token, or None.

    Raises HubError for a token with characters that an HTTP header cannot contain, because HTTP libraries print the header
    in their errors.
    """
    from huggingface_hub import get_token

    try:
        token = get_token()
    except UnicodeError:  # in the token file
        raise HubError(BAD_CHARACTERS, hint=LOG_IN) from None
    if token and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise HubError(BAD_CHARACTERS, hint=LOG_IN)
    return token or None


def _httpx() -> Any:
    """Return the HTTP library of the installed huggingface_hub: httpx up to 1.x, httpx2 since 2.0."""
    from huggingface_hub import utils

    try:
        return utils.httpx  # type: ignore[attr-defined]
    except AttributeError:  # which its versions have that may be installed with either
        import httpx

        return httpx


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed, by the first error in the chain of causes whose kind is known.

    Some versions of huggingface_hub retry a request themselves, others do not, and wrap the error of an upload in another.
    """
    from huggingface_hub.errors import HfHubHTTPError

    httpx = _httpx()
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError):
            return cause.response is not None and cause.response.status_code in TRANSIENT
        if isinstance(cause, httpx.ConnectError):  # no connection: the cache may be used instead, so do not delay that
            return False
        # also a proxy's page instead of JSON, and a body that is shorter than announced
        if isinstance(cause, httpx.TransportError | json.JSONDecodeError) or "Consistency check failed" in str(cause):
            return True
    return False


def is_unreachable(error: BaseException) -> bool:
    """Return whether the Hub did not answer at all."""
    return any(isinstance(cause, _httpx().TransportError | ConnectionError) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes, outermost first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _deadline() -> float:
    text = os.environ.get("VITZOO_HUB_DEADLINE", "")
    try:
        seconds = float(text) if text else DEADLINE
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise HubError(f"must be a number of seconds, got {text!r}", where="VITZOO_HUB_DEADLINE")
    return seconds


def _one_line(error: object) -> str:
    """Return an external error's text in one line of at most 200 characters, or its type if it has no text."""
    text = " ".join(str(error).split())[:200]
    return text or type(error).__name__


def _duration(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds // 60
    return f"{hours} hours" if hours > 1 else f"{minutes} minutes" if minutes > 1 else f"{seconds} seconds"
