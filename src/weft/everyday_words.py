"""Words for everyday things, to put in each other's place: animals, and things that stand, lie or hang somewhere.

What a weave that copies learns is to say what it is told is there, whatever that is called; so beside the nouns that a
classifier knows, the lists hold others that people take photos of.
"""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """``"a b, c"`` as its words, each of one part or several."""
    return tuple(" ".join(word.split()) for word in text.split(","))


ANIMALS = words(
    """fish, shark, rooster, hen, ostrich, bird, eagle, owl, frog, turtle, lizard, crocodile, snake, spider, peacock,
    duck, goose, swan, elephant, kangaroo, koala, snail, crab, lobster, penguin, whale, sea lion, dog, wolf, hyena,
    fox, cat, lynx, leopard, lion, tiger, cheetah, bear, meerkat, beetle, bee, ant, butterfly, rabbit, hamster,
    squirrel, beaver, guinea pig, horse, zebra, pig, hippopotamus, cow, buffalo, sheep, goat, deer, camel, llama,
    otter, monkey, red panda, panda, giraffe, donkey, mouse, parrot, seal, dolphin, gorilla, raccoon, hedgehog,
    flamingo, lamb, bull, puppy, kitten, chicken, pigeon, crow, sparrow"""
)
"""What may be called so where an animal is."""
THINGS = words(
    """backpack, barrel, basket, bathtub, bench, bicycle, birdhouse, bookcase, bottle, bowl, box, broom, bucket, cake,
    candle, cannon, car, cardboard box, chair, clock, coffee mug, couch, crate, cup, desk, drum, fan, fountain,
    guitar, hat, ice cream, kite, ladder, lamp, laptop computer, mailbox, microwave oven, mixing bowl, monitor,
    motor scooter, motorcycle, park bench, pizza, plant pot, plate, pumpkin, purse, radio, refrigerator, rocking
    chair, sandwich, shopping cart, sign, skateboard, sofa, statue, stove, suitcase, surfboard, table, table lamp,
    teapot, teddy bear, telephone, television, tent, toaster, toy, tractor, trash can, tricycle, typewriter,
    umbrella, vacuum cleaner, vase, violin, washing machine, water bottle, wheelbarrow, wooden spoon, accordion,
    balloon, banjo, broccoli, cauldron, cello, coffeepot, computer keyboard, dining table, doll, envelope, goblet,
    grand piano, harp, hourglass, jug, loaf of bread, lantern, piggy bank, pillow, pineapple, pot of flowers, quilt,
    scale, sewing machine, sombrero, stool, sundial, teacup, totem pole, tray, tripod, trombone, watering can"""
)
"""What may be called so where something stands, lies or hangs."""
SCENES = frozenset(
    words(
        """
    altar, apiary, aircraft carrier, bakery, barbershop, barn, beach, boathouse, bookstore, breakwater, bridegroom,
    butcher shop, candy store, castle, church, cliff, cliff dwelling, coral reef, dam, dock, dome, drilling rig,
    geyser, greenhouse, grocery store, home theater, lakeshore, library, lighthouse, maze, megalith, mobile home,
    monastery, mosque, mountain, movie theater, obelisk, palace, patio, pier, planetarium, prison, promontory,
    restaurant, sandbar, sawmill, shipwreck, shoe store, stage, stone wall, stupa, suspension bridge, through arch
    bridge, thatched roof, tile roof, tobacco shop, toy store, valley, viaduct, volcano, water tower, baseball
    player, scuba diver, vaulted or arched ceiling, swing, hay, bubble, website, menu, crossword, comic book, wool,
    velvet fabric, mask"""
    )
)
"""Nouns of a classifier that are more, or less, than one thing, and are not put in another's place."""
UNCOUNTED = frozenset(
    words(
        """
    broccoli, guacamole, consomme, dough, hay, red wine, eggnog, chocolate syrup, carbonara, espresso, corn, lotion,
    hair spray, sunscreen, face powder, toilet paper, paper towel, jeans, pajamas, sunglasses, binoculars, clogs,
    swim trunks, tights for gymnastics, parallel bars, mashed potatoes, wool, chain mail, velvet fabric, rapeseed,
    meatloaf, perfume, lipstick, trifle, cabbage, cauliflower, knot"""
    )
)
"""Nouns that take no "a"."""


def with_article(noun: str) -> str:
    """``"a teapot"``, ``"an owl"``, ``"broccoli"``; an adjective may stand in front."""
    if any(noun == word or noun.endswith(f" {word}") for word in UNCOUNTED):
        return noun
    sounds_like_you = noun.startswith(("uni", "euro", "ukulele", "one-"))
    return f"an {noun}" if noun[0] in "aeiou" and not sounds_like_you else f"a {noun}"
