"""How good texts are that answer, title or summarize, and what they cite: the figures that papers on reading print.

Given predictions and, for each, the references of people, these functions hand on ROUGE (summaries and titles), exact
match and F1 of SQuAD (answers from a text) and the accuracy of VQA (answers about a picture); given ids of passages,
recall among the first k of a search, and how right citations are. All of them are fractions from 0 to 1, where papers
often print percentages. Nothing here knows a model.

ROUGE-L has two usual definitions: the one here is that of ``rouge-score``, F1 of stemmed words, while
:func:`weft.metrics.rouge_l` is COCO's for captions.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from rouge_score.rouge_scorer import RougeScorer

from weft.errors import DataError
from weft.metrics import check_rows

_ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}  # our names: the library's

_SQUAD_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

_AGREEING = 3  # as many people as give an answer make it wholly right in VQA
_VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_VQA_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
# The contractions that VQA's script knows without their apostrophe, by their ending. It leaves out those that are then
# a common word ("we're").
_CONTRACTED = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it someone something there they where who you",
    "'ll": "how it somebody someone something they what who why you",
    "'re": "there they what why you",
    "'s": "he how somebody someone that there what when where who why",
    "": "ma'am o'clock 'twas y'all",
}
_CONTRACTIONS = {
    f"{start}{ending}".replace("'", ""): f"{start}{ending}"
    for ending, starts in _CONTRACTED.items()
    for start in starts.split()
}


def rouge(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L of a corpus: means over its rows of F1, the best reference counting (Lin 2004).

    Computed by ``rouge-score`` with Porter's stemmer, as published figures are: ROUGE-1 and ROUGE-2 count words and
    pairs of words in common, ROUGE-L the longest common subsequence of each whole text (not sentence by sentence, which
    is that library's ``rougeLsum``). Words are runs of ``a`` to ``z`` and digits; a text of another script has none
    and scores 0, and so does ROUGE-2 where a text is one word.

    Args:
        predictions: one text a row.
        references: one or more right texts for each row. Each figure takes the reference that is best for it.

    Returns:
        ``"rouge_1"``, ``"rouge_2"`` and ``"rouge_l"``, each from 0 to 1.

    Raises:
        DataError: rows differ in number, there are none, or one has no reference.
    """
    check_rows(predictions, references)
    scorer = RougeScorer(list(_ROUGE.values()), use_stemmer=True)
    rows = [scorer.score_multi(right, prediction) for prediction, right in zip(predictions, references, strict=True)]
    return {ours: fmean(row[theirs].fmeasure for row in rows) for ours, theirs in _ROUGE.items()}


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of predictions that are one of their references, from 0 to 1 (Rajpurkar et al. 2016).

    Texts are compared in lower case, without ASCII punctuation and the articles "a", "an" and "the", and with single
    spaces, as SQuAD's script has it.

    Args:
        predictions: one answer a row.
        references: one or more right answers for each row.

    Raises:
        DataError: rows differ in number, there are none, or one has no reference.
    """
    return _best(lambda prediction, right: float(prediction == right), predictions, references)


def token_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean F1 of the words in a prediction and its best reference, from 0 to 1 (Rajpurkar et al. 2016).

    Words are those left by the normalization of :func:`exact_match`; their order does not count. Where a text has no
    word left, it is right only beside another such text, as in SQuAD 2.0 (Rajpurkar et al. 2018).

    Args:
        predictions: one answer a row.
        references: one or more right answers for each row.

    Raises:
        DataError: rows differ in number, there are none, or one has no reference.
    """
    return _best(_word_f1, predictions, references)


