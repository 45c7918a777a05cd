"""The picture book's drawings, as data: every kind of object is a few simple shapes on a grid of 100 x 100.

Shapes are painted in order, each written as `shape role numbers...` and ended by a semicolon or a line break:
    e ellipse (x1 y1 x2 y2)   r rectangle (x1 y1 x2 y2)   p polygon (x y x y ...)   l line (width x y x y ...)
    a arc (width x1 y1 x2 y2 start end), angles in degrees clockwise from three o'clock
A role is a colour. `main` is the object's own colour, `dark` and `light` are its shades; the others are fixed
(`draw.FIXED_COLOURS`). All numbers are integers, so the drawing is the same on every machine.
"""

PERSON = """
    p ink 30 66 48 66 46 97 32 97; p ink 52 66 70 66 68 97 54 97; e dark 26 93 47 100; e dark 53 93 74 100
    p main 22 36 78 36 74 70 26 70; e main 20 31 80 50; e skin 30 5 70 33; p hair 28 17 32 6 50 1 68 6 72 17 60 11 40 11
    e ink 40 17 45 21; e ink 55 17 60 21; a ink 2 42 19 58 28 20 160
"""
ARMS_DOWN = "l skin 9 22 42 12 62; l skin 9 78 42 88 62"
# What a person does, painted over the person. The box is wider where there are props (world.DOING_WIDTH).
DOING_SHAPES = {
    None: ARMS_DOWN,
    "waving": "l skin 9 22 42 12 62; l skin 9 78 42 94 18; e skin 87 8 100 20",
    "reading": "l skin 8 22 42 34 60; l skin 8 78 42 66 60; p white 26 48 50 54 50 70 26 64; p white 74 48 50 54 50 70 74 64; l ink 2 50 54 50 70; l ink 2 26 48 50 54 74 48; l ink 2 26 64 50 70 74 64",
    "painting": "l skin 7 36 44 26 60; l skin 7 64 44 84 38; l wood 3 84 38 98 28; l wood 4 112 14 100 99; l wood 4 132 14 146 99; r white 98 14 148 58; r ink 98 58 148 62; e red 106 22 120 36; e blue 124 26 140 42; p leaf 104 54 122 40 142 54",
    "fishing": "l skin 7 36 44 26 60; l skin 7 64 44 86 46; l wood 4 80 54 146 6; l ink 2 146 6 146 66; e red 141 64 151 74",
    "ironing": "l skin 7 36 44 26 60; l skin 7 64 44 92 48; r white 72 58 156 65; l grey 3 90 65 136 99; l grey 3 136 65 90 99; p blue 92 58 92 50 104 44 118 58; l ink 3 94 49 108 46",
}  # fmt: skip

