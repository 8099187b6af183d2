"""A judge whose mind is known: it reads `quality N` in each answer, and likes the place shown first a little too much.

As functions for the scripted model: `scripts` answer, `scorers` give log-probabilities. It finds the answers as an
honest model would, by where they stand in the question, whatever is written inside them.
"""

from __future__ import annotations

import re
from math import exp, log

from cai.core.errors import Permanent
from cai.core.seeds import digest, uniform
from cai.core.types import Request

BIAS = 0.15
"""Added to the probability of the answer shown first."""


def p(first: str, second: str) -> float:
    """What the judge thinks, without its bias: between 0.2 and 0.8."""
    return 0.2 + 0.6 / (1 + exp((quality(second) - quality(first)) / 2))


def quality(answer: str) -> float:
    found = re.search(r"\bquality (\d+)", answer)
    return float(found[1]) if found else 0.0


def answers(request: Request) -> list[str]:
    """The answers under judgement: two, or one for a judge that reads them one at a time."""
    asked = request.messages[-1].content
    if request.plain:
        asked = asked.rpartition("\n\n")[2]  # after the worked cases
        return re.findall(r"^Answer(?: [AB])?: (.*(?:\n(?!Answer|Rule|Check).*)*)", asked, re.MULTILINE)
    asked = next(message.content for message in request.messages[::-1] if "<text id=" in message.content)
    fence = re.search(r'<text id="(\w+)">', asked)
    assert fence
    fenced = re.findall(rf'<text id="{fence[1]}">\n(.*?)\n</text id="{fence[1]}">', asked, re.DOTALL)
    return fenced[-2 if "two answers" in request.messages[0].content else -1 :]


def biased(request: Request, option: str) -> float:
    """Scorer: log-probability of `(A)` or `(B)`; of anything else, by quality alone."""
    if not re.fullmatch(r" ?(?:\((?:A|B|\d+)\)|Yes|No)", option):
        return likely(request, option)
    both = answers(request)
    if len(both) == 1:
        return alone(both[0], option)
    first = min(0.999, p(*both) + BIAS)
    return log(first if option.strip() == "(A)" else 1 - first)


def likely(request: Request, answer: str) -> float:
    """Scorer for an answer's own words: fluent is what is good, and better still where it is said to be the best."""
    said = " ".join(message.content for message in request.messages)
    told = ("Better answer:" in said) + ("won" in said) - ("Worse answer:" in said) - ("lost" in said)
    return (0.1 + 0.1 * told) * quality(answer) * len(answer.split())


def alone(answer: str, option: str) -> float:
    """Scorer for one answer: yes, high scores and likely words go with quality."""
    share = quality(answer) / 10
    match option.strip():
        case "Yes":
            return log(0.05 + 0.9 * share)
        case "No":
            return log(0.95 - 0.9 * share)
        case text:
            return -abs(int(text.strip("()")) - 1 - 9 * share)


def honest(request: Request, option: str) -> float:
    """Scorer without bias."""
    first = p(*answers(request))
    return log(first if option.strip() == "(A)" else 1 - first)


def first_place(request: Request, option: str) -> float:
    """Scorer that always prefers the place shown first: pure position bias."""
    return log(0.9 if option.strip() == "(A)" else 0.1)


def votes(request: Request) -> str:
    """Verdicts drawn with the biased judge's probability."""
    return "(A)" if uniform("vote", request.seed) < p(*answers(request)) + BIAS else "(B)"


def writes(request: Request) -> str:
    """Answers of some quality, by the digest of what is asked and the seed; one in fifty fails."""
    mark = digest([message.content for message in request.messages], request.seed)
    if int(mark[:4], 16) % 50 == 0:
        raise Permanent("content_filter", "scripted failure")
    filler = " ".join(f"word{mark[place : place + 2]}" for place in range(4, 4 + 2 * (3 + int(mark[4], 16)), 2))
    return f"An answer of quality {int(mark[5:8], 16) % 11} with {filler}."


def writes_and_logs(request: Request) -> str:
    """The same, and every answer given is written down."""
    import os

    with open(os.environ["CAI_TEST_LOG"], "a") as log_file:
        log_file.write(digest(answer := writes(request)) + "\n")
    return answer


def scores_and_logs(request: Request, option: str) -> float:
    """The biased scorer, and every question is written down."""
    import os

    with open(os.environ["CAI_TEST_LOG"], "a") as log_file:
        log_file.write(digest([message.content for message in request.messages], option) + "\n")
    return biased(request, option)
