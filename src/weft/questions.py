"""Questions about a picture, made from its captions by rules, as COCO-QA was (Ren et al. 2015, arXiv:1505.02074).

:func:`questions` is given the captions of one picture and hands on every question that they answer. A caption is read
as nouns, as what those do (:meth:`Caption.deeds`), and as links between a noun and what governs it, as "holding" does
in "holding a red ball" (:meth:`Caption.links`); what several captions agree on is an answer. The word lists are made
for Flickr8k. Which of the questions to ask, so that they can't be answered blindly, :mod:`weft.picture_questions` says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

Kind = Literal["what", "how many", "colour", "where", "yes-no"]


@dataclass(frozen=True)
class Question:
    """What is asked, and its answer: one or two words in lower case, among them ``"yes"`` and ``"no"``."""

    text: str
    answer: str
    kind: Kind


def plural(word: str) -> str:
    """``"people"`` for ``"person"``; of a verb, its form with an s."""
    irregular = {"child": "children", "person": "people", "sheep": "sheep", "fish": "fish"}
    if word.endswith("man"):
        return word[:-3] + "men"
    if word.endswith("y") and word[-2] not in "aeou":
        return word[:-1] + "ies"
    return irregular.get(word, word + ("es" if word.endswith(("ch", "sh", "s", "x")) else "s"))


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _sets(text: str) -> tuple[frozenset[str], ...]:
    return tuple(map(_set, text.split(",")))


def _partners(text: str) -> dict[str, frozenset[str]]:
    """``"a b, b c"`` as all that each word shares a group with, itself included."""
    sets = _sets(text)
    return {word: frozenset[str]().union(*(one for one in sets if word in one)) for one in sets for word in one}


def _groups(text: str) -> dict[str, str]:
    """``"bike bicycle, cup mug"`` as each word's group, which bears the name of its first word."""
    return {word: group.split()[0] for group in text.split(",") for word in group.split()}


# --- Words -----------------------------------------------------------------------------------------------------------

ANIMALS = _groups(
    """dog puppy pup greyhound terrier retriever labrador lab shepherd collie poodle dalmatian bulldog pitbull hound
    dachshund doberman husky rottweiler corgi chihuahua pug mutt, cat kitten, horse pony, cow calf, bull, goat, camel,
    monkey, bird seagull pigeon parrot eagle swan goose duck flamingo, rabbit bunny, squirrel, elephant, sheep lamb"""
)
PEOPLE = _groups(
    """man guy gentleman, woman lady, boy, girl, baby toddler infant, child kid, person someone somebody adult teenager,
    skier, snowboarder, surfer, skateboarder, skater, climber, cyclist bicyclist, hiker, player, biker, rider, racer,
    runner, swimmer, dancer, kayaker, wrestler, worker, performer, motorcyclist, photographer, rollerblader, wakeboarder
    """
)
CROWDS = _set("group crowd couple pair team family audience band others friends")
"""Words for people of whom one can't say how many they are."""
CLOTHES = _groups(
    """shirt, jacket, coat, hat cap beanie, helmet, bandana bandanna, headband, dress, skirt, shorts, pants trousers,
    jeans, sweater, sweatshirt hoodie, vest, suit, uniform, costume, jersey, swimsuit bikini, wetsuit, scarf, mask,
    sunglasses, goggles, backpack, boots, collar, harness, muzzle, lifejacket, tie, apron, robe, snowsuit, overalls"""
)
THINGS = _groups(
    """ball football basketball, frisbee disc disk, stick branch, toy, sign, camera, umbrella, cup mug, bottle, rope,
    flag, bag purse handbag, book, newspaper, guitar, violin, accordion, drum, bat, racket racquet, phone cellphone,
    fish, balloon, flower, box, cigarette, microphone, surfboard, snowboard, skateboard, scooter, tricycle, unicycle,
    bike bicycle, motorcycle motorbike, car, truck, bus, train, boat, kayak, canoe, raft, sled, swing, slide, wave,
    trampoline, cart, wheelchair, stroller, wagon, tire, bench, chair, couch sofa, bed, table, wall, rock boulder,
    cliff, mountain, tree, ladder, fence, hurdle, log, rail railing handrail, ramp, fountain, bridge, statue, tent,
    shovel, bucket, hose, sword, gun, popsicle, sandwich, apple, icecream, pizza, cake, watermelon, candy, bone, hair,
    kite, tunnel"""
)
PLACES = _groups(
    """water, ocean sea surf, lake, river stream creek, pool, beach shore seashore, sand, snow, grass lawn, park,
    field meadow, yard backyard, street road, sidewalk pavement, woods forest, ice, mud, track racetrack, stage,
    playground, gym, kitchen, restaurant, desert, path trail, bar, court, puddle, pond, hill, city"""
)
_ALIVE = {**ANIMALS, **PEOPLE}
_BEINGS = frozenset(_ALIVE.values())
_ANIMALS = frozenset(ANIMALS.values())
_HUMANS = frozenset(PEOPLE.values())
_WORN = frozenset(CLOTHES.values())
_MASS = _set("water snow sand grass mud ice hair")
_PAIRS = _set("shorts pants jeans trousers sunglasses goggles boots overalls woods")
_SINGULAR = {**PLACES, **THINGS, **CLOTHES, **_ALIVE}
_PLURAL = {plural(word): name for word, name in _SINGULAR.items() if word not in _MASS | _PAIRS}
_PLURAL |= {"geese": "bird", **dict.fromkeys(CROWDS, "person")}
_HEADS = _set(
    """race racing track show house bowl game match course area lift board food top bank falls scout post door edge line
    trick jump slope ride lot gear tank party shop store wheel face station body crossing paw leg head mouth print hole
    size like"""
)
"""Nouns that are asked for nowhere, and before which another noun is no more than an adjective."""
_BEHIND_MODIFIERS = _HEADS | _SINGULAR.keys() | _PLURAL.keys()
_ALSO_VERBS = _set(
    """bike swing slide skateboard snowboard sled wave drum stick fish rock hose rope park boat kayak raft racket tie
    mask box"""
)
_SAID_AS = {"icecream": "ice cream", "lifejacket": "life jacket"}