def _best(score: Callable[[str, str], float], predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The mean over rows of the best score that a row's references give its prediction, all normalized as SQuAD's."""
    check_rows(predictions, references)
    return fmean(
        max(score(_squad_normalized(prediction), _squad_normalized(text)) for text in right)
        for prediction, right in zip(predictions, references, strict=True)
    )


def _squad_normalized(text: str) -> str:
    # Punctuation goes first and leaves no space, so "U.S.A." is "usa" and "well-known" one word.
    return " ".join(_SQUAD_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _word_f1(prediction: str, right: str) -> float:
    words, right_words = prediction.split(), right.split()
    if not words or not right_words:
        return float(words == right_words)
    common = sum((Counter(words) & Counter(right_words)).values())
    return 2 * common / (len(words) + len(right_words))  # 2PR / (P + R), written without its fractions


def vqa_accuracy(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean accuracy of short answers by agreement with people, from 0 to 1 (Antol et al. 2015).

    An answer that three people gave is right, one that fewer gave is right by a third for each. This is averaged over
    all ways to leave one person out, so that figures of people and models can be compared. It follows that with just
    three references no answer has more than 2/3. Where a row has one or two references, an answer is right if it is
    one of them.

    Answers are compared as VQA's script has it: in lower case, without punctuation and articles, "none" and "zero" to
    "ten" as digits, contractions with their apostrophe. References are always normalized like predictions, where that
    script takes articles and number words in them as they are, and punctuation too if all of them are equal.

    Args:
        predictions: one answer a row.
        references: one or more people's answers for each row; equal ones count each.

    Raises:
        DataError: rows differ in number, there are none, or one has no reference.
    """
    check_rows(predictions, references)
    return fmean(_agreement(*row) for row in zip(predictions, references, strict=True))


def _agreement(prediction: str, references: Sequence[str]) -> float:
    answer = _vqa_normalized(prediction)
    matches = [_vqa_normalized(text) == answer for text in references]
    if len(matches) < _AGREEING:
        return float(any(matches))
    return fmean(min(1.0, (sum(matches) - left_out) / _AGREEING) for left_out in matches)


def _vqa_normalized(text: str) -> str:
    text = " ".join(text.split())
    # A mark parts words ("black/white") unless a space somewhere shows that it is used as in sentences ("yes, red");
    # beside a number such as 1,000 all marks are taken to belong to their words.
    numeric = re.search(r"\d,\d", text) is not None
    marks = {ord(mark): "" if numeric or f"{mark} " in text or f" {mark}" in text else " " for mark in _VQA_PUNCTUATION}
    text = re.sub(r"\.(?!\d)", "", text.translate(marks))  # the point in 3.5 stays
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _VQA_ARTICLES)


def recall_at(ranked: Sequence[Sequence[str]], right: Sequence[Sequence[str]], k: int) -> float:
    """Share of the right ids that are among the first ``k``, from 0 to 1: a mean over the rows that have right ids.

    Args:
        ranked: for each row the ids that a search found, the best first; there may be none.
        right: for each row the ids that it should find; rows without are left out.
        k: how many of the ids found count, at least one.

    Raises:
        DataError: ``k`` is less than one, rows differ in number, one is a string, or none has a right id.
    """
    if k < 1:
        raise DataError(f"recall is among the first {k} ids; give a k of at least 1.")
    _check_ids(ranked, right)
    return fmean(
        len(set(found[:k]) & set(wanted)) / len(set(wanted))
        for found, wanted in zip(ranked, right, strict=True)
        if wanted
    )


def citation_precision_recall(cited: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Precision and recall of citations, each from 0 to 1 and counted over all rows at once (micro averages).

    The share of the cited ids that are right, and the share of the right ids that are cited (as Gao et al. 2023 have
    them, with ids of passages in the place of a judgement). An id that a row gives twice counts once.

    Args:
        cited: for each row the ids that an answer cites; there may be none.
        right: for each row the ids that it should cite; there may be none, and each citation is then wrong.

    Returns:
        Precision and recall. Where no row cites anything, both are 0.

    Raises:
        DataError: rows differ in number, one is a string, or none has a right id.
    """
    _check_ids(cited, right)
    rows = [(set(given), set(wanted)) for given, wanted in zip(cited, right, strict=True)]
    agreeing = sum(len(given & wanted) for given, wanted in rows)
    all_cited = sum(len(given) for given, _ in rows)
    all_right = sum(len(wanted) for _, wanted in rows)
    return (agreeing / all_cited if all_cited else 0.0), agreeing / all_right


def top_citation(cited: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> float:
    """Share of all rows whose first cited id is right, from 0 to 1.

    Args:
        cited: for each row the ids that an answer cites, the foremost first. A row that cites none is not right.
        right: for each row the ids that it should cite. A row without is not right, whatever it cites.

    Raises:
        DataError: rows differ in number, one is a string, or none has a right id.
    """
    _check_ids(cited, right)
    return fmean(bool(given) and given[0] in wanted for given, wanted in zip(cited, right, strict=True))


def _check_ids(given: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> None:
    if len(given) != len(right):
        raise DataError(f"there are {len(given)} rows of ids for {len(right)} rows of right ids.")
    for row, ids in enumerate(zip(given, right, strict=True)):
        if any(isinstance(side, str) for side in ids):
            raise DataError(f"the ids of row {row} are one string; give a list of strings.")
    if not any(right):
        raise DataError("there is nothing to score: give at least one row that has a right id.")
