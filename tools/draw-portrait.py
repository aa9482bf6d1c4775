#!/usr/bin/env python3
"""Draws the portraits of share/demo: flat, friendly faces, from signed distances.

tools/draw-portrait.py NAME FILE.png     NAME is a key of PEOPLE

A shape is a function (x, y) -> distance in pixels to its outline, negative inside; half a pixel on
either side of the outline is the antialiased edge. Shapes are painted in order, back to front.
Standard library only.
"""
import math
import struct
import sys
import zlib

WIDTH, HEIGHT = 384, 512

PEOPLE = {
    "ada": dict(
        sky=((0xF7, 0xD9, 0xB8), (0xE8, 0xA9, 0x8C)), skin=(0xF3, 0xC7, 0xA5), hair=(0x5A, 0x2E, 0x22),
        shirt=(0x2F, 0x6F, 0x73), collar=(0xF4, 0xEF, 0xE2), iris=(0x3E, 0x6B, 0x4F), long_hair=True),
    "otto": dict(
        sky=((0xBF, 0xDD, 0xE6), (0x7F, 0xAF, 0xC4)), skin=(0x9A, 0x66, 0x48), hair=(0x24, 0x1E, 0x22),
        shirt=(0xD9, 0x8B, 0x2B), collar=(0x3B, 0x4A, 0x6B), iris=(0x4A, 0x2C, 0x1A), long_hair=False),
}


# Shapes.

def ellipse(cx, cy, rx, ry):
    """First-order distance: the implicit function over the length of its gradient."""
    def distance(x, y):
        u, v = (x - cx) / rx, (y - cy) / ry
        value = math.hypot(u, v)
        slope = math.hypot(u / rx, v / ry)
        return value * (value - 1) / slope if slope > 0 else -min(rx, ry)
    return distance


def box(cx, cy, half_w, half_h, radius):
    def distance(x, y):
        dx, dy = abs(x - cx) - half_w + radius, abs(y - cy) - half_h + radius
        return math.hypot(max(dx, 0), max(dy, 0)) + min(max(dx, dy), 0) - radius
    return distance


def arc(cx, cy, radius, half_angle, thickness, upward=True):
    """A stroke with round ends along a circle, around its top (or its bottom)."""
    end_x, end_y = radius * math.sin(half_angle), radius * math.cos(half_angle)

    def distance(x, y):
        px, py = abs(x - cx), (cy - y) if upward else (y - cy)
        on_arc = math.atan2(px, py) <= half_angle
        d = abs(math.hypot(px, py) - radius) if on_arc else math.hypot(px - end_x, py - end_y)
        return d - thickness / 2
    return distance


def both(*shapes):
    return lambda x, y: max(shape(x, y) for shape in shapes)


def without(shape, hole):
    return lambda x, y: max(shape(x, y), -hole(x, y))


def below(line_y):
    return lambda x, y: line_y - y


def above(line_y):
    return lambda x, y: y - line_y


# The face.

def shade(colour, factor):
    return tuple(min(255, round(c * factor)) for c in colour)


def eye(cx, cy, look):
    return [
        (ellipse(cx, cy, 17, 13), (0xFD, 0xFB, 0xF7), 1),
        (ellipse(cx, cy, 9.5, 9.5), look["iris"], 1),
        (ellipse(cx, cy, 4.8, 4.8), (0x14, 0x10, 0x12), 1),
        (ellipse(cx + 3, cy - 3.5, 2.4, 2.4), (0xFF, 0xFF, 0xFF), 1),
        (arc(cx, cy + 9, 23, 0.78, 4), shade(look["hair"], 0.7), 1),
        (arc(cx, cy + 10, 42, 0.52, 6.5), shade(look["hair"], 0.9), 1),
    ]


def mouth(cx, cy):
    """A small smile, a little open, so that there is something to move."""
    lips = both(ellipse(cx, cy - 9, 33, 26), below(cy - 4))
    return [
        (lips, (0xB8, 0x4A, 0x4A), 1),
        (both(ellipse(cx, cy - 9, 28, 21), below(cy - 1)), (0x5E, 0x1B, 0x22), 1),
        (both(ellipse(cx, cy - 9, 26, 19), below(cy - 1), above(cy + 4)), (0xFA, 0xF5, 0xEE), 1),
    ]


def hair_front(look):
    """The cap of hair: what of a large ellipse lies above the hairline's curve."""
    if look["long_hair"]:
        return without(ellipse(192, 182, 112, 98), ellipse(212, 266, 104, 116))
    return without(both(ellipse(192, 200, 97, 110), above(228)), ellipse(192, 262, 84, 106))


def portrait(look):
    """(shape, colour, opacity) back to front."""
    skin, shadow = look["skin"], shade(look["skin"], 0.84)
    layers = []
    if look["long_hair"]:
        back = shade(look["hair"], 0.82)
        layers += [(ellipse(192, 196, 116, 112), back, 1), (box(192, 290, 114, 110, 54), back, 1)]
    layers += [
        (ellipse(192, 548, 190, 156), look["shirt"], 1),
        (arc(192, 384, 54, 1.3, 24, upward=False), look["collar"], 1),
        (box(192, 360, 37, 66, 30), shadow, 1),
        (ellipse(192, 396, 44, 34), shadow, 1),
        (ellipse(101, 252, 17, 25), shade(skin, 0.92), 1),
        (ellipse(283, 252, 17, 25), shade(skin, 0.92), 1),
        (ellipse(192, 240, 90, 118), skin, 1),
        (ellipse(136, 290, 19, 13), (0xE0, 0x6A, 0x5C), 0.28),
        (ellipse(248, 290, 19, 13), (0xE0, 0x6A, 0x5C), 0.28),
        (arc(192, 268, 14, 0.85, 5, upward=False), shade(skin, 0.74), 1),
    ]
    layers += eye(155, 242, look) + eye(229, 242, look) + mouth(192, 318)
    layers.append((hair_front(look), look["hair"], 1))
    return layers


# The picture.

def paint(look):
    """Rows of RGB bytes."""
    layers = portrait(look)
    top, bottom = look["sky"]
    for row in range(HEIGHT):
        y = row + 0.5
        sky = [a + (b - a) * y / HEIGHT for a, b in zip(top, bottom)]
        line = bytearray()
        for column in range(WIDTH):
            x = column + 0.5
            pixel = sky
            for shape, colour, opacity in layers:
                cover = opacity * min(1, max(0, 0.5 - shape(x, y)))
                if cover > 0:
                    pixel = [p + (c - p) * cover for p, c in zip(pixel, colour)]
            line += bytes(round(p) for p in pixel)
        yield bytes(line)


def png(rows):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    pixels = b"".join(b"\0" + row for row in rows)                  # filter type 0 on every row
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) +
            chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b""))


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in PEOPLE:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(PEOPLE)} FILE.png")
    with open(sys.argv[2], "wb") as out:
        out.write(png(paint(PEOPLE[sys.argv[1]])))


if __name__ == "__main__":
    main()