_PHRASES = {
    r"t ?shirts?|tee shirts?|tank tops?|polo shirts?": "shirt",
    r"life (jacket|vest|preserver)": "lifejacket",
    r"(swimming|kiddie|wading) pool": "pool",
    r"bathing suit|swim suit": "swimsuit",
    r"wet suit": "wetsuit",
    r"ice cream( cone)?": "icecream",
    r"(cell|mobile) phone": "phone",
    r"(hard|crash) ?hat": "helmet",
    r"(toy|stuffed) (dog|horse|car|truck|animal|bear)": "toy",
    r"hot dog|rocking horse": "thing",
    r"pit bull": "pitbull",
    r"parking lot": "carpark",
    r"(rock |climbing )+(wall|face)": "wall",
    r"in front of": "before",
    r"on top of|atop": "on",
    r"in (the|a) (middle|midst|center|body) of": "in",
    r"snowy (ground|area|field|hill|hillside|slope|path|landscape|terrain|surface)": "snow",
    r"grassy (ground|area|field|hill|hillside|slope|path|yard|lawn)|green field": "grass",
    r"wooded (area|path|trail)": "woods",
    r"dirt (road|path|track|trail)": "path",
    r"(blonde?|brown|black|dark|red|grey|gray|white|long|short|curly) ?haired": "haired",
    r"gray": "grey",
    r"blonde": "blond",
    r"gold": "golden",
}
"""Replaced in a caption, once hyphens are gone, so that one word stands for one thing."""

