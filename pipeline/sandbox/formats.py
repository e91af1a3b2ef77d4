"""Formats: one answer as JSON, as JSON in a function call, or as REST XML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

Answer = dict[str, Any]

_NOT_XML = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(0xD800, 0xE000)])


def failure(code: int, message: str) -> Answer:
    """The answer that says what went wrong."""
    return {"stat": "fail", "code": code, "message": message}


def rendered(answer: Answer, params: Mapping[str, str]) -> tuple[bytes, str]:
    """The answer in the format that was asked for, and its content type."""
    if params.get("format", "rest") != "json":
        return _xml(answer), "text/xml; charset=utf-8"
    text = _json(answer)
    if params.get("nojsoncallback") in ("1", "true"):
        return text, "application/json"
    return f"{params.get('jsoncallback', 'jsonFlickrApi')}(".encode() + text + b")", "text/javascript; charset=utf-8"


def _json(answer: Answer) -> bytes:
    try:
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair goes on the wire escaped only
        return json.dumps(answer, separators=(",", ":")).encode()


def _xml(answer: Answer) -> bytes:
    root = ElementTree.Element("rsp", stat=answer["stat"])
    if answer["stat"] == "fail":
        ElementTree.SubElement(root, "err", code=str(answer["code"]), msg=answer["message"])
    else:
        _fill(root, {name: value for name, value in answer.items() if name != "stat"})
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _fill(element: ElementTree.Element, value: Mapping[str, Any]) -> None:
    """JSON's tree as XML's: objects and lists are children, `_content` is text, the rest are attributes."""
    for name, item in value.items():
        if name == "_content":
            element.text = str(item).translate(_NOT_XML)
        elif isinstance(item, Mapping):
            _fill(ElementTree.SubElement(element, name), item)
        elif isinstance(item, list):
            for one in item:
                _fill(ElementTree.SubElement(element, name), one)
        else:
            element.set(name, "" if item is None else str(item).translate(_NOT_XML))