SPRITES = {
    "cat": """p main 30 40 34 6 50 24 66 24 82 6 86 40; e main 26 14 90 62; e main 18 44 78 100; a main 9 -6 52 34 92 60 220
        e white 40 30 54 46; e white 64 30 78 46; e ink 45 34 52 44; e ink 68 34 75 44; p pink 56 46 62 46 59 50; l ink 2 36 50 22 47; l ink 2 82 50 96 47; e light 36 70 62 98""",
    "dog": """e main 14 42 76 78; r main 18 62 30 99; r main 58 62 70 99; r dark 33 66 42 97; r dark 47 66 55 97; l main 7 16 52 3 28
        e main 56 10 92 52; e main 78 28 100 50; e dark 52 12 66 48; e ink 76 22 83 30; e ink 93 32 100 40""",
    "horse": """e main 14 36 76 68; r main 18 56 27 99; r main 64 56 73 99; r dark 31 58 39 97; r dark 52 58 60 97; p main 60 50 72 10 84 14 80 54
        p main 70 8 88 8 100 28 92 36 76 26; p dark 58 48 66 10 74 6 70 50; p main 74 10 77 0 82 9; l dark 7 16 42 6 50 5 78; e ink 80 14 85 20""",
    "cow": """e main 10 28 76 74; r main 16 60 26 98; r main 62 60 72 98; r dark 30 64 38 96; r dark 50 64 58 96; e spot 20 32 40 52; e spot 46 40 64 60; l main 4 12 40 4 76
        e main 68 12 92 48; e pink 74 34 96 54; e ink 76 38 80 43; e ink 88 38 92 43; p white 70 16 66 2 76 12; p white 86 14 94 2 92 16; e ink 76 22 82 29""",
    "sheep": """r ink 24 66 32 98; r ink 60 66 68 98; r ink 38 68 45 96; r ink 50 68 57 96; e main 8 34 36 64; e main 12 52 42 80; e main 26 22 56 54; e main 34 50 62 82; e main 46 26 76 58; e main 52 46 78 76; e main 24 38 66 72
        e ink 66 24 94 62; e ink 62 26 74 40; e white 78 34 86 43; e ink 81 36 85 41; e main 66 14 88 34""",
    "rabbit": """e main 32 0 46 44; e main 54 0 68 44; e pink 36 6 43 38; e pink 57 6 64 38; e main 24 28 76 66; e main 16 54 84 100; e light 32 66 68 100; e white 6 74 24 92
        e ink 37 42 44 50; e ink 56 42 63 50; p pink 46 52 54 52 50 57; e main 14 90 44 101; e main 56 90 86 101""",
    "bird": """p dark 0 52 26 42 30 60 4 70; e main 16 24 74 88; e main 54 6 92 52; p beak 88 22 102 30 88 36; e white 70 16 82 30; e ink 74 19 80 27; p dark 28 40 62 36 52 72 34 74; e light 44 62 66 84""",
    "duck": """p main 0 46 20 40 26 70; e main 4 38 78 96; e main 54 4 90 50; p beak 84 20 104 26 104 36 84 40; e white 70 12 81 26; e ink 74 15 80 24; p dark 18 52 58 48 50 78 26 80""",
    "fish": """p dark 0 14 30 46 30 56 0 88; p dark 44 22 66 0 72 24; p dark 48 80 62 100 68 78; e main 16 14 96 88; a dark 4 54 24 78 80 270 90; e white 74 32 90 52; e ink 80 36 88 48; a ink 3 82 54 104 76 110 190; e light 28 34 42 50; e light 34 54 48 70""",
    "butterfly": """e main 2 4 50 56; e main 50 4 98 56; e main 12 46 48 98; e main 52 46 88 98; e light 14 16 38 42; e light 62 16 86 42; e dark 22 60 40 82; e dark 60 60 78 82; e ink 44 14 56 92; l ink 3 48 16 36 0; l ink 3 52 16 64 0""",
    "car": """p main 22 50 32 12 70 12 84 50; p glass 30 48 37 20 50 20 50 48; p glass 54 48 54 20 67 20 76 48; p main 2 50 92 46 98 58 98 82 2 82; r dark 2 72 98 82; e yellow 90 54 98 66; e ink 12 64 36 101; e ink 64 64 88 101; e grey 19 74 29 91; e grey 71 74 81 91""",
    "bus": """p main 2 8 96 8 99 20 99 86 2 86; r glass 8 18 24 46; r glass 28 18 44 46; r glass 48 18 64 46; p glass 80 18 94 18 97 60 80 60; r dark 67 18 77 84; r light 2 56 64 63; e ink 12 72 32 101; e ink 66 72 86 101; e grey 18 80 26 93; e grey 72 80 80 93""",
    "truck": """r main 0 6 64 80; r dark 0 66 64 80; l light 4 8 36 56 36; p main 66 24 86 24 98 50 99 82 66 82; p glass 72 30 84 30 92 50 72 50; e yellow 92 58 100 68; e ink 8 68 28 101; e ink 36 68 56 101; e ink 72 68 92 101; e grey 14 77 22 92; e grey 42 77 50 92; e grey 78 77 86 92""",
    "bicycle": """a main 9 0 38 42 100 0 360; a main 9 58 38 100 100 0 360; e grey 17 64 25 74; e grey 75 64 83 74; l main 8 21 69 38 34 70 34 48 69 21 69; l main 8 38 34 48 69; l main 8 79 69 66 14; p ink 28 24 48 24 44 32 30 32; l ink 5 66 14 82 8; e ink 44 62 54 76""",
    "boat": """l wood 3 50 2 50 68; p white 54 6 54 60 92 60; p light 46 14 46 60 16 60; p main 2 64 98 64 82 98 18 98; p dark 8 78 92 78 88 86 12 86""",
    "plane": """p main 2 8 16 6 30 42 12 46; e main 6 34 98 72; p glass 80 40 94 46 96 52 80 52; p dark 36 54 60 54 40 98 26 98; p dark 40 42 58 42 46 10 36 10; e glass 34 44 42 54; e glass 48 44 56 54; e glass 62 44 70 54""",
    "tree": """p trunk 42 58 58 58 62 100 38 100; e main 8 30 54 74; e main 46 30 92 74; e main 22 2 78 52; e main 28 36 72 76; e light 32 10 52 28; e light 18 40 34 54; e dark 60 50 80 66""",
    "flower": """l leaf 7 50 46 50 98; e leaf 50 68 80 82; e leaf 20 76 50 90; e main 34 0 66 28; e main 34 34 66 62; e main 8 16 42 46; e main 58 16 92 46; e main 14 4 44 32; e main 56 4 86 32; e main 14 30 44 58; e main 56 30 86 58; e yellow 36 18 64 44""",
    "mushroom": """p cream 36 48 64 48 70 96 30 96; e cream 30 86 70 101; p main 2 56 6 34 22 14 50 4 78 14 94 34 98 56; e main 2 44 98 66; e white 20 24 38 40; e white 50 12 68 28; e white 66 36 82 50; e white 38 42 50 54""",
    "house": """r main 12 44 88 98; p roof 0 48 50 4 100 48; r roof 70 10 80 30; r wood 42 64 60 98; e yellow 54 80 58 84; r glass 20 56 36 74; r glass 66 56 82 74; l white 2 28 56 28 74; l white 2 74 56 74 74; r dark 12 92 40 98; r dark 62 92 88 98""",
    "chair": """r main 8 0 24 100; r dark 11 6 21 46; r main 8 46 94 60; r main 80 58 94 100; r dark 26 60 78 66""",
    "table": """r main 0 8 100 28; r dark 0 24 100 32; p main 6 30 18 30 16 100 8 100; p main 82 30 94 30 92 100 84 100""",
    "lamp": """r ink 44 46 56 92; e ink 22 86 78 101; p main 28 2 72 2 96 52 4 52; p light 36 6 48 6 42 48 18 48; e yellow 38 48 62 60""",
    "clock": """e main 0 0 100 100; e white 14 14 86 86; l ink 5 50 50 50 24; l ink 5 50 50 68 60; e ink 45 45 55 55; r ink 48 16 52 22; r ink 48 78 52 84; r ink 16 48 22 52; r ink 78 48 84 52""",
    "cup": """a main 9 58 22 104 76 270 90; p main 6 8 76 8 70 98 12 98; e dark 6 0 76 20; e wood 12 4 70 17; r light 16 36 24 80""",
    "book": """p white 16 78 94 78 98 90 98 98 20 98; p main 6 6 84 6 92 82 16 82; p dark 6 6 18 6 28 82 16 82; p main 6 6 16 82 18 98 8 90; p light 36 22 72 22 74 38 38 38; l grey 2 20 90 96 90""",
    "ball": """e main 0 0 100 100; p white 36 2 64 2 72 50 64 98 36 98 28 50; p main 44 0 56 0 60 50 56 100 44 100 40 50; e light 18 16 34 32""",
    "box": """r main 6 30 94 100; p dark 0 12 46 28 46 38 0 32; p dark 100 12 54 28 54 38 100 32; r dark 6 30 94 38; r light 42 38 58 64; l dark 3 12 92 88 92""",
    "umbrella": """l wood 4 50 6 50 92; a wood 5 34 82 52 102 0 180; p main 0 52 8 28 26 10 50 4 74 10 92 28 100 52; e dark 0 42 33 62; e light 33 42 67 62; e dark 67 42 100 62; p main 0 50 8 28 26 10 50 4 74 10 92 28 100 50; p light 33 50 42 16 50 4 58 16 67 50""",
    "balloon": """l ink 2 50 70 46 80 54 90 50 100; e main 4 0 96 74; p main 42 80 58 80 50 70; e light 22 12 42 34""",
    "kite": """p main 50 0 94 34 50 72 6 34; p light 50 0 94 34 50 34; p dark 50 72 6 34 50 34; l ink 2 50 72 58 82 46 90 54 100; p main 44 78 60 86 62 78 44 86; p light 40 92 56 98 58 90 40 98""",
    "hat": """e main 0 62 100 98; p main 22 78 26 22 38 6 62 6 74 22 78 78; r dark 23 56 77 72; e light 34 12 46 34""",
}  # fmt: skip
