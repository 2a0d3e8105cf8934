"""How is a file read that may be damaged, huge or hostile? Within limits, and with one kind of error for all formats.

Whatever a library raises becomes an `UnreadableError`, which says what is wrong with the file; the caller, who knows
what the file is for, says what to do about it.
"""

from hwnas.reading.digests import checked_sums, inside, sha256_of
from hwnas.reading.json_files import as_type, parse_json, read_as, read_json, read_object, unsealed
from hwnas.reading.memory import check_memory, gunzipped, unpacked_zip_bytes
from hwnas.reading.text import ROUGHLY, TEXT_BYTES, csv_rows, made_of, read_bytes, read_text, unquoted
from hwnas.reading.yaml_files import parse_yaml, read_yaml

__all__ = [
    "ROUGHLY", "TEXT_BYTES", "as_type", "check_memory", "checked_sums", "csv_rows", "gunzipped", "inside", "made_of",
    "parse_json", "parse_yaml", "read_as", "read_bytes", "read_json", "read_object", "read_text", "read_yaml",
    "sha256_of", "unpacked_zip_bytes", "unquoted", "unsealed",
]  # fmt: skip