_VERBS = _groups(
    """running run ran jogging jog sprinting sprint, jumping jump leaping leap, walking walk, sitting sit seated,
    standing stand, lying lie laying lay, sleeping sleep asleep, swimming swim, climbing climb scaling scale, riding
    ride, skiing ski, snowboarding snowboard, surfing surf, skateboarding skateboard, skating skate, dancing dance,
    eating eat, drinking drink, reading read, fishing fish, smoking smoke, singing sing, crawling crawl, swinging swing,
    sliding slide, kneeling kneel, diving dive, paddling paddle kayaking kayak canoeing rowing, holding hold, carrying
    carry, wearing wear, playing play, chasing chase, catching catch, throwing throw tossing toss, kicking kick, pushing
    push, pulling pull, racing race, digging dig, hiking hike, biking bike cycling, fighting fight wrestling wrestle,
    hugging hug, having has have, wading wade, splashing splash, painting paint, flying fly, hanging hang, waving wave,
    smiling smile, looking look, watching watch, going go, posing pose, chewing chew, biting bite, sledding sled,
    talking talk, floating float, crouching crouch, resting rest, leaning lean, bending bend"""
)
_ING = {word: verb for word, verb in _VERBS.items() if word.endswith("ing") or word in ("ran", "seated", "asleep")}
_BARE = {word: verb for word, verb in _VERBS.items() if word not in _ING and word != "has"}
_THIRD = {"has": "having"} | {plural(word): verb for word, verb in _BARE.items()}
ACTIVITIES = _set(
    """running jumping walking sitting standing lying sleeping swimming climbing skiing snowboarding surfing sliding
    skateboarding skating dancing eating drinking reading fishing smoking singing crawling swinging kneeling diving
    paddling playing hiking digging fighting painting flying wading"""
)
"""Verbs that say what somebody does without an object."""
_TOGETHER = _partners(
    """running jumping playing walking chasing catching kicking throwing racing carrying fighting digging splashing
    wading, standing playing eating drinking reading fishing smoking singing dancing wading throwing painting climbing
    surfing skiing snowboarding skateboarding skating hiking talking posing watching paddling leaning, sitting eating
    drinking reading fishing smoking singing swinging sliding paddling playing riding kneeling flying painting biking
    skateboarding surfing crouching resting sledding leaning racing, lying sleeping reading sliding playing resting
    chewing sledding floating eating smoking hugging, swimming playing diving wading jumping splashing surfing paddling
    floating catching carrying, jumping diving skateboarding skating snowboarding skiing surfing riding biking flying
    swinging sliding dancing climbing swimming fighting, skiing snowboarding racing sliding flying skating, surfing
    paddling lying kneeling riding, climbing hiking walking hanging playing swinging crawling, playing swinging sliding
    crawling kneeling dancing digging painting splashing, walking skiing hiking wading talking fishing smoking eating
    drinking singing, kneeling crouching bending digging painting looking reading eating drinking paddling posing,
    dancing singing skating, hanging swinging flying jumping, riding flying racing skateboarding snowboarding skating,
    skateboarding skating sliding riding, eating biting chewing carrying, drinking wading eating, fighting biting"""
)
"""Activities of which one does not rule out another."""
COLOURS = _set("red blue green yellow orange pink purple black white brown tan grey golden silver beige blond")
_PATTERNS = _set(
    """colorful colourful multi multicolored tri striped spotted plaid dotted checkered camouflage camo floral flowered
    patterned brindle rainbow reddish maroon turquoise teal"""
)
_SIMILAR = _partners(
    """brown tan beige golden orange blond red, black grey brown blue, white grey beige silver tan blond, pink purple
    red orange, green blue, yellow golden orange green tan blond"""
)
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six"]
_WHERE = frozenset({*PLACES.values(), "bench", "bed", "couch", "boat"})
_ON = _set("beach sand grass street sidewalk ice track stage playground path court hill bench bed couch")
_AT = _set("beach park playground restaurant bar gym court track")
_NEAR = _partners(
    """water ocean lake river pool beach sand pond puddle mud boat, grass field park yard woods hill path playground
    track city, street sidewalk city path track park bar restaurant playground bench, snow ice woods hill city street
    sidewalk park field yard path river lake bench, beach sand desert water ocean, woods river lake path park water pond
    hill yard mud, gym court stage, park pond water lake city bench, yard pool snow playground bench, mud path field
    woods track puddle street, hill desert path street, restaurant kitchen bar stage bench, sand track playground park
    desert, bed couch"""
)
"""Places that may be seen in one picture."""
_THEMES = _sets(
    """dog cat horse bird cow sheep, man woman boy girl baby dog, bike motorcycle car truck bus boat train horse,
    skateboard snowboard surfboard sled bike scooter, ball frisbee bat racket hurdle, swing slide trampoline, snow pool
    beach fountain, bench couch bed table, guitar microphone drum violin, boat kayak raft surfboard, dog ball frisbee"""
)
"""Things that are seldom left out of five captions, beside what one would take them for."""
_UNSURE = {
    "man": _HUMANS - {"man", "woman", "girl", "boy", "baby"},
    "woman": _HUMANS - {"woman", "man", "boy", "girl", "baby"},
    "boy": _HUMANS - {"boy", "man", "woman", "girl"},
    "girl": _HUMANS - {"girl", "man", "woman", "boy"},
    "baby": _set("child person"),
    "bike": _set("biker cyclist rider racer motorcyclist tricycle biking motorcycle riding street"),
    "motorcycle": _set("biker rider racer bike biking riding street vehicle"),
    "car": _set("street city truck racer racing vehicle race traffic carpark"),
    "truck": _set("car street city vehicle"),
    "bus": _set("street city car truck"),
    "boat": _set("kayak canoe raft paddling kayaker"),
    "train": _set("subway"),
    "skateboard": _set("skateboarder skateboarding skater ramp rail"),
    "snowboard": _set("snowboarder snowboarding skier skiing"),
    "surfboard": _set("surfer surfing wave wakeboarder"),
    "sled": _set("sledding sliding"),
    "horse": _set("rider racer bull"),
    "ball": _set("player soccer tennis baseball volleyball rugby sport game toy playing"),
    "bat": _set("baseball player"),
    "racket": _set("tennis player"),
    "frisbee": _set("toy"),
    "hurdle": _set("obstacle jumping fence rail"),
    "slide": _set("sliding playground inflatable tube"),
    "swing": _set("swinging playground"),
    "trampoline": _set("bouncing jumping"),
    "pool": _set("water swimming swimmer diving splashing"),
    "beach": _set("sand sandy ocean water lake"),
    "fountain": _set("water splashing"),
    "snow": _set("snowy skiing skier snowboarder snowboarding ice winter"),
    "bench": _set("sitting"),
    "table": _set("restaurant eating drinking kitchen bar desk"),
    "couch": _set("chair sitting"),
    "microphone": _set("singing stage band speaking"),
    "kayak": _set("boat canoe paddling"),
    "raft": _set("boat river kayak"),
}
"""What makes it unsure that a thing isn't there, though no caption names it."""
_SPORTS = _set(
    "soccer football basketball tennis baseball hockey volleyball rugby golf cricket lacrosse softball croquet"
)
_HEADWEAR = _set("hat helmet bandana headband")
_ASKED_WHO = _set("man woman boy girl baby child dog horse bird cat")
_OUTFITS = _set("shirt jacket coat dress suit uniform costume jersey swimsuit wetsuit robe shorts sweater sweatshirt")
_HANDHELD = _set(
    """ball frisbee stick toy sign camera umbrella cup bottle rope flag bag book newspaper guitar violin accordion bat
    racket phone fish balloon flower box cigarette microphone surfboard snowboard skateboard shovel bucket hose sword
    gun popsicle sandwich apple icecream pizza watermelon baby bird rabbit"""
)
_COLOURED = (
    _WORN
    | _ANIMALS
    | _set(
        """hair ball frisbee toy car truck bike motorcycle boat kayak canoe raft umbrella slide surfboard snowboard sled
    bus balloon tent tunnel bag couch"""
    )
)


