"""How fast the embedded model goes through a whole draft-critique-revise job, and what each technique contributes.

Side by side in one run, on the same threads: plain `generate` one call at a time, plain `generate` in static batches
of 8, and cai's engine in float32 and bfloat16, with and without prefix reuse. Every way answers greedily, so that the
texts can be compared with those of one call at a time in float32. Rounds are interleaved, because a machine is
rarely alone; believe the ratios.

Left out on purpose: the pipeline's own costs (journal, gates, files), which other benches measure.

    .venv/bin/python bench/engine.py [--prompts 32 --repeats 3 --threads N]
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cai.types import Message, Request, Sampling  # noqa: E402

PROMPTS = (
    "How do I keep basil alive on a windowsill?",
    "My neighbour's dog barks all night. What can I do?",
    "Explain compound interest to a twelve-year-old.",
    "What should I pack for three days of hiking in autumn?",
    "Write a short note thanking a colleague for covering my shift.",
    "Why does bread dough need to rest?",
    "How can I fall asleep faster?",
    "What is the difference between a virus and a bacterium?",
    "Suggest a vegetarian dinner I can cook in half an hour.",
    "How do I ask my landlord to repair the heating?",
    "Is it safe to drink water that was left in a car?",
    "Help me plan a quiet birthday for my grandmother.",
    "What does a credit score measure?",
    "How do I remove candle wax from a tablecloth?",
    "Give me three ideas for a rainy afternoon with small children.",
    "Why is the sky red at sunset?",
    "How do I start running when I am out of shape?",
    "What should I check before I buy a used bicycle?",
    "How can I learn twenty new words a week?",
    "Explain what a spreadsheet formula is.",
    "How do I tell a friend that I cannot lend money?",
    "What helps against a dry cough?",
    "How often should I water a cactus?",
    "Summarise the rules of chess for a beginner.",
    "How do I write a good title for a report?",
    "What is a fair way to split the housework?",
    "Why do cats purr?",
    "How do I keep my passwords safe?",
    "What can I cook with leftover rice?",
    "How do I prepare for a job interview by phone?",
    "What is the quickest way to clean a bathroom?",
    "How do glasses correct poor eyesight?",
)
WORKED_CASES = """Each answer is checked against one rule: an answer is brief, plain, and says nothing twice.

Question: How long do I boil an egg?
Answer: Boiling an egg is a wonderful skill to have, and there are many ways to go about it. In general, one may say \
that seven minutes gives a soft egg and ten minutes gives a hard one. So, to sum up, seven minutes is soft and ten is \
hard. I hope that this helps you on your cooking journey!
Critique: The answer opens with praise that nobody asked for, gives the two times twice, and closes with a wish. \
Seven minutes for soft and ten for hard is all that is needed.

Question: Which bin does a pizza box go into?
Answer: Clean cardboard goes into paper recycling. A box soaked with fat goes into the general waste.
Critique: The answer is brief and plain and covers both cases. Nothing needs to change.

Question: Should I water tomatoes in the evening?
Answer: Watering tomatoes is an important topic for every gardener, because water is life. Morning is better than \
evening, since leaves that stay wet overnight catch blight. It should be noted that the morning is therefore the best \
time, as was mentioned above, although it may of course depend on many different factors.
Critique: The first sentence is empty, the last one repeats the advice and then blurs it with factors that it does \
not name. Morning, because wet leaves catch blight at night, is the whole answer.

Question: {question}
Answer: {answer}
Critique:"""
REWRITE = (
    "You're an AI assistant for text re-writing. Rewrite the input text to make it more concise while preserving "
    "its core meaning."
)
DRAFT = Sampling(temperature=0, max_tokens=128)
CRITIQUE = Sampling(temperature=0, max_tokens=64, stop=("\n",))
REVISE = Sampling(temperature=0, max_tokens=96)

Ask = Callable[[Request], Awaitable[tuple[str, int]]]
"""A request in; the text and the number of generated tokens out."""


def draft(question: str) -> Request:
    return Request((Message("user", question),), DRAFT)


def critique(question: str, answer: str) -> Request:
    text = WORKED_CASES.format(question=question, answer=" ".join(answer.split()))
    return Request((Message("user", text),), CRITIQUE, plain=True)


def revise(answer: str) -> Request:
    return Request((Message("system", REWRITE), Message("user", answer)), REVISE)


@dataclass(frozen=True)
class Round:
    """One way's pass over the prompts."""

    answers: tuple[tuple[str, str, str], ...]
    tokens: int
    seconds: float
    cpu_seconds: float

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds
