"""Appearance of an identity in all of its images: build, skin, hair, clothes, shoes, bag, hat.

Clothes follow a skewed palette (most people wear black, white, gray or blue), so many identities look alike from a
distance and differ in details: the shade, the spacing of stripes, sleeves, trouser length, hair, shoes, a bag. SVDNet
explains the correlation of learned weight vectors by this non-uniformity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Color = tuple[float, float, float]
T = TypeVar("T")

# Difficulty of distinguishing identities: a larger spread of shades or a larger share of patterns makes it easier.
SHADE_SPREAD = 12.0
"""Standard deviation, in sRGB levels, of a garment's color around its palette entry."""
PATTERN_SHARES = (("plain", 0.52), ("striped", 0.13), ("columns", 0.06), ("checked", 0.11), ("printed", 0.18))
"""Patterns of tops; `columns` are vertical stripes."""
BAG_SHARES = (("none", 0.46), ("backpack", 0.26), ("shoulder", 0.17), ("handbag", 0.11))
HAT_SHARES = (("none", 0.86), ("cap", 0.09), ("beanie", 0.05))

PALETTE: dict[str, Color] = {
    "black": (30, 30, 34),
    "charcoal": (66, 66, 72),
    "gray": (132, 133, 136),
    "white": (228, 227, 222),
    "navy": (34, 42, 78),
    "blue": (62, 96, 158),
    "sky": (140, 176, 208),
    "denim": (78, 92, 122),
    "khaki": (158, 142, 108),
    "brown": (96, 68, 48),
    "red": (172, 44, 48),
    "wine": (104, 34, 50),
    "pink": (216, 150, 166),
    "orange": (214, 120, 52),
    "yellow": (214, 188, 80),
    "olive": (86, 92, 58),
    "green": (52, 112, 72),
    "purple": (98, 66, 128),
    "teal": (44, 110, 118),
    "beige": (206, 190, 162),
}
TOP_SHARES = (
    ("black", 0.22), ("white", 0.16), ("gray", 0.10), ("navy", 0.08), ("blue", 0.08), ("charcoal", 0.06),
    ("sky", 0.04), ("red", 0.05), ("wine", 0.02), ("pink", 0.03), ("orange", 0.02), ("yellow", 0.02), ("olive", 0.02),
    ("green", 0.03), ("purple", 0.02), ("teal", 0.01), ("beige", 0.02), ("khaki", 0.01), ("brown", 0.01),
)  # fmt: skip
BOTTOM_SHARES = (
    ("black", 0.30), ("navy", 0.13), ("denim", 0.22), ("charcoal", 0.09), ("gray", 0.08), ("blue", 0.05),
    ("khaki", 0.05), ("white", 0.03), ("beige", 0.02), ("brown", 0.02), ("red", 0.01),
)  # fmt: skip
SHOE_SHARES = (
    ("black", 0.40), ("white", 0.24), ("charcoal", 0.08), ("gray", 0.08), ("brown", 0.08), ("red", 0.04),
    ("blue", 0.04), ("pink", 0.02), ("beige", 0.02),
)  # fmt: skip
BAG_COLOR_SHARES = (
    ("black", 0.40), ("navy", 0.12), ("gray", 0.10), ("brown", 0.08), ("red", 0.07), ("blue", 0.06), ("beige", 0.05),
    ("olive", 0.04), ("pink", 0.03), ("green", 0.02), ("white", 0.03),
)  # fmt: skip
SKINS: tuple[Color, ...] = ((232, 196, 170), (218, 176, 146), (196, 150, 118), (160, 114, 84), (112, 78, 58))
SKIN_SHARES = ((0, 0.26), (1, 0.32), (2, 0.22), (3, 0.12), (4, 0.08))
HAIRS: tuple[Color, ...] = ((26, 24, 26), (48, 36, 30), (84, 60, 42), (168, 136, 84), (150, 148, 146), (116, 58, 36))
HAIR_SHARES = ((0, 0.52), (1, 0.22), (2, 0.11), (3, 0.06), (4, 0.06), (5, 0.03))


