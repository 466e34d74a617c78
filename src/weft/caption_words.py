"""The words of captions: for what is on pictures, for what is done there, and those that hold a sentence together.

Each table is given a word as captions have it, and tells what it stands for: a ``"puppy"`` is called ``"dog"``, who
``"ran"`` was ``"running"``. The lists are made for Flickr8k; :mod:`weft.caption_reading` reads captions with them.
"""

from __future__ import annotations


def plural(word: str) -> str:
    """``"people"`` for ``"person"``; of a verb, its form with an s."""
    irregular = {"child": "children", "person": "people", "sheep": "sheep", "fish": "fish"}
    if word.endswith("man"):
        return word[:-3] + "men"
    if word.endswith("y") and word[-2:-1] not in "aeou":
        return word[:-1] + "ies"
    return irregular.get(word, word + ("es" if word.endswith(("ch", "sh", "s", "x")) else "s"))


def word_set(text: str) -> frozenset[str]:
    """``"a b"`` as its words."""
    return frozenset(text.split())


def word_sets(text: str) -> tuple[frozenset[str], ...]:
    """``"a b, c d"`` as the words of each group."""
    return tuple(map(word_set, text.split(",")))


def partners(text: str) -> dict[str, frozenset[str]]:
    """``"a b, b c"`` as all that each word shares a group with, itself included."""
    sets = word_sets(text)
    return {word: frozenset[str]().union(*(one for one in sets if word in one)) for one in sets for word in one}


def groups(text: str) -> dict[str, str]:
    """``"bike bicycle, cup mug"`` as each word's group, which bears the name of its first word."""
    return {word: group.split()[0] for group in text.split(",") for word in group.split()}


ANIMALS = groups(
    """dog puppy pup greyhound terrier retriever labrador lab shepherd collie poodle dalmatian bulldog pitbull hound
    dachshund doberman husky rottweiler corgi chihuahua pug mutt, cat kitten, horse pony, cow calf, bull, goat, camel,
    monkey, bird seagull pigeon parrot eagle swan goose duck flamingo, rabbit bunny, squirrel, elephant, sheep lamb"""
)
"""Words for animals, with what each is called."""
PEOPLE = groups(
    """man guy gentleman, woman lady, boy, girl, baby toddler infant, child kid, person someone somebody adult teenager,
    skier, snowboarder, surfer, skateboarder, skater, climber, cyclist bicyclist, hiker, player, biker, rider, racer,
    runner, swimmer, dancer, kayaker, wrestler, worker, performer, motorcyclist, photographer, rollerblader, wakeboarder
    """
)
"""Words for people, with what each is called."""
CROWDS = word_set("group crowd couple pair team family audience band others friends")
"""Words for people of whom one can't say how many they are."""
CLOTHES = groups(
    """shirt, jacket, coat, hat cap beanie, helmet, bandana bandanna, headband, dress, skirt, shorts, pants trousers,
    jeans, sweater, sweatshirt hoodie, vest, suit, uniform, costume, jersey, swimsuit bikini, wetsuit, scarf, mask,
    sunglasses, goggles, backpack, boots, collar, harness, muzzle, lifejacket, tie, apron, robe, snowsuit, overalls"""
)
"""Words for what is worn, with what it is called."""
THINGS = groups(
    """ball football basketball, frisbee disc disk, stick branch, toy, sign, camera, umbrella, cup mug, bottle, rope,
    flag, bag purse handbag, book, newspaper, guitar, violin, accordion, drum, bat, racket racquet, phone cellphone,
    fish, balloon, flower, box, cigarette, microphone, surfboard, snowboard, skateboard, scooter, tricycle, unicycle,
    bike bicycle, motorcycle motorbike, car, truck, bus, train, boat, kayak, canoe, raft, sled, swing, slide, wave,
    trampoline, cart, wheelchair, stroller, wagon, tire, bench, chair, couch sofa, bed, table, wall, rock boulder,
    cliff, mountain, tree, ladder, fence, hurdle, log, rail railing handrail, ramp, fountain, bridge, statue, tent,
    shovel, bucket, hose, sword, gun, popsicle, sandwich, apple, icecream, pizza, cake, watermelon, candy, bone, hair,
    kite, tunnel"""
)
"""Words for other things, with what each is called."""
PLACES = groups(
    """water, ocean sea surf, lake, river stream creek, pool, beach shore seashore, sand, snow, grass lawn, park,
    field meadow, yard backyard, street road, sidewalk pavement, woods forest, ice, mud, track racetrack, stage,
    playground, gym, kitchen, restaurant, desert, path trail, bar, court, puddle, pond, hill, city"""
)
"""Words for places, with what each is called."""

