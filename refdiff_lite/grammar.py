"""The short rule for English noun phrases behind :func:`refdiff_lite.expression.parse`: no parser, no network.

Word lists and endings sort the words into kinds. The head is the last of the first nouns that stand together, outside
any modifier: "the small cat | on the left", "man | blue shirt", "on the table, | a red cup". Where no noun stands
there, an adjective is taken: "left one", "orange | in front".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from re import Match

import regex as re  # knows letters and their marks in every script

CUES = {
    **dict.fromkeys(("left", "leftmost", "lefthand"), "left"),
    **dict.fromkeys(("right", "rightmost", "righthand"), "right"),
    **dict.fromkeys(("top", "topmost", "upper", "uppermost"), "top"),
    **dict.fromkeys(("bottom", "bottommost", "lower", "lowermost"), "bottom"),
}
"""Direction words of the four cues of the paper."""
_COLOURS = (
    "red orange yellow green blue purple pink brown black white grey gray tan gold silver beige maroon teal navy "
    "turquoise violet blond blonde dark"
).split()
NUMBERS = {
    word: n
    for n, words in enumerate(
        "first/1st second/2nd third/3rd fourth/4th fifth/5th sixth/6th seventh/7th eighth/8th ninth/9th tenth/10th".split(),
        1,
    )
    for word in words.split("/")
}
"""Ordinal words of places in a row."""
_LISTS = {
    "adjective": (
        "one ones other two three four five six last small large big little tall short long tiny huge old young new "
        "bright bigger smaller larger taller shorter older younger darker lighter closer nearer further farther thin fat "
        "skinny wide giant high round square flat empty full wet bald cute nice plain main single double same different "
        "whole wooden plastic metal leather ceramic denim wicker"
    ),
    "place": "front back middle center centre side corner row edge end half part section number background foreground",
    "label": (
        "picture photo photograph image pic shot closeup target object query answer prompt caption phrase expression "
        "q question kind type couple lot lots rest"
    ),
    "person": "man woman guy girl boy lady kid child person dude gentleman",
    "determiner": "a an the this these those his her its my your our their both all some any each every another no",
    "join": "and or n plus",
    "preposition": (
        "on in at to of with w without by near next behind beside besides under over above below between from frm for "
        "against along around inside outside beneath underneath across through toward towards into onto upon about "
        "after before like as than past among amid infront"
    ),
    "clause": (
        "that which who whose whom where what when while is are was were be been am has have had does did do but not "
        "i you he she it we they me us him them there here says sits stands holds wears looks lies rides eats "
        "shows showing would could should will"
    ),
    "adverb": (
        "far close up down out away off only alone asleep awake open closed upside sideways most very just also too "
        "fully cut bent held worn shown seen laid lit stuck hung hidden broken eaten sat stood fallen torn being lying "
        "using going tied"
    ),
    "noun": (  # although they end like participles, adverbs, superlatives or adjectives
        "building painting ceiling clothing railing awning evening wedding earring string spring swing sling thing "
        "something pudding dressing icing frosting topping stuffing duckling bobsled moped tweed family butterfly "
        "dragonfly belly jelly dolly assembly supply forest priest harvest headrest armrest teddy puppy kitty bunny "
        "donkey monkey turkey jersey candy body"
    ),
}
_KINDS = {word: kind for kind, words in _LISTS.items() for word in words.split()}
_KINDS |= dict.fromkeys([*_COLOURS, *NUMBERS], "adjective")
_ENDINGS = (
    ("adjective", re.compile(r"\d+(?:st|nd|rd|th)|.{3,}est")),
    ("adverb", re.compile(r"\d+|.{3,}ing|(?!(?:colou?r|shap|cover|frost|fill|glaz)ed).{2,}[^e]ed|.{3,}ly|.{2,}most")),
    ("clause", re.compile(r".*n['’]t")),
)
_ASKING = re.compile(
    r"\W*(?:(?:please|(?:can|could|would|will) (?:you|i|we)|i (?:would )?(?:want|need|see|like|mean)|find|show|give|get|see|point"
    r"|click|look|looking for|tell|search|select|segment|choose|pick|highlight|locate|identify|detect)"
    r"(?: (?:me|us|to|at|on|out|for))*\b\W*)+",
    re.IGNORECASE,
)
_BREAK = re.compile(r"[,;!?(&]|:(?!:*\s*\d)|\.\s|\s[-–—]+\s")
IMAGE = "picture photo photograph image pic shot screen frame page".split()
_BODY = "hand hands arm leg foot eye ear head hair face paw wing shoulder knee".split()
_OWNERS = ("'s", "’s", "his", "her", "its", "their")
_HEADING = (
    "facing looking turning turned pointing pointed heading headed going moving leaning gazing staring walking running "
    "driving flying swinging tilted tilting looks faces points turns turn face look point"
).split()
_CLOTHES = [*_COLOURS, *"tank crop halter tube bikini table counter roof".split()]
_BY_RIGHT = (
    "next beside besides behind above below under underneath by near against before after between across inside "
    "outside here there where up"
).split()
_WORD = re.compile(r"['’]s\b|[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:(?!['’]s\b)['’-][\p{L}\p{M}\p{N}]+)*", re.IGNORECASE)


def find_words(text: str) -> list[Match[str]]:
    """The words of a text, each with its place; letters and their marks of every script. A possessive 's is a word."""
    return list(_WORD.finditer(text))


