"""COCO's 80 categories of objects, and the words by which captions call them.

:data:`NAMES` are further names of the same things, :data:`KINDS` words for some of them: every sofa is a couch, and
"sofa" says no more than "couch" does, but a duck is one bird among others. :mod:`weft.hallucination` reads captions
with them, as Rohrbach et al. ("Object Hallucination in Image Captioning", 2018) do with a list of their own.
"""

from __future__ import annotations

from weft.caption_words import word_set

_CATEGORIES = """
person: human, people; man, woman, boy, girl, child, kid, baby, toddler, infant, adult, teenager, teen, youth, lady,
    guy, gentleman, male, female, mother, father, mom, dad, parent, sister, brother, son, daughter, wife, husband,
    grandmother, grandfather, bride, groom, bridegroom, friend, worker, chef, baker, waiter, waitress, doctor,
    nurse, dentist, teacher, student, soldier, sailor, officer, policeman, policewoman, cop, fireman, firefighter,
    businessman, businesswoman, farmer, fisherman, cowboy, driver, passenger, pedestrian, rider, biker, cyclist,
    bicyclist, motorcyclist, skier, snowboarder, skateboarder, skater, surfer, swimmer, diver, runner, racer, walker,
    hiker, climber, dancer, singer, musician, guitarist, player, batter, pitcher, catcher, umpire, referee, athlete,
    coach, golfer, wrestler, jockey, clown, shopper, vendor, customer, tourist, traveler, camper, photographer,
    performer, artist, spectator, bystander, somebody, someone
bicycle: bike; mountain bike, unicycle, tricycle, trike
car: automobile; sedan, suv, van, minivan, taxi, cab, taxicab, jeep, limousine, limo, coupe, hatchback, convertible,
    station wagon
motorcycle: motorbike, motor bike; scooter, moped, dirt bike
airplane: aeroplane, plane, aircraft; jet, airliner, jetliner, biplane, seaplane
bus: autobus; minibus, trolleybus, double decker
train: railway train; locomotive, tram, streetcar, caboose, steam engine
truck: lorry; pickup, fire engine, tractor trailer
boat: vessel; ship, sailboat, motorboat, speedboat, rowboat, canoe, kayak, dinghy, yacht, ferry, barge, gondola,
    catamaran, tugboat, schooner, raft
traffic light: traffic signal, stop light, stoplight
fire hydrant: hydrant, fireplug
stop sign:
parking meter:
bench: park bench; pew
bird: fowl; duck, duckling, goose, swan, seagull, gull, pigeon, parrot, parakeet, cockatoo, cockatiel, macaw,
    owl, eagle, hawk, falcon, osprey, vulture, crow, raven, magpie, robin, sparrow, finch, hummingbird, woodpecker,
    heron, egret, stork, pelican, flamingo, penguin, ostrich, peacock, pheasant, hen, rooster,
    puffin, cormorant, sandpiper, kingfisher
cat: feline, kitty; kitten, tabby
dog: canine, doggy, doggie; puppy, pup, mutt, hound, beagle, bulldog, chihuahua, collie, corgi, dachshund, dalmatian,
    doberman, german shepherd, golden retriever, greyhound, husky, labrador, black lab, yellow lab, pitbull, pit bull,
    poodle, pug, retriever, rottweiler, schnauzer, sheepdog, spaniel, terrier, whippet
horse: equine; pony, foal, colt, mare, stallion
sheep: ewe; lamb, ram
cow: cattle; calf, bull, ox, heifer
elephant:
bear: ; polar bear, grizzly, panda
zebra:
giraffe:
backpack: rucksack, knapsack
umbrella: ; parasol
handbag: purse, pocketbook; tote
tie: necktie; bow tie
suitcase: luggage; briefcase
frisbee: flying disc
skis: ski
snowboard:
sports ball: ball; soccer ball, tennis ball, beach ball
kite:
baseball bat: ; bat
baseball glove: baseball mitt, catcher's mitt; mitt
skateboard:
surfboard: ; longboard
tennis racket: tennis racquet; racket, racquet
bottle:
wine glass: wineglass, glass of wine; champagne glass, goblet
cup: ; mug, teacup
fork:
knife: ; pocketknife
spoon: ; teaspoon, tablespoon
bowl:
banana:
apple:
sandwich: ; hamburger, burger, cheeseburger, panini
orange: ; orange slice, tangerine, clementine
broccoli:
carrot:
hot dog:
pizza:
donut: doughnut; bagel
cake: ; cheesecake, cupcake, shortcake, pancake
chair: ; seat, stool, armchair, wheelchair, highchair
couch: sofa, settee; loveseat, futon, recliner
potted plant: pot plant, houseplant, house plant
bed:
dining table: ; table, desk
toilet: toilet seat, commode; urinal
tv: television, television set, tv set; monitor, computer monitor
laptop: laptop computer, notebook computer; computer, netbook
mouse: computer mouse
remote: remote control
keyboard: computer keyboard
cell phone: mobile phone, smartphone; phone, telephone, iphone
microwave: microwave oven
oven: ; stove, stove top oven, stovetop
toaster: toaster oven
sink: washbasin
refrigerator: fridge; freezer
book: ; cookbook, paperback, textbook
clock: ; alarm clock
vase:
scissors: scissor
teddy bear: stuffed bear, teddy
hair drier: hair dryer, blow dryer
toothbrush:
"""


def _read() -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Names and kinds of each category; a line that is indented goes on with the one before it."""
    names: dict[str, tuple[str, ...]] = {}
    kinds: dict[str, tuple[str, ...]] = {}
    for line in _CATEGORIES.strip().replace("\n    ", " ").split("\n"):
        category, words = line.split(":")
        other, _, some = words.partition(";")
        names[category], kinds[category] = _list(other), _list(some)
    return names, kinds


def _list(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


NAMES, KINDS = _read()

NO_OBJECT = ("home plate", "train track", "train station", "bus stop", "bus station")
"""Expressions that hold the name of an object and don't stand for one."""
QUALIFIERS = word_set("adult baby female male mother passenger")
"""Words for people that are adjectives right before another object, as in "a baby elephant" and "a passenger train"."""
OTHER_ANIMALS = word_set("animal cub deer goat lion monkey pig rabbit squirrel tiger")
"""Words before which they are adjectives as well, though COCO has no category of these."""
COMPOUND_HEADS = word_set("bird boat chair coat dog fish hat house lamp plane shirt snake spoon suit truck worm")
"""Nouns that a word written as one ends in if it stands for one of them: a goldfish is a fish. Of most nouns this is
not so; an elephant is no ant."""
NO_COMPOUNDS = word_set(
    """crayfish cuttlefish jellyfish selfish shellfish starfish jailbird corndog hotdog somewhat powerhouse warehouse
    lawsuit pursuit"""
)
"""Words that end in one of them and stand for something else."""
