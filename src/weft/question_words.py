"""What is worth asking about a picture, and what rules out what: what captions don't say but everybody knows.

Whoever runs does not sleep but may jump; who is in the water is not on a bench. :mod:`weft.questions` takes from
here what it asks for, and what to ask that is certain to be answered "no". Things, verbs and places go by the names
that :mod:`weft.caption_words` gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.caption_words import BEASTS, BEINGS, HUMANS, WORN, partners, word_set, word_sets

ACTIVITIES = word_set(
    """running jumping walking sitting standing lying sleeping swimming climbing skiing snowboarding surfing sliding
    skateboarding skating dancing eating drinking reading fishing smoking singing crawling swinging kneeling diving
    paddling playing hiking digging fighting painting flying wading"""
)
"""Verbs that say what somebody does without an object."""
TOGETHER = partners(
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
SIMILAR = partners(
    """brown tan beige golden orange blond red, black grey brown blue, white grey beige silver tan blond, pink purple
    red orange, green blue, yellow golden orange green tan blond"""
)
"""Colours of which one may be taken for another."""
TAKES_ON = word_set("beach sand grass street sidewalk ice track stage playground path court hill bench bed couch")
"""Places that one is on rather than in."""
NEAR = partners(
    """water ocean lake river pool beach sand pond puddle mud boat, grass field park yard woods hill path playground
    track city, street sidewalk city path track park bar restaurant playground bench, snow ice woods hill city street
    sidewalk park field yard path river lake bench, beach sand desert water ocean, woods river lake path park water pond
    hill yard mud, gym court stage, park pond water lake city bench, yard pool snow playground bench, mud path field
    woods track puddle street, hill desert path street, restaurant kitchen bar stage bench, sand track playground park
    desert, bed couch"""
)
"""Places that may be seen in one picture."""
THEMES = word_sets(
    """dog cat horse bird cow sheep, man woman boy girl baby dog, bike motorcycle car truck bus boat train horse,
    skateboard snowboard surfboard sled bike scooter, ball frisbee bat racket hurdle, swing slide trampoline, snow pool
    beach fountain, bench couch bed table, guitar microphone drum violin, boat kayak raft surfboard, dog ball frisbee"""
)
"""Things that are seldom left out of five captions, beside what one would take them for."""
UNSURE = {
    "man": HUMANS - {"man", "woman", "girl", "boy", "baby"},
    "woman": HUMANS - {"woman", "man", "boy", "girl", "baby"},
    "boy": HUMANS - {"boy", "man", "woman", "girl"},
    "girl": HUMANS - {"girl", "man", "woman", "boy"},
    "baby": word_set("child person"),
    "bike": word_set("biker cyclist rider racer motorcyclist tricycle biking motorcycle riding street"),
    "motorcycle": word_set("biker rider racer bike biking riding street vehicle"),
    "car": word_set("street city truck racer racing vehicle race traffic carpark"),
    "truck": word_set("car street city vehicle"),
    "bus": word_set("street city car truck"),
    "boat": word_set("kayak canoe raft paddling kayaker"),
    "train": word_set("subway"),
    "skateboard": word_set("skateboarder skateboarding skater ramp rail"),
    "snowboard": word_set("snowboarder snowboarding skier skiing"),
    "surfboard": word_set("surfer surfing wave wakeboarder"),
    "sled": word_set("sledding sliding"),
    "horse": word_set("rider racer bull"),
    "ball": word_set("player soccer tennis baseball volleyball rugby sport game toy playing"),
    "bat": word_set("baseball player"),
    "racket": word_set("tennis player"),
    "frisbee": word_set("toy"),
    "hurdle": word_set("obstacle jumping fence rail"),
    "slide": word_set("sliding playground inflatable tube"),
    "swing": word_set("swinging playground"),
    "trampoline": word_set("bouncing jumping"),
    "pool": word_set("water swimming swimmer diving splashing"),
    "beach": word_set("sand sandy ocean water lake"),
    "fountain": word_set("water splashing"),
    "snow": word_set("snowy skiing skier snowboarder snowboarding ice winter"),
    "bench": word_set("sitting"),
    "table": word_set("restaurant eating drinking kitchen bar desk"),
    "couch": word_set("chair sitting"),
    "microphone": word_set("singing stage band speaking"),
    "kayak": word_set("boat canoe paddling"),
    "raft": word_set("boat river kayak"),
}
"""What makes it unsure that a thing isn't there, though no caption names it."""
SPORTS = word_set(
    "soccer football basketball tennis baseball hockey volleyball rugby golf cricket lacrosse softball croquet"
)
"""Sports that are played."""
ASKED_WHO = word_set("man woman boy girl baby child dog horse bird cat")
"""Who may be the answer where it is asked who does something."""
OUTFITS = word_set(
    "shirt jacket coat dress suit uniform costume jersey swimsuit wetsuit robe shorts sweater sweatshirt"
)
"""What may be the answer where it is asked what somebody is wearing."""
INSTEAD = partners("hat helmet, dress shorts, dress jeans, dress pants, skirt pants, skirt jeans, skirt shorts")
"""Clothes of which one wears one or the other."""
COLOURED = (
    WORN
    | BEASTS
    | word_set(
        """hair ball frisbee toy car truck bike motorcycle boat kayak canoe raft umbrella slide surfboard snowboard sled
        bus balloon tent tunnel bag couch"""
    )
)
"""Things whose colour is asked for."""
_HEADWEAR = word_set("hat helmet bandana headband")
"""What is worn on the head."""
_HANDHELD = word_set(
    """ball frisbee stick toy sign camera umbrella cup bottle rope flag bag book newspaper guitar violin accordion bat
    racket phone fish balloon flower box cigarette microphone surfboard snowboard skateboard shovel bucket hose sword
    gun popsicle sandwich apple icecream pizza watermelon baby bird rabbit"""
)
"""What may be held in a hand or a mouth."""