@dataclass(frozen=True)
class Relation:
    """A question for what somebody does something to.

    Attributes:
        text: the question, with places for "is" and "the man".
        by: verbs and prepositions that say so, as in :attr:`Link.by`.
        nouns: what may answer it.
        of: who is asked about.
    """

    text: str
    by: frozenset[str]
    nouns: frozenset[str]
    of: frozenset[str] = _BEINGS


def _by(text: str) -> frozenset[str]:
    return frozenset(text.split(", "))


_WEARS = _by("wearing, in, with")
_RELATIONS = (
    Relation("What {is} {who} holding?", _by("holding, carrying"), _HANDHELD, _HUMANS),
    Relation("What {is} in {who}'s mouth?", _by("in mouth, holding, carrying"), _HANDHELD | {"bone"}, _ANIMALS),
    Relation(
        "What {is} {who} riding?",
        _by("riding, riding on, on"),
        _set("bike motorcycle horse skateboard surfboard snowboard scooter tricycle unicycle bull camel sled wave"),
        _HUMANS,
    ),
    Relation(
        "What {is} {who} climbing?",
        _by("climbing, climbing up, climbing on"),
        _set("wall rock cliff mountain tree ladder fence rope hill"),
    ),
    Relation(
        "What {is} {who} sitting on?", _by("sitting on"), _set("bench chair couch bed rock table swing wall log fence")
    ),
    Relation("What {is} {who} jumping over?", _by("jumping over"), _set("hurdle log fence rail wall puddle ramp")),
    Relation(
        "What {is} {who} chasing?", _by("chasing, chasing after, running after"), _set("ball frisbee toy bird stick")
    ),
    Relation("What {is} {who} catching?", _by("catching, jumping for"), _set("ball frisbee toy stick fish wave")),
    Relation("What {is} {who} throwing?", _by("throwing"), _set("ball frisbee stick rock"), _HUMANS),
    Relation(
        "What {is} {who} playing with?", _by("playing with"), _set("ball frisbee toy stick rope balloon dog hose")
    ),
    Relation("What {is} {who} playing?", _by("playing"), _set("guitar violin accordion drum"), _HUMANS),
    Relation("What {is} {who} pushing?", _by("pushing"), _set("stroller cart wheelchair swing bike wagon"), _HUMANS),
    Relation("What {is} {who} pulling?", _by("pulling"), _set("sled cart wagon rope boat")),
    Relation(
        "What {is} {who} eating?", _by("eating"), _set("popsicle sandwich apple icecream pizza cake watermelon candy")
    ),
    Relation("What {is} {who} wearing on the head?", _WEARS, _HEADWEAR, _HUMANS),
)
_INSTEAD = _partners("hat helmet, dress shorts, dress jeans, dress pants, skirt pants, skirt jeans, skirt shorts")
"""Clothes of which one wears one or the other."""
_ARTICLES = _set("a an the his her its their")
_DETERMINERS = _ARTICLES | _set("this some another other two three four")
_PREPOSITIONS = _set(
    """in on at through across along down into onto inside with without of from to by near over under behind beside
    before after around against towards toward for between above below past off up next outside during like about"""
)
_BOUNDS = _PREPOSITIONS | _set("and or but while as who which that is are was were be where when , . ;")
_INTO = _set("in on through across along down into onto inside")
_SENDS = _set("looking watching throwing waving")
"""Verbs with which somebody is not where they lead."""


