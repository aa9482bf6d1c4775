"""What the checks know about C: where the sources are, and their text without comments and strings."""
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
C_FOLDERS = ("include", "src", "tests", "bench")
C_SUFFIXES = (".c", ".h", ".cc", ".cu", ".cuh")

# A comment, a string or a character, in one pass from the left: each hides the others inside it.
OPAQUE = re.compile(
    r"//(?:[^\n\\]|\\.)*|/\*.*?\*/|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'", re.DOTALL)


def files(folders=C_FOLDERS, suffixes=C_SUFFIXES):
    """Paths relative to the root, sorted; the checks need no git to find them."""
    found = []
    for folder in folders:
        for parent, folders_inside, names in os.walk(os.path.join(ROOT, folder)):
            folders_inside[:] = [name for name in folders_inside if name != "__pycache__"]
            found += [os.path.relpath(os.path.join(parent, name), ROOT)
                      for name in names if name.endswith(suffixes)]
    return sorted(found)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def blank(text):
    """As many characters, newlines kept, so that offsets and line numbers stay true."""
    return re.sub(r"[^\n]", " ", text)


def code(text):
    """The text with comments blanked and strings emptied: what is left is what the compiler reads."""
    def hide(match):
        s = match.group()
        return blank(s) if s.startswith("/") else s[0] + blank(s[1:-1]) + s[-1]
    return OPAQUE.sub(hide, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1