@dataclass(frozen=True)
class Relation:
    """A question for what somebody does something to.

    Attributes:
        text: the question, with places for "is" and "the man".
        by: verbs and prepositions that say so, as in :attr:`weft.caption_reading.Link.by`.
        nouns: what may answer it.
        of: who is asked about.
    """

    text: str
    by: frozenset[str]
    nouns: frozenset[str]
    of: frozenset[str] = BEINGS


def _by(text: str) -> frozenset[str]:
    """``"holding, in mouth"`` as its parts."""
    return frozenset(text.split(", "))


WEARS = _by("wearing, in, with")
"""Verbs and prepositions that say what somebody is wearing."""
RELATIONS = (
    Relation("What {is} {who} holding?", _by("holding, carrying"), _HANDHELD, HUMANS),
    Relation("What {is} in {who}'s mouth?", _by("in mouth, holding, carrying"), _HANDHELD | {"bone"}, BEASTS),
    Relation(
        "What {is} {who} riding?",
        _by("riding, riding on, on"),
        word_set("bike motorcycle horse skateboard surfboard snowboard scooter tricycle unicycle bull camel sled wave"),
        HUMANS,
    ),
    Relation(
        "What {is} {who} climbing?",
        _by("climbing, climbing up, climbing on"),
        word_set("wall rock cliff mountain tree ladder fence rope hill"),
    ),
    Relation(
        "What {is} {who} sitting on?",
        _by("sitting on"),
        word_set("bench chair couch bed rock table swing wall log fence"),
    ),
    Relation("What {is} {who} jumping over?", _by("jumping over"), word_set("hurdle log fence rail wall puddle ramp")),
    Relation(
        "What {is} {who} chasing?",
        _by("chasing, chasing after, running after"),
        word_set("ball frisbee toy bird stick"),
    ),
    Relation("What {is} {who} catching?", _by("catching, jumping for"), word_set("ball frisbee toy stick fish wave")),
    Relation("What {is} {who} throwing?", _by("throwing"), word_set("ball frisbee stick rock"), HUMANS),
    Relation(
        "What {is} {who} playing with?", _by("playing with"), word_set("ball frisbee toy stick rope balloon dog hose")
    ),
    Relation("What {is} {who} playing?", _by("playing"), word_set("guitar violin accordion drum"), HUMANS),
    Relation("What {is} {who} pushing?", _by("pushing"), word_set("stroller cart wheelchair swing bike wagon"), HUMANS),
    Relation("What {is} {who} pulling?", _by("pulling"), word_set("sled cart wagon rope boat")),
    Relation(
        "What {is} {who} eating?",
        _by("eating"),
        word_set("popsicle sandwich apple icecream pizza cake watermelon candy"),
    ),
    Relation("What {is} {who} wearing on the head?", WEARS, _HEADWEAR, HUMANS),
)
"""Every such question."""
