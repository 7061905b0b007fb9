"""What a schema says of a string, as a language."""

from typing import Any

from cadcpp.schema.charset import ANY
from cadcpp.schema.language import ALL, Chars, Language, both, repeat
from cadcpp.schema.pattern import PatternError, pattern
from cadcpp.schema.place import Place, SchemaError

_DATE = (
    r"[12]\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:0\d|1[0-3]):[0-5]\d)"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?"
_HOST = rf"(?:{_LABEL}\.)+[a-z]{{2,6}}"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PATH = r"(?:/[A-Za-z0-9._~-]*)*(?:\?[A-Za-z0-9._~=&-]*)?(?:#[A-Za-z0-9._~-]*)?"
FORMATS = {  # each at least as strict as its standard
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": r"P(?:\d{1,4}D(?:T\d{1,2}H)?|T(?:\d{1,2}H)?\d{1,2}M|T\d{1,3}S)",
    "email": rf"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@{_HOST}",
    "hostname": _HOST,
    "ipv4": rf"(?:{_BYTE}\.){{3}}{_BYTE}",
    "ipv6": r"(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "uri": rf"https?://{_HOST}{_PATH}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "uuid4": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "json-pointer": r"(?:/[A-Za-z0-9._-]*)*",
    "byte": r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
    "decimal": r"-?(?:0|[1-9]\d{0,15})(?:\.\d{1,16})?",
}
FORMATS |= {"url": FORMATS["uri"], "http-url": FORMATS["uri"], "uri-reference": FORMATS["uri"], "iri": FORMATS["uri"]}
FORMATS |= {"idn-email": FORMATS["email"], "idn-hostname": _HOST, "base64": FORMATS["byte"]}
FORMATS |= {"base64url": r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?"}
_OF_ANY_TEXT = (
    "password",
    "binary",
    "path",
    "file-path",
    "directory-path",
    "text",
    "textarea",
    "markdown",
    "multiline",
)


def says(schema: dict[str, Any]) -> bool:
    """Whether a schema says more of a string than how long it is."""
    return any(key in schema for key in ("pattern", "format", "allPatterns", "allFormats"))


def string_language(schema: dict[str, Any], place: Place) -> Language:
    """All strings that a schema allows."""
    parts = [_pattern(each, place) for each in (*_one(schema, "pattern"), *schema.get("allPatterns", ()))]
    parts += [_format(each, place) for each in (*_one(schema, "format"), *schema.get("allFormats", ()))]
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if least or most is not None:
        parts.append(repeat(Chars(ANY), int(least), None if most is None else int(most)))
    return both(parts)


def _one(schema: dict[str, Any], key: str) -> list[Any]:
    return [schema[key]] if key in schema else []


def _pattern(source: Any, place: Place) -> Language:
    try:
        return pattern(source)
    except (PatternError, RecursionError) as error:
        what = str(error) if isinstance(error, PatternError) else "groups that are nested too deeply"
        raise SchemaError(place.at("pattern"), f"has {what}, which no grammar can say") from None


def _format(name: Any, place: Place) -> Language:
    if name in _OF_ANY_TEXT:
        return ALL
    if name not in FORMATS:
        raise SchemaError(place.at("format"), f"is {name!r}, which is not known here")
    return pattern(f"^(?:{FORMATS[name]})$")
