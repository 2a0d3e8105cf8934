"""How is a valid input spoiled? In its bytes, and in its structure."""

import copy
import json
import struct
from functools import cache

ODD = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\n", b"\r\n", b"'", b'"', b"{", b"[", b"}", b"]", b":", b",", b";", b"-",
    b"*a", b"&a ", b"<<: ", b"!!python/object ", b"../../x", b"/etc/passwd", b"\x1b[31m", b"=1+1", b"nan", b"1e999",
    b"-1", b"99999999999999999999", b"9" * 5000, "\u202e".encode(), b"0x7fffffffffffffff", b"[" * 200, b"null", b"~",
    b"|",
)  # fmt: skip

VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**62, 2**64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", "x",
    "../../x", "nan", "\x00", "\x1b[2J", "a" * 3000, [], [[]], {}, {"a": 1}, [1, "a", None], {"": {}}, "1",
    "=cmd|'/c'!A0", [0] * 300,
)  # fmt: skip


def of_bytes(data, rng):
    """Flip, cut, insert, repeat or overwrite bytes, at one to four places."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data) + 1))
        kind = int(rng.integers(6))
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = ODD[int(rng.integers(len(ODD)))]
        elif kind == 3:
            data[at:at] = data[at : at + int(rng.integers(1, 60))]
        elif kind == 4:
            del data[at : at + int(rng.integers(1, 60))]
        else:
            odd = ODD[int(rng.integers(len(ODD)))]
            data[at : at + len(odd)] = odd
    return bytes(data)


def of_values(values, rng):
    """Change plain values at one to three places: another type, a missing, repeated or unknown entry, another size."""
    values = json.loads(json.dumps(values))
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(values))
        if not places:
            return _odd(rng)
        holder, key = places[int(rng.integers(len(places)))]
        kind = int(rng.integers(6))
        if kind <= 2:
            holder[key] = _odd(rng)
        elif kind == 3:
            del holder[key]
        elif kind == 4 and isinstance(holder, dict):
            holder[str(key) + "x"] = holder[key]
        else:
            other, inner = places[int(rng.integers(len(places)))]
            holder[key] = json.loads(json.dumps(other[inner]))
    return values


def _odd(rng):
    return copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])


def _places(values):
    """Every place in nested lists and mappings."""
    left = [values]
    while left:
        holder = left.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            yield holder, key
            left.append(holder[key])


def of_csv(data, rng):
    """Swap, repeat, empty or replace cells, rows and columns."""
    rows = [line.split(",") for line in data.decode(errors="replace").split("\n")]
    for _ in range(int(rng.integers(1, 4))):
        row = rows[int(rng.integers(len(rows)))]
        at = int(rng.integers(len(row)))
        kind = int(rng.integers(5))
        if kind == 0:
            row[at] = str(VALUES[int(rng.integers(len(VALUES) - 2))] if rng.integers(30) else 7)[:4000]
        elif kind == 1:
            rows.append(list(row))
        elif kind == 2 and len(row) > 1:
            del row[at]
        elif kind == 3:
            row.insert(at, row[0])
        else:
            other = rows[int(rng.integers(len(rows)))]
            row[at] = other[int(rng.integers(len(other)))]
    return "\n".join(",".join(row) for row in rows).encode(errors="replace")


def of_json(data, rng):
    """Change the values of a JSON text; now and then a key stands twice."""
    text = json.dumps(of_values(json.loads(data), rng))
    if rng.integers(20) == 0 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + ", " + text[1:]
    return text.encode()


def of_yaml(data, rng):
    """Change the values of a YAML text."""
    import yaml

    values = of_values(_yaml(data), rng)
    if _has_huge_number(values):
        return json.dumps(values).encode()  # which is YAML, too
    return yaml.dump(values, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True).encode()


@cache
def _yaml(data):
    import yaml

    return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _has_huge_number(values):
    return any(isinstance(h[k], int) and abs(h[k]) > 2**64 for h, k in _places([values]))


def of_safetensors(data, rng):
    """Change the values of a safetensors file's header, or of the settings in it."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if rng.integers(2) and "hwnas" in header.get("__metadata__", {}):
        inner = json.loads(header["__metadata__"]["hwnas"])
        inner.pop("sha256", None)  # else nothing beyond it is ever reached
        header["__metadata__"]["hwnas"] = json.dumps(of_values(inner, rng))
    else:
        header = of_values(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]