ALIVE = {**ANIMALS, **PEOPLE}
"""Words for animals and people, with what each is called."""
BEINGS = frozenset(ALIVE.values())
"""What animals and people are called."""
BEASTS = frozenset(ANIMALS.values())
"""What animals are called."""
HUMANS = frozenset(PEOPLE.values())
"""What people are called."""
WORN = frozenset(CLOTHES.values())
"""What clothes are called."""

MASS_NOUNS = word_set("water snow sand grass mud ice hair")
"""Nouns without an article and without a plural."""
ALWAYS_PLURAL = word_set("shorts pants jeans trousers sunglasses goggles boots overalls woods")
"""Nouns that stand in the plural and mean one thing."""
SINGULAR = {**PLACES, **THINGS, **CLOTHES, **ALIVE}
"""All nouns that stand for something, with what it is called."""
PLURAL = {plural(word): name for word, name in SINGULAR.items() if word not in MASS_NOUNS | ALWAYS_PLURAL}
PLURAL |= {"geese": "bird", **dict.fromkeys(CROWDS, "person")}
"""The same nouns as they are where they stand for several things; crowds are people."""
_HEADS = word_set(
    """race racing track show house bowl game match course area lift board food top bank falls scout post door edge line
    trick jump slope ride lot gear tank party shop store wheel face station body crossing paw leg head mouth print hole
    size like"""
)
"""Nouns that are asked for nowhere, and before which another noun is no more than an adjective."""
BEHIND_MODIFIERS = _HEADS | SINGULAR.keys() | PLURAL.keys()
"""Words before which another noun is no more than an adjective, as "dog" in "dog house"."""
ALSO_VERBS = word_set(
    """bike swing slide skateboard snowboard sled wave drum stick fish rock hose rope park boat kayak raft racket tie
    mask box"""
)
"""Nouns that may be a verb, as in "a man bikes"."""
SAID_AS = {"icecream": "ice cream", "lifejacket": "life jacket"}
"""Names that are written as two words in a question or an answer."""

PHRASES = {
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

_VERBS = groups(
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
"""Forms of verbs, except those with an s, with the form in -ing that names what is done."""
ING_FORMS = {word: verb for word, verb in _VERBS.items() if word.endswith("ing") or word in ("ran", "seated", "asleep")}
"""Forms that are a verb wherever they stand."""
BARE_FORMS = {word: verb for word, verb in _VERBS.items() if word not in ING_FORMS and word != "has"}
"""Forms that are a verb behind a plural."""
S_FORMS = {"has": "having"} | {plural(word): verb for word, verb in BARE_FORMS.items()}
"""Forms with an s, which are a verb unless they are a noun."""

COLOURS = word_set("red blue green yellow orange pink purple black white brown tan grey golden silver beige blond")
"""Words for colours."""
PATTERNS = word_set(
    """colorful colourful multi multicolored tri striped spotted plaid dotted checkered camouflage camo floral flowered
    patterned brindle rainbow reddish maroon turquoise teal"""
)
"""Words for what has several colours, or one that is not among :data:`COLOURS`."""
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six"]
"""Words for numbers, each at its own place."""

WHEREABOUTS = frozenset({*PLACES.values(), "bench", "bed", "couch", "boat"})
"""Where somebody can be."""
TAKES_AT = word_set("beach park playground restaurant bar gym court track")
"""Places that somebody at them is on or in; at a lake, one is beside it."""

ARTICLES = word_set("a an the his her its their")
"""Words behind which the adjectives of a noun begin."""
DETERMINERS = ARTICLES | word_set("this some another other two three four")
"""Words behind which a form in -ing is an adjective: "a running dog"."""
PREPOSITIONS = word_set(
    """in on at through across along down into onto inside with without of from to by near over under behind beside
    before after around against towards toward for between above below past off up next outside during like about"""
)
"""Words that tie a noun to what stands before them."""
BOUNDS = PREPOSITIONS | word_set("and or but while as who which that is are was were be where when , . ;")
"""Words before which no adjective of a later noun stands."""
LOCATING = word_set("in on through across along down into onto inside")
"""Prepositions that tell where somebody is."""
SENDING = word_set("looking watching throwing waving")
"""Verbs with which somebody is not where the preposition leads, as in "looking into the water"."""