# --- Reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noun:
    """A noun that stands for a thing: what it is called, whether it is several, and which word of the caption."""

    name: str
    many: bool
    at: int

    @property
    def answer(self) -> str:
        """As it is said in an answer."""
        return plural(self.name) if self.many else _SAID_AS.get(self.name, self.name)


@dataclass(frozen=True)
class Link:
    """A noun and what governs it: ``"the man sits on a bench"`` links man and bench by "sitting on".

    Attributes:
        owner: the being that the verb or preposition tells of.
        by: the verb, if there is one, and the preposition, if there is one; ``"in mouth"`` of what is held there.
        noun: the noun that is governed.
    """

    owner: Noun
    by: str
    noun: Noun

    @property
    def place(self) -> str | None:
        """The place where its owner is, if it says so."""
        verb, _, preposition = self.by.rpartition(" ")
        inside = preposition in _INTO or (preposition == "at" and self.noun.name in _AT)
        return self.noun.name if inside and self.noun.name in _WHERE and verb not in _SENDS else None


@dataclass(frozen=True)
class Caption:
    """A caption in words, and its nouns in order."""

    words: tuple[str, ...]
    nouns: tuple[Noun, ...]

    @classmethod
    def of(cls, text: str) -> Caption:
        """Read a caption."""
        text = text.lower().replace("-", " ")
        for pattern, word in _PHRASES.items():
            text = re.sub(rf"\b(?:{pattern})\b", word, text)
        words = tuple(re.findall(r"[a-z]+|'s|[,.;]", text))
        nouns = (_noun(words, at) for at in range(len(words)))
        return cls(words, tuple(noun for noun in nouns if noun))

    @cached_property
    def names(self) -> frozenset[str]:
        """What its nouns are called."""
        return frozenset(noun.name for noun in self.nouns)

    @cached_property
    def said(self) -> frozenset[str]:
        """All that it speaks of in any role, of a dog in "dog house" too: things, activities, and its words."""
        tables = (_SINGULAR, _PLURAL, _ING, _THIRD, _BARE)
        return frozenset(self.words) | {table[word] for table in tables for word in self.words if word in table}

    def called(self, names: Iterable[str]) -> list[Noun]:
        """Its nouns of these names."""
        return [noun for noun in self.nouns if noun.name in names]

    def total(self, names: Iterable[str]) -> int | None:
        """How many things of these names it speaks of; None where it speaks of several and does not count them."""
        total = 0
        for noun in self.called(names):
            phrase = self.words[self._governor(noun) + 1 : noun.at]
            number = next((_NUMBERS.index(word) for word in phrase if word in _NUMBERS), None)
            if noun.many and number is None:
                return None
            total += number if noun.many and number else 1
        return None if total == 1 and {"another", "other", "both"} & set(self.words) else total

    @cached_property
    def deeds(self) -> frozenset[tuple[Noun, str]]:
        """Who does what, by the form of the verb in -ing."""
        return frozenset(self._deeds())

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Nouns with what governs them, and whose they are."""
        return tuple(self._links())

    def _deeds(self) -> Iterator[tuple[Noun, str]]:
        for at in range(1, len(self.words)):
            owner, verb, before = self._subject(at), self._verb(at), self.words[at - 1]
            # "a running dog", "shoes for running", "wearing running shoes"
            modifier = before in _DETERMINERS | COLOURS | _PREPOSITIONS | {"'s"} | _ING.keys()
            if owner and verb and not modifier:
                yield owner, verb

    def _links(self) -> Iterator[Link]:
        last: Link | None = None
        for noun in self.nouns:
            at = self._governor(noun)
            word = self.words[at] if at >= 0 else ""
            if word in ("and", ",") and last and {last.noun.name, noun.name} <= _WORN:
                last = replace(last, noun=noun)
                yield last
                continue
            while at > 0 and self.words[at] in _PREPOSITIONS:
                at -= 1
            verb = self._verb(at)
            owner = self._subject(at if verb else at + 1)
            by = " ".join(part for part in (verb, word if word in _PREPOSITIONS else "") if part)
            following = self.words[noun.at + 1 : noun.at + 4]
            if following[:1] == ("in",) and {"mouth", "mouths"} & set(following):
                by = "in mouth"
            if owner and owner is not noun:
                last = Link(owner, by, noun)
                yield last

    def colours(self, noun: Noun) -> frozenset[str]:
        """The colours that stand before a noun, and "pattern" if it has one."""
        words = self.words[self._governor(noun) + 1 : noun.at]
        # Behind the last article: what comes before one is a verb that we don't know, as in "in red dribbles the ball".
        first = max((at for at, word in enumerate(words) if word in _ARTICLES), default=-1) + 1
        words = words[first:]
        return frozenset(word if word in COLOURS else "pattern" for word in words if word in COLOURS | _PATTERNS)

    def _governor(self, noun: Noun) -> int:
        """Where the verb, preposition or other noun stands that comes before a noun and its adjectives; -1 if none."""
        at = noun.at - 1
        while at >= 0 and (self._joins(at) or not self._stops(at)):
            at -= 1
        return at

    def _joins(self, at: int) -> bool:
        """Whether an "and" or a comma stands between two colours."""
        around = {self.words[at - 1], self.words[at + 1]} if 0 < at < len(self.words) - 1 else {""}
        return self.words[at] in ("and", ",") and around <= COLOURS | _PATTERNS | {"and", ","}

    def _stops(self, at: int) -> bool:
        """Whether no adjective of a later noun stands before a word."""
        word = self.words[at]
        return word in _BOUNDS or word.endswith("ing") or bool(self._verb(at)) or self._is_noun(at)

    def _is_noun(self, at: int) -> bool:
        return any(noun.at == at for noun in self.nouns)

    def _verb(self, at: int) -> str:
        """The verb of which a word is a form, or nothing; a bare form is one only behind a plural."""
        word = self.words[at] if at >= 0 else ""
        bare = word in _BARE and any(noun.many and noun.at == at - 1 for noun in self.nouns)
        third = word in _THIRD and not self._is_noun(at)
        return _ING.get(word, "") or (_THIRD[word] if third else "") or (_BARE[word] if bare else "")

    def _subject(self, at: int) -> Noun | None:
        """Of whom a verb tells: the nearest being before it. After "and" that may be another, and nobody is named."""
        alive = [noun for noun in self.nouns if noun.name in _BEINGS and noun.at < at]
        before = self.words[at - 1] if at > 0 else ""
        if before in ("and", "or", "but", ",", "as", "while") and len({noun.name for noun in alive}) > 1:
            return alive[0] if before == "while" else None
        return alive[-1] if alive else None


def _noun(words: Sequence[str], at: int) -> Noun | None:
    """The noun at a place, unless it is a modifier, an owner, or a verb that looks like one."""
    word, before = words[at], words[at - 1] if at else ""
    following = words[at + 1] if at + 1 < len(words) else ""
    name, many = _PLURAL.get(word) or _SINGULAR.get(word), word in _PLURAL
    if name is None or following == "'s" or (word in CROWDS and following == "of"):
        return None
    does = word in _ALIVE and _PLURAL.get(following) in _ALSO_VERBS
    if (not many or word in CROWDS) and following in _BEHIND_MODIFIERS and not does:
        return None
    of_subject = before in _ALIVE or _PLURAL.get(before) in _BEINGS or before.endswith("ly")
    if name in _ALSO_VERBS and (of_subject or before in ("and", "who", "that", "to", "he", "she", "it", "they")):
        return None
    return Noun(name, many, at)


def one_person(captions: Sequence[Caption]) -> list[Caption]:
    """Where every caption speaks of one person at most, give that person one name.

    It is what most captions say, if none contradicts it; else ``"child"`` or ``"person"``.
    """
    people = [caption.called(_HUMANS) for caption in captions]
    names = Counter(noun.name for nouns in people for noun in nouns)
    if len(names) < 2 or any(len(nouns) > 1 or any(noun.many for noun in nouns) for nouns in people):
        return list(captions)
    (name, count), *_ = sorted(names.items(), key=lambda item: (-item[1], item[0] in ("person", "child"), item[0]))
    contradicted = names.keys() & {"man", "boy"} and names.keys() & {"woman", "girl"}
    if contradicted or 2 * count < sum(names.values()):
        name = "child" if names.keys() <= {"boy", "girl", "child", "baby"} else "person"
    return [
        replace(
            caption,
            nouns=tuple(replace(noun, name=name) if noun.name in _HUMANS else noun for noun in caption.nouns),
        )
        for caption in captions
    ]


@dataclass(frozen=True)
class Subject:
    """One being, or all of its kind, that can be asked about: "the dog" or "the dogs"."""

    name: str
    many: bool

    @property
    def answer(self) -> str:
        """In an answer."""
        return plural(self.name) if self.many else self.name

    @property
    def who(self) -> str:
        """In a question."""
        return f"the {self.answer}"

    @property
    def verb(self) -> str:
        """Is or are."""
        return "are" if self.many else "is"

    def includes(self, noun: Noun) -> bool:
        """Whether a noun stands for it. One of several does not: what "one dog" does is not what the dogs do."""
        return noun.name == self.name and noun.many == self.many


def subjects(captions: Sequence[Caption]) -> list[Subject]:
    """Beings of which at least two captions tell, and all either of one or of several."""
    found = []
    for name in sorted(_said_by(captions, 1) & _BEINGS):
        several = {
            caption.total({name}) != 1 or bool({"another", "other"} & set(caption.words))
            for caption in captions
            if name in caption.names
        }
        if name in _said_by(captions, 2) and len(several) == 1:
            found.append(Subject(name, several.pop()))
    return found


def _said_by(captions: Sequence[Caption], least: int) -> frozenset[str]:
    """Names of what at least so many captions speak of."""
    counts = Counter(name for caption in captions for name in caption.names)
    return frozenset(name for name, count in counts.items() if count >= least)


# --- Questions -------------------------------------------------------------------------------------------------------


def agreed(votes: Iterable[Iterable[str]], least: int = 1) -> str | None:
    """What all votes name, if at least so many do and none names anything else. Empty votes don't count."""
    cast = [set(vote) for vote in votes if vote]
    named = set[str]().union(*cast)
    return named.pop() if len(cast) >= least and len(named) == 1 else None


