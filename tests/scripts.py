"""Models with known behaviour, as functions of the request alone; named in recipes as `scripts:steady`."""

from __future__ import annotations

from cai.digest import digest
from cai.errors import Permanent
from cai.types import Completion, Request

WORDS = (
    "apple bread candle dinner engine forest garden harbour island jacket kitchen lantern meadow needle orchard "
    "pepper quilt river saddle table umbrella valley window yellow zebra basket copper donkey"
).split()


def said(request: Request) -> str:
    """A digest of everything asked."""
    return digest([message.content for message in request.messages], request.seed, request.sampling.temperature)


def words(request: Request, count: int) -> str:
    mark = said(request)
    return " ".join(WORDS[int(digest(mark, n)[:6], 16) % len(WORDS)] for n in range(count)) + "."


def steady(request: Request) -> str:
    """Drafts of 30 words, critiques of 8, revisions of 15: all a function of what was asked."""
    if request.plain:
        return words(request, 8)
    return words(request, 15 if request.messages[0].role == "system" else 30)


def troubled(request: Request) -> str | Completion:
    """Like steady, but by the digest of what was asked some calls fail and some answers are damaged."""
    luck = int(said(request)[:4], 16) % 20
    if luck == 0:
        raise Permanent("context_too_long", "scripted failure")
    if luck == 1:
        return Completion("", thinking="only reasoning")
    if luck == 2 and request.messages[0].role == "system":
        return "No revisions needed."
    if luck == 3:
        return Completion(words(request, 12), finish="length")
    return steady(request)
