"""Decides when errors stop a run: only where different prompts fail in the same words and none is answered.

What one prompt causes is that prompt's failure, however often it is tried. What repeats for different prompts before
any answer is no chance: the key, the model, a field, or answers that cai does not understand.
"""

from __future__ import annotations

import re

from cai.backends.http.errors import Suspect
from cai.core.errors import CallFailed, Refused

STOPS: dict[str, tuple[int, int | None]] = {
    "unauthorized": (2, 20),
    "forbidden": (3, None),
    "redirect": (2, 20),
    "not_found": (1, 20),
    "field": (1, 2),
    "system_role": (1, 2),
    "bad_request": (20, None),
    "malformed": (3, None),
    "unusable": (3, None),
    "empty": (8, None),
}
"""Kind of error -> of how many different prompts, before any answer and since the last one; None: never."""
OF_A_KIND = ("field", "system_role")
"""Kinds that concern requests of one kind, such as those of one stage: an answer to another kind clears nothing."""
_IDS = re.compile(r"\b[0-9a-f][0-9a-f-]{7,}\b|\d+")


class FirstAnswers:
    """What the failed prompts since the last answer have in common."""

    def __init__(self, where: str) -> None:
        """`where` is the endpoint, as an error names it."""
        self._where, self._failed = where, dict[tuple[str, str], set[object]]()
        self.any = False
        """Whether there was any answer."""

    def answered(self) -> None:
        """There was a good answer."""
        self.any = True
        if self._failed:
            self._failed = {cause: prompts for cause, prompts in self._failed.items() if cause[0] in OF_A_KIND}

    def failed(self, error: CallFailed, prompt: object) -> Refused | None:
        """Count the error of a prompt; the error that stops the run, where there are enough like it."""
        if (limits := STOPS.get(error.kind)) is None:
            return None
        if (most := limits[self.any]) is None:
            return None
        prompts = self._failed.setdefault((error.kind, _IDS.sub("#", error.message)), set())
        prompts.add(prompt)
        if len(prompts) < most:
            return None
        if isinstance(error, Suspect):
            return Refused(self._where, f"{error.what} ({error.message})", error.fix)
        what = f"the first {len(prompts)} answers are not understood: {error.message}"
        return Refused(self._where, what, "check that base_url is the address of the API, and which backend speaks it")
