"""What people call the things beside the names that captions say: the thesaurus that makes a model's `words.json`.

A word is taken for a thing when somebody who keeps words says so, and when it hardly means anything else:

    synonym   shares the thing's sense in WordNet: automobile, car
    kind      is below that sense, or its gloss says young, male or female: beagle, kitten
    keyword   emojilib gives it to the thing, and WordNet has the two near each other: piano, musical keyboard
    feeling   an adjective before "face": of the face's own sense, or emojilib's: furious, puzzled
    color     is a shade of a colour, in WordNet: crimson, red

A noun must mean that first: of the senses of which there are pictures its first has to lead to the thing, and no other is
met more often in any part of speech; where none was ever met, none may lead to another thing. Words that WordNet calls
offensive, vulgar or obscene in any sense are left out, as are Latin names, and whatever captions say already. Which sense of
a name is the thing's is decided by its category and by how many of emojilib's keywords WordNet has around it (Lesk, 1986).
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from unclip.data.icons.canvas import BACKGROUNDS, COLORS
from unclip.data.icons.english import head, plural, slips
from unclip.data.icons.selection import Drawing
from unclip.data.icons.wordnet import ADJECTIVE, NOUN, VERB, WordNet

ANIMAL, ARTIFACT, BODY, COMMUNICATION, FEELING, FOOD, LOCATION, NATURE, PERSON, PHENOMENON, PLANT, SUBSTANCE = (
    5, 6, 8, 10, 12, 13, 15, 17, 18, 19, 20, 27,
)  # fmt: skip
PICTURED = {ANIMAL, ARTIFACT, BODY, FOOD, LOCATION, NATURE, PERSON, PHENOMENON, PLANT, SUBSTANCE}
FILES = {  # the lexicographer's files in which a category's things are, likeliest first
    "Activities": (ARTIFACT, PERSON, NATURE),
    "Animals & Nature": (ANIMAL, PLANT, NATURE, PHENOMENON),
    "Food & Drink": (FOOD, PLANT, ARTIFACT, ANIMAL),
    "Objects": (ARTIFACT, FOOD, NATURE, SUBSTANCE, COMMUNICATION),
    "People & Body": (PERSON, BODY),
    "Smileys & Emotion": (PERSON, ARTIFACT, ANIMAL),
    "Travel & Places": (ARTIFACT, NATURE, PHENOMENON, LOCATION),
}
SENSES = {  # where words around a name mislead: the sense as WordNet numbers it, from 1, or 0 for none that is shown
    "black cat": 0,
    "boy": 1,
    "brain": 1,
    "ghost": 3,
    "harp": 1,
    "link": 0,
    "purple heart": 0,
    "red heart": 0,
    "ribbon": 4,
    "shield": 2,
    "station": 0,
    "sun": 1,
    "wood": 1,
}
MISLEADING = re.compile(  # keywords that tell of a part, a place or an occasion, which WordNet has near the thing
    "cable|competition|creature|drug|electricity|emergency|environment|film|flour|gate|gps|horseshoe|lunch|movie|room|shipping|shot|ski"
    "|structure|tapioca|tower|virgin|virgo"
)
NO_FEELING = re.compile(  # adjectives among the keywords of faces that tell a shape, or are none
    "big|blue|closed|covering|cross|crossed|dread|eyed|faced|fed|fine|flipped|fluttered|foul|gross|large|like|liquid|long|mild|mock"
    "|one|open|out|outlined|poisoned|purple|red|sealed|sexual|side|sign|small|straight|stuck|throwing|uneven|wavy|white|wide"
)
DEEPEST = 4  # steps down from a thing to a kind of it
NEAR, NEAR_PERSON = 0.7, 0.6  # likeness of a keyword's sense and a thing's; of persons WordNet has flatter trees
FEW = 3  # things among which a keyword means one
TOO_GENERAL = {"person", "man", "woman", "boy", "girl", "child", "baby", "old man", "old woman", "older person", "artist"}
COARSE = re.compile(
    r"\b(offensive|vulgar\w*|obscene|disparag\w+|derog\w+|pejorative|insult\w*|contempt\w*|slur|slang|ethnic|prostitut\w+"
    r"|sexual\w*|vagina\w*|genital\w*|excrement|narcotic|marijuana)\b"
)
YOUNG = re.compile(
    r"(?:an? |the )?(?:(?:adult|mature|young|uncastrated|castrated|male|female|domestic(?:ated)?|of|an?) )+(.+)"
)
LATIN = re.compile(r"[A-Z][a-z]+ [a-z-]+( [a-z-]+)?")
WORD = re.compile(r"[a-z]+([ '-][a-z]+){0,2}")

Readings = dict[str, dict[str, list[str]]]


class Known(NamedTuple):
    """A thing as the model knows it, and its sense in WordNet, if it has one."""

    name: str
    names: tuple[str, ...]
    keywords: tuple[str, ...]
    category: str
    sense: str | None


def known_things(drawings: Iterable[Drawing], wordnet: WordNet) -> list[Known]:
    """The things that training shows, by their names, each once."""
    shown = {drawing.names[0]: drawing for drawing in drawings if drawing.kept and drawing.split == "train"}
    return [
        Known(name, one.names, one.keywords, one.category, _sense(one.names, one.keywords, one.category, wordnet))
        for name, one in sorted(shown.items())
    ]


def thesaurus(things: Sequence[Known], wordnet: WordNet, unknown: Collection[str] = ()) -> Readings:
    """By source, what each name or colour is called besides. No word stands twice: the first source has it.

    `unknown`: names of things that training held out, which no keyword turns into another. Words that names are made of
    are left alone: a model that knows "flat shoe" has met "shoe".
    """
    taken = {name for thing in things for name in thing.names}
    met = {word for name in taken for word in name.split()}
    near = _nearest(things, wordnet)
    sources: list[tuple[str, Iterable[tuple[str, str]]]] = [
        ("synonym", _below(near, wordnet, range(1))),
        ("kind", _below(near, wordnet, range(1, DEEPEST + 1))),
        ("keyword", ((word, name) for word, name in _keywords(things, wordnet) if word not in unknown)),
        ("feeling", _feelings(things, wordnet)),
        ("color", _colors(wordnet)),
    ]
    found: Readings = {}
    for source, pairs in sources:
        by_name: dict[str, list[str]] = defaultdict(list)
        for word, name in pairs:
            if word not in taken and not met.issuperset(word.split()):
                taken.add(word)
                by_name[name].append(word)
        found[source] = {name: sorted(words) for name, words in sorted(by_name.items())}
    return found


def words_alike(vocabulary: set[str], wordnet: WordNet, shortest: int) -> list[str]:
    """English words of so many letters that a slip of the finger would make of one in `vocabulary`, and that are none."""
    near = {slip for word in vocabulary for slip in slips(word) if len(slip) >= shortest}
    return sorted(near.intersection(_forms(wordnet)) - vocabulary)


def _sense(names: tuple[str, ...], keywords: tuple[str, ...], category: str, wordnet: WordNet) -> str | None:
    """The noun sense of the first name that has one of the category's, the one with most keywords around it."""
    if names[0] in SENSES:
        number = SENSES[names[0]]
        word = next((name for name in names if name in wordnet.senses[NOUN]), None)
        return wordnet.senses[NOUN][word][number - 1] if word and number else None
    around = {word for keyword in keywords for word in _plain_words(keyword)}
    for name in names:
        senses = [s for s in _senses(name, wordnet) if wordnet.nouns[s].file in FILES.get(category, ())]
        if senses:
            told = around - set(name.split())
            best = max(senses, key=lambda sense: (len(told & _bag(sense, wordnet)), -senses.index(sense)))
            if name == names[0] or told & _bag(best, wordnet):
                return best
    return None


