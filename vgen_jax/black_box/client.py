"""A denoiser behind an HTTP service, as an ``Ask`` (see ``black_box.ask``). ``vgen_jax.black_box.server`` is such a
service.

    GET  /about     JSON: kind, batch (rows of a request at most)
    POST /predict   a question to an answer (``black_box.wire``); ``Authorization: Bearer <token>`` where a token is set

A request that finds no server, or a server at fault (5xx), or that takes too long, is sent again after a pause that
doubles; one that the server refuses (4xx) is not, since it would be refused again.
"""

import dataclasses
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from vgen_jax.black_box.wire import pack_question, unpack_answer
from vgen_jax.diffusion.prediction import check_kind
from vgen_jax.types import Condition, PredictionKind, VgenError

Result = TypeVar("Result")
_PASSING = (408, 425, 429)  # refusals that a server takes back after a while


@dataclasses.dataclass(frozen=True)
class RemoteConfig:
    """Where a service is and how patient to be with it.

    Attributes:
        url: for example ``http://localhost:8765``.
        token_env: the environment variable that holds the token; empty for a service without one. (The token itself has
            no place in a config, which is saved and shown.)
        timeout: seconds until a request without an answer counts as failed.
        tries: of one request.
        pause: seconds before the second try; doubles with each.
        longest_pause: up to which it doubles.
        batch: rows of one request at most; larger batches are sent in parts.
    """

    url: str
    token_env: str
    timeout: float
    tries: int
    pause: float
    longest_pause: float
    batch: int

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise VgenError(f"remote.url is {self.url!r}: begin it with http:// or https://")
        if self.tries < 1 or self.batch < 1:
            raise VgenError(f"remote.tries is {self.tries} and remote.batch {self.batch}: use 1 or more")
        if self.timeout <= 0 or self.pause < 0:
            raise VgenError(f"remote.timeout is {self.timeout} and remote.pause {self.pause}: use positive seconds")


class _Failed(Exception):
    """A try that may be repeated."""


class Remote:
    """An ``Ask`` that sends its questions to a service."""

    def __init__(self, config: RemoteConfig):
        self._config = config
        self._url = config.url.rstrip("/")
        self._headers = {}
        if config.token_env:
            if config.token_env not in os.environ:
                raise VgenError(
                    f"environment variable {config.token_env} is not set: put the token of {self._url} there"
                )
            self._headers["Authorization"] = f"Bearer {os.environ[config.token_env]}"

    def kind(self) -> PredictionKind:
        """What the service says that its answers are."""
        about: dict[str, Any] = self._patiently("/about", None, _parsed)
        check_kind(about["kind"])
        return about["kind"]

    def __call__(self, x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
        """Asks in parts of ``batch`` rows.

        Raises:
            VgenError: no answer after all tries, or a refusal; names the service and what it said.
        """
        parts = []
        for first in range(0, len(t_B), self._config.batch):
            rows = slice(first, first + self._config.batch)
            given = Condition(**{k: None if v is None else v[rows] for k, v in vars(condition).items()})
            question = pack_question(x_t_BTHWC[rows], t_B[rows], given)
            parts.append(np.asarray(self._patiently("/predict", question, unpack_answer).value))
        return np.concatenate(parts)

    def _patiently(self, path: str, data: bytes | None, parse: Callable[[bytes], Result]) -> Result:
        """The parsed answer to a request, tried as often as the config says."""
        started, pause = time.monotonic(), self._config.pause
        for number in range(self._config.tries):
            if number:
                time.sleep(pause)
                pause = min(2.0 * pause, self._config.longest_pause)
            try:
                return self._once(path, data, parse)
            except _Failed as error:
                why = error
        waited = time.monotonic() - started
        raise VgenError(
            f"{self._url}{path}: no answer in {self._config.tries} tries and {waited:.0f} s ({why}); "
            "see to the service, then start again to go on"
        )

    def _once(self, path: str, data: bytes | None, parse: Callable[[bytes], Result]) -> Result:
        headers = {**self._headers, "Content-Type": "application/octet-stream"}
        request = urllib.request.Request(self._url + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self._config.timeout) as response:
                body = response.read()
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace").strip().replace("\n", " ") or error.reason
            if error.code < 500 and error.code not in _PASSING:
                raise VgenError(f"{self._url}{path}: refused with status {error.code} ({said}); mend it") from error
            raise _Failed(f"status {error.code}, {said}") from error
        except urllib.error.URLError as error:
            raise _Failed(f"{error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Failed(f"{error!r}") from error
        try:
            return parse(body)
        except VgenError as error:
            raise _Failed(f"{error}") from error


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        return {"kind": json.loads(body)["kind"]}
    except (ValueError, KeyError, TypeError) as error:
        raise VgenError(f"/about is not what this project's services say ({error!r})") from error
