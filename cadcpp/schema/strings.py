"""What a schema says of a string, as a language."""

from typing import Any

from cadcpp.schema.charset import ANY
from cadcpp.schema.language import ALL, Chars, Language, both, either, negate, repeat, text
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
    "json-pointer": r"(?:/[A-Za-z0-9._-]*)*",
    "byte": r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
    "decimal": r"-?(?:0|[1-9]\d{0,15})(?:\.\d{1,16})?",
}
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-%s[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
FORMATS |= {f"uuid{version}": _UUID % version for version in range(1, 9)}
_IPV4, _IPV6 = FORMATS["ipv4"], FORMATS["ipv6"]
_IPV4_NET, _IPV6_NET = r"(?:%s\.0\.0\.0/8|%s\.%s\.0\.0/16|%s\.%s\.%s\.0/24)" % ((_BYTE,) * 6), rf"{_IPV6}/128"
FORMATS |= {"ipv4network": _IPV4_NET, "cidrv4": _IPV4_NET, "ipv4interface": rf"{_IPV4}/(?:3[0-2]|[12]?\d)"}
FORMATS |= {"ipv6network": _IPV6_NET, "cidrv6": _IPV6_NET, "ipv6interface": rf"{_IPV6}/(?:12[0-8]|1[01]\d|[1-9]?\d)"}
FORMATS |= {"ipvanyaddress": _IPV4, "ipvanynetwork": _IPV4_NET, "ipvanyinterface": FORMATS["ipv4interface"]}
FORMATS |= {  # what zod and pydantic have besides
    "guid": FORMATS["uuid"],
    "cuid": r"c[0-9a-z]{8,32}",
    "cuid2": r"[a-z][0-9a-z]{1,31}",
    "ulid": r"[0-7][0-9A-HJKMNP-TV-Z]{25}",
    "xid": r"[0-9a-v]{20}",
    "ksuid": r"[A-Za-z0-9]{27}",
    "nanoid": r"[A-Za-z0-9_-]{21}",
    "e164": r"\+[1-9]\d{6,14}",
    "jwt": r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}",
    "color": r"#[0-9a-f]{6}",
    "name-email": rf"[A-Za-z]{{1,20}}(?: [A-Za-z]{{1,20}})? <{FORMATS['email']}>",
    "relative-json-pointer": r"(?:0|[1-9]\d{0,2})(?:#|(?:/[A-Za-z0-9._-]*)*)",
    "multi-host-uri": rf"[a-z]{{2,12}}://{_HOST}(?::\d{{2,4}})?/[a-z0-9]{{1,20}}",
    "lowercase": r"[^A-Z\u0080-\uffff]*",
    "uppercase": r"[^a-z\u0080-\uffff]*",
    **{f"int{bits}": rf"-?[1-9]\d{{0,{digits}}}|0" for bits, digits in ((32, 8), (64, 17))},
    **{f"uint{bits}": rf"[1-9]\d{{0,{digits}}}|0" for bits, digits in ((32, 8), (64, 18))},
}
FORMATS |= {name: FORMATS["decimal"] for name in ("float", "double")}
FORMATS |= {"url": FORMATS["uri"], "http-url": FORMATS["uri"], "uri-reference": FORMATS["uri"], "iri": FORMATS["uri"]}
FORMATS |= {"idn-email": FORMATS["email"], "idn-hostname": _HOST, "base64": FORMATS["byte"]}
FORMATS |= {"base64url": r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?"}
_ENCODINGS = {"base64": "byte", "base64url": "base64url", "7bit": "text", "8bit": "text", "binary": "text"}
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


_SAYING = ("pattern", "format", "allPatterns", "allFormats", "notTexts", "contentEncoding", "contentMediaType")


def says(schema: dict[str, Any]) -> bool:
    """Whether a schema says more of a string than how long it is."""
    return any(key in schema for key in _SAYING)


def string_language(schema: dict[str, Any], place: Place) -> Language:
    """All strings that a schema allows."""
    parts = [_pattern(each, place) for each in (*_one(schema, "pattern"), *schema.get("allPatterns", ()))]
    parts += [_format(each, place) for each in (*_one(schema, "format"), *schema.get("allFormats", ()))]
    parts += [_content(schema, place), negate(either(map(text, schema.get("notTexts", ()))))]
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


def _content(schema: dict[str, Any], place: Place) -> Language:
    """What a text stands for."""
    if schema.get("contentMediaType") == "application/json":
        raise SchemaError(place.at("contentMediaType"), "is JSON in a text, which is not followed")
    encoding = schema.get("contentEncoding", "text")
    if encoding not in (*_ENCODINGS, "text"):
        raise SchemaError(place.at("contentEncoding"), f"is {encoding!r}, which is not known here")
    return _format(_ENCODINGS.get(encoding, "text"), place)


def _format(name: Any, place: Place) -> Language:
    if name in _OF_ANY_TEXT:
        return ALL
    if name not in FORMATS:
        raise SchemaError(place.at("format"), f"is {name!r}, which is not known here")
    return pattern(f"^(?:{FORMATS[name]})$")