def _senses(name: str, wordnet: WordNet) -> tuple[str, ...]:
    senses = wordnet.senses[NOUN]
    return senses.get(name, senses.get(name.replace("-", " "), ()))


def _bag(sense: str, wordnet: WordNet) -> set[str]:
    """The words of a sense, of those above and below it, and of its gloss."""
    own = wordnet.nouns[sense]
    around = [wordnet.nouns[other] for other in (*own.above, *wordnet.below[sense])]
    return _plain_words(own.gloss).union(*(_plain_words(word) for synset in (own, *around) for word in synset.words))


def _plain_words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", text.lower()))


def _nearest(things: Sequence[Known], wordnet: WordNet) -> dict[str, tuple[str, int]]:
    """Every sense at or below a thing's: the name of the nearest such thing, and how many steps it is above."""
    by_sense: dict[str, str] = {}
    for thing in sorted(things, key=lambda one: (len(one.name.split()), len(one.name))):
        if thing.sense is not None:
            by_sense.setdefault(thing.sense, thing.name)
    near = {sense: (name, 0) for sense, name in by_sense.items()}
    edge = list(by_sense)
    while edge:
        edge = [lower for sense in edge for lower in wordnet.below[sense] if _reach(lower, sense, near)]
    by_name = {word: name for thing in things if thing.sense for word in thing.names for name in [thing.name]}
    for sense, synset in wordnet.nouns.items():
        gloss = YOUNG.fullmatch(re.split("[;:(,]", synset.gloss)[0].strip())
        if gloss and synset.file == ANIMAL and sense not in near and gloss[1] in by_name:
            near[sense] = by_name[gloss[1]], 1
    return near