def leading(votes: Iterable[Iterable[str]]) -> str | None:
    """What at least two votes name, if that is more than half of all that is named."""
    counts = Counter(name for vote in votes for name in set(vote))
    name, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return name if count >= 2 and 2 * count > sum(counts.values()) else None


def questions(captions: Sequence[str]) -> list[Question]:
    """All questions that the captions of one picture answer.

    Of each thing, activity, place and colour that they agree on it is asked whether it is so; and of many others that
    no caption names, which can't be there as well or would not have been left out.

    Args:
        captions: the captions of one picture, about five.

    Returns:
        Questions in a fixed order, each text once. Most of them are answered "no":
        :func:`weft.picture_questions.balanced` chooses from them.
    """
    read = one_person([Caption.of(text) for text in captions])
    asked = [*_things(read), *_animals(read), *_sports(read), *_numbers(read), *_colours(read), *_whos(read)]
    for subject in subjects(read):
        asked += [*_deeds(read, subject), *_objects(read, subject), *_clothes(read, subject), *_places(read, subject)]
    return list({question.text: question for question in asked}.values())


def _all_said(captions: Sequence[Caption]) -> frozenset[str]:
    return frozenset[str]().union(*(caption.said for caption in captions))


def _a(name: str) -> str:
    return name if name in _MASS | _PAIRS else f"a {name}"