@dataclass(frozen=True)
class Garment:
    """A piece of clothing.

    Attributes:
        color: Main color, sRGB levels.
        pattern: "plain", "striped", "columns", "checked" or "printed".
        second: Color of the pattern.
        period: Period of stripes or checks in body heights.
        print_shape: Shape of the print on the chest: "block", "disc" or "bars".
        print_height: Distance of the center of the print below the shoulders, in body heights.
        print_size: Half width in turns around the body and half height in body heights.
        print_on_back: Whether the print is also on the back.
    """

    color: Color
    pattern: str = "plain"
    second: Color = (0.0, 0.0, 0.0)
    period: float = 0.05
    print_shape: str = "block"
    print_height: float = 0.12
    print_size: tuple[float, float] = (0.1, 0.05)
    print_on_back: bool = False


@dataclass(frozen=True)
class Appearance:
    """Appearance of one identity.

    Attributes:
        shoulder: Half the shoulder width in body heights.
        girth: Factor of the width of trunk and limbs, around 1.
        leg_length: Factor of the length of the legs, around 1.
        head_size: Factor of the size of the head, around 1.
        skin: sRGB levels of the skin.
        hair: sRGB levels of the hair.
        hair_style: "short", "cropped", "long", "tail", "bun" or "bald".
        top: Shirt or other garment of the upper body.
        jacket: Color of an open jacket, visible left and right of `top` and all over the back, or None.
        sleeve: Color of the sleeves.
        sleeve_length: How far down the arm the sleeve reaches, in [0, 1].
        hem: Height of the lower edge of the top above the ground, in body heights.
        bottom: "trousers", "shorts" or "skirt".
        bottom_garment: The trousers, shorts or skirt.
        bottom_length: How far down the leg the cloth reaches, in [0, 1].
        leg_width: Factor of the width of the trouser legs, around 1.
        stripe: Color of a stripe along the outside of the trousers, or None.
        shoe: Color of the shoes.
        sole: Color of the soles.
        bag: "none", "backpack", "shoulder" or "handbag".
        bag_color: Color of the bag.
        bag_size: Factor of the size of the bag, around 1.
        bag_side: Side of the body that carries the bag, -1 or +1.
        hat: "none", "cap" or "beanie".
        hat_color: Color of the hat.
    """

    shoulder: float
    girth: float
    leg_length: float
    head_size: float
    skin: Color
    hair: Color
    hair_style: str
    top: Garment
    jacket: Color | None
    sleeve: Color
    sleeve_length: float
    hem: float
    bottom: str
    bottom_garment: Garment
    bottom_length: float
    leg_width: float
    stripe: Color | None
    shoe: Color
    sole: Color
    bag: str
    bag_color: Color
    bag_size: float
    bag_side: int
    hat: str
    hat_color: Color