def _reach(lower: str, sense: str, near: dict[str, tuple[str, int]]) -> bool:
    """Notes that `lower` is reached from `sense`, unless it was before."""
    name, steps = near[sense]
    if lower in near or (name in TOO_GENERAL and steps == 0):
        return False
    near[lower] = name, steps + 1
    return True


def _below(near: dict[str, tuple[str, int]], wordnet: WordNet, steps: range) -> Iterator[tuple[str, str]]:
    """Words and the things that they mean, so many steps below them."""
    found = {
        word.lower(): (name, word)
        for sense, (name, distance) in near.items()
        if distance in steps
        for word in wordnet.nouns[sense].words
        if _means(word, sense, near, wordnet) and (distance <= 1 or re.fullmatch("[A-Za-z]+", word))
    }
    for word, (name, _) in found.items():
        # The last words say it already: "tiger cat" is read as far as "cat" is.
        tails = [" ".join(word.split()[start:]) for start in range(1, word.count(" ") + 1)]
        if not any(tail == name or found.get(tail, ("",))[0] == name for tail in tails):
            yield word, name


def _means(word: str, sense: str, near: dict[str, tuple[str, int]], wordnet: WordNet) -> bool:
    """Whether people who say the word mean that sense, or another of the same thing."""
    plain = word.lower()
    if not WORD.fullmatch(plain) or LATIN.fullmatch(word) or _is_coarse(plain, wordnet):
        return False
    pictured = _pictured(plain, wordnet)
    if not pictured or near.get(pictured[0], ("",))[0] != near[sense][0]:
        return False
    met = wordnet.met[NOUN].get(plain, {})
    same = max(met.get(one, 0) for one in pictured if near.get(one, ("",))[0] == near[sense][0])
    others = [count for one, count in met.items() if near.get(one, ("",))[0] != near[sense][0]]
    others += [wordnet.often(part, plain) for part in (VERB, ADJECTIVE)]
    rivals = {near[one][0] for one in pictured if one in near} - {near[sense][0]}
    return same >= max(others, default=0) and (same > 0 or not (rivals or plain in wordnet.senses[ADJECTIVE]))


def _pictured(word: str, wordnet: WordNet) -> list[str]:
    """The noun's senses of which there are pictures; an oak is no wood here, but the tree."""
    nouns = ((sense, wordnet.nouns[sense]) for sense in wordnet.senses[NOUN].get(word, ()))
    return [sense for sense, synset in nouns if synset.file in PICTURED and " wood of " not in f" {synset.gloss}"]


def _is_coarse(phrase: str, wordnet: WordNet) -> bool:
    """Whether WordNet warns of the phrase or of a word in it."""
    senses = (sense for word in {phrase, *phrase.split()} for sense in wordnet.senses[NOUN].get(word, ()))
    return any(COARSE.search(wordnet.nouns[sense].gloss) for sense in senses)


def _keywords(things: Sequence[Known], wordnet: WordNet) -> Iterator[tuple[str, str]]:
    """emojilib's keywords, nouns, for the thing that WordNet has nearest: persons, and what few things have."""
    having: dict[str, list[Known]] = defaultdict(list)
    for thing in things:
        for keyword in thing.keywords:
            having[keyword].append(thing)
    for keyword, those in sorted(having.items()):
        senses = _pictured(keyword, wordnet)
        if (
            not senses
            or MISLEADING.fullmatch(keyword)
            or _is_coarse(keyword, wordnet)
            or not _is_noun(keyword, senses[0], wordnet)
        ):
            continue
        person = wordnet.nouns[senses[0]].file == PERSON
        likeness = {thing.name: _likeness(thing, senses[0], wordnet) for thing in those}
        near = sorted((-like, name) for name, like in likeness.items() if like >= (NEAR_PERSON if person else NEAR))
        if near and (person or len(those) <= FEW) and near[0][0] < [*near, (0.0, "")][1][0]:
            yield keyword, near[0][1]