def _in(place: str) -> str:
    return f"{'on' if place in _ON else 'in'} the {place}"


def _yes_no(text: str, yes: bool) -> Question:
    return Question(text, "yes" if yes else "no", "yes-no")


def _things(captions: Sequence[Caption]) -> Iterator[Question]:
    """Is there a dog in the picture? No, where what it could be mistaken for is, and no word hints at it."""
    present, said = _said_by(captions, 2), _all_said(captions)
    for name in sorted(frozenset[str]().union(*_THEMES)):
        text = f"Is there {_a(name)} in the picture?"
        plausible = any(name in theme and theme & present for theme in _THEMES)
        if name in present:
            yield _yes_no(text, True)
        elif plausible and not said & (_UNSURE.get(name, frozenset()) | {name}):
            yield _yes_no(text, False)


def _animals(captions: Sequence[Caption]) -> Iterator[Question]:
    """What animal is in the picture?"""
    if animal := agreed((caption.names & _ANIMALS for caption in captions), least=2):
        yield Question("What animal is in the picture?", animal, "what")


def _sports(captions: Sequence[Caption]) -> Iterator[Question]:
    """What sport is being played? A ball alone does not say: dogs run after tennis balls."""
    votes = [
        {word for word, after in pairwise((*caption.words, "")) if word in _SPORTS and after not in ("ball", "balls")}
        for caption in captions
    ]
    if (sport := agreed(votes, least=2)) and _all_said(captions) & _HUMANS:
        yield Question("What sport is being played?", sport, "what")


def _numbers(captions: Sequence[Caption]) -> Iterator[Question]:
    """How many dogs are in the picture? And how many people, whatever they are called."""
    kinds = {plural(name): frozenset({name}) for name in sorted(_said_by(captions, 1) & _BEINGS)} | {"people": _HUMANS}
    for word, kind in kinds.items():
        totals = [caption.total(kind) for caption in captions]
        told = {total for total in totals if total}
        number = told.pop() if len(told) == 1 else 0
        # A caption that does not count speaks of several, which agrees with any number but one.
        if 0 < number < len(_NUMBERS) and totals.count(number) >= 2 and (number > 1 or None not in totals):
            yield Question(f"How many {word} are in the picture?", _NUMBERS[number], "how many")


