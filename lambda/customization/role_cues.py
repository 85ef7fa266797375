"""Role cues in prompts: older data sets write `User: …` and `Bot:` around what a person asks.

Base models that take messages get the roles from the structure: cues in the texts repeat them there, and some models
reserve such words. What is recognized is a pair of words that name the two sides; labels of a task, such as
`Sentiment:` at the end of a prompt, are part of the question and stay.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from customization.formats import ASSISTANT, USER, Example, Record, Turn
from customization.problems import Problems, excerpt
from customization.texts import Sentence

SAMPLE_RECORDS = 200
EXAMPLES = "User: … Bot:, お客様: … エージェント:"
SHARED = 0.9  # this share of the sampled prompts makes cues a habit of the file

# These name a side wherever they stand; the words of _PAIRS stand in texts for other things too and count in pairs.
_USERS_ALONE = ("user", "human", "ユーザー", "ユーザ", "用户", "사용자")
_ASSISTANTS_ALONE = ("bot", "chatbot", "assistant", "アシスタント", "ボット", "チャットボット", "助手", "机器人")
_USERS = (
    *(*_USERS_ALONE, "customer", "client", "caller", "visitor", "お客様", "お客さま", "顧客", "カスタマー"),
    *("利用者", "質問者", "相談者", "客户", "고객"),
)
_ASSISTANTS = (
    *(*_ASSISTANTS_ALONE, "agent", "ai", "operator", "support", "エージェント", "オペレーター", "オペレータ"),
    *("担当者", "サポート", "スタッフ", "店員", "回答者", "客服", "상담원", "챗봇", "어시스턴트"),
)
_PAIRS = (
    (_USERS, _ASSISTANTS),
    (("question", "q", "質問", "問い", "問", "问题", "问", "질문"), ("answer", "a", "回答", "答え", "答", "답변")),
    (("instruction", "指示"), ("response", "応答", "返答")),
    (("input", "入力"), ("output", "出力")),
)
_KINDS_OF_USER = {word: kind for kind, (users, _) in enumerate(_PAIRS) for word in users}
_KINDS_OF_ASSISTANT = {word: kind for kind, (_, assistants) in enumerate(_PAIRS) for word in assistants}

_COLON = "[ \t]*[:\uff1a]"  # the full-width colon as well
_BLANK = "[ \t\r\n\u3000]*"
_GAP = "[ \t\u3000]*(?:\r?\n)*"  # what follows a cue: line breaks, but not the indentation of the line after


def _either(words: Iterable[str]) -> str:
    return f"(?P<word>{'|'.join(sorted(map(re.escape, words), key=len, reverse=True))})"


# ASCII: only the cases of a to z are alike, so that what matches is found in the tables above
_FLAGS = re.IGNORECASE | re.ASCII
_START = re.compile(f"{_BLANK}{_either(_KINDS_OF_USER)}{_COLON}{_GAP}", _FLAGS)
_END = re.compile(f"[ \t\u3000]*{_either(_KINDS_OF_ASSISTANT)}{_COLON}", _FLAGS)
_ANSWER = re.compile(f"{_BLANK}{_either(_KINDS_OF_ASSISTANT)}{_COLON}{_GAP}", _FLAGS)
_SYSTEM = re.compile(
    f"{_BLANK}(?:system|システム){_COLON}{_GAP}(?P<text>.*?)\n(?=[ \t]*{_either(_KINDS_OF_USER)}{_COLON})",
    _FLAGS | re.DOTALL,
)


class _Cues(NamedTuple):
    """What the cues around one prompt say; a word is empty where that side has none.

    `ends`: the prompt itself ends with the assistant's cue, and not the answer begins with it.
    """

    system: str
    user: str
    assistant: str
    ends: bool
    text: str


def strip_role_cues(record: Record) -> Record:
    """Return the record as `without_role_cues` does; raw text has no roles and stays as it is."""
    return without_role_cues(record) if isinstance(record, Example) else record


def without_role_cues(record: Example) -> Example:
    """Return the record without the role cues of its turns; the very same record where there are none.

    The only prompt of a record that holds earlier turns behind the same two cues becomes those turns, and what stands
    behind a leading `System:` becomes part of the system prompt.
    """
    system, turns, cues, changed = record.system, list[Turn](), None, False
    for index, turn in enumerate(record.turns):
        if turn.role == USER:
            answer = record.turns[index + 1].text if index + 1 < len(record.turns) else ""
            cues = _read_cues(turn.text, answer)
        if cues is None:
            turns.append(turn)
        elif turn.role == USER:
            changed = True
            system = "\n\n".join(part for part in (system, cues.system) if part)
            turns += _turns_in(cues) if index == 0 and len(record.turns) == 2 else [Turn(USER, cues.text)]  # noqa: PLR2004 - a prompt and its completion
        else:
            turns.append(Turn(turn.role, _without_cue(turn.text, cues)))
    return msgspec.structs.replace(record, turns=tuple(turns), system=system) if changed else record


class RoleCues:
    """The role cues of one file: taken off its records where that is asked for, else looked for in the first 200."""

    def __init__(self, *, strip: bool) -> None:
        self._strip = strip
        self._found = Counter[str]()
        self._records = 0
        self._seen = 0

    @property
    def are_stripped(self) -> bool:
        """Tell whether records are used without their cues."""
        return self._strip

    @property
    def are_wanted(self) -> bool:
        """Tell whether the next record is to be looked at: where nothing is stripped, only those of the sample are."""
        return self._strip or self._seen < SAMPLE_RECORDS

    def take(self, record: Record) -> Record:
        """Return the next record of the file as the run uses it."""
        if not self.are_wanted:
            return record
        self._seen += 1
        if isinstance(record, Example):
            self._records += 1
            self._found.update(_cues_in(record))
        return strip_role_cues(record) if self._strip else record

    def report(self, file: str, model: str, problems: Problems, *, repeated: bool) -> None:
        """Add what was taken off, or the offer to do so where cues are a habit; `repeated`: the model has the roles."""
        count, shown = self._found.total(), excerpt(self._found.most_common(1)[0][0])[1:-1] if self._found else ""
        if self._strip and count:
            found = Sentence("found.cues", {"count": f"{count:,}", "total": f"{self._records:,}", "cues": shown})
            problems.add("role_cues_removed", file, found=found)
        elif self._strip and self._records:
            problems.add("no_role_cues", file, cues=EXAMPLES)
        elif repeated and count and count >= SHARED * self._records:
            problems.add("role_cues", file, found=shown, model=model)


def _cues_in(example: Example) -> list[str]:
    """Return the cues of the first prompt, such as `User: … Bot:`, in a list of one, or an empty list."""
    first = [turn.text for turn in example.turns[:2]]
    cues = _read_cues(first[0], first[-1]) if len(first) > 1 else None
    return [" … ".join(f"{word}:" for word in (cues.user, cues.assistant) if word)] if cues else []


def _read_cues(prompt: str, answer: str) -> _Cues | None:
    """Return the cues around a prompt, of which those of its answer are the second half, None where there are none."""
    system = _SYSTEM.match(prompt)
    body = prompt[system.end() :] if system else prompt
    start = _START.match(body)
    last_line = body.rstrip().rpartition("\n")[2]
    end = _END.fullmatch(last_line)
    before_answer = end or _ANSWER.match(answer)
    if not _are_cues(start, before_answer, ends=end is not None):
        return None
    stop = len(body.rstrip()) - len(last_line) if end else len(body)
    text = body[start.end() if start else 0 : stop]
    words = (start["word"] if start else "", before_answer["word"] if before_answer else "")
    return _Cues(system["text"].strip() if system else "", *words, end is not None, text.rstrip() if end else text)


def _are_cues(start: "re.Match[str] | None", before_answer: "re.Match[str] | None", *, ends: bool) -> bool:
    """Tell whether the words found name the two sides: a pair, or a word that means nothing else."""
    user = start["word"].lower() if start else ""
    assistant = before_answer["word"].lower() if before_answer else ""
    if user in _USERS_ALONE or (assistant in _ASSISTANTS_ALONE and (ends or user)):
        return True
    return bool(user and assistant) and _KINDS_OF_USER[user] == _KINDS_OF_ASSISTANT[assistant]


def _turns_in(cues: _Cues) -> list[Turn]:
    """Return the turns that a prompt holds behind its two cues; one turn where they do not alternate."""
    whole = [Turn(USER, cues.text)]
    if not (cues.user and cues.assistant):
        return whole
    inner = re.compile(
        f"\n[ \t\u3000]*(?:(?P<user>{re.escape(cues.user)})|{re.escape(cues.assistant)}){_COLON}[ \t\u3000]*"
    )
    turns, place = list[Turn](), 0
    for cue in inner.finditer(cues.text):
        role = USER if len(turns) % 2 == 0 else ASSISTANT
        if (role == USER) == (cue["user"] is not None):
            return whole
        turns.append(Turn(role, cues.text[place : cue.start()].strip()))
        place = cue.end()
    return [*turns, Turn(USER, cues.text[place:].strip())] if turns and len(turns) % 2 == 0 else whole


def _without_cue(answer: str, cues: _Cues) -> str:
    """Return the answer without its cue; behind a prompt that ends with one, without the blank after the colon."""
    found = _ANSWER.match(answer)
    if found and found["word"].lower() == cues.assistant.lower():
        return answer[found.end() :]
    return answer.lstrip(" \t\u3000") if cues.ends else answer