def directions(word: str) -> list[str]:
    """The cues that a lower-case word names: "bottom-left" bottom and left, "left-most" left, "right-handed" none."""
    parts = word.split("-")
    known = all(p in CUES or p in ("most", "far", "hand", "side", "corner", "center", "middle") for p in parts)
    return [CUES[p] for p in parts if p in CUES] if known else []


def _kind(words: list[str], i: int) -> str:
    """What the i-th word does in a noun phrase: a key of ``_LISTS``, "direction" or "possessive"."""
    word, following = words[i], words[i + 1] if i + 1 < len(words) else ""
    if word in ("'s", "’s"):
        return "possessive"
    if directions(word):
        return "direction"
    if word == "hand" and following in ("side", "corner"):
        return "place"
    if word == "light" and (following in _COLOURS or following.endswith("ed")):
        return "adjective"
    last = word if word in _KINDS else word.rsplit("-")[-1]  # "half-eaten"
    if last in _KINDS:
        return _KINDS[last]
    if len(last) > 3 and last.endswith("y") and _KINDS.get(following) == "adjective":
        return "adverb"  # "fluffy brown dog"
    return next((kind for kind, ending in _ENDINGS if ending.fullmatch(last)), "noun")


@dataclass
class _Phrase:
    """Numbers of its words by kind. ``leads``: it stands outside any modifier."""

    leads: bool = True
    nouns: list[int] = field(default_factory=list)
    adjectives: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    doubt: str = ""


def _phrases(words: list[str], marks: list[str]) -> list[_Phrase]:
    """Noun phrases in order. ``marks``: the comma, colon or the like before each word, and behind the last."""
    found = [_Phrase()]
    kinds = [_kind(words, i) for i in range(len(words))]
    for i, kind in enumerate(kinds):
        now = found[-1]
        adjective = bool(now.adjectives) and words[now.adjectives[-1]] not in ("one", "ones")
        if marks[i] and not (now.leads and adjective and not now.nouns):  # but "big, brown dog" is one phrase
            found.append(now := _Phrase())
        content = bool(now.nouns or now.adjectives)
        following = words[i + 1] if i + 1 < len(words) else ""
        owned = following and kinds[i + 1] not in ("clause", "determiner", "preposition", "join")
        if kind == "label":
            behind = next((j for j in range(i + 1, len(words)) if not words[j].isdecimal()), len(words))
            is_label = not now.nouns and (following in ("of", "shows", "showing") or marks[behind].startswith(":"))
            kind = "adverb" if is_label else "noun"  # "a photo of a dog", "image 1: the dog"
        if kind == "possessive" and kinds[i - 1] != "clause" and owned and not following.endswith("ing"):
            found[-1] = _Phrase(now.leads)  # "the man's hat", but not "where's the hat" or "the man's sitting"
        elif words[i] == "of" and now.leads and not now.nouns and kinds[i - 1] != "direction":
            now.nouns = now.places  # "left side of the table"
            now.adjectives = []  # "one of the dogs", "a photo of a dog"; but not "left of the dog"
            found.append(_Phrase(not now.places))
        elif words[i] in ("from", "frm") and now.adjectives and not now.nouns:
            pass  # "second from left", perhaps with a noun to come
        elif kind == "preposition":
            found.append(_Phrase(False))
        elif kind in ("clause", "possessive") or (kind == "determiner" and content) or (kind == "join" and now.nouns):
            found.append(_Phrase(words[i] == "there" or (now.leads and not content)))
        elif kind in ("noun", "person"):
            if now.nouns and kinds[now.nouns[-1]] == "person" and kind == "noun" and words[i] not in _BODY:
                now.doubt = f"the noun {words[i]!r} follows it"  # "man hat"
                found.append(_Phrase(False))
            found[-1].nouns.append(i)
        elif kind in ("adjective", "adverb", "place", "direction"):
            if now.nouns:  # "man blue shirt", "car parked"
                found.append(_Phrase(False))
            if kind in ("adjective", "place"):
                getattr(found[-1], kind + "s").append(i)
    return found