def _is_noun(word: str, sense: str, wordnet: WordNet) -> bool:
    met = wordnet.met[NOUN].get(word, {}).get(sense, 0)
    return met >= max(wordnet.often(part, word) for part in (VERB, ADJECTIVE)) and (
        met > 0 or word not in wordnet.senses[ADJECTIVE]
    )


def _likeness(thing: Known, sense: str, wordnet: WordNet) -> float:
    """Of a sense and the thing's, or that of the noun that its name is about."""
    own = thing.sense
    if own is None:
        files = FILES.get(thing.category, ())
        own = next((s for s in wordnet.senses[NOUN].get(head(thing.name), ()) if wordnet.nouns[s].file in files), None)
    if own is None or wordnet.nouns[own].file != wordnet.nouns[sense].file:
        return 0.0
    return wordnet.likeness(own, sense)


def _feelings(things: Sequence[Known], wordnet: WordNet) -> Iterator[tuple[str, str]]:
    """Adjectives with "face": WordNet's for the feeling that a face is named after, else emojilib's for it.

    A feeling that several faces have goes to the one most like the others, by their keywords, of those with short names.
    """
    faces = [thing for thing in things if thing.category == "Smileys & Emotion" and thing.name.endswith(" face")]
    for face in faces:
        own = face.name.removesuffix(" face")
        for sense in wordnet.senses[ADJECTIVE].get(own, ()):
            synset = wordnet.adjectives[sense]
            felt = any(wordnet.nouns[noun].file == FEELING for noun in synset.kin)
            told = set(face.keywords) & {word for word in synset.words if word != own}
            if (felt or told) and not synset.gloss.startswith("causing"):
                yield from ((f"{word} face", face.name) for word in synset.words if word.isalpha())
    for keyword in sorted({keyword for face in faces for keyword in face.keywords}):
        group = [face for face in faces if keyword in face.keywords]
        feeling = keyword in wordnet.senses[ADJECTIVE] or keyword.endswith(("ing", "ed"))
        if feeling and keyword.isalpha() and not NO_FEELING.fullmatch(keyword):
            short = [face for face in group if len(face.name.split()) == min(len(one.name.split()) for one in group)]
            yield f"{keyword} face", max(short, key=lambda face: (_overlap(face, group), face.name)).name


def _overlap(face: Known, group: Sequence[Known]) -> float:
    """How many of its keywords a face shares with the others of a group: the mean share of what either has."""
    own = set(face.keywords)
    shares = [len(own & set(other.keywords)) / len(own | set(other.keywords)) for other in group]
    return sum(shares) / len(shares)


def _colors(wordnet: WordNet) -> Iterator[tuple[str, str]]:
    """The shades below each colour that captions name, and the adjectives of its own sense."""
    nouns, adjectives = wordnet.senses[NOUN], wordnet.senses[ADJECTIVE]
    every = {sense for word in ("chromatic color", "achromatic color") for sense in nouns.get(word, ())[:1]}
    for color in COLORS:
        shades = [one for one in nouns.get(color, ()) if every & wordnet.ancestors(one).keys()]
        shades += [below for shade in shades for below in wordnet.below[shade]]
        called = ((word, shade) for shade in shades for word in wordnet.nouns[shade].words)
        words = {word for word, shade in called if nouns[word.lower()][0] == shade}
        words |= {word for sense in adjectives.get(color, ())[:1] for word in wordnet.adjectives[sense].words}
        yield from ((word, color) for word in sorted(words - BACKGROUNDS.keys()) if WORD.fullmatch(word))


def _forms(wordnet: WordNet) -> Iterator[str]:
    """Words of one piece as they stand in texts: nouns in both numbers, verbs and adjectives with their endings."""
    for part, endings in ((NOUN, ()), (VERB, ("ed", "er", "ing")), (ADJECTIVE, ("er", "est"))):
        for word in filter(str.isalpha, wordnet.senses[part]):
            stem = word[:-1] if word.endswith("e") else word[:-1] + "i" if word.endswith("y") else word
            doubled = [word + word[-1]] if re.fullmatch(".*[^aeiou][aeiou][bdglmnprt]", word) else []
            yield from (word, f"{word}ly" if part == ADJECTIVE else plural(word), *([f"{word}ing"] if part == VERB else []))
            yield from (begin + ending for begin in (stem, *doubled) for ending in endings)
