"""Questions about a text, made by rule from its own sentences: practice in reading for which nobody wrote questions.

:func:`clozes` is given a text and hands on :class:`Cloze` objects. A sentence loses a name, date or number and is asked
for it, after Lewis, Denoyer and Riedel, "Unsupervised Question Answering by Cloze Translation", ACL 2019; where its
form allows it, the question is put the way people ask. The rules are of English; they know no model and no dictionary.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from weft.instructions import CLOZE
from weft.passages import Span, sentences

BLANK = "____"
"""What stands for the words that are asked for."""
FEWEST, MOST = 8, 40
"""Words of a sentence that is asked about."""
LONG = 22
"""Words from which on a sentence is shortened."""
NATURAL = 0.4
"""Share of questions that are put the way people ask, as far as there are sentences that allow it."""


@dataclass(frozen=True)
class Cloze:
    """A question that one sentence of a text answers.

    Attributes:
        question: what is asked.
        answer: words of the sentence: for a blank as they stand there, else with a capital and a full stop.
        sentence: where the sentence begins and ends in the text, in characters.
    """

    question: str
    answer: str
    sentence: Span


Asked = tuple[str, str]
"""A question, and the words of its sentence that answer it."""

# Spaces are escaped so that these parts can stand in verbose patterns.
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_DATE = rf"(?:\d{{1,2}}\ {_MONTH}(?:\ \d{{4}})?|{_MONTH}\ \d{{1,2}}(?:,\ \d{{4}})?|(?:{_MONTH}\ )?(?:1[5-9]|20)\d\d)\b"
_SCALE = r"(?:\ ?(?:bn|m)\b|\ (?:thousand|million|billion|trillion)\b)"
_FIGURE = rf"(?!(?:19|20)\d\d\b)\d+(?:,\d{{3}})*(?:\.\d+)?{_SCALE}?"
_SPELLED = (
    r"(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    rf"|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)\b{_SCALE}?"
)
_ROUGHLY = r"(?:(?:about|some|around|at\ least|more\ than|nearly|almost|up\ to|over|only|just)\ )?"
_COUNT = rf"(?P<answer>(?i:{_ROUGHLY}(?:{_FIGURE}|{_SPELLED})))"
_THINGS = (
    r"(?P<things>(?:[a-z]+(?:-[a-z]+)?\ ){0,2}?(?:people|men|women|children|(?!was|has|is|percent)[a-z]+[a-rt-z]s))"
)
_WORD = r"(?:[A-Z]\.|[A-Z](?:\w|['\u2019](?=\w)(?!s\b)|-(?=\w))+)"
_NUMBERED = r"(?:\ \d{1,2}(?![.,%-]?\w|\ [a-z]))?"
_NAME = rf"(?:(?:(?:Mr|Mrs|Ms|Dr|St)\.?\ )?{_WORD}(?:\ (?:(?:of\ the|of|de|van|von|&)\ )?{_WORD})*{_NUMBERED})"
_VERB = (
    r"(?:is|was|has|had|will|would|can|could|won|made|took|became|beat|told|said|came|went|gave|got|held|left|led|lost"
    r"|met|put|ran|saw|set|sold|spent|bought|brought|built|cut|fell|found|hit|kept|knew|paid|rose|sent|spoke|thought"
    r"|threw|wrote|drew|began|broke|chose|flew|grew|sang|sat|stood|swam|\w{2,}ed)"
)

_NAMED = re.compile(rf"(?<![\w.'\u2019-])(?!{_DAY}|{_MONTH}\b){_NAME}(?![\w?!-]|\ \d|\ [A-Z])")
_AMOUNT = re.compile(
    rf"""(?<![\w.,£$€'-])(?:
    {_DATE} | (?:[£$€]|US\$){_FIGURE} | {_FIGURE}(?:%|\ per\ cent\b|\ percent\b)?
    )(?![\w%]|[.,:]\d|-\w|/|'s)""",
    re.VERBOSE,
)
"""Dates, amounts of money, percentages and other numbers, as figures."""
_OF_NAME = re.compile(r" [A-Z]\w+ $")
"""What stands before the number of a "Radio 1"; a sentence may well begin with "In"."""
_ADJECTIVE = re.compile(
    r"[\w-]+(?:ish|ese|ian|ean|ican|-[a-z]+)|(?:.*-)?(?:French|German|Dutch|Swiss|Greek|Welsh|Czech|Iraqi|Israeli)"
)
"""Names that only say which kind of thing another one is."""
_SPELLED_ALONE = re.compile(rf"\b{_SPELLED}(?!-|\ (?:of|or|and)\b)")
_TITLE = r"(?:Mr|Mrs|Ms|Miss|Dr|Sir|Lord|Lady|Dame|Prof|Professor|President|Chancellor|King|Queen|Prince|Princess)"
_PERSON = re.compile(rf"\b{_TITLE}\.?\ ((?:{_WORD}\ )?{_WORD})")
_OF_PERSONS = re.compile(r"\b(?:he|she|his|her|himself|herself)\b")
_KIND = re.compile(
    r"(?:The )?.*\b(Party|Bank|Union|University|Commission|Committee|Council|Ministry|Association|Agency)"
)
_STARTERS = frozenset(
    """I A An The This That These Those It He She They We You My Our His Her Its Their But And Or If In On At As So To
    By For From With Under Not Now Then Only Even Both Last Since Before After Until While When Where What Who How Why
    There Here Some Many Most All Other Another Each Every One Two Yesterday Today Earlier Later Meanwhile However
    Though Although Because Despite Asked Speaking Former""".split()  # noqa: SIM905
)
"""Words with a capital that name nothing by themselves."""
_ADDRESS = frozenset("Mr Mrs Ms Miss Dr Sir Lord Lady Prof".split())  # noqa: SIM905
_PARTICLES = frozenset("da dal de del den der di du la le van von ten".split())  # noqa: SIM905
"""Words within a name, so that what stands beside them is only a part of it."""

_SUBJECT = rf"(?P<subject>The\ (?:[a-z]+\ ){{0,1}}?[a-z]+|(?:The\ )?{_NAME})"
_OF_VERB = re.compile(r"\b(?:is|was|has|had|will|are|were|only|also|then|now|still|just|first|never|once)\b")
_PLAIN = r"(?!(?:and|but|that|who|which|when|while|because|as|if|after|before)\ )[^,\s]+"
_BASE = {
    "has": "have", "had": "have", "employs": "employ", "owns": "own", "needs": "need", "sold": "sell", "won": "win",
    "lost": "lose", "made": "make", "took": "take", "bought": "buy", "spent": "spend", "held": "hold", "left": "leave",
    "began": "begin", "became": "become", "scored": "score", "joined": "join", "opened": "open", "died": "die",
    "launched": "launch", "moved": "move", "started": "start", "signed": "sign", "retired": "retire", "set": "set",
}  # fmt: skip
"""Verbs that a question with "do" is made of."""
_WHO = re.compile(rf"(?P<subject>(?:The\ )?{_NAME})\ (?P<rest>(?:(?:also|now)\ )?{_VERB}\ .+)")
_ONE = r"(?P<one>the (?!statement|report|letter)[a-z]+)"
_SPEAKER = rf'(?:(?!(?:of|for|at|from|with) )[^\s",]+ )*?(?P<name>(?:the )?{_NAME})|{_ONE}'
_SAID = re.compile(
    rf'"(?P<words>[^"]+?),?" (?:said|says|added|cried|asked) (?:{_SPEAKER})(?:,[^"]*)?'
    rf'|(?P<first>{_NAME}) (?:said|says|added): "(?P<quoted>[^"]+?)\.?"?'
)
_COUNTED = re.compile(rf"{_COUNT}\ {_THINGS}\ (?P<rest>(?:are|were|have|{_VERB})\ .+)")
_REST = rf"(?P<rest>(?:\ (?:in|at|on|to|for|of|from|with|by|since|a|per|left|around|across)(?:\ {_PLAIN}){{1,12}})?)"
_THERE = re.compile(rf"There\ (?P<verb>are|were|have|will)(?P<been>\ been|\ be|)\ {_COUNT}\ {_THINGS}{_REST}")
_HAVING = re.compile(rf"{_SUBJECT}\ (?P<verb>{'|'.join(_BASE)})\ {_COUNT}\ {_THINGS}{_REST}")
_BEING = re.compile(
    rf"{_SUBJECT}\ (?P<verb>was|were|is|are)\ (?P<done>(?:born|held|found|built|shot|set\ up|made|\w+[^e]ed)"
    rf"(?:\ {_PLAIN}){{0,6}}?)"
    rf"\ (?P<answer>(?:in|on)\ {_DATE}|in\ (?!{_MONTH}){_NAME})"
)
_DOING = re.compile(
    rf"{_SUBJECT}\ (?P<verb>{'|'.join(_BASE)})(?P<rest>(?:\ {_PLAIN}){{0,8}}?)\ (?P<answer>(?:in|on)\ {_DATE})"
)
_LEANS = re.compile(
    r"""[-\s"'(]*(?:which|who|whose|where|when|that|and|but|or|while|as|after|before|including|such|with|in|to|for|of
    |than|because|if|although|like|by|from|\w+ing|\w+ed)\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""How a clause begins that needs the one before it."""
_NO_BEGINNING = re.compile(r"[a-z]|(?:Are|Was|Is|Has|Were|Had|Have|Said|Will)\b(?!.*\?$)")
"""How what is left of a sentence begins, where its first words were lost."""
_HAS_VERB = re.compile(rf"\b(?:are|were|have|do|does|did|be|may|might|must|should|{_VERB})\b")


def clozes(text: str, rng: random.Random, count: int) -> list[Cloze]:
    """Questions about a text, each about another sentence, in the text's order.

    Sentences of :data:`FEWEST` to :data:`MOST` words are asked about, if their quotation marks and brackets are closed.
    The answer stands only once in its sentence.

    Args:
        text: any text; a sentence ends at an empty line.
        rng: makes the choices.
        count: questions, at most; there are fewer if the text has fewer sentences to ask about.

    Raises:
        ValueError: ``count`` is below zero.
    """
    if count < 0:
        raise ValueError(f"count={count}: it must be zero or more.")
    persons = {name.split()[-1] for name in _PERSON.findall(text)}
    asked: list[Cloze] = []
    blank: list[Cloze] = []
    for span in sentences(text):
        said = " ".join(text[slice(*span)].split())
        if _can_be_asked(said):
            if questions := list(natural(said, persons)):
                question, answer = rng.choice(questions)
                asked.append(Cloze(question, answer[:1].upper() + answer[1:].removesuffix(".") + ".", span))
            if questions := list(blanks(said)):
                blank.append(Cloze(*rng.choice(questions), span))
    rng.shuffle(asked)
    rng.shuffle(blank)
    made: dict[Span, Cloze] = {}
    while len(made) < count and (asked or blank):
        cloze = (asked if asked and (not blank or rng.random() < NATURAL) else blank).pop()
        made.setdefault(cloze.sentence, cloze)
    return [made[span] for span in sorted(made)]


def _can_be_asked(said: str) -> bool:
    """Whether it is neither short nor long, in one piece, without a formula, and more than a list of names."""
    words = said.split()
    small = sum(word[0].islower() for word in words)
    whole = said[-1] in '.!?"' and _closed(said) and _HAS_VERB.search(said) is not None
    whole = whole and not _NO_BEGINNING.match(said) and "\\" not in said
    return whole and FEWEST <= len(words) <= MOST and 2 * small >= len(words)


def blanks(said: str) -> Iterator[Asked]:
    """The questions that leave a name, date, amount or number out of a sentence, with what was left out.

    Args:
        said: a sentence. If it is long, the question has only the clauses around the blank.
    """
    names = [match.span() for match in _NAMED.finditer(said)]
    amounts = [match.span() for match in _AMOUNT.finditer(said) if not _OF_NAME.search(said[: match.start()])]
    spans = [span for span in names if _names(said, *span)]
    spans += [span for span in amounts if not any(span[0] < last and first < span[1] for first, last in names)]
    for begin, end in spans or [match.span() for match in _SPELLED_ALONE.finditer(said)]:
        if _once(said[begin:end], said):
            yield CLOZE.format(_clauses(said[:begin] + BLANK + said[end:])), said[begin:end]


def _names(said: str, begin: int, end: int) -> bool:
    """Whether it is a name, and begins neither the sentence nor what somebody says."""
    name, before, behind = said[begin:end], said[:begin], said[end:].split()
    amid = before.endswith(" ") and before[-2] not in ".!?:"
    full = amid and not {before.split()[-1], *behind[:1]} & _PARTICLES and not _OF_NAME.search(before)
    return full and name.split()[0] not in _STARTERS and name not in _ADDRESS and not _ADJECTIVE.fullmatch(name)


def natural(said: str, persons: Collection[str] = ()) -> Iterator[Asked]:
    """The questions about a sentence that can be put the way people ask, with the words that answer them.

    Args:
        said: a sentence; only one that ends in a full stop is asked about.
        persons: last names that are known to be a person's. One with "he" or "she" behind it is taken for one.
    """
    if not said.endswith((".", '."')):
        return
    said = said.removesuffix('"') if said.endswith('."') else said
    whole = said.removesuffix(".")
    if found := _SAID.fullmatch(whole):
        answer = found["name"] or found["one"] or found["first"]
        words = found["words"] or found["quoted"]
        if 4 <= len(words.split()) <= LONG and answer.split()[0] not in _STARTERS and _once(answer, said):
            yield f'Who said "{words}"?', answer
    if '"' in whole:
        return
    for question, answer in _questions(whole, persons):
        if _once(answer, said) and _closed(question):
            yield f"{question}?", answer


def _questions(whole: str, persons: Collection[str]) -> Iterator[Asked]:
    """Questions without their mark, about a sentence without its full stop."""
    if (found := _WHO.fullmatch(whole)) and _is_subject(found["subject"]):
        subject, rest = found["subject"], _shortened(found["rest"])
        first, *others = subject.split()
        known = first.strip(".") in _ADDRESS or (others and others[-1] in persons) or _OF_PERSONS.search(rest)
        if kind := _KIND.fullmatch(subject):
            yield f"Which {kind[1].lower()} {rest}", subject
        elif others and first != "The" and known:
            yield f"Who {rest}", subject
    if found := _COUNTED.fullmatch(whole):
        yield f"How many {found['things']} {_shortened(found['rest'])}", found["answer"]
    if found := _THERE.fullmatch(whole):
        yield f"How many {found['things']} {found['verb']} there{found['been']}{found['rest']}", found["answer"]
    if (found := _HAVING.fullmatch(whole)) and _is_subject(found["subject"]):
        yield f"How many {found['things']} {_inverted(found)}{found['rest']}", found["answer"]
    if (found := _BEING.fullmatch(whole)) and _is_subject(found["subject"]):
        word = "When" if re.search(_DATE, found["answer"]) else "Where"
        yield f"{word} {found['verb']} {_lower(found['subject'])} {found['done']}", found["answer"]
    if (found := _DOING.fullmatch(whole)) and _is_subject(found["subject"]):
        yield f"When {_inverted(found)}{found['rest']}", found["answer"]


def _is_subject(words: str) -> bool:
    """Whether they are more than a pronoun, and hold nothing that belongs to the verb or to the sentence before."""
    return words.split()[0] not in _STARTERS - {"The"} and not _OF_VERB.search(words)


def _inverted(found: re.Match[str]) -> str:
    """``"does the bank have"`` of ``"The bank has"``."""
    verb = found["verb"]
    return f"{'does' if verb.endswith('s') else 'did'} {_lower(found['subject'])} {_BASE[verb]}"


def _lower(subject: str) -> str:
    return "the" + subject[3:] if subject.startswith("The ") else subject


def _once(answer: str, said: str) -> bool:
    return len(re.findall(rf"(?<!\w){re.escape(answer)}(?!\w)", said, re.IGNORECASE)) == 1


def _closed(said: str) -> bool:
    """Whether quotation marks and brackets that open also close."""
    return said.count('"') % 2 == 0 and all(said.count(a) == said.count(b) for a, b in ("()", "[]", "\u201c\u201d"))


def _shortened(rest: str) -> str:
    """What a sentence says before it goes on to something else; the end of a long one before a comma."""
    commas = r"|, (?:which|who|but|while|although|after|before|with|\w+ing)\b" if len(rest.split()) >= LONG else ""
    found = re.search(rf",? (?:and (?:there|it|they|he|she|we|many|users)|while)\b{commas}", rest)
    said = rest[: found.start()] if found else rest
    return rest if len(said.split()) < FEWEST // 2 or re.search(r"\b(?:if|when|that|said)\b", said) else said


def _clauses(said: str) -> str:
    """A long sentence as the clauses around its blank, cut at commas, as many as can be understood alone."""
    if len(said.split()) < LONG:
        return said
    pieces = re.split(r"(?<=[,;]) | (?=- )", said)
    first = last = next(place for place, piece in enumerate(pieces) if BLANK in piece)

    def kept() -> str:
        return " ".join(pieces[first : last + 1])

    def enough() -> bool:
        return len(kept().split()) >= FEWEST and bool(_HAS_VERB.search(kept()))

    amid = bool(re.match("(?:- )?(?:who|whose|which|where) ", pieces[first]))
    while first and (_LEANS.match(pieces[first]) or not enough()):
        first -= 1
    while last + 1 < len(pieces) and (amid or not enough() or not _closed(kept())):
        last, amid = last + 1, False
    if not _closed(kept()):
        return said
    clause = kept().strip(" ,;-")
    return clause[:1].upper() + clause[1:] + ("" if clause[-1] in '.!?"' else ".")