def _colours(captions: Sequence[Caption]) -> Iterator[Question]:
    """What colour is the dog? Is it red? Asked of what no caption has two of."""
    said, people = _all_said(captions), _said_by(captions, 1) & _HUMANS
    owners = [one for one in subjects(captions) if {one.name} == people and not one.many]
    for name in sorted(_said_by(captions, 1) & _COLOURED):
        if any(caption.total({name}) not in (0, 1) for caption in captions):
            continue
        votes = [caption.colours(noun) for caption in captions for noun in caption.called({name})]
        colour = agreed(votes)
        if colour is None or colour == "pattern" or 3 * sum(map(bool, votes)) < len(votes):
            continue
        owned = name in _WORN | {"hair"} and name not in ("collar", "harness", "muzzle")
        if name == "hair" and not owners:
            continue
        thing = f"{owners[0].who}'s" if owned and owners else "the"
        verb, thing = "are" if name in _PAIRS else "is", f"{thing} {_SAID_AS.get(name, name)}"
        yield Question(f"What colour {verb} {thing}?", colour, "colour")
        for other in sorted(COLOURS):
            if other == colour or (other not in said and colour not in _SIMILAR.get(other, ())):
                yield _yes_no(f"{verb.capitalize()} {thing} {other}?", other == colour)


def _whos(captions: Sequence[Caption]) -> Iterator[Question]:
    """Who is running? Who is in the water? Asked where no caption tells it of anybody else."""
    told = {subject.answer for subject in subjects(captions) if subject.name in _ASKED_WHO}
    for ask, votes in _doers(captions).items():
        if (who := agreed(votes, least=2)) in told:
            yield Question(f"Who is {ask}?", who, "what")


def _doers(captions: Sequence[Caption]) -> dict[str, list[set[str]]]:
    """Who does a thing, and who is at a place, by caption."""
    doers: dict[str, list[set[str]]] = {}
    for caption in captions:
        found = {(verb, noun.answer) for noun, verb in caption.deeds if verb in ACTIVITIES}
        found |= {(_in(link.place), link.owner.answer) for link in caption.links if link.place}
        for ask in sorted({ask for ask, _ in found}):
            doers.setdefault(ask, []).append({name for asked, name in found if asked == ask})
    return doers


def _deeds(captions: Sequence[Caption], subject: Subject) -> Iterator[Question]:
    """What is the dog doing? Is it running? No, where it does what rules that out."""
    votes = [{verb for noun, verb in caption.deeds if subject.includes(noun)} & ACTIVITIES for caption in captions]
    if chosen := leading(votes):
        yield Question(f"What {subject.verb} {subject.who} doing?", chosen, "what")
    counts = Counter(verb for vote in votes for verb in vote)
    done = {verb for verb, count in counts.items() if count >= 2}
    said = _all_said(captions)
    for verb in sorted(ACTIVITIES):
        text = f"{subject.verb.capitalize()} {subject.who} {verb}?"
        if verb in done:
            yield _yes_no(text, True)
        elif done and not said & _TOGETHER.get(verb, frozenset({verb})):
            yield _yes_no(text, False)


def _objects(captions: Sequence[Caption], subject: Subject) -> Iterator[Question]:
    """What is the man holding, riding, climbing, wearing on the head?"""
    for relation in _RELATIONS:
        if subject.name in relation.of and not (subject.many and "{who}'s" in relation.text):
            votes = [
                {
                    link.noun.answer
                    for link in caption.links
                    if subject.includes(link.owner)
                    and link.noun.name != subject.name
                    and link.by in relation.by
                    and link.noun.name in relation.nouns
                }
                for caption in captions
            ]
            if chosen := agreed(votes):
                yield Question(relation.text.format(**{"is": subject.verb, "who": subject.who}), chosen, "what")


def _clothes(captions: Sequence[Caption], subject: Subject) -> Iterator[Question]:
    """What is the girl wearing? Is she wearing a hat? No, where it is a helmet."""
    if subject.name not in _HUMANS:
        return
    votes = [
        {link.noun.name for link in caption.links if subject.includes(link.owner) and link.by in _WEARS} & _WORN
        for caption in captions
    ]
    if chosen := leading(vote & _OUTFITS for vote in votes):
        yield Question(f"What {subject.verb} {subject.who} wearing?", chosen, "what")
    worn, said = frozenset[str]().union(*votes), _all_said(captions)
    for name in sorted(_INSTEAD):
        text = f"{subject.verb.capitalize()} {subject.who} wearing {_a(name)}?"
        if sum(name in vote for vote in votes) >= 2:
            yield _yes_no(text, True)
        elif name not in said and not subject.many and _INSTEAD[name] & worn:
            yield _yes_no(text, False)


def _places(captions: Sequence[Caption], subject: Subject) -> Iterator[Question]:
    """Where is the dog? Is it in the water? No, where it is elsewhere, and no caption speaks of water."""
    votes = [
        {link.place for link in caption.links if subject.includes(link.owner) and link.place} for caption in captions
    ]
    place, said = leading(votes) or agreed(votes), _all_said(captions)
    if place is None or place not in _said_by(captions, 2):
        return
    yield Question(f"Where {subject.verb} {subject.who}?", place, "where")
    for other in sorted(_WHERE):
        if other == place or not said & _NEAR.get(other, frozenset({other})):
            yield _yes_no(f"{subject.verb.capitalize()} {subject.who} {_in(other)}?", other == place)
