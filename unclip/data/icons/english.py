"""The little English that captions need: from slugs to phrases, a or an, plurals, numbers."""

import re

SPELLING = {  # what hyphens and the ASCII of slugs lost
    "t shirt": "t-shirt",
    "x ray": "x-ray",
    "e mail": "e-mail",
    "t rex": "t-rex",
    "yo yo": "yo-yo",
    "jack o lantern": "jack-o'-lantern",
    "mans shoe": "man's shoe",
    "womans clothes": "women's clothes",
    "womans": "woman's",
    "workers helmet": "worker's helmet",
    "one piece": "one-piece",
    "upside down": "upside-down",
    "star struck": "star-struck",
    "no evil": "no-evil",
    "see no-evil": "see-no-evil",
    "hear no-evil": "hear-no-evil",
    "speak no-evil": "speak-no-evil",
    "tear off": "tear-off",
    "snow capped": "snow-capped",
    "two hump": "two-hump",
    "high heeled": "high-heeled",
    "front facing": "front-facing",
    "high speed": "high-speed",
    "piata": "piñata",
    "pinata": "piñata",
    "mrs claus": "mrs. claus",
    "left facing": "left-facing",
    "rolled up": "rolled-up",
    "crossed out": "crossed-out",
    "dotted line": "dotted-line",
    "call me": "call-me",
    "love you": "love-you",
    "four leaf": "four-leaf",
}
PREPOSITION = re.compile(  # where the head noun's phrase ends; a list, because "office building" ends in a noun
    r" (?:with|without|of|in|on|over|at|behind|from|for|to|above|under|around|not|done|into|tilted|facing|getting|wearing"
    r"|playing|holding|showing|bouncing|raising|lifting|rowing|standing|pointing|taking|tipping|feeding|gesturing|blowing"
    r"|savoring|screaming|shaking|rolling|mountain biking) .*"
    r"| (?:up|down|biking|bowing|climbing|running|walking|swimming|surfing|standing|kneeling|exhaling|vomiting|shrugging"
    r"|juggling|frowning|pouting|cartwheeling|golfing|facepalming|hugging|fencing|wrestling|levitating"
    r"|horizontally|vertically|together|arrival|departure)$"
)
MASS = re.compile(  # heads that take no article: stuff, sports, abstractions
    "bacon|bread|broccoli|butter|garlic|salt|popcorn|spaghetti|honey|milk|soap|fire|fog|sake|coral|wood|yarn|thread|confetti"
    "|tennis|badminton|sushi|oden|mate|falafel|custard|fondue|toast|cheese|corn|rice|grass|polish|lightning|dna|lipstick|dust"
    "|rain|snow|ice|paper|sand|hail|feeding|pong|wind|money|food|art|music|mail|coffee|tea|meat|water|luggage|ramen"
)
PROPER = {
    "mount fuji",
    "tokyo tower",
    "santa claus",
    "father christmas",
    "mrs. claus",
    "milky way",
    "kaaba",
    "statue of liberty",
}
UNNUMBERED = {"zzz", "hundred points", "dice"}
WITH_THE = {"milky way", "kaaba", "statue of liberty", "sun"}
SINGULAR_IN_S = re.compile(r".*(ss|us|is)$|rhinoceros|lens|gas|t-rex|atlas|canvas|pancreas|molasses|alas|christmas")
PLURAL_ANYWAY = {"skis", "people", "men", "women", "children", "teeth", "geese", "mice", "dice", "feet", "busts"}
IRREGULAR = {
    "man": "men",
    "snowman": "snowmen",
    "die": "dice",
    "woman": "women",
    "person": "people",
    "child": "children",
    "mouse": "mice",
    "goose": "geese",
    "tooth": "teeth",
    "foot": "feet",
    "ox": "oxen",
    "leaf": "leaves",
    "knife": "knives",
    "wolf": "wolves",
    "loaf": "loaves",
    "scarf": "scarves",
    "elf": "elves",
    "calf": "calves",
    "shelf": "shelves",
    "tomato": "tomatoes",
    "potato": "potatoes",
    "mango": "mangoes",
    "volcano": "volcanoes",
    "tornado": "tornadoes",
    "buffalo": "buffaloes",
    "mosquito": "mosquitoes",
    "cactus": "cacti",
    "dwarf": "dwarves",
}
SAME_IN_PLURAL = re.compile("fish|sheep|deer|moose|bison|shrimp|squid|jellyfish|blowfish")
VOWEL_SOUND = re.compile(
    r"(?!uni|use|usu|euro|ewe|one\b|one-|u\b|uk)[aeiou]|hour|honest|x-|8\b|8-|f\b|l\b|m\b|n\b|s\b|r\b", re.IGNORECASE
)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def words(slug: str) -> str:
    """'red-apple' -> 'red apple', with apostrophes and hyphens where English has them."""
    text = slug.replace("-", " ")
    for plain, spelled in SPELLING.items():
        text = re.sub(rf"\b{plain}\b", spelled, text)
    return text


def head(phrase: str) -> str:
    """The noun that the phrase is about: 'bowl' of 'bowl with spoon', 'apple' of 'red apple'."""
    return PREPOSITION.sub("", phrase).split(" ")[-1]


def is_plural(phrase: str) -> bool:
    """Whether the phrase names several things ('french fries') and so takes no article."""
    noun = head(phrase)
    return noun in PLURAL_ANYWAY or (noun.endswith("s") and not SINGULAR_IN_S.fullmatch(noun))


def is_countable(phrase: str) -> bool:
    """Whether one can say 'two of it': one thing, not stuff and not a name."""
    if phrase in PROPER or phrase in UNNUMBERED or is_plural(phrase):
        return False
    return not MASS.fullmatch(head(phrase))


def with_article(phrase: str) -> str:
    """'a red apple', 'an avocado', 'french fries', 'the statue of liberty'."""
    if phrase in WITH_THE:
        return f"the {phrase}"
    return f"{article(phrase)} {phrase}" if is_countable(phrase) else phrase


def article(phrase: str) -> str:
    """a or an, by how the phrase begins to sound."""
    return "an" if VOWEL_SOUND.match(phrase) else "a"


def plural(phrase: str) -> str:
    """'slices of pizza', 'wolves', 'red apples'."""
    tail = PREPOSITION.search(phrase)
    body = phrase[: tail.start()] if tail else phrase
    before, _, noun = body.rpartition(" ")
    return f"{before} {_plural_noun(noun)}".strip() + (tail.group() if tail else "")


def _plural_noun(noun: str) -> str:
    if SAME_IN_PLURAL.fullmatch(noun):
        return noun
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in ("", *"aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def singulars(noun: str) -> list[str]:
    """The nouns of which this may be the plural: 'kitty' of 'kitties'; none for what is no plural."""
    irregular = [one for one, many in IRREGULAR.items() if many == noun]
    cut = [noun[: -len(ending)] + rest for ending, rest in (("ies", "y"), ("es", ""), ("s", "")) if noun.endswith(ending)]
    return [one for one in [*irregular, *cut] if one and _plural_noun(one) == noun]


def slips(word: str) -> set[str]:
    """What one letter more, less, another, or two exchanged make of a word, its first letter kept."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    cuts = [(word[:at], word[at:]) for at in range(1, len(word) + 1)]
    less = {left + right[1:] for left, right in cuts if right}
    exchanged = {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
    return (
        less
        | exchanged
        | {left + letter + rest for left, right in cuts for letter in letters for rest in (right, right[1:])}
    )
