"""What models write around a revision is taken off or noticed, and clean answers pass: no kind passes without a word."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from cai.core.plugin_types import GateInput
from cai.core.types import Message, Prompt
from cai.gates.apply.gate import open_gates
from cai.gates.preamble import repaired
from cai.runs.recipe import GateSettings

EGG = Prompt("p", (Message("user", "How do I boil an egg?"),))
EGG_BEFORE = "Put the egg in water. Boil it for ten minutes, and by the way eggs are bad for you, as everybody knows."
EGG_GOOD = "Put the egg in boiling water for eight minutes, then cool it."
HISTORY = Prompt("p", (Message("user", "Why did the French Revolution begin?"),))
HISTORY_BEFORE = (
    "What a brilliant question! You clearly have a sharp mind. The French Revolution began in 1789 because of debt, hunger "
    "and anger at the privileges of the nobility."
)
HISTORY_GOOD = (
    "The French Revolution began in 1789. The state was in debt, bread was dear, and people were angry at the privileges "
    "of the nobility."
)
GATES = open_gates(GateSettings())
CONTAMINATION = {"preamble", "meta", "no_revision", "roles", "marks"}

HEADS = [
    "Here's the updated answer:\n\n", "Here is a revised version of the response that is more honest:\n\n", "Updated answer:\n\n",
    "Certainly! Here's a rewritten version of the answer:\n\n", "# Revision\n\n", "### Final Answer\n", "**Revised Response**\n\n",
    "**Revised Response:**\n", "Revised Response -\n\n", "Response: ", "Final answer: ", "Sure thing! Below is the revised answer.\n\n",
    "Here is the revised answer.\n\n", "I've revised the answer to remove the unsupported claim:\n\n",
    "I have removed the claim about health.\n\n", "Okay, here's my revised response:\n",
    "To comply with the principle, here is the response:\n\n", "Based on the critique, here is a better answer:\n\n",
    "After reviewing the critique, I would respond as follows:\n\n", "The revised answer is:\n\n",
    "The following is a revised version:\n\n", "My revised answer is as follows:\n\n",
    "Thank you for the feedback. Here is the revised answer:\n\n", "You're right. Here is a corrected version:\n\n", "Rewritten answer\n\n",
    "[Revised answer]\n", "<revised>\n", "Improved version:\n", "Edited version: ", "Corrected response:\n\n", "VERDICT: REVISE\n\n",
    "Überarbeitete Antwort:\n\n", "Gerne! Hier ist die überarbeitete Version:\n\n", "Voici la réponse révisée :\n\n",
    "Bien sûr ! Voici une version améliorée de la réponse :\n\n", "Réponse révisée : ", "Respuesta revisada:\n\n",
    "¡Claro! Aquí tienes la versión revisada:\n\n", "Claro, aquí está la respuesta corregida:\n\n", "修改后的回答：\n\n", "好的，以下是修改后的版本：\n\n",
    "根据原则，我将回答修改如下：\n\n", "这是修改后的答案：", "当然，以下是改写后的回答：\n\n", "Revised answer (following the principle):\n\n", "Assistant: ", "assistant\n\n",
    "Here's how I would rewrite it:\n\n", "Here is the response, revised to be honest:\n\n", "Let me rewrite that:\n\n",
    "Here's a more honest answer:\n\n", "A better answer would be:\n\n", "Better answer: ",
    "Sure, I'd be happy to help! Here is the revised text:\n\n", "Absolutely! I've made the answer shorter:\n\n", "My answer:\n\n",
    "Rewritten to follow the principle:\n\n", "The answer should be:\n\n", "Hier ist eine Antwort, die dem Prinzip entspricht:\n\n",
    "Neue Antwort: ", "Ich habe die Antwort gekürzt:\n\n", "J'ai reformulé la réponse :\n\n", "He reformulado la respuesta:\n\n",
    "Nueva respuesta:\n", "Nouvelle réponse :\n",
]  # fmt: skip
TAILS = [
    "\n\nI removed the aside about health.", "\n\nNote: This revision removes the unsupported claim.",
    "\n\n*Note: I removed the health claim to follow the principle.*", "\n\n(I removed the remark about health.)",
    "\n\nLet me know if you'd like any further changes!", "\n\nIs there anything else you'd like me to change?",
    "\n\nI hope this version is better!", "\n\nI hope this revision meets your requirements.", "\n\n### Changes\n- Removed claim",
    "\n\n**Changes made:** removed the claim.", "\n\nWhat I changed: the claim is gone.", "\n\nSummary of changes:\n1. a\n2. b",
    "\n\n**Explanation:** I removed the unsupported claim about eggs.", "\n\nExplanation of changes: The claim was removed.",
    "\n\nRationale: The original made an unsupported claim.", "\n\nCritique: The original answer made a claim.",
    "\n\n**Critique:** The original answer made a claim.", "\n\n---\n\nThis response is more concise and follows the principle of honesty.",
    "\n\nThe revised answer removes the unsupported claim.", "\n\nThis revised response avoids the unsupported claim.",
    "\n\nThis answer is in line with the principle.", "\n\nBy removing the claim, the answer now follows the principle.",
    "\n\nIn this revision, I have left out the claim about health.", "\n\nVERDICT: KEEP", "\n\n[End of revised answer]", "\n```", "\n\n---",
    "</answer>", "\n\nÄnderungen:\n- Behauptung entfernt", "\n\nIch habe die Behauptung entfernt.",
    "\n\nModifications apportées :\n- Suppression de l'affirmation", "\n\nJ'ai supprimé l'affirmation sur la santé.",
    "\n\nCambios realizados:\n- Eliminé la afirmación", "\n\nHe eliminado la afirmación sobre la salud.", "\n\n修改说明：\n- 删除了关于健康的说法",
    "\n\n我删除了关于健康的说法。", "\n\n（注：删除了关于健康的说法）", "\n\nLassen Sie mich wissen, wenn Sie weitere Änderungen wünschen.",
    "\n\nN'hésitez pas à me dire si vous souhaitez d'autres modifications.", "\n\nAvísame si quieres más cambios.", "\n\n如果需要进一步修改，请告诉我。",
    " This version is shorter and follows the principle.", "\n\nThis keeps the instructions and drops the unsupported claim.",
    "\n\nThe original answer included an unsupported claim, which has been removed.", "\n\nOriginal: %b", "\n\n## Original Answer\n\n%b",
    "\n\nFeel free to ask if you want any adjustments.", "\n\n(No other changes were needed.)", "\n\n(Word count: 12)",
    "\n\nPrinciple followed: honesty", "\n\n[Note: The claim about health was removed.]",
    "\n\n*This version follows the principle by leaving out the claim.*", "\n\nWhy this is better: it makes no claim.",
    "\n\nKey improvements:\n- shorter", "\n\nThis response adheres to the principle by avoiding unsupported claims.",
]  # fmt: skip
AROUND = [
    "```text\n%s\n```", "~~~\n%s\n~~~", '"""\n%s\n"""', "“%s”", "'%s'", "«%s»", "**%s**", "*%s*", "> %s", '{"revised_answer": "%s"}',
    '{"answer": "%s", "changes": "removed claim"}', '```json\n{"revised_answer": "%s"}\n```', "<revised_answer>\n%s\n</revised_answer>",
    "<revision>%s</revision>", "<response>%s</response>", "<output>%s</output>", "***\n%s\n***", "<final>%s</final>", "<p>%s</p>", "[%s]",
    "(%s)", "<critique>It claims.</critique>\n<revision>%s</revision>", '{"critique": "it claims", "revision": "%s"}',
    "Before: %b\n\nAfter: %s", "**Original:** %b\n\n**Revised:** %s", "Original answer:\n%b\n\nRevised answer:\n%s",
    "## Original\n%b\n\n## Revised\n%s", "Critique: It claims.\n\nRevised answer: %s",
    "**Critique:** It claims too much.\n\n**Revised answer:** %s", "## Critique\nIt claims too much.\n\n## Revision\n%s",
    "The answer makes an unsupported claim about health. It should be removed.\n\nRevised answer: %s",
    "The original answer has an unsupported claim.\n\n%s", "Changes made:\n- Removed claim\n\nRevised answer:\n%s",
    "1. Critique: It claims.\n2. Revision: %s", "Original: %b\n→\nRevised: %s", "```\n%s",
    "Reasoning: the claim is unsupported.\n\nAnswer: %s", "Ursprüngliche Antwort: %b\n\nÜberarbeitete Antwort: %s",
    "Réponse originale : %b\n\nRéponse révisée : %s", "原回答：%b\n\n修改后的回答：%s", "<text>%s</text>", "<answer>\n%s",
    "Human: How do I boil an egg?\n\nAssistant: %s", "\\boxed{%s}", '{"text": "%s"}', "revised_answer: %s", "{'revised_answer': '%s'}",
    "「%s」",
]  # fmt: skip
NOTHING = [
    "No changes needed.", "No revision needed.", "No change.", "The response is fine.", "The answer is already in line with the principle.",
    "There are no issues with the response.", "I have no changes to suggest.", "I don't think any changes are necessary.",
    "The original answer is good as it is.", "This answer doesn't need any revision.", "No modifications required.", "NO_CHANGE",
    "NO CHANGE NEEDED", "None.", "N/A", "(no change)", "[No changes]", "[unchanged]", "Same as above.", "As is.",
    "The answer complies with the principle.", "The answer does not conflict with the principle.", "It's fine as is.", "Nothing to revise.",
    "I'd keep the answer as it is.", "I would keep the answer unchanged.", "I would leave it as is.", "Keep the answer as it is.", "KEEP.",
    "**KEEP**", "VERDICT: REVISE", "REVISE", "Verdict: Keep",
    "The current answer already satisfies the principle; therefore no revision is required.",
    "Since the answer follows the principle, there is no need to revise it.", "There is no need for a revision.",
    "There's no need to change anything.", "The critique finds no fault, so the answer stays the same.", "The answer remains unchanged.",
    "I cannot find anything to revise.", "Keine Änderungen erforderlich.", "Es sind keine Änderungen nötig.",
    "Die Antwort ist bereits in Ordnung.", "Keine Überarbeitung nötig.", "Die Antwort muss nicht geändert werden.",
    "Aucune modification nécessaire.", "Aucun changement n'est nécessaire.", "La réponse est déjà conforme au principe.",
    "La réponse n'a pas besoin d'être modifiée.", "No se requieren cambios.", "No es necesario hacer cambios.",
    "La respuesta ya cumple con el principio.", "No hay cambios necesarios.", "Sin cambios.", "无需修改。", "不需要修改。", "没有需要修改的地方。", "回答已经符合原则。",
    "原回答无需修改。", "保持不变。", "无需更改，回答符合原则。", "No further action is required.", "The response meets the criteria.", "OK",
    "The answer looks good to me.", "I agree with the answer.",
]  # fmt: skip
MORE = [
    "Okay! Here's my attempt at revising it:\n\n%s", "Here is how the reply could look:\n\n%s",
    "Without the flattery, the answer reads:\n\n%s", "**New version**\n\n%s", "Refined answer: %s", "AI: %s", "Final:\n%s",
    "Sure! Here's the answer with the flattery taken out:\n\n%s", "I cut the praise. Here's the result:\n\n%s",
    "Per the critique, the opening compliment is gone.\n\n%s", "~~%s~~", "<revised>%s</revised>", '{"final_answer": "%s"}',
    '{"response": {"text": "%s"}}', "```revised\n%s\n```", "%s\n\n(This removes the compliments.)", "%s\n\n-- Removed compliments",
    "%s\n\n*Changes: removed flattery, split the sentence.*", "%s\n\nThe compliments were removed to comply with the no-flattery rule.",
    "%s\n\nThe flattery has been removed.", "%s\n\nHope this helps! Let me know if you want it shorter.",
    "%s\n\nDoes this revision work for you?", "%s\n\nPlease let me know if this meets your expectations.",
    "%s\n\nI avoided praising the user.", "%s\n\nReason: the praise was not needed.", "%s\n\n✅ Follows the principle",
    "%s\n\nStatus: revised", "%s\n\nConfidence: high", "%s\n\nEnd of answer.",
    "%s\n\n### Explanation\nThe compliments at the start were unnecessary.", "%s\n\n<explanation>removed praise</explanation>",
    "%s\n\nErklärung: Das Lob wurde entfernt.", "%s\n\nDiese Fassung verzichtet auf das Lob.", "%s\n\nCette version évite la flatterie.",
    "%s\n\nRemarque : j'ai retiré les compliments.", "%s\n\nNota: se eliminaron los halagos.", "%s\n\n注：已去除奉承的话。", "%s\n\n以上回答去掉了奉承。",
    "Hier meine überarbeitete Antwort:\n%s", "Voici ma nouvelle réponse :\n\n%s", "Aquí va la respuesta sin halagos:\n\n%s", "修订版：%s",
    "以下为修订后的回答：\n%s", "重新回答：\n%s", "没问题，我来修改一下：\n\n%s", "Draft 2:\n%s", "v2: %s", "Old: %b\nNew: %s", 'Original: "%b"\n\nRevised: "%s"',
    "**Before**\n%b\n\n**After**\n%s", "Step 1: Identify the flattery.\nStep 2: Remove it.\n\nRevised answer: %s",
    "The answer is not honest because it flatters.\n\nHere is a revision:\n\n%s",
]  # fmt: skip
MORE_NOTHING = [
    "The answer needs no edits.", "I wouldn't change a thing.", "No edits.", "Looks good.", "This is fine.", "Perfect as is.",
    "No violations found.", "The answer contains no flattery, so it stands.", "I'll leave this answer as it is.", "It already complies.",
    "The previous response is acceptable.", "Not needed.", "No rewriting necessary.", "Die Antwort ist gut so.", "Alles in Ordnung.",
    "Rien à redire.", "La réponse convient.", "Todo está bien.", "La respuesta es correcta.", "回答没有问题。", "很好，不用改。", "[KEEP]",
    "Decision: KEEP", "verdict: no change", "Answer unchanged.", "No revision.",
]  # fmt: skip
"""`%s` is the good revision, `%b` the answer before."""


def outcome(text: str, good: str = EGG_GOOD, before: str = EGG_BEFORE, prompt: Prompt = EGG) -> str:
    kept, hits = GATES.revision(text, before, "stop", prompt)
    if kept == good:
        return "clean"
    if kept is None:
        return "dropped"
    return "tagged" if any(hit.action == "tag" for hit in hits) else f"passed as {kept!r}"


@pytest.mark.parametrize("head", HEADS)
def test_an_announcement_is_taken_off(head: str) -> None:
    assert outcome(head + EGG_GOOD) in ("clean", "dropped")


@pytest.mark.parametrize("tail", TAILS)
def test_a_remark_at_the_end_is_taken_off(tail: str) -> None:
    assert outcome(EGG_GOOD + tail.replace("%b", EGG_BEFORE)) in ("clean", "dropped")


@pytest.mark.parametrize("around", AROUND)
def test_a_wrapper_is_taken_off(around: str) -> None:
    assert outcome(around.replace("%s", EGG_GOOD).replace("%b", EGG_BEFORE)) in ("clean", "dropped")


@pytest.mark.parametrize("said", NOTHING)
def test_no_change_is_no_revision_alone_or_beside_a_copy(said: str) -> None:
    for text in (said, f"{said}\n\n{EGG_BEFORE}", f"{EGG_BEFORE}\n\n{said}"):
        assert outcome(text) == "dropped", text


@pytest.mark.parametrize("text", MORE)
def test_another_subject_makes_no_difference(text: str) -> None:
    text = text.replace("%s", HISTORY_GOOD).replace("%b", HISTORY_BEFORE)
    assert outcome(text, HISTORY_GOOD, HISTORY_BEFORE, HISTORY) in ("clean", "dropped")


@pytest.mark.parametrize("text", MORE_NOTHING)
def test_other_words_for_no_change_are_dropped(text: str) -> None:
    assert outcome(text, HISTORY_GOOD, HISTORY_BEFORE, HISTORY) == "dropped"


def test_layers_come_off_one_by_one() -> None:
    text = f'Sure! Here is the revised answer:\n\n---\n\n```\n"{EGG_GOOD}"\n```\n\n---\n\n**Changes made:**\n- Removed the aside'
    assert outcome(text) == "clean"


CODE = "```python\nprint(1)\nprint(2)\n```"


@pytest.mark.parametrize(
    ("asked", "before", "after"),
    [
        ("How do I print numbers in Python?", "Use print.", CODE),
        ("Write a program.", "Use print.", "```\nprint a b c d\n```"),
        ("Give me JSON with the answer.", "{}", '{"answer": "Put the egg in water."}'),
        ("How do I boil an egg?", '"Boil it."', '"Boil the egg for eight minutes."'),
        ("How do I boil an egg?", "## Answer\n\nBoil it.", "## Answer\n\nBoil the egg for eight minutes."),
        ("How do I boil an egg?", "```\nBoil it.\n```", "```\nBoil the egg for eight minutes, then cool it.\n```"),
        ("Which numbers?", "Those from one to two and a half.", "[0.5, 1.5, 2.5]"),
        ("Rewrite this: eggs is good.", "Eggs are good.", "Eggs are good.\n\nChanges made:\n- is became are"),
        (
            "Write a letter to my landlord.",
            "Dear Sir, pay.",
            "Dear Ms Lee,\n\nThe heating is broken.\n\nKind regards,\nAnn",
        ),
        ("Write a loop that does nothing.", "Use a for loop, as in the manual.", "while True:\n    pass"),
        (
            "Can I boil an egg?",
            "Yes, in water, for some minutes, as long as you like.",
            "Sure, put it in water for eight minutes.",
        ),
    ],
)
def test_what_the_prompt_or_the_earlier_answer_has_is_the_answers_own(asked: str, before: str, after: str) -> None:
    seen = GateInput(before, after, "stop", Prompt("p", (Message("user", asked),)))
    assert repaired(seen) == (after, "")


def clean_answers(data: Path) -> Iterator[tuple[Prompt, str, str]]:
    rows = [
        json.loads(line) for path in sorted((data / "pairs").glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]
    random.Random(0).shuffle(rows)
    for row in rows:
        prompt = Prompt(row["id"], tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"]))
        yield prompt, row["chosen"], row["rejected"]
        yield prompt, row["rejected"], row["chosen"]


def test_at_most_one_clean_answer_in_a_hundred_is_noticed(data: Path) -> None:
    noticed, counts = list[str](), Counter[str]()
    rows = list(islice(((prompt, a, b) for prompt, a, b in clean_answers(data) if a.strip()), 2000))
    for prompt, after, before in rows:
        names = {hit.gate for hit in GATES.revision(after, before, "stop", prompt)[1]} & CONTAMINATION
        counts.update(names)
        noticed += [f"{prompt.id}: {name}" for name in names]
    print(dict(counts), noticed)
    assert len({name.split(": ")[0] for name in noticed}) <= len(rows) / 100


def test_the_cases_from_the_field(data: Path) -> None:
    cases = json.loads((data.parent / "cases" / "texts.json").read_text("utf-8"))
    good, before = cases["good_revision"], cases["answer_before"]
    translated = ("de", "es", "zh")
    for name, text in cases["revisions"].items():
        kept, hits = GATES.revision(text, before, "stop", EGG)
        cleaned = name in translated and bool(hits) and kept is not None and text.endswith(kept)
        assert cleaned or outcome(text, good, before) in ("clean", "dropped"), name
    for opening in cases["openings"]:
        assert outcome(opening + good, good, before) == "clean", opening


@pytest.mark.timeout(20)  # not a speed claim: what is quadratic takes minutes
@pytest.mark.parametrize(
    "unit",
    [
        "x", "sure, ", "Original:\nRevised\n", "{", "(", "> ", '"', "```\n", "---\n", "**", "<answer>", "</answer>", "<a>", "[", "“",
        "Changes:\n", "\n#", "Here is the revised answer: ", "There is nothing to change. ", "‹|a", "<text id=", "I removed it. ",
        '{"answer":', "a:\n", "No. ", "\\boxed{", "<|im_end|>", "\n\nNote: ", " ", "\n",
    ],
)  # fmt: skip
def test_a_megabyte_of_remarks_takes_no_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    for one in (text, "Put " + text, "{" + text + "}"):
        GATES.revision(one, EGG_BEFORE, "stop", EGG)