def pick(rng: np.random.Generator, shares: Sequence[tuple[T, float]]) -> T:
    """Sample a value.

    Args:
        rng: Random generator; its state advances.
        shares: Values and their relative probabilities, which need not sum to 1.

    Returns:
        One of the values.
    """
    point = rng.random() * sum(share for _, share in shares)
    for value, share in shares:
        point -= share
        if point < 0:
            return value
    return shares[-1][0]


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Sample an identity according to the shares above.

    Args:
        rng: Random generator of the identity.

    Returns:
        Body measures, clothes and bag of a new identity.
    """
    woman = rng.random() < 0.48
    top_color = pick(rng, TOP_SHARES)
    bottom = pick(
        rng,
        (("trousers", 0.60), ("shorts", 0.20), ("skirt", 0.20)) if woman else (("trousers", 0.72), ("shorts", 0.28)),
    )
    top = _top(rng, top_color)
    jacket = _shade(rng, pick(rng, TOP_SHARES)) if rng.random() < 0.16 else None
    outer = jacket or top.color
    if jacket is None and rng.random() < 0.07:
        outer = _shade(rng, pick(rng, TOP_SHARES))  # sleeves of a different color
    long_sleeves = jacket is not None or rng.random() < 0.45
    style = pick(
        rng,
        (("long", 0.42), ("tail", 0.24), ("bun", 0.12), ("short", 0.22))
        if woman
        else (("short", 0.66), ("cropped", 0.24), ("bald", 0.06), ("tail", 0.04)),
    )
    length = {"trousers": (0.86, 1.0), "shorts": (0.30, 0.60), "skirt": (0.30, 0.78)}[bottom]
    bottom_garment = Garment(_shade(rng, pick(rng, BOTTOM_SHARES)))
    if bottom == "skirt" and rng.random() < 0.35:
        bottom_garment = top if top.pattern != "printed" else Garment(top.color)  # a dress
    return Appearance(
        shoulder=(0.108 if woman else 0.122) * _about(rng, 0.06),
        girth=(0.94 if woman else 1.0) * _about(rng, 0.10),
        leg_length=_about(rng, 0.025),
        head_size=_about(rng, 0.04),
        skin=_near(rng, SKINS[pick(rng, SKIN_SHARES)], 5),
        hair=_near(rng, HAIRS[pick(rng, HAIR_SHARES)], 5),
        hair_style=style,
        top=top,
        jacket=jacket,
        sleeve=outer,
        sleeve_length=rng.uniform(0.88, 1.0) if long_sleeves else rng.uniform(0.16, 0.46),
        hem=rng.uniform(0.36, 0.44) if long_sleeves and rng.random() < 0.18 else rng.uniform(0.45, 0.515),
        bottom=bottom,
        bottom_garment=bottom_garment,
        bottom_length=rng.uniform(*length),
        leg_width=_about(rng, 0.10) * (0.88 if woman else 1.0),
        stripe=_shade(rng, "white") if bottom == "trousers" and rng.random() < 0.08 else None,
        shoe=_shade(rng, pick(rng, SHOE_SHARES)),
        sole=_shade(rng, pick(rng, (("white", 0.4), ("charcoal", 0.6)))),
        bag=pick(rng, BAG_SHARES),
        bag_color=_shade(rng, pick(rng, BAG_COLOR_SHARES)),
        bag_size=_about(rng, 0.12),
        bag_side=-1 if rng.random() < 0.5 else 1,
        hat=pick(rng, HAT_SHARES),
        hat_color=_shade(rng, pick(rng, TOP_SHARES)),
    )


def _top(rng: np.random.Generator, name: str) -> Garment:
    pattern = pick(rng, PATTERN_SHARES)
    dark = sum(PALETTE[name]) < 330
    contrast = (
        (("white", 0.5), ("gray", 0.2), ("red", 0.1), ("yellow", 0.1), ("sky", 0.1))
        if dark
        else (("black", 0.3), ("navy", 0.2), ("red", 0.2), ("blue", 0.2), ("green", 0.1))
    )
    return Garment(
        color=_shade(rng, name),
        pattern=pattern,
        second=_shade(rng, pick(rng, contrast)),
        period=rng.uniform(0.030, 0.085),
        print_shape=pick(rng, (("block", 0.3), ("disc", 0.3), ("bars", 0.4))),
        print_height=rng.uniform(0.09, 0.17),
        print_size=(rng.uniform(0.06, 0.15), rng.uniform(0.025, 0.07)),
        print_on_back=rng.random() < 0.35,
    )


def _about(rng: np.random.Generator, spread: float) -> float:
    """Sample a factor around 1, at most two spreads away."""
    return 1.0 + spread * min(2.0, max(-2.0, rng.normal()))


def _near(rng: np.random.Generator, color: Color, spread: float) -> Color:
    light, *tints = rng.normal(0.0, spread, 4)
    red, green, blue = (min(245.0, max(12.0, c + light + 0.5 * t)) for c, t in zip(color, tints, strict=True))
    return (red, green, blue)


def _shade(rng: np.random.Generator, name: str) -> Color:
    return _near(rng, PALETTE[name], SHADE_SPREAD)