def _marks(text: str, words: list[Match[str]]) -> list[str]:
    """The comma, colon or the like between each word and the one before it, "" if there is none."""
    gaps = (text[a.end() : b.start() + 1] for a, b in pairwise(words))
    return ["", *(m.group() if (m := _BREAK.search(gap)) else "" for gap in gaps)]


def find_head(text: str) -> tuple[Match[str], str]:
    """The head word of a text with at least one word, and why it may be wrong ("" where the rule is sure)."""
    asking = _ASKING.match(text)
    every, start = find_words(text), asking.end() if asking else 0
    matches = [m for m in every if m.start() >= start] or every
    words = [m.group().lower() for m in matches]
    phrases = _phrases(words, [*_marks(text, matches), ""])
    for phrase in phrases:
        if phrase.leads and phrase.nouns:
            return matches[phrase.nouns[-1]], phrase.doubt
        if phrase.leads and phrase.adjectives:
            best = max(phrase.adjectives, key=lambda i: (words[i] in ("one", "ones"), words[i] in _COLOURS, i))
            return matches[best], "it names no thing by itself"
    for phrase in phrases:
        if phrase.nouns:
            return matches[phrase.nouns[-1]], "it stands in a modifier"
    named = [i for phrase in phrases for i in phrase.adjectives + phrase.places]
    rest = [i for i in range(len(words)) if _kind(words, i) in ("adverb", "label")] or [len(words) - 1]
    return matches[named[0] if named else rest[-1]], "the text names no thing"


def _is_cue(words: list[str], start: int, end: int, head: str) -> bool:
    """Whether the directions ``words[start:end]`` place the object in the image, not against another thing."""
    before = words[start - 1] if start else ""
    to = ("the", "to", "far", "toward", "towards")
    origin = next((w for w in words[:start][::-1] if w not in to), "")
    denied = next((w for w in words[:start][::-1] if w not in (*to, "on", "at", "in", "one")), "")
    after, then = [*(w for w in words[end:] if w not in ("the", "a", "this")), "", ""][:2]
    behind = [w for w in words[end:] if w not in ("the", "a", "this")]
    if behind[:2] == ["side", "of"] and head != "side":  # "vase on the right side of the clock"
        after, then = "of", [*behind[2:], ""][0]
    if after == "of":
        return then in IMAGE  # "left of the dog", but "left of the picture"
    if origin in ("from", "frm", *_HEADING) or before in NUMBERS or denied == "not":
        return False  # "third from left", "looking to the right", "second left", "not on the left"
    if (origin in _OWNERS or after in (*_BODY, "hat")) and after != head and then not in ("side", "corner"):
        return False  # "on the man's left", "with left arm up", "man in top hat"
    if before == "to" and origin in CUES:
        return False  # "left to right"
    if words[start:end] == ["right"] and before not in ("the", "on", "at", "in", "to", "far"):
        return after not in _BY_RIGHT and (after != "in" or then not in ("front", "middle", "center"))
    if words[start:end] == ["top"] and before in ("a", *_CLOTHES):
        return after not in ("", ",") and _KINDS.get(after, "noun") in ("noun", "person", "adjective")  # "in pink top"
    return True


def find_cues(text: str, head: str) -> tuple[str, ...]:
    """The directions of a text, each once, in order of mention."""
    matches = find_words(text)
    pairs = zip(_marks(text, matches), matches, strict=True)
    words = [w for mark, match in pairs for w in ([","] if mark else []) + [match.group().lower()]]
    found, end = [], 0
    for start in range(len(words)):
        if start >= end and directions(words[start]):
            end = next((i for i in range(start, len(words)) if not directions(words[i])), len(words))
            if _is_cue(words, start, end, head.lower()):
                found += [cue for word in words[start:end] for cue in directions(word)]
    return tuple(dict.fromkeys(found))
